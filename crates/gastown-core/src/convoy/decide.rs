//! The rules of a Convoy: what it records, which Polecats it creates, and when it announces its
//! end.

use std::collections::BTreeSet;

use gastown_api::{ConvoyBead, ConvoyBeadPhase};
use gastown_types::digest::short_digest;
use gastown_types::slug;

use super::assess::{Assessment, assess};
use super::evaluation::Evaluation;
use super::facts::{Counted, End, Snapshot};
use super::obstacle;

/// How many characters of a Polecat's name come from the bead's id.
const MAX_SLUG: usize = 44;

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
    /// Work goes on in a Convoy that had failed: remove the mark, so that another failure is
    /// announced again.
    Clear,
}

/// The name of the Polecat that a Convoy creates for a bead: at most 55 lowercase letters, digits
/// and hyphens. It follows from Rig and bead alone, so another reconcile, another Convoy or another
/// replica chooses the same name.
pub fn polecat_name(rig: &str, bead: &str) -> String {
    let digest = short_digest(&[rig, bead], 10);
    match slug(bead, MAX_SLUG).as_str() {
        "" => format!("bead-{digest}"),
        slug => format!("{slug}-{digest}"),
    }
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

/// One Polecat for each ready bead that never had one, by priority, then age, then id, up to the
/// limits of Convoy and Rig.
fn new_polecats(evaluation: &Evaluation<'_>, statuses: &[ConvoyBead]) -> Vec<NewPolecat> {
    let (Some(rig), Some(beads)) = (evaluation.rig(), evaluation.beads()) else {
        return Vec::new();
    };
    let mut ready: Vec<(u32, i64, &str)> = statuses
        .iter()
        .filter(|status| status.phase == ConvoyBeadPhase::Ready)
        .filter(|status| evaluation.polecats(&status.id).is_empty())
        .filter_map(|status| {
            let bead = beads.get(&status.id)?;
            Some((bead.priority, bead.created.unwrap_or(i64::MAX), status.id.as_str()))
        })
        .collect();
    ready.sort_unstable();
    let (own, rigs) = evaluation.room();
    ready.truncate(own.min(rigs));
    let new_polecat = |(priority, _, id): (u32, i64, &str)| NewPolecat {
        name: polecat_name(&rig.name, id),
        bead: id.to_owned(),
        priority,
    };
    ready.into_iter().map(new_polecat).collect()
}

fn announce(snapshot: &Snapshot, assessment: &Assessment) -> Option<Announcement> {
    let announced = snapshot.announced.as_deref();
    let Some(end) = assessment.end() else {
        let had_failed = announced.is_some_and(|mark| mark.starts_with("Failed "));
        return (had_failed && assessment.has_work()).then_some(Announcement::Clear);
    };
    let (name, beads) = match end {
        End::Complete => ("Complete", &assessment.completed),
        End::Failed => ("Failed", &assessment.failed),
    };
    let mut beads: Vec<&str> = beads.iter().map(String::as_str).collect();
    beads.sort_unstable();
    let mark = format!("{name} {}", short_digest(&beads, 16));
    let message = assessment.complete.message.clone();
    (announced != Some(&mark)).then_some(Announcement::Publish { end, mark, message })
}
