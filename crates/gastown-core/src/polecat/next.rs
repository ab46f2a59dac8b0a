//! What a Polecat without a live pod does next: the rules about attempts, rigs and claims, in the
//! order in which they apply.

use gastown_api::MergePhase;
use gastown_api::names::{annotation, reason};
use jiff::Timestamp;

use super::claim::ClaimFacts;
use super::facts::{NetworkProblem, RigFacts, Snapshot, later};
use super::ledger::{End, Ledger};
use super::valid::{ValidPolecat, is_other_task};
use crate::retry::{Due, spread};

/// Polecats that wait for the same service start again within so many seconds.
const SPREAD_SECONDS: i64 = 60;

/// The next step of a Polecat that is wanted to work and has no live pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// The next attempt may start as soon as the rig has a free slot.
    Start,
    /// Its bead is free, and is claimed before anything starts.
    Claim,
    /// It waits for something, perhaps until a time.
    Wait { reason: String, message: String, until: Option<Timestamp> },
    /// It is finished; its MergeRequest is shown elsewhere.
    Finished,
    /// A person is needed. `spent`: it has given up, and no longer keeps its bead from others.
    Stuck { reason: String, message: String, spent: bool },
}

impl Next {
    fn wait(reason: &str, message: String) -> Self {
        Self::Wait { reason: reason.to_owned(), message, until: None }
    }

    pub(super) fn stuck(reason: &str, message: String) -> Self {
        Self::Stuck { reason: reason.to_owned(), message, spent: false }
    }

    fn spent(reason: &str, message: String) -> Self {
        Self::Stuck { reason: reason.to_owned(), message, spent: true }
    }
}

/// The next step. Gives the ledger a new budget where a person asked for another attempt.
pub(super) fn next(now: Timestamp, s: &Snapshot, ledger: &mut Ledger) -> Next {
    let mut next = after_last(s, ledger);
    if matches!(next, Next::Stuck { .. }) && asked_again(s, ledger) {
        let hash = s.spec.as_ref().map_or("", |spec| spec.hash.as_str());
        ledger.rearm(hash, s.retry.as_ref());
        next = Next::Start;
    }
    if next != Next::Start {
        return next;
    }
    match &s.spec {
        Err(invalid) => Next::stuck(invalid.reason, invalid.message.clone()),
        Ok(spec) => rig(s)
            .or_else(|| unserved(s, spec))
            .or_else(|| open_network(s))
            .or_else(|| pod_failure(now, s))
            .or_else(|| back_off(now, ledger, spec))
            .or_else(|| busy_service(now, s))
            .unwrap_or_else(|| claim(s)),
    }
}

/// Whether a person changed the task, or set another value of `gastown.io/retry`, since the last
/// outcome.
fn asked_again(s: &Snapshot, ledger: &Ledger) -> bool {
    let changed = s.spec.as_ref().is_ok_and(|spec| is_other_task(&ledger.spec, &spec.hash));
    changed || (s.retry.is_some() && s.retry != ledger.retry)
}

/// What follows from the last outcome, its MergeRequest, and the budget of attempts.
fn after_last(s: &Snapshot, ledger: &Ledger) -> Next {
    let Some(last) = &ledger.last else { return Next::Start };
    match last.end {
        End::DoneWithoutChanges => return Next::Finished,
        End::Done if ledger.landed.is_some() => return Next::Finished,
        End::Done => match s.request_of(ledger).map(|r| (r.phase, r)) {
            Some((MergePhase::Rework, _)) => {}
            Some((MergePhase::Rejected, r)) => {
                return Next::stuck(
                    "Rejected",
                    format!("MergeRequest {} was rejected: {}", r.name, r.reason),
                );
            }
            _ => return Next::Finished,
        },
        End::Stuck => return Next::stuck(&last.reason, last.message.clone()),
        End::Unknown => {
            let message = format!(
                "a later version of polecat-ctl recorded how the last attempt ended ({}): update polecat-ctl, or set {} to continue",
                last.reason,
                annotation::RETRY
            );
            return Next::stuck(reason::NEWER_LEDGER, message);
        }
        End::Waits | End::Drained | End::Later | End::Retries => {}
    }
    let (retries, attempts) =
        s.spec.as_ref().map_or((3, 8), |spec| (spec.max_retries, spec.max_attempts));
    if last.end == End::Retries && ledger.respawns.total() > retries {
        let message = format!("{}; all {retries} retries are spent", last.message);
        return Next::spent(&last.reason, message);
    }
    if ledger.next_attempt() > ledger.attempt && ledger.spent() >= attempts {
        let message = format!("all {attempts} attempts are spent; the last one: {}", last.message);
        return Next::spent("AttemptsSpent", message);
    }
    Next::Start
}

/// What the rig makes it wait for.
fn rig(s: &Snapshot) -> Option<Next> {
    match &s.rig {
        RigFacts::Missing { name } => {
            Some(Next::wait("RigNotFound", format!("Rig {name} does not exist")))
        }
        RigFacts::Present { name, admits_namespace: false, .. } => Some(Next::wait(
            "NamespaceNotAllowed",
            format!("rig {name} does not list namespace {} in spec.allowedNamespaces", s.namespace),
        )),
        RigFacts::Present { name, deleting: true, .. } => {
            Some(Next::wait("RigDeleting", format!("rig {name} is being deleted")))
        }
        RigFacts::Present { name, suspended: true, .. } => {
            Some(Next::wait("RigSuspended", format!("rig {name} is suspended (spec.suspend)")))
        }
        RigFacts::Present { .. } => None,
    }
}

/// Work that could not be merged is not begun: an agent costs money.
fn unserved(s: &Snapshot, spec: &ValidPolecat) -> Option<Next> {
    let RigFacts::Present { name, repository, targets, .. } = &s.rig else { return None };
    let ours = spec.repository.normalised();
    if let Some(theirs) = repository.as_ref().filter(|r| **r != ours) {
        let message = format!(
            "spec.kubernetes.gitRepository is {ours}, and rig {name} lands work on {theirs}: correct one of the two"
        );
        return Some(Next::stuck(reason::WRONG_REPOSITORY, message));
    }
    let target = spec.target.as_str();
    if targets.is_empty() || targets.iter().any(|t| t == target) {
        return None;
    }
    let message = format!(
        "no Refinery of rig {name} lands work on branch {target} (they land on {}): correct spec.kubernetes.gitBranch, or create a Refinery with that targetBranch",
        targets.join(", ")
    );
    Some(Next::stuck(reason::WRONG_BRANCH, message))
}

/// The model's service has asked a Polecat with the same credentials to wait: it would ask this one
/// too. They start again one after another.
fn busy_service(now: Timestamp, s: &Snapshot) -> Option<Next> {
    let until = later(s.service_wait?, spread(&s.uid, 0, SPREAD_SECONDS))?;
    (until > now).then(|| Next::Wait {
        reason: reason::RATE_LIMITED.to_owned(),
        message: "the model's service has asked another Polecat with the same credentials to wait"
            .to_owned(),
        until: Some(until),
    })
}

/// No agent starts without its network policy.
fn open_network(s: &Snapshot) -> Option<Next> {
    let NetworkProblem { message, until } = s.network.clone()?;
    let reason = reason::NETWORK_POLICY_FAILED.to_owned();
    Some(Next::Wait { reason, message, until: Some(until) })
}

/// A pod that could not be created is not tried again at once.
fn pod_failure(now: Timestamp, s: &Snapshot) -> Option<Next> {
    match s.deliveries.pod.due(now, &()) {
        Due::Later(until, failure) => Some(Next::Wait {
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            until: Some(until),
        }),
        Due::Now | Due::Acknowledged(()) => None,
    }
}

/// The back-off after the last outcome, unless a person has changed the task since.
fn back_off(now: Timestamp, ledger: &Ledger, spec: &ValidPolecat) -> Option<Next> {
    let last = ledger.last.as_ref()?;
    let unchanged = !is_other_task(&ledger.spec, &spec.hash);
    let until = last
        .until
        .and_then(|t| Timestamp::from_second(t).ok())
        .filter(|until| unchanged && *until > now)?;
    let (reason, message) = if last.end == End::Retries {
        ("BackOff", format!("waiting to retry after {}: {}", last.reason, last.message))
    } else {
        (last.reason.as_str(), last.message.clone())
    };
    Some(Next::Wait { reason: reason.to_owned(), message, until: Some(until) })
}

/// Nothing starts without the claim.
fn claim(s: &Snapshot) -> Next {
    let message = s.bead.as_deref().map(|bead| s.claim.message(bead)).unwrap_or_default();
    match &s.claim {
        ClaimFacts::NotNeeded | ClaimFacts::Held => Next::Start,
        ClaimFacts::Free => Next::Claim,
        held @ (ClaimFacts::HeldBy { .. } | ClaimFacts::ToLand { .. } | ClaimFacts::Unknown(_)) => {
            Next::wait(held.reason(), message)
        }
    }
}
