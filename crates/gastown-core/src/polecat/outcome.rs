//! What follows from a pod's end. The records of the sidecar and the init container are believed;
//! the agent's is only a claim.

use gastown_types::CommitId;
use jiff::Timestamp;

use super::facts::PodFacts;
use super::ledger::{End, sanitize};
use crate::report::{AgentExit, InitResult, SyncReport, SyncResult};

/// Why a pod that witness-ctl wants restarted is drained, and the reason of its end.
pub const UNHEALTHY: &str = "Unhealthy";

/// What an outcome depends on beside the pod.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// `spec.expectChanges`.
    pub changes: bool,
    /// Commits that were sent back: ending with one of them again is not a rework.
    pub sent_back: Vec<CommitId>,
    /// The agent ran out of memory before within this budget.
    pub oom_before: bool,
}

/// The cause of a respawn; each has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RespawnCause {
    /// The platform ended the pod, or its outcome is unknown.
    Infrastructure,
    /// The agent ran out of memory.
    OutOfMemory,
    /// The agent crashed or failed.
    AgentFailed,
}

/// How a pod ended and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What follows.
    pub end: End,
    /// The respawn counter that a retry costs.
    pub respawn: Option<RespawnCause>,
    /// The reason for conditions, in CamelCase.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// The next attempt does not start before this time, in seconds since 1970, where the agent
    /// claims one; it is believed only within bounds.
    pub until: Option<i64>,
    /// Only the agent claims that it must wait.
    pub claimed: bool,
}

impl Outcome {
    fn new(end: End, reason: &str, message: &str) -> Self {
        Self {
            end,
            respawn: None,
            reason: reason.to_owned(),
            message: sanitize(message),
            until: None,
            claimed: false,
        }
    }

    fn retry(cause: RespawnCause, reason: &str, message: &str) -> Self {
        Self { respawn: Some(cause), ..Self::new(End::Retries, reason, message) }
    }
}

/// The outcome of a pod that is over.
pub fn outcome(pod: &PodFacts, expected: &Expected, now: Timestamp) -> Outcome {
    if let Some(init) = &pod.init
        && init.result != InitResult::Ready
    {
        return by_init(init.result, &init.message);
    }
    if let Some(done) = finished(pod, expected) {
        return done;
    }
    let unhealthy = pod.drain.as_deref() == Some(UNHEALTHY);
    if pod.drain.is_some() && !unhealthy {
        return Outcome::new(End::Drained, "Drained", &drained_message(pod));
    }
    if let Some(refused) = pod.sync.as_ref().and_then(refused) {
        return refused;
    }
    if unhealthy {
        return Outcome::retry(RespawnCause::AgentFailed, UNHEALTHY, &drained_message(pod));
    }
    if !pod.terminal() {
        let lost = pod.lost(now) && pod.scheduled;
        let (reason, text) = if lost {
            (
                "NodeLost",
                "the pod's node has not answered for five minutes after the pod's deletion",
            )
        } else {
            ("PodDeleted", "the pod was deleted before it had a node")
        };
        return Outcome::retry(RespawnCause::Infrastructure, reason, text);
    }
    if let Some(why) = &pod.disruption {
        return Outcome::retry(
            RespawnCause::Infrastructure,
            &to_reason(why),
            &format!("the platform ended the pod: {why}"),
        );
    }
    if pod.oom {
        let text = "the agent's container ran out of memory; raise spec.kubernetes.resources.limits.memory";
        return if expected.oom_before {
            Outcome::new(End::Stuck, "OOMKilled", text)
        } else {
            Outcome::retry(RespawnCause::OutOfMemory, "OOMKilled", text)
        };
    }
    by_agent(pod)
}

/// A platform's reason made fit for a condition's.
fn to_reason(text: &str) -> String {
    let out: String = text.chars().filter(char::is_ascii_alphanumeric).take(60).collect();
    if out.starts_with(|c: char| c.is_ascii_alphabetic()) { out } else { "Disrupted".to_owned() }
}

fn by_init(result: InitResult, message: &str) -> Outcome {
    let reason = format!("{result:?}");
    match result {
        InitResult::InvalidConfig => Outcome::new(End::Stuck, "InvalidSpec", message),
        InitResult::Internal | InitResult::Ready => {
            Outcome::retry(RespawnCause::Infrastructure, "InitFailed", message)
        }
        InitResult::SecretNotFound
        | InitResult::ConfigMapNotFound
        | InitResult::BadCredentials
        | InitResult::PushDenied
        | InitResult::UnknownHostKey
        | InitResult::HostKeyMismatch
        | InitResult::RepositoryNotFound
        | InitResult::BranchNotFound
        | InitResult::BranchExists
        | InitResult::RemoteUnreachable
        | InitResult::RemoteRefused
        | InitResult::SubmoduleUnavailable
        | InitResult::LfsUnavailable
        | InitResult::Unknown => Outcome::new(End::Waits, &reason, message),
    }
}

/// Done, or finished without a change: the agent claims it, and the sidecar's record confirms it.
fn finished(pod: &PodFacts, expected: &Expected) -> Option<Outcome> {
    if !pod.terminal() || pod.run.as_ref()?.exit != AgentExit::Completed {
        return None;
    }
    let sync = pod.sync.as_ref()?;
    match (sync.result, &sync.commit) {
        // How far the branch is ahead is not known: that is not "nothing".
        (SyncResult::Pushed, _) if sync.ahead.is_none() => None,
        (SyncResult::Pushed, Some(commit)) if sync.ahead >= Some(1) => {
            Some(if expected.sent_back.contains(commit) {
                Outcome::new(
                    End::Stuck,
                    "NoChanges",
                    "the rework ended without a new commit on the branch",
                )
            } else {
                let text = format!(
                    "{} commit(s) pushed, the last is {}",
                    sync.ahead.unwrap_or(1),
                    commit.short()
                );
                Outcome::new(End::Done, "WorkComplete", &text)
            })
        }
        (SyncResult::NoChanges | SyncResult::Pushed, _) if !expected.changes => Some(Outcome::new(
            End::DoneWithoutChanges,
            "WorkComplete",
            "finished; no change was expected and none was made",
        )),
        (SyncResult::NoChanges | SyncResult::Pushed, _) => {
            let text = "the agent reported that it is done but committed nothing; set spec.expectChanges to false if that is right";
            Some(Outcome::new(End::Stuck, "NoChanges", text))
        }
        _ => None,
    }
}

fn drained_message(pod: &PodFacts) -> String {
    let why = pod.drain.as_deref().unwrap_or_default();
    match &pod.sync {
        Some(SyncReport { commit: Some(commit), .. }) => {
            format!("drained ({why}); the branch holds {}", commit.short())
        }
        Some(_) => format!("drained ({why}); nothing had been committed"),
        None => format!("stopped ({why}); the next attempt finds out what the branch holds"),
    }
}

/// The remote or our own checks refuse the work: a retry would be refused again.
fn refused(sync: &SyncReport) -> Option<Outcome> {
    match sync.result {
        SyncResult::PushRace => Some(Outcome::new(
            End::Stuck,
            "PushRace",
            &with_wip(sync, "another writer moved the work branch"),
        )),
        SyncResult::PushRejected => Some(Outcome::new(
            End::Stuck,
            "PushRejected",
            &with_wip(sync, "the remote refused the push"),
        )),
        SyncResult::BadObjects => Some(Outcome::new(
            End::Stuck,
            "BadObjects",
            &with_wip(sync, "the agent's objects are broken"),
        )),
        SyncResult::RemoteUnreachable => Some(Outcome::retry(
            RespawnCause::Infrastructure,
            "RemoteUnreachable",
            &with_wip(sync, "the remote could not be reached until the pod ended"),
        )),
        SyncResult::AccessDenied => Some(Outcome::retry(
            RespawnCause::Infrastructure,
            "AccessDenied",
            &with_wip(sync, "the remote refused the credentials until the pod ended"),
        )),
        SyncResult::AmbiguousWork => Some(Outcome::new(
            End::Stuck,
            "AmbiguousWork",
            &with_wip(sync, "several branches hold different work, and none is the work branch"),
        )),
        SyncResult::Internal | SyncResult::Unknown => Some(Outcome::retry(
            RespawnCause::Infrastructure,
            "SyncFailed",
            &with_wip(sync, "git-sync failed"),
        )),
        SyncResult::Pushed if sync.ahead.is_none() => Some(Outcome::retry(
            RespawnCause::Infrastructure,
            "SyncFailed",
            &with_wip(sync, "what the branch holds beyond the target branch is not known"),
        )),
        SyncResult::Pushed | SyncResult::NoChanges => None,
    }
}

fn with_wip(sync: &SyncReport, what: &str) -> String {
    let saved = sync.wip.as_deref().map(|w| format!("; saved as {w}")).unwrap_or_default();
    if sync.message.is_empty() {
        format!("{what}{saved}")
    } else {
        format!("{}{saved}", sync.message)
    }
}

/// The outcome that the agent claims, which can only cost its own Polecat time and attempts.
fn by_agent(pod: &PodFacts) -> Outcome {
    let Some(run) = &pod.run else {
        let text = pod.failure.as_deref().unwrap_or(
            "the pod ended without records of how; the next attempt finds out what the branch holds",
        );
        let reason = if pod.failure.is_some() { "PodFailed" } else { "OutcomeUnknown" };
        let cause = if pod.failure.is_some() {
            RespawnCause::AgentFailed
        } else {
            RespawnCause::Infrastructure
        };
        return Outcome::retry(cause, reason, text);
    };
    let reason = format!("{:?}", run.exit);
    let message = |otherwise: &str| {
        if run.message.is_empty() { otherwise.to_owned() } else { run.message.clone() }
    };
    match run.exit {
        AgentExit::Completed => Outcome::retry(
            RespawnCause::Infrastructure,
            "OutcomeUnknown",
            "git-sync left no record of what the remote holds; the next attempt finds out",
        ),
        AgentExit::GaveUp => Outcome::new(
            End::Stuck,
            &reason,
            &message("the agent reported that it cannot do the task"),
        ),
        AgentExit::Deadline => Outcome::new(
            End::Stuck,
            &reason,
            &message("the attempt's time is up; the work is saved"),
        ),
        AgentExit::BudgetExceeded => Outcome::new(
            End::Stuck,
            &reason,
            &message("a limit of spec.budget is reached; the work is saved"),
        ),
        AgentExit::ImageLacks => {
            Outcome::new(End::Stuck, &reason, &message("the agent's image is missing something"))
        }
        AgentExit::RateLimited => Outcome {
            until: run.reset_at,
            claimed: true,
            ..Outcome::new(
                End::Later,
                &reason,
                &message("the model's service limits the rate of requests"),
            )
        },
        AgentExit::BadCredentials => Outcome {
            claimed: true,
            ..Outcome::new(
                End::Waits,
                &reason,
                &message("the model's service refused the credentials"),
            )
        },
        AgentExit::Failed => {
            Outcome::retry(RespawnCause::AgentFailed, "PodFailed", &message("the agent failed"))
        }
        AgentExit::Crashed | AgentExit::Unknown => {
            Outcome::retry(RespawnCause::AgentFailed, "PodFailed", &message("the agent crashed"))
        }
        // no drain was asked for, so it was a SIGTERM of the platform
        AgentExit::Drained => Outcome::retry(
            RespawnCause::Infrastructure,
            "PodDeleted",
            &message("the platform stopped the pod; its work is saved"),
        ),
    }
}
