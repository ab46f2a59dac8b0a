//! Faults of the remote, from which a Refinery recovers by itself.

use anyhow::{Result, ensure};
use gastown_api::MergeRequest;
use gastown_fakes::git_http::GitHttp;

use crate::fixture::{Fixture, TIMEOUT, git, shared, until};

/// Whether a request waits for this reason.
fn waits(reason: &'static str) -> impl Fn(Option<&MergeRequest>) -> Option<String> {
    move |request| {
        let status = request?.status.clone()?;
        let ready = gastown_api::conditions::find(&status.conditions, "Ready")?;
        (ready.reason == reason).then(|| ready.message.clone())
    }
}

#[tokio::test]
async fn a_target_that_is_locked_at_the_remote_is_landed_on_when_the_lock_goes() -> Result<()> {
    let fixture = Fixture::new().await?;
    let source = fixture.branch("feature/a", "a", "new\n");
    fixture.submit("mr-a", "feature/a", &source, None).await?;
    let pod = fixture.gate(&[]).await?;
    let before = fixture.remote_head("main");
    let lock = fixture.remote().join("refs/heads/main.lock");
    std::fs::write(&lock, "")?;
    fixture.gate_ends(&pod, 0, "").await?;
    let why =
        until(TIMEOUT, &fixture.requests(), "mr-a", "the refusal", waits("PushRejected")).await?;
    ensure!(why.contains("Locked") && fixture.remote_head("main") == before, "{why}");
    std::fs::remove_file(&lock)?;
    let landed = fixture.phase("mr-a", "Landed").await?.status.unwrap_or_default();
    ensure!(landed.landed_commit == landed.tested_commit, "{landed:?}");
    ensure!(fixture.remote_head("main") == landed.landed_commit);
    Ok(())
}

#[tokio::test]
async fn a_branch_that_goes_between_its_listing_and_its_fetch_keeps_no_other_from_landing()
-> Result<()> {
    let (plane, _) = shared().await?;
    let fixture = Fixture::without_rig(plane).await?;
    let server = GitHttp::start(fixture.dir.path()).await?;
    fixture.make_rig(&server.repository("remote")).await?;
    let (going, staying) =
        (fixture.branch("feature/going", "a", "1\n"), fixture.branch("feature/a", "b", "1\n"));
    fixture.submit("mr-going", "feature/going", &going, None).await?;
    fixture.submit("mr-a", "feature/a", &staying, None).await?;
    // The first session lists the branches, the second one fetches them.
    let remote = fixture.remote();
    server.before_session(2, move || {
        git(&remote, &["update-ref", "-d", "refs/heads/feature/going"]);
    });
    fixture.refinery(None).await?;
    fixture.phase("mr-a", "Landed").await?;
    let gone = waits("SourceCommitMissing");
    until(TIMEOUT, &fixture.requests(), "mr-going", "why it waits", gone).await?;
    fixture.push("feature/going");
    fixture.phase("mr-going", "Landed").await?;
    Ok(())
}
