//! What is watched, what is kept of it, and what a change has reconciled.

use std::sync::{Arc, OnceLock};

use gastown_api::names::condition;
use gastown_api::{Escalation, Polecat, PolecatSpec, PolecatStatus, Witness};
use gastown_runtime::Runtime;
use gastown_runtime::watch::{Trigger, Watch};
use kube::runtime::reflector::{ObjectRef, Store};

/// Every Escalation; a change reconciles it.
pub(crate) fn escalations(
    runtime: &Runtime,
    escalation: &Trigger<Escalation>,
) -> Store<Escalation> {
    Watch::<Escalation>::all(runtime).notify_self(escalation).start()
}

/// Every Witness. A change reconciles it and the other Witnesses of its rig, because another one
/// may be active now, and the rig's Escalations, because the routes may be others.
pub(crate) fn witnesses(
    runtime: &Runtime,
    witness: &Trigger<Witness>,
    escalation: &Trigger<Escalation>,
    escalations: &Store<Escalation>,
) -> Store<Witness> {
    let own: Arc<OnceLock<Store<Witness>>> = Arc::default();
    let peers = {
        let own = own.clone();
        move |changed: &Witness| {
            own.get().map(|all| of_rig(all, &changed.spec.rig_ref)).unwrap_or_default()
        }
    };
    let escalations_of_rig = {
        let escalations = escalations.clone();
        move |changed: &Witness| {
            let rig = &changed.spec.rig_ref;
            let all = escalations.state_filter(|e| e.spec.rig_ref == *rig);
            all.iter().map(|e| ObjectRef::from_obj(e.as_ref())).collect::<Vec<_>>()
        }
    };
    let store = Watch::<Witness>::all(runtime)
        .notify_self(witness)
        .notify(witness, peers)
        .notify(escalation, escalations_of_rig)
        .start();
    let _ = own.set(store.clone());
    store
}

/// Every Polecat; a change reconciles the Witnesses of its rig.
pub(crate) fn polecats(
    runtime: &Runtime,
    witness: &Trigger<Witness>,
    witnesses: &Store<Witness>,
) -> Store<Polecat> {
    let witnesses = witnesses.clone();
    Watch::<Polecat>::all(runtime)
        .trim(trim_polecat)
        .notify(witness, move |changed| of_rig(&witnesses, &changed.spec.rig))
        .start()
}

fn of_rig(witnesses: &Store<Witness>, rig: &str) -> Vec<ObjectRef<Witness>> {
    let all = witnesses.state_filter(|w| w.spec.rig_ref == rig);
    all.iter().map(|w| ObjectRef::from_obj(w.as_ref())).collect()
}

/// Keeps of a Polecat what is assessed and counted: there are thousands.
fn trim_polecat(polecat: &mut Polecat) {
    polecat.spec = PolecatSpec::of_rig(std::mem::take(&mut polecat.spec.rig));
    polecat.metadata.annotations = None;
    polecat.metadata.labels = None;
    if let Some(status) = polecat.status.take() {
        let read = [condition::HEALTHY, condition::SAVED, condition::DEGRADED];
        polecat.status = Some(PolecatStatus {
            phase: status.phase,
            pod_name: status.pod_name,
            pod_active: status.pod_active,
            activity: status.activity,
            conditions: status
                .conditions
                .into_iter()
                .filter(|c| read.contains(&c.type_.as_str()))
                .collect(),
            ..PolecatStatus::default()
        });
    }
}
