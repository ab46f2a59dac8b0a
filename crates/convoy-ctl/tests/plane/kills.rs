//! The process ends at each of its writes, once before the API server has the write and once before
//! the answer is back, and another one begins without memory: a Convoy comes to the same, and no bead
//! is dispatched twice. So it does when the connection has faults.

// Helpers may panic as tests do: a panic names the place.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use futures::StreamExt as _;
use gastown_api::names::{annotation, condition};
use gastown_api::rbac::Controller;
use gastown_api::{ConvoyPhase, Polecat};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install::SYSTEM as NAMESPACE;
use gastown_cluster::install::{self, until};
use gastown_core::convoy::polecat_name;
use gastown_fakes::connection::Connection;
use gastown_fakes::kills::{self, Lives, Process};
use gastown_runtime::{Runtime, RuntimeArgs};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use kube::runtime::watcher::{self, Event, watcher};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;

use crate::stores::{STORES, bead};
use crate::{ACCOUNT, Fixture, TIMEOUT, condition_of};

const LIVES: Lives = Lives { parallel: 16, step: 1 };

/// The controller of the other tests does not see this one.
static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

/// What a life comes to.
#[derive(Debug, PartialEq)]
struct End {
    /// The Polecats that were ever created, by bead.
    created: Vec<String>,
    /// How often the names of Polecats follow from rig and bead.
    named: usize,
    phase: Option<ConvoyPhase>,
    progress: Option<String>,
    beads: Value,
    complete: (String, String, String),
    /// What counted, and whether the end was recorded.
    counted: Value,
}

type Created = Arc<Mutex<BTreeMap<String, Polecat>>>;

/// Everything that was ever created, by uid.
fn created(rig: &Fixture) -> (Created, AbortOnDropHandle<()>) {
    let created = Created::default();
    let (seen, api) = (created.clone(), rig.polecats());
    let watching = tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        while let Some(event) = events.next().await {
            if let Event::Apply(p) | Event::InitApply(p) = event.unwrap() {
                seen.lock().insert(p.uid().unwrap(), p);
            }
        }
    });
    (created, AbortOnDropHandle::new(watching))
}

/// What people, polecat-ctl and refinery-ctl do: three beads, of which the last waits for the first,
/// in a rig with one slot.
async fn dispatched(rig: &Fixture) -> Result<End> {
    let (seen, _watching) = created(rig);
    rig.create_rig(1).await?;
    let beads = [("gt-1", &[][..]), ("gt-2", &[]), ("gt-3", &["gt-1"])];
    STORES.put(&rig.namespace, Ok(beads.map(|(id, blockers)| bead(id, blockers)).to_vec()));
    rig.create_store().await?;
    rig.create_convoy("batch", &["gt-1", "gt-2", "gt-3"], |_| {}).await?;
    for bead in ["gt-1", "gt-2", "gt-3"] {
        let polecat = rig.created(bead).await?.name_any();
        rig.set_phase(&polecat, "Done", "WorkComplete").await?;
        rig.land(bead).await?;
        // Its Polecat has gone before the next bead is looked at.
        if bead == "gt-1" {
            remove(rig, &polecat).await?;
        }
    }
    let status =
        rig.until("batch", "the end", |status| status.phase == Some(ConvoyPhase::Complete)).await?;
    // A status is written although a record before it met a conflict, which is tried again.
    let counted = |convoy: Option<&gastown_api::Convoy>| {
        let annotations = convoy?.annotations();
        annotations.get(annotation::CONVOY_ENDED)?;
        let counted = annotations.get(annotation::CONVOY_COUNTED)?;
        serde_json::from_str::<Value>(counted).ok()
    };
    let counted = until(TIMEOUT, &rig.convoys(), "batch", "its recorded end", counted).await?;
    let seen = seen.lock();
    let name = |p: &&Polecat| {
        let bead = p.spec.bead_id.clone().unwrap_or_default();
        p.name_any() == polecat_name("mad-max", &rig.namespace, &bead)
    };
    let mut created: Vec<_> =
        seen.values().map(|p| p.spec.bead_id.clone().unwrap_or_default()).collect();
    created.sort();
    let beads = status.beads.iter().map(|b| json!([b.id, b.phase])).collect();
    Ok(End {
        created,
        named: seen.values().filter(name).count(),
        phase: status.phase,
        progress: status.progress.clone(),
        beads,
        complete: condition_of(&status, condition::COMPLETE),
        counted: comparable(counted, &rig.namespace),
    })
}

async fn remove(rig: &Fixture, polecat: &str) -> Result<()> {
    use kube::api::{Patch, PatchParams};
    let off = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    rig.polecats().patch(polecat, &PatchParams::default(), &off).await?;
    rig.polecats().delete(polecat, &DeleteParams::default()).await?;
    Ok(())
}

/// Without what differs from life to life: uids, times and the rig's name.
fn comparable(value: Value, namespace: &str) -> Value {
    let is_other = |text: &str| text.len() == 36 && text.matches('-').count() == 4;
    match value {
        Value::String(text) if is_other(&text) => json!("UID"),
        Value::String(text) => json!(text.replace(namespace, "RIG")),
        Value::Array(all) => all.into_iter().map(|v| comparable(v, namespace)).collect(),
        Value::Object(all) => all.into_iter().map(|(k, v)| (k, comparable(v, namespace))).collect(),
        other => other,
    }
}

/// One life, whose first process has this connection.
async fn live(connection: Arc<Connection>) -> End {
    let plane = install::apart(&PLANE, Controller::Convoy, &[]).await.unwrap();
    let rig = Fixture::on(plane).await.unwrap();
    let start = async |connection: Arc<Connection>| {
        connection.only(&rig.namespace, &rig.namespace);
        let config = install::config(plane, Controller::Convoy);
        let work = |config| async move {
            let args = RuntimeArgs { namespace: NAMESPACE.into(), ..RuntimeArgs::from_env()? };
            let runtime = Runtime::leading(ACCOUNT, config, args)?;
            convoy_ctl::serve(runtime, STORES.clone()).await
        };
        Process::start(&connection, rig.client.clone(), config, work).await
    };
    Box::pin(kills::live(connection, start, dispatched(&rig))).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bead_is_dispatched_twice_at_whichever_write_the_process_ends() {
    let end = kills::at_every_write(LIVES, live).await;
    assert_eq!((end.created.len(), end.named), (3, 3), "{end:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bead_is_dispatched_twice_whatever_the_connection_does() {
    kills::under_each_fault(live).await;
}
