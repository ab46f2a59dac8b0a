//! How long ended runs are kept.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::snapshot::{EndedRun, Request, Snapshot};
use super::{KEPT_SECONDS, RequestId};

/// How many ended runs of an open request are kept.
const MAX_OF_OPEN: usize = 64;
/// How many ended runs of requests that are not open are kept.
const MAX_OTHERS: usize = 1000;

/// A run that is not kept any longer: of a request that is not open one that ended a week ago, and
/// the oldest where there are too many.
pub(super) fn expired(snapshot: &Snapshot) -> Option<&EndedRun> {
    let is_open = |r: &&Request| r.end.is_none();
    let open: BTreeSet<&RequestId> =
        snapshot.requests.iter().filter(is_open).map(|r| &r.id).collect();
    let (of_open, others): (Vec<_>, Vec<_>) =
        snapshot.ended_runs.iter().partition(|run| open.contains(&run.request));
    let kept = SignedDuration::from_secs(KEPT_SECONDS);
    let is_old =
        |run: &&EndedRun| run.finished.checked_add(kept).unwrap_or(Timestamp::MAX) <= snapshot.now;
    let too_many = others.len() > MAX_OTHERS;
    let other = others.into_iter().next().filter(|run| too_many || is_old(run));
    let mut counts: BTreeMap<&RequestId, usize> = BTreeMap::new();
    for run in &of_open {
        *counts.entry(&run.request).or_default() += 1;
    }
    other.or_else(|| of_open.into_iter().find(|run| counts[&run.request] > MAX_OF_OPEN))
}

#[cfg(test)]
mod tests {
    use super::super::simulation::{Simulation, request, start};
    use super::*;

    fn ended(n: usize, request: u32, age: i64) -> EndedRun {
        EndedRun {
            name: format!("gate-{n}"),
            request: RequestId(format!("uid-{request}")),
            finished: start() - SignedDuration::from_secs(age),
        }
    }

    #[test]
    fn runs_are_kept_for_a_week_and_in_bounded_number() {
        let mut sim = Simulation::new(1, BTreeSet::new(), BTreeSet::new(), true);
        let name = |snapshot: &Snapshot| expired(snapshot).map(|run| run.name.clone());
        sim.snapshot.ended_runs = vec![ended(1, 0, 2 * KEPT_SECONDS), ended(2, 9, KEPT_SECONDS)];
        assert_eq!(name(&sim.snapshot).as_deref(), Some("gate-2"), "that of the open one stays");
        sim.snapshot.ended_runs.pop();
        assert_eq!(name(&sim.snapshot), None);
        sim.snapshot.ended_runs = (0..=MAX_OTHERS).map(|n| ended(n, 9, 0)).collect();
        assert_eq!(name(&sim.snapshot).as_deref(), Some("gate-0"));
        sim.snapshot.ended_runs = (0..=MAX_OF_OPEN).map(|n| ended(n, 0, 0)).collect();
        assert_eq!(name(&sim.snapshot).as_deref(), Some("gate-0"));
        sim.snapshot.requests = vec![request(1)];
        assert_eq!(name(&sim.snapshot), None);
    }
}
