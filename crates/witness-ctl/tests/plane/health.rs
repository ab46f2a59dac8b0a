//! Polecats: heartbeats over streams, an assessment in a condition, counts in the Witness.

use anyhow::{Context as _, Result, ensure};
use gastown_api::names::{condition, reason};
use gastown_api::{Activity, Polecat, Witness, WitnessPhase, conditions};
use gastown_proto::v1::{Heartbeat, command};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::fixture::{Fixture, TIMEOUT, healthy, until};
use crate::golden;

pub const HOUR: i64 = 3_600_000;

/// The first heartbeat of a stream, of an agent whose last event was that long ago.
pub fn heartbeat(fixture: &Fixture, ago_ms: i64) -> Result<Heartbeat> {
    let now = Timestamp::now().as_millisecond();
    Ok(Heartbeat {
        namespace: fixture.namespace.clone(),
        rig: fixture.rig.clone(),
        last_event_ms: now - ago_ms,
        ..golden::heartbeat("heartbeat-first", now)?
    })
}

/// Waits until a Witness has made its first pass.
pub async fn ready(fixture: &Fixture, name: &str) -> Result<Witness> {
    let seen = |w: Option<&Witness>| {
        w.filter(|w| w.status.as_ref().is_some_and(|s| !s.conditions.is_empty())).cloned()
    };
    until(TIMEOUT, &fixture.api::<Witness>(), name, "a first pass", seen).await
}

async fn at_work(fixture: &Fixture) -> Result<Pod> {
    let polecat = fixture.polecat("toast").await?;
    let pod = fixture.pod("polecat-toast", Some(&polecat)).await?;
    fixture
        .status(
            "toast",
            json!({ "phase": "Working", "podName": "polecat-toast", "podActive": true }),
        )
        .await?;
    Ok(pod)
}

async fn polecat(
    fixture: &Fixture,
    what: &str,
    want: impl Fn(&Polecat) -> bool,
) -> Result<Polecat> {
    until(TIMEOUT, &fixture.api::<Polecat>(), "toast", what, |p| p.filter(|p| want(p)).cloned())
        .await
}

fn has_reason(reason: &'static str) -> impl Fn(&Polecat) -> bool {
    move |p| healthy(p).is_some_and(|c| c.reason == reason)
}

#[tokio::test]
async fn a_wedged_agent_is_nudged_saved_and_restarted_and_one_that_wakes_is_healthy() -> Result<()>
{
    let fixture = Fixture::new().await?;
    fixture.witness(&fixture.namespace, "watch", json!({ "restartAfter": "0s" })).await?;
    let pod = at_work(&fixture).await?;
    let mut agent = fixture.agent(&pod).await?;
    let (beats, stream) = mpsc::channel(4);
    beats.send(heartbeat(&fixture, HOUR)?).await?;
    let mut commands = agent.attach(ReceiverStream::new(stream)).await?.into_inner();
    let nudge = commands.message().await?.context("a nudge")?;
    ensure!(matches!(nudge.what, Some(command::What::Nudge(_))), "{nudge:?}");
    let checkpoint = commands.message().await?.context("a checkpoint")?;
    ensure!(
        matches!(checkpoint.what, Some(command::What::Checkpoint(_)))
            && checkpoint.number > nudge.number,
        "{checkpoint:?}"
    );
    let wedged = polecat(&fixture, "its assessment", has_reason("Wedged")).await?;
    ensure!(wedged.status.as_ref().and_then(|s| s.activity) == Some(Activity::Wedged));
    let mut saved = golden::heartbeat("heartbeat-checkpoint", 0)?.results.remove(0);
    saved.number = checkpoint.number;
    beats.send(Heartbeat { results: vec![saved], ..heartbeat(&fixture, HOUR)? }).await?;
    let restart =
        polecat(&fixture, "the request for a restart", has_reason(reason::RESTART_WANTED)).await?;
    let condition = healthy(&restart).context("Healthy")?;
    let uid = pod.uid().context("a uid")?;
    ensure!(
        condition.status == "False" && condition.message.starts_with(&format!("pod {uid}: ")),
        "{condition:?}"
    );
    ensure!(
        restart.status.as_ref().and_then(|s| s.phase) == Some(gastown_api::PolecatPhase::Working),
        "polecat-ctl's fields stay"
    );
    let api: Api<Witness> = fixture.api();
    let witness = until(TIMEOUT, &api, "watch", "one stuck", |w| {
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
            && ready.message == format!("stuck: {}/toast", fixture.namespace),
        "{ready:?}"
    );
    beats.send(heartbeat(&fixture, 0)?).await?;
    let awake = polecat(&fixture, "its recovery", has_reason(reason::HEALTHY)).await?;
    ensure!(awake.status.and_then(|s| s.activity) == Some(Activity::Working));
    fixture
        .status("toast", json!({ "phase": "Done", "podName": "polecat-toast", "podActive": false }))
        .await?;
    polecat(&fixture, "no assessment any more", |p| {
        healthy(p).is_none() && p.status.as_ref().is_some_and(|s| s.activity.is_none())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_newer_stream_of_a_pod_replaces_the_older_one() -> Result<()> {
    let fixture = Fixture::new().await?;
    let pod = at_work(&fixture).await?;
    let mut agent = fixture.agent(&pod).await?;
    let attach = async |agent: &mut gastown_proto::v1::witness_client::WitnessClient<_>| {
        let (beats, stream) = mpsc::channel(4);
        beats.send(heartbeat(&fixture, 0)?).await?;
        anyhow::Ok((beats, agent.attach(ReceiverStream::new(stream)).await?.into_inner()))
    };
    let (_beats, mut older) = attach(&mut agent).await?;
    let (_more, _newer) = attach(&mut agent).await?;
    ensure!(older.message().await.unwrap_err().code() == tonic::Code::Aborted);
    Ok(())
}

#[tokio::test]
async fn a_pod_attaches_only_as_the_polecat_that_owns_it() -> Result<()> {
    let fixture = Fixture::new().await?;
    let pod = at_work(&fixture).await?;
    let lone = fixture.pod("lone", None).await?;
    let refused = async |pod: &Pod, beat: Heartbeat| {
        let (beats, stream) = mpsc::channel(4);
        beats.send(beat).await?;
        let answer = fixture.agent(pod).await?.attach(ReceiverStream::new(stream)).await;
        anyhow::Ok(answer.err().map(|status| status.code()))
    };
    let denied = Some(tonic::Code::PermissionDenied);
    ensure!(refused(&lone, heartbeat(&fixture, 0)?).await? == denied);
    ensure!(
        refused(&pod, Heartbeat { polecat: "other".into(), ..heartbeat(&fixture, 0)? }).await?
            == denied
    );
    ensure!(
        refused(&pod, Heartbeat { rig: "other".into(), ..heartbeat(&fixture, 0)? }).await?
            == denied
    );
    ensure!(
        refused(&pod, Heartbeat { namespace: "other".into(), ..heartbeat(&fixture, 0)? }).await?
            == denied
    );
    ensure!(refused(&pod, heartbeat(&fixture, 0)?).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn why_work_is_not_on_the_remote_is_a_condition_until_it_is() -> Result<()> {
    let fixture = Fixture::new().await?;
    fixture.witness(&fixture.namespace, "watch", json!({})).await?;
    let pod = at_work(&fixture).await?;
    let (beats, beating) = mpsc::channel(8);
    beats.send(heartbeat(&fixture, 0)?).await?;
    let mut client = fixture.agent(&pod).await?;
    let _commands = client.attach(ReceiverStream::new(beating)).await?.into_inner();
    let working = polecat(&fixture, "healthy", has_reason(reason::HEALTHY)).await?;
    let saved = |p: &Polecat| {
        let all = p.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        conditions::find(&all, condition::SAVED)
            .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
    };
    ensure!(saved(&working).is_none(), "nothing is written while all is saved");
    let sentence = golden::heartbeat("heartbeat-saving", 0)?.saving;
    beats.send(Heartbeat { saving: sentence.clone(), ..heartbeat(&fixture, 0)? }).await?;
    let reported = ("False".to_owned(), "Saving".to_owned(), sentence);
    polecat(&fixture, "not saved", |p| saved(p).as_ref() == Some(&reported)).await?;
    beats.send(heartbeat(&fixture, 0)?).await?;
    let well = ("True".to_owned(), "Saved".to_owned(), String::new());
    polecat(&fixture, "saved", |p| saved(p).as_ref() == Some(&well)).await?;
    Ok(())
}

#[tokio::test]
async fn a_rig_is_counted_and_only_its_oldest_witness_is_active() -> Result<()> {
    let fixture = Fixture::new().await?;
    fixture.witness(&fixture.namespace, "a-first", json!({})).await?;
    let pending = ready(&fixture, "a-first").await?.status.context("a status")?;
    ensure!(pending.phase == Some(WitnessPhase::Pending) && pending.last_check_time.is_some());
    for (name, phase) in
        [("a", "Working"), ("b", "Done"), ("c", "Stuck"), ("d", "Idle"), ("e", "Stuck")]
    {
        fixture.polecat(name).await?;
        let degraded = json!([{ "type": "Degraded", "status": "True", "reason": "Failed", "message": "",
                                "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
        let conditions = if name == "e" { degraded } else { json!([]) };
        fixture.status(name, json!({ "phase": phase, "conditions": conditions })).await?;
    }
    let counts = |w: &Witness| {
        w.status
            .as_ref()
            .and_then(|s| s.polecats_summary)
            .map(|s| (s.total, s.running, s.succeeded, s.failed, s.stuck))
    };
    let api: Api<Witness> = fixture.api();
    let seen = until(TIMEOUT, &api, "a-first", "the counts", |w| {
        w.filter(|w| counts(w) == Some((5, 1, 1, 1, 1))).cloned()
    })
    .await?;
    let status = seen.status.context("a status")?;
    ensure!(
        status.phase == Some(WitnessPhase::Degraded)
            && conditions::is_true(&status.conditions, condition::DEGRADED)
    );
    fixture.witness(&fixture.namespace, "b-second", json!({})).await?;
    let second = ready(&fixture, "b-second").await?.status.context("a status")?;
    // Created within the same second: the name decides.
    let ready = conditions::find(&second.conditions, condition::READY).context("Ready")?;
    ensure!(
        ready.reason == reason::DUPLICATE
            && ready.message.ends_with(&format!("{}/a-first", fixture.namespace)),
        "{ready:?}"
    );
    Ok(())
}
