//! The beads that Polecats have worked on, of which a watch may not have delivered the MergeRequest
//! yet.
//!
//! Each kind has a watch of its own. Where the one of Polecats is ahead, it shows that a Polecat has
//! gone whose landing the other one has not shown: without a look at the API server its bead would be
//! dispatched again.

use std::collections::{BTreeSet, HashMap};

use gastown_api::Convoy;
use gastown_core::convoy::Snapshot;
use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use parking_lot::Mutex;

/// Beads with a Polecat that this process has seen or created, by the uid of the Convoy.
#[derive(Default)]
pub(crate) struct Worked(Mutex<HashMap<String, BTreeSet<String>>>);

impl Worked {
    /// Remembers the beads of a Convoy that have Polecats. Convoys that are not `present` are
    /// forgotten.
    pub(crate) fn saw(&self, convoy: &Convoy, snapshot: &Snapshot, present: &Store<Convoy>) {
        if !snapshot.dispatch {
            return;
        }
        let mut all = self.0.lock();
        let beads = all.entry(convoy.uid().unwrap_or_default()).or_default();
        beads.extend(snapshot.polecats.keys().cloned());
        if all.len() > present.len() {
            let present: BTreeSet<String> =
                present.state().iter().filter_map(|convoy| convoy.uid()).collect();
            all.retain(|uid, _| present.contains(uid));
        }
    }

    /// Remembers that a Polecat was created.
    pub(crate) fn created(&self, convoy: &Convoy, bead: &str) {
        let mut all = self.0.lock();
        all.entry(convoy.uid().unwrap_or_default()).or_default().insert(bead.to_owned());
    }

    /// Whether a Polecat has worked on a bead of a Convoy, by what is remembered or the status shows.
    pub(crate) fn has(&self, convoy: &Convoy, bead: &str) -> bool {
        let shown = convoy.status.iter().flat_map(|status| &status.beads);
        let mut shown = shown.filter(|line| line.id == bead);
        shown.any(|line| line.polecat.is_some() || line.merge_request.is_some())
            || self
                .0
                .lock()
                .get(&convoy.uid().unwrap_or_default())
                .is_some_and(|b| b.contains(bead))
    }
}
