//! What in a queue needs a person. Pure.

use gastown_api::{MergePhase, Refinery, Severity};
use gastown_core::train::{Snapshot, Target};
use gastown_escalations::{Problem, Subject};
use kube::ResourceExt as _;

use crate::report::{broken_target, gate_problem, target_health};
use crate::train::{Entry, Train};

/// The target fails its own gate.
const TARGET_BROKEN: &str = "TargetBroken";
/// Gates do not run.
const GATE_BROKEN: &str = "GateBroken";
/// A request has to be worked on again, and its author does not exist any more.
const AUTHOR_GONE: &str = "AuthorGone";
/// The remote refuses to let a tested request land.
const PUSH_REJECTED: &str = "PushRejected";
/// After so many refusals in a row a person is needed.
const MAX_REFUSED: u32 = 3;
/// The reasons for Escalations about a Refinery.
pub(crate) const REFINERY_REASONS: [&str; 2] = [TARGET_BROKEN, GATE_BROKEN];
/// The reasons for Escalations about a MergeRequest.
pub(crate) const REQUEST_REASONS: [&str; 2] = [AUTHOR_GONE, PUSH_REJECTED];

/// The problems that one object has now, of the reasons that apply to its kind.
pub(crate) struct Problems {
    pub subject: Subject,
    pub reasons: &'static [&'static str],
    pub present: Vec<Problem>,
}

/// The problems of a Refinery and of its requests.
pub(crate) fn problems(snapshot: &Snapshot, train: &Train, refinery: &Refinery) -> Vec<Problems> {
    let mut all = vec![Problems {
        subject: Subject::of(refinery, &refinery.spec.rig_ref),
        reasons: &REFINERY_REASONS,
        present: of_refinery(snapshot, train, &refinery.spec.target_branch),
    }];
    for e in train.entries.values() {
        let present: Vec<Problem> = of_request(e).into_iter().collect();
        // Another request without a problem never had one.
        if !present.is_empty() || e.durable.record.retried > 0 || was_refused(e) {
            let subject = Subject::of(e.object(), &e.object().spec.rig_ref);
            all.push(Problems { subject, reasons: &REQUEST_REASONS, present });
        }
    }
    all
}

fn of_refinery(snapshot: &Snapshot, train: &Train, target: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let (Some(false), Target::At { tip, .. }) = (target_health(snapshot), &snapshot.target) {
        let waiting = snapshot.requests.iter().filter(|r| r.end.is_none()).count();
        let details = format!(
            "{waiting} requests wait. A request that passes the gate on {target} lands all the same: submit the fix as one."
        );
        problems.push(Problem {
            reason: TARGET_BROKEN,
            severity: Severity::High,
            summary: broken_target(target, tip),
            details,
        });
    }
    if let Some(summary) = gate_problem(train) {
        let details =
            "The gate is tried again every 10 min. See the events of its Job and pod.".to_owned();
        problems.push(Problem { reason: GATE_BROKEN, severity: Severity::High, summary, details });
    }
    problems
}

/// Whether the remote refused to let it land before it did.
fn was_refused(e: &Entry) -> bool {
    let attempts = &e.scratch.history.attempts;
    !e.is_open() && attempts.iter().any(|a| a.result.as_deref() == Some(PUSH_REJECTED))
}

fn of_request(e: &Entry) -> Option<Problem> {
    refused(e).or_else(|| author_gone(e))
}

/// The remote refuses the landing again and again.
fn refused(e: &Entry) -> Option<Problem> {
    let refused = e.scratch.refused.as_ref().filter(|r| e.is_open() && r.times >= MAX_REFUSED)?;
    let name = e.object().name_any();
    let summary = format!("MergeRequest {name} passed its gate and does not land: {}", refused.why);
    let details = format!(
        "It was refused {} times and is tried again at most every half hour. A rule of the remote may \
         want another committer, a signature, or a pull request.",
        refused.times
    );
    Some(Problem { reason: PUSH_REJECTED, severity: Severity::High, summary, details })
}

fn author_gone(e: &Entry) -> Option<Problem> {
    let end = e.durable.record.end.as_ref();
    let end = end.filter(|end| end.phase == MergePhase::Rejected && end.reason == AUTHOR_GONE)?;
    let name = e.object().name_any();
    let details = format!(
        "Branch {} still has commit {}. To try it again as it is, add 1 to spec.retry of MergeRequest {name}.",
        e.durable.branch, e.durable.commit
    );
    let summary = format!("MergeRequest {name} did not land: {}", end.message);
    Some(Problem { reason: AUTHOR_GONE, severity: Severity::Medium, summary, details })
}
