//! Carries out plans: edits of the store, and the end of a BeadStore.

use gastown_api::BeadStore;
use gastown_api::names::{finalizer, manager};
use gastown_core::beads::{Edit, Plan};
use gastown_runtime::apply;
use gastown_runtime::events::Note;
use kube::{Api, ResourceExt as _};

use crate::connection::Connection;
use crate::context::{ActiveStore, Context};
use crate::error::{Error, StoreError};
use crate::gather;
use crate::snapshot::StoreSnapshot;
use crate::store::Written;

/// Makes the edits of a plan that the store has not refused lately. Each attempt plans again on the
/// newest contents of the store, so that nothing is lost to a writer who was faster.
pub(crate) async fn act(
    ctx: &Context,
    active: &ActiveStore,
    connection: &Connection,
    plan: Plan,
) -> Result<(), StoreError> {
    let ActiveStore { valid, handle, .. } = active;
    let accepted = |plan: Plan| -> Vec<Edit> {
        let edits = plan.edits.into_iter();
        edits.filter(|edit| !handle.is_refused(edit, valid.interval)).collect()
    };
    let is_writable = |snapshot: &StoreSnapshot| snapshot.writable(valid.policy).is_ok();
    let Some(last) = handle.reading(valid) else { return Ok(()) };
    // Without edits the store is left alone until the next reading.
    let is_due = !accepted(plan).is_empty() || last.snapshot.needs_settling(valid.policy);
    if !is_due || !is_writable(&last.snapshot) {
        return Ok(());
    }
    let edits =
        |snapshot: &StoreSnapshot| accepted(snapshot.plan(valid, &gather::wanted(ctx, &valid.rig)));
    let written = handle.write(valid, connection, edits).await?;
    publish(ctx, &active.object, &written);
    Ok(())
}

/// Logs the edits that succeeded, and publishes an Event about those that were refused.
fn publish(ctx: &Context, store: &BeadStore, written: &Written) {
    let Written { applied, commit, .. } = written;
    let mut refused = Vec::new();
    for (edit, error) in &applied.refused {
        let edit = edit.summary();
        tracing::warn!(edit, %error, "the store refuses an edit");
        refused.push(format!("{edit}: {error}"));
    }
    if !refused.is_empty() {
        let note = Note::warning("Refused", "BeadsRefused", refused.join("; "));
        ctx.runtime.events.publish(store, note);
    }
    if applied.needs_commit() {
        let edits: Vec<String> = applied.done.iter().map(|(edit, _)| edit.summary()).collect();
        let settled: Vec<String> = applied
            .settled
            .iter()
            .take(5)
            .map(|bead| format!("Keep the later edits of {bead}"))
            .collect();
        let mut edits = [edits, settled].concat().join("; ");
        if let Some(commit) = commit {
            edits = format!("{edits} ({})", commit.short());
        }
        // Not an Event: each edit is a commit, or a line in the server's log, of its own.
        tracing::info!(edits, "the store was edited");
    }
}

/// Ends a BeadStore that is being deleted.
pub(crate) async fn delete(ctx: &Context, store: &BeadStore) -> Result<(), Error> {
    ctx.stores.remove(&store.uid().unwrap_or_default());
    let api = Api::<BeadStore>::namespaced(
        ctx.runtime.client.clone(),
        &store.namespace().unwrap_or_default(),
    );
    apply::remove_finalizer(&api, manager::BEAD_STORE, store, finalizer::BEAD_STORE)
        .await
        .map(drop)
        .map_err(|source| Error::Apply {
            doing: "removing the Go operator's finalizer from",
            name: store.name_any(),
            source,
        })
}
