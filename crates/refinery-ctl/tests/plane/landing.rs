//! How requests end.

use anyhow::{Context as _, Result, ensure};
use gastown_api::{
    EscalationPhase, MergePhase, MergeRequest, MergeRequestStatus, Polecat, Rig, Severity,
    conditions,
};
use gastown_cluster::control_plane::{ControlPlane, Options};
use gastown_fakes::kubelet::{Exit, Outcome};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::fixture::{Controller, Fixture, TIMEOUT, git, install, until};

fn status(m: &MergeRequest) -> MergeRequestStatus {
    m.status.clone().unwrap_or_default()
}

#[tokio::test]
async fn what_passes_its_gate_lands_as_it_was_tested() -> Result<()> {
    let fixture = Fixture::new().await?;
    let polecat = fixture.polecat("toast").await?;
    let source = fixture.branch("feature/a", "a", "new\n");
    fixture.commit("meanwhile", &[("other", "1\n")]);
    fixture.push("main");
    let request = fixture.submit("mr-a", "feature/a", &source, Some(&polecat)).await?;
    let pod = fixture.gate(&[]).await?;
    let testing = fixture.phase("mr-a", "Testing").await?;
    let candidate = status(&testing).attempts[0].candidate.clone().context("a candidate")?;
    ensure!(fixture.remote_head("main") != Some(candidate.clone()), "it landed before its gate");
    fixture.gate_ends(&pod, 0, "").await?;
    let landed = fixture.phase("mr-a", "Landed").await?;
    ensure!(status(&landed).tested_commit.as_ref() == Some(&candidate), "{landed:?}");
    ensure!(status(&landed).landed_commit == status(&landed).tested_commit);
    ensure!(fixture.remote_head("main") == Some(candidate));
    let message = git(&fixture.remote(), &["log", "-1", "--format=%B", "main"]);
    ensure!(
        message.contains(&format!("Gastown-Request: {}", request.uid().unwrap_or_default())),
        "{message}"
    );
    let polecats = Api::<Polecat>::namespaced(fixture.client.clone(), &fixture.namespace);
    let merged = polecats.get("toast").await?.status.unwrap_or_default().conditions;
    let merged = conditions::find(&merged, "Merged").context("Merged")?;
    ensure!(
        merged.reason == "MergeComplete"
            && merged.message.starts_with("Branch feature/a merged to main (commit: "),
        "{merged:?}"
    );
    fixture.no_jobs().await?;
    let refinery = until(TIMEOUT, &fixture.refineries(), "refinery", "an idle refinery", |r| {
        let s = r?.status.clone()?;
        (s.merges_summary?.succeeded == 1
            && s.queue_length == 0
            && format!("{:?}", s.phase?) == "Idle")
            .then_some(s)
    })
    .await?;
    ensure!(refinery.last_landed_commit == status(&landed).landed_commit);
    until(TIMEOUT, &fixture.requests(), "mr-a", "the deleted branch", |_| {
        fixture.remote_head("feature/a").is_none().then_some(())
    })
    .await
}

#[tokio::test]
async fn what_was_saved_beside_landed_work_goes_when_the_rig_does_not_keep_it_any_longer()
-> Result<()> {
    let fixture = Fixture::new().await?;
    let polecat = fixture.polecat("toast").await?;
    let source = fixture.branch("feature/a", "a", "new\n");
    let folder = format!("refs/gastown/wip/{}", fixture.namespace);
    let [kept, moved, foreign] =
        ["toast/1", "toast/2", "nux/1"].map(|name| format!("{folder}/{name}"));
    for name in [&kept, &moved, &foreign] {
        git(&fixture.remote(), &["update-ref", name, &source]);
    }
    let saved = [&kept, &moved, &foreign].map(|name| json!({"ref": name, "commit": source}));
    let polecats = Api::<Polecat>::namespaced(fixture.client.clone(), &fixture.namespace);
    let status = json!({"status": {"saved": saved}});
    polecats.patch_status("toast", &PatchParams::default(), &Patch::Merge(status)).await?;
    fixture.submit("mr-a", "feature/a", &source, Some(&polecat)).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    until(TIMEOUT, &fixture.requests(), "mr-a", "the refs to be recorded", |request| {
        let record = request?.annotations().get("gastown.io/request-record")?;
        (record.contains(&kept) && !record.contains(&foreign)).then_some(())
    })
    .await?;
    let refs =
        || git(&fixture.remote(), &["for-each-ref", "--format=%(refname)", "refs/gastown/wip"]);
    ensure!(refs().lines().count() == 3, "they are kept for a week: {}", refs());

    // Another Polecat of this name has saved something since.
    let other = git(&fixture.remote(), &["rev-parse", "main~1"]);
    git(&fixture.remote(), &["update-ref", &moved, other.trim()]);
    let rigs = Api::<Rig>::all(fixture.client.clone());
    let short = json!({"spec": {"settings": {"wipRetention": "1s"}}});
    rigs.patch(&fixture.rig, &PatchParams::default(), &Patch::Merge(short)).await?;
    until(TIMEOUT, &fixture.requests(), "mr-a", "the refs to be deleted", |request| {
        let record = request?.annotations().get("gastown.io/request-record")?;
        (!record.contains(&kept)).then_some(())
    })
    .await?;
    ensure!(refs().lines().eq([foreign.as_str(), moved.as_str()]), "{}", refs());
    Ok(())
}

#[tokio::test]
async fn the_condition_merged_comes_back_when_a_status_was_erased() -> Result<()> {
    let fixture = Fixture::new().await?;
    let polecat = fixture.polecat("toast").await?;
    let source = fixture.branch("feature/a", "a", "new\n");
    fixture.submit("mr-a", "feature/a", &source, Some(&polecat)).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("mr-a", "Landed").await?;
    let polecats = Api::<Polecat>::namespaced(fixture.client.clone(), &fixture.namespace);
    let merged = async |what| {
        until(TIMEOUT, &polecats, "toast", what, |p| {
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
async fn a_failed_gate_sends_the_request_back_with_the_output() -> Result<()> {
    let fixture = Fixture::new().await?;
    let polecat = fixture.polecat("nux").await?;
    let before = fixture.remote_head("main");
    let source = fixture.branch("feature/red", "a", "bad\n");
    fixture.submit("mr-red", "feature/red", &source, Some(&polecat)).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 1, "E   assert 1 == 2").await?;
    let again = fixture.gate(&[pod.name_any()]).await?;
    fixture.gate_ends(&again, 1, "E   assert 1 == 2").await?;
    let alone = fixture.gate(&[pod.name_any(), again.name_any()]).await?;
    // The target alone is tested; which run it is is a detail that may be shown some seconds later.
    let is_of_target = |request: Option<&MergeRequest>| {
        let request = request?;
        let last = request.status.as_ref()?.attempts.last()?;
        (last.candidate == before).then(|| request.clone())
    };
    until(TIMEOUT, &fixture.requests(), "mr-red", "a run of the target", is_of_target).await?;
    fixture.gate_ends(&alone, 0, "").await?;
    let back = status(&fixture.phase("mr-red", "Rework").await?);
    ensure!(back.reason.as_deref() == Some("GateFailed"), "{back:?}");
    let evidence = back.attempts[0].evidence.clone().unwrap_or_default();
    ensure!(
        evidence.contains("E   assert 1 == 2") && evidence.contains("exit code 1"),
        "{evidence}"
    );
    ensure!(
        fixture.remote_head("main") == before && fixture.remote_head("feature/red") == Some(source)
    );
    fixture.no_jobs().await
}

#[tokio::test]
async fn a_gate_that_fails_once_costs_one_more_run() -> Result<()> {
    let fixture = Fixture::new().await?;
    let source = fixture.branch("feature/flaky", "a", "new\n");
    fixture.submit("mr-flaky", "feature/flaky", &source, None).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 1, "by chance").await?;
    let again = fixture.gate(&[pod.name_any()]).await?;
    fixture.gate_ends(&again, 0, "").await?;
    let landed = status(&fixture.phase("mr-flaky", "Landed").await?);
    let results: Vec<_> = landed.attempts.iter().filter_map(|a| a.result.as_deref()).collect();
    ensure!(results == ["Failed", "Passed"], "{landed:?}");
    Ok(())
}

#[tokio::test]
async fn a_broken_target_blames_nobody_is_escalated_and_its_fix_lands() -> Result<()> {
    let fixture = Fixture::new().await?;
    let source = fixture.branch("feature/a", "a", "new\n");
    fixture.submit("mr-a", "feature/a", &source, None).await?;
    let pod = fixture.gate(&[]).await?;
    let alone = fixture.fail_gate(&pod, "no", 1).await?;
    let waits = until(TIMEOUT, &fixture.requests(), "mr-a", "why it waits", |m| {
        let s = m?.status.clone()?;
        (s.reason.as_deref() == Some("TargetBroken")).then_some(s)
    })
    .await?;
    ensure!(waits.phase == Some(MergePhase::Queued), "{waits:?}");
    let healthy = async |status: &'static str| {
        until(TIMEOUT, &fixture.refineries(), "refinery", status, |r| {
            conditions::find(&r?.status.as_ref()?.conditions, "TargetHealthy")
                .filter(|c| c.status == status)
                .cloned()
        })
        .await
    };
    ensure!(healthy("False").await?.reason == "TargetBroken");
    let cause = format!("refinery/{}/refinery/TargetBroken", fixture.namespace);
    fixture.escalation(&cause, |e| e.spec.severity == Severity::High).await?;

    let fix = fixture.branch("feature/fix", "b", "fixed\n");
    fixture.submit("mr-fix", "feature/fix", &fix, None).await?;
    let mends = fixture.gate(&[pod.name_any(), alone.name_any()]).await?;
    fixture.gate_ends(&mends, 0, "").await?;
    fixture.phase("mr-fix", "Landed").await?;
    let again = fixture.gate(&[pod.name_any(), alone.name_any(), mends.name_any()]).await?;
    fixture.gate_ends(&again, 0, "").await?;
    fixture.phase("mr-a", "Landed").await?;
    ensure!(healthy("True").await?.reason == "GatePassed");
    fixture
        .escalation(&cause, |e| {
            e.status.as_ref().and_then(|s| s.phase) == Some(EscalationPhase::Closed)
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_conflict_goes_back_without_a_run_and_names_its_paths() -> Result<()> {
    let fixture = Fixture::new().await?;
    let source = fixture.branch("feature/c", "file", "mine\n");
    fixture.commit("theirs", &[("file", "theirs\n")]);
    fixture.push("main");
    fixture.submit("mr-c", "feature/c", &source, None).await?;
    let back = status(&fixture.phase("mr-c", "Rework").await?);
    ensure!(back.reason.as_deref() == Some("Conflict"));
    ensure!(back.attempts[0].evidence.as_deref().is_some_and(|e| e.contains("  file")), "{back:?}");
    ensure!(back.started_testing_at.is_none(), "a gate ran");
    Ok(())
}

#[tokio::test]
async fn rework_without_an_author_is_rejected_and_escalated() -> Result<()> {
    let fixture = Fixture::new().await?;
    let mut polecat = fixture.polecat("gone").await?;
    polecat.metadata.uid = Some("of-a-former-polecat".into());
    let source = fixture.branch("feature/g", "a", "bad\n");
    fixture.submit("mr-g", "feature/g", &source, Some(&polecat)).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.fail_gate(&pod, "no", 0).await?;
    let end = status(&fixture.phase("mr-g", "Rejected").await?);
    ensure!(end.reason.as_deref() == Some("AuthorGone"));
    let cause = format!("mergerequest/{}/mr-g/AuthorGone", fixture.namespace);
    let raised = fixture.escalation(&cause, |_| true).await?;
    ensure!(
        raised.spec.source == "refinery-ctl" && raised.spec.rig_ref == fixture.rig,
        "{raised:?}"
    );
    // A person has it tried again as it is, which settles the Escalation.
    let again = Patch::Merge(json!({"spec": {"retry": 1}}));
    fixture.requests().patch("mr-g", &PatchParams::default(), &again).await?;
    fixture
        .escalation(&cause, |e| {
            e.status.as_ref().and_then(|s| s.phase) == Some(EscalationPhase::Closed)
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_target_that_moved_between_test_and_push_is_never_overwritten() -> Result<()> {
    let fixture = Fixture::new().await?;
    let source = fixture.branch("feature/s", "a", "new\n");
    fixture.submit("mr-s", "feature/s", &source, None).await?;
    let first = fixture.gate(&[]).await?;
    fixture.kubelet.running(&first).await?;
    let other = fixture.commit("somebody else's", &[("other", "1\n")]);
    fixture.push("main");
    fixture.gate_ends(&first, 0, "").await?;
    let second = fixture.gate(&[first.name_any()]).await?;
    ensure!(
        fixture.remote_head("main").as_deref() == Some(other.as_str()),
        "the other commit was overwritten"
    );
    fixture.gate_ends(&second, 0, "").await?;
    let landed = status(&fixture.phase("mr-s", "Landed").await?);
    ensure!(
        landed.tested_commit == landed.landed_commit
            && landed.landed_commit == fixture.remote_head("main")
    );
    ensure!(git(&fixture.remote(), &["rev-parse", "main~1"]) == other);
    fixture.no_jobs().await
}

#[tokio::test]
async fn a_run_that_infrastructure_broke_blames_nobody_and_is_repeated() -> Result<()> {
    let fixture = Fixture::new().await?;
    let source = fixture.branch("feature/i", "a", "new\n");
    fixture.submit("mr-i", "feature/i", &source, None).await?;
    let first = fixture.gate(&[]).await?;
    fixture.kubelet.running(&first).await?;
    fixture.kubelet.evict(&first).await?;
    let waits = until(TIMEOUT, &fixture.requests(), "mr-i", "the broken run", |m| {
        let s = m?.status.clone()?;
        s.attempts.first().is_some_and(|a| a.result.as_deref() == Some("Broken")).then_some(s)
    })
    .await?;
    ensure!(waits.attempts[0].reason.as_deref() == Some("Infrastructure"), "{waits:?}");
    let second = fixture.gate(&[first.name_any()]).await?;
    ensure!(
        second.owner_references()[0].name != first.owner_references()[0].name,
        "the same Job again"
    );
    fixture
        .kubelet
        .finish(
            &second,
            &Outcome::new().with("fetch", Exit::new(0, "")).with("gate", Exit::out_of_memory()),
        )
        .await?;
    let third = fixture.gate(&[first.name_any(), second.name_any()]).await?;
    fixture.gate_ends(&third, 0, "").await?;
    fixture.phase("mr-i", "Landed").await?;
    Ok(())
}

#[tokio::test]
async fn a_newer_request_of_the_author_supersedes_the_older() -> Result<()> {
    let fixture = Fixture::new().await?;
    let polecat = fixture.polecat("nux").await?;
    let first = fixture.branch("feature/n", "a", "1\n");
    let blocker = fixture.branch("feature/blocker", "b", "1\n");
    fixture.submit("mr-0", "feature/blocker", &blocker, None).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.submit("mr-1", "feature/n", &first, Some(&polecat)).await?;
    fixture.checkout("feature/n", "feature/n");
    let second = fixture.commit("more", &[("a", "2\n")]);
    fixture.push("feature/n");
    // Creation times are whole seconds: of two in one second the attempt decides.
    let mut newer = fixture.requests().get("mr-1").await?.spec;
    (newer.commit, newer.attempt) = (second, 2);
    fixture
        .requests()
        .create(&kube::api::PostParams::default(), &gastown_api::MergeRequest::new("mr-2", newer))
        .await?;
    fixture.phase("mr-1", "Superseded").await?;
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("mr-0", "Landed").await?;
    let pod = fixture.gate(&[pod.name_any()]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("mr-2", "Landed").await?;
    Ok(())
}

/// The page of metrics after one landing and one request that was sent back.
fn are_counted(
    controller: &Controller,
    fixture: &Fixture,
    sent_back: &MergeRequestStatus,
) -> Result<()> {
    let text = controller.runtime.metrics.encode()?;
    let page = gastown_metrics::page::read(&text).map_err(anyhow::Error::msg)?;
    let differences = page.differences("refinery-ctl");
    ensure!(differences.is_empty(), "{differences:?}");
    let value = |series: &str, labels: &[(&str, &str)]| {
        let labels = [&[("rig", fixture.rig.as_str())], labels].concat();
        page.value(series, &labels)
    };
    for (series, labels, expected) in [
        ("gastown_refinery_merge_total", &[("result", "success")][..], 1.0),
        ("gastown_refinery_merge_total", &[("result", "error")], 1.0),
        ("gastown_refinery_ended_total", &[("phase", "Rework"), ("reason", "GateFailed")], 1.0),
        ("vcs_change_time_to_merge_seconds_count", &[], 1.0),
        ("gastown_refinery_untested_landings_total", &[], 0.0),
        ("gastown_refinery_landed_mismatches_total", &[], 0.0),
        ("gastown_refinery_queue_length", &[], 0.0),
    ] {
        ensure!(value(series, labels) == Some(expected), "{series} {labels:?}:\n{text}");
    }
    let runs = |result| {
        let labels = [("cicd_pipeline_run_state", "executing"), ("cicd_pipeline_result", result)];
        value("cicd_pipeline_run_duration_seconds_count", &labels)
    };
    ensure!(runs("success") >= Some(1.0) && runs("failure") >= Some(1.0), "{text}");
    let trace = sent_back.trace_id.as_deref().context("a trace")?;
    ensure!(text.contains(&format!("# {{trace_id=\"{trace}\"}}")), "{text}");
    Ok(())
}

/// Erases all statuses, the process and its mirrors, and even the annotation of the landed request.
#[tokio::test(flavor = "multi_thread")]
async fn without_statuses_nothing_runs_twice_and_phases_come_back() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    install(&plane).await?;
    let controller = Controller::start(&plane).await?;
    let fixture = Fixture::on(&plane).await?;
    fixture.refinery(Some("test")).await?;
    let (good, bad) =
        (fixture.branch("feature/good", "a", "1\n"), fixture.branch("feature/bad", "b", "1\n"));
    fixture.commit("meanwhile", &[("other", "1\n")]);
    fixture.push("main");
    fixture.submit("good", "feature/good", &good, None).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("good", "Landed").await?;
    until(TIMEOUT, &fixture.requests(), "good", "the deleted branch", |_| {
        fixture.remote_head("feature/good").is_none().then_some(())
    })
    .await?;
    fixture.submit("bad", "feature/bad", &bad, None).await?;
    let pod = fixture.gate(&[pod.name_any()]).await?;
    fixture.fail_gate(&pod, "no", 0).await?;
    let sent_back = fixture.phase("bad", "Rework").await?;
    fixture.no_jobs().await?;
    are_counted(&controller, &fixture, &status(&sent_back))?;
    controller.stop().await;
    let main = fixture.remote_head("main");

    for name in ["good", "bad"] {
        let mut object = fixture.requests().get(name).await?;
        object.status = Some(MergeRequestStatus::default());
        fixture.requests().replace_status(name, &kube::api::PostParams::default(), &object).await?;
    }
    let forget = json!({"metadata": {"annotations": {"gastown.io/request-record": null}}});
    fixture.requests().patch("good", &PatchParams::default(), &Patch::Merge(&forget)).await?;
    let mut refinery = fixture.refineries().get("refinery").await?;
    refinery.status = None;
    fixture
        .refineries()
        .replace_status("refinery", &kube::api::PostParams::default(), &refinery)
        .await?;
    let seen =
        fixture.jobs().list(&kube::api::ListParams::default()).await?.metadata.resource_version;

    let controller = Controller::start(&plane).await?;
    let landed = status(&fixture.phase("good", "Landed").await?);
    ensure!(landed.landed_commit == main, "{landed:?}");
    fixture.phase("bad", "Rework").await?;
    until(TIMEOUT, &fixture.refineries(), "refinery", "its status", |r| r?.status.as_ref()?.phase)
        .await?;
    // A watch from before shows a Job that was created meanwhile.
    let params = kube::api::WatchParams { timeout: Some(2), ..kube::api::WatchParams::default() };
    let mut events = Box::pin(fixture.jobs().watch(&params, &seen.unwrap_or_default()).await?);
    while let Some(event) = futures::StreamExt::next(&mut events).await {
        ensure!(!matches!(event?, kube::api::WatchEvent::Added(_)), "a gate ran again");
    }
    ensure!(fixture.remote_head("main") == main);
    controller.stop().await;
    Ok(())
}

#[tokio::test]
async fn changes_that_the_target_has_already_land_as_its_tip() -> Result<()> {
    let fixture = Fixture::new().await?;
    let source = fixture.branch("feature/same", "a", "same\n");
    // Somebody makes the same change on main, as a commit of their own.
    let tip = fixture.commit("the same by hand", &[("a", "same\n")]);
    fixture.push("main");
    fixture.submit("mr-same", "feature/same", &source, None).await?;
    let landed = status(&fixture.phase("mr-same", "Landed").await?);
    ensure!(landed.reason.as_deref() == Some("AlreadyInTarget"), "{landed:?}");
    ensure!(
        landed.landed_commit.as_ref() == Some(&tip) && landed.tested_commit.is_none(),
        "its bead is closed with the tip that was compared: {landed:?}"
    );
    ensure!(fixture.remote_head("main") == Some(tip), "nothing was pushed");
    fixture.no_jobs().await?;
    Ok(())
}
