//! The rules, one a test.

mod beads;

use jiff::SignedDuration;

use super::fixtures::{at, commit, pod, polecat, request, snapshot, sync, valid};
use super::*;
use crate::admission::Slot;
use crate::report::{AgentExit, InitResult, SyncResult};

const NOW: i64 = 1000;

/// Carries out what a plan says about the Polecat and its pods until only the outside can go on;
/// returns the last plan.
fn settle(s: &mut Snapshot, now: i64) -> Plan {
    for _ in 0..10 {
        let plan = decide(at(now), s);
        if plan.deeds.is_empty() {
            return plan;
        }
        for deed in &plan.deeds {
            match deed {
                Deed::Record { ledger, finalizer } => {
                    (s.finalizer, s.labelled) = (*finalizer, true);
                    if let Some(ledger) = ledger {
                        s.ledger = Ok(ledger.as_ref().clone());
                    }
                    break;
                }
                Deed::Release { uid, .. } => {
                    s.pods.iter_mut().filter(|p| &p.uid == uid).for_each(|p| p.finalizer = false)
                }
                Deed::DeletePod { uid, .. } => s.pods.retain(|p| &p.uid != uid),
                Deed::Claim => s.claim = ClaimFacts::Held,
                Deed::ReleaseClaim => s.claim = ClaimFacts::Free,
                Deed::Start(_)
                | Deed::Drain { .. }
                | Deed::Submit(_)
                | Deed::Comment(_)
                | Deed::Alarm(_)
                | Deed::DeletePolecat => {
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

fn outcome(pod: PodFacts) -> (End, String) {
    let s = after(pod);
    let last = ledger(&s).last.clone().unwrap();
    (last.end, last.reason)
}

fn shown<'a>(plan: &'a Plan, kind: &str) -> &'a Shown {
    plan.view.conditions.iter().find(|c| c.kind == kind).unwrap()
}

fn finished(n: u8) -> PodFacts {
    pod(1).ended(Some(AgentExit::Completed), Some(sync(SyncResult::Pushed, Some(commit(n)), 1)))
}

fn starts(plan: &Plan) -> Option<&PodInputs> {
    plan.deeds
        .iter()
        .find_map(|d| if let Deed::Start(inputs) = d { Some(inputs.as_ref()) } else { None })
}

#[test]
fn work_is_done_when_the_agent_ended_well_and_the_sidecar_saw_it_on_the_remote() {
    assert_eq!(outcome(finished(1)).0, End::Done);
    let unsaid = pod(1).ended(Some(AgentExit::Completed), None);
    assert_eq!(outcome(unsaid), (End::Retries, "OutcomeUnknown".into()));
    let behind = pod(1)
        .ended(Some(AgentExit::Completed), Some(sync(SyncResult::Pushed, Some(commit(1)), 0)));
    assert_eq!(outcome(behind), (End::Stuck, "NoChanges".into()));
    let crashed =
        pod(1).ended(Some(AgentExit::Crashed), Some(sync(SyncResult::Pushed, Some(commit(1)), 1)));
    assert_eq!(outcome(crashed), (End::Retries, "PodFailed".into()));
}

#[test]
fn finishing_without_commits_is_success_only_where_that_is_expected() {
    let empty =
        || pod(1).ended(Some(AgentExit::Completed), Some(sync(SyncResult::NoChanges, None, 0)));
    assert_eq!(outcome(empty()), (End::Stuck, "NoChanges".into()));
    let mut s = snapshot();
    s.spec.as_mut().unwrap().expect_changes = false;
    s.pods = vec![empty()];
    let plan = settle(&mut s, NOW);
    assert_eq!((ledger(&s).end(), plan.view.phase), (Some(End::DoneWithoutChanges), Phase::Done));
    assert!(plan.deeds.is_empty(), "nothing is submitted");
}

#[test]
fn each_way_to_end_has_its_class() {
    let pushed = || Some(sync(SyncResult::Pushed, Some(commit(1)), 1));
    let table = [
        (AgentExit::GaveUp, End::Stuck, "GaveUp"),
        (AgentExit::Deadline, End::Stuck, "Deadline"),
        (AgentExit::BudgetExceeded, End::Stuck, "BudgetExceeded"),
        (AgentExit::ImageLacks, End::Stuck, "ImageLacks"),
        (AgentExit::RateLimited, End::Later, "RateLimited"),
        (AgentExit::BadCredentials, End::Waits, "BadCredentials"),
        (AgentExit::Failed, End::Retries, "PodFailed"),
        (AgentExit::Drained, End::Retries, "PodDeleted"),
    ];
    for (exit, end, reason) in table {
        assert_eq!(
            outcome(pod(1).ended(Some(exit), pushed())),
            (end, reason.to_owned()),
            "{exit:?}"
        );
    }
    for (result, end) in [
        (SyncResult::PushRace, End::Stuck),
        (SyncResult::PushRejected, End::Stuck),
        (SyncResult::BadObjects, End::Stuck),
        (SyncResult::RemoteUnreachable, End::Retries),
    ] {
        assert_eq!(
            outcome(pod(1).ended(Some(AgentExit::Completed), Some(sync(result, None, 0)))),
            (end, format!("{result:?}"))
        );
    }
}

#[test]
fn a_refused_pod_is_tried_again_however_times_are_cut() {
    for millis in [1, 493, 999, 1000] {
        let until = at(NOW) + SignedDuration::from_millis(millis);
        let refused =
            Some(Refused { reason: "BeadUnavailable".into(), message: String::new(), until });
        let mut s = snapshot();
        assert!(starts(&settle(&mut s, NOW)).is_some());
        let s = Snapshot { refused, ..s };
        for before in [at(NOW), until - SignedDuration::from_millis(1)] {
            assert_eq!(decide(before, &s).wake, Some(until), "{millis} ms");
        }
        assert!(starts(&decide(until, &s)).is_some(), "{millis} ms");
    }
}

#[test]
fn what_lacks_outside_is_waited_for_with_the_same_attempt_and_no_respawn() {
    for result in [
        InitResult::SecretNotFound,
        InitResult::UnknownHostKey,
        InitResult::RepositoryNotFound,
        InitResult::BranchExists,
    ] {
        let mut s = after(pod(1).init_failed(result));
        assert_eq!((ledger(&s).end(), ledger(&s).respawns.total()), (Some(End::Waits), 0));
        let plan = decide(at(NOW), &s);
        assert_eq!(shown(&plan, "Ready").reason, format!("{result:?}"));
        assert_eq!(plan.view.phase, Phase::Idle);
        let wake = plan.wake.unwrap();
        assert!(wake.as_second() - at(NOW).as_second() <= 60);
        let again = settle(&mut s, NOW + 60);
        assert_eq!(
            starts(&again).map(|i| (i.attempt, i.name.as_str())),
            Some((1, "polecat-toast"))
        );
    }
}

#[test]
fn while_the_next_try_has_not_got_further_the_reason_stays() {
    let mut s = after(pod(1).init_failed(InitResult::SecretNotFound));
    s.pods = vec![PodFacts { uid: "again".into(), ..pod(1) }];
    let plan = decide(at(NOW + 60), &s);
    assert_eq!(
        (plan.view.phase, shown(&plan, "Ready").reason.as_str()),
        (Phase::Idle, "SecretNotFound")
    );
    s.pods[0] = s.pods[0].clone().running();
    assert_eq!(decide(at(NOW + 60), &s).view.phase, Phase::Working);
}

#[test]
fn faults_retry_with_back_off_until_the_retries_are_spent() {
    let mut s = snapshot();
    let mut now = NOW;
    for (attempt, delay) in [(1, 30), (2, 60), (3, 120)] {
        let mut dead = pod(attempt).ended(Some(AgentExit::Crashed), None);
        dead.ended = Some(at(now));
        s.pods.push(dead);
        let plan = settle(&mut s, now);
        assert_eq!(shown(&plan, "Ready").reason, "BackOff");
        assert_eq!(plan.wake, Some(at(now + delay)));
        now += delay;
        let next = settle(&mut s, now);
        assert_eq!(starts(&next).map(|i| i.attempt), Some(attempt + 1));
    }
    s.pods.push(pod(4).ended(Some(AgentExit::Crashed), None));
    let plan = settle(&mut s, now);
    assert_eq!((plan.view.phase, plan.wake), (Phase::Stuck, None));
    assert!(shown(&plan, "Degraded").message.contains("all 3 retries are spent"), "{plan:?}");
    assert!(plan.view.told.unwrap().warning);
}

#[test]
fn memory_may_run_out_once() {
    let dead = |n| PodFacts { oom: true, ..pod(n).ended(None, None) };
    let mut s = after(dead(1));
    assert_eq!(ledger(&s).end(), Some(End::Retries));
    s.pods.push(dead(2));
    let plan = settle(&mut s, NOW);
    assert_eq!(
        (plan.view.phase, shown(&plan, "Degraded").reason.as_str()),
        (Phase::Stuck, "OOMKilled")
    );
}

#[test]
fn attempts_are_one_budget() {
    let mut s = after(finished(1));
    s.spec.as_mut().unwrap().max_attempts = 1;
    s.requests = vec![request(1, 1, RequestPhase::Rework)];
    let plan = decide(at(NOW), &s);
    assert_eq!(
        (plan.view.phase, shown(&plan, "Degraded").reason.as_str()),
        (Phase::Stuck, "AttemptsSpent")
    );
    s.spec.as_mut().unwrap().max_attempts = 2;
    assert_eq!(starts(&settle(&mut s, NOW)).map(|i| i.attempt), Some(2));
}

#[test]
fn a_rework_is_told_why_and_goes_on_with_its_branch() {
    let mut s = after(finished(1));
    s.requests = vec![request(1, 1, RequestPhase::Rework)];
    let plan = settle(&mut s, NOW);
    let inputs = starts(&plan).unwrap();
    assert_eq!((inputs.attempt, inputs.resume), (2, true));
    assert_eq!(inputs.rework.as_ref().unwrap().evidence, "assert 1 == 2");
    let mut second = finished(1);
    (second.attempt, second.uid, second.name) = (2, "second".into(), inputs.name.clone());
    s.pods.push(second);
    let plan = settle(&mut s, NOW);
    assert_eq!(shown(&plan, "Degraded").reason, "NoChanges", "the same commit again is no rework");
}

#[test]
fn done_work_is_submitted_once_and_followed() {
    let mut s = after(finished(1));
    let plan = decide(at(NOW), &s);
    let Some(Deed::Submit(inputs)) = plan.deeds.first() else { panic!("{plan:?}") };
    assert_eq!(
        (inputs.commit.clone(), inputs.attempt, inputs.branch.as_str()),
        (commit(1), 1, "polecat/toast")
    );
    let until = at(NOW + 5);
    s.submit = SubmitFacts::Failed {
        commit: commit(1),
        reason: "NoRefinery".into(),
        message: "none serves main".into(),
        until,
    };
    let plan = decide(at(NOW), &s);
    assert_eq!((shown(&plan, "Submitted").reason.as_str(), plan.wake), ("NoRefinery", Some(until)));
    assert!(matches!(decide(until, &s).deeds.first(), Some(Deed::Submit(_))));
    s.requests = vec![request(1, 1, RequestPhase::Queued)];
    let plan = decide(until, &s);
    assert!(plan.deeds.is_empty() && shown(&plan, "Submitted").status);
    assert_eq!(plan.view.request.as_deref(), Some("request-1"));
}

#[test]
fn a_lost_ledger_is_rebuilt_from_the_request() {
    let mut s = snapshot();
    s.requests = vec![request(1, 3, RequestPhase::Queued)];
    let plan = settle(&mut s, NOW);
    assert_eq!((plan.view.phase, plan.view.attempts), (Phase::Done, 3));
}

#[test]
fn work_of_another_repository_is_done_and_never_submitted() {
    let mut s = snapshot();
    let RigFacts::Present { repository, .. } = &mut s.rig else { unreachable!() };
    *repository = Some("github.com/org/other".into());
    s.pods = vec![finished(1)];
    let plan = settle(&mut s, NOW);
    assert_eq!(
        (plan.view.phase, shown(&plan, "Submitted").reason.as_str()),
        (Phase::Done, "WrongRepository")
    );
}

#[test]
fn waiting_says_for_what() {
    let wait = |change: fn(&mut Snapshot)| {
        let mut s = snapshot();
        change(&mut s);
        let plan = settle(&mut s, NOW);
        assert!(starts(&plan).is_none());
        let admitted = shown(&plan, "Admitted").clone();
        assert!(!admitted.status);
        (plan.view.phase, admitted.reason, admitted.message)
    };
    let rig = |s: &mut Snapshot, set: fn(&mut bool, &mut bool, &mut bool)| {
        let RigFacts::Present { parked, deleting, admits_namespace, .. } = &mut s.rig else {
            unreachable!()
        };
        set(parked, deleting, admits_namespace);
    };
    assert_eq!(wait(|s| s.rig = RigFacts::Missing { name: "web".into() }).1, "RigNotFound");
    let parked = wait(|s| {
        let RigFacts::Present { parked, .. } = &mut s.rig else { unreachable!() };
        *parked = true;
    });
    assert_eq!(parked.1, "RigSuspended");
    let mut s = snapshot();
    rig(&mut s, |_, _, admits| *admits = false);
    assert_eq!(shown(&settle(&mut s, NOW), "Admitted").reason, "NamespaceNotAllowed");
    let full = wait(|s| s.slot = Slot::AtCapacity { used: 8, cap: 8, position: 3 });
    assert_eq!(
        full,
        (Phase::Idle, "AtCapacity".into(), "8 of 8 polecats of rig web, position 3".into())
    );
}

#[test]
fn a_wish_to_stop_drains_a_working_pod_and_deletes_one_that_never_worked() {
    for (desired, why) in [(Desired::Terminated, "Terminated"), (Desired::Idle, "Idle")] {
        let mut s = snapshot();
        (s.desired, s.labelled, s.finalizer) = (desired, true, true);
        s.pods = vec![pod(1).running()];
        let drain = Deed::Drain { pod: "polecat-toast".into(), uid: "pod-1".into(), why };
        assert_eq!(decide(at(NOW), &s).deeds, [drain]);
        s.pods[0].drain = Some(why.into());
        let plan = decide(at(NOW), &s);
        assert!(plan.deeds.is_empty(), "it saves its work: {plan:?}");
        assert_eq!(
            (plan.view.phase, shown(&plan, "Ready").reason.as_str()),
            (Phase::Working, "Draining")
        );
        s.pods = vec![PodFacts { drain: Some(why.into()), ..pod(1) }];
        assert!(matches!(decide(at(NOW), &s).deeds[..], [Deed::DeletePod { force: false, .. }]));
    }
}

#[test]
fn force_delete_is_the_way_around() {
    let mut s = snapshot();
    (s.deleting, s.force_delete, s.finalizer) = (true, true, true);
    s.pods = vec![pod(1).running()];
    assert!(matches!(
        decide(at(NOW), &s).deeds[..],
        [Deed::Release { .. }, Deed::DeletePod { force: true, .. }]
    ));
}

#[test]
fn a_silent_node_is_given_up_after_a_stated_time() {
    let mut s = snapshot();
    s.pods = vec![PodFacts { deletion: Some(at(NOW)), ..pod(1).running() }];
    let plan = decide(at(NOW), &s);
    assert_eq!(plan.wake, Some(at(NOW + NODE_LOST_SECONDS)));
    settle(&mut s, NOW + NODE_LOST_SECONDS);
    assert_eq!(ledger(&s).last.as_ref().unwrap().reason, "NodeLost");
    assert!(s.pods.is_empty());
}

#[test]
fn a_person_re_arms_what_is_stuck_by_a_new_task_or_a_retry() {
    let stuck = || after(pod(1).ended(Some(AgentExit::GaveUp), None));
    let mut s = stuck();
    assert!(settle(&mut s, NOW).deeds.is_empty());
    s.spec = Ok(valid("another task"));
    assert_eq!(starts(&settle(&mut s, NOW)).map(|i| i.attempt), Some(2));
    let mut s = stuck();
    s.retry = Some("again".into());
    assert_eq!(starts(&settle(&mut s, NOW)).map(|i| i.attempt), Some(2));
    assert_eq!(ledger(&s).spent(), 0);
    let mut second = pod(2).ended(Some(AgentExit::GaveUp), None);
    second.uid = "second".into();
    s.pods.push(second);
    assert_eq!(settle(&mut s, NOW).view.phase, Phase::Stuck, "the same value re-arms once");
}

#[test]
fn a_finished_polecat_goes_after_its_time_and_a_stuck_one_stays() {
    let mut s = after(finished(1));
    s.ttl_seconds = Some(100);
    s.requests = vec![request(1, 1, RequestPhase::Queued)];
    assert!(
        !decide(at(100_000), &s).deeds.contains(&Deed::DeletePolecat),
        "not before it has landed"
    );
    s.requests = vec![request(1, 1, RequestPhase::Landed)];
    assert_eq!(decide(at(200), &s).wake, Some(at(250)));
    assert_eq!(decide(at(250), &s).deeds, [Deed::DeletePolecat]);
    let mut stuck = after(pod(1).ended(Some(AgentExit::GaveUp), None));
    stuck.ttl_seconds = Some(0);
    assert!(decide(at(100_000), &stuck).deeds.is_empty());
}

#[test]
fn an_unreadable_ledger_freezes() {
    for text in
        ["", "{}", "[]", "{\"v\":2}", "{\"v\":1,\"commit\":\"HEAD\"}", &"x".repeat(MAX_BYTES + 1)]
    {
        let mut s = snapshot();
        s.ledger = Ledger::parse(text);
        assert!(s.ledger.is_err(), "{text:.20}");
        s.pods = vec![finished(1)];
        let plan = decide(at(NOW), &s);
        assert!(plan.deeds.is_empty());
        assert_eq!(
            (plan.view.phase, shown(&plan, "Degraded").reason.as_str()),
            (Phase::Stuck, "LedgerUnreadable")
        );
    }
}

#[test]
fn a_spec_is_read_once_and_says_what_is_wrong_with_it() {
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
    assert_eq!(same, read(|_| ()).unwrap().hash, "how often and when is not what");
    assert_ne!(same, valid("another task").hash);
}

#[test]
fn a_pod_s_life_is_told_in_three_views_and_not_in_one_for_each_container() {
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
    let mut views: Vec<View> = Vec::new();
    for step in steps {
        s.pods = vec![step];
        let view = settle(&mut s, NOW).view;
        if views.last() != Some(&view) {
            views.push(view);
        }
    }
    assert_eq!(views.len(), 2, "{views:#?}");
    s.pods = vec![finished(1)];
    assert_eq!(settle(&mut s, NOW).view.phase, Phase::Done);
}

#[test]
fn a_verdict_restarts_the_pod_that_it_names_and_no_other() {
    let mut s = snapshot();
    (s.labelled, s.finalizer, s.pods) = (true, true, vec![pod(1).running()]);
    s.unhealthy = Some("pod-0".into());
    assert!(decide(at(NOW), &s).deeds.is_empty(), "that one is gone");
    s.unhealthy = Some("pod-1".into());
    assert_eq!(
        decide(at(NOW), &s).deeds,
        [Deed::Drain { pod: "polecat-toast".into(), uid: "pod-1".into(), why: UNHEALTHY }]
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
        "it goes on with what was saved"
    );

    let mut s = snapshot();
    s.pods = vec![PodFacts { drain: Some(UNHEALTHY.into()), ..finished(1) }];
    assert_eq!(settle(&mut s, NOW).view.phase, Phase::Done, "it came to its end after all");
}
