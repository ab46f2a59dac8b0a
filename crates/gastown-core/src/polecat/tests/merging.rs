//! Submission, rework, landing, and the deletion of finished Polecats.

use super::*;
use crate::report::SyncReport;

#[test]
fn a_rework_gets_the_evidence_and_continues_on_its_branch() {
    let mut s = after(finished(1));
    s.requests = vec![request(1, 1, MergePhase::Rework)];
    let plan = settle(&mut s, NOW);
    let inputs = starts(&plan).unwrap();
    assert_eq!((inputs.attempt, inputs.resume), (2, true));
    assert_eq!(inputs.rework.as_ref().unwrap().evidence, "assert 1 == 2");
    let mut second = finished(1);
    (second.attempt, second.uid, second.name) = (2, "second".into(), inputs.name.clone());
    s.pods.push(second);
    let plan = settle(&mut s, NOW);
    assert_eq!(
        shown(&plan, "Degraded").reason,
        "NoChanges",
        "the same commit again is not a rework"
    );
}

/// The end of an attempt with this commit, and this digest of its changes.
fn ended_with(attempt: u32, n: u8, changes: &str) -> PodFacts {
    let record = SyncReport {
        changes: Some(changes.to_owned()),
        ..sync(SyncResult::Pushed, Some(commit(n)), u32::from(n))
    };
    pod(attempt).ended(Some(AgentExit::Completed), Some(record))
}

#[test]
fn a_rework_that_changes_what_was_sent_back_is_stuck_at_once() {
    let mut s = after(ended_with(1, 1, "same"));
    s.requests = vec![request(1, 1, MergePhase::Rework)];
    settle(&mut s, NOW);
    s.pods.push(ended_with(2, 2, "same"));
    let plan = settle(&mut s, NOW);
    assert_eq!((plan.status.phase, plan.status.attempts), (PolecatPhase::Stuck, 2));
    assert_eq!(shown(&plan, "Degraded").reason, "NoProgress");
    let goes_on = |a: &Action| matches!(a, Action::StartPod(_) | Action::Submit(_));
    assert!(!plan.actions.iter().any(goes_on), "{plan:?}");
    s.retry = Some("again".into());
    let inputs = starts(&settle(&mut s, NOW)).unwrap().clone();
    assert_eq!(inputs.attempt, 3, "a person may ask for another attempt");
}

#[test]
fn a_rework_with_other_changes_is_submitted_even_after_a_crash() {
    let mut s = after(ended_with(1, 1, "first"));
    s.requests = vec![request(1, 1, MergePhase::Rework)];
    settle(&mut s, NOW);
    // A crash has pushed something: it is not what was sent back.
    let crashed = ended_with(2, 2, "half");
    s.pods.push(crashed.ended(Some(AgentExit::Crashed), None));
    settle(&mut s, NOW);
    s.pods.push(ended_with(3, 3, "second"));
    let plan = settle(&mut s, NOW);
    assert!(plan.actions.iter().any(|a| matches!(a, Action::Submit(_))), "{plan:?}");
    s.requests.push(request(3, 3, MergePhase::Rework));
    settle(&mut s, NOW);
    s.pods.push(ended_with(4, 4, "second"));
    assert_eq!(shown(&settle(&mut s, NOW), "Degraded").reason, "NoProgress");
}

#[test]
fn without_a_digest_nothing_is_concluded_from_it() {
    let mut s = after(finished(1));
    s.requests = vec![request(1, 1, MergePhase::Rework)];
    settle(&mut s, NOW);
    let record = sync(SyncResult::Pushed, Some(commit(2)), 2);
    s.pods.push(pod(2).ended(Some(AgentExit::Completed), Some(record)));
    let plan = settle(&mut s, NOW);
    assert!(plan.actions.iter().any(|a| matches!(a, Action::Submit(_))), "{plan:?}");
}

#[test]
fn done_work_is_submitted_once_and_followed() {
    let mut s = after(finished(1));
    let plan = decide(at(NOW), &s);
    let Some(Action::Submit(inputs)) = plan.actions.first() else { panic!("{plan:?}") };
    assert_eq!(
        (inputs.commit.clone(), inputs.attempt, inputs.branch.as_str()),
        (commit(1), 1, "polecat/toast")
    );
    let until = at(NOW + 5);
    let error = Failure { reason: "NoRefinery".into(), message: "no Refinery serves main".into() };
    s.deliveries.submission = Delivery::Failed { request: commit(1), error, tries: 1, until };
    let plan = decide(at(NOW), &s);
    assert_eq!((shown(&plan, "Submitted").reason.as_ref(), plan.wake), ("NoRefinery", Some(until)));
    assert!(matches!(decide(until, &s).actions.first(), Some(Action::Submit(_))));
    s.requests = vec![request(1, 1, MergePhase::Queued)];
    let plan = decide(until, &s);
    assert!(plan.actions.is_empty() && shown(&plan, "Submitted").status == Status::True);
    assert_eq!(plan.status.request.as_deref(), Some("request-1"));
}

#[test]
fn a_lost_ledger_is_rebuilt_from_the_request() {
    let mut s = snapshot();
    s.requests = vec![request(1, 3, MergePhase::Queued)];
    let plan = settle(&mut s, NOW);
    assert_eq!((plan.status.phase, plan.status.attempts), (PolecatPhase::Done, 3));
}

#[test]
fn work_of_another_repository_is_done_and_never_submitted() {
    let mut s = snapshot();
    let RigFacts::Present { repository, .. } = &mut s.rig else { unreachable!() };
    *repository = Some("github.com/org/other".into());
    s.pods = vec![finished(1)];
    let plan = settle(&mut s, NOW);
    assert_eq!(
        (plan.status.phase, shown(&plan, "Submitted").reason.as_ref()),
        (PolecatPhase::Done, "WrongRepository")
    );
}

#[test]
fn a_finished_polecat_is_deleted_after_its_ttl_and_a_stuck_one_stays() {
    let mut s = after(finished(1));
    s.ttl_seconds = Some(100);
    s.requests = vec![request(1, 1, MergePhase::Queued)];
    assert!(
        !decide(at(100_000), &s).actions.contains(&Action::DeletePolecat),
        "not before it has landed"
    );
    s.requests = vec![request(1, 1, MergePhase::Landed)];
    assert_eq!(decide(at(200), &s).wake, Some(at(250)));
    assert_eq!(decide(at(250), &s).actions, [Action::DeletePolecat]);
    let mut stuck = after(pod(1).ended(Some(AgentExit::GaveUp), None));
    stuck.ttl_seconds = Some(0);
    assert!(decide(at(100_000), &stuck).actions.is_empty());
}
