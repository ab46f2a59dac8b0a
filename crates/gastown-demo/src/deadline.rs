//! When a run is given up.

use std::time::{Duration, Instant};

use gastown_api::PolecatPhase;
use kube::ResourceExt;

use crate::snapshot::Snapshot;

/// How long nothing may change.
const QUIET: Duration = Duration::from_mins(10);
/// How long nothing may change when only Stuck polecats are left.
const STUCK: Duration = Duration::from_secs(45);

/// When to stop waiting: the end of the time for the whole run, or too long without a change.
#[derive(Debug)]
pub struct Deadline {
    end: Instant,
    last_news: Instant,
    limit: Duration,
}

impl Deadline {
    /// Starts to count; `limit` is the time for the whole run.
    pub fn new(limit: Duration) -> Self {
        let now = Instant::now();
        Self { end: now + limit, last_news: now, limit }
    }

    /// Something changed.
    pub fn note_news(&mut self) {
        self.last_news = Instant::now();
    }

    /// Why waiting longer is pointless, in a sentence.
    pub fn is_over(&self, snapshot: &Snapshot, landed: usize, all: usize) -> Option<String> {
        let quiet = self.last_news.elapsed();
        let stuck = snapshot
            .polecats
            .iter()
            .filter(|p| p.status.as_ref().and_then(|s| s.phase) == Some(PolecatPhase::Stuck));
        let stuck: Vec<String> = stuck.map(ResourceExt::name_any).collect();
        let why = if Instant::now() > self.end {
            format!("the {} s for the whole run are over", self.limit.as_secs())
        } else if quiet > QUIET {
            format!("nothing changed for {} s", QUIET.as_secs())
        } else if quiet > STUCK
            && !stuck.is_empty()
            && stuck.len() + landed >= snapshot.polecats.len()
        {
            format!("stuck: {}", stuck.join(", "))
        } else {
            return None;
        };
        Some(format!("{landed} of {all} landed; {why}"))
    }
}
