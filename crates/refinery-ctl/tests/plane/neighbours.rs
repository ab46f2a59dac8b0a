//! One request's problems are its own.

use anyhow::{Context as _, Result, ensure};
use gastown_api::{EscalationPhase, MergeRequest, Polecat, PolecatReference, Severity};
use gastown_cluster::control_plane::ControlPlane;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::fixture::{Fixture, TIMEOUT, until};

/// A policy of the cluster that refuses all writes of statuses in a namespace.
struct Refusal {
    client: Client,
    name: String,
}

impl Refusal {
    async fn of(client: Client, namespace: &str) -> Result<Self> {
        let name = format!("refuse-{namespace}");
        let rule = json!({
            "apiGroups": ["gastown.gastown.io"], "apiVersions": ["*"], "operations": ["UPDATE"],
            "resources": ["polecats/status", "mergerequests/status"],
        });
        let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {
                    "resourceRules": [rule],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                },
                "validations": [{"expression": "false", "message": "nobody writes statuses here"}],
            },
        }))?;
        let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
        }))?;
        Api::all(client.clone()).create(&PostParams::default(), &policy).await?;
        Api::all(client.clone()).create(&PostParams::default(), &binding).await?;
        Ok(Self { client, name })
    }

    async fn end(self) -> Result<()> {
        let params = DeleteParams::default();
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(self.client.clone());
        bindings.delete(&self.name, &params).await?;
        Api::<ValidatingAdmissionPolicy>::all(self.client).delete(&self.name, &params).await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_namespace_that_refuses_statuses_holds_up_nobody_else() -> Result<()> {
    let fixture = Fixture::new().await?;
    let namespace = ControlPlane::shared().await?.namespace().await?;
    let theirs = Api::<MergeRequest>::namespaced(fixture.client.clone(), &namespace);
    let polecats = Api::<Polecat>::namespaced(fixture.client.clone(), &namespace);
    let spec = json!({"rig": fixture.rig, "desiredState": "Working"});
    let polecat = Polecat::new("toast", serde_json::from_value(spec)?);
    let polecat = polecats.create(&PostParams::default(), &polecat).await?;
    let refusal = Refusal::of(fixture.client.clone(), &namespace).await?;
    // A policy comes into force some moments after it was created.
    until(TIMEOUT, &polecats, "toast", "the policy", |p| p.map(drop)).await?;
    let status = Patch::Merge(json!({"status": {"phase": "Working"}}));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    while polecats.patch_status("toast", &dry, &status).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    let first = fixture.branch("feature/first", "a", "1\n");
    let template = fixture.submit("mr-template", "feature/none", &first, None).await?;
    fixture.requests().delete("mr-template", &DeleteParams::default()).await?;
    let mut spec = template.spec;
    (spec.source_branch, spec.priority) = ("feature/first".to_owned(), 0);
    spec.polecat_ref =
        Some(PolecatReference { name: polecat.name_any(), uid: polecat.uid().context("a uid")? });
    theirs.create(&PostParams::default(), &MergeRequest::new("mr-first", spec)).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    let second = fixture.branch("feature/second", "b", "1\n");
    fixture.submit("mr-second", "feature/second", &second, None).await?;
    let pod = fixture.gate(&[pod.name_any()]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("mr-second", "Landed").await?;
    ensure!(theirs.get("mr-first").await?.status.is_none(), "the policy holds");
    refusal.end().await?;
    until(TIMEOUT, &theirs, "mr-first", "its landing", |m| {
        (format!("{:?}", m?.status.as_ref()?.phase?) == "Landed").then_some(())
    })
    .await?;
    until(TIMEOUT, &polecats, "toast", "Merged", |p| {
        gastown_api::conditions::find(&p?.status.as_ref()?.conditions, "Merged").map(drop)
    })
    .await
}

#[tokio::test]
async fn a_landing_that_the_remote_refuses_is_shown_in_its_words_and_needs_a_person() -> Result<()>
{
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new().await?;
    let hook = fixture.remote().join("hooks/pre-receive");
    std::fs::write(&hook, "#!/bin/sh\necho 'committers need a badge' >&2\nexit 1\n")?;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
    let tip = fixture.remote_head("main");
    // The branch was pushed before the rule.
    let work = fixture.work();
    crate::fixture::git(&work, &["checkout", "-q", "-B", "feature/r", "main"]);
    let source = fixture.commit("work", &[("a", "1\n")]);
    std::fs::rename(&hook, hook.with_extension("off"))?;
    fixture.push("feature/r");
    std::fs::rename(hook.with_extension("off"), &hook)?;
    fixture.submit("mr-r", "feature/r", &source, None).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    let cause = format!("mergerequest/{}/mr-r/PushRejected", fixture.namespace);
    let escalation = fixture
        .escalation(&cause, |e| {
            e.status.as_ref().and_then(|s| s.phase) == Some(EscalationPhase::Open)
        })
        .await?;
    ensure!(escalation.spec.severity == Severity::High, "{escalation:?}");
    let request = fixture.requests().get("mr-r").await?.status.context("a status")?;
    ensure!(request.reason.as_deref() == Some("PushRejected"), "{request:?}");
    let refused = request.attempts.last().context("an attempt")?;
    ensure!(
        refused.result.as_deref() == Some("PushRejected")
            && refused.evidence.as_deref().is_some_and(|e| e.contains("committers need a badge")),
        "{refused:?}"
    );
    ensure!(fixture.remote_head("main") == tip);
    std::fs::remove_file(&hook)?;
    fixture.phase("mr-r", "Landed").await?;
    fixture
        .escalation(&cause, |e| {
            e.status.as_ref().and_then(|s| s.phase) == Some(EscalationPhase::Closed)
        })
        .await?;
    Ok(())
}
