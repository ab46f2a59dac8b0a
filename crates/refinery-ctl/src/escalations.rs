//! What of the queue a person is to be told of. Pure, but for handing it on.

use gastown_api::{Refinery, Severity};
use gastown_core::train::{EndPhase, Facts, Target};
use gastown_escalations::{Escalations, Problem, Subject};
use kube::ResourceExt as _;

use crate::memory::{Entry, Train};
use crate::report::{broken, gate_problem, target_health};

/// The target fails its own gate.
const TARGET_BROKEN: &str = "TargetBroken";
/// Gates do not run.
const GATE_BROKEN: &str = "GateBroken";
/// A request has to be worked on again, and nobody is there to do it.
const AUTHOR_GONE: &str = "AuthorGone";

/// Says how it stands with a Refinery and its requests.
pub(crate) fn keep(escalations: &Escalations, facts: &Facts, train: &Train, refinery: &Refinery) {
    let subject = Subject::of(refinery, &refinery.spec.rig_ref);
    escalations.update(
        &subject,
        &[TARGET_BROKEN, GATE_BROKEN],
        &of_refinery(facts, train, &refinery.spec.target_branch),
    );
    for e in train.entries.values() {
        let problem = of_request(e);
        // What nobody has given up on was never told of, unless a person asked for another try.
        if problem.is_some() || e.ledger.retried > 0 {
            escalations.update(
                &Subject::of(e.object.as_ref(), &e.object.spec.rig_ref),
                &[AUTHOR_GONE],
                problem.as_slice(),
            );
        }
    }
}

fn of_refinery(facts: &Facts, train: &Train, target: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let (Some(false), Target::At { tip, .. }) = (target_health(facts), &facts.target) {
        let waiting = facts.requests.iter().filter(|r| r.end.is_none()).count();
        let details = format!(
            "{waiting} requests wait. One that passes the gate on {target} lands all the same: the fix is such a request."
        );
        problems.push(Problem {
            reason: TARGET_BROKEN,
            severity: Severity::High,
            summary: broken(target, tip),
            details,
        });
    }
    if let Some(summary) = gate_problem(train) {
        let details =
            "It is tried again every ten minutes. The events of its Job and pod say more."
                .to_owned();
        problems.push(Problem { reason: GATE_BROKEN, severity: Severity::High, summary, details });
    }
    problems
}

fn of_request(e: &Entry) -> Option<Problem> {
    let end = e
        .ledger
        .end
        .as_ref()
        .filter(|end| end.phase == EndPhase::Rejected && end.reason == AUTHOR_GONE)?;
    let name = e.object.name_any();
    let details = format!(
        "Branch {} still holds commit {}. Adding 1 to spec.retry of MergeRequest {name} tries it again as it is.",
        e.branch, e.commit
    );
    let summary = format!("MergeRequest {name} is not landed: {}", end.message);
    Some(Problem { reason: AUTHOR_GONE, severity: Severity::Medium, summary, details })
}
