//! What follows from a pod's end. The records of the sidecar and the init container are believed;
//! the agent's is only a claim.

use gastown_api::names::reason;
use gastown_types::CommitId;
use jiff::Timestamp;

use super::drain;
use super::facts::PodFacts;
use super::kept::{Kept, kept};
use super::ledger::{End, sanitize};
use crate::report::{AgentExit, InitResult, RunReport, SyncReport, SyncResult};

/// What an outcome depends on beside the pod.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// `spec.expectChanges`.
    pub changes: bool,
    /// Commits that were sent back: ending with one of them again is not a rework.
    pub sent_back: Vec<CommitId>,
    /// The digest of the changes that were sent back last.
    pub sent_back_changes: Option<String>,
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
    /// A new attempt soon would fail as this one did.
    pub slow: bool,
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
            slow: false,
        }
    }

    fn retry(cause: RespawnCause, reason: &str, message: &str) -> Self {
        Self { respawn: Some(cause), ..Self::new(End::Retries, reason, message) }
    }
}

/// The outcome of a pod that is over. What is lost with it comes first in its message.
pub fn outcome(pod: &PodFacts, expected: &Expected, now: Timestamp) -> Outcome {
    let mut outcome = by_records(pod, expected, now);
    if let Kept::Lost(lost) = kept(pod) {
        outcome.message = sanitize(&format!("{}; {}", lost.text(), outcome.message));
        if outcome.end == End::Drained {
            reason::WORK_LOST.clone_into(&mut outcome.reason);
        }
    }
    outcome
}

fn by_records(pod: &PodFacts, expected: &Expected, now: Timestamp) -> Outcome {
    if let Some(init) = &pod.init
        && init.result != InitResult::Ready
    {
        return by_init(init.result, &init.message);
    }
    if let Some(done) = finished(pod, expected) {
        return done;
    }
    let why = pod.drain.as_deref();
    if let Some(never) = why.filter(|_| pod.run.is_none()).and_then(not_started) {
        return never;
    }
    let again = matches!(why, Some(drain::UNHEALTHY | drain::DEADLINE));
    if pod.drain.is_some() && !again {
        return Outcome::new(End::Drained, reason::DRAINED, &drained_message(pod));
    }
    if let Some(refused) = pod.sync.as_ref().and_then(refused) {
        return refused;
    }
    match why {
        Some(drain::DEADLINE) => {
            let text = format!("the attempt's time is up; {}", what_became(pod));
            return Outcome::new(End::Stuck, reason::DEADLINE, &text);
        }
        Some(_) => {
            let text = drained_message(pod);
            return Outcome::retry(RespawnCause::AgentFailed, reason::UNHEALTHY, &text);
        }
        None => {}
    }
    by_platform(pod, expected, now).unwrap_or_else(|| by_agent(pod))
}

/// The pod was taken back before its agent had started: nothing ran, and nothing is lost.
fn not_started(why: &str) -> Option<Outcome> {
    if why == drain::SPEC_CHANGED {
        let text = "the spec was changed before the pod had started";
        return Some(Outcome::new(End::Waits, reason::SPEC_CHANGED, text));
    }
    let (reason, message) = drain::read_start_timeout(why)?;
    let outcome = Outcome::new(End::Waits, &to_reason(reason), message);
    Some(Outcome { slow: true, ..outcome })
}

/// The platform ended the pod: its deletion, its node, an eviction, its memory.
fn by_platform(pod: &PodFacts, expected: &Expected, now: Timestamp) -> Option<Outcome> {
    if !pod.terminal() {
        let lost = pod.lost(now) && pod.scheduled;
        let (reason, text) = if lost {
            (
                reason::NODE_LOST,
                "the pod's node has not answered for five minutes after the pod's deletion",
            )
        } else {
            (reason::POD_DELETED, "the pod was deleted before it had a node")
        };
        return Some(Outcome::retry(RespawnCause::Infrastructure, reason, text));
    }
    if let Some(why) = &pod.disruption {
        return Some(Outcome::retry(
            RespawnCause::Infrastructure,
            &to_reason(why),
            &format!("the platform ended the pod: {why}"),
        ));
    }
    pod.oom.then(|| {
        let text = "the agent's container ran out of memory; raise spec.kubernetes.resources.limits.memory";
        if expected.oom_before {
            Outcome::new(End::Stuck, reason::OOM_KILLED, text)
        } else {
            Outcome::retry(RespawnCause::OutOfMemory, reason::OOM_KILLED, text)
        }
    })
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
            } else if sync.changes.is_some() && sync.changes == expected.sent_back_changes {
                let text = format!(
                    "the rework ended with new commits (the last is {}) that change on the same base what was sent back",
                    commit.short()
                );
                Outcome::new(End::Stuck, reason::NO_PROGRESS, &text)
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
        Some(sync) if sync.unpushed.is_some() => {
            let text = "the last commits could not be brought to the branch";
            format!("drained ({why}); {}", with_wip(sync, text))
        }
        Some(SyncReport { commit: Some(commit), .. }) => {
            format!("drained ({why}); the branch holds {}", commit.short())
        }
        Some(_) => format!("drained ({why}); nothing had been committed"),
        None if !pod.agent_started => format!("stopped ({why}) before the agent had started"),
        None => format!("stopped ({why}); {}", what_became(pod)),
    }
}

/// What became of the work, as the end of a sentence; what is lost is named before.
fn what_became(pod: &PodFacts) -> &'static str {
    match kept(pod) {
        Kept::Saved => "its work is saved",
        Kept::Lost(_) => "the rest is on the remote",
        Kept::Unknown if pod.drain.is_some() && pod.seen.saved == Some(true) => {
            "git-sync left no record; it was ready, so that all was on the remote shortly before the end"
        }
        Kept::Unknown => {
            "git-sync left no record of what it saved; the next attempt finds out what the branch holds"
        }
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
        SyncResult::Unknown => Some(unknown("git-sync", &with_wip(sync, NEWER))),
        SyncResult::Internal => Some(Outcome::retry(
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

/// What a record of a later version states that this version does not know.
const NEWER: &str = "its result is one of a later version";

/// A program of the pod is of a later version, and ended in a way that this one does not know. That costs
/// no attempt; since an agent could write such a record, only so many are believed in a row.
fn unknown(program: &str, message: &str) -> Outcome {
    let text = format!("the record of {program}: {message}");
    Outcome { claimed: true, ..Outcome::new(End::Waits, reason::NEWER_RECORD, &text) }
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
    match &pod.run {
        Some(run) => by_exit(pod, run),
        None => without_record(pod),
    }
}

fn without_record(pod: &PodFacts) -> Outcome {
    match pod.failure.as_deref() {
        Some(text) => Outcome::retry(RespawnCause::AgentFailed, reason::POD_FAILED, text),
        None => Outcome::retry(
            RespawnCause::Infrastructure,
            reason::OUTCOME_UNKNOWN,
            "the pod ended without records of how; the next attempt finds out what the branch holds",
        ),
    }
}

fn by_exit(pod: &PodFacts, run: &RunReport) -> Outcome {
    let why = format!("{:?}", run.exit);
    let message = |otherwise: &str| {
        if run.message.is_empty() { otherwise.to_owned() } else { run.message.clone() }
    };
    // The agent does not know what became of its work.
    let stopped = |what: &str| match kept(pod) {
        Kept::Saved => message(&format!("{what}; its work is saved")),
        Kept::Lost(_) | Kept::Unknown => format!("{what}; {}", what_became(pod)),
    };
    match run.exit {
        AgentExit::Completed => Outcome::retry(
            RespawnCause::Infrastructure,
            reason::OUTCOME_UNKNOWN,
            "git-sync left no record of what the remote holds; the next attempt finds out",
        ),
        AgentExit::GaveUp => Outcome::new(
            End::Stuck,
            &why,
            &message("the agent reported that it cannot do the task"),
        ),
        AgentExit::Deadline => Outcome::new(End::Stuck, &why, &stopped("the attempt's time is up")),
        AgentExit::BudgetExceeded => {
            Outcome::new(End::Stuck, &why, &stopped("a limit of spec.budget is reached"))
        }
        AgentExit::ImageLacks => {
            Outcome::new(End::Stuck, &why, &message("the agent's image is missing something"))
        }
        AgentExit::RateLimited => Outcome {
            until: run.reset_at,
            claimed: true,
            ..Outcome::new(
                End::Later,
                &why,
                &message("the model's service limits the rate of requests"),
            )
        },
        AgentExit::BadCredentials => Outcome {
            claimed: true,
            ..Outcome::new(
                End::Waits,
                &why,
                &message("the model's service refused the credentials"),
            )
        },
        AgentExit::Failed => Outcome::retry(
            RespawnCause::AgentFailed,
            reason::POD_FAILED,
            &message("the agent failed"),
        ),
        AgentExit::Unknown => unknown("gt run", &message(NEWER)),
        AgentExit::Crashed => Outcome::retry(
            RespawnCause::AgentFailed,
            reason::POD_FAILED,
            &message("the agent crashed"),
        ),
        // no drain was asked for, so it was a SIGTERM of the platform
        AgentExit::Drained => Outcome::retry(
            RespawnCause::Infrastructure,
            reason::POD_DELETED,
            &stopped("the platform stopped the pod"),
        ),
    }
}
