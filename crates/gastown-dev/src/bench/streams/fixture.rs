//! The objects that a witness checks agents against: a rig's Polecats at work, each with its pod and
//! a token that is bound to the pod.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use gastown_api::names::{GROUP, VERSION, condition, manager};
use gastown_api::{Polecat, PolecatSpec, Witness, conditions};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// The namespace of the Polecats.
pub const NAMESPACE: &str = "work";
/// Their rig.
pub const RIG: &str = "web";
/// The service account of their pods.
const ACCOUNT: &str = "default";
/// The name of the Witness.
const WATCH: &str = "web-witness";
/// How many Polecats are created at a time.
const AT_ONCE: usize = 32;
/// How often the statuses are read: each time all of them.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long each state may take to be reached.
const LIMIT: Duration = Duration::from_mins(5);

/// A rig with its Polecats.
pub struct Fixture {
    client: Client,
    count: usize,
    tokens: TempDir,
}

fn name(n: usize) -> String {
    format!("agent-{n:05}")
}

impl Fixture {
    /// Creates all objects.
    pub async fn create(plane: &ControlPlane, count: usize) -> Result<Self> {
        let fixture = Self {
            client: plane.client()?,
            count,
            tokens: TempDir::new().context("a folder for tokens")?,
        };
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        Api::all(fixture.client.clone()).create(&PostParams::default(), &namespace).await?;
        fixture.account().await?;
        let witness: Witness = Witness::new(WATCH, serde_json::from_value(json!({"rigRef": RIG}))?);
        fixture.api().create(&PostParams::default(), &witness).await?;
        let polecats = futures::stream::iter(0..count)
            .map(|n| fixture.polecat(name(n)))
            .buffer_unordered(AT_ONCE);
        polecats.try_collect::<()>().await?;
        Ok(fixture)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Creates the account before the controller manager does: tokens are requested right away.
    async fn account(&self) -> Result<()> {
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": ACCOUNT}}))?;
        match self.api().create(&PostParams::default(), &account).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop).context("making a service account"),
        }
    }

    /// Creates a Polecat as polecat-ctl leaves it when its pod runs.
    async fn polecat(&self, name: String) -> Result<()> {
        let polecat: Polecat = self
            .api()
            .create(&PostParams::default(), &Polecat::new(&name, PolecatSpec::of_rig(RIG)))
            .await?;
        let uid = polecat.uid().context("a Polecat without a uid")?;
        let version = format!("{GROUP}/{VERSION}");
        let owner = json!({"apiVersion": version, "kind": "Polecat", "name": name, "uid": uid, "controller": true});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("polecat-{name}"), "ownerReferences": [owner]},
            "spec": {"serviceAccountName": ACCOUNT, "containers": [{"name": "claude", "image": "none"}]},
        }))?;
        let pod = self.api::<Pod>().create(&PostParams::default(), &pod).await?;
        let status = json!({"phase": "Working", "podName": pod.name_any(), "podActive": true});
        let body = json!({"apiVersion": version, "kind": "Polecat", "metadata": {"name": name}, "status": status});
        self.api::<Polecat>()
            .patch_status(
                &name,
                &PatchParams::apply(manager::POLECAT).force(),
                &Patch::Apply(&body),
            )
            .await?;
        let token = install::token(&self.client, NAMESPACE, ACCOUNT, Some(&pod)).await?;
        std::fs::write(self.token(&name), token).context("writing a token")
    }

    /// The names of all Polecats.
    pub fn polecats(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.count).map(name)
    }

    /// The folder of the tokens.
    pub fn tokens(&self) -> PathBuf {
        self.tokens.path().to_owned()
    }

    /// The token of a Polecat's pod.
    pub fn token(&self, polecat: &str) -> PathBuf {
        self.tokens.path().join(polecat)
    }

    /// Waits until the Witness counts all of them as running.
    pub async fn await_running(&self) -> Result<()> {
        let all = i32::try_from(self.count)?;
        let running = |w: &Witness| {
            w.status.as_ref().and_then(|s| s.polecats_summary).map_or(0, |s| s.running)
        };
        install::until(LIMIT, &self.api(), WATCH, &format!("{all} running"), |w| {
            w.filter(|w| running(w) == all).map(drop)
        })
        .await
    }

    /// Waits until every Polecat's status has Healthy=True.
    pub async fn await_healthy(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        let healthy = |p: &&Polecat| {
            p.status
                .as_ref()
                .is_some_and(|s| conditions::is_true(&s.conditions, condition::HEALTHY))
        };
        loop {
            // From the API server's cache: cheaper than a read of everything from etcd.
            let polecats =
                self.api::<Polecat>().list(&ListParams::default().match_any()).await?.items;
            let count = polecats.iter().filter(healthy).count();
            if count == self.count {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "only {count} of {} polecats were Healthy in time",
                self.count
            );
            sleep(INTERVAL).await;
        }
    }
}
