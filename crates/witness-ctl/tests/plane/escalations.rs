//! Escalations: one for each cause, sent along routes, acknowledged and closed by people, settled
//! by whoever raised them.

use anyhow::{Context as _, Result, ensure};
use gastown_api::names::{annotation, condition};
use gastown_api::{
    Acknowledgement, DeliveryState, Escalation, EscalationPhase, EscalationSpec, Severity, Witness,
    conditions,
};
use gastown_fakes::black_hole::BlackHole;
use gastown_proto::v1::{RaiseRequest, SettleRequest};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::fixture::{Fixture, TIMEOUT};

fn request(fixture: &Fixture) -> RaiseRequest {
    RaiseRequest {
        namespace: fixture.namespace.clone(),
        rig: fixture.rig.clone(),
        severity: "high".into(),
        cause: "polecat/toast/AttemptsSpent".into(),
        summary: "Toast gave up.".into(),
        source: "polecat-ctl".into(),
        related_kind: "Polecat".into(),
        related_namespace: fixture.namespace.clone(),
        related_name: "toast".into(),
        ..RaiseRequest::default()
    }
}

fn raises(n: i32) -> impl Fn(&Escalation) -> bool {
    move |e| e.status.as_ref().is_some_and(|s| s.raises == Some(n))
}

fn in_phase(phase: EscalationPhase) -> impl Fn(&Escalation) -> bool {
    move |e| e.status.as_ref().is_some_and(|s| s.phase == Some(phase))
}

#[tokio::test]
async fn raising_twice_makes_one_object_whose_status_comes_back_when_it_is_lost() -> Result<()> {
    let fixture = Fixture::new().await?;
    let mut caller = fixture.controller().await?;
    let first = caller.raise(request(&fixture)).await?.into_inner();
    ensure!(first.created && first.namespace == fixture.namespace);
    let second = caller.raise(request(&fixture)).await?.into_inner();
    ensure!(!second.created && second.name == first.name, "{second:?}");
    let seen = fixture
        .escalation(&first.name, "two raises and a delivery", |e| raises(2)(e) && delivered(e))
        .await?;
    let status = seen.status.clone().context("a status")?;
    ensure!(
        status.phase == Some(EscalationPhase::Open) && status.severity == Some(Severity::High),
        "{status:?}"
    );
    let events: Api<Event> = fixture.api();
    let about = |e: &Event| {
        e.regarding.as_ref().is_some_and(|r| r.uid == seen.metadata.uid)
            && e.reason.as_deref() == Some("Escalated")
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !events.list(&ListParams::default()).await?.items.iter().any(about) {
        ensure!(tokio::time::Instant::now() < deadline, "the mayor got no Event");
        tokio::task::yield_now().await;
    }
    let api: Api<Escalation> = fixture.api();
    api.patch_status(
        &first.name,
        &PatchParams::default(),
        &Patch::Merge(json!({ "status": null })),
    )
    .await?;
    let again = fixture
        .escalation(&first.name, "its status again", |e| raises(2)(e) && delivered(e))
        .await?;
    ensure!(again.status.map(|s| s.deliveries) == Some(status.deliveries), "it was sent once more");
    Ok(())
}

fn delivered(e: &Escalation) -> bool {
    e.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, condition::DELIVERED))
}

#[tokio::test]
async fn a_person_acknowledges_and_closes_and_the_next_raise_makes_another_object() -> Result<()> {
    let fixture = Fixture::new().await?;
    let mut caller = fixture.controller().await?;
    let name = caller.raise(request(&fixture)).await?.into_inner().name;
    let api: Api<Escalation> = fixture.api();
    let patch = |spec: serde_json::Value| json!({ "spec": spec });
    let params = PatchParams::default();
    api.patch(&name, &params, &Patch::Merge(patch(json!({ "acknowledged": { "by": "ada" } }))))
        .await?;
    let seen = fixture
        .escalation(&name, "the acknowledgement", in_phase(EscalationPhase::Acknowledged))
        .await?;
    ensure!(seen.spec.acknowledged == Some(Acknowledgement { by: "ada".into() }));
    ensure!(
        !caller.raise(request(&fixture)).await?.into_inner().created,
        "an acknowledged one is still open"
    );
    let refused = api
        .patch(&name, &params, &Patch::Merge(patch(json!({ "cause": "another" }))))
        .await
        .unwrap_err();
    ensure!(refused.to_string().contains("spec.cause is immutable"), "{refused}");
    api.patch(
        &name,
        &params,
        &Patch::Merge(patch(json!({ "closed": { "by": "ada", "reason": "a duplicate" } }))),
    )
    .await?;
    let closed = fixture.escalation(&name, "its end", in_phase(EscalationPhase::Closed)).await?;
    ensure!(closed.status.and_then(|s| s.closed_reason).as_deref() == Some("ada: a duplicate"));
    let refused = api
        .patch(&name, &params, &Patch::Merge(patch(json!({ "closed": null }))))
        .await
        .unwrap_err();
    ensure!(refused.to_string().contains("spec.closed stays"), "{refused}");
    // A controller that restarts raises the same again: the person has decided about that.
    let same = caller.raise(request(&fixture)).await?.into_inner();
    ensure!(!same.created && same.name == name, "{same:?}");
    let worse =
        RaiseRequest { summary: "Toast gave up for another reason.".into(), ..request(&fixture) };
    let next = caller.raise(worse.clone()).await?.into_inner();
    ensure!(next.created && next.name != name, "{next:?}");
    api.patch(
        &next.name,
        &params,
        &Patch::Merge(patch(json!({ "closed": { "by": "ada", "reason": "seen" } }))),
    )
    .await?;
    fixture.escalation(&next.name, "its end", in_phase(EscalationPhase::Closed)).await?;
    let settle = SettleRequest {
        namespace: fixture.namespace.clone(),
        cause: worse.cause.clone(),
        why: "it was retried".into(),
        ..SettleRequest::default()
    };
    ensure!(caller.settle(settle).await?.into_inner().name.is_empty(), "there is nothing to close");
    let again = caller.raise(worse).await?.into_inner();
    ensure!(again.created && again.name != next.name, "{again:?}");
    Ok(())
}

#[tokio::test]
async fn settling_a_cause_closes_its_escalation_and_settling_nothing_is_not_an_error() -> Result<()>
{
    let fixture = Fixture::new().await?;
    let mut caller = fixture.controller().await?;
    let settle = SettleRequest {
        namespace: fixture.namespace.clone(),
        cause: request(&fixture).cause,
        why: "it was retried".into(),
        ..SettleRequest::default()
    };
    ensure!(caller.settle(settle.clone()).await?.into_inner().name.is_empty());
    let name = caller.raise(request(&fixture)).await?.into_inner().name;
    ensure!(caller.settle(settle.clone()).await?.into_inner().name == name);
    ensure!(caller.settle(settle).await?.into_inner().name.is_empty());
    let closed = fixture.escalation(&name, "its end", in_phase(EscalationPhase::Closed)).await?;
    ensure!(closed.status.and_then(|s| s.closed_reason).as_deref() == Some("it was retried"));
    Ok(())
}

#[tokio::test]
async fn only_the_callers_of_the_table_may_raise_and_settle() -> Result<()> {
    let fixture = Fixture::new().await?;
    let mut stranger = fixture.caller("gastown-system", "rig-ctl", None).await?;
    ensure!(
        stranger.raise(request(&fixture)).await.unwrap_err().code()
            == tonic::Code::PermissionDenied
    );
    let polecat = fixture.polecat("toast").await?;
    let pod = fixture.pod("polecat-toast", Some(&polecat)).await?;
    let mut agent = fixture.agent(&pod).await?;
    let made = agent.raise(request(&fixture)).await?.into_inner();
    let object = fixture.escalation(&made.name, "the agent's Escalation", |_| true).await?;
    ensure!(
        object.spec.source == "agent"
            && object
                .spec
                .cause
                .starts_with(&format!("polecat/{}/toast/agent/", fixture.namespace))
    );
    let foreign = RaiseRequest { related_name: "other".into(), ..request(&fixture) };
    ensure!(agent.raise(foreign).await.unwrap_err().code() == tonic::Code::PermissionDenied);
    let settle = SettleRequest {
        namespace: fixture.namespace.clone(),
        cause: object.spec.cause,
        why: "no".into(),
        ..SettleRequest::default()
    };
    ensure!(agent.settle(settle).await.unwrap_err().code() == tonic::Code::PermissionDenied);
    let lone = fixture.pod("lone", None).await?;
    ensure!(
        fixture.agent(&lone).await?.raise(request(&fixture)).await.unwrap_err().code()
            == tonic::Code::PermissionDenied
    );
    Ok(())
}

/// A webhook that takes what is sent to it.
async fn webhook() -> Result<(String, tokio::sync::mpsc::Receiver<serde_json::Value>)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/hook", listener.local_addr()?);
    let (sender, posts) = tokio::sync::mpsc::channel::<serde_json::Value>(8);
    let take = move |axum::Json(body): axum::Json<serde_json::Value>| {
        let sender = sender.clone();
        async move { drop(sender.send(body).await) }
    };
    let app = axum::Router::new().route("/hook", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok((url, posts))
}

#[tokio::test]
async fn a_route_reads_its_url_from_a_secret_and_names_a_missing_key() -> Result<()> {
    let fixture = Fixture::new().await?;
    let release = "gastown-system";
    let (url, mut posts) = webhook().await?;
    let secret = format!("channels-{}", fixture.namespace);
    let object: Secret = serde_json::from_value(
        json!({ "metadata": { "name": secret }, "stringData": { "url": url } }),
    )?;
    Api::<Secret>::namespaced(fixture.client.clone(), release)
        .create(&PostParams::default(), &object)
        .await?;
    let routes = json!({ "routes": [
        { "channel": "webhook", "webhook": { "urlSecretRef": { "name": secret, "key": "url" } } },
        { "channel": "slack", "slack": { "urlSecretRef": { "name": secret, "key": "slack" } } },
        { "name": "night", "channel": "mayor", "minSeverity": "critical" },
    ] });
    fixture.witness(release, &format!("witness-{}", fixture.namespace), routes).await?;
    let spec = EscalationSpec {
        severity: Severity::Medium,
        cause: "by-hand".into(),
        summary: "Look at this.".into(),
        details: None,
        source: "ada".into(),
        rig_ref: fixture.rig.clone(),
        related_object: None,
        acknowledged: None,
        closed: None,
    };
    let api: Api<Escalation> = fixture.api();
    api.create(&PostParams::default(), &Escalation::new("by-hand", spec)).await?;
    let post = posts.recv().await.context("a post")?;
    ensure!(
        post["summary"] == "Look at this."
            && post["severity"] == "medium"
            && post["name"] == "by-hand",
        "{post}"
    );
    let both = |e: &Escalation| e.status.as_ref().is_some_and(|s| s.deliveries.len() == 2);
    let seen =
        fixture.escalation("by-hand", "both deliveries", both).await?.status.context("a status")?;
    let of = |route: &str| seen.deliveries.iter().find(|d| d.route == route).context("a delivery");
    ensure!(of("webhook")?.state == DeliveryState::Sent, "{seen:?}");
    let slack = of("slack")?;
    let message = format!("SecretNotFound: secret {secret} has no key slack");
    ensure!(
        slack.state == DeliveryState::Pending && slack.message.as_deref() == Some(&message),
        "{slack:?}"
    );
    ensure!(slack.next_attempt_at.is_some());
    let delivered =
        conditions::find(&seen.conditions, condition::DELIVERED).context("Delivered")?;
    ensure!(
        (delivered.status.as_str(), delivered.reason.as_str()) == ("False", "DeliveryPending"),
        "{delivered:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_witness_of_another_namespace_may_not_read_secrets_and_reports_it() -> Result<()> {
    let fixture = Fixture::new().await?;
    let routes = json!({ "routes": [{ "channel": "webhook", "webhook": { "urlSecretRef": { "name": "channels", "key": "url" } } }] });
    fixture.witness(&fixture.namespace, "watch", routes).await?;
    // The Witness must be active before the first delivery, or it goes to the mayor.
    crate::health::ready(&fixture, "watch").await?;
    let name = fixture.controller().await?.raise(request(&fixture)).await?.into_inner().name;
    let message = |e: &Escalation| {
        e.status.as_ref().and_then(|s| s.deliveries.first()?.message.clone()).unwrap_or_default()
    };
    let seen = fixture.escalation(&name, "a delivery", |e| !message(e).is_empty()).await?;
    ensure!(
        message(&seen).starts_with("SecretForbidden: ")
            && message(&seen).contains("witness.secretNamespaces"),
        "{}",
        message(&seen)
    );
    ensure!(seen.name_any() == name);
    Ok(())
}

/// Creates an Escalation that was raised long ago about an object.
async fn raised_long_ago(
    fixture: &Fixture,
    kind: &str,
    object: &str,
    reason: &str,
) -> Result<String> {
    let namespace = Some(fixture.namespace.as_str()).filter(|_| kind != "Rig");
    let about = json!({ "kind": kind, "namespace": namespace, "name": object });
    let cause = format!("{}/{}/{object}/{reason}", kind.to_lowercase(), fixture.namespace);
    let name = format!("{}-{object}-{}", kind.to_lowercase(), reason.to_lowercase());
    long_ago(fixture, &name, &cause, about).await?;
    Ok(name)
}

/// Creates one about an object of another namespace, of which a tenant wants to know whether it is
/// there.
async fn about_another_namespace(fixture: &Fixture) -> Result<String> {
    let about = json!({ "kind": "Polecat", "namespace": "kube-system", "name": "gone" });
    long_ago(fixture, "curious", "by-hand", about).await?;
    Ok("curious".to_owned())
}

async fn long_ago(
    fixture: &Fixture,
    name: &str,
    cause: &str,
    about: serde_json::Value,
) -> Result<()> {
    let spec = json!({
        "severity": "high", "cause": cause, "summary": "It does not go on.", "source": "polecat-ctl",
        "rigRef": fixture.rig, "relatedObject": about,
    });
    let mut object = Escalation::new(name, serde_json::from_value(spec)?);
    let state = json!({ "raises": 1, "raised": "2020-01-01T00:00:00Z" }).to_string();
    object.metadata.annotations = Some([(annotation::ESCALATION_STATE.to_owned(), state)].into());
    fixture.api::<Escalation>().create(&PostParams::default(), &object).await?;
    Ok(())
}

#[tokio::test]
async fn an_escalation_about_an_object_that_is_gone_is_closed_unless_it_is_about_lost_work()
-> Result<()> {
    let fixture = Fixture::new().await?;
    fixture.polecat("here").await?;
    let present = raised_long_ago(&fixture, "Polecat", "here", "AttemptsSpent").await?;
    let lost = raised_long_ago(&fixture, "Polecat", "gone", "lost").await?;
    let elsewhere = about_another_namespace(&fixture).await?;
    for kind in ["Polecat", "Convoy", "MergeRequest", "Refinery", "BeadStore", "Witness", "Rig"] {
        let gone = raised_long_ago(&fixture, kind, "gone", "Problem").await?;
        let closed =
            fixture.escalation(&gone, "its end", in_phase(EscalationPhase::Closed)).await?;
        let place = if kind == "Rig" { String::new() } else { format!("{}/", fixture.namespace) };
        let why = format!("{kind} {place}gone does not exist any more");
        ensure!(closed.status.and_then(|s| s.closed_reason) == Some(why), "{kind}");
    }
    for open in [present, lost, elsewhere] {
        let seen = fixture.escalation(&open, "a delivery", delivered).await?;
        ensure!(in_phase(EscalationPhase::Open)(&seen), "{seen:?}");
    }
    Ok(())
}

/// A Witness of a rig of this name, whose only route is a webhook at `url`, and an Escalation.
async fn escalating_rig(fixture: &Fixture, name: &str, url: &str) -> Result<()> {
    let (client, params) = (&fixture.client, PostParams::default());
    let release = gastown_cluster::install::SYSTEM;
    let secret = json!({ "metadata": { "name": name }, "stringData": { "url": url } });
    let secrets: Api<Secret> = Api::namespaced(client.clone(), release);
    secrets.create(&params, &serde_json::from_value(secret)?).await?;
    let spec = json!({
        "rigRef": name,
        "routes": [
            { "channel": "webhook", "webhook": { "urlSecretRef": { "name": name, "key": "url" } } },
        ],
    });
    let witness = Witness::new(name, serde_json::from_value(spec)?);
    let witnesses: Api<Witness> = Api::namespaced(client.clone(), release);
    witnesses.create(&params, &witness).await?;
    // It must be active before the first delivery, or that goes to the mayor.
    let active = |w: Option<&Witness>| w?.status.as_ref()?.phase.map(drop);
    gastown_cluster::install::until(TIMEOUT, &witnesses, name, "active", active).await?;
    let spec = json!({
        "severity": "medium", "cause": "by-hand", "summary": "Look.", "source": "ada",
        "rigRef": name,
    });
    let escalation = Escalation::new(name, serde_json::from_value(spec)?);
    fixture.api::<Escalation>().create(&params, &escalation).await?;
    Ok(())
}

#[tokio::test]
async fn webhooks_that_never_answer_hold_up_no_other_route() -> Result<()> {
    // More than objects are reconciled at a time.
    const SILENT: usize = 12;
    let fixture = Fixture::new().await?;
    let hole = BlackHole::listen().await?;
    for n in 1..=SILENT {
        let url = format!("http://{}/hook", hole.authority(n));
        escalating_rig(&fixture, &format!("silent-{n}-{}", fixture.namespace), &url).await?;
    }
    hole.connections(SILENT, TIMEOUT).await?;
    let (url, mut posts) = webhook().await?;
    let healthy = format!("healthy-{}", fixture.namespace);
    escalating_rig(&fixture, &healthy, &url).await?;
    let post = tokio::time::timeout(TIMEOUT, posts.recv()).await?.context("a post")?;
    ensure!(post["name"] == healthy.as_str(), "{post}");
    Ok(())
}
