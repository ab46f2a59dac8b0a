//! The rules about the claim on a bead and the comment on it.

use super::*;
use crate::admission::Candidate;
use crate::polecat::fixtures::with_bead;

fn bead_after(pod: PodFacts) -> Snapshot {
    let mut s = with_bead("web-1");
    let spec = s.spec.as_ref().unwrap();
    let pod = PodFacts { branch: Some(spec.work.clone()), asked: Some(spec.hash.clone()), ..pod };
    (s.bead_store, s.pods) = (true, vec![pod]);
    settle(&mut s, NOW);
    s
}

fn candidate(s: &Snapshot) -> Option<Candidate> {
    assess(at(NOW), s).candidate(at(NOW), s)
}

fn comments(plan: &Plan) -> Option<&CommentInputs> {
    plan.actions
        .iter()
        .find_map(|d| if let Action::Comment(inputs) = d { Some(inputs) } else { None })
}

fn failed(text: &str, tries: u32, until: i64) -> Delivery<String> {
    Delivery::Failed { request: text.to_owned(), error: (), tries, until: at(until) }
}

#[test]
fn a_bead_is_claimed_before_a_slot_is_asked_for() {
    let mut s = with_bead("web-1");
    assert_eq!(candidate(&s), None);
    let plan = decide_with(at(NOW), &s, &Decision::NotAsked);
    assert_eq!(
        plan.actions,
        [Action::PatchMetadata { ledger: None, finalizer: true }, Action::Claim],
        "what is claimed can be released"
    );
    s.claim = ClaimFacts::Held;
    assert!(candidate(&s).is_some());
    let plan = settle(&mut s, NOW);
    assert!(starts(&plan).is_some());
    assert_eq!(
        (shown(&plan, "Claimed").status, shown(&plan, "Claimed").reason.as_ref()),
        (Status::True, "Claimed")
    );
    assert!(
        !settle(&mut snapshot(), NOW).status.conditions.iter().any(|c| c.type_ == "Claimed"),
        "no bead, no claim"
    );
}

#[test]
fn the_second_polecat_waits_without_a_slot_and_names_the_holder() {
    let mut s = with_bead("web-1");
    s.claim = ClaimFacts::HeldBy { polecat: "dev/first".into(), uid: "first".into() };
    let plan = settle(&mut s, NOW);
    assert!(plan.actions.is_empty() && candidate(&s).is_none());
    assert_eq!(plan.status.phase, PolecatPhase::Idle);
    for type_ in ["Claimed", "Admitted", "Ready"] {
        let condition = shown(&plan, type_);
        assert_eq!(
            (condition.status, condition.reason.as_ref()),
            (Status::False, "AlreadyClaimed"),
            "{type_}"
        );
        assert_eq!(condition.message, "bead web-1 is claimed by Polecat dev/first", "{type_}");
    }
    s.claim = ClaimFacts::Free;
    assert!(decide(at(NOW), &s).actions.contains(&Action::Claim));
    s.claim = ClaimFacts::Unknown("its Lease is for another bead".into());
    assert_eq!(shown(&settle(&mut s, NOW), "Admitted").reason, "ClaimUnreadable");
}

#[test]
fn a_claim_is_kept_while_the_polecat_may_continue_or_its_work_may_land() {
    let keeps = |change: &dyn Fn(&mut Snapshot)| {
        let mut s = bead_after(finished(1));
        assert_eq!(s.claim, ClaimFacts::Held);
        change(&mut s);
        !decide(at(NOW), &s).actions.contains(&Action::ReleaseClaim)
    };
    let open = |phase| {
        move |s: &mut Snapshot| {
            (s.desired, s.requests) = (DesiredState::Terminated, vec![request(1, 1, phase)]);
        }
    };
    assert!(keeps(&|s| s.requests = vec![request(1, 1, MergePhase::Queued)]));
    assert!(keeps(&open(MergePhase::Testing)), "its work is in the queue");
    assert!(keeps(&open(MergePhase::Landed)), "a finished bead is not begun again");
    assert!(keeps(&|s| s.desired = DesiredState::Terminated), "it is still to be submitted");
    assert!(keeps(&|s| s.desired = DesiredState::Idle));
    assert!(!keeps(&open(MergePhase::Rework)), "it will not be reworked");
    assert!(!keeps(&open(MergePhase::Rejected)));
    assert!(!keeps(&|s| s.deleting = true));
    assert!(
        keeps(&|s| (s.deleting, s.pods) = (true, vec![pod(2).running()])),
        "not while a pod of it works"
    );
}

#[test]
fn a_claim_is_released_once_the_store_closed_the_bead_for_what_landed() {
    let mut s = bead_after(finished(1));
    s.requests = vec![request(1, 1, MergePhase::Landed)];
    s.deliveries.bead.again = Some(at(NOW + 30));
    let waits = settle(&mut s, NOW);
    assert_eq!((&s.claim, waits.wake), (&ClaimFacts::Held, Some(at(NOW + 30))));
    s.deliveries.bead.closed_for = ["uid-request-1".to_owned()].into();
    let plan = settle(&mut s, NOW);
    assert_eq!((&s.claim, plan.wake), (&ClaimFacts::Free, None));
    assert!(!decide(at(NOW), &s).actions.contains(&Action::Claim), "nor is it taken again");
    s.requests.push(request(2, 2, MergePhase::Landed));
    assert!(decide(at(NOW), &s).actions.contains(&Action::Claim), "another landing counts too");
}

#[test]
fn a_polecat_that_gave_up_releases_its_bead_and_claims_it_again_when_retried() {
    let mut s = bead_after(finished(1));
    s.requests = vec![request(1, 1, MergePhase::Rework)];
    s.spec.as_mut().unwrap().max_attempts = 1;
    assert!(decide(at(NOW), &s).actions.contains(&Action::ReleaseClaim));
    settle(&mut s, NOW);
    assert_eq!(s.claim, ClaimFacts::Free);
    s.retry = Some("again".into());
    assert!(decide(at(NOW), &s).actions.contains(&Action::Claim));

    let gave_up = bead_after(pod(1).ended(Some(AgentExit::GaveUp), None));
    assert!(
        !decide(at(NOW), &gave_up).actions.contains(&Action::ReleaseClaim),
        "a person may have it continue"
    );
}

#[test]
fn a_deleted_polecat_releases_its_claim_before_its_finalizer_is_removed() {
    let mut s = with_bead("web-1");
    (s.claim, s.finalizer, s.labelled, s.deleting) = (ClaimFacts::Held, true, true, true);
    assert_eq!(
        decide(at(NOW), &s).actions,
        [Action::ReleaseClaim, Action::PatchMetadata { ledger: None, finalizer: false }]
    );
    s.ledger = Ledger::parse("{");
    assert_eq!(
        decide(at(NOW), &s).actions,
        [Action::ReleaseClaim, Action::PatchMetadata { ledger: None, finalizer: false }]
    );
}

#[test]
fn giving_up_is_commented_on_the_bead_until_the_store_has_it() {
    let mut s = bead_after(
        pod(1).ended(Some(AgentExit::GaveUp), Some(sync(SyncResult::Pushed, Some(commit(1)), 1))),
    );
    let plan = decide(at(NOW), &s);
    let sent = comments(&plan).unwrap().clone();
    assert_eq!(
        (sent.rig.as_str(), sent.bead.as_str(), sent.author.as_str()),
        ("web", "web-1", "dev/toast")
    );
    assert!(
        sent.text.starts_with("Polecat dev/toast gave up in attempt 1: GaveUp: "),
        "{}",
        sent.text
    );
    assert!(
        sent.text.ends_with(&format!(". Branch feature/web-1 holds {}", commit(1).short())),
        "{}",
        sent.text
    );
    s.deliveries.comment = failed(&sent.text, 9, NOW + 5);
    let plan = decide(at(NOW), &s);
    assert_eq!((comments(&plan), plan.wake), (None, Some(at(NOW + 5))));
    assert!(comments(&decide(at(NOW + 5), &s)).is_some(), "tried until it is acknowledged");
    s.deliveries.commented(&sent.text);
    assert!(decide(at(NOW + 5), &s).actions.is_empty());
    (s.deliveries.comment, s.bead_store) = (Delivery::Untried, false);
    assert!(decide(at(NOW + 5), &s).actions.is_empty(), "without a store there is no comment");
}

#[test]
fn a_store_that_does_not_answer_delays_a_deletion_for_a_bounded_number_of_tries() {
    let mut s = bead_after(pod(1).ended(Some(AgentExit::Crashed), None));
    s.deleting = true;
    settle(&mut s, NOW);
    let mut now = NOW;
    let mut tries = 0;
    while let Some(sent) = comments(&decide(at(now), &s)).cloned() {
        assert!(
            sent.text.contains("was deleted after attempt 1; its work has not landed"),
            "{}",
            sent.text
        );
        tries += 1;
        s.deliveries.comment = failed(&sent.text, tries, now + 5);
        let waits = decide(at(now), &s);
        if tries < COMMENT_TRIES {
            assert!(waits.actions.is_empty() && waits.wake == Some(at(now + 5)), "{waits:?}");
        }
        now += 5;
    }
    assert_eq!(tries, COMMENT_TRIES);
    assert_eq!(
        decide(at(now), &s).actions,
        [Action::PatchMetadata { ledger: None, finalizer: false }]
    );

    let mut queued = bead_after(finished(1));
    (queued.deleting, queued.requests) = (true, vec![request(1, 1, MergePhase::Queued)]);
    assert!(comments(&decide(at(NOW), &queued)).is_none(), "what is in the queue lands without it");
    let mut forced = bead_after(pod(1).ended(Some(AgentExit::Crashed), None));
    (forced.deleting, forced.force_delete) = (true, true);
    assert!(comments(&decide(at(NOW), &forced)).is_none());
}
