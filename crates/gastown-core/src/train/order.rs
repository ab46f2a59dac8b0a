use jiff::Timestamp;

use super::Judgement;
use super::facts::{Build, Built, Facts, Landing, Request, Run, RunState, Target};

/// How much a request wants to be next: 1000, 100 for each step of priority, 50 for each hour of
/// its age.
pub fn score(now: Timestamp, created: Timestamp, priority: u8) -> i64 {
    let age = (now.as_second() - created.as_second()).max(0);
    1000 + 100 * (4 - i64::from(priority.min(4))) + age * 50 / 3600
}

/// The open requests in the order in which they are tried: the one under test first, then by score,
/// ties by name.
pub fn queue(facts: &Facts) -> Vec<&Request> {
    let mut open: Vec<&Request> = facts.requests.iter().filter(|r| r.end.is_none()).collect();
    open.sort_by_key(|r| {
        (!under_test(facts, r), -score(facts.now, r.created, r.priority), r.name.clone())
    });
    open
}

/// Whether the request's candidate is being tested, or has passed on the present tip and is about
/// to land.
pub(super) fn under_test(facts: &Facts, request: &Request) -> bool {
    let of_it = |run: &Run| run.request == request.id && Some(&run.gate) == facts.gate.as_ref();
    let runs = facts.runs.iter().any(|run| of_it(run) && !matches!(run.state, RunState::Broken(_)));
    let passed = match (&request.build, &facts.target) {
        (Some(Build { base, built: Built::Candidate(commit) }), Target::At { tip, .. })
            if base == tip =>
        {
            request.verdicts.iter().any(|v| {
                v.candidate == *commit
                    && Some(&v.gate) == facts.gate.as_ref()
                    && v.result == Judgement::Pass
            })
        }
        _ => false,
    };
    runs || passed || request.landing != Landing::No
}
