//! One watch a kind: what is kept of its objects, and which Rigs a change concerns.

use gastown_api::names::condition;
use gastown_api::{BeadStore, Convoy, Polecat, PolecatSpec, PolecatStatus, Refinery, Rig, Witness};
use gastown_runtime::Runtime;
use gastown_runtime::watch::{Trigger, Watch};
use kube::runtime::reflector::{ObjectRef, Store};

pub(crate) fn rigs(runtime: &Runtime, trigger: &Trigger<Rig>) -> Store<Rig> {
    Watch::all(runtime).notify_self(trigger).start()
}

pub(crate) fn refineries(runtime: &Runtime, trigger: &Trigger<Rig>) -> Store<Refinery> {
    Watch::<Refinery>::all(runtime).notify(trigger, |refinery| rig(&refinery.spec.rig_ref)).start()
}

pub(crate) fn witnesses(runtime: &Runtime, trigger: &Trigger<Rig>) -> Store<Witness> {
    Watch::<Witness>::all(runtime)
        .trim(|witness| {
            if let Some(status) = &mut witness.status {
                // What changes at each check is of no use here.
                (status.last_check_time, status.polecats_summary) = (None, None);
            }
        })
        .notify(trigger, |witness| rig(&witness.spec.rig_ref))
        .start()
}

pub(crate) fn bead_stores(runtime: &Runtime, trigger: &Trigger<Rig>) -> Store<BeadStore> {
    Watch::<BeadStore>::all(runtime).notify(trigger, |store| rig(&store.spec.rig_ref)).start()
}

pub(crate) fn polecats(runtime: &Runtime, trigger: &Trigger<Rig>) -> Store<Polecat> {
    Watch::<Polecat>::all(runtime)
        .trim(trim_polecat)
        .notify(trigger, |polecat| rig(&polecat.spec.rig))
        .start()
}

pub(crate) fn convoys(runtime: &Runtime, trigger: &Trigger<Rig>) -> Store<Convoy> {
    Watch::<Convoy>::all(runtime)
        .trim(|convoy| convoy.spec.tracked_beads.clear())
        .notify(trigger, |convoy| convoy.spec.rig_ref.as_deref().map(ObjectRef::new))
        .start()
}

fn rig(name: &str) -> [ObjectRef<Rig>; 1] {
    [ObjectRef::new(name)]
}

/// Keeps what [`crate::gather`] reads of a Polecat: there are thousands of them.
fn trim_polecat(polecat: &mut Polecat) {
    let mut kept = PolecatSpec::of_rig(std::mem::take(&mut polecat.spec.rig));
    kept.desired_state = polecat.spec.desired_state;
    polecat.spec = kept;
    polecat.metadata.annotations = None;
    polecat.metadata.labels = None;
    if let Some(status) = polecat.status.take() {
        let mut conditions = status.conditions;
        conditions.retain(|condition| condition.type_ == condition::ADMITTED);
        polecat.status = Some(PolecatStatus {
            phase: status.phase,
            pod_active: status.pod_active,
            conditions,
            ..PolecatStatus::default()
        });
    }
}
