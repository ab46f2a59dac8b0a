//! Reads the stores, and what was asked of the beads' server, into one [`Snapshot`]; no judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gastown_api::names::{annotation, condition};
use gastown_api::{
    Convoy, DesiredState, FailurePolicy, MergePhase, MergeRequest, Polecat, PolecatPhase,
    conditions,
};
use gastown_core::convoy::{
    Counted, PolecatFact, PolecatState, Policy, RequestFact, RequestState, Rig, RigState, Snapshot,
    Store, polecat_name,
};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};

use crate::Context;
use crate::beads::Known;

/// What the server of beads says: nothing where there is none to be asked, or why it cannot be
/// known.
pub type Asked = Option<Result<Arc<Known>, String>>;

/// Asks for the beads of this convoy, where its rig has a store.
pub async fn beads(convoy: &Convoy, context: &Context) -> Asked {
    let rig = convoy.spec.rig_ref.as_deref()?;
    let deleting = convoy.metadata.deletion_timestamp.is_some();
    if deleting || context.stores.state_filter(|store| store.spec.rig_ref == rig).is_empty() {
        return None;
    }
    Some(context.beads.of(convoy, rig).await)
}

/// Everything that decides about this convoy now.
pub fn snapshot(convoy: &Convoy, asked: &Asked, context: &Context) -> Snapshot {
    let namespace = convoy.namespace().unwrap_or_default();
    let spec = &convoy.spec;
    let mut concerned: BTreeSet<&str> = spec.tracked_beads.iter().map(String::as_str).collect();
    if let Some(Ok(known)) = asked {
        concerned.extend(known.facts.keys().map(String::as_str));
    }
    let rig = spec.rig_ref.as_deref();
    let polecats = context.polecats.state_filter(|polecat| {
        rig.is_none_or(|rig| polecat.spec.rig == rig)
            && polecat.spec.bead_id.as_deref().is_some_and(|bead| concerned.contains(bead))
    });
    let requests = context.requests.state_filter(|request| {
        rig.is_none_or(|rig| request.spec.rig_ref == rig)
            && request.spec.bead_id.as_deref().is_some_and(|bead| concerned.contains(bead))
    });
    let mut by_bead: BTreeMap<String, Vec<PolecatFact>> = BTreeMap::new();
    for polecat in polecats {
        by_bead
            .entry(polecat.spec.bead_id.clone().unwrap_or_default())
            .or_default()
            .push(fact(&polecat, &namespace));
    }
    let shown = |made: &crate::expect::Made| {
        context.polecats.get(&ObjectRef::new(&made.name).within(&made.namespace)).is_some()
    };
    let missing = context.expected.missing(shown);
    for made in missing
        .iter()
        .filter(|made| Some(made.rig.as_str()) == rig && concerned.contains(made.bead.as_str()))
    {
        let name = relative(&made.namespace, &made.name, &namespace);
        by_bead.entry(made.bead.clone()).or_default().push(PolecatFact {
            name,
            state: PolecatState::Active,
            reason: String::new(),
        });
    }
    let expected = missing.iter().filter(|made| Some(made.rig.as_str()) == rig).count();
    let mut requests_by_bead: BTreeMap<String, Vec<RequestFact>> = BTreeMap::new();
    for request in requests {
        requests_by_bead
            .entry(request.spec.bead_id.clone().unwrap_or_default())
            .or_default()
            .push(request_fact(&request, &namespace));
    }
    let is_taken = |bead: &&String| {
        let Some(rig) = rig else { return false };
        let named =
            context.polecats.get(&ObjectRef::new(&polecat_name(rig, bead)).within(&namespace));
        named.is_some_and(|polecat| {
            polecat.spec.rig != rig || polecat.spec.bead_id.as_ref() != Some(*bead)
        })
    };
    Snapshot {
        deleting: convoy.metadata.deletion_timestamp.is_some(),
        tracked: spec.tracked_beads.clone(),
        rig: rig_state(rig, &namespace, expected, context),
        dispatch: spec.dispatch,
        policy: match spec.failure_policy {
            FailurePolicy::Continue => Policy::Continue,
            FailurePolicy::Stop => Policy::Stop,
        },
        suspended: spec.suspend,
        parallelism: usize::try_from(spec.parallelism).ok().filter(|most| *most > 0),
        store: match asked {
            None => Store::None,
            Some(Err(why)) => Store::Unavailable(why.clone()),
            Some(Ok(known)) => Store::Read(known.facts.clone()),
        },
        polecats: by_bead,
        requests: requests_by_bead,
        taken: spec.tracked_beads.iter().filter(is_taken).cloned().collect(),
        counted: Counted::read(
            convoy.annotations().get(annotation::CONVOY_COUNTED).map(String::as_str),
        ),
        told: convoy.annotations().get(annotation::CONVOY_TOLD).cloned(),
        namespace,
    }
}

fn rig_state(name: Option<&str>, namespace: &str, expected: usize, context: &Context) -> RigState {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return RigState::Unnamed };
    let Some(rig) = context.rigs.get(&ObjectRef::new(name)) else {
        return RigState::Missing(name.to_owned());
    };
    let active =
        |polecat: &Polecat| polecat.spec.rig == name && state(polecat) == PolecatState::Active;
    let stores = context.stores.state_filter(|store| store.spec.rig_ref == name);
    let prefixes = stores.iter().map(|store| store.spec.prefix.trim_end_matches('-').to_owned());
    RigState::Present(Rig {
        name: name.to_owned(),
        prefixes: prefixes.chain([rig.spec.beads_prefix.clone()]).collect(),
        suspended: rig.spec.suspend,
        deleting: rig.metadata.deletion_timestamp.is_some(),
        allows: rig
            .spec
            .allowed_namespaces
            .as_ref()
            .is_none_or(|allowed| allowed.iter().any(|one| one == namespace)),
        most: usize::try_from(rig.spec.settings.max_polecats).unwrap_or(0),
        active: context.polecats.state_filter(active).len() + expected,
    })
}

fn relative(at: &str, name: &str, namespace: &str) -> String {
    if at == namespace { name.to_owned() } else { format!("{at}/{name}") }
}

fn name<K: Resource>(object: &K, namespace: &str) -> String {
    relative(&object.namespace().unwrap_or_default(), &object.name_any(), namespace)
}

fn state(polecat: &Polecat) -> PolecatState {
    let phase = polecat.status.as_ref().and_then(|status| status.phase);
    match (phase, polecat.spec.desired_state) {
        (Some(PolecatPhase::Done), _) => PolecatState::Done,
        (Some(PolecatPhase::Terminated), _) | (_, DesiredState::Terminated) => {
            PolecatState::Terminated
        }
        (Some(PolecatPhase::Stuck), _) => PolecatState::Stuck,
        (None | Some(PolecatPhase::Idle | PolecatPhase::Working), DesiredState::Working) => {
            PolecatState::Active
        }
        (None | Some(PolecatPhase::Idle | PolecatPhase::Working), DesiredState::Idle) => {
            PolecatState::Paused
        }
    }
}

fn fact(polecat: &Polecat, namespace: &str) -> PolecatFact {
    let all = polecat.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let reason =
        conditions::find(all, condition::DEGRADED).filter(|degraded| degraded.status == "True");
    PolecatFact {
        name: name(polecat, namespace),
        state: state(polecat),
        reason: reason.map(|degraded| degraded.reason.clone()).unwrap_or_default(),
    }
}

fn request_fact(request: &MergeRequest, namespace: &str) -> RequestFact {
    let status = request.status.as_ref();
    RequestFact {
        name: name(request, namespace),
        state: match status.and_then(|status| status.phase) {
            None | Some(MergePhase::Queued | MergePhase::Testing) => RequestState::Open,
            Some(MergePhase::Landed) => RequestState::Landed,
            Some(MergePhase::Rework | MergePhase::Superseded) => RequestState::Past,
            Some(MergePhase::Rejected) => RequestState::Rejected,
        },
        reason: status.and_then(|status| status.reason.clone()).unwrap_or_default(),
    }
}
