//! How pods end, and what follows.

use super::*;

#[test]
fn work_is_done_when_the_agent_ended_well_and_the_sidecar_saw_it_on_the_remote() {
    assert_eq!(end_of(finished(1)).0, End::Done);
    let unrecorded = pod(1).ended(Some(AgentExit::Completed), None);
    assert_eq!(end_of(unrecorded), (End::Retries, "OutcomeUnknown".into()));
    let behind = pod(1)
        .ended(Some(AgentExit::Completed), Some(sync(SyncResult::Pushed, Some(commit(1)), 0)));
    assert_eq!(end_of(behind), (End::Stuck, "NoChanges".into()));
    let crashed =
        pod(1).ended(Some(AgentExit::Crashed), Some(sync(SyncResult::Pushed, Some(commit(1)), 1)));
    assert_eq!(end_of(crashed), (End::Retries, "PodFailed".into()));
}

#[test]
fn finishing_without_commits_is_success_only_where_that_is_expected() {
    let empty =
        || pod(1).ended(Some(AgentExit::Completed), Some(sync(SyncResult::NoChanges, None, 0)));
    assert_eq!(end_of(empty()), (End::Stuck, "NoChanges".into()));
    let mut s = snapshot();
    s.spec.as_mut().unwrap().expect_changes = false;
    s.pods = vec![empty()];
    let plan = settle(&mut s, NOW);
    assert_eq!(
        (ledger(&s).end(), plan.status.phase),
        (Some(End::DoneWithoutChanges), PolecatPhase::Done)
    );
    assert!(plan.actions.is_empty(), "nothing is submitted");
}

#[test]
fn a_result_that_only_a_later_version_knows_costs_no_attempt() {
    let unknown_exit = || {
        pod(1).ended(Some(AgentExit::Unknown), Some(sync(SyncResult::Pushed, Some(commit(1)), 1)))
    };
    let unknown_sync =
        || pod(1).ended(Some(AgentExit::Completed), Some(sync(SyncResult::Unknown, None, 0)));
    let mut unknown_init = pod(1).running();
    (unknown_init.phase, unknown_init.agent_started) = (PodPhase::Failed, false);
    unknown_init.init = Some(super::super::fixtures::init(InitResult::Unknown));
    for pod in [unknown_exit(), unknown_sync(), unknown_init] {
        let s = after(pod);
        let ledger = ledger(&s);
        assert_eq!(ledger.end(), Some(End::Waits), "{ledger:?}");
        assert_eq!((ledger.next_attempt(), ledger.respawns.total()), (1, 0));
    }
    assert_eq!(end_of(unknown_sync()).1, "NewerRecord");
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
            end_of(pod(1).ended(Some(exit), pushed())),
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
            end_of(pod(1).ended(Some(AgentExit::Completed), Some(sync(result, None, 0)))),
            (end, format!("{result:?}"))
        );
    }
}

#[test]
fn something_missing_outside_costs_no_attempt_and_no_respawn() {
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
        assert_eq!(plan.status.phase, PolecatPhase::Idle);
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
fn the_reason_stays_until_the_next_pod_gets_further() {
    let mut s = after(pod(1).init_failed(InitResult::SecretNotFound));
    s.pods = vec![PodFacts { uid: "again".into(), ..pod(1) }];
    let plan = decide(at(NOW + 60), &s);
    assert_eq!(
        (plan.status.phase, shown(&plan, "Ready").reason.as_ref()),
        (PolecatPhase::Idle, "SecretNotFound")
    );
    s.pods[0] = s.pods[0].clone().running();
    assert_eq!(decide(at(NOW + 60), &s).status.phase, PolecatPhase::Working);
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
    assert_eq!((plan.status.phase, plan.wake), (PolecatPhase::Stuck, None));
    assert!(shown(&plan, "Degraded").message.contains("all 3 retries are spent"), "{plan:?}");
    assert!(plan.status.event.warning);
}

#[test]
fn memory_may_run_out_once() {
    let dead = |n| PodFacts { oom: true, ..pod(n).ended(None, None) };
    let mut s = after(dead(1));
    assert_eq!(ledger(&s).end(), Some(End::Retries));
    s.pods.push(dead(2));
    let plan = settle(&mut s, NOW);
    assert_eq!(
        (plan.status.phase, shown(&plan, "Degraded").reason.as_ref()),
        (PolecatPhase::Stuck, "OOMKilled")
    );
}

#[test]
fn attempts_are_one_budget() {
    let mut s = after(finished(1));
    s.spec.as_mut().unwrap().max_attempts = 1;
    s.requests = vec![request(1, 1, MergePhase::Rework)];
    let plan = decide(at(NOW), &s);
    assert_eq!(
        (plan.status.phase, shown(&plan, "Degraded").reason.as_ref()),
        (PolecatPhase::Stuck, "AttemptsSpent")
    );
    s.spec.as_mut().unwrap().max_attempts = 2;
    assert_eq!(starts(&settle(&mut s, NOW)).map(|i| i.attempt), Some(2));
}

#[test]
fn a_silent_node_is_given_up_after_five_minutes() {
    let mut s = snapshot();
    s.pods = vec![PodFacts { deletion: Some(at(NOW)), ..pod(1).running() }];
    let plan = decide(at(NOW), &s);
    assert_eq!(plan.wake, Some(at(NOW + NODE_LOST_SECONDS)));
    settle(&mut s, NOW + NODE_LOST_SECONDS);
    assert_eq!(ledger(&s).last.as_ref().unwrap().reason, "NodeLost");
    assert!(s.pods.is_empty());
}
