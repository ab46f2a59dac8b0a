//! One watch a kind: what is kept of its objects, and which Convoys a change concerns.

use std::sync::Arc;

use gastown_api::names::{annotation, condition};
use gastown_api::{
    BeadStore, Convoy, ConvoyPhase, MergeRequest, Polecat, PolecatSpec, PolecatStatus, Rig,
};
use gastown_runtime::Runtime;
use gastown_runtime::index::Index;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::watch::{NoStatus, Trigger, Trim, Watch};
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::indices::{Indices, bead_key, bead_keys, is_active};
use crate::waiting::Waiting;

pub(crate) fn convoys(
    runtime: &Runtime,
    trigger: &Trigger<Convoy>,
    indices: &Indices,
) -> Store<Convoy> {
    Watch::<Convoy>::all(runtime)
        .index(&indices.convoys_by_rig, |convoy: &Convoy| convoy.spec.rig_ref.clone())
        .index(&indices.convoys_by_bead, |convoy: &Convoy| {
            let rig = convoy.spec.rig_ref.as_deref();
            let beads = convoy.spec.tracked_beads.iter();
            beads.map(|bead| bead_key(rig, bead)).collect::<Vec<_>>()
        })
        .notify_self(trigger)
        .start()
}

pub(crate) fn rigs(runtime: &Runtime, trigger: &Trigger<Convoy>, indices: &Indices) -> Store<Rig> {
    let convoys = indices.convoys_by_rig.clone();
    Watch::<Rig, NoStatus>::all(runtime)
        .notify(trigger, move |rig| convoys.references(&rig.name_any()))
        .start()
}

pub(crate) fn bead_stores(
    runtime: &Runtime,
    trigger: &Trigger<Convoy>,
    indices: &Indices,
) -> Store<BeadStore> {
    let convoys = indices.convoys_by_rig.clone();
    Watch::<BeadStore, NoStatus>::all(runtime)
        .notify(trigger, move |store| convoys.references(&store.spec.rig_ref))
        .start()
}

/// Polecats that the watch shows are forgotten in `own`. A change concerns the Convoys that track the
/// bead, and may free a slot for one that waits.
pub(crate) fn polecats(
    runtime: &Runtime,
    trigger: &Trigger<Convoy>,
    indices: &Indices,
    waiting: &Arc<Waiting>,
    own: &Arc<OwnWrites<Polecat>>,
) -> Store<Polecat> {
    let (convoys, waiting) = (indices.convoys_by_bead.clone(), waiting.clone());
    Watch::<Polecat, OfBead>::all(runtime)
        .own(own)
        .index(&indices.polecats_by_bead, |polecat: &Polecat| {
            bead_keys(&polecat.spec.rig, polecat.spec.bead_id.as_deref())
        })
        .index(&indices.active_by_rig, |polecat: &Polecat| {
            is_active(polecat).then(|| polecat.spec.rig.clone())
        })
        .notify(trigger, move |polecat| {
            of_bead(&convoys, &polecat.spec.rig, polecat.spec.bead_id.as_deref())
        })
        .notify(trigger, move |polecat| waiting.wake(&polecat.spec.rig))
        .start()
}

pub(crate) fn merge_requests(runtime: &Runtime, trigger: &Trigger<Convoy>, indices: &Indices) {
    let convoys = indices.convoys_by_bead.clone();
    Watch::<MergeRequest, State>::all(runtime)
        .index(&indices.requests_by_bead, |request: &MergeRequest| {
            bead_keys(&request.spec.rig_ref, request.spec.bead_id.as_deref())
        })
        .notify(trigger, move |request| {
            of_bead(&convoys, &request.spec.rig_ref, request.spec.bead_id.as_deref())
        })
        .start();
}

/// The Convoys that track a bead.
fn of_bead(convoys: &Index<Convoy>, rig: &str, bead: Option<&str>) -> Vec<ObjectRef<Convoy>> {
    let keys = bead_keys(rig, bead);
    keys.iter().flat_map(|key| convoys.references(key)).collect()
}

/// Whether all beads of a Convoy were done when its status was written.
pub(crate) fn is_complete(convoy: &Convoy) -> bool {
    convoy.status.as_ref().and_then(|status| status.phase) == Some(ConvoyPhase::Complete)
}

/// Keeps what [`crate::gather`] reads of a Polecat: there are thousands of them.
#[derive(Clone, Debug)]
pub(crate) struct OfBead;

impl Trim<Polecat> for OfBead {
    fn trim(polecat: &mut Polecat) {
        let mut kept = PolecatSpec::of_rig(std::mem::take(&mut polecat.spec.rig));
        kept.desired_state = polecat.spec.desired_state;
        kept.bead_id = polecat.spec.bead_id.take();
        polecat.spec = kept;
        polecat.metadata.annotations = polecat.metadata.annotations.take().and_then(|mut all| {
            all.retain(|key, _| key == annotation::TRACEPARENT);
            (!all.is_empty()).then_some(all)
        });
        polecat.metadata.labels = None;
        if let Some(status) = polecat.status.take() {
            let mut conditions = status.conditions;
            let kept = [condition::DEGRADED, condition::MERGED];
            conditions.retain(|condition| kept.contains(&condition.type_.as_str()));
            polecat.status =
                Some(PolecatStatus { phase: status.phase, conditions, ..PolecatStatus::default() });
        }
    }
}

#[derive(Clone, Debug)]
struct State;

impl Trim<MergeRequest> for State {
    fn trim(request: &mut MergeRequest) {
        request.metadata.annotations = None;
        if let Some(status) = request.status.as_mut() {
            status.attempts.clear();
            status.conditions.clear();
        }
    }
}
