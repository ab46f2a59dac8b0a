//! A repository with beads, and a controller process that reads and writes it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use beadstore_ctl::connection::Connection;
use beadstore_ctl::error::StoreError;
use beadstore_ctl::snapshot::StoreSnapshot;
use beadstore_ctl::store::{Stores, Written};
use beadstore_ctl::validate::{Repository, Source, ValidBeadStore};
use gastown_api::WritePolicy;
use gastown_core::beads::{Edit, Prefixes, Wanted, plan};
use gastown_fakes::repository::{self, git};
use gastown_git::{Git, Remote};
use tempfile::TempDir;

pub const ANN: &str = r#"{"id":"gt-1","title":"First","status":"open","priority":1,"issue_type":"task","created_at":"2026-01-02T03:04:05.123456789+01:00","updated_at":"2026-01-02T03:04:05.123456789+01:00"}"#;
pub const BOB: &str = r#"{"id":"gt-2","title":"Second, with <b> & \"quotes\"","status":"open","priority":2,"issue_type":"bug","created_at":"2026-01-03T03:04:05.123456789+01:00","updated_at":"2026-01-03T03:04:05.123456789+01:00","unknown":{"z":1,"a":[1.0]}}"#;

/// A bare remote, and a clone of another user.
pub struct Fixture {
    pub dir: TempDir,
}

impl Fixture {
    /// A repository with these files in its first commit on main.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        repository::make(&fixture.remote(), &fixture.work()).unwrap();
        fixture.push("main", files);
        fixture
    }

    pub fn store(lines: &[&str]) -> Self {
        Self::with(&[("README.md", "# web\n"), (".beads/issues.jsonl", &text(lines))])
    }

    pub fn remote(&self) -> PathBuf {
        self.dir.path().join("remote.git")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Commits files on the newest commit of a branch, as another user, and pushes.
    pub fn push(&self, branch: &str, files: &[(&str, &str)]) {
        self.checkout(branch);
        for (path, text) in files {
            let full = self.work().join(path);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(full, text).unwrap();
        }
        self.commit(branch);
    }

    pub fn checkout(&self, branch: &str) {
        if self.head(branch).is_some() {
            git(&self.work(), &["fetch", "-q", "origin", branch]).unwrap();
            git(&self.work(), &["checkout", "-q", "-f", "-B", branch, "FETCH_HEAD"]).unwrap();
        }
    }

    pub fn commit(&self, branch: &str) {
        git(&self.work(), &["add", "-A"]).unwrap();
        git(&self.work(), &["commit", "-q", "--allow-empty", "-m", "by hand"]).unwrap();
        git(&self.work(), &["push", "-q", "origin", &format!("HEAD:refs/heads/{branch}")]).unwrap();
    }

    pub fn head(&self, branch: &str) -> Option<String> {
        repository::head(&self.remote(), branch)
    }

    pub fn file(&self, branch: &str, path: &str) -> String {
        let out = Command::new("git")
            .arg("-C")
            .arg(self.remote())
            .args(["show", &format!("{branch}:{path}")])
            .output()
            .unwrap();
        assert!(out.status.success(), "{branch}:{path}");
        String::from_utf8(out.stdout).unwrap()
    }

    pub fn line(&self, branch: &str, bead: &str) -> String {
        let file = self.file(branch, ".beads/issues.jsonl");
        file.lines()
            .find(|line| line.contains(&format!("\"id\":\"{bead}\"")))
            .unwrap_or_else(|| panic!("{bead} in {file}"))
            .to_owned()
    }

    pub fn repository(&self) -> Repository {
        Repository {
            url: format!("file://{}", self.remote().display()).parse().unwrap(),
            target: "main".parse().unwrap(),
            landed_on: BTreeSet::from(["main".parse().unwrap()]),
            branch: None,
            path: ".beads".into(),
            author: None,
        }
    }

    pub fn valid(&self) -> ValidBeadStore {
        ValidBeadStore {
            rig: "web".into(),
            source: Source::Git(self.repository()),
            prefixes: Prefixes::new(["gt"]),
            policy: WritePolicy::Write,
            interval: Duration::from_secs(300),
        }
    }

    /// A new controller process, which remembers nothing.
    pub fn process(&self) -> Process {
        let stores =
            Stores::new(Git::from_env(), tempfile::tempdir_in(self.dir.path()).unwrap().keep());
        Process { stores, repository: self.repository(), valid: self.valid() }
    }
}

pub struct Process {
    pub stores: Stores,
    pub repository: Repository,
    pub valid: ValidBeadStore,
}

impl Process {
    pub fn connection(&self) -> Connection {
        Connection::Git(
            Box::new(self.repository.clone()),
            Remote::anonymous(self.repository.url.clone()),
        )
    }

    pub async fn read(&self) -> Result<StoreSnapshot, StoreError> {
        let reading = self
            .stores
            .handle("uid", None)
            .read(&self.valid, &self.connection(), Duration::ZERO)
            .await?;
        Ok(reading.snapshot)
    }

    pub async fn write(
        &self,
        edits: impl Fn(&StoreSnapshot) -> Vec<Edit>,
    ) -> Result<Written, StoreError> {
        self.stores.handle("uid", None).write(&self.valid, &self.connection(), edits).await
    }

    /// Makes the wanted edits, as a reconcile does.
    pub async fn sync(&self, wanted: &Wanted) -> Written {
        let valid = &self.valid;
        self.write(|snapshot| {
            plan(&valid.rig, wanted, snapshot.issues(), snapshot.history(), &valid.prefixes).edits
        })
        .await
        .unwrap()
    }

    pub async fn not_readable(&self) -> (String, String) {
        let error = self.read().await.unwrap_err();
        (error.reason().to_owned(), error.message())
    }
}

pub fn text(lines: &[&str]) -> String {
    lines.join("\n") + "\n"
}
