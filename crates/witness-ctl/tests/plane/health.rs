//! Polecats: heard over streams, judged in a condition, counted in the Witness.

use anyhow::{Context as _, Result, ensure};
use gastown_api::names::{condition, reason};
use gastown_api::{Activity, Polecat, Witness, WitnessPhase, conditions};
use gastown_proto::v1::{CommandResult, Heartbeat, command};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::ground::{PATIENCE, Town, healthy, until};

const HOUR: i64 = 3_600_000;

/// A heartbeat of an agent that did something so long ago.
fn heartbeat(town: &Town, ago_ms: i64) -> Heartbeat {
    let now = Timestamp::now().as_millisecond();
    Heartbeat {
        namespace: town.namespace.clone(),
        polecat: "toast".into(),
        rig: town.rig.clone(),
        attempt: 1,
        now_ms: now,
        last_event_ms: now - ago_ms,
        ..Heartbeat::default()
    }
}

/// Until the Witness has looked.
pub async fn ready(town: &Town, name: &str) -> Result<Witness> {
    let seen = |w: Option<&Witness>| {
        w.filter(|w| w.status.as_ref().is_some_and(|s| !s.conditions.is_empty())).cloned()
    };
    until(PATIENCE, &town.api::<Witness>(), name, "a first look", seen).await
}

async fn at_work(town: &Town) -> Result<Pod> {
    let polecat = town.polecat("toast").await?;
    let pod = town.pod("polecat-toast", Some(&polecat)).await?;
    town.status(
        "toast",
        json!({ "phase": "Working", "podName": "polecat-toast", "podActive": true }),
    )
    .await?;
    Ok(pod)
}

async fn verdict(town: &Town, what: &str, want: impl Fn(&Polecat) -> bool) -> Result<Polecat> {
    until(PATIENCE, &town.api::<Polecat>(), "toast", what, |p| p.filter(|p| want(p)).cloned()).await
}

fn says(reason: &'static str) -> impl Fn(&Polecat) -> bool {
    move |p| healthy(p).is_some_and(|c| c.reason == reason)
}

#[tokio::test]
async fn a_wedged_agent_is_nudged_saved_and_given_up_and_one_that_wakes_is_healthy() -> Result<()> {
    let town = Town::new().await?;
    town.witness(&town.namespace, "watch", json!({ "restartAfter": "0s" })).await?;
    let pod = at_work(&town).await?;
    let mut agent = town.agent(&pod).await?;
    let (beats, stream) = mpsc::channel(4);
    beats.send(heartbeat(&town, HOUR)).await?;
    let mut orders = agent.attach(ReceiverStream::new(stream)).await?.into_inner();
    let nudge = orders.message().await?.context("a nudge")?;
    ensure!(matches!(nudge.what, Some(command::What::Nudge(_))), "{nudge:?}");
    let checkpoint = orders.message().await?.context("a checkpoint")?;
    ensure!(
        matches!(checkpoint.what, Some(command::What::Checkpoint(_)))
            && checkpoint.number > nudge.number,
        "{checkpoint:?}"
    );
    let wedged = verdict(&town, "the verdict", says("Wedged")).await?;
    ensure!(wedged.status.as_ref().and_then(|s| s.activity) == Some(Activity::Wedged));
    let saved = CommandResult { number: checkpoint.number, ok: true, message: "wip 0123".into() };
    beats.send(Heartbeat { results: vec![saved], ..heartbeat(&town, HOUR) }).await?;
    let given_up = verdict(&town, "the wish for a restart", says(reason::RESTART_WANTED)).await?;
    let condition = healthy(&given_up).context("Healthy")?;
    let uid = pod.uid().context("a uid")?;
    ensure!(
        condition.status == "False" && condition.message.starts_with(&format!("pod {uid}: ")),
        "{condition:?}"
    );
    ensure!(
        given_up.status.as_ref().and_then(|s| s.phase) == Some(gastown_api::PolecatPhase::Working),
        "polecat-ctl's fields stay"
    );
    let api: Api<Witness> = town.api();
    let witness = until(PATIENCE, &api, "watch", "one stuck", |w| {
        w.filter(|w| {
            w.status
                .as_ref()
                .and_then(|s| s.polecats_summary)
                .is_some_and(|s| s.stuck == 1 && s.running == 1)
        })
        .cloned()
    });
    let status = witness.await?.status.context("a status")?;
    ensure!(status.phase == Some(WitnessPhase::Degraded));
    let ready = conditions::find(&status.conditions, condition::READY).context("Ready")?;
    ensure!(
        ready.reason == "IssuesDetected"
            && ready.message == format!("stuck: {}/toast", town.namespace),
        "{ready:?}"
    );
    beats.send(heartbeat(&town, 0)).await?;
    let awake = verdict(&town, "its recovery", says(reason::HEALTHY)).await?;
    ensure!(awake.status.and_then(|s| s.activity) == Some(Activity::Working));
    town.status(
        "toast",
        json!({ "phase": "Done", "podName": "polecat-toast", "podActive": false }),
    )
    .await?;
    verdict(&town, "the end of all judgement", |p| {
        healthy(p).is_none() && p.status.as_ref().is_some_and(|s| s.activity.is_none())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_newer_stream_of_a_pod_replaces_the_older_one() -> Result<()> {
    let town = Town::new().await?;
    let pod = at_work(&town).await?;
    let mut agent = town.agent(&pod).await?;
    let attach = async |agent: &mut gastown_proto::v1::witness_client::WitnessClient<_>| {
        let (beats, stream) = mpsc::channel(4);
        beats.send(heartbeat(&town, 0)).await?;
        anyhow::Ok((beats, agent.attach(ReceiverStream::new(stream)).await?.into_inner()))
    };
    let (_beats, mut older) = attach(&mut agent).await?;
    let (_more, _newer) = attach(&mut agent).await?;
    ensure!(older.message().await.unwrap_err().code() == tonic::Code::Aborted);
    Ok(())
}

#[tokio::test]
async fn a_pod_attaches_as_the_polecat_that_owns_it_and_as_no_other() -> Result<()> {
    let town = Town::new().await?;
    let pod = at_work(&town).await?;
    let lone = town.pod("lone", None).await?;
    let refused = async |pod: &Pod, beat: Heartbeat| {
        let (beats, stream) = mpsc::channel(4);
        beats.send(beat).await?;
        let answer = town.agent(pod).await?.attach(ReceiverStream::new(stream)).await;
        anyhow::Ok(answer.err().map(|status| status.code()))
    };
    let denied = Some(tonic::Code::PermissionDenied);
    ensure!(refused(&lone, heartbeat(&town, 0)).await? == denied);
    ensure!(
        refused(&pod, Heartbeat { polecat: "other".into(), ..heartbeat(&town, 0) }).await?
            == denied
    );
    ensure!(
        refused(&pod, Heartbeat { rig: "other".into(), ..heartbeat(&town, 0) }).await? == denied
    );
    ensure!(
        refused(&pod, Heartbeat { namespace: "other".into(), ..heartbeat(&town, 0) }).await?
            == denied
    );
    ensure!(refused(&pod, heartbeat(&town, 0)).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_rig_is_counted_and_only_its_oldest_witness_serves() -> Result<()> {
    let town = Town::new().await?;
    town.witness(&town.namespace, "a-first", json!({})).await?;
    let pending = ready(&town, "a-first").await?.status.context("a status")?;
    ensure!(pending.phase == Some(WitnessPhase::Pending) && pending.last_check_time.is_some());
    for (name, phase) in
        [("a", "Working"), ("b", "Done"), ("c", "Stuck"), ("d", "Idle"), ("e", "Stuck")]
    {
        town.polecat(name).await?;
        let degraded = json!([{ "type": "Degraded", "status": "True", "reason": "Failed", "message": "",
                                "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
        let conditions = if name == "e" { degraded } else { json!([]) };
        town.status(name, json!({ "phase": phase, "conditions": conditions })).await?;
    }
    let counts = |w: &Witness| {
        w.status
            .as_ref()
            .and_then(|s| s.polecats_summary)
            .map(|s| (s.total, s.running, s.succeeded, s.failed, s.stuck))
    };
    let api: Api<Witness> = town.api();
    let seen = until(PATIENCE, &api, "a-first", "the counts", |w| {
        w.filter(|w| counts(w) == Some((5, 1, 1, 1, 1))).cloned()
    })
    .await?;
    let status = seen.status.context("a status")?;
    ensure!(
        status.phase == Some(WitnessPhase::Degraded)
            && conditions::is_true(&status.conditions, condition::DEGRADED)
    );
    town.witness(&town.namespace, "b-second", json!({})).await?;
    let second = ready(&town, "b-second").await?.status.context("a status")?;
    // Made within the same second, the name decides.
    let ready = conditions::find(&second.conditions, condition::READY).context("Ready")?;
    ensure!(
        ready.reason == reason::DUPLICATE
            && ready.message.ends_with(&format!("{}/a-first", town.namespace)),
        "{ready:?}"
    );
    Ok(())
}
