//! The process ends at each of its writes, once before the API server has the write and once before
//! the answer is back, and another one begins without memory: a Rig gets the same children, and goes
//! in the same order. So it does when the connection has faults.

// Helpers may panic as tests do: a panic names the place.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use gastown_api::names::finalizer;
use gastown_api::rbac::Controller;
use gastown_api::{BeadStore, BeadStoreTemplate, PolecatPhase, Refinery, Rig, RigSpec, Witness};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install::{self, until};
use gastown_fakes::connection::Connection;
use gastown_fakes::kills::{self, Lives, Process};
use gastown_runtime::{Runtime, RuntimeArgs};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use parking_lot::Mutex;
use rig_ctl::RigArgs;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;

use crate::{ACCOUNT, TIMEOUT, create_polecat, create_rig, ready, rigs, set_ready, spec};

const LIVES: Lives = Lives { parallel: 16, step: 1 };

/// The controller of the other tests does not see this one.
static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

/// What a life comes to.
#[derive(Debug, PartialEq)]
struct End {
    /// The children that were ever created, by kind: no child is created twice.
    created: BTreeMap<&'static str, usize>,
    /// What the Rig showed with all of its children.
    shown: Value,
    /// What it showed while its Polecat was at work after the deletion.
    waited: Value,
    /// Children that are left.
    left: usize,
}

/// The uids of the children that were seen, by kind.
type Seen = Arc<Mutex<BTreeMap<&'static str, Vec<String>>>>;

fn watch<K>(
    seen: &Seen,
    client: &Client,
    namespace: &str,
    kind: &'static str,
) -> AbortOnDropHandle<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let (seen, api) = (seen.clone(), Api::<K>::namespaced(client.clone(), namespace));
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        while let Some(event) = events.next().await {
            if let Event::Apply(object) | Event::InitApply(object) = event.unwrap() {
                let uid = object.meta().uid.clone().unwrap();
                let mut seen = seen.lock();
                let uids = seen.entry(kind).or_default();
                if !uids.contains(&uid) {
                    uids.push(uid);
                }
            }
        }
    }))
}

/// A Rig, and the namespace of its installation.
struct Life {
    client: Client,
    namespace: String,
    rig: String,
}

impl Life {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Reports a child ready, as its own controller does.
    async fn child<K>(&self, suffix: &str) -> Result<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let (api, name) = (self.api::<K>(), format!("{}-{suffix}", self.rig));
        until(TIMEOUT, &api, &name, "the child", |child| child.map(|_| ())).await?;
        set_ready(&api, &name, true, "Idle", "").await
    }

    /// What the Rig shows, without what differs from life to life.
    fn shown(&self, rig: &Rig) -> Value {
        let status = rig.status.clone().unwrap_or_default();
        let ready = ready(Some(rig)).map(|c| {
            let message = c.message.replace(&self.rig, "RIG").replace(&self.namespace, "NS");
            json!([c.status, c.reason, message])
        });
        let has_finalizer = rig.finalizers().iter().any(|f| f == finalizer::RIG);
        json!([status.phase, ready, has_finalizer, status.refinery_created, status.witness_created])
    }

    async fn wait(&self, what: &str, want: impl Fn(&Rig) -> bool) -> Result<Value> {
        let found = |rig: Option<&Rig>| rig.filter(|rig| want(rig)).map(|rig| self.shown(rig));
        until(TIMEOUT, &rigs(&self.client), &self.rig, what, found).await
    }

    async fn left(&self) -> Result<usize> {
        let all = kube::api::ListParams::default();
        Ok(self.api::<Refinery>().list(&all).await?.items.len()
            + self.api::<Witness>().list(&all).await?.items.len()
            + self.api::<BeadStore>().list(&all).await?.items.len())
    }

    /// What people and the other controllers do.
    async fn live(&self) -> Result<End> {
        let seen = Seen::default();
        let _watches = [
            watch::<Refinery>(&seen, &self.client, &self.namespace, "Refinery"),
            watch::<Witness>(&seen, &self.client, &self.namespace, "Witness"),
            watch::<BeadStore>(&seen, &self.client, &self.namespace, "BeadStore"),
        ];
        let beads = Some(BeadStoreTemplate::default());
        create_rig(&self.client, &self.rig, RigSpec { beads, ..spec() }).await?;
        self.child::<Refinery>("refinery").await?;
        self.child::<Witness>("witness").await?;
        self.child::<BeadStore>("beads").await?;
        let is_ready = |rig: &Rig| ready(Some(rig)).is_some_and(|ready| ready.status == "True");
        let shown = self.wait("readiness", is_ready).await?;

        let working = Some(PolecatPhase::Working);
        create_polecat(&self.client, &self.namespace, "toast", &self.rig, working).await?;
        let counted =
            |rig: &Rig| rig.status.as_ref().is_some_and(|status| status.polecat_count == 1);
        self.wait("the Polecat's count", counted).await?;
        rigs(&self.client).delete(&self.rig, &DeleteParams::default()).await?;
        let is_waiting =
            |rig: &Rig| ready(Some(rig)).is_some_and(|ready| ready.message.contains("toast"));
        let waited = self.wait("what its deletion waits for", is_waiting).await?;
        ensure!(self.left().await? == 3, "children went before the Polecat");
        let done = Patch::Merge(json!({"status": {"phase": "Done"}}));
        let polecats = self.api::<gastown_api::Polecat>();
        polecats.patch_status("toast", &PatchParams::default(), &done).await?;
        let gone = |rig: Option<&Rig>| rig.is_none().then_some(());
        until(TIMEOUT, &rigs(&self.client), &self.rig, "its end", gone).await?;
        let created = seen.lock().iter().map(|(kind, uids)| (*kind, uids.len())).collect();
        Ok(End { created, shown, waited, left: self.left().await? })
    }
}

/// One life, whose first process has this connection.
async fn live(connection: Arc<Connection>) -> End {
    let plane = install::apart(&PLANE, Controller::Rig, &[]).await.unwrap();
    let namespace = plane.namespace().await.unwrap();
    install::install_in(plane, Controller::Rig, &namespace).await.unwrap();
    let rig = format!("rig-{namespace}");
    let life = Life { client: plane.client().unwrap(), namespace, rig };
    let start = async |connection: Arc<Connection>| {
        connection.only(&life.namespace, &life.rig);
        let config = install::config(plane, Controller::Rig);
        let namespace = life.namespace.clone();
        let work = |config| async move {
            let args = RuntimeArgs { namespace, ..RuntimeArgs::from_env()? };
            let runtime = Runtime::leading(ACCOUNT, config, args)?;
            rig_ctl::start(runtime, RigArgs {}).await
        };
        Process::start(&connection, life.client.clone(), config, work).await
    };
    Box::pin(kills::live(connection, start, life.live())).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rig_gets_its_children_and_goes_in_order_at_whichever_write_the_process_ends() {
    let end = kills::at_every_write(LIVES, live).await;
    assert!(end.created.values().all(|n| *n == 1) && end.left == 0, "{end:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rig_gets_its_children_and_goes_in_order_whatever_the_connection_does() {
    kills::under_each_fault(live).await;
}
