//! A repository, and what the scripted model does in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::git::{git, line};
use crate::plan_file::{Hopeless, PlanFile, PlannedChange, check, key};
use crate::project;
use gastown_fakes::messages::{Attempt, Script, Step};

/// The longest patch that one command may carry, in bytes: an argument of a program holds 128 KiB
/// at most.
const MAX_PATCH: usize = 64 << 10;

/// What the prompt of an attempt holds after one that did not end well.
pub const RESTARTED: &str = "# The attempt before";

/// A repository with its changes, ready to be played.
#[derive(Debug)]
pub struct Plan {
    folder: TempDir,
    /// The commit that the target branch begins at.
    pub base: String,
    /// The tree of the target branch when everything has landed, if it is known.
    pub tip_tree: Option<String>,
    /// The gate: a command for the shell.
    pub test: String,
    /// The changes, in the order in which they are started.
    pub changes: Vec<Change>,
    /// Tasks that the model does not know how to do.
    pub hopeless: Vec<Hopeless>,
}

/// One change of a [`Plan`].
#[derive(Clone, Debug)]
pub struct Change {
    /// Its name.
    pub bead: String,
    /// The commit whose change it is.
    pub commit: String,
    /// The task, in one line.
    pub title: String,
    /// The changes that must have landed before it is begun.
    pub depends_on: Vec<String>,
    /// The model falls silent in the first attempt, before any of its tries.
    pub mute_first: bool,
    /// What the model does in its attempts.
    pub tries: Vec<Try>,
}

/// What the model does in one attempt.
#[derive(Clone, Debug)]
pub struct Try {
    /// The difference, as `git diff --binary` prints it.
    pub patch: Vec<u8>,
    /// The commit's message.
    pub message: String,
    /// What the prompt must hold.
    pub evidence: Option<String>,
}

impl Plan {
    /// The small project of our own.
    pub async fn default_project() -> Result<Self> {
        let folder = TempDir::new().context("a temporary folder")?;
        let plan = project::create(folder.path()).await?;
        Self::new(folder, plan).await
    }

    /// The repository behind a URL, a bundle or a path, with the plan in a file.
    pub async fn load(repository: &str, plan: &Path) -> Result<Self> {
        let text =
            std::fs::read(plan).with_context(|| format!("reading the plan {}", plan.display()))?;
        let plan = serde_json::from_slice(&text)
            .with_context(|| format!("the plan {}", plan.display()))?;
        let folder = TempDir::new().context("a temporary folder")?;
        let from = std::fs::canonicalize(repository)
            .map_or_else(|_| repository.to_owned(), |p| p.display().to_string());
        if from.starts_with('-') {
            bail!("{from:?} is not a repository");
        }
        git(folder.path(), &["clone", "--quiet", "--bare", "--", &from, "."]).await?;
        Self::new(folder, plan).await
    }

    async fn new(folder: TempDir, plan: PlanFile) -> Result<Self> {
        check(&plan)?;
        let dir = folder.path();
        let mut changes = Vec::new();
        for change in plan.changes {
            let mut tries = Vec::new();
            let mut evidence = None;
            if let Some(red) = &change.red_first {
                tries.push(make_try(dir, &red.commit, None).await?);
                evidence = Some(red.evidence.clone());
            }
            tries.push(make_try(dir, &change.commit, evidence).await?);
            let PlannedChange { bead, title, commit, depends_on, mute_first, red_first: _ } =
                change;
            changes.push(Change { bead, commit, title, depends_on, mute_first, tries });
        }
        Ok(Self {
            folder,
            base: plan.base,
            tip_tree: plan.tip_tree,
            test: plan.test,
            changes,
            hopeless: plan.hopeless,
        })
    }

    /// What the beads' names begin with.
    pub fn prefix(&self) -> &str {
        let first = self.changes.first().map_or("gt", |c| c.bead.as_str());
        first.rsplit_once('-').map_or(first, |(prefix, _)| prefix)
    }

    /// The repository's folder.
    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What the model does, for the scripted API.
    pub fn scripts(&self) -> Vec<Script> {
        self.changes
            .iter()
            .map(Change::script)
            .chain(self.hopeless.iter().map(Hopeless::script))
            .collect()
    }
}

async fn make_try(dir: &Path, commit: &str, evidence: Option<String>) -> Result<Try> {
    let parent = format!("{commit}^");
    let patch =
        git(dir, &["diff", "--binary", "--no-ext-diff", "--no-textconv", &parent, commit, "--"])
            .await?;
    let message = line(dir, &["log", "--max-count=1", "--format=%B", commit, "--"]).await?;
    if patch.is_empty() {
        bail!("commit {commit} changes nothing");
    }
    if patch.len() > MAX_PATCH {
        bail!(
            "commit {commit} is too large for one command of the agent: {} bytes, at most {MAX_PATCH}",
            patch.len()
        );
    }
    Ok(Try { patch, message, evidence })
}

impl Change {
    /// The line of the task by which the scripted model finds its script.
    pub fn key(&self) -> String {
        key(&self.bead)
    }

    /// The bead's description.
    pub fn description(&self) -> String {
        format!("Make the change, with its tests, and commit it.\n\n{}\n", self.key())
    }

    fn script(&self) -> Script {
        let attempt = |t: &Try| Attempt {
            prompt_contains: t.evidence.clone(),
            steps: vec![Step::bash(t.command())],
            text: format!(
                "I made the change and committed it: {}",
                t.message.lines().next().unwrap_or_default()
            ),
        };
        let mut attempts: Vec<Attempt> = self.tries.iter().map(attempt).collect();
        if self.mute_first {
            if let Some(first) = attempts.first_mut() {
                first.prompt_contains = Some(RESTARTED.to_owned());
            }
            attempts.insert(0, Attempt { steps: vec![Step::hang()], ..Attempt::default() });
        }
        Script { key: self.key(), attempts }
    }
}

impl Try {
    /// The command that makes the change. It may run again on a branch that has it: an agent that
    /// is started again after a fault finds what it had pushed.
    fn command(&self) -> String {
        let digest = Sha256::digest(&self.patch);
        let mark = digest.iter().take(8).map(|b| format!("{b:02X}")).collect::<Vec<_>>().concat();
        let (reader, text) = match std::str::from_utf8(&self.patch) {
            Ok(text) if !text.contains('\r') => ("cat", text.to_owned()),
            _ => ("base64 -d", format!("{}\n", BASE64.encode(&self.patch))),
        };
        let message = &self.message;
        format!(
            r#"set -e
patch="$(git rev-parse --git-path change-{mark}.patch)"
{reader} >"$patch" <<'PATCH_{mark}'
{text}PATCH_{mark}
if git apply --reverse --check "$patch" 2>/dev/null; then
    echo "the branch has this change"
    exit 0
fi
git apply --index "$patch"
git commit --quiet --file - <<'MESSAGE_{mark}'
{message}
MESSAGE_{mark}
git log --oneline --max-count=1"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_text_are_encoded() {
        let of = |patch: &[u8]| {
            Try { patch: patch.to_owned(), message: "m".to_owned(), evidence: None }.command()
        };
        assert!(of(b"+x\n").contains("cat >\"$patch\" <<'PATCH_"));
        assert!(of(b"+\xff\n").contains("base64 -d >\"$patch\" <<'PATCH_"));
        assert!(of(b"+x\r\n").contains("base64 -d"));
    }
}
