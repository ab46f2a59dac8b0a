//! A large store in a repository; it is the same each time.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The prefix of every bead's id.
pub const PREFIX: &str = "gt";
/// One of this many beads is open and waits for no other.
pub const FREE: usize = 8;
/// When the first bead was written; each later one follows a minute after.
const FIRST: Timestamp = Timestamp::constant(1_735_689_600, 0);
/// The committer on the write branch: beadstore-ctl reads only its own commits again from the
/// history.
const COMMITTER: &str = "Gastown BeadStore <beads@gastown.io>";
/// The default write branch of a store.
const WRITE_BRANCH: &str = "beads-sync";

/// The id of a bead.
pub fn id(n: usize) -> String {
    format!("{PREFIX}-{n}")
}

/// The beads that can be claimed.
pub fn free(lines: usize) -> impl Iterator<Item = String> {
    (0..lines).step_by(FREE).map(id)
}

/// This many beads, one line each: most are closed, as in a store that was used for long.
fn lines(count: usize) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "{}", bead(n));
        text
    })
}

fn bead(n: usize) -> serde_json::Value {
    let minutes = |n: usize| SignedDuration::from_mins(i64::try_from(n).unwrap_or_default());
    let at = FIRST.saturating_add(minutes(n)).unwrap_or(FIRST).to_string();
    let description = format!(
        "Part {n} of the work. What it is about, in the length that people write: the page answers slowly when the list is long, \
         because every row is asked for by itself. Ask once, show {} rows, and keep the rest for when somebody scrolls.\n\n\
         Done when the list of customer {} comes in one request, with a test that counts them.",
        20 + n % 80,
        n * 7919 % 10_007
    );
    let kind = ["task", "bug", "feature"][n % 3];
    let mut bead = json!({
        "id": id(n), "title": format!("Ask once for the rows of list {n}"), "description": description, "priority": n % 5,
        "issue_type": kind, "status": "closed", "labels": [format!("area-{}", n % 17)],
        "created_at": at, "created_by": "ann", "updated_at": at,
    });
    match n % FREE {
        0 => bead["status"] = json!("open"),
        1 => {
            bead["status"] = json!("open");
            bead["dependencies"] = json!([{"issue_id": id(n), "depends_on_id": id(n - 1), "type": "blocks", "created_at": at, "created_by": "ann"}]);
        }
        _ => {
            bead["closed_at"] = json!(at);
            bead["close_reason"] = json!("done");
        }
    }
    bead
}

/// The input of `git fast-import`: a store of `count` lines on `main`, and `history` commits of ours
/// after it on the write branch.
fn stream(count: usize, history: usize) -> String {
    let second = |n: usize| FIRST.as_second().unsigned_abs() + n as u64;
    let data = |text: &str| format!("data {}\n{text}\n", text.len());
    let file = data(&lines(count));
    let mut text = format!(
        "commit refs/heads/main\nmark :1\ncommitter Ann <ann@example.org> {} +0000\n{}",
        second(0),
        data("beads")
    );
    let _ = write!(text, "M 100644 inline .beads/issues.jsonl\n{file}\n");
    for n in 0..history {
        // Each claim is released, so that none is left over.
        let (bead, holder) = (id(n / 2), format!("uid-{}", n / 2));
        let record = if n % 2 == 0 {
            format!("claim {bead} {holder} web/polecats/nux")
        } else {
            format!("release {bead} {holder}")
        };
        let from = if n == 0 { "from :1\n" } else { "" };
        let message = data(&format!("Update a bead\n\nGastown-Bead: {record}\n"));
        let _ = write!(
            text,
            "commit refs/heads/{WRITE_BRANCH}\ncommitter {COMMITTER} {} +0000\n{message}{from}\n",
            second(n + 1)
        );
    }
    text
}

/// Fills an empty repository.
pub async fn fill(repository: &Path, count: usize, history: usize) -> Result<()> {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).args(["fast-import", "--quiet"]).kill_on_drop(true);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let mut git = command.stdin(Stdio::piped()).spawn().context("git is needed")?;
    let mut pipe = git.stdin.take().context("no pipe to git")?;
    pipe.write_all(stream(count, history).as_bytes())
        .await
        .context("writing to git fast-import")?;
    drop(pipe);
    let status = git.wait().await?;
    ensure!(status.success(), "git fast-import ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_the_same_each_time_and_holds_beads_that_wait_for_no_other() {
        assert_eq!(lines(100), lines(100));
        let beads: Vec<serde_json::Value> =
            lines(100).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let open: Vec<&str> = beads
            .iter()
            .filter(|b| b["status"] == "open")
            .filter_map(|b| b["id"].as_str())
            .collect();
        assert_eq!(open.len(), 26);
        for id in free(100) {
            let bead = beads.iter().find(|b| b["id"] == id).unwrap();
            assert!(bead["status"] == "open" && bead["dependencies"].is_null(), "{bead}");
        }
    }

    #[tokio::test]
    async fn a_repository_gets_the_store_and_the_history() {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let out = std::process::Command::new("git")
                .current_dir(dir.path())
                .args(args)
                .output()
                .unwrap();
            String::from_utf8(out.stdout).unwrap()
        };
        git(&["init", "--quiet", "--bare"]);
        fill(dir.path(), 10, 4).await.unwrap();
        assert_eq!(git(&["show", "main:.beads/issues.jsonl"]), lines(10));
        assert_eq!(git(&["show", "beads-sync:.beads/issues.jsonl"]), lines(10));
        assert_eq!(git(&["rev-list", "--count", "main..beads-sync"]).trim(), "4");
        let log = git(&[
            "log",
            "--reverse",
            "--format=%cn|%(trailers:key=Gastown-Bead,valueonly,separator=,)",
            "main..beads-sync",
        ]);
        assert!(log.starts_with("Gastown BeadStore|claim gt-0 uid-0 web/polecats/nux\nGastown BeadStore|release gt-0 uid-0\n"), "{log}");
    }
}
