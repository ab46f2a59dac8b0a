//! One reconcile of a BeadStore: read it when a reading is due, write what is wanted, report.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::BeadStore;
use gastown_core::beads::Plan;
use gastown_escalations::Subject;
use gastown_runtime::controller::{Action, resync};
use gastown_runtime::jittered;
use kube::ResourceExt as _;

use crate::act;
use crate::connection::ConnectError;
use crate::context::{ActiveStore, Context};
use crate::error::{Error, StoreError};
use crate::escalations;
use crate::gather::{self, Snapshot};
use crate::report::{self, Outcome};
use crate::validate::Role;

/// The shortest wait before the next reading.
const MIN_WAIT: Duration = Duration::from_secs(1);
/// How soon the store is checked again after an error that only a person can remove.
const PERMANENT_ERROR_WAIT: Duration = Duration::from_secs(60);

pub(crate) async fn reconcile(store: Arc<BeadStore>, ctx: Arc<Context>) -> Result<Action, Error> {
    if store.metadata.deletion_timestamp.is_some() {
        act::delete(&ctx, &store).await?; // client
        return Ok(Action::await_change());
    }
    // pure, over the caches
    match ctx.role(&store) {
        Role::Inactive { reason, message } => {
            ctx.stores.remove(&store.uid().unwrap_or_default());
            report::publish(&ctx, &store, &Outcome::Inactive { reason, message }).await?; // client
            Ok(resync())
        }
        Role::Active(valid) => serve(&ctx, &ctx.active(store, valid)).await,
    }
}

async fn serve(ctx: &Context, active: &ActiveStore) -> Result<Action, Error> {
    let ActiveStore { object: store, valid, .. } = active;
    if store.spec.suspend {
        let reading = active.handle.reading(valid);
        let later = report::publish(ctx, store, &Outcome::Suspended { reading }).await?; // client
        return Ok(later.map_or_else(resync, Action::requeue));
    }
    let synced = ctx.remotes.call(&valid.host(), sync(ctx, active)).await; // client
    let error = match synced {
        Ok(()) => None,
        Err(ConnectError::Store(error)) => Some(error),
        Err(ConnectError::Kube(error)) => {
            return Err(Error::Credentials { name: store.name_any(), source: Box::new(error) });
        }
    };
    let snapshot = gather::snapshot(ctx, active); // client, caches only
    let left = plan(&snapshot, active); // pure
    report::events(ctx, store, &left, error.as_ref()); // client
    escalate(ctx, active, &left, error.as_ref());
    let age = snapshot.reading.as_ref().map(|reading| reading.at.elapsed()).unwrap_or_default();
    let outcome = Outcome::Active { valid, reading: snapshot.reading, left, error: error.clone() };
    let later = report::publish(ctx, store, &outcome).await?.unwrap_or(Duration::MAX); // client
    match error {
        None => {
            let next = jittered(valid.interval.saturating_sub(age).max(MIN_WAIT));
            Ok(Action::requeue(next.min(later)))
        }
        Some(error) if error.is_permanent() => {
            Ok(Action::requeue(jittered(valid.interval.min(PERMANENT_ERROR_WAIT)).min(later)))
        }
        Some(source) => Err(Error::Store { name: store.name_any(), source }),
    }
}

/// Reads the store when a reading is due, and makes the edits that it needs.
async fn sync(ctx: &Context, active: &ActiveStore) -> Result<(), ConnectError> {
    let Snapshot { wanted, .. } = gather::snapshot(ctx, active); // client, caches only
    let connection = ctx.connect(active, wanted.claims).await?; // client
    let ActiveStore { valid, handle, .. } = active;
    let read = handle.read(valid, &connection, valid.interval).await; // client
    read.map_err(ConnectError::Store)?;
    let snapshot = gather::snapshot(ctx, active); // client, caches only
    let plan = plan(&snapshot, active); // pure
    act::act(ctx, active, &connection, plan).await.map_err(ConnectError::Store) // client
}

/// The edits that the store needs, and the conflicts that prevent others; empty before the first
/// reading.
fn plan(Snapshot { wanted, reading }: &Snapshot, active: &ActiveStore) -> Plan {
    let reading = reading.as_ref();
    reading.map(|reading| reading.snapshot.plan(&active.valid, wanted)).unwrap_or_default()
}

fn escalate(ctx: &Context, active: &ActiveStore, left: &Plan, error: Option<&StoreError>) {
    let store = &active.object;
    let problems = escalations::problems(store, left, error); // pure
    let subject = Subject::of(store.as_ref(), &active.valid.rig);
    ctx.escalations.update(&subject, &escalations::REASONS, &problems); // client
}
