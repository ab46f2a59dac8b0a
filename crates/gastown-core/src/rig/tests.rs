use gastown_api::conditions::{Draft, Status};
use gastown_api::{PolecatCounts, PolecatPhase, Refinery, RefinerySpec};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::seniority::Seniority;

/// The place of an object that was created in this second.
fn seniority(name: &str, second: i64) -> Seniority {
    let mut object = Refinery::new(name, RefinerySpec::of_rig("web"));
    object.metadata.namespace = Some("gastown-system".into());
    object.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
    Seniority::of(&object)
}

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
        seniority: seniority(name, 1_000),
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

/// A rig whose own Refinery and Witness are there.
fn with_children() -> Snapshot {
    Snapshot {
        refineries: vec![ours("web-refinery")],
        witnesses: vec![ours("web-witness")],
        ..rig()
    }
}

fn polecat(name: &str, phase: PolecatPhase) -> PolecatFact {
    PolecatFact {
        name: format!("dev/{name}"),
        phase,
        wanted: true,
        holds_slot: phase == PolecatPhase::Working,
    }
}

fn holds(condition: &Draft) -> bool {
    condition.status == Status::True
}

fn refinery_plan(rig: &Snapshot) -> ChildPlan {
    match decide(rig) {
        Plan::Keep { refinery, .. } => refinery,
        plan => panic!("{plan:?}"),
    }
}

#[test]
fn nothing_is_created_before_the_finalizer_is_there() {
    assert_eq!(decide(&Snapshot { finalizer: false, ..rig() }), Plan::AddFinalizer);
}

#[test]
fn a_rig_without_children_creates_a_refinery_and_a_witness() {
    let create = ChildPlan::Apply { present: None };
    assert_eq!(
        decide(&rig()),
        Plan::Keep {
            refinery: create.clone(),
            witness: create,
            beads: ChildPlan::Withdraw { ours: vec![] }
        }
    );
}

#[test]
fn a_bead_store_is_created_only_where_it_is_wanted_and_deleted_when_it_is_not() {
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
    let assessed = |readiness| {
        let bead_stores = vec![Child { readiness, ..ours("web-beads") }];
        let rig = Snapshot { wants_beads: true, bead_stores, ..with_children() };
        assess(&rig, &decide(&rig), None)
    };
    assert_eq!(assessed(Readiness::Ready).ready.status, Status::True);
    let unknown = assessed(Readiness::Unknown);
    assert_eq!(
        (unknown.ready.reason.as_ref(), holds(&unknown.progressing), holds(&unknown.degraded)),
        ("BeadStoreNotReady", true, false)
    );
    let broken =
        assessed(Readiness::NotReady { reason: "NoJsonl".into(), message: "there is none".into() });
    assert_eq!(broken.degraded.reason, "BeadStoreNotReady");
    assert!(broken.ready.message.ends_with("NoJsonl: there is none"), "{}", broken.ready.message);
}

#[test]
fn a_refinery_that_a_user_created_is_used_and_none_is_created() {
    let theirs = child("mine");
    let plan = refinery_plan(&Snapshot { refineries: vec![theirs.clone()], ..rig() });
    assert_eq!(plan, ChildPlan::Use { child: theirs.reference, withdraw: vec![] });
}

#[test]
fn the_oldest_of_several_is_used() {
    let old = Child { seniority: seniority("old", 1), ..child("old") };
    let plan = refinery_plan(&Snapshot { refineries: vec![child("a"), old.clone()], ..rig() });
    assert_eq!(plan, ChildPlan::Use { child: old.reference, withdraw: vec![] });
}

#[test]
fn of_two_that_are_equally_old_the_first_by_name_is_used() {
    let first =
        Child { reference: ChildRef { uid: "z".into(), ..child("a").reference }, ..child("a") };
    let plan = refinery_plan(&Snapshot { refineries: vec![child("b"), first.clone()], ..rig() });
    assert_eq!(plan, ChildPlan::Use { child: first.reference, withdraw: vec![] });
}

#[test]
fn ours_is_deleted_when_a_user_creates_one_but_not_in_the_middle_of_a_merge() {
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
fn a_refinery_of_another_branch_does_not_count() {
    let other = Child { same_duty: false, ..child("releases") };
    assert_eq!(
        refinery_plan(&Snapshot { refineries: vec![other], ..rig() }),
        ChildPlan::Apply { present: None }
    );
}

#[test]
fn ours_is_applied_even_when_its_branch_is_to_change() {
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
    let assessment = assess(&rig, &plan, None);
    assert_eq!(
        (holds(&assessment.ready), assessment.ready.reason.as_ref(), holds(&assessment.degraded)),
        (false, "ChildCreationFailed", true)
    );
}

#[test]
fn a_child_that_is_being_deleted_is_awaited() {
    let going = Child { deleting: true, ..ours("web-refinery") };
    assert_eq!(
        refinery_plan(&Snapshot { refineries: vec![going], ..rig() }),
        ChildPlan::AwaitDeletion
    );
}

#[test]
fn deletion_waits_for_pods_and_names_them() {
    let polecats = vec![
        polecat("b", PolecatPhase::Working),
        polecat("a", PolecatPhase::Working),
        polecat("c", PolecatPhase::Done),
    ];
    let rig =
        Snapshot { deleting: true, refineries: vec![ours("web-refinery")], polecats, ..rig() };
    let plan = decide(&rig);
    assert_eq!(plan, Plan::AwaitPolecats { polecats: vec!["dev/a".into(), "dev/b".into()] });
    let assessment = assess(&rig, &plan, None);
    assert_eq!(assessment.ready.message, "deletion waits for 2 polecats: dev/a, dev/b");
}

#[test]
fn deletion_does_not_wait_for_a_polecat_without_a_slot() {
    let waiting = PolecatFact { holds_slot: false, ..polecat("a", PolecatPhase::Idle) };
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
fn deletion_deletes_only_what_the_rig_created() {
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
fn a_polecat_that_waits_is_queued_and_one_that_is_not_wanted_is_idle() {
    let unwanted = PolecatFact { wanted: false, ..polecat("a", PolecatPhase::Idle) };
    let facts = [
        unwanted,
        polecat("b", PolecatPhase::Idle),
        polecat("c", PolecatPhase::Working),
        polecat("d", PolecatPhase::Terminated),
    ];
    assert_eq!(count(&facts), PolecatCounts { idle: 1, queued: 1, working: 1, done: 0, stuck: 0 });
}

#[test]
fn ready_means_that_the_refinery_is_ready() {
    let assessed = |readiness| {
        let refineries = vec![Child { readiness, ..ours("web-refinery") }];
        let rig = Snapshot { refineries, ..with_children() };
        assess(&rig, &decide(&rig), None)
    };
    let ready = assessed(Readiness::Ready);
    assert!(holds(&ready.ready) && holds(&ready.available));
    assert!(!holds(&ready.degraded) && !holds(&ready.progressing));
    let unknown = assessed(Readiness::Unknown);
    assert!(!holds(&unknown.ready) && holds(&unknown.progressing) && !holds(&unknown.degraded));
    let broken = assessed(Readiness::NotReady {
        reason: "SecretNotFound".into(),
        message: "secret git-creds".into(),
    });
    assert!(!holds(&broken.ready) && holds(&broken.degraded));
    assert!(
        broken.ready.message.ends_with("SecretNotFound: secret git-creds"),
        "{}",
        broken.ready.message
    );
}

#[test]
fn ready_means_that_the_witness_has_reported() {
    let assessed = |readiness| {
        let witnesses = vec![Child { readiness, ..ours("web-witness") }];
        let rig = Snapshot { witnesses, ..with_children() };
        assess(&rig, &decide(&rig), None)
    };
    let none = Snapshot { witnesses: vec![], ..with_children() };
    for waits in [assess(&none, &decide(&none), None), assessed(Readiness::Unknown)] {
        assert!(!holds(&waits.ready) && holds(&waits.progressing));
        assert_eq!(waits.ready.reason, "WitnessNotReady");
    }
    let not_ready =
        |reason: &str| Readiness::NotReady { reason: reason.into(), message: String::new() };
    assert!(holds(&assessed(not_ready("IssuesDetected")).ready), "it works, a polecat does not");
    assert!(holds(&assessed(not_ready("Duplicate")).degraded));
}

#[test]
fn a_suspended_rig_is_ready_and_not_available() {
    let rig = Snapshot { suspended: true, ..with_children() };
    let assessment = assess(&rig, &decide(&rig), None);
    assert!(holds(&assessment.ready) && !holds(&assessment.available));
    assert_eq!(assessment.available.reason, "RigSuspended");
}

#[test]
fn a_refused_child_is_shown_with_the_message_of_the_api_server() {
    let assessment = assess(&rig(), &decide(&rig()), Some("name too long"));
    assert_eq!(
        assessment.degraded,
        Draft::new("Degraded", true, "ChildCreationFailed", "name too long")
    );
}
