//! The watches: what is cached of each kind, and which Refineries a change concerns.

use std::sync::{Arc, OnceLock};

use gastown_api::names::condition;
use gastown_api::{MergeRequest, Polecat, PolecatSpec, PolecatStatus, Refinery, Rig};
use gastown_runtime::Runtime;
use gastown_runtime::watch::{self, Trigger, Triggers, Watch};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt as _};

use crate::context::{Stores, is_merged};
use crate::gate;
use crate::record::RequestRecord;

/// Starts all watches.
pub(crate) fn start(runtime: &Runtime) -> (Stores, Triggers<Refinery>) {
    let (trigger, triggers) = watch::triggers::<Refinery>();
    let known = Known::default();
    let refineries = refineries(runtime, &trigger, &known);
    let rigs = rigs(runtime, &trigger, &known);
    let requests = requests(runtime, &trigger, &known);
    let polecats = polecats(runtime, &trigger, &known, &requests);
    let jobs = jobs(runtime, &trigger);
    let pods = pods(runtime, &trigger, &jobs);
    (Stores { refineries, requests, polecats, rigs, jobs, pods }, triggers)
}

/// The Refineries in the cache, for the watches that map changes to them. The watch of the
/// Refineries itself needs them too, so the store is set after it was started.
#[derive(Clone, Default)]
struct Known(Arc<OnceLock<Store<Refinery>>>);

impl Known {
    /// References to the Refineries for which `wanted` holds.
    fn references(&self, wanted: impl Fn(&Refinery) -> bool) -> Vec<ObjectRef<Refinery>> {
        let all = self.0.get().map(Store::state).unwrap_or_default();
        all.iter().filter(|r| wanted(r)).map(|r| ObjectRef::from_obj(r.as_ref())).collect()
    }

    /// References to the Refineries for the rig and the branch of a request.
    fn for_request(&self, request: &MergeRequest) -> Vec<ObjectRef<Refinery>> {
        let (rig, target) = (&request.spec.rig_ref, &request.spec.target_branch);
        self.references(|r| r.spec.rig_ref == *rig && r.spec.target_branch == *target)
    }
}

/// A Refinery that comes or goes changes the roles of the others of its branch.
fn refineries(runtime: &Runtime, trigger: &Trigger<Refinery>, known: &Known) -> Store<Refinery> {
    let map = {
        let known = known.clone();
        move |changed: &Refinery| {
            let target = &changed.spec.target_branch;
            let mut references = vec![ObjectRef::from_obj(changed)];
            references.extend(known.references(|r| r.spec.target_branch == *target));
            references
        }
    };
    let store = Watch::<Refinery>::all(runtime).notify(trigger, map).start();
    let _ = known.0.set(store.clone());
    store
}

fn rigs(runtime: &Runtime, trigger: &Trigger<Refinery>, known: &Known) -> Store<Rig> {
    let known = known.clone();
    let map = move |rig: &Rig| {
        let name = rig.name_any();
        known.references(|r| r.spec.rig_ref == name)
    };
    Watch::<Rig>::all(runtime).trim(|rig| rig.status = None).notify(trigger, map).start()
}

fn requests(runtime: &Runtime, trigger: &Trigger<Refinery>, known: &Known) -> Store<MergeRequest> {
    let known = known.clone();
    let map = move |request: &MergeRequest| known.for_request(request);
    Watch::<MergeRequest>::all(runtime).notify(trigger, map).start()
}

/// Only a Polecat whose request has landed and that does not have the condition `Merged` triggers a
/// reconcile.
fn polecats(
    runtime: &Runtime,
    trigger: &Trigger<Refinery>,
    known: &Known,
    requests: &Store<MergeRequest>,
) -> Store<Polecat> {
    let (known, requests) = (known.clone(), requests.clone());
    let map = move |polecat: &Polecat| {
        let Some(uid) = polecat.uid().filter(|_| !is_merged(polecat)) else { return Vec::new() };
        let is_of_it = |r: &MergeRequest| r.spec.polecat_ref.as_ref().is_some_and(|p| p.uid == uid);
        let landed = requests.find(|r| is_of_it(r) && RequestRecord::of(r).has_landed());
        landed.map(|r| known.for_request(&r)).unwrap_or_default()
    };
    Watch::<Polecat>::all(runtime).trim(trim_polecat).notify(trigger, map).start()
}

/// Leaves of a Polecat its condition `Merged`, and what it saved beside its work.
fn trim_polecat(polecat: &mut Polecat) {
    polecat.spec = PolecatSpec::of_rig(std::mem::take(&mut polecat.spec.rig));
    polecat.metadata.annotations = None;
    polecat.metadata.labels = None;
    if let Some(mut status) = polecat.status.take() {
        status.conditions.retain(|c| c.type_ == condition::MERGED);
        polecat.status = Some(PolecatStatus {
            conditions: status.conditions,
            saved: status.saved,
            ..PolecatStatus::default()
        });
    }
}

fn jobs(runtime: &Runtime, trigger: &Trigger<Refinery>) -> Store<Job> {
    Watch::<Job>::all(runtime).labels(gate::SELECTOR).notify(trigger, controller_of_job).start()
}

fn controller_of_job(job: &Job) -> Option<ObjectRef<Refinery>> {
    controller(job, "Refinery")
}

fn pods(runtime: &Runtime, trigger: &Trigger<Refinery>, jobs: &Store<Job>) -> Store<Pod> {
    let jobs = jobs.clone();
    let map = move |pod: &Pod| {
        let job = controller::<Job>(pod, "Job").and_then(|reference| jobs.get(&reference));
        job.and_then(|job| controller_of_job(&job))
    };
    Watch::<Pod>::all(runtime)
        .labels(gate::SELECTOR)
        .trim(|pod| pod.spec = None)
        .notify(trigger, map)
        .start()
}

/// The controller of an object, if it is of this kind.
fn controller<K: Resource<DynamicType = ()>>(
    object: &impl Resource,
    kind: &str,
) -> Option<ObjectRef<K>> {
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    let mut owners = object.meta().owner_references.iter().flatten();
    let owner = owners.find(|o| o.controller == Some(true) && o.kind == kind)?;
    Some(ObjectRef::new(&owner.name).within(&namespace))
}
