//! One watch a kind: what is kept of its objects, and which Rigs a change concerns.

use std::time::Duration;

use gastown_api::names::condition;
use gastown_api::{
    BeadStore, Convoy, ConvoyStatus, Polecat, PolecatSpec, PolecatStatus, Refinery, Rig, Witness,
};
use gastown_runtime::Runtime;
use gastown_runtime::index::Index;
use gastown_runtime::watch::{Trigger, Trim, Watch};
use kube::runtime::reflector::{ObjectRef, Store};

/// What is counted of a Rig changes with each of its Polecats, and is looked at after this time, once
/// for all that change within it.
const CROWD: Duration = Duration::from_secs(1);

pub(crate) fn rigs(runtime: &Runtime, trigger: &Trigger<Rig>) -> Store<Rig> {
    Watch::<Rig>::all(runtime).notify_self(trigger).start()
}

pub(crate) fn refineries(runtime: &Runtime, trigger: &Trigger<Rig>) -> Store<Refinery> {
    Watch::<Refinery>::all(runtime).notify(trigger, |refinery| rig(&refinery.spec.rig_ref)).start()
}

pub(crate) fn witnesses(runtime: &Runtime, trigger: &Trigger<Rig>) -> Store<Witness> {
    Watch::<Witness, Steady>::all(runtime)
        .notify(trigger, |witness| rig(&witness.spec.rig_ref))
        .start()
}

/// Keeps of a Witness what does not change at each check.
#[derive(Clone, Debug)]
struct Steady;

impl Trim<Witness> for Steady {
    fn trim(witness: &mut Witness) {
        if let Some(status) = &mut witness.status {
            (status.last_check_time, status.polecats_summary) = (None, None);
        }
    }
}

pub(crate) fn bead_stores(runtime: &Runtime, trigger: &Trigger<Rig>) -> Store<BeadStore> {
    Watch::<BeadStore>::all(runtime).notify(trigger, |store| rig(&store.spec.rig_ref)).start()
}

/// Polecats, by their Rig.
pub(crate) fn polecats(runtime: &Runtime, trigger: &Trigger<Rig>) -> Index<Polecat> {
    let by_rig = Index::default();
    Watch::<Polecat, Counted>::all(runtime)
        .index(&by_rig, |polecat: &Polecat| [polecat.spec.rig.clone()])
        .notify_within(trigger, CROWD, |polecat| rig(&polecat.spec.rig))
        .start();
    by_rig
}

/// Convoys, by their Rig.
pub(crate) fn convoys(runtime: &Runtime, trigger: &Trigger<Rig>) -> Index<Convoy> {
    let by_rig = Index::default();
    Watch::<Convoy, Phase>::all(runtime)
        .index(&by_rig, |convoy: &Convoy| convoy.spec.rig_ref.clone())
        .notify_within(trigger, CROWD, |convoy| convoy.spec.rig_ref.as_deref().map(ObjectRef::new))
        .start();
    by_rig
}

fn rig(name: &str) -> [ObjectRef<Rig>; 1] {
    [ObjectRef::new(name)]
}

/// Keeps what [`crate::gather`] reads of a Convoy.
#[derive(Clone, Debug)]
struct Phase;

impl Trim<Convoy> for Phase {
    fn trim(convoy: &mut Convoy) {
        convoy.spec.tracked_beads = Vec::new();
        convoy.metadata.annotations = None;
        if let Some(status) = convoy.status.take() {
            convoy.status = Some(ConvoyStatus { phase: status.phase, ..ConvoyStatus::default() });
        }
    }
}

/// Keeps what [`crate::gather`] reads of a Polecat: there are thousands of them.
#[derive(Clone, Debug)]
struct Counted;

impl Trim<Polecat> for Counted {
    fn trim(polecat: &mut Polecat) {
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
}
