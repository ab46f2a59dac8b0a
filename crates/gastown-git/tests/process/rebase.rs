//! Candidates compared with what `git rebase` makes of the same commits.

use std::path::Path;

use gastown_git::Built;
use proptest::prelude::*;

use crate::fixture::{Fixture, built, count, git, tree_of, try_git};

/// A random edit: which file, which of its lines, what to write there; deletions and new files too.
#[derive(Clone, Debug)]
struct Edit {
    file: u8,
    line: u8,
    word: u8,
    kind: u8,
}

fn edits(n: usize) -> impl proptest::strategy::Strategy<Value = Vec<Edit>> {
    use proptest::strategy::Strategy as _;
    let edit = (0..4u8, 0..12u8, 0..4u8, 0..10u8).prop_map(|(file, line, word, kind)| Edit {
        file,
        line,
        word,
        kind,
    });
    prop::collection::vec(edit, 1..n)
}

fn apply(dir: &Path, e: &Edit) {
    let path = dir.join(format!("f{}", e.file));
    match e.kind {
        0 => drop(std::fs::remove_file(&path)),
        1 => drop(std::fs::rename(&path, dir.join(format!("moved{}", e.file)))),
        _ => {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let at = usize::from(e.line).min(lines.len());
            if at < lines.len() && e.kind < 7 {
                lines[at] = format!("w{}", e.word);
            } else {
                lines.insert(at, format!("n{}", e.word));
            }
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        }
    }
}

/// Whether the candidate of `ours` on `theirs` is what `git rebase` makes of them.
fn compare(ours: &[Edit], theirs: &[Edit]) -> Result<(), TestCaseError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let g = Fixture::new();
    let lines = (0..12).map(|i| format!("line {i}")).collect::<Vec<_>>().join("\n") + "\n";
    let files: Vec<(String, String)> =
        (0..3).map(|i| (format!("f{i}"), format!("file {i}\n{lines}"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    g.commit("root", &files);
    g.checkout("work", "main");
    for (i, e) in ours.iter().enumerate() {
        apply(&g.work(), e);
        git(&g.work(), &["add", "-A"]);
        // Commits without a change are left out: git keeps those that were empty from the start.
        let _ = try_git(&g.work(), &["commit", "-q", "-m", &format!("ours {i}")]);
    }
    g.push("work");
    let source = g.head();
    g.checkout("main", "main");
    for e in theirs {
        apply(&g.work(), e);
    }
    let base = g.commit("theirs", &[("z", "z")]);
    g.push("main");
    let m = g.mirror("m");
    let result = runtime.block_on(built(&g, &m, &base, &source));
    git(&g.work(), &["checkout", "-q", "--detach", source.as_str()]);
    let rebased = try_git(
        &g.work(),
        &[
            "-c",
            "merge.directoryRenames=false",
            "rebase",
            "-q",
            "--no-autosquash",
            "--empty=drop",
            base.as_str(),
        ],
    );
    match (rebased, result) {
        (Some(_), Built::Candidate(c)) => {
            prop_assert_eq!(
                tree_of(m.path(), &c.commit),
                git(&g.work(), &["rev-parse", "HEAD^{tree}"])
            );
            let commits = git(&g.work(), &["rev-list", "--count", &format!("{base}..HEAD")]);
            prop_assert_eq!(count(m.path(), &base, &c.commit), commits);
        }
        (Some(_), Built::AlreadyInTarget) => {
            prop_assert_eq!(
                git(&g.work(), &["rev-parse", "HEAD^{tree}"]),
                git(&g.work(), &["rev-parse", &format!("{base}^{{tree}}")])
            );
        }
        (None, Built::Conflict(c)) => prop_assert!(!c.paths.is_empty()),
        (rebased, built) => prop_assert!(
            false,
            "git rebase {}, we {built:?}",
            if rebased.is_some() { "went through" } else { "stopped" }
        ),
    }
    Ok(())
}

#[test]
fn a_change_that_the_other_side_made_and_moved_is_not_a_conflict() {
    let change = Edit { file: 0, line: 10, word: 2, kind: 7 };
    let moved = Edit { file: 0, line: 0, word: 0, kind: 1 };
    compare(std::slice::from_ref(&change), &[change.clone(), moved]).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever `git rebase` makes of a line of commits, the candidate has the same tree and as
    /// many commits; where it stops, so do we.
    #[test]
    fn a_candidate_is_what_git_rebase_makes(ours in edits(4), theirs in edits(4)) {
        compare(&ours, &theirs)?;
    }
}
