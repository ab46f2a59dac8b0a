use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::simulation::{SAVED_SECONDS, Simulation, request, start};
use super::*;

#[test]
fn an_older_request_goes_first_and_priority_outweighs_two_hours() {
    let mut sim = Simulation::new(3, BTreeSet::new(), BTreeSet::new(), true);
    sim.snapshot.requests[2].created = start() - SignedDuration::from_hours(1);
    sim.snapshot.requests[1].priority = 1;
    let names: Vec<&str> = queue(&sim.snapshot).into_iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["ns/mr-1", "ns/mr-2", "ns/mr-0"]);
}

#[test]
fn no_run_begins_while_gates_may_not_start_and_what_has_passed_lands() {
    let mut sim = Simulation::new(2, BTreeSet::new(), BTreeSet::new(), true);
    sim.snapshot.gates_may_start = false;
    while sim.act(decide(&sim.snapshot)) {}
    assert_eq!(sim.snapshot.runs, []);
    sim.snapshot.gates_may_start = true;
    while sim.act(decide(&sim.snapshot)) {}
    assert_eq!(sim.snapshot.runs.len(), 1);
    sim.snapshot.gates_may_start = false;
    sim.finish(false);
    let before = sim.tip();
    while sim.act(decide(&sim.snapshot)) {}
    assert_ne!(sim.tip(), before, "the commit that passed has not landed");
    assert_eq!(sim.snapshot.runs, [], "the next one is tested");
}

#[test]
fn a_held_request_waits_and_a_rejected_one_ends() {
    let mut sim = Simulation::new(2, BTreeSet::new(), BTreeSet::new(), true);
    sim.snapshot.requests[0].hold = true;
    sim.snapshot.requests[1].rejected = Some("ann: not now".into());
    assert!(matches!(decide(&sim.snapshot), Step::Reject { reason: "Rejected", .. }));
    sim.snapshot.requests.remove(1);
    assert_eq!(decide(&sim.snapshot), Step::Wait { on: Waiting::Blocked, until: None });
}

#[test]
fn a_newer_request_of_the_author_replaces_the_older_once_its_commit_was_seen() {
    let replaced = Step::Supersede { request: RequestId("uid-0".into()), by: "ns/mr-1".into() };
    let by = |change: fn(&mut Request)| {
        let mut sim = Simulation::new(2, BTreeSet::new(), BTreeSet::new(), true);
        sim.snapshot.requests[1].created += SignedDuration::from_secs(1);
        sim.snapshot.requests[1].source = Source::Present;
        change(&mut sim.snapshot.requests[1]);
        decide(&sim.snapshot)
    };
    let same_author = |r: &mut Request| r.polecat = Some("polecat-0".into());
    assert_eq!(by(same_author), replaced);
    assert_eq!(by(|r| r.previous = Some("mr-0".into())), replaced);
    // What a stranger can make of a name, a branch, a uid or a commit that nobody has.
    let forgeries: [fn(&mut Request); 6] = [
        |r| r.branch = "feature/0".parse().unwrap(),
        |r| (r.name, r.polecat) = ("other/mr-1".into(), Some("polecat-0".into())),
        |r| (r.name, r.previous) = ("other/mr-1".into(), Some("mr-0".into())),
        |r| (r.source, r.polecat) = (Source::Unknown, Some("polecat-0".into())),
        |r| {
            (r.created, r.polecat) =
                (start() - SignedDuration::from_secs(9), Some("polecat-0".into()));
        },
        |r| (r.created, r.previous) = (start() - SignedDuration::from_secs(9), Some("mr-0".into())),
    ];
    for forge in forgeries {
        assert_ne!(by(forge), replaced);
    }
}

#[test]
fn a_failed_run_is_blamed_on_the_request_only_when_the_target_alone_passes() {
    let mut sim = Simulation::new(1, BTreeSet::from([0]), BTreeSet::new(), true);
    let tip = sim.tip();
    for _ in 0..=MAX_RETRIES {
        while sim.act(decide(&sim.snapshot)) {}
        assert!(sim.snapshot.runs.iter().all(|r| r.candidate != tip));
        sim.finish(false);
    }
    while sim.act(decide(&sim.snapshot)) {}
    assert_eq!(
        sim.snapshot.runs.iter().map(|r| &r.candidate).collect::<Vec<_>>(),
        [&tip],
        "the target alone is not tested"
    );
    sim.finish(false);
    while sim.act(decide(&sim.snapshot)) {}
    assert_eq!(sim.snapshot.requests[0].end.as_ref().unwrap().reason, "GateFailed");
}

#[test]
fn a_broken_target_blames_no_request_and_its_fix_lands() {
    let mut sim = Simulation::new(3, BTreeSet::new(), BTreeSet::new(), true);
    sim.push(true);
    sim.fixer = Some(2);
    for _ in 0..200 {
        let step = decide(&sim.snapshot);
        match &step {
            Step::Wait { on: Waiting::Gate { .. }, .. } => sim.finish(false),
            Step::Wait { on: Waiting::Idle, .. } => break,
            Step::Wait { until, .. } => sim.snapshot.now = until.unwrap(),
            Step::Rework { request, .. } => panic!("{request:?} is blamed"),
            _ => {}
        }
        sim.act(step);
    }
    assert!(
        sim.snapshot
            .requests
            .iter()
            .all(|r| r.end.as_ref().is_some_and(|e| e.phase == MergePhase::Landed))
    );
    assert_eq!(sim.snapshot.now, start(), "the others waited although the target was repaired");
}

#[test]
fn on_a_target_that_is_known_to_be_broken_a_failure_costs_one_run() {
    use GateRunPurpose::{Control, Retry, Test};
    let mut sim = Simulation::new(3, BTreeSet::new(), BTreeSet::new(), true);
    sim.push(true);
    let mut runs = BTreeMap::<RequestId, Vec<GateRunPurpose>>::new();
    while runs.len() < 3 || !sim.snapshot.runs.is_empty() {
        let step = decide(&sim.snapshot);
        match &step {
            Step::Wait { on: Waiting::Gate { .. }, .. } => sim.finish(false),
            Step::Wait { .. } => panic!("{step:?}"),
            Step::EnsureGate { car, purpose, .. } => {
                runs.entry(car.request.clone()).or_default().push(*purpose);
            }
            _ => {}
        }
        sim.act(step);
    }
    let all: Vec<_> = runs.into_values().collect();
    assert_eq!(all, [vec![Test, Retry, Control], vec![Test], vec![Test]]);
}

#[test]
fn on_a_broken_target_the_remote_is_polled_and_the_gate_runs_again_later() {
    let mut sim = Simulation::new(1, BTreeSet::new(), BTreeSet::new(), true);
    sim.push(true);
    let (mut fetches, mut retests) = (0, 0);
    // The first run, and two more.
    while retests < 3 {
        let step = decide(&sim.snapshot);
        match &step {
            Step::Wait { on: Waiting::Gate { .. }, .. } => sim.finish(false),
            Step::Wait { until, .. } => sim.snapshot.now = until.unwrap(),
            Step::Fetch => fetches += 1,
            Step::EnsureGate { purpose: GateRunPurpose::Test, .. } => retests += 1,
            _ => {}
        }
        sim.act(step);
    }
    let waited = sim.snapshot.now.as_second() - start().as_second();
    assert!((2 * BROKEN_TARGET_SECONDS..3 * BROKEN_TARGET_SECONDS).contains(&waited), "{waited}");
    assert!(fetches >= waited / REMOTE_POLL_SECONDS, "{fetches} looks in {waited} s");
}

#[test]
fn a_newer_request_waits_for_the_verdict_on_the_older() {
    let mut sim = Simulation::new(1, BTreeSet::new(), BTreeSet::new(), true);
    while sim.act(decide(&sim.snapshot)) {}
    let mut newer = request(1);
    newer.polecat = sim.snapshot.requests[0].polecat.clone();
    newer.created += SignedDuration::from_secs(1);
    sim.snapshot.requests.push(newer);
    assert_eq!(decide(&sim.snapshot), Step::Fetch);
    sim.act(Step::Fetch);
    assert!(matches!(decide(&sim.snapshot), Step::Wait { on: Waiting::Gate { .. }, .. }));
    sim.settle();
    assert!(
        sim.snapshot
            .requests
            .iter()
            .all(|r| r.end.as_ref().is_some_and(|e| e.phase == MergePhase::Landed))
    );
}

/// Runs until the first request ends or `limit` runs have broken. `breaks` decides of each run of the
/// first request whether it breaks. Returns the purposes of its runs and the waits after them.
fn broken(
    sim: &mut Simulation,
    limit: usize,
    breaks: fn(&Run) -> bool,
) -> (Vec<GateRunPurpose>, Vec<i64>) {
    let (mut purposes, mut waits) = (Vec::new(), Vec::new());
    while waits.len() < limit && sim.snapshot.requests[0].end.is_none() {
        match decide(&sim.snapshot) {
            Step::Wait { on: Waiting::Gate { request, .. }, .. } => {
                let breaks = request.0 == "uid-0" && breaks(&sim.snapshot.runs[0]);
                sim.finish(breaks);
            }
            Step::Wait { until, .. } => sim.snapshot.now = until.unwrap(),
            step => {
                match &step {
                    Step::RecordBrokenRun { until, .. } => {
                        waits.push(until.as_second() - sim.snapshot.now.as_second());
                    }
                    Step::EnsureGate { car, purpose, .. } if car.request.0 == "uid-0" => {
                        purposes.push(*purpose);
                    }
                    _ => {}
                }
                sim.act(step);
            }
        }
    }
    (purposes, waits)
}

#[test]
fn what_breaks_on_the_target_alone_as_well_backs_off_without_blame_and_others_continue() {
    use GateRunPurpose::{Control, Test};
    let mut sim = Simulation::new(2, BTreeSet::new(), BTreeSet::new(), true);
    let (purposes, waits) = broken(&mut sim, 9, |_| true);
    assert_eq!(waits, [10, 20, 40, 600, 600, 600, 600, 600, 600]);
    // The target moves when the other request lands, and with it the candidate.
    assert_eq!(purposes[..3], [Test, Test, Test]);
    assert!(purposes.contains(&Control), "{purposes:?}");
    assert!(sim.snapshot.requests[0].end.is_none());
    assert_eq!(sim.snapshot.requests[1].end.as_ref().unwrap().phase, MergePhase::Landed);
}

#[test]
fn what_breaks_on_the_candidate_only_goes_back_to_its_author() {
    use GateRunPurpose::{Control, Test};
    let mut sim = Simulation::new(1, BTreeSet::new(), BTreeSet::new(), true);
    let (purposes, waits) = broken(&mut sim, 9, |run| run.purpose != Control);
    assert_eq!((purposes, waits.len()), (vec![Test, Test, Test, Control], 3));
    let end = sim.snapshot.requests[0].end.clone().unwrap();
    assert_eq!((end.phase, end.reason.as_str()), (MergePhase::Rework, "GateBroken"));
}

#[test]
fn a_commit_that_is_not_on_its_branch_waits_and_then_goes_back() {
    let mut sim = Simulation::new(1, BTreeSet::new(), BTreeSet::new(), true);
    sim.act(Step::Fetch);
    let now = sim.snapshot.now;
    sim.snapshot.requests[0].source = Source::Missing { since: now, looked: now };
    assert!(matches!(decide(&sim.snapshot), Step::Wait { on: Waiting::Blocked, until: Some(_) }));
    sim.snapshot.now += SignedDuration::from_secs(SOURCE_MISSING_SECONDS);
    let now = sim.snapshot.now;
    sim.snapshot.target = Target::At { tip: sim.tip(), seen: now };
    sim.snapshot.requests[0].source = Source::Missing { since: start(), looked: now };
    assert_eq!(decide(&sim.snapshot), Step::LookUpAuthor(RequestId("uid-0".into())));
    sim.snapshot.requests[0].author = Author::Gone;
    assert!(matches!(decide(&sim.snapshot), Step::Reject { reason: "AuthorGone", .. }));
    sim.snapshot.requests[0].author = Author::Present;
    assert!(matches!(decide(&sim.snapshot), Step::Rework { reason: "SourceCommitMissing", .. }));
}

#[test]
fn a_person_can_have_a_reworked_request_tried_again() {
    let mut sim = Simulation::new(1, BTreeSet::from([0]), BTreeSet::new(), true);
    sim.settle();
    assert_eq!(sim.snapshot.requests[0].end.as_ref().unwrap().reason, "GateFailed");
    sim.failing.clear();
    sim.snapshot.requests[0].retry = 1;
    sim.settle();
    assert_eq!(sim.snapshot.requests[0].end.as_ref().unwrap().phase, MergePhase::Landed);
}

#[test]
fn ended_requests_are_deleted_after_a_week() {
    let mut sim = Simulation::new(1, BTreeSet::new(), BTreeSet::new(), false);
    sim.settle();
    let id = RequestId("uid-0".into());
    sim.snapshot.now += SignedDuration::from_secs(KEPT_SECONDS);
    assert!(matches!(decide(&sim.snapshot), Step::Wait { .. }), "what it saved is kept longer");
    sim.snapshot.now += SignedDuration::from_secs(SAVED_SECONDS - KEPT_SECONDS);
    assert_eq!(decide(&sim.snapshot), Step::DeleteSaved(id.clone()));
    sim.act(Step::DeleteSaved(id.clone()));
    assert_eq!(decide(&sim.snapshot), Step::DeleteRequest(id));
}

#[test]
fn a_request_whose_changes_are_there_lands_as_the_tip_that_it_was_compared_with() {
    let mut sim = Simulation::new(1, BTreeSet::new(), BTreeSet::new(), true);
    sim.act(Step::Fetch);
    let tip = sim.tip();
    sim.snapshot.requests[0].build =
        Some(Build { base: tip.clone(), built: Built::AlreadyInTarget });
    let step = decide(&sim.snapshot);
    let landed = Step::MarkLanded {
        request: RequestId("uid-0".into()),
        commit: tip,
        tested: None,
        reason: "AlreadyInTarget",
    };
    assert_eq!(step, landed);
    assert!(sim.act(step));
    assert_eq!(sim.snapshot.requests[0].end.as_ref().unwrap().phase, MergePhase::Landed);
}
