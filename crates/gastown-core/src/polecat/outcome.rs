//! What a pod's end means. The sidecar's and the init container's records are believed; the agent's
//! is a claim.

use gastown_types::CommitId;
use jiff::Timestamp;

use super::facts::PodFacts;
use super::ledger::{End, tame};
use crate::report::{AgentExit, InitResult, SyncReport, SyncResult};

/// Why a pod is drained that the witness wants restarted, and the reason of its end.
pub const UNHEALTHY: &str = "Unhealthy";

/// What the judge needs to know beside the pod.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// `spec.expectChanges`.
    pub changes: bool,
    /// Commits that were sent back: finishing on one of them again is no rework.
    pub sent_back: Vec<CommitId>,
    /// Memory ran out before in this budget.
    pub oom_before: bool,
}

/// Which respawn counter a retry costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The platform's.
    Infrastructure,
    /// The memory limit's.
    Oom,
    /// The agent's.
    Crashed,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What follows.
    pub end: End,
    /// Which counter a retry costs.
    pub fault: Option<Fault>,
    /// One word for conditions.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Not again before this time, where somebody named one (seconds since 1970, believed only
    /// within bounds).
    pub until: Option<i64>,
    /// Only the agent's container says that it must wait.
    pub claimed: bool,
}

impl Outcome {
    fn new(end: End, reason: &str, message: &str) -> Self {
        Self {
            end,
            fault: None,
            reason: reason.to_owned(),
            message: tame(message),
            until: None,
            claimed: false,
        }
    }

    fn retry(fault: Fault, reason: &str, message: &str) -> Self {
        Self { fault: Some(fault), ..Self::new(End::Retries, reason, message) }
    }
}

/// Judges a pod that is over.
pub fn judge(pod: &PodFacts, expected: &Expected, now: Timestamp) -> Outcome {
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
        return Outcome::retry(Fault::Crashed, UNHEALTHY, &drained_message(pod));
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
        return Outcome::retry(Fault::Infrastructure, reason, text);
    }
    if let Some(why) = &pod.disruption {
        return Outcome::retry(
            Fault::Infrastructure,
            &word(why),
            &format!("the platform ended the pod: {why}"),
        );
    }
    if pod.oom {
        let text = "the agent's container ran out of memory; raise spec.kubernetes.resources.limits.memory";
        return if expected.oom_before {
            Outcome::new(End::Stuck, "OOMKilled", text)
        } else {
            Outcome::retry(Fault::Oom, "OOMKilled", text)
        };
    }
    by_agent(pod)
}

/// A word fit for a condition's reason.
fn word(text: &str) -> String {
    let out: String = text.chars().filter(char::is_ascii_alphanumeric).take(60).collect();
    if out.starts_with(|c: char| c.is_ascii_alphabetic()) { out } else { "Disrupted".to_owned() }
}

fn by_init(result: InitResult, message: &str) -> Outcome {
    let reason = format!("{result:?}");
    match result {
        InitResult::InvalidConfig => Outcome::new(End::Stuck, "InvalidSpec", message),
        InitResult::Internal | InitResult::Ready => {
            Outcome::retry(Fault::Infrastructure, "InitFailed", message)
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
        | InitResult::RemoteUnreachable => Outcome::new(End::Waits, &reason, message),
    }
}

/// Done, or finished without a change: the agent says so and the sidecar confirms what that means.
fn finished(pod: &PodFacts, expected: &Expected) -> Option<Outcome> {
    if !pod.terminal() || pod.run.as_ref()?.exit != AgentExit::Completed {
        return None;
    }
    let sync = pod.sync.as_ref()?;
    match (sync.result, &sync.commit) {
        (SyncResult::Pushed, Some(commit)) if sync.ahead >= 1 => {
            Some(if expected.sent_back.contains(commit) {
                Outcome::new(
                    End::Stuck,
                    "NoChanges",
                    "the rework ended without a new commit on the branch",
                )
            } else {
                let text =
                    format!("{} commit(s) pushed, the last is {}", sync.ahead, commit.short());
                Outcome::new(End::Done, "WorkComplete", &text)
            })
        }
        (SyncResult::NoChanges | SyncResult::Pushed, _) if !expected.changes => Some(Outcome::new(
            End::DoneWithoutChanges,
            "WorkComplete",
            "finished; no change was expected and none was made",
        )),
        (SyncResult::NoChanges | SyncResult::Pushed, _) => {
            let text = "the agent says that it is done and committed nothing; set spec.expectChanges to false if that is right";
            Some(Outcome::new(End::Stuck, "NoChanges", text))
        }
        _ => None,
    }
}

fn drained_message(pod: &PodFacts) -> String {
    let why = pod.drain.as_deref().unwrap_or_default();
    match &pod.sync {
        Some(SyncReport { commit: Some(commit), .. }) => {
            format!("stopped in order ({why}); the branch holds {}", commit.short())
        }
        Some(_) => format!("stopped in order ({why}); nothing had been committed"),
        None => format!("stopped ({why}); what the branch holds is looked at by the next attempt"),
    }
}

/// The remote or our own checks refuse the work: trying again would only be refused again.
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
            Fault::Infrastructure,
            "RemoteUnreachable",
            &with_wip(sync, "the remote could not be reached to the end"),
        )),
        SyncResult::Internal => Some(Outcome::retry(
            Fault::Infrastructure,
            "SyncFailed",
            &with_wip(sync, "git-sync failed"),
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

/// The agent's own claim, which can only cost its own Polecat time and attempts.
fn by_agent(pod: &PodFacts) -> Outcome {
    let Some(run) = &pod.run else {
        let text = pod.failure.as_deref().unwrap_or(
            "the pod ended without the records that say how; the branch is looked at again",
        );
        let reason = if pod.failure.is_some() { "PodFailed" } else { "OutcomeUnknown" };
        let fault = if pod.failure.is_some() { Fault::Crashed } else { Fault::Infrastructure };
        return Outcome::retry(fault, reason, text);
    };
    let reason = format!("{:?}", run.exit);
    let say = |otherwise: &str| {
        if run.message.is_empty() { otherwise.to_owned() } else { run.message.clone() }
    };
    match run.exit {
        AgentExit::Completed => Outcome::retry(
            Fault::Infrastructure,
            "OutcomeUnknown",
            "git-sync left no record of what the remote holds; the branch is looked at again",
        ),
        AgentExit::GaveUp => {
            Outcome::new(End::Stuck, &reason, &say("the agent says that it cannot do the task"))
        }
        AgentExit::Deadline => {
            Outcome::new(End::Stuck, &reason, &say("the attempt's time is up; the work is saved"))
        }
        AgentExit::BudgetExceeded => Outcome::new(
            End::Stuck,
            &reason,
            &say("a limit of spec.budget is reached; the work is saved"),
        ),
        AgentExit::ImageLacks => {
            Outcome::new(End::Stuck, &reason, &say("the agent's image lacks something"))
        }
        AgentExit::RateLimited => Outcome {
            until: run.reset_at,
            claimed: true,
            ..Outcome::new(End::Later, &reason, &say("the model's service asks to wait"))
        },
        AgentExit::BadCredentials => Outcome {
            claimed: true,
            ..Outcome::new(End::Waits, &reason, &say("the model's service refuses the credentials"))
        },
        AgentExit::Failed => Outcome::retry(Fault::Crashed, "PodFailed", &say("the agent failed")),
        AgentExit::Crashed => {
            Outcome::retry(Fault::Crashed, "PodFailed", &say("the agent crashed"))
        }
        // nobody asked for a drain, so it was a SIGTERM of the platform
        AgentExit::Drained => Outcome::retry(
            Fault::Infrastructure,
            "PodDeleted",
            &say("the platform stopped the pod in order"),
        ),
    }
}
