//! The network policy of gates: written before the first of them starts, and kept.

use anyhow::{Context as _, Result, ensure};
use gastown_api::{GateTemplate, RefinerySpec, conditions};
use gastown_runtime::network::EgressRules;
use gastown_types::digest::short_digest;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::fixture::{Fixture, TIMEOUT, shared, until};

fn policies(fixture: &Fixture) -> Api<NetworkPolicy> {
    Api::namespaced(fixture.client.clone(), &fixture.namespace)
}

fn name() -> String {
    format!("gastown-gates-refinery-{}", short_digest(&["refinery"], 8))
}

/// The number of egress rules.
fn rules(policy: &NetworkPolicy) -> usize {
    policy.spec.as_ref().and_then(|spec| spec.egress.as_ref()).map_or(0, Vec::len)
}

#[tokio::test]
async fn a_gate_starts_after_its_network_policy_which_follows_the_spec_and_is_kept() -> Result<()> {
    let fixture = Fixture::new().await?;
    let (api, name) = (policies(&fixture), name());
    let source = fixture.branch("feature/n", "a", "1\n");
    fixture.submit("mr-n", "feature/n", &source, None).await?;
    let pod = fixture.gate(&[]).await?;
    let policy = api.get(&name).await.context("the policy is there before the gate")?;
    let selected = policy.spec.clone().unwrap_or_default().pod_selector.unwrap_or_default();
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let selected = selected.match_labels.unwrap_or_default();
    ensure!(
        !selected.is_empty() && selected.iter().all(|(key, value)| labels.get(key) == Some(value)),
        "{selected:?} does not select {labels:?}"
    );
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("mr-n", "Landed").await?;
    let after = api.get(&name).await?;
    ensure!(
        after.metadata.resource_version == policy.metadata.resource_version,
        "it was written again: {after:?}"
    );

    let more = json!([{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]);
    let patch = json!({"spec": {"gateTemplate": {"egress": more}}});
    fixture.refineries().patch("refinery", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    let wider = |p: Option<&NetworkPolicy>| p.filter(|p| rules(p) > rules(&policy)).cloned();
    let wider = until(TIMEOUT, &api, &name, "the further rule", wider).await?;

    api.delete(&name, &DeleteParams::default()).await?;
    let back =
        |p: Option<&NetworkPolicy>| p.filter(|p| p.metadata.uid != wider.metadata.uid).cloned();
    let back = until(TIMEOUT, &api, &name, "writing it again", back).await?;
    ensure!(rules(&back) == rules(&wider), "{back:?}");
    Ok(())
}

#[tokio::test]
async fn no_gate_starts_where_its_network_policy_cannot_be_written() -> Result<()> {
    let (plane, _) = shared().await?;
    let fixture = Fixture::on(plane).await?;
    let (api, name) = (policies(&fixture), name());
    // Somebody else has the name, and lets everything through.
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    let open = NetworkPolicy { metadata, spec: Some(NetworkPolicySpec::default()) };
    api.create(&PostParams::default(), &open).await?;
    let source = fixture.branch("feature/h", "a", "1\n");
    fixture.submit("mr-h", "feature/h", &source, None).await?;
    fixture.refinery(Some("run the tests")).await?;
    let waits = |m: Option<&gastown_api::MergeRequest>| {
        let c = conditions::find(&m?.status.as_ref()?.conditions, "Ready")?;
        (c.reason == "NetworkPolicyFailed").then(|| c.message.clone())
    };
    let message = until(TIMEOUT, &fixture.requests(), "mr-h", "NetworkPolicyFailed", waits).await?;
    ensure!(message.contains(&name), "{message}");
    let not_ready = |r: Option<&gastown_api::Refinery>| {
        let c = conditions::find(&r?.status.as_ref()?.conditions, "Ready")?;
        (c.status == "False" && c.reason == "NetworkPolicyFailed").then_some(())
    };
    until(TIMEOUT, &fixture.refineries(), "refinery", "NetworkPolicyFailed", not_ready).await?;
    fixture.no_jobs().await?;

    api.delete(&name, &DeleteParams::default()).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("mr-h", "Landed").await?;
    Ok(())
}

#[tokio::test]
async fn rules_that_the_api_server_refuses_are_shown_and_no_gate_starts() -> Result<()> {
    let (plane, _) = shared().await?;
    let fixture = Fixture::on(plane).await?;
    // A range that is not inside of the other one: the CRD's schema does not know that.
    let egress: EgressRules =
        r#"[{"to": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["198.51.100.0/24"]}}]}]"#
            .parse()?;
    let template = GateTemplate { egress: egress.0, ..GateTemplate::default() };
    let spec = RefinerySpec {
        test_command: Some("run the tests".into()),
        gate_template: Some(template),
        ..RefinerySpec::of_rig(&fixture.rig)
    };
    fixture.refinery_with("refinery", spec).await?;
    let refused = |r: Option<&gastown_api::Refinery>| {
        let c = conditions::find(&r?.status.as_ref()?.conditions, "Ready")?;
        (c.reason == "NetworkPolicyFailed").then(|| c.message.clone())
    };
    let message =
        until(TIMEOUT, &fixture.refineries(), "refinery", "NetworkPolicyFailed", refused).await?;
    ensure!(message.contains("except"), "the API server's words are missing: {message}");
    fixture.no_jobs().await
}
