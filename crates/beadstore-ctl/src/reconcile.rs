//! One pass over a BeadStore: read when it is time, write what is wanted, say how it stands.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::BeadStore;
use gastown_api::names::{finalizer, manager};
use gastown_escalations::Subject;
use gastown_runtime::apply;
use gastown_runtime::controller::resync;
use gastown_runtime::events::Note;

use kube::runtime::controller::Action;
use kube::{Api, ResourceExt as _};

use crate::context::{Context, Error, NoWay};
use crate::desk::{Desk, Fault, Way, Written};
use crate::escalations;
use crate::gather;
use crate::place::{Place, Setting};
use crate::plan::{Deed, Plan, plan};
use crate::report::{self, State};
use crate::view::View;

/// The shortest wait for the next reading.
const LEAST: Duration = Duration::from_secs(1);
/// How soon it is looked whether a person has put right what only a person can.
const LASTING: Duration = Duration::from_secs(60);

pub(crate) async fn reconcile(
    store: Arc<BeadStore>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let uid = store.uid().unwrap_or_default();
    if store.metadata.deletion_timestamp.is_some() {
        context.desks.forget(&uid);
        let api = Api::<BeadStore>::namespaced(
            context.runtime.client.clone(),
            &store.namespace().unwrap_or_default(),
        );
        let name = store.name_any();
        let removed = apply::remove_finalizer(
            &api,
            manager::BEAD_STORE,
            store.as_ref(),
            finalizer::BEAD_STORE,
        )
        .await;
        removed.map_err(|source| Error::Apply {
            doing: "taking the Go operator's finalizer off",
            name,
            source,
        })?;
        return Ok(Action::await_change());
    }
    match context.place(&store) {
        Place::Stands { reason, message } => {
            context.desks.forget(&uid);
            report::publish(&context, &store, &State::Stands { reason, message }).await?;
            Ok(resync())
        }
        Place::Serves(setting) => serve(&context, &store, &setting, &context.desks.of(&uid)).await,
    }
}

async fn serve(
    context: &Context,
    store: &BeadStore,
    setting: &Setting,
    desk: &Desk,
) -> Result<Action, Error> {
    if store.spec.suspend {
        report::publish(context, store, &State::Suspended { seen: desk.seen(setting) }).await?;
        return Ok(resync());
    }
    let fault = match context.way(store, setting).await {
        Ok(way) => pass(context, store, setting, desk, &way).await.err(),
        Err(NoWay::Told(fault)) => Some(fault),
        Err(NoWay::Kube(error)) => {
            return Err(Error::Credentials { name: store.name_any(), source: Box::new(error) });
        }
    };
    let seen = desk.seen(setting);
    let left = seen.as_ref().map(|seen| wanted(context, setting, &seen.view)).unwrap_or_default();
    say(context, store, &left, fault.as_ref());
    let problems = escalations::problems(store, &left, fault.as_ref());
    context.escalations.update(&Subject::of(store, &setting.rig), &escalations::REASONS, &problems);
    report::publish(
        context,
        store,
        &State::Serves { setting, seen: seen.clone(), left, fault: fault.clone() },
    )
    .await?;
    match fault {
        None => {
            let age = seen.map(|seen| seen.at.elapsed()).unwrap_or_default();
            Ok(Action::requeue(gastown_runtime::jittered(
                setting.interval.saturating_sub(age).max(LEAST),
            )))
        }
        // A person must do something, which shows at the next reading.
        Some(fault) if fault.is_lasting() => {
            Ok(Action::requeue(gastown_runtime::jittered(setting.interval.min(LASTING))))
        }
        Some(source) => Err(Error::Store { name: store.name_any(), source }),
    }
}

/// What is wanted and not in the store.
fn wanted(context: &Context, setting: &Setting, view: &View) -> Plan {
    plan(
        &setting.rig,
        &gather::wanted(context, &setting.rig),
        view.issues(),
        view.ledger(),
        &setting.prefixes,
    )
}

async fn pass(
    context: &Context,
    store: &BeadStore,
    setting: &Setting,
    desk: &Desk,
    way: &Way,
) -> Result<(), Fault> {
    let seen = desk.read(setting, way, setting.interval).await?;
    let deeds = |view: &View| {
        let all = wanted(context, setting, view).deeds;
        all.into_iter()
            .filter(|deed| !desk.is_refused(deed, setting.interval))
            .collect::<Vec<Deed>>()
    };
    // Without a wish there is nothing to ask for between two readings.
    if deeds(&seen.view).is_empty() || seen.view.writable(setting.policy).is_err() {
        return Ok(());
    }
    let Written { applied, commit, .. } = desk.write(setting, way, deeds).await?;
    let mut refused = Vec::new();
    for (deed, error) in &applied.refused {
        let words = deed.words();
        tracing::warn!(deed = words, %error, "the store does not take it");
        refused.push(format!("{words}: {error}"));
    }
    if !refused.is_empty() {
        context
            .runtime
            .events
            .publish(store, Note::warning("Refused", "BeadsRefused", refused.join("; ")));
    }
    if applied.is_news() {
        let words: Vec<String> = applied.done.iter().map(|(deed, _)| deed.words()).collect();
        let words = commit.map_or_else(
            || words.join("; "),
            |commit| format!("{} ({})", words.join("; "), commit.short()),
        );
        tracing::info!(words, "the store was written");
        context.runtime.events.publish(store, Note::normal("Writes", "BeadsWritten", words));
    }
    Ok(())
}

/// An event for what stands against the town's wishes, once until it changes.
fn say(context: &Context, store: &BeadStore, left: &Plan, fault: Option<&Fault>) {
    if let Some(fault) = fault {
        context
            .runtime
            .events
            .publish(store, Note::warning("Store", fault.reason(), fault.message()));
    }
    if !left.against.is_empty() {
        let words: Vec<&str> = left.against.iter().take(5).map(|(_, why)| why.as_str()).collect();
        context
            .runtime
            .events
            .publish(store, Note::warning("Contended", "Contended", words.join("; ")));
    }
}
