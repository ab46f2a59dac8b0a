//! Candidates compared with what git itself makes of the same commits in a clone.
//!
//! A few dozen pairs of histories are tried by default, always the same; 1,000 with
//! `GASTOWN_MATRIX=all` (`cargo xtask test process --all`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use gastown_git::Built;
use gastown_types::CommitId;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tempfile::TempDir;

use crate::fixture::{build_in, git, recipe, tree_of, try_git};
use crate::histories::{Histories, histories};

/// Rules that leave merges as they are, and keep git from finding changes in files that it has just
/// checked out: their line ends in the repository are not those that their attributes want.
const NO_CONVERSION: &str = "* !text !eol !ident\n";

/// What git makes of the source on the target.
#[derive(Debug)]
enum Git {
    Tree(String),
    /// It stops at this commit of a rebase.
    Conflict(Option<String>),
    /// It ends because of a bug of its own.
    Crash,
}

/// The repository with both branches, and a clone that git works in.
struct Pair {
    dir: TempDir,
    base: CommitId,
    source: CommitId,
}

impl Pair {
    fn new(histories: &Histories) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("repository.git");
        git(dir.path(), &["init", "-q", "--bare", "-b", "main", "repository.git"]);
        let mut import = Command::new("git")
            .args(["fast-import", "--quiet", "--done"])
            .current_dir(&repository)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        import.stdin.take().unwrap().write_all(&histories.stream()).unwrap();
        assert!(import.wait().unwrap().success(), "git fast-import of {histories:?}");
        let commit = |branch: &str| git(&repository, &["rev-parse", branch]).parse().unwrap();
        let (base, source) = (commit("main"), commit("work"));
        git(dir.path(), &["clone", "-q", "--no-checkout", "repository.git", "clone"]);
        Self { dir, base, source }
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("repository.git")
    }

    fn clone(&self) -> PathBuf {
        self.dir.path().join("clone")
    }

    /// From git's tree, which is in the clone, to ours, which is in the repository.
    fn difference(&self, gits: &str, ours: &str) -> String {
        git(&self.clone(), &["push", "-q", "origin", "HEAD:refs/heads/made"]);
        git(&self.repository(), &["diff-tree", "-r", "-p", gits, ours])
    }

    /// What git makes of both, with the attributes as they are or, where git refuses to touch files
    /// that look changed because of them, without conversions.
    fn with_git(&self, merges: bool) -> (Git, bool) {
        if let Some(made) = self.try_with_git(merges) {
            return (made, false);
        }
        let clone = self.clone();
        std::fs::write(clone.join(".git/info/attributes"), NO_CONVERSION).unwrap();
        let _ = try_git(&clone, &["rebase", "--quit"]);
        (
            self.try_with_git(merges)
                .unwrap_or_else(|| panic!("git refuses in {}", clone.display())),
            true,
        )
    }

    fn try_with_git(&self, merges: bool) -> Option<Git> {
        let clone = self.clone();
        let (base, source) = (self.base.as_str(), self.source.as_str());
        let start = if merges { base } else { source };
        git(&clone, &["checkout", "-q", "-f", "--detach", start]);
        let made = if merges {
            try_git(&clone, &["merge", "-q", "--no-edit", source])
        } else {
            let rebase = ["rebase", "-q", "--no-autosquash", "--reapply-cherry-picks", base];
            try_git(&clone, &rebase)
        };
        if made.is_some() {
            return Some(Git::Tree(git(&clone, &["rev-parse", "HEAD^{tree}"])));
        }
        if clone.join(".git/index.lock").exists() {
            return Some(Git::Crash);
        }
        let stopped_at = try_git(&clone, &["rev-parse", "-q", "--verify", "REBASE_HEAD"]);
        let unmerged = git(&clone, &["ls-files", "--unmerged"]);
        (!unmerged.is_empty()).then_some(Git::Conflict(stopped_at))
    }
}

/// Compares one pair, and returns what came of it in a few words.
fn compare(histories: &Histories) -> Result<&'static str, TestCaseError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let pair = Pair::new(histories);
    let merges = histories.has_merge();
    let (made, converted) = pair.with_git(merges);
    let built = runtime.block_on(build_in(&pair.repository(), recipe(&pair.base, &pair.source)));
    let tree = |commit: &CommitId| tree_of(&pair.repository(), commit);
    let same = |ours: String, gits: &str| {
        prop_assert!(ours == gits, "{}", pair.difference(gits, &ours));
        Ok(())
    };
    Ok(match (made, built) {
        (Git::Tree(theirs), Built::Candidate(c)) => {
            same(tree(&c.commit), &theirs)?;
            match (merges, converted) {
                (true, _) => "the same tree, of a source with merges",
                (false, true) => "the same tree, where git refuses unless conversions are off",
                (false, false) => "the same tree",
            }
        }
        (Git::Tree(theirs), Built::AlreadyInTarget) => {
            same(tree(&pair.base), &theirs)?;
            "nothing is left to land"
        }
        (Git::Conflict(stopped_at), Built::Conflict(c)) => {
            prop_assert!(!c.paths.is_empty());
            if let Some(stopped_at) = stopped_at {
                prop_assert_eq!(c.commit.as_str(), stopped_at);
            }
            "a conflict for both"
        }
        (Git::Crash, Built::Conflict(_)) => "a conflict, where git crashes",
        (Git::Tree(_), Built::Conflict(_)) => "REFUSED, where git goes through",
        (made, built) => {
            prop_assert!(false, "git: {made:?}, we: {built:?}");
            unreachable!()
        }
    })
}

/// Whatever git makes of a line of commits, the candidate has the same tree; where git stops, so do
/// we, at the same commit. Where only we refuse, it is counted.
#[test]
fn a_candidate_is_what_git_makes_in_a_clone() {
    let all = std::env::var("GASTOWN_MATRIX").is_ok_and(|v| v == "all");
    let cases = if all { 1000 } else { 40 };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let counts = RefCell::new(BTreeMap::<_, u32>::new());
    let result = TestRunner::new_with_rng(config, rng).run(&histories(), |histories| {
        *counts.borrow_mut().entry(compare(&histories)?).or_default() += 1;
        Ok(())
    });
    let counts = counts.into_inner();
    for (what, count) in &counts {
        println!("{count:5}  {what}");
    }
    if let Err(failure) = result {
        panic!("{failure}");
    }
    // Refusing everything must not pass.
    let compared: BTreeSet<_> = counts.keys().filter(|what| what.starts_with("the same")).collect();
    assert!(compared.len() >= 2, "{counts:?}");
    let same: u32 = counts.iter().filter(|(k, _)| k.starts_with("the same")).map(|(_, n)| n).sum();
    assert!(same >= cases / 4, "{counts:?}");
    let refused = counts.get("REFUSED, where git goes through").copied().unwrap_or_default();
    assert!(refused <= cases / 100, "{counts:?}");
}
