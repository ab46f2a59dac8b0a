//! The environment variables of `docs/contracts/pod.md`, parsed once.

use std::str::FromStr;
use std::time::Duration;

use gastown_types::{BranchName, GitUrl};

use crate::sync::witness::{Ca, Holder, Who, Witness};

/// An environment variable is missing or invalid.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {why}")]
pub struct BadSetting {
    name: &'static str,
    why: String,
}

pub(crate) fn text(name: &str) -> Option<String> {
    variable(name).filter(|v| !v.is_empty())
}

#[cfg(not(test))]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Tests have variables of their own: those of the process are shared by all of them.
#[cfg(test)]
fn variable(name: &str) -> Option<String> {
    tests::VARIABLES.with_borrow(|variables| variables.get(name).cloned())
}

fn parsed<T: FromStr>(name: &'static str) -> Result<Option<T>, BadSetting>
where
    T::Err: std::fmt::Display,
{
    text(name)
        .map(|v| v.parse::<T>().map_err(|e| BadSetting { name, why: e.to_string() }))
        .transpose()
}

fn required<T: FromStr>(name: &'static str) -> Result<T, BadSetting>
where
    T::Err: std::fmt::Display,
{
    parsed(name)?.ok_or_else(|| BadSetting { name, why: "is not set".into() })
}

fn seconds(name: &'static str, default: u64) -> Result<Duration, BadSetting> {
    Ok(Duration::from_secs(parsed(name)?.unwrap_or(default)))
}

fn flag(name: &str) -> bool {
    text(name).is_some_and(|v| v == "true" || v == "1")
}

/// The settings of `gt init` and `gt sync`.
#[derive(Clone, Debug)]
pub struct SyncSettings {
    /// The remote repository.
    pub url: GitUrl,
    /// The branch that the work starts from and is merged into.
    pub target: BranchName,
    /// The branch that the work is pushed to.
    pub work: BranchName,
    /// A work branch that exists on the remote is ours and is continued.
    pub resume: bool,
    /// The full name of the ref that the attempt's snapshots are pushed to.
    pub wip_ref: String,
    /// What the names of all refs of this Polecat's snapshots begin with, without a final slash.
    pub wip_folder: String,
    /// The saved files of the attempt before are put back into the clone.
    pub restore: bool,
    /// The pod's uid, for messages.
    pub pod_uid: Option<String>,
    /// The time that the attempt may take; after it the workspace is saved again and again.
    pub deadline: Option<Duration>,
    /// The name of the Secret with the git credentials, for messages.
    pub secret: Option<String>,
    /// The name of the known-hosts ConfigMap, for messages.
    pub known_hosts: Option<String>,
    /// The name of the ConfigMap with certificates of authorities, for messages.
    pub ca: Option<String>,
    /// Copy the preset agent into the tools volume, for an image without it.
    pub copy_agent: bool,
    /// How often uncommitted changes are saved.
    pub snapshot_every: Duration,
    /// How often the target branch is fetched.
    pub refresh_every: Duration,
    /// How long pushing is retried after SIGTERM.
    pub grace: Duration,
    /// The attempt that the work belongs to.
    pub who: Who,
    /// The witness that heartbeats go to, if one is configured.
    pub witness: Option<Witness>,
}

/// The witness at `GASTOWN_WITNESS_ENDPOINT`, with the CA's certificate in `GASTOWN_CA` or the file
/// `GASTOWN_CA_FILE`, and the token in the file (or in `token` of the folder) `GASTOWN_TOKEN_FILE`.
fn witness() -> Result<Option<Witness>, BadSetting> {
    let Some(endpoint) = text("GASTOWN_WITNESS_ENDPOINT") else { return Ok(None) };
    let why = |why: &str| BadSetting { name: "GASTOWN_WITNESS_ENDPOINT", why: why.to_owned() };
    // Plain HTTP would show the token to everybody on the way.
    if !endpoint.starts_with("https://") {
        return Err(why("it must begin with https://"));
    }
    let ca = text("GASTOWN_CA")
        .map(Ca::Text)
        .or_else(|| text("GASTOWN_CA_FILE").map(|f| Ca::File(f.into())));
    let ca = ca.ok_or_else(|| why("neither GASTOWN_CA nor GASTOWN_CA_FILE is set"))?;
    let token_file =
        text("GASTOWN_TOKEN_FILE").unwrap_or_else(|| "/var/run/gastown/token".into()).into();
    let rig = text("GT_RIG").unwrap_or_default();
    Ok(Some(Witness { endpoint, ca, token_file, rig, holder: Holder::default() }))
}

impl SyncSettings {
    /// Reads the environment.
    pub fn from_env() -> Result<Self, BadSetting> {
        let part = |name: &'static str| -> Result<String, BadSetting> {
            let value: String = required(name)?;
            let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
                && !value.contains("..");
            if plain {
                Ok(value)
            } else {
                Err(BadSetting { name, why: format!("{value:?} is not a Kubernetes name") })
            }
        };
        let attempt: u32 = required("GASTOWN_ATTEMPT")?;
        let who = Who {
            namespace: part("GASTOWN_NAMESPACE")?,
            polecat: part("GT_POLECAT")?,
            rig: text("GT_RIG").unwrap_or_default(),
            attempt,
        };
        // A wrong setting of the witness must not keep the work from being pushed.
        let witness = witness().unwrap_or_else(|e| {
            tracing::error!(error = %e, "invalid settings of the witness; no heartbeats are sent");
            None
        });
        Ok(Self {
            url: required("GASTOWN_REPOSITORY")?,
            target: required("GASTOWN_TARGET_BRANCH")?,
            work: required("GASTOWN_WORK_BRANCH")?,
            resume: flag("GASTOWN_RESUME"),
            wip_ref: format!("refs/gastown/wip/{}/{}/{attempt}", who.namespace, who.polecat),
            wip_folder: format!("refs/gastown/wip/{}/{}", who.namespace, who.polecat),
            restore: flag("GASTOWN_RESTORE"),
            pod_uid: text("GASTOWN_POD_UID"),
            deadline: parsed("GASTOWN_DEADLINE_SECONDS")?
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
            secret: text("GASTOWN_GIT_SECRET"),
            known_hosts: text("GASTOWN_KNOWN_HOSTS_CONFIGMAP"),
            ca: text("GASTOWN_CA_CONFIGMAP"),
            copy_agent: flag("GASTOWN_COPY_AGENT"),
            snapshot_every: seconds("GASTOWN_SNAPSHOT_SECONDS", 300)?,
            refresh_every: seconds("GASTOWN_REFRESH_SECONDS", 60)?,
            grace: seconds("GASTOWN_GRACE_SECONDS", 580)?,
            who,
            witness,
        })
    }
}

/// Limits of `spec.budget`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// Maximum of turns of the conversation.
    pub turns: Option<u64>,
    /// Maximum of input and output tokens together, without cache reads.
    pub tokens: Option<u64>,
    /// Maximum cost in US dollars.
    pub cost_usd: Option<f64>,
}

/// The settings of `gt run`.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// `claude-code` or `generic`.
    pub agent: String,
    /// The model to use; `None` leaves the choice to the agent.
    pub model: Option<String>,
    /// Further arguments of the agent's command.
    pub agent_args: Vec<String>,
    /// The prompt's file.
    pub prompt_file: std::path::PathBuf,
    /// The work branch.
    pub work: BranchName,
    /// The target branch.
    pub target: BranchName,
    /// The time that the attempt may take.
    pub deadline: Option<Duration>,
    /// The limits of the attempt.
    pub budget: Budget,
    /// How long saving may take when the pod must end.
    pub grace: Duration,
    /// How long the agent's program may take to end by itself after `gt done`.
    pub soft: Duration,
}

impl RunSettings {
    /// Reads the environment.
    pub fn from_env() -> Result<Self, BadSetting> {
        let args = text("GASTOWN_AGENT_ARGS");
        let agent_args = args.map(|v| serde_json::from_str(&v)).transpose();
        let deadline: Option<u64> = parsed("GASTOWN_DEADLINE_SECONDS")?;
        Ok(Self {
            agent: text("GASTOWN_AGENT").unwrap_or_else(|| "claude-code".into()),
            model: text("GASTOWN_MODEL"),
            agent_args: agent_args
                .map_err(|e| BadSetting {
                    name: "GASTOWN_AGENT_ARGS",
                    why: format!("must be a JSON list of strings: {e}"),
                })?
                .unwrap_or_default(),
            prompt_file: prompt_file(),
            work: required("GASTOWN_WORK_BRANCH")?,
            target: required("GASTOWN_TARGET_BRANCH")?,
            deadline: deadline.filter(|s| *s > 0).map(Duration::from_secs),
            budget: Budget {
                turns: parsed("GASTOWN_MAX_TURNS")?,
                tokens: parsed("GASTOWN_MAX_TOKENS")?,
                cost_usd: parsed("GASTOWN_MAX_COST_USD")?,
            },
            grace: seconds("GASTOWN_GRACE_SECONDS", 580)?,
            soft: seconds("GASTOWN_SOFT_SECONDS", 60)?,
        })
    }
}

/// The path of the prompt's file (`GASTOWN_PROMPT_FILE`).
pub fn prompt_file() -> std::path::PathBuf {
    text("GASTOWN_PROMPT_FILE").unwrap_or_else(|| "/gastown/prompt/prompt.md".into()).into()
}

/// Settings of a run without limits.
#[cfg(test)]
pub(crate) fn test_run() -> RunSettings {
    RunSettings {
        agent: "claude-code".into(),
        model: None,
        agent_args: Vec::new(),
        prompt_file: "/gastown/prompt/prompt.md".into(),
        work: gastown_types::BranchName::from_str("polecat/a").unwrap(),
        target: gastown_types::BranchName::from_str("main").unwrap(),
        deadline: None,
        budget: Budget::default(),
        grace: Duration::from_secs(580),
        soft: Duration::from_mins(1),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    thread_local! {
        pub(crate) static VARIABLES: RefCell<BTreeMap<String, String>> = RefCell::default();
    }

    #[test]
    fn the_variables_that_an_earlier_version_set_are_read() {
        for (version, containers) in gastown_compat::variables("pod-variables.json") {
            for (container, variables) in containers {
                VARIABLES.set(variables);
                if container == "claude" {
                    let run = RunSettings::from_env().unwrap();
                    assert_eq!((run.agent.as_str(), run.model), ("claude-code", None), "{version}");
                    assert_eq!(run.agent_args, ["--verbose"], "{version}");
                    assert_eq!((run.budget.turns, run.budget.tokens), (Some(40), None));
                    assert_eq!(run.deadline, Some(Duration::from_hours(1)), "{version}");
                    continue;
                }
                let sync = SyncSettings::from_env().unwrap();
                assert_eq!(sync.wip_ref, "refs/gastown/wip/team/toast/2", "{version}");
                assert_eq!((sync.work.as_str(), sync.resume), ("feature/ws-7k2p", true));
                assert_eq!(sync.restore, container == "git-init", "{version}");
                assert_eq!(sync.witness.is_some(), container == "git-sync", "{version}");
            }
        }
    }
}
