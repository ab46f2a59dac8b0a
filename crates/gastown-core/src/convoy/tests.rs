use std::collections::BTreeMap;

use super::*;

/// A convoy that starts Polecats for these open beads, each of which waits for the ones after the
/// colon.
fn dispatching(beads: &[&str]) -> Snapshot {
    let mut store = BTreeMap::new();
    for text in beads {
        let (id, needs) = text.split_once(':').unwrap_or((text, ""));
        let dependencies: Vec<_> =
            needs.split(' ').filter(|on| !on.is_empty()).map(|on| edge(on, "blocks")).collect();
        let blocked = !dependencies.is_empty();
        store.insert(id.to_owned(), BeadFact { dependencies, blocked, ready: !blocked, ..open() });
    }
    Snapshot {
        tracked: beads
            .iter()
            .map(|text| text.split(':').next().unwrap_or_default().to_owned())
            .collect(),
        dispatch: true,
        store: Store::Read(store),
        ..following(&[])
    }
}

fn following(beads: &[&str]) -> Snapshot {
    let rig = Rig {
        name: "web".into(),
        prefixes: vec!["gt".into()],
        allows: true,
        most: 8,
        ..Rig::default()
    };
    Snapshot {
        namespace: "team".into(),
        deleting: false,
        tracked: beads.iter().map(|id| (*id).to_owned()).collect(),
        rig: RigState::Present(rig),
        dispatch: false,
        policy: Policy::Continue,
        suspended: false,
        parallelism: None,
        store: Store::None,
        polecats: BTreeMap::new(),
        requests: BTreeMap::new(),
        taken: std::collections::BTreeSet::new(),
        counted: Counted::default(),
        told: None,
    }
}

fn open() -> BeadFact {
    BeadFact {
        status: "open".into(),
        priority: 2,
        ready: true,
        kind: "task".into(),
        ..BeadFact::default()
    }
}

fn edge(on: &str, kind: &str) -> Dependency {
    Dependency { on: on.into(), kind: kind.into() }
}

impl Snapshot {
    fn bead(mut self, id: &str, change: impl FnOnce(&mut BeadFact)) -> Self {
        if let Store::Read(beads) = &mut self.store {
            change(beads.entry(id.to_owned()).or_insert_with(open));
        }
        self
    }

    fn polecat(mut self, bead: &str, state: PolecatState, reason: &str) -> Self {
        let fact = PolecatFact { name: format!("p-{bead}"), state, reason: reason.into() };
        self.polecats.entry(bead.to_owned()).or_default().push(fact);
        self
    }

    fn request(mut self, bead: &str, state: RequestState, reason: &str) -> Self {
        let fact = RequestFact { name: format!("m-{bead}"), state, reason: reason.into() };
        self.requests.entry(bead.to_owned()).or_default().push(fact);
        self
    }

    fn rig(mut self, change: impl FnOnce(&mut Rig)) -> Self {
        if let RigState::Present(rig) = &mut self.rig {
            change(rig);
        }
        self
    }
}

fn fed(s: &Snapshot) -> Vec<String> {
    decide(s).feed.into_iter().map(|feed| feed.bead).collect()
}

fn phases(s: &Snapshot) -> String {
    decide(s)
        .verdict
        .lines
        .iter()
        .map(|line| format!("{}:{:?}", line.id, line.phase))
        .collect::<Vec<_>>()
        .join(" ")
}

fn progressing(s: &Snapshot) -> (Option<bool>, String) {
    let said = decide(s).verdict.progressing;
    (said.holds, said.reason)
}

fn validity(s: &Snapshot) -> (Option<bool>, String, String) {
    let said = decide(s).verdict.valid.expect("a convoy that dispatches says whether it is valid");
    (said.holds, said.reason, said.message)
}

#[test]
fn following_counts_done_polecats_and_starts_nothing() {
    let s = following(&["gt-1", "gt-2"]).polecat("gt-1", PolecatState::Done, "").polecat(
        "gt-2",
        PolecatState::Active,
        "",
    );
    let plan = decide(&s);
    assert_eq!(
        (plan.verdict.phase, plan.verdict.progress()),
        (Phase::InProgress, "1/2".to_owned())
    );
    assert_eq!(
        (plan.verdict.completed, plan.verdict.pending),
        (vec!["gt-1".to_owned()], vec!["gt-2".to_owned()])
    );
    assert!(plan.feed.is_empty() && plan.verdict.valid.is_none() && plan.tell.is_none());
    assert_eq!(
        (plan.verdict.ready.holds, plan.verdict.ready.reason.as_str()),
        (Some(true), "Synced")
    );
}

#[test]
fn what_counted_once_counts_when_its_polecat_is_gone() {
    let s = following(&["gt-1"]).polecat("gt-1", PolecatState::Done, "");
    let counted = decide(&s).count.expect("it is new");
    let later = Snapshot { counted: Counted::read(Some(&counted.write())), ..following(&["gt-1"]) };
    let plan = decide(&later);
    assert_eq!((plan.verdict.phase, plan.count), (Phase::Complete, None));
    let dispatch = Snapshot { dispatch: true, store: dispatching(&["gt-1"]).store, ..later };
    assert_eq!(
        decide(&dispatch).verdict.phase,
        Phase::InProgress,
        "a polecat's word is not a landing"
    );
}

#[test]
fn what_is_no_annotation_of_ours_counts_nothing() {
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
fn a_landing_starts_what_waited_for_it_before_the_store_has_heard() {
    let s = dispatching(&["gt-1", "gt-2:gt-1"]);
    assert_eq!(fed(&s), ["gt-1"]);
    let s =
        s.polecat("gt-1", PolecatState::Done, "").request("gt-1", RequestState::Open, "Testing");
    assert_eq!((fed(&s).len(), phases(&s)), (0, "gt-1:Submitted gt-2:Blocked".to_owned()));
    let s = s.request("gt-1", RequestState::Landed, "");
    assert_eq!((fed(&s), phases(&s)), (vec!["gt-2".to_owned()], "gt-1:Done gt-2:Ready".to_owned()));
}

#[test]
fn done_is_not_landed_where_beads_are_dispatched() {
    let s = dispatching(&["gt-1"]).polecat("gt-1", PolecatState::Done, "");
    assert_eq!(
        (decide(&s).verdict.phase, phases(&s)),
        (Phase::InProgress, "gt-1:Submitted".to_owned())
    );
}

#[test]
fn priority_goes_before_age_and_age_before_names() {
    let s = dispatching(&["gt-a", "gt-b", "gt-c", "gt-d"])
        .bead("gt-a", |bead| bead.created = None)
        .bead("gt-b", |bead| bead.created = Some(20))
        .bead("gt-c", |bead| bead.created = Some(10))
        .bead("gt-d", |bead| (bead.priority, bead.created) = (0, Some(30)));
    assert_eq!(fed(&s), ["gt-d", "gt-c", "gt-b", "gt-a"]);
}

#[test]
fn neither_the_convoys_nor_the_rigs_limit_is_exceeded() {
    let s = Snapshot { parallelism: Some(2), ..dispatching(&["gt-1", "gt-2", "gt-3"]) }.polecat(
        "gt-1",
        PolecatState::Active,
        "",
    );
    assert_eq!(fed(&s), ["gt-2"]);
    let s = s.polecat("gt-2", PolecatState::Paused, "");
    assert_eq!(
        (fed(&s).len(), progressing(&s)),
        (0, (Some(true), "ParallelismReached".to_owned()))
    );
    let s = dispatching(&["gt-1", "gt-2", "gt-3"]).rig(|rig| (rig.most, rig.active) = (5, 4));
    assert_eq!((fed(&s), progressing(&s).1), (vec!["gt-1".to_owned()], "AtCapacity".to_owned()));
    let s = s.rig(|rig| rig.active = 9);
    assert_eq!((fed(&s).len(), progressing(&s)), (0, (Some(false), "AtCapacity".to_owned())));
}

#[test]
fn beads_that_cannot_be_worked_on_as_listed_are_named_and_nothing_is_started() {
    let cycle = dispatching(&["gt-1:gt-3", "gt-2:gt-1", "gt-3:gt-2", "gt-4"]);
    let (holds, reason, message) = validity(&cycle);
    assert_eq!((holds, reason.as_str(), fed(&cycle).len()), (Some(false), "DependencyCycle", 0));
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
    assert_eq!((holds, reason.as_str(), fed(&unknown).len()), (Some(false), "UnknownBead", 0));
    assert!(message.starts_with("gt-99 is not in the store of rig web"), "{message}");
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
        (holds, reason.as_str(), fed(&closed)),
        (Some(true), "ClosedBeads", vec!["gt-2".to_owned()])
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
        bead.dependencies = vec![edge("gt-9", "related"), edge("other-1", "blocks")]
    });
    let s = s.bead("gt-9", |_| {});
    assert_eq!(fed(&s), ["gt-1"], "a related bead, and one of another store, do not block");
    let s = s
        .bead("gt-9", |bead| bead.dependencies = vec![edge("gt-8", "blocks")])
        .bead("gt-8", |_| {});
    let s = s.bead("gt-1", |bead| bead.dependencies.push(edge("gt-9", "parent-child")));
    assert_eq!(
        (fed(&s).len(), phases(&s)),
        (0, "gt-1:Blocked".to_owned()),
        "what blocks the parent blocks the child"
    );
    assert!(decide(&s).verdict.lines[0].reason.contains("gt-8"));
    assert_eq!(decide(&s).verdict.phase, Phase::InProgress, "a bead outside can still be closed");
    let s = s.bead("gt-8", |bead| bead.status = "closed".into());
    assert_eq!(fed(&s), ["gt-1"]);
    let s = s.bead("gt-1", |bead| (bead.blocked, bead.ready) = (true, false));
    assert_eq!(
        (fed(&s).len(), phases(&s)),
        (0, "gt-1:Blocked".to_owned()),
        "the store knows more than the edges that were read"
    );
}

#[test]
fn a_bead_of_somebody_else_or_of_no_work_is_left_alone() {
    let ours = || dispatching(&["gt-1"]);
    let taken = ours()
        .bead("gt-1", |bead| (bead.status, bead.assignee) = ("in_progress".into(), "ann".into()));
    assert_eq!(
        decide(&taken).verdict.lines[0].reason,
        "NotOpen: its status is in_progress, assigned to ann"
    );
    let deferred = ours().bead("gt-1", |bead| bead.ready = false);
    let gate = ours().bead("gt-1", |bead| bead.kind = "gate".into());
    let named = Snapshot { taken: ["gt-1".to_owned()].into(), ..ours() };
    for s in [taken, deferred, gate, named] {
        assert_eq!((fed(&s).len(), phases(&s)), (0, "gt-1:Open".to_owned()));
        assert_eq!(progressing(&s), (Some(false), "WaitingForBeads".to_owned()));
    }
}

#[test]
fn a_spent_polecat_sets_its_bead_aside_and_the_rest_goes_on() {
    let s = dispatching(&["gt-1", "gt-2:gt-1", "gt-3"]).polecat(
        "gt-1",
        PolecatState::Stuck,
        "AttemptsSpent",
    );
    let plan = decide(&s);
    assert_eq!(
        (fed(&s), plan.verdict.failed.clone()),
        (vec!["gt-3".to_owned()], vec!["gt-1".to_owned()])
    );
    assert!(plan.verdict.degraded.message.contains("gt-1 (AttemptsSpent)"));
    let s = s.request("gt-3", RequestState::Landed, "");
    let plan = decide(&s);
    assert_eq!((plan.verdict.phase, plan.feed.len()), (Phase::Failed, 0));
    let Some(Tell::End { end: End::Failed, mark, .. }) = plan.tell else {
        panic!("{:?}", plan.tell)
    };
    let told = Snapshot { told: Some(mark), ..s };
    assert_eq!(decide(&told).tell, None);
    let mut again = told;
    again.polecats.insert(
        "gt-1".into(),
        vec![PolecatFact { name: "p".into(), state: PolecatState::Active, reason: String::new() }],
    );
    let plan = decide(&again);
    assert_eq!((plan.verdict.phase, plan.tell), (Phase::InProgress, Some(Tell::Forget)));
}

#[test]
fn a_rejected_request_is_a_failure_and_a_rework_is_not() {
    let done = |state, reason| {
        dispatching(&["gt-1"])
            .polecat("gt-1", PolecatState::Done, "")
            .request("gt-1", state, reason)
    };
    assert_eq!(phases(&done(RequestState::Rejected, "ByHand")), "gt-1:Failed");
    assert_eq!(phases(&done(RequestState::Past, "Rework")), "gt-1:Submitted");
}

#[test]
fn stop_starts_nothing_after_a_failure_and_ends_when_the_rest_has() {
    let s = Snapshot { policy: Policy::Stop, ..dispatching(&["gt-1", "gt-2", "gt-3"]) }
        .polecat("gt-1", PolecatState::Stuck, "GaveUp")
        .polecat("gt-2", PolecatState::Active, "");
    assert_eq!(
        (fed(&s).len(), progressing(&s), decide(&s).verdict.phase),
        (0, (Some(true), "Stopped".into()), Phase::InProgress)
    );
    let s = s.request("gt-2", RequestState::Landed, "");
    assert_eq!(decide(&s).verdict.phase, Phase::Failed);
}

#[test]
fn nothing_is_started_while_somebody_or_something_says_so() {
    let base = || dispatching(&["gt-1"]);
    let unavailable =
        Snapshot { store: Store::Unavailable("NotSynced: not read yet".into()), ..base() };
    let missing = Snapshot { rig: RigState::Missing("web".into()), ..base() };
    let all = [
        ("Suspended", Snapshot { suspended: true, ..base() }),
        ("RigSuspended", base().rig(|rig| rig.suspended = true)),
        ("RigTerminating", base().rig(|rig| rig.deleting = true)),
        ("NamespaceNotAllowed", base().rig(|rig| rig.allows = false)),
        ("RigNotFound", missing),
        ("NoRig", Snapshot { rig: RigState::Unnamed, ..base() }),
        ("NoBeadStore", Snapshot { store: Store::None, ..base() }),
        ("BeadStoreUnavailable", unavailable.clone()),
        ("Terminating", Snapshot { deleting: true, ..base() }),
    ];
    for (reason, s) in all {
        assert_eq!((fed(&s).len(), progressing(&s)), (0, (Some(false), reason.to_owned())));
    }
    assert_eq!((validity(&unavailable).0, phases(&unavailable)), (None, "gt-1:Unknown".to_owned()));
}

#[test]
fn an_end_is_told_once_and_another_bead_makes_another_end() {
    let s = dispatching(&["gt-1"]).request("gt-1", RequestState::Landed, "");
    let Some(Tell::End { end: End::Complete, mark, message }) = decide(&s).tell else {
        panic!("{:?}", decide(&s))
    };
    assert_eq!(message, "all 1 beads are done");
    let mut told = Snapshot { told: Some(mark.clone()), ..s };
    assert_eq!(decide(&told).tell, None);
    told.tracked.push("gt-2".into());
    let reopened = told.bead("gt-2", |_| {});
    let plan = decide(&reopened);
    assert_eq!(
        (plan.verdict.phase, fed(&reopened), plan.tell),
        (Phase::InProgress, vec!["gt-2".to_owned()], None)
    );
    let ended = reopened.request("gt-2", RequestState::Landed, "");
    assert!(
        matches!(decide(&ended).tell, Some(Tell::End { end: End::Complete, mark: other, .. }) if other != mark)
    );
}

#[test]
fn names_of_polecats_are_dns_labels_and_tell_beads_and_rigs_apart() {
    let long = "x".repeat(255);
    let names: Vec<String> = [
        ("a", "gt-1"),
        ("b", "gt-1"),
        ("a", "gt-1.1"),
        ("a", "gt-1-1"),
        ("a", "GT_1-1"),
        ("a", &long),
        ("a", "___"),
        ("a", "日本"),
    ]
    .iter()
    .map(|(rig, bead)| polecat_name(rig, bead))
    .collect();
    for name in &names {
        assert!(name.len() <= 55 && !name.starts_with('-') && !name.ends_with('-'), "{name}");
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
            "{name}"
        );
    }
    let different: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{names:?}");
    assert!(names[0].starts_with("gt-1-"));
    assert_eq!(polecat_name("a", "gt-1"), names[0]);
}
