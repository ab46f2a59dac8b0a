//! What is watched, what is kept of it, and what a change has reconciled.

use std::time::Duration;

use gastown_api::names::condition;
use gastown_api::{Escalation, Polecat, PolecatSpec, PolecatStatus, Witness};
use gastown_runtime::Runtime;
use gastown_runtime::index::Index;
use gastown_runtime::watch::{Trigger, Trim, Watch};
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::context::escalations_key;

/// Polecats that change within this time are assessed in one pass.
const CROWD: Duration = Duration::from_millis(500);

/// Every Escalation; a change reconciles it.
pub(crate) fn escalations(
    runtime: &Runtime,
    escalation: &Trigger<Escalation>,
    by_cause: &Index<Escalation>,
) -> Store<Escalation> {
    Watch::<Escalation>::all(runtime)
        .index(by_cause, |escalation: &Escalation| {
            let namespace = escalation.namespace().unwrap_or_default();
            [escalations_key(&namespace, &escalation.spec.cause)]
        })
        .notify_self(escalation)
        .start()
}

/// Every Witness. A change reconciles it and the other Witnesses of its rig, because another one
/// may be active now, and the rig's Escalations, because the routes may be others.
pub(crate) fn witnesses(
    runtime: &Runtime,
    witness: &Trigger<Witness>,
    escalation: &Trigger<Escalation>,
    escalations: &Store<Escalation>,
    by_rig: &Index<Witness>,
) -> Store<Witness> {
    let all = by_rig.clone();
    let peers = move |changed: &Witness| all.references(&changed.spec.rig_ref);
    let escalations_of_rig = {
        let escalations = escalations.clone();
        move |changed: &Witness| {
            let rig = &changed.spec.rig_ref;
            let all = escalations.state_filter(|e| e.spec.rig_ref == *rig);
            all.iter().map(|e| ObjectRef::from_obj(e.as_ref())).collect::<Vec<_>>()
        }
    };
    Watch::<Witness>::all(runtime)
        .index(by_rig, |witness: &Witness| [witness.spec.rig_ref.clone()])
        .notify_self(witness)
        .notify(witness, peers)
        .notify(escalation, escalations_of_rig)
        .start()
}

/// Every Polecat; a change reconciles the Witnesses of its rig.
pub(crate) fn polecats(
    runtime: &Runtime,
    witness: &Trigger<Witness>,
    witnesses: &Index<Witness>,
    by_rig: &Index<Polecat>,
) -> Store<Polecat> {
    let witnesses = witnesses.clone();
    Watch::<Polecat, Assessed>::all(runtime)
        .index(by_rig, |polecat: &Polecat| [polecat.spec.rig.clone()])
        .notify_within(witness, CROWD, move |changed| witnesses.references(&changed.spec.rig))
        .start()
}

/// Keeps of a Polecat what is assessed and counted: there are thousands.
#[derive(Clone, Debug)]
struct Assessed;

impl Trim<Polecat> for Assessed {
    fn trim(polecat: &mut Polecat) {
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
}
