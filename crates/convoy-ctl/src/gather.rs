//! Reads the watches' stores, and what beadstore-ctl answered, into one [`Snapshot`]; no judgement.

use std::collections::{BTreeMap, BTreeSet};

use gastown_api::names::{annotation, condition};
use gastown_api::{Convoy, MergePhase, MergeRequest, Polecat, conditions};
use gastown_core::convoy::{
    Counted, PolecatFact, RequestFact, Rig, RigState, Snapshot, StoreState, polecat_name,
};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};

use crate::bead_cache::ConvoyBeads;
use crate::context::Context;
use crate::indices::{bead_key, polecat_state};

/// Reads the beads of this Convoy, where its Rig has a bead store.
pub(crate) async fn beads(convoy: &Convoy, ctx: &Context) -> ConvoyBeads {
    let Some(rig) = convoy.spec.rig_ref.as_deref() else { return ConvoyBeads::NoStore };
    let is_deleting = convoy.metadata.deletion_timestamp.is_some();
    if is_deleting || ctx.bead_stores.find(|store| store.spec.rig_ref == rig).is_none() {
        return ConvoyBeads::NoStore;
    }
    match ctx.beads.read(convoy, rig).await {
        Ok(beads) => ConvoyBeads::Read(beads),
        Err(why) => ConvoyBeads::Unavailable(why),
    }
}

/// Everything that decides about this Convoy now.
pub(crate) fn snapshot(convoy: &Convoy, beads: &ConvoyBeads, ctx: &Context) -> Snapshot {
    let namespace = convoy.namespace().unwrap_or_default();
    let spec = &convoy.spec;
    let rig = spec.rig_ref.as_deref();
    let mut relevant: BTreeSet<&str> = spec.tracked_beads.iter().map(String::as_str).collect();
    if let ConvoyBeads::Read(beads) = beads {
        relevant.extend(beads.facts.keys().map(String::as_str));
    }
    Snapshot {
        deleting: convoy.metadata.deletion_timestamp.is_some(),
        tracked: spec.tracked_beads.clone(),
        rig: rig_state(rig, &namespace, ctx),
        dispatch: spec.dispatch,
        failure_policy: spec.failure_policy,
        suspended: spec.suspend,
        parallelism: usize::try_from(spec.parallelism).ok().filter(|limit| *limit > 0),
        store: match beads {
            ConvoyBeads::NoStore => StoreState::Missing,
            ConvoyBeads::Unavailable(why) => StoreState::Unavailable(why.clone()),
            ConvoyBeads::Read(beads) => StoreState::Read(beads.facts.clone()),
        },
        polecats: polecats(rig, &relevant, &namespace, ctx),
        requests: requests(rig, &relevant, &namespace, ctx),
        name_taken: name_taken(convoy, ctx),
        counted: Counted::read(
            convoy.annotations().get(annotation::CONVOY_COUNTED).map(String::as_str),
        ),
        announced: convoy.annotations().get(annotation::CONVOY_ENDED).cloned(),
        namespace,
    }
}

fn rig_state(name: Option<&str>, namespace: &str, ctx: &Context) -> RigState {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return RigState::Unnamed };
    let Some(rig) = ctx.rigs.get(&ObjectRef::new(name)) else {
        return RigState::Missing(name.to_owned());
    };
    let stores = ctx.bead_stores.state_filter(|store| store.spec.rig_ref == name);
    let prefixes = stores.iter().map(|store| store.spec.prefix.trim_end_matches('-').to_owned());
    RigState::Present(Rig {
        name: name.to_owned(),
        theme: rig.spec.settings.namepool_theme.clone(),
        prefixes: prefixes.chain([rig.spec.beads_prefix.clone()]).collect(),
        suspended: rig.spec.suspend,
        deleting: rig.metadata.deletion_timestamp.is_some(),
        allows_namespace: rig.spec.admits(namespace),
        max_polecats: usize::try_from(rig.spec.settings.max_polecats).unwrap_or(0),
        active: ctx.active(name),
    })
}

/// The Polecats that work on the relevant beads, by bead.
fn polecats(
    rig: Option<&str>,
    relevant: &BTreeSet<&str>,
    namespace: &str,
    ctx: &Context,
) -> BTreeMap<String, Vec<PolecatFact>> {
    let of_bead = |bead: &&str| {
        let all = ctx.polecats(rig, bead);
        let facts: Vec<_> = all.iter().map(|polecat| polecat_fact(polecat, namespace)).collect();
        (!facts.is_empty()).then(|| ((*bead).to_owned(), facts))
    };
    relevant.iter().filter_map(of_bead).collect()
}

/// The MergeRequests of the relevant beads, by bead.
fn requests(
    rig: Option<&str>,
    relevant: &BTreeSet<&str>,
    namespace: &str,
    ctx: &Context,
) -> BTreeMap<String, Vec<RequestFact>> {
    let of_bead = |bead: &&str| {
        let all = ctx.indices.requests_by_bead.of(&bead_key(rig, bead));
        let facts: Vec<_> = all.iter().map(|request| request_fact(request, namespace)).collect();
        (!facts.is_empty()).then(|| ((*bead).to_owned(), facts))
    };
    relevant.iter().filter_map(of_bead).collect()
}

/// The tracked beads whose Polecat would have the name of one that does something else.
fn name_taken(convoy: &Convoy, ctx: &Context) -> BTreeSet<String> {
    let namespace = convoy.namespace().unwrap_or_default();
    let Some(rig) = convoy.spec.rig_ref.as_deref() else { return BTreeSet::new() };
    let Some(theme) =
        ctx.rigs.get(&ObjectRef::new(rig)).map(|r| r.spec.settings.namepool_theme.clone())
    else {
        return BTreeSet::new();
    };
    let is_taken = |bead: &&String| {
        let reference = ObjectRef::new(&polecat_name(&theme, rig, bead)).within(&namespace);
        ctx.polecats.get(&reference).is_some_and(|polecat| {
            polecat.spec.rig != rig || polecat.spec.bead_id.as_ref() != Some(*bead)
        })
    };
    convoy.spec.tracked_beads.iter().filter(is_taken).cloned().collect()
}

fn polecat_fact(polecat: &Polecat, namespace: &str) -> PolecatFact {
    let all = polecat.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let is_true = |kind| conditions::find(all, kind).filter(|found| found.status == "True");
    let degraded = is_true(condition::DEGRADED);
    PolecatFact {
        name: relative_name(polecat, namespace),
        state: polecat_state(polecat),
        reason: degraded.map(|degraded| degraded.reason.clone()).unwrap_or_default(),
        merged: is_true(condition::MERGED).is_some(),
    }
}

pub(crate) fn request_fact(request: &MergeRequest, namespace: &str) -> RequestFact {
    let status = request.status.as_ref();
    RequestFact {
        name: relative_name(request, namespace),
        uid: request.uid().unwrap_or_default(),
        phase: status.and_then(|status| status.phase).unwrap_or(MergePhase::Queued),
        reason: status.and_then(|status| status.reason.clone()).unwrap_or_default(),
    }
}

/// The object's name, or `namespace/name` outside `namespace`.
fn relative_name<K: Resource>(object: &K, namespace: &str) -> String {
    match object.namespace().filter(|at| at != namespace) {
        Some(at) => format!("{at}/{}", object.name_any()),
        None => object.name_any(),
    }
}
