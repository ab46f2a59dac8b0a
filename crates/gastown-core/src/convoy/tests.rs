use std::collections::BTreeMap;

use gastown_api::conditions::Status;
use gastown_api::{ConvoyPhase, DesiredState, FailurePolicy, MergePhase, PolecatPhase};

use super::fixtures::{dispatching, edge, tracking};
use super::*;

/// The beads that a Polecat is created for.
fn started(s: &Snapshot) -> Vec<String> {
    decide(s).polecats.into_iter().map(|polecat| polecat.bead).collect()
}

fn phases(s: &Snapshot) -> String {
    decide(s)
        .assessment
        .beads
        .iter()
        .map(|bead| format!("{}:{:?}", bead.id, bead.phase))
        .collect::<Vec<_>>()
        .join(" ")
}

fn progressing(s: &Snapshot) -> (Status, String) {
    let progressing = decide(s).assessment.progressing;
    (progressing.status, progressing.reason.into_owned())
}

fn validity(s: &Snapshot) -> (Status, String, String) {
    let valid = decide(s).assessment.valid.expect("a convoy that dispatches has this condition");
    (valid.status, valid.reason.into_owned(), valid.message)
}

fn reason<'a>(plan: &'a Plan, bead: &str) -> &'a str {
    let status = plan.assessment.beads.iter().find(|status| status.id == bead).unwrap();
    status.reason.as_deref().unwrap_or_default()
}

#[test]
fn a_phase_of_a_later_version_is_neither_an_end_nor_a_failure() {
    let of = |desired| PolecatState::of(Some(PolecatPhase::Unknown), desired);
    assert_eq!(of(DesiredState::Working), PolecatState::Active);
    assert_eq!(of(DesiredState::Idle), PolecatState::Paused);
    assert_eq!(of(DesiredState::Unknown), PolecatState::Paused);
    let s = dispatching(&["gt-1"]).request("gt-1", MergePhase::Unknown, "Postponed");
    assert_eq!(phases(&s), "gt-1:Submitted");
    assert_eq!(started(&s), Vec::<String>::new());
}

#[test]
fn a_failure_policy_of_a_later_version_starts_nothing_and_is_named() {
    let mut s = dispatching(&["gt-1"]);
    assert_eq!(started(&s), ["gt-1"]);
    s.failure_policy = FailurePolicy::Unknown;
    assert_eq!(started(&s), Vec::<String>::new());
    let message = decide(&s).assessment.progressing.message;
    assert!(message.contains("spec.failurePolicy"), "{message}");
}

#[test]
fn a_convoy_that_tracks_counts_done_polecats_and_starts_nothing() {
    let s = tracking(&["gt-1", "gt-2"]).polecat("gt-1", PolecatState::Done, "").polecat(
        "gt-2",
        PolecatState::Active,
        "",
    );
    let plan = decide(&s);
    assert_eq!(
        (plan.assessment.phase, plan.assessment.progress()),
        (ConvoyPhase::InProgress, "1/2".to_owned())
    );
    assert_eq!(
        (plan.assessment.completed, plan.assessment.pending),
        (vec!["gt-1".to_owned()], vec!["gt-2".to_owned()])
    );
    assert!(
        plan.polecats.is_empty() && plan.assessment.valid.is_none() && plan.announcement.is_none()
    );
    assert_eq!(
        (plan.assessment.ready.status, plan.assessment.ready.reason.as_ref()),
        (Status::True, "Synced")
    );
}

#[test]
fn a_bead_that_was_done_once_stays_done_when_its_polecat_is_gone() {
    let s = tracking(&["gt-1"]).polecat("gt-1", PolecatState::Done, "");
    let counted = decide(&s).counted.expect("it is new");
    let later = Snapshot { counted: Counted::read(Some(&counted.write())), ..tracking(&["gt-1"]) };
    let plan = decide(&later);
    assert_eq!((plan.assessment.phase, plan.counted), (ConvoyPhase::Complete, None));
    let dispatch = Snapshot { dispatch: true, store: dispatching(&["gt-1"]).store, ..later };
    assert_eq!(
        decide(&dispatch).assessment.phase,
        ConvoyPhase::InProgress,
        "a polecat that is done has not landed"
    );
}

#[test]
fn a_text_that_is_not_our_annotation_counts_nothing() {
    for text in ["", "{", "[]", "7", "{\"landed\":7}"] {
        assert_eq!(Counted::read(Some(text)), Counted::default(), "{text}");
    }
    let many = Counted {
        landed: (0..5_000).map(|n| format!("{n:0>255}")).collect(),
        ..Counted::default()
    };
    let written = many.write();
    assert!(written.len() < 200_000, "{}", written.len());
    assert!(!Counted::read(Some(&written)).landed.is_empty());
}

#[test]
fn a_landing_starts_what_waited_for_it_before_the_store_has_seen_it() {
    let s = dispatching(&["gt-1", "gt-2:gt-1"]);
    assert_eq!(started(&s), ["gt-1"]);
    let s =
        s.polecat("gt-1", PolecatState::Done, "").request("gt-1", MergePhase::Testing, "Testing");
    assert_eq!((started(&s).len(), phases(&s)), (0, "gt-1:Submitted gt-2:Blocked".to_owned()));
    let s = s.request("gt-1", MergePhase::Landed, "");
    assert_eq!(
        (started(&s), phases(&s)),
        (vec!["gt-2".to_owned()], "gt-1:Done gt-2:Ready".to_owned())
    );
}

#[test]
fn done_is_not_landed_where_beads_are_dispatched() {
    let s = dispatching(&["gt-1"]).polecat("gt-1", PolecatState::Done, "");
    assert_eq!(
        (decide(&s).assessment.phase, phases(&s)),
        (ConvoyPhase::InProgress, "gt-1:Submitted".to_owned())
    );
}

#[test]
fn priority_goes_before_age_and_age_before_names() {
    let s = dispatching(&["gt-a", "gt-b", "gt-c", "gt-d"])
        .bead("gt-a", |bead| bead.created = None)
        .bead("gt-b", |bead| bead.created = Some(20))
        .bead("gt-c", |bead| bead.created = Some(10))
        .bead("gt-d", |bead| (bead.priority, bead.created) = (0, Some(30)));
    assert_eq!(started(&s), ["gt-d", "gt-c", "gt-b", "gt-a"]);
}

#[test]
fn neither_the_convoys_nor_the_rigs_limit_is_exceeded() {
    let s = Snapshot { parallelism: Some(2), ..dispatching(&["gt-1", "gt-2", "gt-3"]) }.polecat(
        "gt-1",
        PolecatState::Active,
        "",
    );
    assert_eq!(started(&s), ["gt-2"]);
    let s = s.polecat("gt-2", PolecatState::Paused, "");
    assert_eq!(
        (started(&s).len(), progressing(&s)),
        (0, (Status::True, "ParallelismReached".to_owned()))
    );
    let s =
        dispatching(&["gt-1", "gt-2", "gt-3"]).rig(|rig| (rig.max_polecats, rig.active) = (5, 4));
    assert_eq!(
        (started(&s), progressing(&s).1),
        (vec!["gt-1".to_owned()], "AtCapacity".to_owned())
    );
    let s = s.rig(|rig| rig.active = 9);
    assert_eq!((started(&s).len(), progressing(&s)), (0, (Status::False, "AtCapacity".to_owned())));
}

#[test]
fn beads_that_cannot_be_worked_on_as_listed_are_named_and_nothing_is_started() {
    let cycle = dispatching(&["gt-1:gt-3", "gt-2:gt-1", "gt-3:gt-2", "gt-4"]);
    let (holds, reason, message) = validity(&cycle);
    assert_eq!(
        (holds, reason.as_str(), started(&cycle).len()),
        (Status::False, "DependencyCycle", 0)
    );
    assert!(
        message.contains("gt-1 → ")
            && message.contains("gt-2")
            && message.contains("gt-3")
            && !message.contains("gt-4"),
        "{message}"
    );
    let mut unknown = dispatching(&["gt-1"]);
    unknown.tracked.push("gt-99".into());
    let (holds, reason, message) = validity(&unknown);
    assert_eq!(
        (holds, reason.as_str(), started(&unknown).len()),
        (Status::False, "UnknownBead", 0)
    );
    assert!(message.starts_with("gt-99 is not in the bead store of rig web"), "{message}");
    let mut foreign = dispatching(&["gt-1"]);
    foreign.tracked.extend(["ap-1".into(), "gtx-1".into()]);
    let (_, reason, message) = validity(&foreign);
    assert_eq!(reason, "ForeignBead");
    assert!(message.starts_with("ap-1, gtx-1 are not of rig web"), "{message}");
    let closed = dispatching(&["gt-1", "gt-2:gt-1"])
        .bead("gt-1", |bead| bead.status = "closed".into())
        .bead("gt-2", |bead| (bead.blocked, bead.ready) = (false, true));
    let (holds, reason, message) = validity(&closed);
    assert_eq!(
        (holds, reason.as_str(), started(&closed)),
        (Status::True, "ClosedBeads", vec!["gt-2".to_owned()])
    );
    assert!(message.contains("gt-1") && !message.contains("gt-2"), "{message}");
}

#[test]
fn a_bead_that_waits_for_itself_is_a_cycle() {
    let (_, reason, message) = validity(&dispatching(&["gt-1:gt-1"]));
    assert_eq!(reason, "DependencyCycle");
    assert!(message.contains("gt-1 → gt-1"), "{message}");
}

#[test]
fn only_what_blocks_holds_a_bead() {
    let s = dispatching(&["gt-1"]).bead("gt-1", |bead| {
        bead.dependencies = vec![edge("gt-9", "related"), edge("other-1", "blocks")];
    });
    let s = s.bead("gt-9", |_| {});
    assert_eq!(started(&s), ["gt-1"], "a related bead, and one of another store, do not block");
    let s = s
        .bead("gt-9", |bead| bead.dependencies = vec![edge("gt-8", "blocks")])
        .bead("gt-8", |_| {});
    let s = s.bead("gt-1", |bead| bead.dependencies.push(edge("gt-9", "parent-child")));
    assert_eq!(
        (started(&s).len(), phases(&s)),
        (0, "gt-1:Blocked".to_owned()),
        "what blocks the parent blocks the child"
    );
    assert!(reason(&decide(&s), "gt-1").contains("gt-8"));
    assert_eq!(
        decide(&s).assessment.phase,
        ConvoyPhase::InProgress,
        "a bead outside can still be closed"
    );
    let s = s.bead("gt-8", |bead| bead.status = "closed".into());
    assert_eq!(started(&s), ["gt-1"]);
    let s = s.bead("gt-1", |bead| (bead.blocked, bead.ready) = (true, false));
    assert_eq!(
        (started(&s).len(), phases(&s)),
        (0, "gt-1:Blocked".to_owned()),
        "the store knows more than the edges that were read"
    );
}

#[test]
fn a_bead_that_somebody_works_on_or_that_is_not_work_is_left_alone() {
    let ours = || dispatching(&["gt-1"]);
    let taken = ours()
        .bead("gt-1", |bead| (bead.status, bead.assignee) = ("in_progress".into(), "ann".into()));
    assert_eq!(
        reason(&decide(&taken), "gt-1"),
        "NotOpen: its status is in_progress, assigned to ann"
    );
    let deferred = ours().bead("gt-1", |bead| bead.ready = false);
    let gate = ours().bead("gt-1", |bead| bead.kind = "gate".into());
    let named = Snapshot { name_taken: ["gt-1".to_owned()].into(), ..ours() };
    for s in [taken, deferred, gate, named] {
        assert_eq!((started(&s).len(), phases(&s)), (0, "gt-1:Open".to_owned()));
        assert_eq!(progressing(&s), (Status::False, "WaitingForBeads".to_owned()));
    }
}

#[test]
fn a_polecat_without_attempts_left_fails_its_bead_and_the_rest_goes_on() {
    let s = dispatching(&["gt-1", "gt-2:gt-1", "gt-3"]).polecat(
        "gt-1",
        PolecatState::Stuck,
        "AttemptsSpent",
    );
    let plan = decide(&s);
    assert_eq!(
        (started(&s), plan.assessment.failed.clone()),
        (vec!["gt-3".to_owned()], vec!["gt-1".to_owned()])
    );
    assert!(plan.assessment.degraded.message.contains("gt-1 (AttemptsSpent)"));
    let s = s.request("gt-3", MergePhase::Landed, "");
    let plan = decide(&s);
    assert_eq!((plan.assessment.phase, plan.polecats.len()), (ConvoyPhase::Failed, 0));
    let Some(Announcement::Publish { end: End::Failed, mark, .. }) = plan.announcement else {
        panic!("{:?}", plan.announcement)
    };
    let announced = Snapshot { announced: Some(mark), ..s };
    assert_eq!(decide(&announced).announcement, None);
    let mut again = announced;
    again.polecats.insert(
        "gt-1".into(),
        vec![PolecatFact {
            name: "p".into(),
            state: PolecatState::Active,
            reason: String::new(),
            merged: false,
        }],
    );
    let plan = decide(&again);
    assert_eq!(
        (plan.assessment.phase, plan.announcement),
        (ConvoyPhase::InProgress, Some(Announcement::Clear))
    );
}

#[test]
fn a_rejected_request_is_a_failure_and_a_rework_is_not() {
    let done = |state, reason| {
        dispatching(&["gt-1"])
            .polecat("gt-1", PolecatState::Done, "")
            .request("gt-1", state, reason)
    };
    assert_eq!(phases(&done(MergePhase::Rejected, "ByHand")), "gt-1:Failed");
    assert_eq!(phases(&done(MergePhase::Rework, "Rework")), "gt-1:Submitted");
}

#[test]
fn stop_starts_nothing_after_a_failure_and_ends_when_the_rest_has() {
    let s =
        Snapshot { failure_policy: FailurePolicy::Stop, ..dispatching(&["gt-1", "gt-2", "gt-3"]) }
            .polecat("gt-1", PolecatState::Stuck, "GaveUp")
            .polecat("gt-2", PolecatState::Active, "");
    assert_eq!(
        (started(&s).len(), progressing(&s), decide(&s).assessment.phase),
        (0, (Status::True, "Stopped".into()), ConvoyPhase::InProgress)
    );
    let s = s.request("gt-2", MergePhase::Landed, "");
    assert_eq!(decide(&s).assessment.phase, ConvoyPhase::Failed);
}

#[test]
fn nothing_is_started_while_there_is_an_obstacle() {
    let base = || dispatching(&["gt-1"]);
    let unavailable =
        Snapshot { store: StoreState::Unavailable("NotSynced: not read yet".into()), ..base() };
    let missing = Snapshot { rig: RigState::Missing("web".into()), ..base() };
    let all = [
        ("Suspended", Snapshot { suspended: true, ..base() }),
        ("RigSuspended", base().rig(|rig| rig.suspended = true)),
        ("RigTerminating", base().rig(|rig| rig.deleting = true)),
        ("NamespaceNotAllowed", base().rig(|rig| rig.allows_namespace = false)),
        ("RigNotFound", missing),
        ("NoRig", Snapshot { rig: RigState::Unnamed, ..base() }),
        ("NoBeadStore", Snapshot { store: StoreState::Missing, ..base() }),
        ("BeadStoreUnavailable", unavailable.clone()),
        ("Terminating", Snapshot { deleting: true, ..base() }),
    ];
    for (reason, s) in all {
        assert_eq!((started(&s).len(), progressing(&s)), (0, (Status::False, reason.to_owned())));
    }
    assert_eq!(
        (validity(&unavailable).0, phases(&unavailable)),
        (Status::Unknown, "gt-1:Unknown".to_owned())
    );
}

#[test]
fn an_end_is_announced_once_and_another_bead_makes_another_end() {
    let s = dispatching(&["gt-1"]).request("gt-1", MergePhase::Landed, "");
    let Some(Announcement::Publish { end: End::Complete, mark, message }) = decide(&s).announcement
    else {
        panic!("{:?}", decide(&s))
    };
    assert_eq!(message, "all 1 beads are done");
    let mut announced = Snapshot { announced: Some(mark.clone()), ..s };
    assert_eq!(decide(&announced).announcement, None);
    announced.tracked.push("gt-2".into());
    let reopened = announced.bead("gt-2", |_| {});
    let plan = decide(&reopened);
    assert_eq!(
        (plan.assessment.phase, started(&reopened), plan.announcement),
        (ConvoyPhase::InProgress, vec!["gt-2".to_owned()], None)
    );
    let ended = reopened.request("gt-2", MergePhase::Landed, "");
    assert!(
        matches!(decide(&ended).announcement, Some(Announcement::Publish { end: End::Complete, mark: other, .. }) if other != mark)
    );
}

#[test]
fn an_end_that_an_earlier_version_announced_is_not_announced_again() {
    for sample in gastown_compat::samples("convoy-ended.txt") {
        let s = dispatching(&["ws-1", "ws-2"]).request("ws-1", MergePhase::Landed, "").request(
            "ws-2",
            MergePhase::Landed,
            "",
        );
        assert!(decide(&s).announcement.is_some());
        let announced = Snapshot { announced: Some(sample.text), ..s };
        assert_eq!(decide(&announced).announcement, None, "{}", sample.version);
    }
}

#[test]
fn the_state_of_a_polecat_follows_from_its_phase_and_what_is_desired() {
    use DesiredState::{Idle, Terminated, Working};
    let state = PolecatState::of;
    assert_eq!(state(None, Working), PolecatState::Active);
    assert_eq!(state(Some(PolecatPhase::Working), Idle), PolecatState::Paused);
    assert_eq!(state(Some(PolecatPhase::Stuck), Working), PolecatState::Stuck);
    assert_eq!(state(Some(PolecatPhase::Stuck), Terminated), PolecatState::Terminated);
    assert_eq!(state(Some(PolecatPhase::Done), Terminated), PolecatState::Done);
}

/// gt-1 landed, was closed for that, and its Polecat is still there.
fn landed_and_closed() -> Snapshot {
    let mut s = dispatching(&["gt-1", "gt-2:gt-1"])
        .polecat("gt-1", PolecatState::Done, "")
        .request("gt-1", MergePhase::Landed, "")
        .bead("gt-1", |bead| {
            bead.status = "closed".into();
            bead.closed_for = ["uid-gt-1".to_owned()].into();
        })
        .bead("gt-2", |bead| (bead.blocked, bead.ready) = (false, true));
    s.polecats.get_mut("gt-1").unwrap()[0].merged = true;
    s.counted = decide(&s).counted.expect("it is new");
    s
}

fn reopen(s: Snapshot) -> Snapshot {
    s.bead("gt-1", |bead| bead.status = "open".into())
        .bead("gt-2", |bead| (bead.blocked, bead.ready) = (true, false))
}

#[test]
fn a_bead_that_a_person_reopens_is_done_again_whatever_landed_before() {
    let s = reopen(landed_and_closed());
    let plan = decide(&s);
    assert_eq!(phases(&s), "gt-1:Ready gt-2:Blocked", "what waits for it waits again");
    assert!(!plan.counted.unwrap().landed.contains("gt-1"));
    let [new] = &plan.polecats[..] else { panic!("{:?}", plan.polecats) };
    assert_eq!(new.bead, "gt-1");
    assert_ne!(
        new.name,
        polecat_name("mad-max", "web", "gt-1"),
        "the Polecat of that name still exists"
    );

    let rejected = s.clone().request("gt-1", MergePhase::Rejected, "ByHand");
    assert_eq!(started(&rejected), ["gt-1"], "nor does it matter what was rejected before");

    // The next one is at work, then lands: that counts.
    let working = s.polecat("gt-1", PolecatState::Active, "");
    assert_eq!(
        (started(&working).len(), phases(&working)),
        (0, "gt-1:Working gt-2:Blocked".into())
    );
    let mut again = working;
    again.requests.get_mut("gt-1").unwrap().push(RequestFact {
        name: "m-again".into(),
        uid: "uid-again".into(),
        phase: MergePhase::Landed,
        reason: String::new(),
    });
    assert_eq!(phases(&again), "gt-1:Done gt-2:Ready");
}

#[test]
fn a_reopening_holds_when_requests_and_polecats_and_annotation_are_gone() {
    let s = reopen(landed_and_closed());
    let gone = Snapshot { polecats: BTreeMap::new(), requests: BTreeMap::new(), ..s.clone() };
    assert_eq!(started(&gone), ["gt-1"]);
    let forgotten = Snapshot { counted: Counted::default(), ..s };
    assert_eq!(started(&forgotten), ["gt-1"], "the store knows what it was closed for");
    let by_hand = gone.bead("gt-1", |bead| bead.closed_for.clear());
    assert_eq!(started(&by_hand), ["gt-1"], "a person closed it and opened it again");
}

#[test]
fn a_landing_that_the_store_has_not_seen_is_no_reopening() {
    let mut s = reopen(landed_and_closed()).bead("gt-1", |bead| bead.closed_for.clear());
    assert_eq!(phases(&s), "gt-1:Done gt-2:Ready", "the store may be behind");
    s.counted = Counted { landed: ["gt-1".to_owned()].into(), ..Counted::default() };
    s.requests.clear();
    assert_eq!(phases(&s), "gt-1:Done gt-2:Ready", "a store that is not written never closes it");
    for store in [StoreState::Unavailable("away".into()), StoreState::Missing] {
        let s = Snapshot { store, ..reopen(landed_and_closed()) };
        assert!(
            decide(&s).assessment.completed.contains(&"gt-1".to_owned()),
            "unknown is not open"
        );
    }
}

#[test]
fn a_convoy_that_only_tracks_has_a_reopened_bead_done_again_too() {
    let s = Snapshot { dispatch: false, ..reopen(landed_and_closed()) };
    let plan = decide(&s);
    assert_eq!((plan.assessment.completed.len(), plan.polecats.len()), (0, 0));
    let worked = s.polecat("gt-1", PolecatState::Done, "");
    assert_eq!(decide(&worked).assessment.completed, ["gt-1"], "somebody did it again");
}

#[test]
fn the_end_after_a_reopening_is_announced_again() {
    let mut s = landed_and_closed();
    s.tracked = vec!["gt-1".into()];
    let Some(Announcement::Publish { mark, .. }) = decide(&s).announcement else {
        panic!("{:?}", decide(&s))
    };
    s.announced = Some(mark);
    assert_eq!(decide(&s).announcement, None);
    assert_eq!(decide(&reopen(s)).announcement, Some(Announcement::Clear));
}

#[test]
fn a_convoy_waits_for_a_slot_while_a_ready_bead_is_not_started() {
    let s = dispatching(&["gt-1", "gt-2"]);
    assert_eq!((started(&s).len(), decide(&s).waits_for_slot()), (2, false), "all are started");
    let s = s.rig(|rig| rig.max_polecats = 1);
    assert_eq!((started(&s).len(), decide(&s).waits_for_slot()), (1, true));
    let blocked = dispatching(&["gt-1", "gt-2:gt-1"]);
    assert!(!decide(&blocked).waits_for_slot(), "what is blocked does not wait for a slot");
    assert!(!decide(&tracking(&["gt-1"])).waits_for_slot());
}
