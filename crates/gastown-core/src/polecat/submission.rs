//! The merge of finished work: what is submitted, and when a finished Polecat is deleted.

use gastown_api::{DesiredState, MergePhase};
use jiff::Timestamp;

use super::facts::{RigFacts, Snapshot};
use super::ledger::{End, Ledger};
use super::plan::SubmitInputs;
use crate::retry::Due;

/// Where the merge of the work is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Submission {
    /// There is nothing to merge, or not yet.
    Nothing,
    /// To be submitted now.
    Due(SubmitInputs),
    /// To be submitted later, perhaps at a time.
    Wait { reason: String, message: String, until: Option<Timestamp> },
    /// It can never be merged in this rig.
    Never { reason: &'static str, message: String },
    /// There is a MergeRequest.
    Made { request: String, phase: MergePhase, reason: String, landed: Option<Timestamp> },
}

/// The merge's state.
pub(super) fn submission(now: Timestamp, s: &Snapshot, ledger: &Ledger) -> Submission {
    if let Some(made) = made(s, ledger) {
        return made;
    }
    let Ok(spec) = &s.spec else { return Submission::Nothing };
    let (repository, rig) = match &s.rig {
        RigFacts::Present { repository, name, .. } => (repository.as_deref(), name),
        RigFacts::Missing { name } if ledger.end() == Some(End::Done) => {
            return Submission::Wait {
                reason: "RigNotFound".to_owned(),
                message: format!("Rig {name} does not exist"),
                until: None,
            };
        }
        RigFacts::Missing { .. } => return Submission::Nothing,
    };
    let ours = spec.repository.normalised();
    if repository.is_some_and(|r| r != ours) {
        let message = format!(
            "spec.kubernetes.gitRepository is not the repository of rig {rig}: its work is not merged"
        );
        return Submission::Never { reason: "WrongRepository", message };
    }
    match (&ledger.commit, &ledger.branch) {
        (Some(commit), Some(branch)) if ledger.end() == Some(End::Done) && !s.deleting => {
            let inputs = SubmitInputs {
                rig: rig.clone(),
                branch: branch.clone(),
                commit: commit.clone(),
                target: spec.target.clone(),
                attempt: ledger.attempt,
                previous: s.latest_request().map(|r| r.name.clone()).unwrap_or_default(),
                bead: spec.bead.clone().unwrap_or_default(),
                priority: spec.priority,
            };
            due(now, s, inputs)
        }
        _ => Submission::Nothing,
    }
}

/// The MergeRequest that landed, or the one for the last finished commit.
fn made(s: &Snapshot, ledger: &Ledger) -> Option<Submission> {
    if let Some(landed) = &ledger.landed {
        return Some(Submission::Made {
            request: landed.request.clone(),
            phase: MergePhase::Landed,
            reason: "Landed".to_owned(),
            landed: Timestamp::from_second(landed.at).ok(),
        });
    }
    let request = s.request_of(ledger).or_else(|| s.latest_request())?;
    let current =
        ledger.end() != Some(End::Done) || Some(&request.commit) == ledger.commit.as_ref();
    current.then(|| Submission::Made {
        request: request.name.clone(),
        phase: request.phase,
        reason: request.reason.clone(),
        landed: request.landed_at.filter(|_| request.phase == MergePhase::Landed),
    })
}

fn due(now: Timestamp, s: &Snapshot, inputs: SubmitInputs) -> Submission {
    match s.deliveries.submission.due(now, &inputs.commit) {
        Due::Acknowledged(answer) if answer.until > now => Submission::Made {
            request: answer.merge_request.clone(),
            phase: MergePhase::Queued,
            reason: "Queued".to_owned(),
            landed: None,
        },
        Due::Later(until, failure) => Submission::Wait {
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            until: Some(until),
        },
        Due::Now | Due::Acknowledged(_) => Submission::Due(inputs),
    }
}

/// Whether work of the Polecat has landed, is in the queue, or is about to be submitted: then
/// no other Polecat may begin the bead again.
pub(super) fn lands(s: &Snapshot, ledger: &Ledger, submission: &Submission) -> bool {
    // What a later version calls its state may be on the way to the target.
    let queued = |phase| match phase {
        MergePhase::Queued | MergePhase::Testing | MergePhase::Landed | MergePhase::Unknown => true,
        MergePhase::Rework | MergePhase::Rejected | MergePhase::Superseded => false,
    };
    let submitted = match submission {
        Submission::Due(_) | Submission::Wait { .. } => ledger.end() == Some(End::Done),
        Submission::Made { phase, .. } => queued(*phase),
        Submission::Nothing | Submission::Never { .. } => false,
    };
    submitted || ledger.landed.is_some() || s.requests.iter().any(|r| queued(r.phase))
}

/// When `spec.ttlSecondsAfterFinished` deletes the Polecat: after the landing, or after its end
/// when there is nothing to merge. `idle`: it has no live pod.
pub(super) fn expires_at(
    s: &Snapshot,
    ledger: &Ledger,
    submission: &Submission,
    idle: bool,
) -> Option<Timestamp> {
    let ttl = s.ttl_seconds?;
    if s.deleting || !idle || s.desired == DesiredState::Idle {
        return None;
    }
    let last = ledger.last.as_ref()?;
    let end = match (last.end, submission) {
        (End::Done, Submission::Made { phase: MergePhase::Landed, landed, .. }) => {
            landed.map_or(last.at, Timestamp::as_second)
        }
        (End::Done, Submission::Never { .. }) | (End::DoneWithoutChanges, _) => last.at,
        (End::Done, _) => return None,
        _ if s.desired == DesiredState::Terminated => last.at,
        _ => return None,
    };
    Timestamp::from_second(end.saturating_add(ttl)).ok()
}
