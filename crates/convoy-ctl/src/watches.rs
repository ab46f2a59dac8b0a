//! One watch a kind: what is kept of its objects, and which Convoys a change concerns.

use std::sync::Arc;

use gastown_api::names::condition;
use gastown_api::{
    BeadStore, Convoy, ConvoyPhase, MergeRequest, Polecat, PolecatSpec, PolecatStatus, Rig,
};
use gastown_runtime::Runtime;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::watch::{Trigger, Watch};
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

pub(crate) fn convoys(runtime: &Runtime, trigger: &Trigger<Convoy>) -> Store<Convoy> {
    Watch::all(runtime).notify_self(trigger).start()
}

pub(crate) fn rigs(
    runtime: &Runtime,
    trigger: &Trigger<Convoy>,
    convoys: &Store<Convoy>,
) -> Store<Rig> {
    let convoys = convoys.clone();
    Watch::<Rig>::all(runtime)
        .trim(|rig| rig.status = None)
        .notify(trigger, move |rig| of_rig(&convoys, &rig.name_any()))
        .start()
}

pub(crate) fn bead_stores(
    runtime: &Runtime,
    trigger: &Trigger<Convoy>,
    convoys: &Store<Convoy>,
) -> Store<BeadStore> {
    let convoys = convoys.clone();
    Watch::<BeadStore>::all(runtime)
        .trim(|store| store.status = None)
        .notify(trigger, move |store| of_rig(&convoys, &store.spec.rig_ref))
        .start()
}

/// Polecats that the watch shows are forgotten in `own`.
pub(crate) fn polecats(
    runtime: &Runtime,
    trigger: &Trigger<Convoy>,
    convoys: &Store<Convoy>,
    own: &Arc<OwnWrites<Polecat>>,
) -> Store<Polecat> {
    let convoys = convoys.clone();
    Watch::<Polecat>::all(runtime)
        .trim(trim_polecat)
        .own(own)
        .notify(trigger, move |polecat| {
            of_bead(&convoys, &polecat.spec.rig, polecat.spec.bead_id.as_deref())
        })
        .start()
}

pub(crate) fn merge_requests(
    runtime: &Runtime,
    trigger: &Trigger<Convoy>,
    convoys: &Store<Convoy>,
) -> Store<MergeRequest> {
    let convoys = convoys.clone();
    Watch::<MergeRequest>::all(runtime)
        .trim(trim_merge_request)
        .notify(trigger, move |request| {
            of_bead(&convoys, &request.spec.rig_ref, request.spec.bead_id.as_deref())
        })
        .start()
}

fn of_rig(convoys: &Store<Convoy>, rig: &str) -> Vec<ObjectRef<Convoy>> {
    references(convoys, |convoy| convoy.spec.rig_ref.as_deref() == Some(rig))
}

fn of_bead(convoys: &Store<Convoy>, rig: &str, bead: Option<&str>) -> Vec<ObjectRef<Convoy>> {
    references(convoys, |convoy| is_concerned(convoy, rig, bead))
}

fn references(convoys: &Store<Convoy>, wanted: impl Fn(&Convoy) -> bool) -> Vec<ObjectRef<Convoy>> {
    let convoys = convoys.state_filter(wanted);
    convoys.iter().map(|convoy| ObjectRef::from_obj(convoy.as_ref())).collect()
}

/// Whether a Polecat or a MergeRequest of this rig and bead concerns a Convoy: it is about one of
/// the Convoy's beads, or it takes or frees a slot of the Rig.
fn is_concerned(convoy: &Convoy, rig: &str, bead: Option<&str>) -> bool {
    let spec = &convoy.spec;
    let is_of_rig = spec.rig_ref.as_deref().is_none_or(|named| named == rig);
    is_of_rig
        && ((spec.dispatch && !is_complete(convoy))
            || bead.is_some_and(|bead| spec.tracked_beads.iter().any(|tracked| tracked == bead)))
}

/// Whether all beads of a Convoy were done when its status was written.
pub(crate) fn is_complete(convoy: &Convoy) -> bool {
    convoy.status.as_ref().and_then(|status| status.phase) == Some(ConvoyPhase::Complete)
}

/// Keeps what [`crate::gather`] reads of a Polecat: there are thousands of them.
pub(crate) fn trim_polecat(polecat: &mut Polecat) {
    let mut kept = PolecatSpec::of_rig(std::mem::take(&mut polecat.spec.rig));
    kept.desired_state = polecat.spec.desired_state;
    kept.bead_id = polecat.spec.bead_id.take();
    polecat.spec = kept;
    polecat.metadata.annotations = None;
    polecat.metadata.labels = None;
    if let Some(status) = polecat.status.take() {
        let mut conditions = status.conditions;
        let kept = [condition::DEGRADED, condition::MERGED];
        conditions.retain(|condition| kept.contains(&condition.type_.as_str()));
        polecat.status =
            Some(PolecatStatus { phase: status.phase, conditions, ..PolecatStatus::default() });
    }
}

fn trim_merge_request(request: &mut MergeRequest) {
    request.metadata.annotations = None;
    if let Some(status) = request.status.as_mut() {
        status.attempts.clear();
        status.conditions.clear();
    }
}
