//! The remote of a simulated world, and the commits that exist in pods only.

use std::collections::{BTreeMap, BTreeSet};

use crate::polecat::fixtures::commit;
use crate::report::{Saved, SyncReport, SyncResult};

/// Where every commit of a world is.
#[derive(Debug, Default)]
pub struct Remote {
    pub down: bool,
    /// Commits on any of its refs.
    saved: BTreeSet<u8>,
    /// Commits that are in a pod only, by its uid.
    in_pod: BTreeMap<String, BTreeSet<u8>>,
    /// Commits of pods that are gone and had not saved them, by the pod's uid.
    pub lost: BTreeMap<String, BTreeSet<u8>>,
    /// Commits of pods that were given up with their node, and may still live.
    zombies: BTreeSet<u8>,
}

impl Remote {
    /// A commit is made in a pod.
    pub fn commit(&mut self, pod: &str, number: u8) {
        if !self.saved.contains(&number) {
            self.in_pod.entry(pod.to_owned()).or_default().insert(number);
        }
    }

    /// Whether all commits of a pod are on the remote.
    pub fn has_all_of(&self, pod: &str) -> bool {
        self.in_pod.get(pod).is_none_or(BTreeSet::is_empty)
    }

    /// The sidecar of a pod saves; returns whether everything is on the remote then.
    pub fn save(&mut self, pod: &str) -> bool {
        if !self.down {
            self.saved.extend(self.in_pod.remove(pod).unwrap_or_default());
        }
        self.has_all_of(pod)
    }

    /// A pod is gone: what it had not saved is lost.
    pub fn gone(&mut self, pod: &str) {
        let left = self.in_pod.remove(pod).unwrap_or_default();
        if !left.is_empty() {
            self.lost.entry(pod.to_owned()).or_default().extend(left);
        }
    }

    /// A pod was given up with its node.
    pub fn give_up(&mut self, pod: &str) {
        self.zombies.extend(self.in_pod.get(pod).into_iter().flatten());
        self.gone(pod);
    }

    /// The zombies push.
    pub fn zombies_save(&mut self) {
        if !self.down {
            self.saved.append(&mut self.zombies);
        }
    }

    /// The true record of a sidecar that ends with this result: it saves what it can, and names the
    /// rest.
    pub fn record(&mut self, pod: &str, tip: u8, result: SyncResult) -> SyncReport {
        let pushed = result == SyncResult::Pushed;
        let mut record =
            crate::polecat::fixtures::sync(result, pushed.then(|| commit(tip)), u32::from(pushed));
        let on_branch = matches!(result, SyncResult::Pushed | SyncResult::NoChanges);
        let here: Vec<u8> = self.in_pod.get(pod).into_iter().flatten().copied().collect();
        if self.save(pod) {
            let saved = |number: &u8| Saved {
                r#ref: format!("refs/gastown/wip/dev/toast/{pod}"),
                commit: commit(*number),
                of: format!("commit {number}"),
                skipped: 0,
            };
            record.saved = here.iter().filter(|_| !on_branch).map(saved).collect();
        } else {
            record.unsaved = here.iter().map(|n| format!("commit {n}: no connection")).collect();
        }
        record
    }
}
