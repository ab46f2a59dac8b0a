use jiff::Timestamp;

use super::GateResult;
use super::snapshot::{Build, Built, Landing, Request, Run, RunState, Snapshot, Target};

/// A request's score, which orders the queue: 1000, plus 100 for each step of priority above 4, plus
/// 50 for each hour of its age.
pub fn score(now: Timestamp, created: Timestamp, priority: u8) -> i64 {
    let age = (now.as_second() - created.as_second()).max(0);
    1000 + 100 * (4 - i64::from(priority.min(4))) + age * 50 / 3600
}

/// The open requests in the order in which they are tried: the one under test first, then by score;
/// ties by name.
pub fn queue(snapshot: &Snapshot) -> Vec<&Request> {
    let mut open: Vec<&Request> = snapshot.requests.iter().filter(|r| r.end.is_none()).collect();
    open.sort_by_key(|r| {
        (!under_test(snapshot, r), -score(snapshot.now, r.created, r.priority), r.name.clone())
    });
    open
}

/// Whether the request is being tested, or has passed on the present tip and lands next.
pub(super) fn under_test(snapshot: &Snapshot, request: &Request) -> bool {
    let of_it = |run: &Run| run.request == request.id && Some(&run.gate) == snapshot.gate.as_ref();
    let runs =
        snapshot.runs.iter().any(|run| of_it(run) && !matches!(run.state, RunState::Broken(_)));
    let passed = match (&request.build, &snapshot.target) {
        (Some(Build { base, built: Built::Candidate(commit) }), Target::At { tip, .. })
            if base == tip =>
        {
            request.history.verdicts.iter().any(|v| {
                v.candidate == *commit
                    && Some(&v.gate) == snapshot.gate.as_ref()
                    && v.result == GateResult::Pass
            })
        }
        _ => false,
    };
    runs || passed || request.landing != Landing::No
}
