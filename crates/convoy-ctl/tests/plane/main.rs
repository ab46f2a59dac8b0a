//! convoy-ctl as the chart runs it: its own service account, its own roles, a real API server. The
//! beads are served from memory; what other controllers would write is written by the tests.

mod definitions;
mod dispatch;
mod kills;
mod stores;
mod tracking;

use std::time::Duration;

use anyhow::Result;
use gastown_api::rbac::Controller;
use gastown_api::{
    BeadStore, Convoy, ConvoyBeadPhase, ConvoySpec, ConvoyStatus, MergeRequest, Polecat,
    PolecatTemplate, Rig, RigSettings, RigSpec, conditions,
};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install::SYSTEM as NAMESPACE;
use gastown_cluster::install::{self, Hosted, until};
use gastown_core::convoy::polecat_name;
use gastown_runtime::{Runtime, RuntimeArgs};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::stores::STORES;

/// How long a test waits for something: nothing here takes longer on a healthy machine. It is
/// shorter than the resync, so what arrives in time came by a watch.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(25);
pub(crate) const ACCOUNT: &str = "convoy-ctl";

/// Runs the controller for the whole of this test program, on a thread that outlives each test's
/// own runtime.
async fn serve() -> Result<((), ())> {
    let plane = ControlPlane::shared().await?;
    install::install(plane, Controller::Convoy, &[]).await?;
    let config = install::config(plane, Controller::Convoy);
    let args = RuntimeArgs { namespace: NAMESPACE.into(), ..RuntimeArgs::from_env()? };
    let runtime = Runtime::leading(ACCOUNT, config, args)?;
    let started = runtime.clone();
    tokio::spawn(convoy_ctl::serve(runtime, STORES.clone()));
    started.readiness.ready().await;
    Ok(((), ()))
}

static CONTROLLER: Hosted<()> = Hosted::new();

/// A namespace, and a rig of its name.
pub(crate) struct Fixture {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Fixture {
    pub(crate) async fn new() -> Result<Self> {
        install::hosted(&CONTROLLER, serve).await?;
        Self::on(ControlPlane::shared().await?).await
    }

    /// On a plane whose controllers are of the test's own.
    pub(crate) async fn on(plane: &ControlPlane) -> Result<Self> {
        Ok(Self { client: plane.client()?, namespace: plane.namespace().await? })
    }

    pub(crate) async fn create_rig(&self, max_polecats: i32) -> Result<()> {
        let template: PolecatTemplate = serde_json::from_value(json!({
            "ttlSecondsAfterFinished": 60, "budget": {"maxTurns": 9}, "kubernetes": {"gitSecretRef": {"name": "git-creds"}},
        }))?;
        let settings = RigSettings { max_polecats, ..RigSettings::default() };
        let spec = RigSpec {
            git_url: "https://example.com/a/b".into(),
            beads_prefix: "gt".into(),
            settings,
            polecat_template: Some(template),
            ..RigSpec::default()
        };
        Api::<Rig>::all(self.client.clone())
            .create(&PostParams::default(), &Rig::new(&self.namespace, spec))
            .await?;
        Ok(())
    }

    pub(crate) async fn create_store(&self) -> Result<()> {
        let store: BeadStore = serde_json::from_value(json!({
            "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "BeadStore", "metadata": {"name": "beads"},
            "spec": {"rigRef": self.namespace, "prefix": "gt-"},
        }))?;
        Api::namespaced(self.client.clone(), &self.namespace)
            .create(&PostParams::default(), &store)
            .await?;
        Ok(())
    }

    pub(crate) fn convoys(&self) -> Api<Convoy> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn polecats(&self) -> Api<Polecat> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn create_convoy(
        &self,
        name: &str,
        beads: &[&str],
        change: impl FnOnce(&mut ConvoySpec),
    ) -> Result<()> {
        let mut spec = ConvoySpec {
            description: "for a test".into(),
            tracked_beads: beads.iter().map(|id| (*id).to_owned()).collect(),
            rig_ref: Some(self.namespace.clone()),
            dispatch: true,
            ..ConvoySpec::default()
        };
        change(&mut spec);
        self.convoys().create(&PostParams::default(), &Convoy::new(name, spec)).await?;
        Ok(())
    }

    /// Waits until the status of a convoy is as wanted.
    pub(crate) async fn until(
        &self,
        convoy: &str,
        what: &str,
        want: impl Fn(&ConvoyStatus) -> bool,
    ) -> Result<ConvoyStatus> {
        let look = |convoy: Option<&Convoy>| convoy?.status.clone().filter(|status| want(status));
        until(TIMEOUT, &self.convoys(), convoy, what, look).await
    }

    /// The Polecat that the controller creates for a bead, once it is there.
    pub(crate) async fn created(&self, bead: &str) -> Result<Polecat> {
        until(
            TIMEOUT,
            &self.polecats(),
            &polecat_name("mad-max", &self.namespace, bead),
            "its Polecat",
            |polecat| Some(polecat?.clone()),
        )
        .await
    }

    pub(crate) async fn count(&self) -> Result<usize> {
        Ok(self.polecats().list(&ListParams::default()).await?.items.len())
    }

    pub(crate) async fn set_phase(&self, polecat: &str, phase: &str, reason: &str) -> Result<()> {
        let degraded = json!({
            "type": "Degraded", "status": if phase == "Stuck" { "True" } else { "False" }, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let patch = json!({"status": {"phase": phase, "conditions": [degraded]}});
        self.polecats()
            .patch_status(polecat, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// Creates a MergeRequest of the bead that landed, as refinery-ctl would.
    pub(crate) async fn land(&self, bead: &str) -> Result<()> {
        let api: Api<MergeRequest> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = format!("mr-{}", bead.replace('.', "-"));
        let request: MergeRequest = serde_json::from_value(json!({
            "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "MergeRequest", "metadata": {"name": name},
            "spec": {
                "rigRef": self.namespace, "sourceBranch": format!("feature/{bead}"), "commit": "a".repeat(40), "targetBranch": "main",
                "beadID": bead,
            },
        }))?;
        api.create(&PostParams::default(), &request).await?;
        api.patch_status(
            &name,
            &PatchParams::default(),
            &Patch::Merge(json!({"status": {"phase": "Landed"}})),
        )
        .await?;
        Ok(())
    }
}

/// Status, reason and message of a condition; empty when there is none.
pub(crate) fn condition_of(status: &ConvoyStatus, kind: &str) -> (String, String, String) {
    conditions::find(&status.conditions, kind)
        .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
        .unwrap_or_default()
}

pub(crate) fn phase_of(status: &ConvoyStatus, bead: &str) -> Option<ConvoyBeadPhase> {
    status.beads.iter().find(|line| line.id == bead).map(|line| line.phase)
}
