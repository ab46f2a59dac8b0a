//! Stores in real repositories: reads, pushes, and pushes of others in between.

mod fixture;

use std::path::Path;

use beadstore_ctl::snapshot::StoreSnapshot;
use gastown_api::WritePolicy;
use gastown_beads::{Change, EditError};
use gastown_core::beads::{Edit, Wanted};
use gastown_fakes::git_http::GitHttp;
use gastown_fakes::repository::git;
use gastown_git::Git;

use self::fixture::{ANN, BOB, Fixture, text};
use crate::{claimed, landed, status_of};

#[tokio::test]
async fn a_claim_and_a_close_change_one_line_each_of_the_write_branch() {
    let fixture = Fixture::store(&[ANN, BOB]);
    let (main, process) = (fixture.head("main"), fixture.process());
    process.sync(&claimed("gt-1", "u1", "nux")).await;
    assert_eq!(fixture.head("main"), main, "bead writes never move the target");
    let line = fixture.line("beads-sync", "gt-1");
    assert!(
        line.contains(r#""status":"in_progress""#)
            && line.contains(r#""assignee":"web/polecats/nux""#),
        "{line}"
    );
    assert_eq!(
        fixture.line("beads-sync", "gt-2"),
        BOB,
        "the other line is as it was, byte for byte"
    );
    assert_eq!(fixture.file("beads-sync", "README.md"), "# web\n");

    let snapshot = process.sync(&landed("gt-1", "mr1")).await.snapshot;
    assert_eq!(status_of(&snapshot, "gt-1"), "closed");
    assert!(fixture.line("beads-sync", "gt-1").contains(r#""close_reason":"merged abc123""#));
    assert_eq!(fixture.file("beads-sync", ".beads/issues.jsonl").lines().count(), 2);
}

#[tokio::test]
async fn edits_are_not_repeated_after_a_restart() {
    let fixture = Fixture::store(&[ANN, BOB]);
    let wanted = Wanted {
        claims: claimed("gt-2", "u1", "nux").claims,
        landed: landed("gt-1", "mr1").landed,
        ..Wanted::default()
    };
    assert!(fixture.process().sync(&wanted).await.commit.is_some());
    let tip = fixture.head("beads-sync");
    assert!(fixture.process().sync(&wanted).await.commit.is_none());
    assert_eq!(fixture.head("beads-sync"), tip);
}

#[tokio::test]
async fn a_person_s_reopening_stays_after_a_restart() {
    let fixture = Fixture::store(&[ANN]);
    let wanted = landed("gt-1", "mr1");
    fixture.process().sync(&wanted).await;
    let reopened = ANN.replace(r#""updated_at":"2026-01-02"#, r#""updated_at":"2996-01-02"#);
    fixture.push("beads-sync", &[(".beads/issues.jsonl", &text(&[&reopened]))]);
    let written = fixture.process().sync(&wanted).await;
    assert!(written.commit.is_none());
    assert_eq!(status_of(&written.snapshot, "gt-1"), "open");
    // The next request that lands on the same bead closes it again.
    assert_eq!(
        status_of(&fixture.process().sync(&landed("gt-1", "mr2")).await.snapshot, "gt-1"),
        "closed"
    );
}

#[tokio::test]
async fn a_claim_that_ended_is_released_after_a_restart() {
    let fixture = Fixture::store(&[ANN]);
    fixture.process().sync(&claimed("gt-1", "u1", "nux")).await;
    let snapshot = fixture.process().sync(&Wanted::default()).await.snapshot;
    let issue = snapshot.issues().get("gt-1").unwrap();
    assert_eq!((issue.status.as_str(), issue.assignee.as_deref()), ("open", None));
}

#[tokio::test]
async fn a_faster_writer_loses_nothing() {
    let fixture = Fixture::store(&[ANN, BOB]);
    let process = fixture.process();
    process.sync(&claimed("gt-1", "u1", "nux")).await;
    let raced = std::sync::atomic::AtomicU32::new(0);
    let written = process.write(|_| {
        // Between our reading and our push another user changes another bead of the same branch.
        if raced.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            let edited = BOB
                .replace("Second", "Renamed")
                .replace(r#""updated_at":"2026-01-03"#, r#""updated_at":"2026-02-03"#);
            fixture.push(
                "beads-sync",
                &[(".beads/issues.jsonl", &text(&[&fixture.line("beads-sync", "gt-1"), &edited]))],
            );
        }
        vec![Edit::Close { bead: "gt-1".into(), request: "mr9".into(), reason: "done".into() }]
    });
    let written = written.await.unwrap();
    assert_eq!(raced.into_inner(), 2, "the push was repeated");
    assert_eq!(status_of(&written.snapshot, "gt-1"), "closed");
    assert!(fixture.line("beads-sync", "gt-2").contains("Renamed"));
}

#[tokio::test]
async fn a_race_for_one_bead_has_one_winner() {
    let fixture = Fixture::store(&[ANN, BOB]);
    let process = fixture.process();
    let raced = std::sync::atomic::AtomicBool::new(false);
    let written = process.write(|_| {
        if !raced.swap(true, std::sync::atomic::Ordering::SeqCst) {
            let taken =
                ANN.replace(r#""status":"open""#, r#""status":"in_progress","assignee":"maya""#);
            fixture.checkout("main");
            fixture.push("beads-sync", &[(".beads/issues.jsonl", &text(&[&taken, BOB]))]);
        }
        vec![Edit::Claim {
            bead: "gt-1".into(),
            holder: "u1".into(),
            assignee: "web/polecats/nux".into(),
        }]
    });
    let written = written.await.unwrap();
    let [(_, error)] = &written.applied.refused[..] else { panic!("{written:?}") };
    assert_eq!(*error, EditError::AlreadyClaimed { id: "gt-1".into(), by: "maya".into() });
    assert!(written.commit.is_none());
    assert!(fixture.line("beads-sync", "gt-1").contains("maya"));
}

#[tokio::test]
async fn a_bead_that_is_added_to_the_target_after_our_first_write_can_be_claimed() {
    let fixture = Fixture::store(&[ANN]);
    let process = fixture.process();
    process.sync(&claimed("gt-1", "u1", "nux")).await;
    let before = process.read().await.unwrap().number();
    fixture.push("main", &[(".beads/issues.jsonl", &text(&[ANN, BOB]))]);
    let snapshot = process.read().await.unwrap();
    assert_eq!(
        (status_of(&snapshot, "gt-1").as_str(), status_of(&snapshot, "gt-2").as_str()),
        ("in_progress", "open")
    );
    assert!(snapshot.number() > before);
    let both = Wanted {
        claims: [claimed("gt-1", "u1", "nux").claims, claimed("gt-2", "u2", "slit").claims]
            .concat(),
        ..Wanted::default()
    };
    process.sync(&both).await;
    assert!(fixture.line("beads-sync", "gt-2").contains("web/polecats/slit"));
    assert!(fixture.line("beads-sync", "gt-1").contains("web/polecats/nux"));
    assert_eq!(fixture.line("main", "gt-2"), BOB);
}

#[tokio::test]
async fn a_write_starts_from_a_later_edit_on_the_target() {
    let fixture = Fixture::store(&[ANN]);
    let process = fixture.process();
    process.sync(&claimed("gt-1", "u1", "nux")).await;
    let edited = ANN
        .replace("First", "Rewritten")
        .replace(r#""updated_at":"2026-01-02"#, r#""updated_at":"2996-01-02"#);
    fixture.push("main", &[(".beads/issues.jsonl", &text(&[&edited]))]);
    let snapshot = process.sync(&landed("gt-1", "mr1")).await.snapshot;
    let issue = snapshot.issues().get("gt-1").unwrap();
    assert_eq!((issue.title.as_str(), issue.status.as_str()), ("Rewritten", "closed"));
}

/// A line of the bead with another value, by a tool that sets the time of the change.
fn edited(line: &str, from: &str, to: &str, day: &str) -> String {
    let changed = line.replace(from, to);
    assert_ne!(changed, line, "{from} in {line}");
    changed.replace(r#""updated_at":"2026-01-02"#, &format!(r#""updated_at":"{day}"#))
}

fn bead(snapshot: &StoreSnapshot, id: &str) -> (String, String) {
    let issue = snapshot.issues().get(id).unwrap();
    (issue.title.clone(), issue.status.as_str().to_owned())
}

#[tokio::test]
async fn an_edit_of_the_title_does_not_reopen_what_we_closed() {
    let fixture = Fixture::store(&[ANN, BOB]);
    let wanted = landed("gt-1", "mr1");
    fixture.process().sync(&wanted).await;
    // On the target branch it is still open, and this edit is the later one.
    let titled = edited(ANN, "First", "Renamed", "2996-01-02");
    fixture.push("main", &[(".beads/issues.jsonl", &text(&[&titled, BOB]))]);
    let process = fixture.process();
    let snapshot = process.read().await.unwrap();
    assert_eq!(bead(&snapshot, "gt-1"), ("Renamed".into(), "closed".into()));
    assert!(process.sync(&wanted).await.commit.is_none(), "nothing is to be written");
    // The next write takes the title over, and the status with it stays as it was.
    process.sync(&claimed("gt-2", "u1", "nux")).await;
    let line = fixture.line("beads-sync", "gt-1");
    assert!(line.contains("Renamed") && line.contains(r#""status":"closed""#), "{line}");
    assert_eq!(bead(&process.read().await.unwrap(), "gt-1").1, "closed");
}

#[tokio::test]
async fn an_edit_in_the_second_of_our_write_is_kept() {
    let fixture = Fixture::store(&[ANN]);
    let snapshot = fixture.process().sync(&claimed("gt-1", "u1", "nux")).await.snapshot;
    let at = snapshot.issues().get("gt-1").unwrap().updated_at.unwrap();
    let titled = ANN.replace("First", "Renamed").replace(
        r#""updated_at":"2026-01-02T03:04:05.123456789+01:00""#,
        &format!(r#""updated_at":"{at}""#),
    );
    fixture.push("main", &[(".beads/issues.jsonl", &text(&[&titled]))]);
    let snapshot = fixture.process().read().await.unwrap();
    assert_eq!(bead(&snapshot, "gt-1"), ("Renamed".into(), "in_progress".into()));
}

#[tokio::test]
async fn a_person_who_closes_and_reopens_on_the_target_is_followed() {
    let fixture = Fixture::store(&[ANN, BOB]);
    let closed = edited(
        ANN,
        r#""status":"open""#,
        r#""status":"closed","closed_at":"2026-01-03T00:00:00Z""#,
        "2026-01-03",
    );
    fixture.push("main", &[(".beads/issues.jsonl", &text(&[&closed, BOB]))]);
    // A write of ours takes the close over, and remembers from which commit.
    fixture.process().sync(&claimed("gt-2", "u1", "nux")).await;
    assert_eq!(bead(&fixture.process().read().await.unwrap(), "gt-1").1, "closed");
    fixture.push("main", &[(".beads/issues.jsonl", &text(&[ANN, BOB]))]);
    let snapshot = fixture.process().read().await.unwrap();
    assert_eq!(bead(&snapshot, "gt-1").1, "open", "although no time moved");
}

#[tokio::test]
async fn what_a_time_decided_is_written_so_that_a_later_edit_does_not_turn_it_over() {
    let fixture = Fixture::store(&[ANN, BOB]);
    let wanted = landed("gt-1", "mr1");
    fixture.process().sync(&wanted).await;
    let taken = edited(
        ANN,
        r#""status":"open""#,
        r#""status":"in_progress","assignee":"ann""#,
        "2026-01-03",
    );
    fixture.push("main", &[(".beads/issues.jsonl", &text(&[&taken, BOB]))]);
    let process = fixture.process();
    assert_eq!(bead(&process.read().await.unwrap(), "gt-1").1, "closed", "our close is later");
    assert!(process.sync(&wanted).await.commit.is_some(), "and that is written");
    let titled =
        edited(&taken.replace("2026-01-03", "2026-01-02"), "First", "Renamed", "2996-01-02");
    fixture.push("main", &[(".beads/issues.jsonl", &text(&[&titled, BOB]))]);
    let snapshot = process.read().await.unwrap();
    assert_eq!(bead(&snapshot, "gt-1"), ("Renamed".into(), "closed".into()));
    let tip = fixture.head("beads-sync");
    assert!(fixture.process().sync(&wanted).await.commit.is_none());
    assert_eq!(fixture.head("beads-sync"), tip, "it is settled once");
}

#[tokio::test]
async fn records_stay_when_people_merge_the_write_branch_and_delete_it() {
    let fixture = Fixture::store(&[ANN]);
    let wanted = landed("gt-1", "mr1");
    fixture.process().sync(&wanted).await;
    fixture.checkout("main");
    git(&fixture.work(), &["fetch", "-q", "origin", "beads-sync"]).unwrap();
    git(&fixture.work(), &["merge", "-q", "--no-ff", "-m", "fold", "FETCH_HEAD"]).unwrap();
    git(&fixture.work(), &["push", "-q", "origin", "HEAD:refs/heads/main"]).unwrap();
    let snapshot = fixture.process().read().await.unwrap();
    assert_eq!(bead(&snapshot, "gt-1").1, "closed");
    git(&fixture.work(), &["push", "-q", "origin", ":refs/heads/beads-sync"]).unwrap();
    fixture.push("main", &[(".beads/issues.jsonl", &text(&[ANN]))]);
    let written = fixture.process().sync(&wanted).await;
    assert_eq!(bead(&written.snapshot, "gt-1").1, "open", "a person reopened it");
    assert!(written.commit.is_none(), "it is not closed again for the same request");
    assert_eq!(written.snapshot.history().closed_for("gt-1").collect::<Vec<_>>(), ["mr1"]);
    assert_eq!(fixture.head("beads-sync"), None);
}

#[tokio::test]
async fn one_line_that_is_too_long_hides_no_other_bead() {
    let long = BOB.replace("Second", &"x".repeat(9 << 20));
    let fixture = Fixture::store(&[ANN, &long]);
    let process = fixture.process();
    let snapshot = process.read().await.unwrap();
    assert_eq!((status_of(&snapshot, "gt-1").as_str(), snapshot.issues().len()), ("open", 1));
    let close = |_: &StoreSnapshot| {
        vec![Edit::Close { bead: "gt-1".into(), request: "mr9".into(), reason: "x".into() }]
    };
    let error = process.write(close).await.unwrap_err();
    assert_eq!(error.reason(), "LineTooLong");
    assert!(error.message().contains("line 2: gt-2: the line has "), "{}", error.message());
}

#[tokio::test]
async fn a_comment_is_added_once() {
    let fixture = Fixture::store(&[ANN]);
    let process = fixture.process();
    let comment = |_: &StoreSnapshot| {
        vec![Edit::Comment {
            bead: "gt-1".into(),
            author: "witness".into(),
            text: "gave up:\nno changes".into(),
        }]
    };
    assert!(process.write(comment).await.unwrap().commit.is_some());
    let again = process.write(comment).await.unwrap();
    assert_eq!((again.commit.is_none(), again.applied.done[0].1), (true, Change::NotNeeded));
    assert_eq!(again.snapshot.issues().get("gt-1").unwrap().comments.len(), 1);
}

#[tokio::test]
async fn files_that_are_not_ordinary_are_reported_and_not_read() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let fixture = Fixture::store(&[ANN]);
    let file = fixture.work().join(".beads/issues.jsonl");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    fixture.commit("main");
    assert_eq!(
        fixture.process().not_readable().await,
        (
            "BadFile".into(),
            ".beads/issues.jsonl is an executable file, not an ordinary file".into()
        )
    );

    std::fs::remove_file(&file).unwrap();
    symlink("../../../../etc/passwd", &file).unwrap();
    fixture.commit("main");
    assert_eq!(
        fixture.process().not_readable().await,
        ("BadFile".into(), ".beads/issues.jsonl is a symbolic link, not an ordinary file".into())
    );

    std::fs::remove_dir_all(fixture.work().join(".beads")).unwrap();
    symlink("/etc", fixture.work().join(".beads")).unwrap();
    fixture.commit("main");
    assert_eq!(
        fixture.process().not_readable().await,
        ("BadFile".into(), ".beads is a symbolic link, not a folder".into())
    );
    assert_eq!(fixture.head("beads-sync"), None);
}

#[tokio::test]
async fn a_redirect_is_followed_once_and_never_out_of_the_repository() {
    let fixture = Fixture::with(&[
        (".beads/redirect", "plans/.beads\n"),
        ("plans/.beads/issues.jsonl", &text(&[ANN])),
    ]);
    let process = fixture.process();
    process.sync(&claimed("gt-1", "u1", "nux")).await;
    assert!(fixture.file("beads-sync", "plans/.beads/issues.jsonl").contains("in_progress"));
    for (target, text) in [
        ("../../elsewhere/.beads", "out of the repository"),
        ("/etc", "out of the repository"),
        ("none", "does not exist"),
    ] {
        fixture.push("main", &[(".beads/redirect", target)]);
        let (reason, message) = fixture.process().not_readable().await;
        assert_eq!(reason, "BadRedirect", "{target}");
        assert!(message.contains(text), "{message}");
    }
    fixture.push(
        "main",
        &[(".beads/redirect", "plans/.beads"), ("plans/.beads/redirect", "../.beads")],
    );
    assert_eq!(fixture.process().not_readable().await.0, "BadRedirect");
}

#[tokio::test]
async fn a_broken_file_is_read_as_far_as_possible_and_not_written() {
    let twice = ANN.replace("First", "Again");
    let cases = [
        ("ConflictMarkers", vec!["<<<<<<< HEAD", ANN, "=======", BOB, ">>>>>>> other"]),
        ("DuplicateIds", vec![ANN, BOB, twice.as_str()]),
        ("MalformedLines", vec![ANN, r#"{"id":"gt-2","#]),
    ];
    for (reason, lines) in cases {
        let fixture = Fixture::store(&lines);
        let process = fixture.process();
        let snapshot = process.read().await.unwrap();
        assert!(snapshot.issues().get("gt-1").is_some(), "{reason}");
        let error = process
            .write(|_| {
                vec![Edit::Close { bead: "gt-1".into(), request: "mr9".into(), reason: "x".into() }]
            })
            .await
            .unwrap_err();
        assert_eq!(error.reason(), reason);
        assert!(error.message().contains("line "), "{}", error.message());
        assert_eq!(fixture.head("beads-sync"), None, "{reason}");
    }
}

#[tokio::test]
async fn an_export_is_written_only_where_the_policy_allows_it() {
    let export = r#"{"_type":"issue","id":"gt-1","title":"First","status":"open","priority":1,"issue_type":"task","created_at":"2026-01-02T03:04:05Z","updated_at":"2026-01-02T03:04:05Z","dependency_count":0,"dependent_count":0,"comment_count":0}"#;
    let fixture = Fixture::with(&[
        (".beads/issues.jsonl", &text(&[export])),
        (".beads/metadata.json", r#"{"backend":"dolt","project_id":"p-1"}"#),
    ]);
    let mut process = fixture.process();
    let snapshot = process.read().await.unwrap();
    assert_eq!((snapshot.is_authoritative(), snapshot.project_id()), (false, Some("p-1")));
    let close = |_: &StoreSnapshot| {
        vec![Edit::Close { bead: "gt-1".into(), request: "mr9".into(), reason: "x".into() }]
    };
    assert_eq!(process.write(close).await.unwrap_err().reason(), "ExportOnly");
    process.valid.policy = WritePolicy::AllowExportOnly;
    assert_eq!(status_of(&process.write(close).await.unwrap().snapshot, "gt-1"), "closed");
    process.valid.policy = WritePolicy::ReadOnly;
    assert_eq!(process.write(close).await.unwrap_err().reason(), "ReadOnly");

    let bare = Fixture::with(&[(".beads/metadata.json", r#"{"backend":"dolt"}"#)]);
    let (reason, message) = bare.process().not_readable().await;
    assert_eq!(reason, "NoJsonl");
    assert!(message.contains("export.auto") && message.contains("HttpV0"), "{message}");
}

#[tokio::test]
async fn config_yaml_names_the_branch_where_only_that_branch_has_the_beads() {
    let fixture = Fixture::with(&[(".beads/config.yaml", "sync-branch: issues # classic\n")]);
    fixture.push("issues", &[(".beads/issues.jsonl", &text(&[ANN]))]);
    let process = fixture.process();
    process.sync(&claimed("gt-1", "u1", "nux")).await;
    assert!(fixture.line("issues", "gt-1").contains("in_progress"));
    assert_eq!(fixture.head("beads-sync"), None);

    fixture.push(
        "main",
        &[(".beads/config.yaml", "sync-branch: main\n"), (".beads/issues.jsonl", &text(&[ANN]))],
    );
    let process = fixture.process();
    let error = process
        .write(|_| {
            vec![Edit::Close { bead: "gt-1".into(), request: "mr9".into(), reason: "x".into() }]
        })
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "BranchIsTarget");
}

#[tokio::test]
async fn a_bead_of_another_prefix_is_read_and_not_written() {
    let other = ANN.replace("gt-1", "hq-1");
    let fixture = Fixture::store(&[&other]);
    let process = fixture.process();
    let written = process
        .write(|_| {
            vec![Edit::Close { bead: "hq-1".into(), request: "mr9".into(), reason: "x".into() }]
        })
        .await
        .unwrap();
    assert!(matches!(written.applied.refused[..], [(_, EditError::NotEditable { .. })]));
    assert_eq!(
        (status_of(&written.snapshot, "hq-1").as_str(), fixture.head("beads-sync")),
        ("open", None)
    );
}

#[tokio::test]
async fn a_damaged_mirror_is_made_again() {
    let fixture = Fixture::store(&[ANN]);
    let process = fixture.process();
    process.sync(&claimed("gt-1", "u1", "nux")).await;
    let mirror = gastown_git::Mirror::at(
        Git::from_env(),
        Path::new("/nonexistent"),
        &process.repository.url,
    );
    let name = mirror.path().file_name().unwrap().to_owned();
    let folders = std::fs::read_dir(fixture.dir.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.path().join("mirrors").join(&name));
    let path = folders.into_iter().find(|path| path.exists()).unwrap();
    std::fs::remove_dir_all(path.join("objects")).unwrap();
    fixture.push("main", &[("README.md", "# changed\n")]);
    assert_eq!(status_of(&process.sync(&landed("gt-1", "mr1")).await.snapshot, "gt-1"), "closed");
}

#[tokio::test]
async fn a_rejected_push_is_reported_and_reads_go_on() {
    let fixture = Fixture::store(&[ANN]);
    let folder = fixture.dir.path().join("served");
    std::fs::create_dir(&folder).unwrap();
    let server = GitHttp::start(&folder).await.unwrap();
    server.create("web").await.unwrap();
    git(
        &fixture.work(),
        &["push", "-q", server.path("web").to_str().unwrap(), "HEAD:refs/heads/main"],
    )
    .unwrap();
    server.refuse("web", &["refs/heads/beads-sync"]).unwrap();
    let mut process = fixture.process();
    process.repository.url = server.repository("web").parse().unwrap();
    let error = process
        .write(|_| {
            vec![Edit::Close { bead: "gt-1".into(), request: "mr9".into(), reason: "x".into() }]
        })
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "PushRejected");
    assert!(error.is_write_error());
    assert_eq!(status_of(&process.read().await.unwrap(), "gt-1"), "open");
}
