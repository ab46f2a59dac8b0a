//! Stores in real repositories: what is read of them, what is pushed, and what happens when
//! somebody else pushes too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use beadstore_ctl::desk::{Desks, Fault, Way, Written};
use beadstore_ctl::place::{Repository, Setting, Source};
use beadstore_ctl::plan::{Deed, Prefixes, Wanted, plan};
use beadstore_ctl::view::View;
use gastown_api::WritePolicy;
use gastown_beads::{Change, EditError};
use gastown_fakes::git_http::GitHttp;
use gastown_fakes::repository::{self, git};
use gastown_git::{Git, Remote};
use tempfile::TempDir;

use crate::{claimed, landed, status_of};

const ANN: &str = r#"{"id":"gt-1","title":"First","status":"open","priority":1,"issue_type":"task","created_at":"2026-01-02T03:04:05.123456789+01:00","updated_at":"2026-01-02T03:04:05.123456789+01:00"}"#;
const BOB: &str = r#"{"id":"gt-2","title":"Second, with <b> & \"quotes\"","status":"open","priority":2,"issue_type":"bug","created_at":"2026-01-03T03:04:05.123456789+01:00","updated_at":"2026-01-03T03:04:05.123456789+01:00","unknown":{"z":1,"a":[1.0]}}"#;

/// A bare remote and a clone that stands for everybody else.
struct Ground {
    dir: TempDir,
}

impl Ground {
    /// A repository with these files in its first commit on main.
    fn with(files: &[(&str, &str)]) -> Self {
        let ground = Self { dir: tempfile::tempdir().unwrap() };
        repository::make(&ground.remote(), &ground.work()).unwrap();
        ground.push("main", files);
        ground
    }

    fn store(lines: &[&str]) -> Self {
        Self::with(&[("README.md", "# web\n"), (".beads/issues.jsonl", &text(lines))])
    }

    fn remote(&self) -> PathBuf {
        self.dir.path().join("remote.git")
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Somebody commits files on the newest tip of a branch and pushes.
    fn push(&self, branch: &str, files: &[(&str, &str)]) {
        self.take(branch);
        for (path, text) in files {
            let full = self.work().join(path);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(full, text).unwrap();
        }
        self.done(branch);
    }

    fn take(&self, branch: &str) {
        if self.head(branch).is_some() {
            git(&self.work(), &["fetch", "-q", "origin", branch]).unwrap();
            git(&self.work(), &["checkout", "-q", "-f", "-B", branch, "FETCH_HEAD"]).unwrap();
        }
    }

    fn done(&self, branch: &str) {
        git(&self.work(), &["add", "-A"]).unwrap();
        git(&self.work(), &["commit", "-q", "--allow-empty", "-m", "by hand"]).unwrap();
        git(&self.work(), &["push", "-q", "origin", &format!("HEAD:refs/heads/{branch}")]).unwrap();
    }

    fn head(&self, branch: &str) -> Option<String> {
        repository::head(&self.remote(), branch)
    }

    fn file(&self, branch: &str, path: &str) -> String {
        let out = Command::new("git")
            .arg("-C")
            .arg(self.remote())
            .args(["show", &format!("{branch}:{path}")])
            .output()
            .unwrap();
        assert!(out.status.success(), "{branch}:{path}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn line(&self, branch: &str, bead: &str) -> String {
        let file = self.file(branch, ".beads/issues.jsonl");
        file.lines()
            .find(|line| line.contains(&format!("\"id\":\"{bead}\"")))
            .unwrap_or_else(|| panic!("{bead} in {file}"))
            .to_owned()
    }

    fn repository(&self) -> Repository {
        Repository {
            url: format!("file://{}", self.remote().display()).parse().unwrap(),
            target: "main".parse().unwrap(),
            landed_on: BTreeSet::from(["main".parse().unwrap()]),
            branch: None,
            path: ".beads".into(),
            author: None,
        }
    }

    fn setting(&self) -> Setting {
        Setting {
            rig: "web".into(),
            source: Source::Git(self.repository()),
            prefixes: Prefixes::new(["gt"]),
            policy: WritePolicy::Write,
            interval: Duration::from_secs(300),
        }
    }

    /// A controller that remembers nothing.
    fn desks(&self) -> Fresh {
        let desks =
            Desks::new(Git::from_env(), tempfile::tempdir_in(self.dir.path()).unwrap().keep());
        Fresh { desks, repository: self.repository(), setting: self.setting() }
    }
}

struct Fresh {
    desks: Desks,
    repository: Repository,
    setting: Setting,
}

impl Fresh {
    fn way(&self) -> Way {
        Way::Git(Box::new(self.repository.clone()), Remote::anonymous(self.repository.url.clone()))
    }

    async fn read(&self) -> Result<View, Fault> {
        let seen = self.desks.of("uid").read(&self.setting, &self.way(), Duration::ZERO).await?;
        Ok(seen.view)
    }

    async fn write(&self, deeds: impl Fn(&View) -> Vec<Deed>) -> Result<Written, Fault> {
        self.desks.of("uid").write(&self.setting, &self.way(), deeds).await
    }

    /// Writes what the town wants, as a pass of the controller does.
    async fn settle(&self, wanted: &Wanted) -> Written {
        let setting = &self.setting;
        self.write(|view| {
            plan(&setting.rig, wanted, view.issues(), view.ledger(), &setting.prefixes).deeds
        })
        .await
        .unwrap()
    }

    async fn lack(&self) -> (String, String) {
        let fault = self.read().await.unwrap_err();
        (fault.reason().to_owned(), fault.message())
    }
}

fn text(lines: &[&str]) -> String {
    lines.join("\n") + "\n"
}

#[tokio::test]
async fn a_claim_and_a_close_go_to_the_write_branch_and_change_one_line_each() {
    let ground = Ground::store(&[ANN, BOB]);
    let (main, fresh) = (ground.head("main"), ground.desks());
    fresh.settle(&claimed("gt-1", "u1", "nux")).await;
    assert_eq!(ground.head("main"), main, "bead writes never move the target");
    let line = ground.line("beads-sync", "gt-1");
    assert!(
        line.contains(r#""status":"in_progress""#)
            && line.contains(r#""assignee":"web/polecats/nux""#),
        "{line}"
    );
    assert_eq!(
        ground.line("beads-sync", "gt-2"),
        BOB,
        "the other line is as it was, byte for byte"
    );
    assert_eq!(ground.file("beads-sync", "README.md"), "# web\n");

    let view = fresh.settle(&landed("gt-1", "mr1")).await.view;
    assert_eq!(status_of(&view, "gt-1"), "closed");
    assert!(ground.line("beads-sync", "gt-1").contains(r#""close_reason":"merged abc123""#));
    assert_eq!(ground.file("beads-sync", ".beads/issues.jsonl").lines().count(), 2);
}

#[tokio::test]
async fn what_was_written_is_not_written_again_by_one_who_remembers_nothing() {
    let ground = Ground::store(&[ANN, BOB]);
    let wanted = Wanted {
        claims: claimed("gt-2", "u1", "nux").claims,
        landed: landed("gt-1", "mr1").landed,
        ..Wanted::default()
    };
    assert!(ground.desks().settle(&wanted).await.commit.is_some());
    let tip = ground.head("beads-sync");
    assert!(ground.desks().settle(&wanted).await.commit.is_none());
    assert_eq!(ground.head("beads-sync"), tip);
}

#[tokio::test]
async fn a_person_s_reopening_stays_whoever_forgets() {
    let ground = Ground::store(&[ANN]);
    let wanted = landed("gt-1", "mr1");
    ground.desks().settle(&wanted).await;
    let reopened = ANN.replace(r#""updated_at":"2026-01-02"#, r#""updated_at":"2996-01-02"#);
    ground.push("beads-sync", &[(".beads/issues.jsonl", &text(&[&reopened]))]);
    let written = ground.desks().settle(&wanted).await;
    assert!(written.commit.is_none());
    assert_eq!(status_of(&written.view, "gt-1"), "open");
    // The next request that lands on the same bead closes it again.
    assert_eq!(
        status_of(&ground.desks().settle(&landed("gt-1", "mr2")).await.view, "gt-1"),
        "closed"
    );
}

#[tokio::test]
async fn a_claim_that_ended_is_released_by_one_who_remembers_nothing() {
    let ground = Ground::store(&[ANN]);
    ground.desks().settle(&claimed("gt-1", "u1", "nux")).await;
    let view = ground.desks().settle(&Wanted::default()).await.view;
    let issue = view.issues().get("gt-1").unwrap();
    assert_eq!((issue.status.as_str(), issue.assignee.as_deref()), ("open", None));
}

#[tokio::test]
async fn a_writer_who_was_faster_loses_nothing() {
    let ground = Ground::store(&[ANN, BOB]);
    let fresh = ground.desks();
    fresh.settle(&claimed("gt-1", "u1", "nux")).await;
    let raced = std::sync::atomic::AtomicU32::new(0);
    let written = fresh.write(|_| {
        // Between our reading and our push somebody else changes another bead of the same branch.
        if raced.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            let edited = BOB
                .replace("Second", "Renamed")
                .replace(r#""updated_at":"2026-01-03"#, r#""updated_at":"2026-02-03"#);
            ground.push(
                "beads-sync",
                &[(".beads/issues.jsonl", &text(&[&ground.line("beads-sync", "gt-1"), &edited]))],
            );
        }
        vec![Deed::Close { bead: "gt-1".into(), request: None, reason: "done".into() }]
    });
    let written = written.await.unwrap();
    assert_eq!(raced.into_inner(), 2, "the push was made anew");
    assert_eq!(status_of(&written.view, "gt-1"), "closed");
    assert!(ground.line("beads-sync", "gt-2").contains("Renamed"));
}

#[tokio::test]
async fn a_race_for_one_bead_has_one_winner() {
    let ground = Ground::store(&[ANN, BOB]);
    let fresh = ground.desks();
    let raced = std::sync::atomic::AtomicBool::new(false);
    let written = fresh.write(|_| {
        if !raced.swap(true, std::sync::atomic::Ordering::SeqCst) {
            let taken =
                ANN.replace(r#""status":"open""#, r#""status":"in_progress","assignee":"maya""#);
            ground.take("main");
            ground.push("beads-sync", &[(".beads/issues.jsonl", &text(&[&taken, BOB]))]);
        }
        vec![Deed::Claim {
            bead: "gt-1".into(),
            holder: Some("u1".into()),
            assignee: "web/polecats/nux".into(),
        }]
    });
    let written = written.await.unwrap();
    let [(_, error)] = &written.applied.refused[..] else { panic!("{written:?}") };
    assert_eq!(*error, EditError::AlreadyClaimed { id: "gt-1".into(), by: "maya".into() });
    assert!(written.commit.is_none());
    assert!(ground.line("beads-sync", "gt-1").contains("maya"));
}

#[tokio::test]
async fn a_bead_that_comes_on_the_target_after_our_first_write_is_seen_and_can_be_claimed() {
    let ground = Ground::store(&[ANN]);
    let fresh = ground.desks();
    fresh.settle(&claimed("gt-1", "u1", "nux")).await;
    let before = fresh.read().await.unwrap().number();
    ground.push("main", &[(".beads/issues.jsonl", &text(&[ANN, BOB]))]);
    let view = fresh.read().await.unwrap();
    assert_eq!(
        (status_of(&view, "gt-1").as_str(), status_of(&view, "gt-2").as_str()),
        ("in_progress", "open")
    );
    assert!(view.number() > before);
    let both = Wanted {
        claims: [claimed("gt-1", "u1", "nux").claims, claimed("gt-2", "u2", "slit").claims]
            .concat(),
        ..Wanted::default()
    };
    fresh.settle(&both).await;
    assert!(ground.line("beads-sync", "gt-2").contains("web/polecats/slit"));
    assert!(ground.line("beads-sync", "gt-1").contains("web/polecats/nux"));
    assert_eq!(ground.line("main", "gt-2"), BOB);
}

#[tokio::test]
async fn a_later_edit_on_the_target_is_what_a_write_starts_from() {
    let ground = Ground::store(&[ANN]);
    let fresh = ground.desks();
    fresh.settle(&claimed("gt-1", "u1", "nux")).await;
    let edited = ANN
        .replace("First", "Rewritten")
        .replace(r#""updated_at":"2026-01-02"#, r#""updated_at":"2996-01-02"#);
    ground.push("main", &[(".beads/issues.jsonl", &text(&[&edited]))]);
    let view = fresh.settle(&landed("gt-1", "mr1")).await.view;
    let issue = view.issues().get("gt-1").unwrap();
    assert_eq!((issue.title.as_str(), issue.status.as_str()), ("Rewritten", "closed"));
}

#[tokio::test]
async fn a_comment_is_made_once() {
    let ground = Ground::store(&[ANN]);
    let fresh = ground.desks();
    let say = |_: &View| {
        vec![Deed::Comment {
            bead: "gt-1".into(),
            author: "witness".into(),
            text: "gave up:\nno changes".into(),
        }]
    };
    assert!(fresh.write(say).await.unwrap().commit.is_some());
    let again = fresh.write(say).await.unwrap();
    assert_eq!((again.commit.is_none(), again.applied.done[0].1), (true, Change::NotNeeded));
    assert_eq!(again.view.issues().get("gt-1").unwrap().comments.len(), 1);
}

#[tokio::test]
async fn files_that_are_not_what_they_seem_are_named_and_not_read() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let ground = Ground::store(&[ANN]);
    let file = ground.work().join(".beads/issues.jsonl");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    ground.done("main");
    assert_eq!(
        ground.desks().lack().await,
        (
            "BadFile".into(),
            ".beads/issues.jsonl is an executable file, not an ordinary file".into()
        )
    );

    std::fs::remove_file(&file).unwrap();
    symlink("../../../../etc/passwd", &file).unwrap();
    ground.done("main");
    assert_eq!(
        ground.desks().lack().await,
        ("BadFile".into(), ".beads/issues.jsonl is a symbolic link, not an ordinary file".into())
    );

    std::fs::remove_dir_all(ground.work().join(".beads")).unwrap();
    symlink("/etc", ground.work().join(".beads")).unwrap();
    ground.done("main");
    assert_eq!(
        ground.desks().lack().await,
        ("BadFile".into(), ".beads is a symbolic link, not a folder".into())
    );
    assert_eq!(ground.head("beads-sync"), None);
}

#[tokio::test]
async fn a_redirect_is_followed_once_and_never_out_of_the_repository() {
    let ground = Ground::with(&[
        (".beads/redirect", "town/.beads\n"),
        ("town/.beads/issues.jsonl", &text(&[ANN])),
    ]);
    let fresh = ground.desks();
    fresh.settle(&claimed("gt-1", "u1", "nux")).await;
    assert!(ground.file("beads-sync", "town/.beads/issues.jsonl").contains("in_progress"));
    for (target, words) in [
        ("../../elsewhere/.beads", "out of the repository"),
        ("/etc", "out of the repository"),
        ("none", "does not exist"),
    ] {
        ground.push("main", &[(".beads/redirect", target)]);
        let (reason, message) = ground.desks().lack().await;
        assert_eq!(reason, "BadRedirect", "{target}");
        assert!(message.contains(words), "{message}");
    }
    ground
        .push("main", &[(".beads/redirect", "town/.beads"), ("town/.beads/redirect", "../.beads")]);
    assert_eq!(ground.desks().lack().await.0, "BadRedirect");
}

#[tokio::test]
async fn a_broken_file_is_read_around_and_not_written() {
    let twice = ANN.replace("First", "Again");
    let cases = [
        ("ConflictMarkers", vec!["<<<<<<< HEAD", ANN, "=======", BOB, ">>>>>>> other"]),
        ("DuplicateIds", vec![ANN, BOB, twice.as_str()]),
        ("MalformedLines", vec![ANN, r#"{"id":"gt-2","#]),
    ];
    for (reason, lines) in cases {
        let ground = Ground::store(&lines);
        let fresh = ground.desks();
        let view = fresh.read().await.unwrap();
        assert!(view.issues().get("gt-1").is_some(), "{reason}");
        let fault = fresh
            .write(|_| vec![Deed::Close { bead: "gt-1".into(), request: None, reason: "x".into() }])
            .await
            .unwrap_err();
        assert_eq!(fault.reason(), reason);
        assert!(fault.message().contains("line "), "{}", fault.message());
        assert_eq!(ground.head("beads-sync"), None, "{reason}");
    }
}

#[tokio::test]
async fn an_export_is_a_view_and_is_written_only_by_leave() {
    let export = r#"{"_type":"issue","id":"gt-1","title":"First","status":"open","priority":1,"issue_type":"task","created_at":"2026-01-02T03:04:05Z","updated_at":"2026-01-02T03:04:05Z","dependency_count":0,"dependent_count":0,"comment_count":0}"#;
    let ground = Ground::with(&[
        (".beads/issues.jsonl", &text(&[export])),
        (".beads/metadata.json", r#"{"backend":"dolt","project_id":"p-1"}"#),
    ]);
    let mut fresh = ground.desks();
    let view = fresh.read().await.unwrap();
    assert_eq!((view.is_authoritative(), view.project_id()), (false, Some("p-1")));
    let close =
        |_: &View| vec![Deed::Close { bead: "gt-1".into(), request: None, reason: "x".into() }];
    assert_eq!(fresh.write(close).await.unwrap_err().reason(), "ExportOnly");
    fresh.setting.policy = WritePolicy::AllowExportOnly;
    assert_eq!(status_of(&fresh.write(close).await.unwrap().view, "gt-1"), "closed");
    fresh.setting.policy = WritePolicy::ReadOnly;
    assert_eq!(fresh.write(close).await.unwrap_err().reason(), "ReadOnly");

    let bare = Ground::with(&[(".beads/metadata.json", r#"{"backend":"dolt"}"#)]);
    let (reason, message) = bare.desks().lack().await;
    assert_eq!(reason, "NoJsonl");
    assert!(message.contains("export.auto") && message.contains("HttpV0"), "{message}");
}

#[tokio::test]
async fn the_repository_names_the_branch_where_only_that_branch_has_the_beads() {
    let ground = Ground::with(&[(".beads/config.yaml", "sync-branch: issues # classic\n")]);
    ground.push("issues", &[(".beads/issues.jsonl", &text(&[ANN]))]);
    let fresh = ground.desks();
    fresh.settle(&claimed("gt-1", "u1", "nux")).await;
    assert!(ground.line("issues", "gt-1").contains("in_progress"));
    assert_eq!(ground.head("beads-sync"), None);

    ground.push(
        "main",
        &[(".beads/config.yaml", "sync-branch: main\n"), (".beads/issues.jsonl", &text(&[ANN]))],
    );
    let fresh = ground.desks();
    let fault = fresh
        .write(|_| vec![Deed::Close { bead: "gt-1".into(), request: None, reason: "x".into() }])
        .await
        .unwrap_err();
    assert_eq!(fault.reason(), "BranchIsTarget");
}

#[tokio::test]
async fn a_bead_of_another_prefix_is_read_and_not_written() {
    let other = ANN.replace("gt-1", "hq-1");
    let ground = Ground::store(&[&other]);
    let fresh = ground.desks();
    let written = fresh
        .write(|_| vec![Deed::Close { bead: "hq-1".into(), request: None, reason: "x".into() }])
        .await
        .unwrap();
    assert!(matches!(written.applied.refused[..], [(_, EditError::NotEditable { .. })]));
    assert_eq!(
        (status_of(&written.view, "hq-1").as_str(), ground.head("beads-sync")),
        ("open", None)
    );
}

#[tokio::test]
async fn a_mirror_that_is_gone_is_made_again() {
    let ground = Ground::store(&[ANN]);
    let fresh = ground.desks();
    fresh.settle(&claimed("gt-1", "u1", "nux")).await;
    let mirror =
        gastown_git::Mirror::at(Git::from_env(), Path::new("/nonexistent"), &fresh.repository.url);
    let name = mirror.path().file_name().unwrap().to_owned();
    let folders = std::fs::read_dir(ground.dir.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.path().join("mirrors").join(&name));
    let path = folders.into_iter().find(|path| path.exists()).unwrap();
    std::fs::remove_dir_all(path.join("objects")).unwrap();
    ground.push("main", &[("README.md", "# changed\n")]);
    assert_eq!(status_of(&fresh.settle(&landed("gt-1", "mr1")).await.view, "gt-1"), "closed");
}

#[tokio::test]
async fn a_remote_that_refuses_the_branch_is_told_and_reads_go_on() {
    let ground = Ground::store(&[ANN]);
    let folder = ground.dir.path().join("served");
    std::fs::create_dir(&folder).unwrap();
    let server = GitHttp::start(&folder).await.unwrap();
    server.create("web").await.unwrap();
    git(
        &ground.work(),
        &["push", "-q", server.path("web").to_str().unwrap(), "HEAD:refs/heads/main"],
    )
    .unwrap();
    server.refuse("web", &["refs/heads/beads-sync"]).unwrap();
    let mut fresh = ground.desks();
    fresh.repository.url = server.repository("web").parse().unwrap();
    let fault = fresh
        .write(|_| vec![Deed::Close { bead: "gt-1".into(), request: None, reason: "x".into() }])
        .await
        .unwrap_err();
    assert_eq!(fault.reason(), "PushRejected");
    assert!(fault.is_of_writing());
    assert_eq!(status_of(&fresh.read().await.unwrap(), "gt-1"), "open");
}
