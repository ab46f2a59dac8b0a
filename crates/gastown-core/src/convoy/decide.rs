use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gastown_types::digest::short_digest;

use super::facts::{
    BeadFact, Counted, End, PolecatFact, PolecatState, Policy, RequestFact, RequestState, Rig,
    RigState, Snapshot, Store,
};
use super::graph::{Graph, Hold};
use super::verdict::{BeadPhase, Line, Verdict, judge};

/// Types of beads that nobody works on.
const NO_WORK: [&str; 7] = ["merge-request", "gate", "molecule", "message", "agent", "role", "rig"];
/// Letters of a Polecat's name that come from the bead.
const SLUG: usize = 44;

/// What to do now, and what to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What counts now, when it is not what the annotation says: it is written before anything is
    /// made of it.
    pub count: Option<Counted>,
    /// Polecats to be made, in this order.
    pub feed: Vec<Feed>,
    /// What to tell, or to forget having told.
    pub tell: Option<Tell>,
    /// What the status says.
    pub verdict: Verdict,
}

/// A Polecat to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// The bead that it carries.
    pub bead: String,
    /// Its name.
    pub polecat: String,
    /// The bead's priority.
    pub priority: u32,
}

/// What to do about the annotation that says what was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tell {
    /// It is over: write the mark, then say so.
    End {
        /// How it ended.
        end: End,
        /// The annotation's value.
        mark: String,
        /// One sentence.
        message: String,
    },
    /// What had failed moves again: its next failure is news.
    Forget,
}

/// The name of the Polecat that a convoy makes for a bead: at most 55 letters, digits and hyphens,
/// made of rig and bead alone, so that a second look, a second convoy or a second replica makes the
/// same.
pub fn polecat_name(rig: &str, bead: &str) -> String {
    let mut slug = String::new();
    for c in bead.chars().flat_map(char::to_lowercase) {
        if slug.len() >= SLUG {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let digits = short_digest(&[rig, bead], 10);
    match slug.trim_matches('-') {
        "" => format!("bead-{digits}"),
        slug => format!("{slug}-{digits}"),
    }
}

/// The whole rule of a convoy.
pub fn decide(s: &Snapshot) -> Plan {
    let look = Look::at(s);
    let lines: Vec<Line> = look.tracked.iter().map(|id| look.line(id)).collect();
    let failed: BTreeSet<String> = ids(&lines, BeadPhase::Failed);
    let gate = look.gate(&failed);
    let feed = if gate.is_none() { look.feed() } else { Vec::new() };
    let verdict = judge(&look, lines, gate, &feed);
    let count = (look.counted != s.counted && !s.deleting).then(|| look.counted.clone());
    let tell = if s.deleting { None } else { tell(s, &verdict) };
    Plan { count, feed, tell, verdict }
}

fn ids(lines: &[Line], phase: BeadPhase) -> BTreeSet<String> {
    lines.iter().filter(|line| line.phase == phase).map(|line| line.id.clone()).collect()
}

fn tell(s: &Snapshot, verdict: &Verdict) -> Option<Tell> {
    let Some((end, message)) = verdict.end() else {
        let failed_before = s.told.as_deref().is_some_and(|told| told.starts_with("Failed "));
        return (failed_before && verdict.moves()).then_some(Tell::Forget);
    };
    let (word, about) = match end {
        End::Complete => ("Complete", &verdict.completed),
        End::Failed => ("Failed", &verdict.failed),
    };
    let mut about: Vec<&str> = about.iter().map(String::as_str).collect();
    about.sort_unstable();
    let mark = format!("{word} {}", short_digest(&about, 16));
    (s.told.as_deref() != Some(&mark)).then_some(Tell::End { end, mark, message })
}

/// A snapshot with what follows from it at once.
pub(super) struct Look<'a> {
    pub s: &'a Snapshot,
    /// Each bead once, in the spec's order.
    pub tracked: Vec<&'a str>,
    /// What counts now.
    pub counted: Counted,
    /// Beads that are over: those that count, and others whose work landed.
    pub over: BTreeSet<String>,
}

/// Why nothing is started, in one word and in words.
pub(super) type Gate = (&'static str, String);

impl<'a> Look<'a> {
    fn at(s: &'a Snapshot) -> Self {
        let mut seen = BTreeSet::new();
        let tracked: Vec<&str> =
            s.tracked.iter().map(String::as_str).filter(|id| seen.insert(*id)).collect();
        let mut counted = s.counted.clone();
        counted.landed.retain(|id| seen.contains(id.as_str()));
        counted.done.retain(|id| seen.contains(id.as_str()));
        for id in &tracked {
            let closed = bead(s, id).is_some_and(BeadFact::is_closed);
            if closed || landed(s, id) {
                counted.landed.insert((*id).to_owned());
            } else if !s.dispatch
                && polecats(s, id).iter().any(|polecat| polecat.state == PolecatState::Done)
            {
                counted.done.insert((*id).to_owned());
            }
        }
        counted.done.retain(|id| !counted.landed.contains(id));
        let mut over: BTreeSet<String> =
            s.requests.keys().filter(|id| landed(s, id)).cloned().collect();
        over.extend(counted.landed.iter().cloned());
        if !s.dispatch {
            over.extend(counted.done.iter().cloned());
        }
        Self { s, tracked, counted, over }
    }

    /// What the store holds, when it was read.
    pub fn store(&self) -> Option<&'a BTreeMap<String, BeadFact>> {
        match &self.s.store {
            Store::Read(beads) => Some(beads),
            Store::None | Store::Unavailable(_) => None,
        }
    }

    pub fn rig(&self) -> Option<&'a Rig> {
        match &self.s.rig {
            RigState::Present(rig) => Some(rig),
            RigState::Unnamed | RigState::Missing(_) => None,
        }
    }

    /// Where this bead is. The order of the questions is the order of what is known best.
    fn line(&self, id: &str) -> Line {
        let polecat = polecats(self.s, id)
            .iter()
            .max_by_key(|polecat| (polecat.state, Reverse(&polecat.name)));
        let request = requests(self.s, id)
            .iter()
            .max_by_key(|request| (request.state, Reverse(&request.name)));
        let (phase, reason) = self.place(id, polecat, request);
        Line {
            id: id.to_owned(),
            phase,
            polecat: polecat.map(|polecat| polecat.name.clone()),
            request: request.map(|request| request.name.clone()),
            reason,
        }
    }

    fn place(
        &self,
        id: &str,
        polecat: Option<&PolecatFact>,
        request: Option<&RequestFact>,
    ) -> (BeadPhase, String) {
        if self.over.contains(id) {
            return (BeadPhase::Done, String::new());
        }
        let word = |reason: &str, otherwise: &str| {
            if reason.is_empty() { otherwise.to_owned() } else { reason.to_owned() }
        };
        let state = request.map(|request| (request.state, &request.reason));
        match (polecat.map(|polecat| (polecat.state, &polecat.reason)), state) {
            (Some((PolecatState::Active, _)), _) => (BeadPhase::Working, String::new()),
            (_, Some((RequestState::Open, reason))) => (BeadPhase::Submitted, reason.clone()),
            (Some((PolecatState::Paused, _)), _) => {
                (BeadPhase::Working, "PolecatIdle: its desiredState is Idle".to_owned())
            }
            (Some((PolecatState::Done, _)) | None, Some((RequestState::Rejected, reason))) => (
                BeadPhase::Failed,
                format!("Rejected: {}", word(reason, "its merge request will not land")),
            ),
            (Some((PolecatState::Done, _)), Some((RequestState::Past, reason))) => {
                (BeadPhase::Submitted, word(reason, "Rework"))
            }
            (Some((PolecatState::Done, _)), _) => (
                BeadPhase::Submitted,
                "NotSubmitted: its polecat is done; no merge request holds its work".to_owned(),
            ),
            (Some((PolecatState::Stuck, reason)), _) => (BeadPhase::Failed, word(reason, "Stuck")),
            (Some((PolecatState::Terminated, _)), _) => {
                (BeadPhase::Failed, "Terminated: its polecat was stopped".to_owned())
            }
            (None, _) => self.unstarted(id),
        }
    }

    /// A bead that nobody works on.
    fn unstarted(&self, id: &str) -> (BeadPhase, String) {
        let Some(beads) = self.store() else {
            return match &self.s.store {
                Store::None => (BeadPhase::Open, String::new()),
                _ => (BeadPhase::Unknown, "BeadStoreUnavailable".to_owned()),
            };
        };
        let Some(bead) = beads.get(id) else {
            return (BeadPhase::Unknown, "UnknownBead: the store does not hold it".to_owned());
        };
        match Graph::new(beads, &self.over).hold(id) {
            Hold::Beads(first) => (BeadPhase::Blocked, format!("Blocked: by {}", named(&first))),
            Hold::Store => (BeadPhase::Blocked, "Blocked: the store says so".to_owned()),
            Hold::Free if bead.status != "open" && bead.assignee.is_empty() => {
                (BeadPhase::Open, format!("NotOpen: its status is {}", bead.status))
            }
            Hold::Free if bead.status != "open" => (
                BeadPhase::Open,
                format!("NotOpen: its status is {}, assigned to {}", bead.status, bead.assignee),
            ),
            // While the store has not seen a landing, its list of ready beads is as old as that.
            Hold::Free if !bead.ready && !bead.blocked => {
                (BeadPhase::Open, "NotReady: the store does not list it as ready".to_owned())
            }
            Hold::Free if NO_WORK.contains(&bead.kind.as_str()) => {
                (BeadPhase::Open, format!("NotReady: it is a {}", bead.kind))
            }
            Hold::Free if self.s.dispatch && self.s.taken.contains(id) => {
                (BeadPhase::Open, "NameTaken: a polecat of its name does something else".to_owned())
            }
            Hold::Free => (BeadPhase::Ready, String::new()),
        }
    }

    /// What keeps every bead of the convoy from being started.
    fn gate(&self, failed: &BTreeSet<String>) -> Option<Gate> {
        let s = self.s;
        if s.deleting {
            return Some(("Terminating", "the convoy is being deleted".to_owned()));
        }
        if !s.dispatch {
            return Some(("InProgress", "the convoy follows its beads and starts none".to_owned()));
        }
        if let Some(invalid) = self.invalid() {
            return Some(invalid);
        }
        let rig = self.rig()?;
        if s.suspended {
            Some(("Suspended", "spec.suspend is set: nothing more is started".to_owned()))
        } else if rig.suspended {
            Some(("RigSuspended", format!("rig {} is parked", rig.name)))
        } else if s.policy == Policy::Stop && !failed.is_empty() {
            Some(("Stopped", format!("failurePolicy is Stop and {} failed", named(failed))))
        } else {
            None
        }
    }

    /// Why the beads cannot be worked on as they are listed; nothing is started until that is put
    /// right.
    pub fn invalid(&self) -> Option<Gate> {
        let s = self.s;
        let rig = match &s.rig {
            RigState::Unnamed => return Some(("NoRig", "spec.rigRef names no rig".to_owned())),
            RigState::Missing(name) => {
                return Some(("RigNotFound", format!("there is no rig {name}")));
            }
            RigState::Present(rig) => rig,
        };
        if rig.deleting {
            return Some(("RigTerminating", format!("rig {} is being deleted", rig.name)));
        }
        if !rig.allows {
            return Some((
                "NamespaceNotAllowed",
                format!("rig {} does not allow namespace {}", rig.name, s.namespace),
            ));
        }
        let beads = match &s.store {
            Store::None => {
                return Some((
                    "NoBeadStore",
                    format!("no BeadStore names rig {}: its beads cannot be read", rig.name),
                ));
            }
            Store::Unavailable(why) => return Some(("BeadStoreUnavailable", why.clone())),
            Store::Read(beads) => beads,
        };
        let absent: Vec<&str> = self
            .tracked
            .iter()
            .copied()
            .filter(|id| !beads.contains_key(*id) && !self.over.contains(*id))
            .collect();
        let ours = |id: &&str| {
            rig.prefixes.iter().any(|prefix| {
                id.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('-'))
            })
        };
        let (unknown, foreign): (Vec<&str>, Vec<&str>) = absent.into_iter().partition(ours);
        let until = "nothing is started until spec.trackedBeads or the store is put right";
        if !foreign.is_empty() {
            return Some((
                "ForeignBead",
                format!("{} not of rig {}: {until}", are(&foreign), rig.name),
            ));
        }
        if !unknown.is_empty() {
            return Some((
                "UnknownBead",
                format!("{} not in the store of rig {}: {until}", are(&unknown), rig.name),
            ));
        }
        let cycle = Graph::new(beads, &self.over).cycle(&self.tracked)?;
        let way = if cycle.len() > 12 {
            format!("{} → …", cycle[..12].join(" → "))
        } else {
            cycle.join(" → ")
        };
        Some((
            "DependencyCycle",
            format!(
                "these beads wait for each other: {way}; nothing is started until one of the dependencies is removed"
            ),
        ))
    }

    /// Beads that a Polecat works on: its place is taken until it stops.
    pub fn active(&self) -> usize {
        let works = |polecat: &PolecatFact| {
            matches!(polecat.state, PolecatState::Active | PolecatState::Paused)
        };
        self.tracked
            .iter()
            .filter(|id| !self.over.contains(**id) && polecats(self.s, id).iter().any(works))
            .count()
    }

    /// How many more may be started: by the convoy's own limit, and by the rig's.
    pub fn room(&self) -> (usize, usize) {
        let own = self.s.parallelism.map_or(usize::MAX, |most| most.saturating_sub(self.active()));
        (own, self.rig().map_or(0, |rig| rig.most.saturating_sub(rig.active)))
    }

    fn feed(&self) -> Vec<Feed> {
        let (Some(rig), Some(beads)) = (self.rig(), self.store()) else { return Vec::new() };
        let mut ready: Vec<(u32, i64, &str)> = Vec::new();
        for id in &self.tracked {
            let untouched = !self.over.contains(*id) && polecats(self.s, id).is_empty();
            if let Some(bead) =
                beads.get(*id).filter(|_| untouched && self.line(id).phase == BeadPhase::Ready)
            {
                ready.push((bead.priority, bead.created.unwrap_or(i64::MAX), id));
            }
        }
        ready.sort_unstable();
        let (own, rigs) = self.room();
        ready.truncate(own.min(rigs));
        let feed = |(priority, _, id): (u32, i64, &str)| Feed {
            bead: id.to_owned(),
            polecat: polecat_name(&rig.name, id),
            priority,
        };
        ready.into_iter().map(feed).collect()
    }
}

fn bead<'a>(s: &'a Snapshot, id: &str) -> Option<&'a BeadFact> {
    match &s.store {
        Store::Read(beads) => beads.get(id),
        Store::None | Store::Unavailable(_) => None,
    }
}

fn polecats<'a>(s: &'a Snapshot, id: &str) -> &'a [PolecatFact] {
    s.polecats.get(id).map_or(&[], Vec::as_slice)
}

fn requests<'a>(s: &'a Snapshot, id: &str) -> &'a [RequestFact] {
    s.requests.get(id).map_or(&[], Vec::as_slice)
}

fn landed(s: &Snapshot, id: &str) -> bool {
    requests(s, id).iter().any(|request| request.state == RequestState::Landed)
}

/// The first few of them.
pub(super) fn named<T: AsRef<str>>(ids: impl IntoIterator<Item = T>) -> String {
    const NAMED: usize = 5;
    let ids: Vec<T> = ids.into_iter().collect();
    let first: Vec<&str> = ids.iter().take(NAMED).map(AsRef::as_ref).collect();
    match ids.len().checked_sub(NAMED).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", first.join(", ")),
        None => first.join(", "),
    }
}

fn are(ids: &[&str]) -> String {
    format!("{} {}", named(ids), if ids.len() == 1 { "is" } else { "are" })
}
