//! Which candidate the pod of each gate's Job may fetch.

use std::collections::HashMap;
use std::path::PathBuf;

use gastown_git::serve::Offer;
use gastown_types::{BranchName, CommitId};
use parking_lot::Mutex;

/// A candidate that the git endpoint serves.
#[derive(Clone, Debug)]
pub(crate) struct ServedCandidate {
    /// The folder of the mirror that has it.
    pub mirror: PathBuf,
    pub commit: CommitId,
    /// Where the Job and its pod are.
    pub namespace: String,
    pub rig: String,
    pub target: BranchName,
}

impl ServedCandidate {
    /// The same, as the git server takes it; with `module` a submodule's commit instead.
    pub(crate) fn offer<'a>(&'a self, module: Option<&'a CommitId>) -> Offer<'a> {
        Offer { mirror: &self.mirror, candidate: &self.commit, target: &self.target, module }
    }
}

/// The served candidates by the uid of their Job. Lost when the process ends; a reconcile offers
/// them again once they are built.
#[derive(Default)]
pub(crate) struct Candidates(Mutex<HashMap<String, ServedCandidate>>);

impl Candidates {
    /// Serves a candidate to the pods of the Job `uid`, unless the Job has one already.
    pub(crate) fn offer(&self, uid: String, candidate: impl FnOnce() -> ServedCandidate) {
        self.0.lock().entry(uid).or_insert_with(candidate);
    }

    /// Stops serving the pods of the Job `uid`.
    pub(crate) fn withdraw(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// What the pods of the Job `uid` may fetch.
    pub(crate) fn of_job(&self, uid: &str) -> Option<ServedCandidate> {
        self.0.lock().get(uid).cloned()
    }
}
