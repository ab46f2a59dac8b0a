//! The rules about the claim on a bead and about what is told to it.

use super::*;
use crate::polecat::fixtures::with_bead;

fn bead_after(pod: PodFacts) -> Snapshot {
    let mut s = with_bead("web-1");
    let spec = s.spec.as_ref().unwrap();
    let pod = PodFacts { branch: Some(spec.work.clone()), asked: Some(spec.hash.clone()), ..pod };
    (s.bead_store, s.pods) = (true, vec![pod]);
    settle(&mut s, NOW);
    s
}

fn comments(plan: &Plan) -> Option<&RemarkInputs> {
    plan.deeds.iter().find_map(|d| if let Deed::Comment(inputs) = d { Some(inputs) } else { None })
}

#[test]
fn a_bead_is_claimed_before_anybody_asks_for_a_slot() {
    let mut s = with_bead("web-1");
    s.slot = Slot::Unasked;
    assert_eq!(wants_slot(at(NOW), &s), None);
    let plan = decide(at(NOW), &s);
    assert_eq!(
        plan.deeds,
        [Deed::Record { ledger: None, finalizer: true }, Deed::Claim],
        "what is claimed can be given back"
    );
    s.claim = ClaimFacts::Held;
    assert!(wants_slot(at(NOW), &s).is_some());
    s.slot = Slot::Granted;
    let plan = settle(&mut s, NOW);
    assert!(starts(&plan).is_some());
    assert_eq!(
        (shown(&plan, "Claimed").status, shown(&plan, "Claimed").reason.as_str()),
        (true, "Claimed")
    );
    assert!(
        !settle(&mut snapshot(), NOW).view.conditions.iter().any(|c| c.kind == "Claimed"),
        "no bead, no claim"
    );
}

#[test]
fn who_comes_second_waits_without_a_slot_and_names_the_holder() {
    let mut s = with_bead("web-1");
    s.claim = ClaimFacts::HeldBy { polecat: "dev/first".into(), uid: "first".into() };
    let plan = settle(&mut s, NOW);
    assert!(plan.deeds.is_empty() && wants_slot(at(NOW), &s).is_none());
    assert_eq!(plan.view.phase, Phase::Idle);
    for kind in ["Claimed", "Admitted", "Ready"] {
        let line = shown(&plan, kind);
        assert_eq!((line.status, line.reason.as_str()), (false, "AlreadyClaimed"), "{kind}");
        assert_eq!(line.message, "bead web-1 is claimed by Polecat dev/first", "{kind}");
    }
    s.claim = ClaimFacts::Free;
    assert!(decide(at(NOW), &s).deeds.contains(&Deed::Claim));
    s.claim = ClaimFacts::Unknown("its Lease is of another bead".into());
    assert_eq!(shown(&settle(&mut s, NOW), "Admitted").reason, "ClaimUnreadable");
}

#[test]
fn a_claim_is_kept_until_nobody_may_want_to_go_on() {
    let keeps = |change: &dyn Fn(&mut Snapshot)| {
        let mut s = bead_after(finished(1));
        assert_eq!(s.claim, ClaimFacts::Held);
        change(&mut s);
        !decide(at(NOW), &s).deeds.contains(&Deed::ReleaseClaim)
    };
    let open = |phase| {
        move |s: &mut Snapshot| {
            (s.desired, s.requests) = (Desired::Terminated, vec![request(1, 1, phase)])
        }
    };
    assert!(keeps(&|s| s.requests = vec![request(1, 1, RequestPhase::Queued)]));
    assert!(keeps(&open(RequestPhase::Testing)), "its work is in the queue");
    assert!(keeps(&open(RequestPhase::Landed)), "a finished bead is not begun again");
    assert!(keeps(&|s| s.desired = Desired::Terminated), "it is still to be submitted");
    assert!(keeps(&|s| s.desired = Desired::Idle));
    assert!(!keeps(&open(RequestPhase::Rework)), "nobody will do it over");
    assert!(!keeps(&open(RequestPhase::Rejected)));
    assert!(!keeps(&|s| s.deleting = true));
    assert!(
        keeps(&|s| (s.deleting, s.pods) = (true, vec![pod(2).running()])),
        "not while a pod of it works"
    );
}

#[test]
fn who_gave_up_holds_the_bead_no_longer_and_claims_it_again_when_re_armed() {
    let mut s = bead_after(finished(1));
    s.requests = vec![request(1, 1, RequestPhase::Rework)];
    s.spec.as_mut().unwrap().max_attempts = 1;
    assert!(decide(at(NOW), &s).deeds.contains(&Deed::ReleaseClaim));
    settle(&mut s, NOW);
    assert_eq!(s.claim, ClaimFacts::Free);
    s.retry = Some("again".into());
    assert!(decide(at(NOW), &s).deeds.contains(&Deed::Claim));

    let gave_up = bead_after(pod(1).ended(Some(AgentExit::GaveUp), None));
    assert!(
        !decide(at(NOW), &gave_up).deeds.contains(&Deed::ReleaseClaim),
        "a person may send it on"
    );
}

#[test]
fn a_deleted_polecat_gives_its_claim_back_before_it_goes() {
    let mut s = with_bead("web-1");
    (s.claim, s.finalizer, s.labelled, s.deleting) = (ClaimFacts::Held, true, true, true);
    assert_eq!(
        decide(at(NOW), &s).deeds,
        [Deed::ReleaseClaim, Deed::Record { ledger: None, finalizer: false }]
    );
    s.ledger = Ledger::parse("{");
    assert_eq!(
        decide(at(NOW), &s).deeds,
        [Deed::ReleaseClaim, Deed::Record { ledger: None, finalizer: false }]
    );
}

#[test]
fn giving_up_is_told_to_the_bead_until_the_store_has_it() {
    let mut s = bead_after(
        pod(1).ended(Some(AgentExit::GaveUp), Some(sync(SyncResult::Pushed, Some(commit(1)), 1))),
    );
    let plan = decide(at(NOW), &s);
    let said = comments(&plan).unwrap().clone();
    assert_eq!(
        (said.rig.as_str(), said.bead.as_str(), said.author.as_str()),
        ("web", "web-1", "dev/toast")
    );
    assert!(
        said.text.starts_with("Polecat dev/toast gave up in attempt 1: GaveUp: "),
        "{}",
        said.text
    );
    assert!(
        said.text.ends_with(&format!(". Branch feature/web-1 holds {}", commit(1).short())),
        "{}",
        said.text
    );
    s.remark = RemarkFacts::Failed { text: said.text.clone(), tries: 9, until: at(NOW + 5) };
    let plan = decide(at(NOW), &s);
    assert_eq!((comments(&plan), plan.wake), (None, Some(at(NOW + 5))));
    assert!(comments(&decide(at(NOW + 5), &s)).is_some(), "tried until it is acknowledged");
    s.remark = RemarkFacts::Acknowledged { text: said.text };
    assert!(decide(at(NOW + 5), &s).deeds.is_empty());
    (s.remark, s.bead_store) = (RemarkFacts::Untried, false);
    assert!(decide(at(NOW + 5), &s).deeds.is_empty(), "no store, nobody to tell");
}

#[test]
fn a_store_that_does_not_answer_holds_a_deletion_for_a_bounded_number_of_tries() {
    let mut s = bead_after(pod(1).ended(Some(AgentExit::Crashed), None));
    s.deleting = true;
    settle(&mut s, NOW);
    let mut now = NOW;
    let mut tries = 0;
    while let Some(said) = comments(&decide(at(now), &s)).cloned() {
        assert!(
            said.text.contains("was deleted after attempt 1; its work has not landed"),
            "{}",
            said.text
        );
        tries += 1;
        s.remark = RemarkFacts::Failed { text: said.text, tries, until: at(now + 5) };
        let waits = decide(at(now), &s);
        if tries < REMARK_TRIES {
            assert!(waits.deeds.is_empty() && waits.wake == Some(at(now + 5)), "{waits:?}");
        }
        now += 5;
    }
    assert_eq!(tries, REMARK_TRIES);
    assert_eq!(decide(at(now), &s).deeds, [Deed::Record { ledger: None, finalizer: false }]);

    let mut queued = bead_after(finished(1));
    (queued.deleting, queued.requests) = (true, vec![request(1, 1, RequestPhase::Queued)]);
    assert!(comments(&decide(at(NOW), &queued)).is_none(), "what is in the queue lands without it");
    let mut forced = bead_after(pod(1).ended(Some(AgentExit::Crashed), None));
    (forced.deleting, forced.force_delete) = (true, true);
    assert!(comments(&decide(at(NOW), &forced)).is_none());
}
