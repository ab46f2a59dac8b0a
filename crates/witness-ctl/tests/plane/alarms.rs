//! Escalations: one a cause, told along routes, acknowledged and closed by people, settled by those
//! who raised them.

use anyhow::{Context as _, Result, ensure};
use gastown_api::names::condition;
use gastown_api::{
    Acknowledgement, DeliveryState, Escalation, EscalationPhase, EscalationSpec, Severity,
    conditions,
};
use gastown_proto::v1::{RaiseRequest, SettleRequest};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::ground::Town;

fn asked(town: &Town) -> RaiseRequest {
    RaiseRequest {
        namespace: town.namespace.clone(),
        rig: town.rig.clone(),
        severity: "high".into(),
        cause: "polecat/toast/AttemptsSpent".into(),
        summary: "Toast gave up.".into(),
        source: "polecat-ctl".into(),
        related_kind: "Polecat".into(),
        related_namespace: town.namespace.clone(),
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
async fn raised_twice_is_one_object_whose_status_comes_back_when_it_is_lost() -> Result<()> {
    let town = Town::new().await?;
    let mut caller = town.controller().await?;
    let first = caller.raise(asked(&town)).await?.into_inner();
    ensure!(first.created && first.namespace == town.namespace);
    let second = caller.raise(asked(&town)).await?.into_inner();
    ensure!(!second.created && second.name == first.name, "{second:?}");
    let seen =
        town.escalation(&first.name, "two raises, told", |e| raises(2)(e) && told(e)).await?;
    let status = seen.status.clone().context("a status")?;
    ensure!(
        status.phase == Some(EscalationPhase::Open) && status.severity == Some(Severity::High),
        "{status:?}"
    );
    let events: Api<Event> = town.api();
    let about = |e: &Event| {
        e.regarding.as_ref().is_some_and(|r| r.uid == seen.metadata.uid)
            && e.reason.as_deref() == Some("Escalated")
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !events.list(&ListParams::default()).await?.items.iter().any(about) {
        ensure!(tokio::time::Instant::now() < deadline, "the mayor was not told");
        tokio::task::yield_now().await;
    }
    let api: Api<Escalation> = town.api();
    api.patch_status(
        &first.name,
        &PatchParams::default(),
        &Patch::Merge(json!({ "status": null })),
    )
    .await?;
    let again =
        town.escalation(&first.name, "its status again", |e| raises(2)(e) && told(e)).await?;
    ensure!(again.status.map(|s| s.deliveries) == Some(status.deliveries), "told once more");
    Ok(())
}

fn told(e: &Escalation) -> bool {
    e.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, condition::DELIVERED))
}

#[tokio::test]
async fn a_person_acknowledges_and_closes_and_what_comes_again_is_another_object() -> Result<()> {
    let town = Town::new().await?;
    let mut caller = town.controller().await?;
    let name = caller.raise(asked(&town)).await?.into_inner().name;
    let api: Api<Escalation> = town.api();
    let patch = |spec: serde_json::Value| json!({ "spec": spec });
    let params = PatchParams::default();
    api.patch(&name, &params, &Patch::Merge(patch(json!({ "acknowledged": { "by": "ada" } }))))
        .await?;
    let seen = town
        .escalation(&name, "the acknowledgement", in_phase(EscalationPhase::Acknowledged))
        .await?;
    ensure!(seen.spec.acknowledged == Some(Acknowledgement { by: "ada".into() }));
    ensure!(
        !caller.raise(asked(&town)).await?.into_inner().created,
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
    let closed = town.escalation(&name, "its end", in_phase(EscalationPhase::Closed)).await?;
    ensure!(closed.status.and_then(|s| s.closed_reason).as_deref() == Some("ada: a duplicate"));
    let refused = api
        .patch(&name, &params, &Patch::Merge(patch(json!({ "closed": null }))))
        .await
        .unwrap_err();
    ensure!(refused.to_string().contains("spec.closed stays"), "{refused}");
    // A controller that starts again says what it said before: the person has decided about that.
    let same = caller.raise(asked(&town)).await?.into_inner();
    ensure!(!same.created && same.name == name, "{same:?}");
    let worse =
        RaiseRequest { summary: "Toast gave up for another reason.".into(), ..asked(&town) };
    let next = caller.raise(worse.clone()).await?.into_inner();
    ensure!(next.created && next.name != name, "{next:?}");
    api.patch(
        &next.name,
        &params,
        &Patch::Merge(patch(json!({ "closed": { "by": "ada", "reason": "seen" } }))),
    )
    .await?;
    town.escalation(&next.name, "its end", in_phase(EscalationPhase::Closed)).await?;
    let settle = SettleRequest {
        namespace: town.namespace.clone(),
        cause: worse.cause.clone(),
        why: "it was retried".into(),
    };
    ensure!(caller.settle(settle).await?.into_inner().name.is_empty(), "there is nothing to close");
    let again = caller.raise(worse).await?.into_inner();
    ensure!(again.created && again.name != next.name, "{again:?}");
    Ok(())
}

#[tokio::test]
async fn a_cause_that_goes_away_closes_its_escalation_and_settling_nothing_is_no_error()
-> Result<()> {
    let town = Town::new().await?;
    let mut caller = town.controller().await?;
    let settle = SettleRequest {
        namespace: town.namespace.clone(),
        cause: asked(&town).cause,
        why: "it was retried".into(),
    };
    ensure!(caller.settle(settle.clone()).await?.into_inner().name.is_empty());
    let name = caller.raise(asked(&town)).await?.into_inner().name;
    ensure!(caller.settle(settle.clone()).await?.into_inner().name == name);
    ensure!(caller.settle(settle).await?.into_inner().name.is_empty());
    let closed = town.escalation(&name, "its end", in_phase(EscalationPhase::Closed)).await?;
    ensure!(closed.status.and_then(|s| s.closed_reason).as_deref() == Some("it was retried"));
    Ok(())
}

#[tokio::test]
async fn only_those_of_the_table_raise_and_settle() -> Result<()> {
    let town = Town::new().await?;
    let mut stranger = town.caller("gastown-system", "rig-ctl", None).await?;
    ensure!(
        stranger.raise(asked(&town)).await.unwrap_err().code() == tonic::Code::PermissionDenied
    );
    let polecat = town.polecat("toast").await?;
    let pod = town.pod("polecat-toast", Some(&polecat)).await?;
    let mut agent = town.agent(&pod).await?;
    let made = agent.raise(asked(&town)).await?.into_inner();
    let object = town.escalation(&made.name, "the agent's word", |_| true).await?;
    ensure!(
        object.spec.source == "agent"
            && object.spec.cause.starts_with(&format!("polecat/{}/toast/agent/", town.namespace))
    );
    let foreign = RaiseRequest { related_name: "other".into(), ..asked(&town) };
    ensure!(agent.raise(foreign).await.unwrap_err().code() == tonic::Code::PermissionDenied);
    let settle = SettleRequest {
        namespace: town.namespace.clone(),
        cause: object.spec.cause,
        why: "no".into(),
    };
    ensure!(agent.settle(settle).await.unwrap_err().code() == tonic::Code::PermissionDenied);
    let lone = town.pod("lone", None).await?;
    ensure!(
        town.agent(&lone).await?.raise(asked(&town)).await.unwrap_err().code()
            == tonic::Code::PermissionDenied
    );
    Ok(())
}

#[tokio::test]
async fn a_route_reads_its_url_from_a_secret_and_says_what_lacks() -> Result<()> {
    let town = Town::new().await?;
    let release = "gastown-system";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/hook", listener.local_addr()?);
    let (tell, mut posts) = tokio::sync::mpsc::channel::<serde_json::Value>(8);
    let take = move |axum::Json(body): axum::Json<serde_json::Value>| {
        let tell = tell.clone();
        async move { drop(tell.send(body).await) }
    };
    let app = axum::Router::new().route("/hook", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let secret = format!("alarms-{}", town.namespace);
    let object: Secret = serde_json::from_value(
        json!({ "metadata": { "name": secret }, "stringData": { "url": url } }),
    )?;
    Api::<Secret>::namespaced(town.client.clone(), release)
        .create(&PostParams::default(), &object)
        .await?;
    let routes = json!({ "routes": [
        { "channel": "webhook", "webhook": { "urlSecretRef": { "name": secret, "key": "url" } } },
        { "channel": "slack", "slack": { "urlSecretRef": { "name": secret, "key": "slack" } } },
        { "name": "night", "channel": "mayor", "minSeverity": "critical" },
    ] });
    town.witness(release, &format!("witness-{}", town.namespace), routes).await?;
    let spec = EscalationSpec {
        severity: Severity::Medium,
        cause: "by-hand".into(),
        summary: "Look at this.".into(),
        details: None,
        source: "ada".into(),
        rig_ref: town.rig.clone(),
        related_object: None,
        acknowledged: None,
        closed: None,
    };
    let api: Api<Escalation> = town.api();
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
        town.escalation("by-hand", "both deliveries", both).await?.status.context("a status")?;
    let of = |route: &str| seen.deliveries.iter().find(|d| d.route == route).context("a delivery");
    ensure!(of("webhook")?.state == DeliveryState::Sent, "{seen:?}");
    let slack = of("slack")?;
    let lacks = format!("SecretNotFound: secret {secret} has no key slack");
    ensure!(
        slack.state == DeliveryState::Pending && slack.message.as_deref() == Some(&lacks),
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
async fn a_witness_elsewhere_may_not_read_secrets_and_says_so() -> Result<()> {
    let town = Town::new().await?;
    let routes = json!({ "routes": [{ "channel": "webhook", "webhook": { "urlSecretRef": { "name": "alarms", "key": "url" } } }] });
    town.witness(&town.namespace, "watch", routes).await?;
    // The Witness must serve before the first delivery, or the mayor is told.
    crate::health::ready(&town, "watch").await?;
    let name = town.controller().await?.raise(asked(&town)).await?.into_inner().name;
    let words = |e: &Escalation| {
        e.status.as_ref().and_then(|s| s.deliveries.first()?.message.clone()).unwrap_or_default()
    };
    let seen = town.escalation(&name, "a delivery", |e| !words(e).is_empty()).await?;
    ensure!(
        words(&seen).starts_with("SecretForbidden: ")
            && words(&seen).contains("witness.secretNamespaces"),
        "{}",
        words(&seen)
    );
    ensure!(seen.name_any() == name);
    Ok(())
}
