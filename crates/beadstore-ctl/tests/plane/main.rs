//! beadstore-ctl as the chart runs it: its own service account, its own roles, a real API server and
//! real git.

#![allow(clippy::unwrap_used, clippy::panic)]

mod definitions;
mod fixture;
mod kills;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use gastown_api::names::{condition, finalizer};
use gastown_api::{BeadStore, BeadStorePhase, conditions};
use gastown_cluster::install::SYSTEM as NAMESPACE;
use gastown_fakes::black_hole::BlackHole;
use gastown_fakes::repository::git;
use gastown_fakes::{bd_serve, repository};
use gastown_proto::v1::{CommentRequest, GetBeadsRequest, StoreRevision, WatchBeadsRequest};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tonic::Streaming;

use crate::fixture::{Fixture, TIMEOUT, bead};

#[tokio::test]
async fn claims_and_landings_reach_the_store_and_the_target_never_moves() -> Result<()> {
    let fixture = Fixture::new().await?;
    fixture.make_rig().await?;
    fixture.make_store("beads").await?;
    fixture.condition("beads", condition::WRITABLE, "True", "Writable").await?;
    let main = repository::head(&fixture.remote(), "main");
    let lease = fixture.claim("gt-1", "nux").await?;
    fixture.written("gt-1", &format!("\"assignee\":\"{}/polecats/nux\"", fixture.rig)).await?;
    let other = fixture.claim("gt-2", "slit").await?;
    fixture.written("gt-2", "in_progress").await?;
    fixture.leases().delete(&other, &DeleteParams::default()).await?;
    let line = fixture.written("gt-2", "\"status\":\"open\"").await?;
    ensure!(!line.contains("assignee"), "{line}");
    fixture.land("gt-1").await?;
    fixture.written("gt-1", &format!("\"close_reason\":\"merged {}\"", "c".repeat(40))).await?;
    fixture.leases().delete(&lease, &DeleteParams::default()).await?;
    fixture
        .until("beads", "one closed and one ready bead", |store| {
            let status = store?.status.as_ref()?;
            let counts = (
                status.by_status.get("closed"),
                status.by_status.get("open"),
                status.ready_count,
                status.pending_writes,
            );
            (counts == (Some(&1), Some(&1), Some(1), Some(0))).then_some(())
        })
        .await?;
    ensure!(repository::head(&fixture.remote(), "main") == main, "main moved");
    Ok(())
}

#[tokio::test]
async fn conditions_name_what_is_missing_and_the_store_recovers_by_itself() -> Result<()> {
    let fixture = Fixture::new().await?;
    fixture.make_store("beads").await?;
    let message = fixture.condition("beads", condition::READY, "False", "RigNotFound").await?;
    ensure!(message.contains(&fixture.rig), "{message}");
    fixture.make_rig().await?;
    fixture.condition("beads", condition::SYNCED, "True", "UpToDate").await?;
    fixture.make_store("second").await?;
    let message = fixture.condition("second", condition::READY, "False", "Duplicate").await?;
    ensure!(message.contains("/beads"), "{message}");
    fixture.push(&["<<<<<<< HEAD", &bead("gt-1", "First")])?;
    let message =
        fixture.condition("beads", condition::WRITABLE, "False", "ConflictMarkers").await?;
    ensure!(message.contains("line 1"), "{message}");
    fixture.condition("beads", condition::SYNCED, "True", "UpToDate").await?;
    let secret = json!({"spec": {"gitSecretRef": {"name": "missing"}, "git": {"branch": "beads"}}});
    fixture.stores().patch("beads", &PatchParams::default(), &Patch::Merge(&secret)).await?;
    // Its namespace is not one of the chart's beadstore.secretNamespaces.
    let message = fixture.condition("beads", condition::READY, "False", "SecretForbidden").await?;
    ensure!(message.contains("beadstore.secretNamespaces"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_server_s_token_is_read_from_an_allowed_namespace_only() -> Result<()> {
    let (fixture, server) = (Fixture::new().await?, bd_serve::Server::with_issues(1).await);
    fixture.make_rig().await?;
    fixture.make_http_store("beads", &server).await?;
    // Its namespace is not one of the chart's beadstore.secretNamespaces.
    let message = fixture.condition("beads", condition::READY, "False", "SecretForbidden").await?;
    ensure!(message.contains("beadstore.secretNamespaces"), "{message}");
    ensure!(server.asked("").is_empty(), "the server was called without its token");
    Ok(())
}

#[tokio::test]
async fn a_landing_closes_its_bead_in_a_server_that_goes_away_and_comes_back() -> Result<()> {
    // Secrets of the release's namespace may be read.
    let fixture = Fixture { namespace: NAMESPACE.into(), ..Fixture::new().await? };
    let mut server = bd_serve::Server::with_issues(2).await;
    fixture.make_rig().await?;
    fixture.make_http_store("http", &server).await?;
    let message = fixture.condition("http", condition::READY, "False", "SecretNotFound").await?;
    ensure!(message.contains("beads-token"), "{message}");
    fixture.make_token(bd_serve::TOKEN).await?;
    let message = fixture.condition("http", condition::WRITABLE, "True", "Writable").await?;
    ensure!(message.contains(bd_serve::PROJECT), "{message}");
    fixture.condition("http", condition::AUTHORITATIVE, "True", "ServerIsTruth").await?;
    fixture.counts("http", (2, 0, 0)).await?;

    let lease = fixture.claim("gt-1", "nux").await?;
    fixture.row_has(&server, "gt-1", "assignee", &format!("{}/polecats/nux", fixture.rig)).await?;
    // The bead is read again after its claim; only then is it what is served.
    fixture.counts("http", (1, 0, 0)).await?;
    server.down().await;
    fixture.land("gt-1").await?;
    let message = fixture.condition("http", condition::READY, "False", "RemoteUnreachable").await?;
    ensure!(message.contains(&server.url()) && message.contains("writes wait"), "{message}");
    fixture.condition("http", condition::WRITABLE, "False", "RemoteUnreachable").await?;
    fixture
        .until("http", "a pending write", |store| {
            (store?.status.as_ref()?.pending_writes == Some(1)).then_some(())
        })
        .await?;
    let mut polecat = fixture.caller("polecat-ctl").await?;
    let asked = GetBeadsRequest { rig: fixture.rig.clone(), ids: vec!["gt-1".into()] };
    let found = polecat.get(asked.clone()).await?.into_inner();
    ensure!(found.beads[0].status == "in_progress", "the last reading is served: {found:?}");

    server.up().await;
    fixture.row_has(&server, "gt-1", "close_reason", &format!("merged {}", "c".repeat(40))).await?;
    fixture.condition("http", condition::READY, "True", "Ready").await?;
    fixture.counts("http", (1, 1, 0)).await?;
    fixture.leases().delete(&lease, &DeleteParams::default()).await?;
    // A person's reopening stays, although the status is erased.
    server.store(|store| {
        store.change("gt-1", |row| drop(row.insert("status".into(), "open".into())));
    });
    fixture.counts("http", (2, 0, 0)).await?;
    let status = json!({"status": null});
    fixture.stores().patch_status("http", &PatchParams::default(), &Patch::Merge(&status)).await?;
    fixture.counts("http", (2, 0, 0)).await?;
    ensure!(server.asked("gt-1:close").len() == 1, "{:?}", server.asked("POST"));

    let comment = CommentRequest {
        rig: fixture.rig.clone(),
        id: "gt-1".into(),
        author: "polecat".into(),
        text: "gave up".into(),
    };
    ensure!(polecat.comment(comment).await?.into_inner().changed, "added");
    server.store(|store| store.change("gt-1", |row| row["comments"][0]["text"] = "edited".into()));
    let found = polecat.get(asked).await?.into_inner();
    ensure!(
        found.beads[0].comments[0].text == "edited",
        "comments are read from the server: {found:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_status_that_is_erased_comes_back_and_the_go_operator_s_finalizer_goes() -> Result<()> {
    let fixture = Fixture::new().await?;
    fixture.make_rig().await?;
    fixture.make_store("beads").await?;
    fixture.condition("beads", condition::READY, "True", "Ready").await?;
    let status = json!({"status": null});
    fixture.stores().patch_status("beads", &PatchParams::default(), &Patch::Merge(&status)).await?;
    fixture
        .until("beads", "the status", |store| {
            let status = store?.status.as_ref()?;
            (status.phase == Some(BeadStorePhase::Synced) && status.issue_count == 2).then_some(())
        })
        .await?;
    let held = json!({"metadata": {"finalizers": [finalizer::BEAD_STORE]}});
    fixture.stores().patch("beads", &PatchParams::default(), &Patch::Merge(&held)).await?;
    fixture.stores().delete("beads", &DeleteParams::default()).await?;
    fixture.until("beads", "its end", |store| store.is_none().then_some(())).await
}

/// The next revision of a rig's store; those of other rigs come as well.
async fn revision_of(stream: &mut Streaming<StoreRevision>, rig: &str) -> Result<StoreRevision> {
    loop {
        let next = stream.message().await?.context("the stream ended")?;
        if next.rig == rig {
            return Ok(next);
        }
    }
}

#[tokio::test]
async fn callers_read_comment_and_watch() -> Result<()> {
    let fixture = Fixture::new().await?;
    fixture.make_rig().await?;
    let mut polecat = fixture.caller("polecat-ctl").await?;
    let rig = fixture.rig.clone();
    let refused = polecat.get(GetBeadsRequest { rig: rig.clone(), ids: vec![] }).await.unwrap_err();
    ensure!(refused.message().starts_with("NoBeadStore"), "{refused}");
    fixture.make_store("beads").await?;
    fixture.condition("beads", condition::READY, "True", "Ready").await?;

    let found = polecat
        .get(GetBeadsRequest { rig: rig.clone(), ids: vec!["gt-2".into(), "gt-9".into()] })
        .await?
        .into_inner();
    ensure!(
        found.beads.len() == 1 && found.beads[0].title == "Second" && found.beads[0].ready,
        "{found:?}"
    );

    let mut revisions =
        fixture.caller("convoy-ctl").await?.watch(WatchBeadsRequest {}).await?.into_inner();
    let first = revision_of(&mut revisions, &rig).await?;
    let comment = CommentRequest {
        rig: rig.clone(),
        id: "gt-1".into(),
        author: "polecat".into(),
        text: "gave up".into(),
    };
    let answer = polecat.comment(comment.clone()).await?.into_inner();
    ensure!(
        answer.changed && answer.bead.is_some_and(|bead| bead.comments.len() == 1),
        "the comment is there"
    );
    let next = revision_of(&mut revisions, &rig).await?;
    ensure!(
        next.number > first.number && next.write_commit != first.write_commit,
        "{first:?} {next:?}"
    );
    ensure!(!polecat.comment(comment).await?.into_inner().changed, "added once");
    let unknown = CommentRequest {
        rig: rig.clone(),
        id: "gt-9".into(),
        author: "polecat".into(),
        text: "?".into(),
    };
    ensure!(
        polecat.comment(unknown).await.unwrap_err().code() == tonic::Code::NotFound,
        "an unknown bead"
    );

    let comment = CommentRequest {
        rig: rig.clone(),
        id: "gt-1".into(),
        author: "rig".into(),
        text: "?".into(),
    };
    let denied = fixture.caller("rig-ctl").await?.comment(comment).await.unwrap_err();
    ensure!(denied.code() == tonic::Code::PermissionDenied, "{denied}");
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_named_and_the_other_beads_are_read() -> Result<()> {
    let fixture = Fixture::new().await?;
    let (one, two) = (bead("gt-1", "First"), bead("gt-2", "Second"));
    let long = bead("gt-3", &"x".repeat(9 << 20));
    let (cut, bad) = (&two[..60], bead("../gt-3", "Bad"));
    let cases: [(&str, Vec<u8>, &str, i32); 6] = [
        ("MalformedLines", format!("{one}\n{cut}\n").into(), "line 2: gt-2: malformed", 1),
        ("BadId", format!("{one}\n{bad}\n{two}\n").into(), "line 2: `../gt-3`", 2),
        ("LineTooLong", format!("{one}\n{two}\n{long}\n").into(), "line 3: gt-3: the line", 2),
        ("DuplicateIds", format!("{one}\n{two}\n{one}\n").into(), "line 3: the id gt-1", 2),
        ("ByteOrderMark", format!("\u{feff}{one}\n{two}\n").into(), "line 1: ", 2),
        ("CarriageReturns", format!("{one}\r\n{two}\r\n").into(), "line 1: ", 2),
    ];
    fixture.make_rig().await?;
    fixture.push_file(&cases[0].1)?;
    fixture.make_store("beads").await?;
    fixture.claim("gt-1", "nux").await?;
    for (case, (reason, bytes, text, count)) in cases.iter().enumerate() {
        if case > 0 {
            fixture.push_file(bytes)?;
        }
        let message = fixture.condition("beads", condition::WRITABLE, "False", reason).await?;
        ensure!(message.contains(text) && message.contains("issues.jsonl at "), "{message}");
        fixture.condition("beads", condition::READY, "True", "Ready").await?;
        let what = format!("{count} beads of a file with {reason}");
        let read = |store: Option<&BeadStore>| {
            let status = store?.status.as_ref()?;
            let synced = conditions::find(&status.conditions, condition::SYNCED)?;
            (status.issue_count == *count && status.pending_writes == Some(1))
                .then(|| synced.message.clone())
        };
        let synced = fixture.until("beads", &what, read).await?;
        let is_named = synced.contains("(not read)");
        ensure!(
            is_named == ["MalformedLines", "BadId", "LineTooLong"].contains(reason),
            "{synced}"
        );
        ensure!(repository::head(&fixture.remote(), "beads-sync").is_none(), "{reason}: written");
        let kept = repository::head(&fixture.remote(), "main").context("main")?;
        let file = git(&fixture.remote(), &["rev-parse", &format!("{kept}:.beads/issues.jsonl")])?;
        let ours = git(&fixture.work(), &["hash-object", "--no-filters", ".beads/issues.jsonl"])?;
        ensure!(file == ours, "{reason}: the file is as it was");
    }
    fixture.push(&[&one, &two])?;
    fixture.condition("beads", condition::WRITABLE, "True", "Writable").await?;
    fixture.written("gt-1", "in_progress").await?;
    Ok(())
}

#[tokio::test]
async fn a_file_over_the_bound_is_named_and_the_last_reading_is_served() -> Result<()> {
    let fixture = Fixture::new().await?;
    fixture.make_rig().await?;
    fixture.make_store("beads").await?;
    fixture.condition("beads", condition::READY, "True", "Ready").await?;
    let small = bead("gt-1", "First");
    let mut large = format!("{small}\n").into_bytes();
    // Blank lines of a mebibyte each.
    large.resize(64 << 20, b' ');
    for byte in large.iter_mut().skip(1 << 20).step_by(1 << 20) {
        *byte = b'\n';
    }
    large.push(b'\n');
    fixture.push_file(&large)?;
    for kind in [condition::READY, condition::SYNCED] {
        let message = fixture.condition("beads", kind, "False", "FileTooLarge").await?;
        ensure!(
            message.contains(".beads/issues.jsonl: ") && message.contains("67108864"),
            "{message}"
        );
    }
    let mut polecat = fixture.caller("polecat-ctl").await?;
    let asked = GetBeadsRequest { rig: fixture.rig.clone(), ids: vec!["gt-2".into()] };
    let found = polecat.get(asked).await?.into_inner();
    ensure!(found.beads.len() == 1 && found.beads[0].title == "Second", "{found:?}");
    // The bound itself is no excess.
    large.truncate(64 << 20);
    fixture.push_file(&large)?;
    fixture.condition("beads", condition::SYNCED, "True", "UpToDate").await?;
    fixture.condition("beads", condition::WRITABLE, "True", "Writable").await?;
    Ok(())
}

#[tokio::test]
async fn a_close_outlives_a_person_s_edit_and_a_reopening_outlives_the_landing() -> Result<()> {
    let fixture = Fixture::new().await?;
    fixture.make_rig().await?;
    fixture.make_store("beads").await?;
    fixture.condition("beads", condition::WRITABLE, "True", "Writable").await?;
    fixture.land("gt-1").await?;
    let closed = fixture.written("gt-1", "\"status\":\"closed\"").await?;
    let later = |line: &str| line.replace("updated_at\":\"2026", "updated_at\":\"2996");
    fixture.push(&[&later(&bead("gt-1", "Renamed")), &bead("gt-2", "Second")])?;
    let mut convoy = fixture.caller("convoy-ctl").await?;
    let asked = GetBeadsRequest { rig: fixture.rig.clone(), ids: vec!["gt-1".into()] };
    let mut revisions = convoy.watch(WatchBeadsRequest {}).await?.into_inner();
    let renamed = loop {
        let found = convoy.get(asked.clone()).await?.into_inner().beads.remove(0);
        ensure!(found.status == "closed" && !found.ready, "an edit of the title reopened it");
        if found.title == "Renamed" {
            break found;
        }
        let next = tokio::time::timeout(Duration::from_secs(60), revisions.message()).await;
        next.context("no new revision came")??.context("the stream ended")?;
    };
    let [request] = &renamed.closed_for[..] else { bail!("{renamed:?}") };

    // A person reopens it where it is closed.
    git(&fixture.work(), &["fetch", "-q", "origin", "beads-sync"])?;
    git(&fixture.work(), &["checkout", "-q", "FETCH_HEAD"])?;
    let file = fixture.work().join(".beads/issues.jsonl");
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.contains(&closed), "{text}");
    std::fs::write(&file, text.replace(&closed, &bead("gt-1", "First")))?;
    git(&fixture.work(), &["commit", "-q", "-am", "reopen"])?;
    git(&fixture.work(), &["push", "-q", "origin", "HEAD:refs/heads/beads-sync"])?;
    let reopened = loop {
        let found = convoy.get(asked.clone()).await?.into_inner().beads.remove(0);
        if found.status == "open" {
            break found;
        }
        let next = tokio::time::timeout(Duration::from_secs(60), revisions.message()).await;
        next.context("no new revision came")??.context("the stream ended")?;
    };
    ensure!(reopened.ready && reopened.title == "Renamed", "{reopened:?}");
    ensure!(reopened.closed_for == [request.clone()], "{reopened:?}");
    // Another write comes after the landing was looked at again.
    fixture.claim("gt-2", "slit").await?;
    fixture.written("gt-2", "in_progress").await?;
    let found = convoy.get(asked).await?.into_inner().beads.remove(0);
    ensure!(found.status == "open", "it was closed again for the same request: {found:?}");
    Ok(())
}

#[tokio::test]
async fn stores_that_never_answer_hold_up_no_other_store() -> Result<()> {
    // More than objects are reconciled at a time.
    const SILENT: usize = 12;
    let hole = BlackHole::listen().await?;
    let mut all = Vec::new();
    for n in 1..=SILENT {
        let silent = Fixture::new().await?;
        silent.make_rig().await?;
        let url = format!("https://{}/beads.git", hole.authority(n));
        silent.make_store_at("beads", url).await?;
        all.push(silent);
    }
    hole.connections(SILENT, TIMEOUT).await?;
    let fixture = Fixture::new().await?;
    fixture.make_rig().await?;
    fixture.make_store("beads").await?;
    fixture.condition("beads", condition::READY, "True", "Ready").await?;
    for silent in all {
        silent.stores().delete("beads", &DeleteParams::default()).await?;
    }
    Ok(())
}
