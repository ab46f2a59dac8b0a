//! The rules, one in each test.

mod beads;
mod keeping;
mod merging;
mod outcomes;

use gastown_api::conditions::{Draft, Status};
use gastown_api::{DesiredState, MergePhase, PolecatPhase};
use jiff::SignedDuration;

use super::fixtures::{
    at, commit, decide, decide_with, pod, polecat, request, snapshot, sync, valid,
};
use super::*;
use crate::admission::Decision;
use crate::report::{AgentExit, InitResult, SyncResult};
use crate::retry::Delivery;

const NOW: i64 = 1000;

/// Carries out the actions on the Polecat and its pods until there are none, or one that another
/// service carries out; returns the last plan.
fn settle(s: &mut Snapshot, now: i64) -> Plan {
    settle_with(s, now, &Decision::Granted)
}

fn settle_with(s: &mut Snapshot, now: i64, admission: &Decision) -> Plan {
    for _ in 0..10 {
        let plan = decide_with(at(now), s, admission);
        if plan.actions.is_empty() {
            return plan;
        }
        for action in &plan.actions {
            match action {
                Action::PatchMetadata { ledger, finalizer } => {
                    (s.finalizer, s.labelled) = (*finalizer, true);
                    if let Some(ledger) = ledger {
                        s.ledger = Ok(ledger.as_ref().clone());
                    }
                    break;
                }
                Action::RemovePodFinalizer { uid, .. } => {
                    s.pods.iter_mut().filter(|p| &p.uid == uid).for_each(|p| p.finalizer = false);
                }
                Action::DeletePod { uid, .. } => s.pods.retain(|p| &p.uid != uid),
                Action::Claim => s.claim = ClaimFacts::Held,
                Action::ReleaseClaim => s.claim = ClaimFacts::Free,
                Action::StartPod(_)
                | Action::DrainPod { .. }
                | Action::Submit(_)
                | Action::Comment(_)
                | Action::Escalate(_)
                | Action::DeletePolecat => {
                    return plan;
                }
            }
        }
    }
    panic!("no end: {:#?}", decide(at(now), s));
}

fn after(pod: PodFacts) -> Snapshot {
    let mut s = snapshot();
    s.pods = vec![pod];
    settle(&mut s, NOW);
    s
}

fn ledger(s: &Snapshot) -> &Ledger {
    s.ledger.as_ref().unwrap()
}

fn end_of(pod: PodFacts) -> (End, String) {
    let s = after(pod);
    let last = ledger(&s).last.clone().unwrap();
    (last.end, last.reason)
}

fn shown<'a>(plan: &'a Plan, type_: &str) -> &'a Draft {
    plan.status.conditions.iter().find(|c| c.type_ == type_).unwrap()
}

fn finished(n: u8) -> PodFacts {
    pod(1).ended(Some(AgentExit::Completed), Some(sync(SyncResult::Pushed, Some(commit(n)), 1)))
}

fn starts(plan: &Plan) -> Option<&PodInputs> {
    plan.actions
        .iter()
        .find_map(|d| if let Action::StartPod(inputs) = d { Some(inputs.as_ref()) } else { None })
}

#[test]
fn a_refused_pod_is_retried_whatever_the_fraction_of_a_second() {
    for millis in [1, 493, 999, 1000] {
        let until = at(NOW) + SignedDuration::from_millis(millis);
        let error = Failure { reason: "BeadUnavailable".into(), message: String::new() };
        let mut s = snapshot();
        assert!(starts(&settle(&mut s, NOW)).is_some());
        s.deliveries.pod = Delivery::Failed { request: (), error, tries: 1, until };
        for before in [at(NOW), until - SignedDuration::from_millis(1)] {
            assert_eq!(decide(before, &s).wake, Some(until), "{millis} ms");
        }
        assert!(starts(&decide(until, &s)).is_some(), "{millis} ms");
    }
}

#[test]
fn a_waiting_polecat_shows_what_it_waits_for() {
    let wait = |change: fn(&mut Snapshot), admission: &Decision| {
        let mut s = snapshot();
        change(&mut s);
        let plan = settle_with(&mut s, NOW, admission);
        assert!(starts(&plan).is_none());
        let admitted = shown(&plan, "Admitted").clone();
        assert_eq!(admitted.status, Status::False);
        (plan.status.phase, admitted.reason, admitted.message)
    };
    let granted = &Decision::Granted;
    let missing = wait(|s| s.rig = RigFacts::Missing { name: "web".into() }, granted);
    assert_eq!(missing.1, "RigNotFound");
    let suspended = |s: &mut Snapshot| {
        let RigFacts::Present { suspended, .. } = &mut s.rig else { unreachable!() };
        *suspended = true;
    };
    assert_eq!(wait(suspended, granted).1, "RigSuspended");
    let not_admitted = |s: &mut Snapshot| {
        let RigFacts::Present { admits_namespace, .. } = &mut s.rig else { unreachable!() };
        *admits_namespace = false;
    };
    assert_eq!(wait(not_admitted, granted).1, "NamespaceNotAllowed");
    let full = wait(|_| (), &Decision::AtCapacity { used: 8, cap: 8, position: 3 });
    assert_eq!(
        full,
        (PolecatPhase::Idle, "AtCapacity".into(), "8 of 8 polecats of rig web, position 3".into())
    );
}

#[test]
fn a_desired_stop_drains_a_working_pod_and_deletes_one_that_never_worked() {
    for (desired, why) in [(DesiredState::Terminated, "Terminated"), (DesiredState::Idle, "Idle")] {
        let mut s = snapshot();
        (s.desired, s.labelled, s.finalizer) = (desired, true, true);
        s.pods = vec![pod(1).running()];
        let drain =
            Action::DrainPod { pod: "polecat-toast".into(), uid: "pod-1".into(), why: why.into() };
        assert_eq!(decide(at(NOW), &s).actions, [drain]);
        s.pods[0].drain = Some(why.into());
        let plan = decide(at(NOW), &s);
        assert!(plan.actions.is_empty(), "it saves its work: {plan:?}");
        assert_eq!(
            (plan.status.phase, shown(&plan, "Ready").reason.as_ref()),
            (PolecatPhase::Working, "Draining")
        );
        s.pods = vec![PodFacts { drain: Some(why.into()), ..pod(1) }];
        assert!(matches!(decide(at(NOW), &s).actions[..], [Action::DeletePod { grace: None, .. }]));
    }
}

#[test]
fn force_delete_waits_for_nothing() {
    let mut s = snapshot();
    (s.deleting, s.force_delete, s.finalizer) = (true, true, true);
    s.pods = vec![pod(1).running()];
    assert!(matches!(
        decide(at(NOW), &s).actions[..],
        [Action::RemovePodFinalizer { .. }, Action::DeletePod { grace: Some(0), .. }]
    ));
}

#[test]
fn a_new_task_or_a_retry_gives_a_stuck_polecat_a_new_budget() {
    let stuck = || after(pod(1).ended(Some(AgentExit::GaveUp), None));
    let mut s = stuck();
    assert!(settle(&mut s, NOW).actions.is_empty());
    s.spec = Ok(valid("another task"));
    assert_eq!(starts(&settle(&mut s, NOW)).map(|i| i.attempt), Some(2));
    let mut s = stuck();
    s.retry = Some("again".into());
    assert_eq!(starts(&settle(&mut s, NOW)).map(|i| i.attempt), Some(2));
    assert_eq!(ledger(&s).spent(), 0);
    let mut second = pod(2).ended(Some(AgentExit::GaveUp), None);
    second.uid = "second".into();
    s.pods.push(second);
    assert_eq!(
        settle(&mut s, NOW).status.phase,
        PolecatPhase::Stuck,
        "the same value gives one new budget"
    );
}

#[test]
fn an_unreadable_ledger_stops_everything() {
    for text in ["", "{}", "[]", "{\"v\":1,\"commit\":\"HEAD\"}", &"x".repeat(MAX_BYTES + 1)] {
        let mut s = snapshot();
        s.ledger = Ledger::parse(text);
        assert!(s.ledger.is_err(), "{text:.20}");
        s.pods = vec![finished(1)];
        let plan = decide(at(NOW), &s);
        assert!(plan.actions.is_empty());
        assert_eq!(
            (plan.status.phase, shown(&plan, "Degraded").reason.as_ref()),
            (PolecatPhase::Stuck, "LedgerUnreadable")
        );
    }
}

#[test]
fn a_ledger_of_a_later_version_is_read_for_what_is_known_of_it() {
    let text = r#"{"v":2,"attempt":3,"pods":["u"],"last":{"end":"Retries","reason":"OOMKilled","at":1,"why":7},"more":[1]}"#;
    let read = Ledger::parse(text).unwrap();
    assert_eq!((read.v, read.attempt, read.end()), (VERSION, 3, Some(End::Retries)));
    assert!(read.accounts_for("u"));
}

#[test]
fn an_end_that_only_a_later_version_knows_is_left_alone_and_costs_nothing() {
    let text = r#"{"v":2,"attempt":8,"last":{"end":"Postponed","reason":"Frozen","at":1}}"#;
    let mut s = snapshot();
    s.ledger = Ledger::parse(text);
    let plan = decide(at(NOW), &s);
    assert_eq!(
        (plan.status.phase, shown(&plan, "Degraded").reason.as_ref()),
        (PolecatPhase::Stuck, "NewerLedger")
    );
    let is_quiet = |action: &Action| !matches!(action, Action::StartPod(_));
    assert!(plan.actions.iter().all(is_quiet), "{:?}", plan.actions);
    assert_eq!(ledger(&s).next_attempt(), 8);
    s.retry = Some("go on".into());
    let plan = decide(at(NOW), &s);
    assert_ne!(plan.status.phase, PolecatPhase::Stuck, "a person goes on");
}

#[test]
fn a_spec_with_a_value_of_a_later_version_starts_nothing_and_names_the_field() {
    let read = |change: fn(&mut gastown_api::PolecatSpec)| {
        let mut p = polecat("make it so");
        change(&mut p.spec);
        ValidPolecat::try_from(&p).unwrap_err()
    };
    let agent = read(|s| s.agent = gastown_api::AgentKind::Unknown);
    assert!(agent.message.starts_with("spec.agent has a value"), "{agent}");
    let desired = read(|s| s.desired_state = DesiredState::Unknown);
    assert!(desired.message.starts_with("spec.desiredState has a value"), "{desired}");

    let mut s = snapshot();
    (s.desired, s.spec) = (DesiredState::Unknown, Err(desired));
    s.pods = vec![pod(1).running()];
    let plan = decide(at(NOW), &s);
    let is_harmless = |action: &Action| !matches!(action, Action::DrainPod { .. });
    assert!(plan.actions.iter().all(is_harmless), "what runs goes on: {:?}", plan.actions);
}

#[test]
fn a_spec_is_parsed_or_refused_with_a_reason() {
    let read = |change: fn(&mut gastown_api::PolecatSpec)| {
        let mut p = polecat("make it so");
        change(&mut p.spec);
        ValidPolecat::try_from(&p)
    };
    assert_eq!(read(|s| s.bead_id = Some("web-1".into())).unwrap().work.as_str(), "feature/web-1");
    assert_eq!(read(|_| ()).unwrap().work.as_str(), "polecat/toast");
    assert_eq!(read(|s| s.kubernetes = None).unwrap_err().reason, "MissingKubernetesSpec");
    assert_eq!(read(|s| s.task_description = Some(" ".into())).unwrap_err().reason, "InvalidSpec");
    let provider = read(|s| {
        s.agent_config = Some(gastown_api::AgentConfig {
            provider: gastown_api::Provider::Openai,
            ..Default::default()
        });
    });
    assert_eq!(provider.unwrap_err().reason, "ProviderUnsupported");
    assert!(read(|s| s.kubernetes.as_mut().unwrap().work_branch = Some("main".into())).is_err());
    assert!(read(|s| s.kubernetes.as_mut().unwrap().git_repository = "ext::sh".into()).is_err());
    let same = read(|s| (s.priority, s.max_attempts) = (Some(0), 3)).unwrap().hash;
    assert_eq!(same, read(|_| ()).unwrap().hash, "how often and when it runs does not count");
    assert_ne!(same, valid("another task").hash);
}

#[test]
fn the_hash_of_a_spec_stays_the_same() {
    assert_eq!(valid("make it so").hash, "2-88db6a6485b50993", "pods and ledgers hold it");
}

#[test]
fn a_pods_life_costs_three_status_writes_and_not_one_for_each_container() {
    let mut s = snapshot();
    let mut steps = vec![pod(1)];
    // The kubelet notes the start, init ends, the agent runs, the agent ends and the sidecar is
    // still at work.
    steps.push(PodFacts { started: Some(at(5)), ..pod(1) });
    steps.push(PodFacts { started: Some(at(5)), ended: Some(at(7)), ..pod(1) });
    let running = PodFacts {
        phase: PodPhase::Running,
        started: Some(at(5)),
        ended: Some(at(7)),
        agent_started: true,
        ..pod(1)
    };
    steps.push(running.clone());
    steps.push(PodFacts { ended: Some(at(9)), ..running });
    let mut views: Vec<StatusDraft> = Vec::new();
    for step in steps {
        s.pods = vec![step];
        let view = settle(&mut s, NOW).status;
        if views.last() != Some(&view) {
            views.push(view);
        }
    }
    assert_eq!(views.len(), 2, "{views:#?}");
    s.pods = vec![finished(1)];
    assert_eq!(settle(&mut s, NOW).status.phase, PolecatPhase::Done);
}

#[test]
fn a_wanted_restart_drains_the_pod_that_it_names_and_no_other() {
    let mut s = snapshot();
    (s.labelled, s.finalizer, s.pods) = (true, true, vec![pod(1).running()]);
    s.unhealthy = Some("pod-0".into());
    assert!(decide(at(NOW), &s).actions.is_empty(), "that one is gone");
    s.unhealthy = Some("pod-1".into());
    assert_eq!(
        decide(at(NOW), &s).actions,
        [Action::DrainPod {
            pod: "polecat-toast".into(),
            uid: "pod-1".into(),
            why: UNHEALTHY.into()
        }]
    );

    let saved = Some(sync(SyncResult::Pushed, Some(commit(1)), 1));
    s.pods = vec![PodFacts {
        drain: Some(UNHEALTHY.into()),
        ended: Some(at(NOW)),
        ..pod(1).ended(Some(AgentExit::Drained), saved)
    }];
    let plan = settle(&mut s, NOW);
    assert_eq!((ledger(&s).end(), ledger(&s).respawns.crashed), (Some(End::Retries), 1));
    assert_eq!(ledger(&s).last.as_ref().unwrap().reason, "Unhealthy");
    assert_eq!(shown(&plan, "Ready").reason, "BackOff");
    let next = settle(&mut s, NOW + 60);
    assert_eq!(
        starts(&next).map(|i| (i.attempt, i.resume)),
        Some((2, true)),
        "it continues with what was saved"
    );

    let mut s = snapshot();
    s.pods = vec![PodFacts { drain: Some(UNHEALTHY.into()), ..finished(1) }];
    assert_eq!(settle(&mut s, NOW).status.phase, PolecatPhase::Done, "it finished after all");
}
