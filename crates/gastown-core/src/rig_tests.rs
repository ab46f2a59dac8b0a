use super::*;

fn child(name: &str) -> Child {
    Child {
        reference: ChildRef {
            namespace: "gastown-system".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        },
        ours: false,
        same_duty: true,
        deleting: false,
        busy: false,
        created: Some(Timestamp::from_second(1_000).unwrap()),
        readiness: Readiness::Ready,
    }
}

fn ours(name: &str) -> Child {
    Child { ours: true, ..child(name) }
}

fn rig() -> Snapshot {
    Snapshot {
        name: "web".into(),
        namespace: "gastown-system".into(),
        finalizer: true,
        ..Snapshot::default()
    }
}

fn polecat(name: &str, phase: Phase) -> PolecatFact {
    PolecatFact {
        name: format!("dev/{name}"),
        phase,
        wanted: true,
        holds_slot: phase == Phase::Working,
    }
}

fn refinery_plan(rig: &Snapshot) -> ChildPlan {
    match decide(rig) {
        Plan::Keep { refinery, .. } => refinery,
        plan => panic!("{plan:?}"),
    }
}

#[test]
fn nothing_is_made_before_the_finalizer_is_there() {
    assert_eq!(decide(&Snapshot { finalizer: false, ..rig() }), Plan::AddFinalizer);
}

#[test]
fn a_rig_without_children_makes_both() {
    let make = ChildPlan::Apply { present: None };
    assert_eq!(
        decide(&rig()),
        Plan::Keep {
            refinery: make.clone(),
            witness: make,
            beads: ChildPlan::Withdraw { ours: vec![] }
        }
    );
}

#[test]
fn a_bead_store_is_made_only_where_it_is_wanted_and_goes_when_it_is_not() {
    let plan = |rig: &Snapshot| match decide(rig) {
        Plan::Keep { beads, .. } => beads,
        plan => panic!("{plan:?}"),
    };
    assert_eq!(plan(&Snapshot { wants_beads: true, ..rig() }), ChildPlan::Apply { present: None });
    let own = ours("web-beads");
    let unwanted = Snapshot { bead_stores: vec![own.clone(), child("mine")], ..rig() };
    assert_eq!(plan(&unwanted), ChildPlan::Withdraw { ours: vec![own.reference] });
}

#[test]
fn a_wanted_bead_store_is_waited_for_and_named() {
    let judged = |readiness| {
        let bead_stores = vec![Child { readiness, ..ours("web-beads") }];
        let rig = Snapshot {
            wants_beads: true,
            bead_stores,
            refineries: vec![ours("web-refinery")],
            ..rig()
        };
        judge(&rig, &decide(&rig), Acted::Done)
    };
    assert!(judged(Readiness::Ready).ready.0);
    let unknown = judged(Readiness::Unknown);
    assert_eq!(
        (unknown.ready.1, unknown.progressing.0, unknown.degraded.0),
        ("BeadStoreNotReady", true, false)
    );
    let broken =
        judged(Readiness::NotReady { reason: "NoJsonl".into(), message: "there is none".into() });
    assert_eq!(broken.degraded.1, "BeadStoreNotReady");
    assert!(broken.ready.2.ends_with("NoJsonl: there is none"), "{}", broken.ready.2);
}

#[test]
fn a_refinery_that_somebody_wrote_is_used_and_none_is_made() {
    let theirs = child("mine");
    let plan = refinery_plan(&Snapshot { refineries: vec![theirs.clone()], ..rig() });
    assert_eq!(plan, ChildPlan::Use { child: theirs.reference, withdraw: vec![] });
}

#[test]
fn the_oldest_of_several_is_used() {
    let old = Child { created: Some(Timestamp::from_second(1).unwrap()), ..child("old") };
    let plan = refinery_plan(&Snapshot { refineries: vec![child("young"), old.clone()], ..rig() });
    assert_eq!(plan, ChildPlan::Use { child: old.reference, withdraw: vec![] });
}

#[test]
fn ours_withdraws_when_somebody_writes_one_but_not_in_the_middle_of_a_merge() {
    let own = ours("web-refinery");
    let rig = |own: Child| Snapshot { refineries: vec![own, child("mine")], ..rig() };
    let idle = refinery_plan(&rig(own.clone()));
    assert!(
        matches!(&idle, ChildPlan::Use { withdraw, .. } if *withdraw == [own.reference.clone()]),
        "{idle:?}"
    );
    let busy = refinery_plan(&rig(Child { busy: true, ..own }));
    assert!(matches!(&busy, ChildPlan::Use { withdraw, .. } if withdraw.is_empty()), "{busy:?}");
}

#[test]
fn one_for_another_branch_does_not_count() {
    let other = Child { same_duty: false, ..child("releases") };
    assert_eq!(
        refinery_plan(&Snapshot { refineries: vec![other], ..rig() }),
        ChildPlan::Apply { present: None }
    );
}

#[test]
fn ours_is_kept_as_wanted_even_when_its_branch_is_to_change() {
    let own = Child { same_duty: false, ..ours("web-refinery") };
    assert_eq!(
        refinery_plan(&Snapshot { refineries: vec![own.clone()], ..rig() }),
        ChildPlan::Apply { present: Some(own.reference) }
    );
}

#[test]
fn a_taken_name_is_never_overwritten() {
    let other = Child { same_duty: false, ..child("web-refinery") };
    let rig = Snapshot { refineries: vec![other], ..rig() };
    let plan = decide(&rig);
    assert!(matches!(refinery_plan(&rig), ChildPlan::Blocked { .. }));
    let verdict = judge(&rig, &plan, Acted::Done);
    assert_eq!(
        (verdict.ready.0, verdict.ready.1, verdict.degraded.0),
        (false, "ChildCreationFailed", true)
    );
}

#[test]
fn a_child_that_goes_is_awaited_and_comes_back() {
    let going = Child { deleting: true, ..ours("web-refinery") };
    assert_eq!(
        refinery_plan(&Snapshot { refineries: vec![going], ..rig() }),
        ChildPlan::AwaitDeletion
    );
}

#[test]
fn deletion_waits_for_pods_and_names_them() {
    let polecats =
        vec![polecat("b", Phase::Working), polecat("a", Phase::Working), polecat("c", Phase::Done)];
    let rig =
        Snapshot { deleting: true, refineries: vec![ours("web-refinery")], polecats, ..rig() };
    let plan = decide(&rig);
    assert_eq!(plan, Plan::AwaitPolecats { polecats: vec!["dev/a".into(), "dev/b".into()] });
    let verdict = judge(&rig, &plan, Acted::Done);
    assert_eq!(verdict.ready.2, "deletion waits for 2 polecats: dev/a, dev/b");
}

#[test]
fn deletion_does_not_wait_for_a_polecat_without_a_slot() {
    let waiting = PolecatFact { holds_slot: false, ..polecat("a", Phase::Idle) };
    assert_eq!(
        decide(&Snapshot { deleting: true, polecats: vec![waiting.clone()], ..rig() }),
        Plan::RemoveFinalizer
    );
    let admitted = PolecatFact { holds_slot: true, ..waiting };
    assert!(matches!(
        decide(&Snapshot { deleting: true, polecats: vec![admitted], ..rig() }),
        Plan::AwaitPolecats { .. }
    ));
}

#[test]
fn deletion_takes_only_what_the_rig_made() {
    let own = ours("web-refinery");
    let rig = Snapshot { deleting: true, refineries: vec![own.clone(), child("mine")], ..rig() };
    assert_eq!(
        decide(&rig),
        Plan::DeleteChildren {
            refineries: vec![own.reference],
            witnesses: vec![],
            bead_stores: vec![]
        }
    );
}

#[test]
fn a_polecat_that_waits_is_queued_and_one_that_rests_is_idle() {
    let resting = PolecatFact { wanted: false, ..polecat("a", Phase::Idle) };
    let facts = [
        resting,
        polecat("b", Phase::Idle),
        polecat("c", Phase::Working),
        polecat("d", Phase::Terminated),
    ];
    assert_eq!(
        count(&facts),
        Counts { total: 4, idle: 1, queued: 1, working: 1, done: 0, stuck: 0 }
    );
}

#[test]
fn ready_means_that_the_refinery_is_ready() {
    let judged = |readiness| {
        let rig =
            Snapshot { refineries: vec![Child { readiness, ..ours("web-refinery") }], ..rig() };
        judge(&rig, &decide(&rig), Acted::Done)
    };
    let ready = judged(Readiness::Ready);
    assert!(ready.ready.0 && ready.available.0 && !ready.degraded.0 && !ready.progressing.0);
    let unknown = judged(Readiness::Unknown);
    assert!(!unknown.ready.0 && unknown.progressing.0 && !unknown.degraded.0);
    let broken = judged(Readiness::NotReady {
        reason: "SecretNotFound".into(),
        message: "secret git-creds".into(),
    });
    assert!(!broken.ready.0 && broken.degraded.0);
    assert!(broken.ready.2.ends_with("SecretNotFound: secret git-creds"), "{}", broken.ready.2);
}

#[test]
fn a_parked_rig_is_ready_and_not_available() {
    let rig = Snapshot { suspended: true, refineries: vec![ours("web-refinery")], ..rig() };
    let verdict = judge(&rig, &decide(&rig), Acted::Done);
    assert!(verdict.ready.0 && !verdict.available.0 && verdict.available.1 == "RigSuspended");
}

#[test]
fn a_refused_child_is_shown_in_the_servers_words() {
    let verdict = judge(&rig(), &decide(&rig()), Acted::Refused("name too long"));
    assert_eq!(verdict.degraded, (true, "ChildCreationFailed", "name too long".into()));
}
