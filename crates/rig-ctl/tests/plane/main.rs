//! rig-ctl as the chart runs it: its own service account, its own roles, a real API server.

mod children;
mod definitions;
mod kills;
mod polecats;
mod program;

use std::fmt::Debug;
use std::time::Duration;

use anyhow::Result;
use gastown_api::names::condition;
use gastown_api::rbac::Controller;
use gastown_api::{
    DesiredState, Polecat, PolecatPhase, PolecatSpec, Refinery, Rig, RigSpec, Witness, conditions,
};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install::SYSTEM as NAMESPACE;
use gastown_cluster::install::{self, Hosted, until};
use gastown_runtime::{Runtime, RuntimeArgs};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use rig_ctl::RigArgs;
use serde::de::DeserializeOwned;
use serde_json::json;

/// How long a test waits for something: nothing here takes longer on a healthy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(1);
pub(crate) const ACCOUNT: &str = "rig-ctl";

/// Runs the controller for the whole of this test program, on a thread that outlives each test's
/// own runtime.
async fn serve() -> Result<((), ())> {
    let plane = ControlPlane::shared().await?;
    install::install(plane, Controller::Rig, &[]).await?;
    let config = install::config(plane, Controller::Rig);
    let args = RuntimeArgs { namespace: NAMESPACE.into(), ..RuntimeArgs::from_env()? };
    let runtime = Runtime::leading(ACCOUNT, config, args)?;
    let started = runtime.clone();
    tokio::spawn(rig_ctl::start(runtime, RigArgs {}));
    started.readiness.ready().await;
    Ok(((), ()))
}

static CONTROLLER: Hosted<()> = Hosted::new();

/// A client with all permissions, the controller at work, and a namespace for this test.
pub(crate) async fn fixture() -> Result<(Client, String)> {
    install::hosted(&CONTROLLER, serve).await?;
    let plane = ControlPlane::shared().await?;
    Ok((plane.client()?, plane.namespace().await?))
}

pub(crate) fn rigs(client: &Client) -> Api<Rig> {
    Api::all(client.clone())
}

pub(crate) fn refineries(client: &Client, namespace: &str) -> Api<Refinery> {
    Api::namespaced(client.clone(), namespace)
}

pub(crate) fn spec() -> RigSpec {
    RigSpec {
        git_url: "https://example.com/a/b".into(),
        beads_prefix: "web".into(),
        ..RigSpec::default()
    }
}

pub(crate) async fn create_rig(client: &Client, name: &str, spec: RigSpec) -> Result<Rig> {
    Ok(rigs(client).create(&PostParams::default(), &Rig::new(name, spec)).await?)
}

pub(crate) fn ready(rig: Option<&Rig>) -> Option<Condition> {
    conditions::find(&rig?.status.as_ref()?.conditions, condition::READY).cloned()
}

/// Writes the `Ready` condition as the child's own controller does.
pub(crate) async fn set_ready<K>(
    api: &Api<K>,
    name: &str,
    is_ready: bool,
    reason: &str,
    message: &str,
) -> Result<()>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let generation = api.get(name).await?.meta().generation;
    let status = if is_ready { "True" } else { "False" };
    let condition = json!({
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    // A Refinery's schema wants its queue's length; other kinds do not know the field.
    let is_refinery = K::kind(&()) == "Refinery";
    let mut patch = json!({"status": {"conditions": [condition]}});
    if is_refinery {
        patch["status"]["queueLength"] = json!(0);
    }
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// Waits for the Witness that rig-ctl creates, and reports it ready.
pub(crate) async fn report_witness(client: &Client, rig: &str) -> Result<()> {
    let api: Api<Witness> = Api::namespaced(client.clone(), NAMESPACE);
    let name = format!("{rig}-witness");
    until(TIMEOUT, &api, &name, "the Witness", |witness| witness.map(|_| ())).await?;
    set_ready(&api, &name, true, "AllHealthy", "").await
}

pub(crate) async fn create_polecat(
    client: &Client,
    namespace: &str,
    name: &str,
    rig: &str,
    phase: Option<PolecatPhase>,
) -> Result<Polecat> {
    let api: Api<Polecat> = Api::namespaced(client.clone(), namespace);
    let spec = PolecatSpec { desired_state: DesiredState::Working, ..PolecatSpec::of_rig(rig) };
    let made = api.create(&PostParams::default(), &Polecat::new(name, spec)).await?;
    if let Some(phase) = phase {
        api.patch_status(
            name,
            &PatchParams::default(),
            &Patch::Merge(json!({"status": {"phase": phase}})),
        )
        .await?;
    }
    Ok(made)
}
