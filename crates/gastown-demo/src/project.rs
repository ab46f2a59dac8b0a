//! The default project: a small Python package of our own with real tests, and four changes to it. The
//! first try of one fails its own test; in another one the model falls silent first. A fifth change
//! is never made.

use std::path::Path;

use anyhow::{Context, Result};

use crate::git::{git, line};
use crate::plan_file::{Hopeless, PlanFile, PlannedChange, RedFirst};

/// A file's path in the project and its text.
type Files = &'static [(&'static str, &'static str)];

macro_rules! files {
    ($folder:literal: $($path:literal),*) => { &[$(($path, include_str!(concat!("project/", $folder, "/", $path)))),*] };
}

const BASE: Files = files!("base": ".gitignore", "README.md", "crew/__init__.py", "crew/durations.py", "crew/stats.py",
    "tests/test_durations.py", "tests/test_stats.py");
const DURATIONS: Files = files!("gt-1": "crew/durations.py", "tests/test_durations.py");
const MEDIAN_FIRST: Files = files!("gt-2-first": "crew/stats.py", "tests/test_stats.py");
const MEDIAN: Files = files!("gt-2": "crew/stats.py");
const NOTES: Files = files!("gt-3": "crew/notes.py", "tests/test_notes.py");
const ROSTER: Files = files!("gt-4": "crew/roster.py", "tests/test_roster.py");

/// What pytest prints about the wrong median.
const EVIDENCE: &str = "assert 3 == 2.5";

/// Creates the repository in `dir` and returns its plan.
pub async fn create(dir: &Path) -> Result<PlanFile> {
    git(dir, &["init", "--quiet", "--initial-branch=main"]).await?;
    let base = commit(dir, None, BASE, "Parse durations and take means").await?;
    let durations = commit(dir, Some(&base), DURATIONS, "Show a duration the shortest way").await?;
    let first = commit(dir, Some(&base), MEDIAN_FIRST, "Add the median").await?;
    let median = commit(
        dir,
        Some(&first),
        MEDIAN,
        "Take the mean of the two in the middle of an even count",
    )
    .await?;
    let notes = commit(dir, Some(&base), NOTES, "Turn titles into file names").await?;
    let roster = commit(dir, Some(&base), ROSTER, "Show who is on watch").await?;
    let change = |bead: &str, title: &str, commit: String| PlannedChange {
        bead: bead.to_owned(),
        title: title.to_owned(),
        commit,
        depends_on: Vec::new(),
        red_first: None,
        mute_first: false,
    };
    let red = RedFirst { commit: first, evidence: EVIDENCE.to_owned() };
    let changes = vec![
        change("gt-1", "durations: show seconds the shortest way", durations),
        PlannedChange { red_first: Some(red), ..change("gt-2", "stats: add the median", median) },
        change("gt-3", "notes: turn titles into file names", notes),
        PlannedChange {
            depends_on: vec!["gt-1".to_owned()],
            mute_first: true,
            ..change("gt-4", "roster: show who is on watch", roster)
        },
    ];
    let hopeless =
        vec![Hopeless { bead: "gt-5".to_owned(), title: "weather: forecast tomorrow".to_owned() }];
    Ok(PlanFile {
        base,
        tip_tree: None,
        test: "python3 -m pytest -q tests".to_owned(),
        changes,
        hopeless,
    })
}

async fn commit(dir: &Path, parent: Option<&str>, files: Files, message: &str) -> Result<String> {
    if let Some(parent) = parent {
        git(dir, &["checkout", "--quiet", "--detach", parent]).await?;
    }
    for (path, text) in files {
        let path = dir.join(path);
        let folder = path.parent().context("a file is in a folder")?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text))
            .with_context(|| path.display().to_string())?;
    }
    git(dir, &["add", "--all"]).await?;
    git(dir, &["commit", "--quiet", "--message", message]).await?;
    line(dir, &["rev-parse", "HEAD"]).await
}
