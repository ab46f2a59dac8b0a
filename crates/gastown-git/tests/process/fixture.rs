//! A remote, a clone to commit in, and short names for what every test needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use gastown_git::{
    Built, Committing, Git, Mirror, Objects, Recipe, RefUpdate, Remote, Shape, Strategy, build,
};
use gastown_types::{BranchName, CommitId, GitUrl};
use tempfile::TempDir;

/// A bare remote, a clone to write with, and a folder for mirrors.
pub struct Fixture {
    pub dir: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(fixture.remote()).unwrap();
        std::fs::create_dir(fixture.work()).unwrap();
        git(&fixture.remote(), &["init", "-q", "--bare", "-b", "main"]);
        git(&fixture.work(), &["init", "-q", "-b", "main"]);
        git(&fixture.work(), &["remote", "add", "origin", fixture.remote().to_str().unwrap()]);
        fixture
    }

    pub fn remote(&self) -> PathBuf {
        self.dir.path().join("remote.git")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub fn url(&self) -> GitUrl {
        format!("file://{}", self.remote().display()).parse().unwrap()
    }

    pub fn as_remote(&self) -> Remote {
        Remote::anonymous(self.url())
    }

    pub fn mirror(&self, name: &str) -> Mirror {
        Mirror::at(Git::from_env(), &self.dir.path().join(name), &self.url())
    }

    /// Writes files and commits them on the current branch.
    pub fn commit(&self, message: &str, files: &[(&str, &str)]) -> CommitId {
        for (path, text) in files {
            let full = self.work().join(path);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(full, text).unwrap();
        }
        git(&self.work(), &["add", "-A"]);
        git(&self.work(), &["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    pub fn head(&self) -> CommitId {
        git(&self.work(), &["rev-parse", "HEAD"]).parse().unwrap()
    }

    pub fn checkout(&self, branch: &str, from: &str) {
        git(&self.work(), &["checkout", "-q", "-B", branch, from]);
    }

    pub fn push(&self, branch: &str) {
        git(&self.work(), &["push", "-q", "-f", "origin", branch]);
    }

    pub fn remote_head(&self, branch: &str) -> Option<String> {
        let out = Command::new("git")
            .arg("-C")
            .arg(self.remote())
            .args(["rev-parse", "-q", "--verify", branch])
            .output()
            .unwrap();
        out.status.success().then(|| String::from_utf8(out.stdout).unwrap().trim().to_owned())
    }
}

pub fn try_git(dir: &Path, args: &[&str]) -> Option<String> {
    let out = Command::new("git")
        .current_dir(dir)
        .args([
            "-c",
            "user.name=Ann Author",
            "-c",
            "user.email=ann@example.org",
            "-c",
            "commit.gpgSign=false",
        ])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_EDITOR", "true")
        .output()
        .unwrap();
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

pub fn git(dir: &Path, args: &[&str]) -> String {
    try_git(dir, args).unwrap_or_else(|| panic!("git {args:?}"))
}

pub fn branch(name: &str) -> BranchName {
    name.parse().unwrap()
}

pub fn recipe(base: &CommitId, source: &CommitId) -> Recipe {
    Recipe {
        request: "uid-1".into(),
        base: base.clone(),
        source: source.clone(),
        strategy: Strategy::Rebase,
        committing: Committing::default(),
    }
}

/// Builds in a fresh mirror of the branches `main` and `work`.
pub async fn built(
    fixture: &Fixture,
    mirror: &Mirror,
    base: &CommitId,
    source: &CommitId,
) -> Built {
    mirror.refresh(&fixture.as_remote(), &[branch("main"), branch("work")]).await.unwrap();
    build_in(mirror.path(), recipe(base, source)).await
}

pub async fn build_in(path: &Path, recipe: Recipe) -> Built {
    let path = path.to_owned();
    let work = move || build(&Git::from_env(), &Objects::open(&path).unwrap(), &recipe).unwrap();
    tokio::task::spawn_blocking(work).await.unwrap()
}

pub fn candidate(built: Built) -> (CommitId, Shape) {
    match built {
        Built::Candidate(c) => (c.commit, c.shape),
        other => panic!("{other:?}"),
    }
}

pub fn update(name: &str, expected: Option<&CommitId>, new: Option<&CommitId>) -> RefUpdate {
    RefUpdate { name: format!("refs/heads/{name}"), expected: expected.cloned(), new: new.cloned() }
}

/// The id of a commit's tree.
pub fn tree_of(repo: &Path, commit: &CommitId) -> String {
    git(repo, &["rev-parse", &format!("{commit}^{{tree}}")])
}

/// How many commits are reachable from `tip` and not from `base`.
pub fn count(repo: &Path, base: &CommitId, tip: &CommitId) -> String {
    git(repo, &["rev-list", "--count", &format!("{base}..{tip}")])
}
