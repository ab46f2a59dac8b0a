//! The process that builds candidates, at its limits.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use gastown_core::train::Built;
use gastown_fakes::repository::{self, git};
use gastown_git::{Committing, Git, Mirror, Recipe, Strategy};
use refinery_ctl::builder::{Failure, Limits, build};

/// A text of so many mebibytes whose first and last lines are given.
fn text(first: &str, last: &str, mebibytes: usize) -> String {
    let mut text = format!("{first}\n");
    let mut n = 0_u64;
    while text.len() < mebibytes << 20 {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let _ = writeln!(text, "{n:016x}");
    }
    text.push_str(last);
    text
}

#[tokio::test]
async fn a_merge_that_needs_too_much_ends_the_process_that_builds_and_nothing_else() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (remote, work) = (dir.path().join("remote.git"), dir.path().join("work"));
    repository::make(&remote, &work)?;
    let commit = |message: &str, content: String| -> Result<String> {
        std::fs::write(work.join("big"), content)?;
        git(&work, &["add", "-A"])?;
        git(&work, &["commit", "-q", "-m", message])?;
        git(&work, &["rev-parse", "HEAD"])
    };
    commit("root", text("1", "1", 24))?;
    git(&work, &["checkout", "-q", "-b", "side"])?;
    let source = commit("theirs", text("1", "2", 24))?;
    git(&work, &["checkout", "-q", "main"])?;
    let base = commit("ours", text("2", "1", 24))?;
    git(&work, &["push", "-q", "origin", "main", "side"])?;
    let url = format!("file://{}", remote.display()).parse()?;
    let mirror = Mirror::at(Git::from_env(), dir.path(), &url);
    let branches = ["main".parse()?, "side".parse()?];
    mirror.refresh(&gastown_git::Remote::anonymous(url), &branches).await?;
    let recipe = || -> Result<Recipe> {
        Ok(Recipe {
            request: "uid".to_owned(),
            base: base.trim().parse()?,
            source: source.trim().parse()?,
            strategy: Strategy::Rebase,
            committing: Committing::default(),
        })
    };
    let limits = |memory: u64, seconds: u64| Limits {
        program: env!("CARGO_BIN_EXE_refinery-ctl").into(),
        memory: memory << 20,
        time: Duration::from_secs(seconds),
    };
    match build(&limits(64, 600), &mirror, recipe()?).await {
        Err(Failure::TooBig(why)) => {
            ensure!(why.contains("more than 64 MiB") && why.contains("Rebase the branch"), "{why}");
        }
        other => bail!("{other:?}"),
    }
    match build(&limits(4096, 0), &mirror, recipe()?).await {
        Err(Failure::TooBig(why)) => ensure!(why.contains("longer than 0 s"), "{why}"),
        other => bail!("{other:?}"),
    }
    let built = build(&limits(4096, 600), &mirror, recipe()?).await;
    let Ok(Built::Candidate(candidate)) = built else { bail!("{built:?}") };
    let again = build(&limits(4096, 600), &mirror, recipe()?).await;
    ensure!(matches!(&again, Ok(Built::Candidate(same)) if *same == candidate), "{again:?}");
    git(mirror.path(), &["cat-file", "-e", candidate.as_str()]).context("the candidate")?;
    Ok(())
}
