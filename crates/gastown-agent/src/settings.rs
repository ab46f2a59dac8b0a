//! The variables of `docs/contracts.md`, parsed once.

use std::str::FromStr;
use std::time::Duration;

use gastown_types::{BranchName, GitUrl};

use crate::sync::witness::{Ca, Who, Witness};

/// A variable that is not what it must be.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {why}")]
pub struct BadSetting {
    name: &'static str,
    why: String,
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
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
    parsed(name)?.ok_or_else(|| BadSetting { name, why: "it is not set".into() })
}

fn seconds(name: &'static str, default: u64) -> Result<Duration, BadSetting> {
    Ok(Duration::from_secs(parsed(name)?.unwrap_or(default)))
}

fn flag(name: &str) -> bool {
    text(name).is_some_and(|v| v == "true" || v == "1")
}

/// What `gt init` and `gt sync` are told.
#[derive(Clone, Debug)]
pub struct Carry {
    /// The repository on the remote.
    pub url: GitUrl,
    /// The branch that the work starts from and will be merged into.
    pub target: BranchName,
    /// The branch that the work goes to.
    pub work: BranchName,
    /// A work branch on the remote is ours and is continued.
    pub resume: bool,
    /// The snapshot's ref.
    pub wip_ref: String,
    /// The Secret's name for messages.
    pub secret: Option<String>,
    /// The known-hosts ConfigMap's name for messages.
    pub known_hosts: Option<String>,
    /// Copy the preset agent for an image that lacks it.
    pub copy_agent: bool,
    /// How often a dirty tree is saved.
    pub snapshot_every: Duration,
    /// How often the target branch is fetched.
    pub refresh_every: Duration,
    /// How long it goes on trying after SIGTERM.
    pub grace: Duration,
    /// Whose work it is.
    pub who: Who,
    /// Who is told what the agent does, if anybody.
    pub witness: Option<Witness>,
}

/// `GASTOWN_WITNESS_ENDPOINT`, with the CA's certificate in `GASTOWN_CA` or the file
/// `GASTOWN_CA_FILE`, and the token in the file (or in `token` of the folder) `GASTOWN_TOKEN_FILE`.
fn witness() -> Result<Option<Witness>, BadSetting> {
    let Some(endpoint) = text("GASTOWN_WITNESS_ENDPOINT") else { return Ok(None) };
    let why = |why: &str| BadSetting { name: "GASTOWN_WITNESS_ENDPOINT", why: why.to_owned() };
    // Over plain HTTP the token would be anybody's.
    if !endpoint.starts_with("https://") {
        return Err(why("it must begin with https://"));
    }
    let ca = text("GASTOWN_CA")
        .map(Ca::Text)
        .or_else(|| text("GASTOWN_CA_FILE").map(|f| Ca::File(f.into())));
    let ca = ca.ok_or_else(|| why("neither GASTOWN_CA nor GASTOWN_CA_FILE says whom to trust"))?;
    let token_file =
        text("GASTOWN_TOKEN_FILE").unwrap_or_else(|| "/var/run/gastown/token".into()).into();
    Ok(Some(Witness { endpoint, ca, token_file }))
}

impl Carry {
    /// From the environment.
    pub fn from_env() -> Result<Self, BadSetting> {
        let part = |name: &'static str| -> Result<String, BadSetting> {
            let value: String = required(name)?;
            let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
                && !value.contains("..");
            if plain {
                Ok(value)
            } else {
                Err(BadSetting { name, why: format!("{value:?} is no Kubernetes name") })
            }
        };
        let attempt: u32 = required("GASTOWN_ATTEMPT")?;
        let who = Who {
            namespace: part("GASTOWN_NAMESPACE")?,
            polecat: part("GT_POLECAT")?,
            rig: text("GT_RIG").unwrap_or_default(),
            attempt,
        };
        // A mistake in how the witness is reached must not keep the work from being carried.
        let witness = witness().unwrap_or_else(|e| {
            tracing::error!(error = %e, "the witness cannot be told of this agent");
            None
        });
        Ok(Self {
            url: required("GASTOWN_REPOSITORY")?,
            target: required("GASTOWN_TARGET_BRANCH")?,
            work: required("GASTOWN_WORK_BRANCH")?,
            resume: flag("GASTOWN_RESUME"),
            wip_ref: format!("refs/gastown/wip/{}/{}/{attempt}", who.namespace, who.polecat),
            secret: text("GASTOWN_GIT_SECRET"),
            known_hosts: text("GASTOWN_KNOWN_HOSTS_CONFIGMAP"),
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
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Turns of the conversation.
    pub turns: Option<u64>,
    /// Input and output tokens together, cache reads apart.
    pub tokens: Option<u64>,
    /// US dollars.
    pub cost_usd: Option<f64>,
}

/// What `gt run` is told.
#[derive(Clone, Debug)]
pub struct Run {
    /// `claude-code` or `generic`.
    pub agent: String,
    /// The model wanted, if any.
    pub model: Option<String>,
    /// Further arguments.
    pub agent_args: Vec<String>,
    /// The prompt's file.
    pub prompt_file: std::path::PathBuf,
    /// The work branch.
    pub work: BranchName,
    /// The target branch.
    pub target: BranchName,
    /// The attempt's time.
    pub deadline: Option<Duration>,
    /// Its limits.
    pub budget: Budget,
    /// How long saving may take when the pod must go.
    pub grace: Duration,
    /// How long the agent may take to end by itself after it said that it is done.
    pub soft: Duration,
}

impl Run {
    /// From the environment.
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
                    why: format!("want a JSON list of strings: {e}"),
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

/// Where the prompt is (`GASTOWN_PROMPT_FILE`).
pub fn prompt_file() -> std::path::PathBuf {
    text("GASTOWN_PROMPT_FILE").unwrap_or_else(|| "/gastown/prompt/prompt.md".into()).into()
}

/// Settings of a run with nothing special about it.
#[cfg(test)]
pub(crate) fn test_run() -> Run {
    Run {
        agent: "claude-code".into(),
        model: None,
        agent_args: Vec::new(),
        prompt_file: "/gastown/prompt/prompt.md".into(),
        work: gastown_types::BranchName::from_str("polecat/a").unwrap(),
        target: gastown_types::BranchName::from_str("main").unwrap(),
        deadline: None,
        budget: Budget::default(),
        grace: Duration::from_secs(580),
        soft: Duration::from_secs(60),
    }
}
