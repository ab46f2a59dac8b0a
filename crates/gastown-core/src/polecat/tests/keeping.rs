//! No work is lost: what stays, what is reported, and what is put off at no cost.

use super::*;
use crate::report::{Saved, SyncReport};

fn drained(why: &str, sync: Option<SyncReport>) -> PodFacts {
    PodFacts { drain: Some(why.into()), ..pod(1).ended(Some(AgentExit::Drained), sync) }
}

fn pushed() -> SyncReport {
    sync(SyncResult::Pushed, Some(commit(1)), 1)
}

fn working(change: impl FnOnce(&mut PodFacts)) -> Snapshot {
    let mut s = snapshot();
    let mut pod = pod(1).running();
    change(&mut pod);
    (s.labelled, s.finalizer, s.pods) = (true, true, vec![pod]);
    s
}

fn waiting(why: &str) -> PodFacts {
    let waiting = Some((why.to_owned(), "image i cannot be pulled".to_owned()));
    let mut pod = PodFacts { waiting, ..pod(1) };
    pod.seen.stalled = Some(at(NOW));
    pod
}

fn drains(plan: &Plan) -> Option<&str> {
    plan.actions.iter().find_map(|a| match a {
        Action::DrainPod { why, .. } => Some(why.as_ref()),
        _ => None,
    })
}

/// The grace periods of the deletions in a plan.
fn deletes(plan: &Plan) -> Vec<Option<u32>> {
    let grace = |a: &Action| match a {
        Action::DeletePod { grace, .. } => Some(*grace),
        _ => None,
    };
    plan.actions.iter().filter_map(grace).collect()
}

#[test]
fn a_polecat_that_is_idle_for_too_long_is_terminated_in_its_status_only() {
    let mut s = snapshot();
    (s.labelled, s.desired, s.max_idle_seconds) = (true, DesiredState::Idle, Some(60));
    let before = decide(at(59), &s);
    assert_eq!((before.status.phase, before.wake), (PolecatPhase::Idle, Some(at(60))));
    let after = decide(at(60), &s);
    assert_eq!(after.status.phase, PolecatPhase::Terminated);
    assert_eq!(shown(&after, "Ready").reason, "IdleTooLong");
    assert_eq!((after.actions.len(), after.wake), (0, None));
    s.desired = DesiredState::Working;
    assert_ne!(decide(at(60), &s).status.phase, PolecatPhase::Terminated, "it works again");
}

#[test]
fn a_drained_pod_whose_work_is_not_saved_stays_and_states_why() {
    let mut s = working(|p| {
        (p.drain, p.saved) = (Some("Terminated".into()), Some(false));
        p.seen.drained = Some(at(NOW));
    });
    s.desired = DesiredState::Terminated;
    s.saving =
        Some("the remote refuses the credentials (401); 2 commits are in the pod only".into());
    for hours in [0, 1, 24] {
        let plan = decide(at(NOW + hours * 3600), &s);
        assert!(plan.actions.is_empty(), "{plan:?}");
        let ready = shown(&plan, "Ready");
        assert_eq!(ready.reason, "Draining");
        assert!(
            ready
                .message
                .contains("stays until its work is saved (Terminated): the remote refuses")
        );
    }
    s.saving = None;
    let message = |now| shown(&decide(at(now), &s), "Ready").message.clone();
    assert!(message(NOW).starts_with("the agent is being stopped"));
    assert!(message(NOW + 300).contains("stays until its work is saved"), "nobody states why");
}

#[test]
fn a_drained_pod_that_does_not_end_is_deleted_once_its_work_is_saved() {
    let mut s = working(|p| {
        (p.drain, p.saved) = (Some("Idle".into()), Some(true));
        p.seen.drained = Some(at(NOW));
    });
    s.desired = DesiredState::Idle;
    let early = decide(at(NOW + 299), &s);
    assert_eq!((deletes(&early), early.wake), (vec![], Some(at(NOW + 300))));
    assert_eq!(deletes(&decide(at(NOW + 300), &s)), [Some(60)]);
    for unknown in [None, Some(false)] {
        s.pods[0].saved = unknown;
        assert!(deletes(&decide(at(NOW + 86_400), &s)).is_empty(), "{unknown:?}");
    }
    s.pods[0].saved = Some(true);
    s.margins.drain_seconds = 5;
    assert_eq!(deletes(&decide(at(NOW + 5), &s)), [Some(60)]);
}

#[test]
fn a_pod_that_runs_beyond_its_deadline_is_drained_and_its_polecat_is_stuck() {
    let mut s = working(|p| p.seen.running = Some(at(NOW)));
    let early = decide(at(NOW + 3899), &s);
    assert_eq!((drains(&early), early.wake), (None, Some(at(NOW + 3900))));
    assert_eq!(drains(&decide(at(NOW + 3900), &s)), Some("Deadline"));
    s.pods[0].deadline_seconds = None;
    assert_eq!(drains(&decide(at(NOW + 90_000), &s)), None, "a pod that states none has none");

    assert_eq!(end_of(drained("Deadline", Some(pushed()))), (End::Stuck, "Deadline".into()));
    let finished = PodFacts { drain: Some("Deadline".into()), ..finished(1) };
    assert_eq!(end_of(finished).0, End::Done, "it finished after all");
}

#[test]
fn lost_work_is_never_called_saved_and_is_reported_everywhere() {
    let unsaved = || SyncReport { unsaved: vec!["branch side: 401".into()], ..pushed() };
    let mut s = snapshot();
    (s.desired, s.witness) = (DesiredState::Terminated, true);
    s.pods = vec![drained("Terminated", Some(unsaved()))];
    let plan = settle(&mut s, NOW);
    let end = ledger(&s).last.clone().unwrap();
    assert_eq!((end.end, end.reason.as_str(), end.saved), (End::Drained, "WorkLost", Some(false)));
    let lost = "lost with the pod of attempt 1: branch side: 401";
    assert!(end.message.starts_with(lost), "{}", end.message);
    for (kind, status) in [("Ready", Status::False), ("Degraded", Status::True)] {
        let condition = shown(&plan, kind);
        assert_eq!((condition.status, condition.reason.as_ref()), (status, "WorkLost"), "{kind}");
        assert!(condition.message.contains(lost), "{}", condition.message);
    }
    assert!(plan.status.event.warning && plan.status.lost.is_some());
    let reported = |a: &Action| matches!(a, Action::Escalate(inputs) if inputs.cause == "polecat/dev/toast/lost");
    assert!(plan.actions.iter().any(reported), "{plan:?}");

    for exit in [AgentExit::Deadline, AgentExit::BudgetExceeded, AgentExit::Drained] {
        let mut ended = pod(1).ended(Some(exit), Some(unsaved()));
        ended.run.as_mut().unwrap().message = "all is well; the work is saved".into();
        let message = ledger(&after(ended)).last.clone().unwrap().message;
        assert!(message.starts_with(lost) && !message.contains("the work is saved"), "{message}");
    }
    let done = SyncReport { unsaved: vec!["stash 0: a bad object".into()], ..pushed() };
    let s = after(pod(1).ended(Some(AgentExit::Completed), Some(done)));
    assert_eq!(ledger(&s).end(), Some(End::Done), "the branch has the work");
    assert!(ledger(&s).lost.is_some());
}

#[test]
fn a_terminated_polecat_states_saved_only_where_the_sidecar_did() {
    let ready = |pod: PodFacts| {
        let mut s = snapshot();
        (s.desired, s.pods) = (DesiredState::Terminated, vec![pod]);
        let plan = settle(&mut s, NOW);
        let ready = shown(&plan, "Ready").clone();
        (ready.reason.to_string(), ready.message)
    };
    assert_eq!(
        ready(drained("Terminated", Some(pushed()))),
        ("Terminated".into(), "terminated; its work is saved".into())
    );
    let (reason, message) = ready(drained("Terminated", None));
    assert_eq!(reason, "OutcomeUnknown");
    assert!(message.contains("left no record"), "{message}");
    let mut s = snapshot();
    s.desired = DesiredState::Terminated;
    let plan = settle(&mut s, NOW);
    assert_eq!(shown(&plan, "Ready").message, "terminated before anything ran");
}

#[test]
fn what_is_saved_beside_the_branch_is_kept_for_all_who_need_it() {
    let saved = Saved {
        r#ref: "refs/gastown/wip/dev/toast/1".into(),
        commit: commit(7),
        of: "branch side".into(),
        skipped: 0,
    };
    let record = SyncReport { saved: vec![saved], ..pushed() };
    let mut s = after(pod(1).ended(Some(AgentExit::Crashed), Some(record)));
    let next = settle(&mut s, NOW + 60);
    let inputs = starts(&next).unwrap();
    assert_eq!((inputs.saved[0].commit.clone(), inputs.saved[0].attempt), (commit(7), 1));
    assert!(inputs.restore, "the work was not finished");
    assert_eq!(next.status.saved, inputs.saved);
    assert_eq!(Ledger::parse(&ledger(&s).render()).unwrap().saved, inputs.saved);

    let mut s = after(finished(1));
    s.requests = vec![request(1, 1, MergePhase::Rework)];
    assert!(!starts(&settle(&mut s, NOW)).unwrap().restore, "finished work is not put back");

    let mut landed = Ledger { saved: inputs.saved.clone(), ..ledger(&after(finished(1))).clone() };
    landed.landed = Some(Landed { request: "r".into(), at: at(NOW).as_second() });
    s.ledger = Ok(landed);
    s.requests.clear();
    assert_eq!(settle(&mut s, NOW + 604_799).status.saved.len(), 1);
    assert!(settle(&mut s, NOW + 604_800).status.saved.is_empty(), "wipRetention has passed");
}

#[test]
fn a_container_of_others_keeps_no_pod_and_no_slot_once_the_work_is_saved() {
    let mut s = working(|p| (p.agent_ended, p.strangers, p.saved) = (true, true, Some(false)));
    assert!(decide(at(NOW), &s).actions.is_empty(), "its work is not saved");
    s.pods[0].saved = Some(true);
    assert_eq!(deletes(&decide(at(NOW), &s)), [Some(60)], "nothing of ours needs its grace");
    s.pods[0].strangers = false;
    assert!(decide(at(NOW), &s).actions.is_empty(), "the kubelet ends it");
}

#[test]
fn a_pod_that_cannot_start_gives_its_slot_back_and_costs_nothing() {
    let mut s = snapshot();
    (s.labelled, s.finalizer, s.pods) = (true, true, vec![waiting("ImagePullBackOff")]);
    let early = decide(at(NOW + 599), &s);
    assert_eq!((drains(&early), early.wake), (None, Some(at(NOW + 600))));
    let plan = decide(at(NOW + 600), &s);
    let why = drains(&plan).unwrap().to_owned();
    assert!(why.starts_with("StartTimeout: ImagePullBackOff: "), "{why}");
    s.pods[0].drain = Some(why.clone());
    assert_eq!(deletes(&decide(at(NOW + 600), &s)), [None]);

    let over = PodFacts {
        phase: PodPhase::Failed,
        deletion: Some(at(NOW + 601)),
        waiting: None,
        ..s.pods[0].clone()
    };
    s.pods = vec![over];
    let plan = settle(&mut s, NOW + 601);
    assert_eq!(shown(&plan, "Ready").reason, "ImagePullBackOff");
    assert_eq!(shown(&plan, "Ready").message, "image i cannot be pulled");
    let known = ledger(&s);
    assert_eq!((known.end(), known.respawns.total()), (Some(End::Waits), 0));
    assert_eq!(plan.wake, Some(at(NOW + 631)), "others have the slot for a while");
    s.pods.clear();
    assert_eq!(starts(&settle(&mut s, NOW + 631)).map(|i| i.attempt), Some(1));

    let mut pulling = snapshot();
    let mut slow = PodFacts { waiting: None, ..waiting("") };
    slow.init = Some(crate::polecat::fixtures::init(InitResult::Ready));
    (pulling.labelled, pulling.finalizer, pulling.pods) = (true, true, vec![slow]);
    assert!(decide(at(NOW + 86_400), &pulling).actions.is_empty(), "a large image takes its time");
}

#[test]
fn a_corrected_spec_replaces_a_pod_that_has_not_started() {
    let mut s = snapshot();
    (s.labelled, s.finalizer, s.pods) = (true, true, vec![waiting("ImagePullBackOff")]);
    assert!(decide(at(NOW), &s).actions.is_empty());
    s.spec = Ok(valid("another task"));
    assert_eq!(drains(&decide(at(NOW), &s)), Some("SpecChanged"));
    s.pods[0].drain = Some("SpecChanged".into());
    assert_eq!(deletes(&decide(at(NOW), &s)), [None]);
    let over = PodFacts { scheduled: false, deletion: Some(at(NOW)), ..s.pods[0].clone() };
    s.pods = vec![over];
    settle(&mut s, NOW);
    s.pods.clear();
    let plan = settle(&mut s, NOW);
    assert_eq!(starts(&plan).map(|i| i.attempt), Some(1), "at once, at no cost");

    let mut old = waiting("ImagePullBackOff");
    old.asked = Some("f6ba926073e1c13a".into());
    s.pods = vec![PodFacts { uid: "old".into(), ..old }];
    assert_eq!(drains(&decide(at(NOW), &s)), None, "a hash of another version states nothing");
    let mut running = pod(1).running();
    running.uid = "running".into();
    s.pods = vec![running];
    assert_eq!(drains(&decide(at(NOW), &s)), None, "work is not thrown away");
}

#[test]
fn waiting_for_the_models_service_spends_no_attempt_and_ends_after_a_day() {
    let mut s = snapshot();
    let mut now = NOW;
    let mut pods = 0;
    loop {
        pods += 1;
        let mut limited = pod(1).ended(Some(AgentExit::RateLimited), Some(pushed()));
        limited.uid = format!("limited-{pods}");
        s.pods = vec![limited];
        let plan = settle(&mut s, now);
        if plan.status.phase == PolecatPhase::Stuck {
            break;
        }
        assert_eq!(shown(&plan, "Ready").reason, "RateLimited");
        assert_eq!((ledger(&s).attempt, ledger(&s).respawns.total()), (1, 0));
        let wake = plan.wake.unwrap().as_second() - at(0).as_second();
        assert!((30..=2400).contains(&(wake - now)), "{}", wake - now);
        now = wake;
        assert_eq!(starts(&settle(&mut s, now)).map(|i| i.attempt), Some(1));
    }
    assert!((86_400..=90_000).contains(&(now - NOW)), "{}", now - NOW);
    assert!((20..100).contains(&pods), "{pods}");
    let mut other = snapshot();
    other.service_wait = Some(at(NOW + 100));
    let plan = settle(&mut other, NOW);
    assert!(starts(&plan).is_none());
    assert_eq!(shown(&plan, "Ready").reason, "RateLimited");
    let wake = plan.wake.unwrap();
    assert!((at(NOW + 100)..=at(NOW + 160)).contains(&wake), "one after another");
    assert!(starts(&settle(&mut other, NOW + 160)).is_some());
}

#[test]
fn no_agent_starts_while_its_network_policy_cannot_be_written() {
    let mut s = snapshot();
    let message = "creating NetworkPolicy: denied".to_owned();
    s.network = Some(NetworkProblem { message: message.clone(), until: at(NOW + 20) });
    let plan = settle(&mut s, NOW);
    assert!(starts(&plan).is_none());
    let ready = shown(&plan, "Ready");
    assert_eq!(
        (ready.reason.as_ref(), ready.message.as_str()),
        ("NetworkPolicyFailed", message.as_str())
    );
    assert_eq!(plan.wake, Some(at(NOW + 20)));
    s.network = None;
    assert!(starts(&settle(&mut s, NOW + 20)).is_some());
}

#[test]
fn the_clocks_of_others_decide_nothing() {
    for skew in [-7200, 0, 7200] {
        let mut dead = pod(1).ended(Some(AgentExit::Crashed), None);
        dead.ended = Some(at(NOW + skew));
        let mut s = snapshot();
        s.pods = vec![dead];
        let plan = settle(&mut s, NOW);
        assert_eq!(plan.wake, Some(at(NOW + 30)), "{skew}");
        assert!(plan.status.outcome.unwrap().at <= at(NOW).as_second(), "{skew}");
    }
    let mut s = snapshot();
    let deleted = PodFacts { deletion: Some(at(NOW)), grace_seconds: 600, ..pod(1).running() };
    s.pods = vec![deleted];
    assert_eq!(decide(at(NOW), &s).wake, Some(at(NOW + 900)), "its grace period counts");
}

#[test]
fn work_that_cannot_be_merged_is_not_begun() {
    let mut s = snapshot();
    let RigFacts::Present { repository, .. } = &mut s.rig else { unreachable!() };
    *repository = Some("github.com/org/other".into());
    let plan = settle(&mut s, NOW);
    assert!(starts(&plan).is_none());
    let ready = shown(&plan, "Ready");
    assert_eq!(
        (plan.status.phase, ready.reason.as_ref()),
        (PolecatPhase::Stuck, "WrongRepository")
    );
    assert!(ready.message.contains("github.com/org/other"), "{}", ready.message);

    let branch = |branches: &[&str]| {
        let mut s = snapshot();
        let RigFacts::Present { targets, .. } = &mut s.rig else { unreachable!() };
        *targets = branches.iter().map(ToString::to_string).collect();
        let plan = settle(&mut s, NOW);
        (starts(&plan).is_some(), shown(&plan, "Ready").reason.to_string())
    };
    assert!(branch(&["dev", "main"]).0);
    assert!(branch(&[]).0, "its Refinery may still come");
    assert_eq!(branch(&["dev"]), (false, "WrongBranch".into()));
}

#[test]
fn an_action_that_failed_is_shown_in_the_other_sides_words() {
    let plan = settle(&mut snapshot(), NOW);
    let why = "creating prompt polecat-toast: configmaps is forbidden: exceeded quota";
    let draft = plan.status.failed(why);
    let ready = draft.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status, ready.reason.as_ref()), (Status::False, "ActionFailed"));
    assert_eq!((ready.message.as_str(), draft.event.warning), (why, true));
}

#[test]
fn after_a_failed_action_only_what_does_not_depend_on_it_is_done() {
    let drain = Action::DrainPod { pod: "p".into(), uid: "u".into(), why: "Idle".into() };
    let finalizer = Action::RemovePodFinalizer { pod: "p".into(), uid: "u".into() };
    let metadata = Action::PatchMetadata { ledger: None, finalizer: false };
    let allowed = |ledger_failed: bool| {
        [&drain, &finalizer, &metadata].map(|a| a.after_failure(ledger_failed))
    };
    assert_eq!(allowed(false), [true, true, false]);
    assert_eq!(allowed(true), [true, false, false], "the outcome is written down first");
}
