//! The changes of a story as beads in git, the way a team that uses beads keeps them, and what became of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::git::{git, line};
use super::story::Change;

/// The branch that holds them, beside the code.
pub const BRANCH: &str = "beads-sync";
/// The file on it.
const FILE: &str = ".beads/issues.jsonl";
/// When the first one was written; each later one came a minute after.
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
pub fn lines(changes: &[Change]) -> Result<String> {
    let first: Timestamp = FIRST.parse()?;
    let mut lines = BTreeMap::new();
    for (n, change) in changes.iter().enumerate() {
        let at = first.checked_add(SignedDuration::from_mins(i64::try_from(n)?))?.to_string();
        let mut bead = json!({
            "id": change.bead, "title": change.title, "description": change.description(), "status": "open", "priority": 2,
            "issue_type": "task", "created_at": at, "created_by": "demo", "updated_at": at,
        });
        if !change.depends_on.is_empty() {
            let on = |d: &String| json!({"issue_id": change.bead, "depends_on_id": d, "type": "blocks", "created_at": at, "created_by": "demo"});
            bead["dependencies"] = change.depends_on.iter().map(on).collect();
        }
        lines.insert(change.bead.clone(), format!("{bead}\n"));
    }
    Ok(lines.into_values().collect())
}

/// Begins the branch at `base` and pushes it.
pub async fn push(repository: &Path, base: &str, remote: &str, changes: &[Change]) -> Result<()> {
    let folder = TempDir::new().context("a temporary folder")?;
    let dir = folder.path();
    git(dir, &["init", "--quiet", "--initial-branch", BRANCH]).await?;
    let from = repository.to_str().context("a path of text")?;
    git(dir, &["fetch", "--quiet", "--depth=1", from, base]).await?;
    git(dir, &["checkout", "--quiet", "-B", BRANCH, "FETCH_HEAD"]).await?;
    std::fs::create_dir_all(dir.join(".beads")).context("making .beads")?;
    std::fs::write(dir.join(FILE), lines(changes)?).with_context(|| format!("writing {FILE}"))?;
    git(dir, &["add", "--", FILE]).await?;
    git(dir, &["commit", "--quiet", "--message", "List what is to be done"]).await?;
    git(dir, &["push", "--quiet", remote, &format!("HEAD:refs/heads/{BRANCH}")]).await.context("pushing the beads")?;
    Ok(())
}

/// Reads all of them from the remote.
pub async fn read(dir: &Path, remote: &str) -> Result<BTreeMap<String, BeadState>> {
    let fetched = "refs/gastown-demo/beads";
    git(dir, &["fetch", "--quiet", remote, &format!("+refs/heads/{BRANCH}:{fetched}")]).await?;
    let commit = line(dir, &["rev-parse", fetched]).await?;
    let file = git(dir, &["show", &format!("{commit}:{FILE}")]).await?;
    let mut beads = BTreeMap::new();
    for text in String::from_utf8(file)?.lines() {
        let bead: Value = serde_json::from_str(text).with_context(|| format!("a line of {FILE}"))?;
        let word = |key: &str| bead[key].as_str().map(str::to_owned);
        let state = BeadState { status: word("status").unwrap_or_default(), close_reason: word("close_reason") };
        beads.insert(word("id").with_context(|| format!("a bead of {FILE} has no id"))?, state);
    }
    Ok(beads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bead_is_one_line_with_its_dependencies() {
        let change = |bead: &str, depends_on: &[&str]| Change {
            bead: bead.to_owned(),
            commit: "c".to_owned(),
            title: "a \"title\"".to_owned(),
            depends_on: depends_on.iter().map(|&d| d.to_owned()).collect(),
            tries: Vec::new(),
        };
        let text = lines(&[change("b-2", &[]), change("b-1", &["b-2"])]).unwrap();
        let beads: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(beads.len(), 2);
        assert_eq!((&beads[0]["id"], &beads[1]["id"]), (&json!("b-1"), &json!("b-2")));
        assert_eq!(beads[0]["dependencies"][0]["depends_on_id"], "b-2");
        assert!(beads[0]["created_at"].as_str() > beads[1]["created_at"].as_str());
        assert!(beads[1].get("dependencies").is_none());
        assert!(beads[1]["description"].as_str().unwrap().ends_with("\nChange: b-2\n"));
    }
}
