//! Snapshots for tests, and modifiers of them.

use std::collections::{BTreeMap, BTreeSet};

use gastown_api::{FailurePolicy, MergePhase};

use super::*;

/// A convoy that dispatches these open beads; a bead waits for those after its colon.
pub(super) fn dispatching(beads: &[&str]) -> Snapshot {
    let mut store = BTreeMap::new();
    for text in beads {
        let (id, needs) = text.split_once(':').unwrap_or((text, ""));
        let dependencies: Vec<_> =
            needs.split(' ').filter(|on| !on.is_empty()).map(|on| edge(on, "blocks")).collect();
        let blocked = !dependencies.is_empty();
        store.insert(id.to_owned(), BeadFact { dependencies, blocked, ready: !blocked, ..open() });
    }
    Snapshot {
        tracked: beads
            .iter()
            .map(|text| text.split(':').next().unwrap_or_default().to_owned())
            .collect(),
        dispatch: true,
        store: StoreState::Read(store),
        ..tracking(&[])
    }
}

/// A convoy that tracks these beads and dispatches none.
pub(super) fn tracking(beads: &[&str]) -> Snapshot {
    let rig = Rig {
        name: "web".into(),
        theme: "mad-max".into(),
        prefixes: vec!["gt".into()],
        allows_namespace: true,
        max_polecats: 8,
        ..Rig::default()
    };
    Snapshot {
        namespace: "team".into(),
        deleting: false,
        tracked: beads.iter().map(|id| (*id).to_owned()).collect(),
        rig: RigState::Present(rig),
        dispatch: false,
        failure_policy: FailurePolicy::Continue,
        suspended: false,
        parallelism: None,
        store: StoreState::Missing,
        polecats: BTreeMap::new(),
        requests: BTreeMap::new(),
        name_taken: BTreeSet::new(),
        counted: Counted::default(),
        announced: None,
    }
}

pub(super) fn open() -> BeadFact {
    BeadFact {
        status: "open".into(),
        priority: 2,
        ready: true,
        kind: "task".into(),
        ..BeadFact::default()
    }
}

pub(super) fn edge(on: &str, kind: &str) -> Dependency {
    Dependency { on: on.into(), kind: kind.into() }
}

impl Snapshot {
    pub(super) fn bead(mut self, id: &str, change: impl FnOnce(&mut BeadFact)) -> Self {
        if let StoreState::Read(beads) = &mut self.store {
            change(beads.entry(id.to_owned()).or_insert_with(open));
        }
        self
    }

    pub(super) fn polecat(mut self, bead: &str, state: PolecatState, reason: &str) -> Self {
        let fact =
            PolecatFact { name: format!("p-{bead}"), state, reason: reason.into(), merged: false };
        self.polecats.entry(bead.to_owned()).or_default().push(fact);
        self
    }

    pub(super) fn request(mut self, bead: &str, phase: MergePhase, reason: &str) -> Self {
        let fact = RequestFact {
            name: format!("m-{bead}"),
            uid: format!("uid-{bead}"),
            phase,
            reason: reason.into(),
        };
        self.requests.entry(bead.to_owned()).or_default().push(fact);
        self
    }

    pub(super) fn rig(mut self, change: impl FnOnce(&mut Rig)) -> Self {
        if let RigState::Present(rig) = &mut self.rig {
            change(rig);
        }
        self
    }
}
