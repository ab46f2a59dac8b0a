//! The rules of a Convoy: what it records, which Polecats it creates, and when it announces its
//! end.

use std::collections::BTreeSet;

use gastown_api::{ConvoyBead, ConvoyBeadPhase};
use gastown_types::digest::short_digest;

use super::assess::{Assessment, assess};
use super::evaluation::Evaluation;
use super::facts::{Counted, End, Rig, Snapshot};
use super::names::{polecat_name, polecat_name_again};
use super::obstacle;
use super::reopening::{is_spent, reopened};

/// What to do now, and what the status shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The new value of the annotation `gastown.io/convoy-counted`, when it differs from the
    /// present one. It is written before any Polecat is created on its account.
    pub counted: Option<Counted>,
    /// Polecats to create, in this order.
    pub polecats: Vec<NewPolecat>,
    /// The end to announce, or a former announcement to clear.
    pub announcement: Option<Announcement>,
    /// What the status shows.
    pub assessment: Assessment,
}

impl Plan {
    /// Whether a bead could be started if there were room for it.
    pub fn waits_for_slot(&self) -> bool {
        let is_created = |bead: &ConvoyBead| self.polecats.iter().any(|p| p.bead == bead.id);
        let mut beads = self.assessment.beads.iter();
        beads.any(|bead| bead.phase == ConvoyBeadPhase::Ready && !is_created(bead))
    }
}

/// A Polecat to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPolecat {
    /// Its name.
    pub name: String,
    /// The bead that it works on.
    pub bead: String,
    /// The bead's priority, from 0, the first, to 4.
    pub priority: u32,
}

/// What to do about the annotation `gastown.io/convoy-told`, which records the end that an Event
/// was published for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// The Convoy is over: write the mark, then publish the Event.
    Publish {
        /// How it ended.
        end: End,
        /// The annotation's value: how it ended, and a digest of the beads concerned.
        mark: String,
        /// The Event's message.
        message: String,
    },
    /// Work goes on in a Convoy that had failed, or that was complete before a person reopened a
    /// bead: remove the mark, so that another end is announced again.
    Clear,
}

/// What to do about the Convoy now.
pub fn decide(snapshot: &Snapshot) -> Plan {
    let evaluation = Evaluation::new(snapshot);
    let beads: Vec<ConvoyBead> =
        evaluation.tracked.iter().map(|id| evaluation.bead_status(id)).collect();
    let failed: BTreeSet<String> = beads
        .iter()
        .filter(|bead| bead.phase == ConvoyBeadPhase::Failed)
        .map(|bead| bead.id.clone())
        .collect();
    let obstacle = obstacle::find(&evaluation, &failed);
    let polecats = if obstacle.is_none() { new_polecats(&evaluation, &beads) } else { Vec::new() };
    let assessment = assess(&evaluation, beads, obstacle, polecats.len());
    let counted = (evaluation.counted != snapshot.counted && !snapshot.deleting)
        .then(|| evaluation.counted.clone());
    let announcement = if snapshot.deleting { None } else { announce(snapshot, &assessment) };
    Plan { counted, polecats, announcement, assessment }
}

/// One Polecat for each ready bead that never had one, or was reopened since, by priority, then age, then id, up to the
/// limits of Convoy and Rig.
fn new_polecats(evaluation: &Evaluation<'_>, statuses: &[ConvoyBead]) -> Vec<NewPolecat> {
    let (Some(rig), Some(beads)) = (evaluation.rig(), evaluation.beads()) else {
        return Vec::new();
    };
    let mut ready: Vec<(u32, i64, &str)> = statuses
        .iter()
        .filter(|status| status.phase == ConvoyBeadPhase::Ready)
        .filter(|status| evaluation.polecats(&status.id).next().is_none())
        .filter_map(|status| {
            let bead = beads.get(&status.id)?;
            Some((bead.priority, bead.created.unwrap_or(i64::MAX), status.id.as_str()))
        })
        .collect();
    ready.sort_unstable();
    let (own, rigs) = evaluation.room();
    ready.truncate(own.min(rigs));
    let new_polecat = |(priority, _, id): (u32, i64, &str)| NewPolecat {
        name: new_name(evaluation.snapshot, rig, id),
        bead: id.to_owned(),
        priority,
    };
    ready.into_iter().map(new_polecat).collect()
}

fn new_name(snapshot: &Snapshot, rig: &Rig, id: &str) -> String {
    let Some(bead) = reopened(snapshot, id) else { return polecat_name(&rig.theme, &rig.name, id) };
    let polecats = snapshot.polecats.get(id).map_or(&[][..], Vec::as_slice);
    let spent = polecats.iter().filter(|polecat| is_spent(polecat));
    let requests = bead.closed_for.iter().map(String::as_str);
    let before = requests.chain(spent.map(|polecat| polecat.name.as_str()));
    polecat_name_again(&rig.theme, &rig.name, id, before)
}

fn announce(snapshot: &Snapshot, assessment: &Assessment) -> Option<Announcement> {
    let announced = snapshot.announced.as_deref();
    let Some(end) = assessment.end() else {
        let had_failed = announced.is_some_and(|mark| mark.starts_with("Failed "));
        // It was complete with the beads that it has, so one of them was reopened.
        let all = assessment.beads.iter().map(|bead| bead.id.as_str());
        let was_complete = announced == Some(&mark(End::Complete, all));
        let begins_again = was_complete || (had_failed && assessment.has_work());
        return begins_again.then_some(Announcement::Clear);
    };
    let beads = match end {
        End::Complete => &assessment.completed,
        End::Failed => &assessment.failed,
    };
    let mark = mark(end, beads.iter().map(String::as_str));
    let message = assessment.complete.message.clone();
    (announced != Some(&mark)).then_some(Announcement::Publish { end, mark, message })
}

/// The mark of an end: how the Convoy ended, and a digest of the beads concerned.
fn mark<'a>(end: End, beads: impl Iterator<Item = &'a str>) -> String {
    let name = match end {
        End::Complete => "Complete",
        End::Failed => "Failed",
    };
    let mut beads: Vec<&str> = beads.collect();
    beads.sort_unstable();
    format!("{name} {}", short_digest(&beads, 16))
}
