//! The changes of a plan as beads in git, as a team that uses beads keeps them, and their state at the
//! end.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::git::{git, line};
use crate::plan::Plan;

/// The branch that holds the beads.
pub const BRANCH: &str = "beads-sync";
/// The file on it.
const FILE: &str = ".beads/issues.jsonl";
/// When the first bead was written; each later one follows a minute after.
const FIRST: &str = "2025-01-01T00:00:00Z";

/// A bead as the store has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeadState {
    /// `open`, `in_progress`, `closed`.
    pub status: String,
    /// Why it was closed.
    pub close_reason: Option<String>,
}

/// One line a bead, sorted by id, in the format of bd 0.49.
fn lines(plan: &Plan) -> Result<String> {
    let first: Timestamp = FIRST.parse()?;
    let mut lines = BTreeMap::new();
    let changes =
        plan.changes.iter().map(|c| (&c.bead, &c.title, c.description(), c.depends_on.as_slice()));
    let hopeless =
        plan.hopeless.iter().map(|h| (&h.bead, &h.title, h.description(), [].as_slice()));
    for (n, (id, title, description, depends_on)) in changes.chain(hopeless).enumerate() {
        let at = first.checked_add(SignedDuration::from_mins(i64::try_from(n)?))?.to_string();
        let mut bead = json!({
            "id": id, "title": title, "description": description, "status": "open", "priority": 2,
            "issue_type": "task", "created_at": at, "created_by": "demo", "updated_at": at,
        });
        if !depends_on.is_empty() {
            let on = |d: &String| json!({"issue_id": id, "depends_on_id": d, "type": "blocks", "created_at": at, "created_by": "demo"});
            bead["dependencies"] = depends_on.iter().map(on).collect();
        }
        lines.insert(id.clone(), format!("{bead}\n"));
    }
    Ok(lines.into_values().collect())
}

/// Creates the branch at the plan's base and pushes it.
pub async fn push(plan: &Plan, remote: &str) -> Result<()> {
    let folder = TempDir::new().context("a temporary folder")?;
    let dir = folder.path();
    git(dir, &["init", "--quiet", "--initial-branch", BRANCH]).await?;
    let from = plan.path();
    git(dir, &["fetch", "--quiet", from.to_str().context("a path of text")?, &plan.base]).await?;
    git(dir, &["checkout", "--quiet", "-B", BRANCH, "FETCH_HEAD"]).await?;
    std::fs::create_dir_all(dir.join(".beads")).context("creating .beads")?;
    std::fs::write(dir.join(FILE), lines(plan)?).with_context(|| format!("writing {FILE}"))?;
    git(dir, &["add", "--", FILE]).await?;
    git(dir, &["commit", "--quiet", "--message", "List the tasks"]).await?;
    git(dir, &["push", "--quiet", remote, &format!("HEAD:refs/heads/{BRANCH}")])
        .await
        .context("pushing the beads")?;
    Ok(())
}

/// Reads all beads from the remote.
pub async fn read(dir: &Path, remote: &str) -> Result<BTreeMap<String, BeadState>> {
    let fetched = "refs/gastown-demo/beads";
    git(dir, &["fetch", "--quiet", remote, &format!("+refs/heads/{BRANCH}:{fetched}")]).await?;
    let commit = line(dir, &["rev-parse", fetched]).await?;
    let file = git(dir, &["show", &format!("{commit}:{FILE}")]).await?;
    let mut beads = BTreeMap::new();
    for text in String::from_utf8(file)?.lines() {
        let bead: Value =
            serde_json::from_str(text).with_context(|| format!("a line of {FILE}"))?;
        let text_of = |key: &str| bead[key].as_str().map(str::to_owned);
        let state = BeadState {
            status: text_of("status").unwrap_or_default(),
            close_reason: text_of("close_reason"),
        };
        beads.insert(text_of("id").with_context(|| format!("a bead of {FILE} has no id"))?, state);
    }
    Ok(beads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bead_is_one_line_with_its_dependencies() {
        let plan = Plan::default_project().await.unwrap();
        let beads: Vec<Value> =
            lines(&plan).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let ids: Vec<&str> = beads.iter().filter_map(|b| b["id"].as_str()).collect();
        assert_eq!(ids, ["gt-1", "gt-2", "gt-3", "gt-4", "gt-5"]);
        assert_eq!(beads[3]["dependencies"][0]["depends_on_id"], "gt-1");
        assert!(beads[0].get("dependencies").is_none());
        assert!(beads[0]["created_at"].as_str() < beads[1]["created_at"].as_str());
        assert!(beads[0]["description"].as_str().unwrap().ends_with("\nChange: gt-1\n"));
    }
}
