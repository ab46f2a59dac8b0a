//! What becomes of requests.

use anyhow::{Context as _, Result, ensure};
use gastown_api::{EscalationPhase, MergePhase, MergeRequestStatus, Polecat, Severity, conditions};
use gastown_cluster::control_plane::{ControlPlane, Options};
use gastown_fakes::kubelet::{Exit, Outcome};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::ground::{Controller, PATIENCE, Town, git, install, until};

fn status(m: &gastown_api::MergeRequest) -> MergeRequestStatus {
    m.status.clone().unwrap_or_default()
}

#[tokio::test]
async fn what_passes_its_gate_lands_as_it_was_tested() -> Result<()> {
    let town = Town::new().await?;
    let polecat = town.polecat("toast").await?;
    let source = town.branch("feature/a", "a", "new\n");
    town.commit("meanwhile", &[("other", "1\n")]);
    town.push("main");
    let request = town.ask("mr-a", "feature/a", &source, Some(&polecat)).await?;
    let pod = town.gate(&[]).await?;
    let testing = town.phase("mr-a", "Testing").await?;
    let candidate = status(&testing).attempts[0].candidate.clone().context("a candidate")?;
    ensure!(town.remote_head("main") != Some(candidate.clone()), "it landed before its gate");
    town.gate_ends(&pod, 0, "").await?;
    let landed = town.phase("mr-a", "Landed").await?;
    ensure!(status(&landed).tested_commit.as_ref() == Some(&candidate), "{landed:?}");
    ensure!(status(&landed).landed_commit == status(&landed).tested_commit);
    ensure!(town.remote_head("main") == Some(candidate));
    let message = git(&town.remote(), &["log", "-1", "--format=%B", "main"]);
    ensure!(
        message.contains(&format!("Gastown-Request: {}", request.uid().unwrap_or_default())),
        "{message}"
    );
    let polecats = Api::<Polecat>::namespaced(town.client.clone(), &town.namespace);
    let merged = polecats.get("toast").await?.status.unwrap_or_default().conditions;
    let merged = conditions::find(&merged, "Merged").context("Merged")?;
    ensure!(
        merged.reason == "MergeComplete"
            && merged.message.starts_with("Branch feature/a merged to main (commit: "),
        "{merged:?}"
    );
    town.no_jobs().await?;
    let refinery = until(PATIENCE, &town.refineries(), "refinery", "an idle refinery", |r| {
        let s = r?.status.clone()?;
        (s.merges_summary?.succeeded == 1
            && s.queue_length == 0
            && format!("{:?}", s.phase?) == "Idle")
            .then_some(s)
    })
    .await?;
    ensure!(refinery.last_landed_commit == status(&landed).landed_commit);
    until(PATIENCE, &town.requests(), "mr-a", "the deleted branch", |_| {
        town.remote_head("feature/a").is_none().then_some(())
    })
    .await
}

#[tokio::test]
async fn a_landed_polecat_says_so_again_when_its_status_was_erased() -> Result<()> {
    let town = Town::new().await?;
    let polecat = town.polecat("toast").await?;
    let source = town.branch("feature/a", "a", "new\n");
    town.ask("mr-a", "feature/a", &source, Some(&polecat)).await?;
    let pod = town.gate(&[]).await?;
    town.gate_ends(&pod, 0, "").await?;
    town.phase("mr-a", "Landed").await?;
    let polecats = Api::<Polecat>::namespaced(town.client.clone(), &town.namespace);
    let merged = async |what| {
        until(PATIENCE, &polecats, "toast", what, |p| {
            conditions::find(&p?.status.as_ref()?.conditions, "Merged")
                .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
        })
        .await
    };
    let first = merged("the condition Merged").await?;
    for _ in 0..2 {
        polecats
            .patch_status("toast", &PatchParams::default(), &Patch::Merge(json!({"status": null})))
            .await?;
        let again = merged("Merged once more").await?;
        ensure!(again == first, "{again:?} instead of {first:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_red_gate_sends_the_request_back_with_the_output() -> Result<()> {
    let town = Town::new().await?;
    let polecat = town.polecat("nux").await?;
    let before = town.remote_head("main");
    let source = town.branch("feature/red", "a", "bad\n");
    town.ask("mr-red", "feature/red", &source, Some(&polecat)).await?;
    let pod = town.gate(&[]).await?;
    town.gate_ends(&pod, 1, "E   assert 1 == 2").await?;
    let again = town.gate(&[pod.name_any()]).await?;
    town.gate_ends(&again, 1, "E   assert 1 == 2").await?;
    let alone = town.gate(&[pod.name_any(), again.name_any()]).await?;
    let testing = status(&town.phase("mr-red", "Testing").await?);
    ensure!(
        testing.attempts.last().and_then(|a| a.candidate.clone()) == before,
        "the target alone is tested: {testing:?}"
    );
    town.gate_ends(&alone, 0, "").await?;
    let back = status(&town.phase("mr-red", "Rework").await?);
    ensure!(back.reason.as_deref() == Some("GateFailed"), "{back:?}");
    let evidence = back.attempts[0].evidence.clone().unwrap_or_default();
    ensure!(
        evidence.contains("E   assert 1 == 2") && evidence.contains("exit code 1"),
        "{evidence}"
    );
    ensure!(town.remote_head("main") == before && town.remote_head("feature/red") == Some(source));
    town.no_jobs().await
}

#[tokio::test]
async fn a_gate_that_fails_once_costs_one_more_run() -> Result<()> {
    let town = Town::new().await?;
    let source = town.branch("feature/flaky", "a", "new\n");
    town.ask("mr-flaky", "feature/flaky", &source, None).await?;
    let pod = town.gate(&[]).await?;
    town.gate_ends(&pod, 1, "by chance").await?;
    let again = town.gate(&[pod.name_any()]).await?;
    town.gate_ends(&again, 0, "").await?;
    let landed = status(&town.phase("mr-flaky", "Landed").await?);
    let results: Vec<_> = landed.attempts.iter().filter_map(|a| a.result.as_deref()).collect();
    ensure!(results == ["Failed", "Passed"], "{landed:?}");
    Ok(())
}

#[tokio::test]
async fn a_broken_target_blames_nobody_is_told_and_its_fix_lands() -> Result<()> {
    let town = Town::new().await?;
    let source = town.branch("feature/a", "a", "new\n");
    town.ask("mr-a", "feature/a", &source, None).await?;
    let pod = town.gate(&[]).await?;
    let alone = town.red(&pod, "no", 1).await?;
    let waits = until(PATIENCE, &town.requests(), "mr-a", "why it waits", |m| {
        let s = m?.status.clone()?;
        (s.reason.as_deref() == Some("TargetBroken")).then_some(s)
    })
    .await?;
    ensure!(waits.phase == Some(MergePhase::Queued), "{waits:?}");
    let healthy = async |status: &'static str| {
        until(PATIENCE, &town.refineries(), "refinery", status, |r| {
            conditions::find(&r?.status.as_ref()?.conditions, "TargetHealthy")
                .filter(|c| c.status == status)
                .cloned()
        })
        .await
    };
    ensure!(healthy("False").await?.reason == "TargetBroken");
    let cause = format!("refinery/{}/refinery/TargetBroken", town.namespace);
    town.escalation(&cause, |e| e.spec.severity == Severity::High).await?;

    let fix = town.branch("feature/fix", "b", "fixed\n");
    town.ask("mr-fix", "feature/fix", &fix, None).await?;
    let mends = town.gate(&[pod.name_any(), alone.name_any()]).await?;
    town.gate_ends(&mends, 0, "").await?;
    town.phase("mr-fix", "Landed").await?;
    let again = town.gate(&[pod.name_any(), alone.name_any(), mends.name_any()]).await?;
    town.gate_ends(&again, 0, "").await?;
    town.phase("mr-a", "Landed").await?;
    ensure!(healthy("True").await?.reason == "GatePassed");
    town.escalation(&cause, |e| {
        e.status.as_ref().and_then(|s| s.phase) == Some(EscalationPhase::Closed)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_conflict_goes_back_without_a_run_and_names_its_paths() -> Result<()> {
    let town = Town::new().await?;
    let source = town.branch("feature/c", "file", "mine\n");
    town.commit("theirs", &[("file", "theirs\n")]);
    town.push("main");
    town.ask("mr-c", "feature/c", &source, None).await?;
    let back = status(&town.phase("mr-c", "Rework").await?);
    ensure!(back.reason.as_deref() == Some("Conflict"));
    ensure!(back.attempts[0].evidence.as_deref().is_some_and(|e| e.contains("  file")), "{back:?}");
    ensure!(back.started_testing_at.is_none(), "a gate ran");
    Ok(())
}

#[tokio::test]
async fn rework_whose_author_is_gone_is_rejected() -> Result<()> {
    let town = Town::new().await?;
    let mut polecat = town.polecat("gone").await?;
    polecat.metadata.uid = Some("of-a-former-polecat".into());
    let source = town.branch("feature/g", "a", "bad\n");
    town.ask("mr-g", "feature/g", &source, Some(&polecat)).await?;
    let pod = town.gate(&[]).await?;
    town.red(&pod, "no", 0).await?;
    let end = status(&town.phase("mr-g", "Rejected").await?);
    ensure!(end.reason.as_deref() == Some("AuthorGone"));
    let cause = format!("mergerequest/{}/mr-g/AuthorGone", town.namespace);
    let told = town.escalation(&cause, |_| true).await?;
    ensure!(told.spec.source == "refinery-ctl" && told.spec.rig_ref == town.rig, "{told:?}");
    // A person has it tried again as it is: the alarm is over.
    let again = Patch::Merge(json!({"spec": {"retry": 1}}));
    town.requests().patch("mr-g", &PatchParams::default(), &again).await?;
    town.escalation(&cause, |e| {
        e.status.as_ref().and_then(|s| s.phase) == Some(EscalationPhase::Closed)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_target_that_a_stranger_moved_between_test_and_push_is_never_overwritten() -> Result<()> {
    let town = Town::new().await?;
    let source = town.branch("feature/s", "a", "new\n");
    town.ask("mr-s", "feature/s", &source, None).await?;
    let first = town.gate(&[]).await?;
    town.kubelet.running(&first).await?;
    let stranger = town.commit("a stranger's", &[("stranger", "1\n")]);
    town.push("main");
    town.gate_ends(&first, 0, "").await?;
    let second = town.gate(&[first.name_any()]).await?;
    ensure!(
        town.remote_head("main").as_deref() == Some(stranger.as_str()),
        "the stranger's commit is gone"
    );
    town.gate_ends(&second, 0, "").await?;
    let landed = status(&town.phase("mr-s", "Landed").await?);
    ensure!(
        landed.tested_commit == landed.landed_commit
            && landed.landed_commit == town.remote_head("main")
    );
    ensure!(git(&town.remote(), &["rev-parse", "main~1"]) == stranger);
    town.no_jobs().await
}

#[tokio::test]
async fn broken_infrastructure_blames_nobody_and_is_tried_again() -> Result<()> {
    let town = Town::new().await?;
    let source = town.branch("feature/i", "a", "new\n");
    town.ask("mr-i", "feature/i", &source, None).await?;
    let first = town.gate(&[]).await?;
    town.kubelet.running(&first).await?;
    town.kubelet.evict(&first).await?;
    let waits = until(PATIENCE, &town.requests(), "mr-i", "the broken run", |m| {
        let s = m?.status.clone()?;
        s.attempts.first().is_some_and(|a| a.result.as_deref() == Some("Broken")).then_some(s)
    })
    .await?;
    ensure!(waits.attempts[0].reason.as_deref() == Some("Infrastructure"), "{waits:?}");
    let second = town.gate(&[first.name_any()]).await?;
    ensure!(
        second.owner_references()[0].name != first.owner_references()[0].name,
        "the same Job again"
    );
    town.kubelet
        .finish(
            &second,
            &Outcome::new().with("fetch", Exit::new(0, "")).with("gate", Exit::out_of_memory()),
        )
        .await?;
    let third = town.gate(&[first.name_any(), second.name_any()]).await?;
    town.gate_ends(&third, 0, "").await?;
    town.phase("mr-i", "Landed").await?;
    Ok(())
}

#[tokio::test]
async fn a_newer_request_of_the_branch_supersedes_the_older() -> Result<()> {
    let town = Town::new().await?;
    let first = town.branch("feature/n", "a", "1\n");
    let blocker = town.branch("feature/blocker", "b", "1\n");
    town.ask("mr-0", "feature/blocker", &blocker, None).await?;
    let pod = town.gate(&[]).await?;
    town.ask("mr-1", "feature/n", &first, None).await?;
    town.checkout("feature/n", "feature/n");
    let second = town.commit("more", &[("a", "2\n")]);
    town.push("feature/n");
    // Creation times are whole seconds: of two in one second the attempt decides.
    let mut newer = town.requests().get("mr-1").await?.spec;
    (newer.commit, newer.attempt) = (second, 2);
    town.requests()
        .create(&kube::api::PostParams::default(), &gastown_api::MergeRequest::new("mr-2", newer))
        .await?;
    town.phase("mr-1", "Superseded").await?;
    town.gate_ends(&pod, 0, "").await?;
    town.phase("mr-0", "Landed").await?;
    let pod = town.gate(&[pod.name_any()]).await?;
    town.gate_ends(&pod, 0, "").await?;
    town.phase("mr-2", "Landed").await?;
    Ok(())
}

/// All statuses gone, the process and its mirrors too; of the landed one even the annotation.
#[tokio::test(flavor = "multi_thread")]
async fn without_statuses_nothing_runs_twice_and_phases_come_back() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    install(&plane).await?;
    let controller = Controller::start(&plane).await?;
    let town = Town::on(&plane).await?;
    town.refinery(Some("test")).await?;
    let (good, bad) =
        (town.branch("feature/good", "a", "1\n"), town.branch("feature/bad", "b", "1\n"));
    town.commit("meanwhile", &[("other", "1\n")]);
    town.push("main");
    town.ask("good", "feature/good", &good, None).await?;
    let pod = town.gate(&[]).await?;
    town.gate_ends(&pod, 0, "").await?;
    town.phase("good", "Landed").await?;
    until(PATIENCE, &town.requests(), "good", "the deleted branch", |_| {
        town.remote_head("feature/good").is_none().then_some(())
    })
    .await?;
    town.ask("bad", "feature/bad", &bad, None).await?;
    let pod = town.gate(&[pod.name_any()]).await?;
    town.red(&pod, "no", 0).await?;
    town.phase("bad", "Rework").await?;
    town.no_jobs().await?;
    controller.stop().await;
    let main = town.remote_head("main");

    for name in ["good", "bad"] {
        let mut object = town.requests().get(name).await?;
        object.status = Some(MergeRequestStatus::default());
        town.requests().replace_status(name, &kube::api::PostParams::default(), &object).await?;
    }
    let forget = json!({"metadata": {"annotations": {"gastown.io/verdicts": null}}});
    town.requests().patch("good", &PatchParams::default(), &Patch::Merge(&forget)).await?;
    let mut refinery = town.refineries().get("refinery").await?;
    refinery.status = None;
    town.refineries()
        .replace_status("refinery", &kube::api::PostParams::default(), &refinery)
        .await?;
    let seen = town.jobs().list(&kube::api::ListParams::default()).await?.metadata.resource_version;

    let controller = Controller::start(&plane).await?;
    let landed = status(&town.phase("good", "Landed").await?);
    ensure!(landed.landed_commit == main, "{landed:?}");
    town.phase("bad", "Rework").await?;
    until(PATIENCE, &town.refineries(), "refinery", "its status", |r| r?.status.as_ref()?.phase)
        .await?;
    // A Job made meanwhile would show in a watch from before.
    let params = kube::api::WatchParams { timeout: Some(2), ..kube::api::WatchParams::default() };
    let mut events = Box::pin(town.jobs().watch(&params, &seen.unwrap_or_default()).await?);
    while let Some(event) = futures::StreamExt::next(&mut events).await {
        ensure!(!matches!(event?, kube::api::WatchEvent::Added(_)), "a gate ran again");
    }
    ensure!(town.remote_head("main") == main);
    controller.stop().await;
    Ok(())
}
