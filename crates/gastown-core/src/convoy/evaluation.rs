//! Where each bead of a Convoy is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gastown_api::names::reason;
use gastown_api::{ConvoyBead, ConvoyBeadPhase, MergePhase};

use super::facts::{
    BeadFact, Counted, PolecatFact, PolecatState, RequestFact, Rig, RigState, Snapshot, StoreState,
};
use super::graph::{Graph, Hold};
use super::reopening::{is_spent, landed, reopened};

/// Types of beads that no Polecat works on.
const NOT_WORK: [&str; 7] =
    ["merge-request", "gate", "molecule", "message", "agent", "role", "rig"];

/// A snapshot, and what follows from it directly.
pub(super) struct Evaluation<'a> {
    pub snapshot: &'a Snapshot,
    /// The tracked beads in the spec's order, each once.
    pub tracked: Vec<&'a str>,
    /// The tracked beads that are done now.
    pub counted: Counted,
    /// Beads that block no other bead any more: those that are done, and untracked ones whose work
    /// landed.
    pub finished: BTreeSet<String>,
}

impl<'a> Evaluation<'a> {
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut seen = BTreeSet::new();
        let tracked: Vec<&str> =
            snapshot.tracked.iter().map(String::as_str).filter(|id| seen.insert(*id)).collect();
        let counted = count(snapshot, &tracked);
        let mut finished: BTreeSet<String> =
            snapshot.requests.keys().filter(|id| has_landed(snapshot, id)).cloned().collect();
        finished.extend(counted.landed.iter().cloned());
        if !snapshot.dispatch {
            finished.extend(counted.done.iter().cloned());
        }
        Self { snapshot, tracked, counted, finished }
    }

    /// The beads that the store holds, when it was read.
    pub fn beads(&self) -> Option<&'a BTreeMap<String, BeadFact>> {
        match &self.snapshot.store {
            StoreState::Read(beads) => Some(beads),
            StoreState::Missing | StoreState::Unavailable(_) => None,
        }
    }

    pub fn rig(&self) -> Option<&'a Rig> {
        match &self.snapshot.rig {
            RigState::Present(rig) => Some(rig),
            RigState::Unnamed | RigState::Missing(_) => None,
        }
    }

    /// The Polecats that work on this bead. Those whose work landed before a person reopened it do
    /// not.
    pub fn polecats(&self, id: &str) -> impl Iterator<Item = &'a PolecatFact> + use<'a> {
        polecats(self.snapshot, id)
    }

    /// The bead's entry in the status. Its reason is not cut to the length that the schema allows.
    pub fn bead_status(&self, id: &str) -> ConvoyBead {
        let polecat =
            self.polecats(id).max_by_key(|polecat| (polecat.state, Reverse(&polecat.name)));
        // Requests that ended before a person reopened the bead do not decide any more.
        let is_reopened = reopened(self.snapshot, id).is_some();
        let is_over = |phase| match phase {
            MergePhase::Landed => true,
            MergePhase::Rejected | MergePhase::Rework | MergePhase::Superseded => polecat.is_none(),
            MergePhase::Queued | MergePhase::Testing | MergePhase::Unknown => false,
        };
        let request = requests(self.snapshot, id)
            .iter()
            .filter(|request| !is_reopened || !is_over(request.phase))
            .max_by_key(|request| (request.precedence(), Reverse(&request.name)));
        let (phase, reason) = self.phase(id, polecat, request);
        ConvoyBead {
            id: id.to_owned(),
            phase,
            polecat: polecat.map(|polecat| polecat.name.clone()),
            merge_request: request.map(|request| request.name.clone()),
            reason: Some(reason).filter(|reason| !reason.is_empty()),
        }
    }

    /// The bead's phase, and why. The order of the arms is the order of what is known best.
    fn phase(
        &self,
        id: &str,
        polecat: Option<&PolecatFact>,
        request: Option<&RequestFact>,
    ) -> (ConvoyBeadPhase, String) {
        if self.finished.contains(id) {
            return (ConvoyBeadPhase::Done, String::new());
        }
        let or = |reason: &str, otherwise: &str| {
            if reason.is_empty() { otherwise.to_owned() } else { reason.to_owned() }
        };
        let polecat = polecat.map(|polecat| (polecat.state, polecat.reason.as_str()));
        let request = request.map(|request| (request.phase, request.reason.as_str()));
        match (polecat, request) {
            (Some((PolecatState::Active, _)), _) => (ConvoyBeadPhase::Working, String::new()),
            (_, Some((MergePhase::Queued | MergePhase::Testing | MergePhase::Unknown, reason))) => {
                (ConvoyBeadPhase::Submitted, reason.to_owned())
            }
            (Some((PolecatState::Paused, _)), _) => (
                ConvoyBeadPhase::Working,
                "PolecatIdle: the desiredState of its Polecat is Idle".to_owned(),
            ),
            (Some((PolecatState::Done, _)) | None, Some((MergePhase::Rejected, reason))) => (
                ConvoyBeadPhase::Failed,
                format!("Rejected: {}", or(reason, "its MergeRequest will not land")),
            ),
            (
                Some((PolecatState::Done, _)),
                Some((MergePhase::Rework | MergePhase::Superseded, reason)),
            ) => (ConvoyBeadPhase::Submitted, or(reason, "Rework")),
            (Some((PolecatState::Done, _)), _) => (
                ConvoyBeadPhase::Submitted,
                "NotSubmitted: its Polecat is Done and there is no MergeRequest for its work"
                    .to_owned(),
            ),
            (Some((PolecatState::Stuck, reason)), _) => {
                (ConvoyBeadPhase::Failed, or(reason, "Stuck"))
            }
            (Some((PolecatState::Terminated, _)), _) => {
                (ConvoyBeadPhase::Failed, "Terminated: its Polecat was terminated".to_owned())
            }
            (None, _) => self.phase_without_polecat(id),
        }
    }

    fn phase_without_polecat(&self, id: &str) -> (ConvoyBeadPhase, String) {
        let beads = match &self.snapshot.store {
            StoreState::Read(beads) => beads,
            StoreState::Missing => return (ConvoyBeadPhase::Open, String::new()),
            StoreState::Unavailable(_) => {
                return (ConvoyBeadPhase::Unknown, reason::BEAD_STORE_UNAVAILABLE.to_owned());
            }
        };
        let Some(bead) = beads.get(id) else {
            let why = "UnknownBead: the bead store does not hold it";
            return (ConvoyBeadPhase::Unknown, why.to_owned());
        };
        match Graph::new(beads, &self.finished).hold(id) {
            Hold::Beads(blockers) => {
                (ConvoyBeadPhase::Blocked, format!("Blocked: by {}", list(&blockers)))
            }
            Hold::Store => (
                ConvoyBeadPhase::Blocked,
                "Blocked: the bead store reports it as blocked".to_owned(),
            ),
            Hold::Free => match self.not_ready(id, bead) {
                Some(why) => (ConvoyBeadPhase::Open, why),
                None => (ConvoyBeadPhase::Ready, String::new()),
            },
        }
    }

    /// Why no Polecat is created for a bead that nothing blocks and that nobody works on.
    fn not_ready(&self, id: &str, bead: &BeadFact) -> Option<String> {
        if bead.status != "open" && bead.assignee.is_empty() {
            return Some(format!("NotOpen: its status is {}", bead.status));
        }
        if bead.status != "open" {
            return Some(format!(
                "NotOpen: its status is {}, assigned to {}",
                bead.status, bead.assignee
            ));
        }
        // Until the store has seen a landing its list of ready beads is as old as that.
        if !bead.ready && !bead.blocked {
            return Some("NotReady: the bead store does not list it as ready".to_owned());
        }
        if NOT_WORK.contains(&bead.kind.as_str()) {
            return Some(format!("NotReady: no Polecat works on beads of type {}", bead.kind));
        }
        if self.snapshot.dispatch && self.snapshot.name_taken.contains(id) {
            return Some(
                "NameTaken: the Polecat that has its name works on something else".to_owned(),
            );
        }
        None
    }

    /// How many beads have a Polecat that works on them or is paused, and so counts against
    /// `spec.parallelism`.
    fn active(&self) -> usize {
        let is_active = |polecat: &'a PolecatFact| {
            matches!(polecat.state, PolecatState::Active | PolecatState::Paused)
        };
        self.tracked
            .iter()
            .filter(|id| !self.finished.contains(**id) && self.polecats(id).any(is_active))
            .count()
    }

    /// How many more Polecats the limits allow: the Convoy's own limit, and the Rig's.
    pub fn room(&self) -> (usize, usize) {
        let own = self
            .snapshot
            .parallelism
            .map_or(usize::MAX, |limit| limit.saturating_sub(self.active()));
        (own, self.rig().map_or(0, |rig| rig.max_polecats.saturating_sub(rig.active)))
    }
}

/// The tracked beads that were done before or are done now.
fn count(snapshot: &Snapshot, tracked: &[&str]) -> Counted {
    let mut counted = snapshot.counted.clone();
    let still_tracked: BTreeSet<&str> = tracked.iter().copied().collect();
    counted.landed.retain(|id| still_tracked.contains(id.as_str()));
    counted.done.retain(|id| still_tracked.contains(id.as_str()));
    counted.closed.retain(|id| still_tracked.contains(id.as_str()));
    for id in tracked {
        let closed = match &snapshot.store {
            StoreState::Read(beads) => beads.get(*id).is_some_and(BeadFact::is_closed),
            StoreState::Missing | StoreState::Unavailable(_) => false,
        };
        if closed {
            counted.closed.insert((*id).to_owned());
        }
        if reopened(snapshot, id).is_some() {
            counted.landed.remove(*id);
            counted.done.remove(*id);
        }
        if closed || has_landed(snapshot, id) {
            counted.landed.insert((*id).to_owned());
        } else if !snapshot.dispatch
            && polecats(snapshot, id).any(|polecat| polecat.state == PolecatState::Done)
        {
            counted.done.insert((*id).to_owned());
        }
    }
    counted.done.retain(|id| !counted.landed.contains(id));
    counted
}

fn polecats<'a>(
    snapshot: &'a Snapshot,
    id: &str,
) -> impl Iterator<Item = &'a PolecatFact> + use<'a> {
    let is_reopened = reopened(snapshot, id).is_some();
    let all = snapshot.polecats.get(id).map_or(&[][..], Vec::as_slice);
    all.iter().filter(move |polecat| !is_reopened || !is_spent(polecat))
}

fn requests<'a>(snapshot: &'a Snapshot, id: &str) -> &'a [RequestFact] {
    snapshot.requests.get(id).map_or(&[], Vec::as_slice)
}

/// Whether work on a bead landed, and no person reopened the bead since.
fn has_landed(snapshot: &Snapshot, id: &str) -> bool {
    landed(snapshot, id).next().is_some() && reopened(snapshot, id).is_none()
}

/// `a, b, c, d, e and 2 more`, with at most five names.
pub(super) fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    const MAX_NAMES: usize = 5;
    let names: Vec<T> = names.into_iter().collect();
    let first: Vec<&str> = names.iter().take(MAX_NAMES).map(AsRef::as_ref).collect();
    match names.len().checked_sub(MAX_NAMES).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", first.join(", ")),
        None => first.join(", "),
    }
}
