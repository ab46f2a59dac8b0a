//! What follows from the runs of a request's gate.

use gastown_api::{GateRunPhase, GateRunPurpose};
use gastown_types::CommitId;

use super::{GateId, GateResult};

/// A run as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastRun {
    /// Its number among the runs of its request, from 1.
    pub number: u32,
    /// The commit that is tested.
    pub candidate: CommitId,
    /// The gate.
    pub gate: GateId,
    /// Why it runs.
    pub purpose: GateRunPurpose,
    /// How it ended; `None` while it has not.
    pub end: Option<GateRunPhase>,
}

impl PastRun {
    /// The run's verdict, if it ended with one.
    pub fn verdict(&self) -> Option<Verdict> {
        let result = match self.end? {
            GateRunPhase::Passed => GateResult::Pass,
            GateRunPhase::Failed => GateResult::Fail,
            GateRunPhase::Broken | GateRunPhase::Running | GateRunPhase::Unknown => return None,
        };
        Some(Verdict { candidate: self.candidate.clone(), gate: self.gate.clone(), result })
    }
}

/// A gate's verdict on a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The commit that was tested.
    pub candidate: CommitId,
    /// The gate.
    pub gate: GateId,
    /// Whether it passed.
    pub result: GateResult,
}

/// A run without a verdict, after so many verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Broken {
    candidate: CommitId,
    gate: GateId,
    verdicts: usize,
}

/// What the runs of a request come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The verdicts that count, on candidates and on the tips that they were built on, oldest first.
    pub verdicts: Vec<Verdict>,
    broken: Vec<Broken>,
    /// How many of the latest runs in a row were broken by infrastructure.
    pub broken_runs: u32,
    /// How many runs tested a candidate once more after a failure.
    pub retries: u32,
    /// The highest number of a run; the next run has the next one.
    pub last_run: u32,
}

impl History {
    /// What these runs come to. Those before number `since` do not count: a person had the request
    /// tried again.
    pub fn of(mut runs: Vec<PastRun>, since: u32) -> Self {
        runs.sort_by_key(|run| run.number);
        let mut history = Self::default();
        for run in runs {
            history.last_run = history.last_run.max(run.number);
            if run.number < since {
                continue;
            }
            history.retries += u32::from(run.purpose == GateRunPurpose::Retry);
            if let Some(verdict) = run.verdict() {
                history.broken_runs = 0;
                history.verdicts.push(verdict);
            } else if run.end == Some(GateRunPhase::Broken) {
                history.broken_runs += 1;
                let (PastRun { candidate, gate, .. }, verdicts) = (run, history.verdicts.len());
                history.broken.push(Broken { candidate, gate, verdicts });
            }
        }
        history
    }

    /// The verdicts since the gate broke on a commit for the `n`-th time, from 1, after it last broke
    /// on `tip`; `None` when it has not broken so often.
    pub(super) fn since_break(
        &self,
        candidate: &CommitId,
        gate: &GateId,
        n: usize,
        tip: &CommitId,
    ) -> Option<&[Verdict]> {
        let is_on = |b: &Broken, commit: &CommitId| b.candidate == *commit && b.gate == *gate;
        let from = self.broken.iter().rposition(|b| is_on(b, tip)).map_or(0, |at| at + 1);
        let mut breaks = self.broken[from..].iter().filter(|b| is_on(b, candidate));
        let last = breaks.nth(n.checked_sub(1)?)?;
        Some(&self.verdicts[last.verdicts..])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(number: u32, end: Option<GateRunPhase>) -> PastRun {
        let candidate = "a".repeat(40).parse().unwrap();
        let gate = GateId("g".into());
        PastRun { number, candidate, gate, purpose: GateRunPurpose::Test, end }
    }

    #[test]
    fn an_end_that_only_a_later_version_knows_is_no_verdict_and_blames_nobody() {
        let mut runs =
            vec![run(1, Some(GateRunPhase::Unknown)), run(2, Some(GateRunPhase::Failed))];
        runs[1].purpose = GateRunPurpose::Unknown;
        let history = History::of(runs, 0);
        assert_eq!((history.verdicts.len(), history.broken_runs, history.retries), (1, 0, 0));
        assert_eq!(history.last_run, 2, "the next run has a name of its own");
    }

    #[test]
    fn broken_runs_count_since_the_last_verdict_and_a_retry_of_a_person_forgets_all() {
        use GateRunPhase::{Broken, Failed};
        let mut runs = vec![
            run(4, Some(Broken)),
            run(1, Some(Broken)),
            run(2, Some(Failed)),
            run(3, Some(Broken)),
            run(5, None),
        ];
        runs[2].purpose = GateRunPurpose::Retry;
        let all = History::of(runs.clone(), 0);
        assert_eq!((all.verdicts.len(), all.broken_runs, all.retries, all.last_run), (1, 2, 1, 5));
        let again = History::of(runs, 6);
        assert_eq!(again, History { last_run: 5, ..History::default() });
    }

    proptest! {
        #[test]
        fn the_order_in_which_runs_are_listed_changes_nothing(
            ends in prop::collection::vec(0..4_u8, 0..12),
            since in 0..14_u32,
            seed in any::<u64>(),
        ) {
            let phase = |n: &u8| match n {
                0 => None,
                1 => Some(GateRunPhase::Passed),
                2 => Some(GateRunPhase::Failed),
                _ => Some(GateRunPhase::Broken),
            };
            let runs: Vec<_> =
                ends.iter().zip(1..).map(|(end, number)| run(number, phase(end))).collect();
            let mut shuffled = runs.clone();
            shuffled.sort_by_key(|run| u64::from(run.number).wrapping_mul(seed | 1) >> 32);
            let history = History::of(runs, since);
            prop_assert!(history.verdicts.len() + history.broken.len() <= ends.len());
            prop_assert_eq!(History::of(shuffled, since), history);
        }
    }
}
