//! A simulated remote, gate and controller around [`decide`]. Whatever events happen, only commits
//! that were tested where they land do land, nobody is blamed wrongly, and every request ends.

use std::collections::{BTreeMap, BTreeSet};

use gastown_api::GateRunPhase;
use gastown_types::CommitId;
use gastown_types::digest::short_digest;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

fn commit(parts: &[&str]) -> CommitId {
    short_digest(parts, 40).parse().unwrap()
}

pub(super) fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub(super) fn request(n: u32) -> Request {
    Request {
        id: RequestId(format!("uid-{n}")),
        name: format!("ns/mr-{n}"),
        branch: format!("feature/{n}").parse().unwrap(),
        commit: commit(&["source", &n.to_string()]),
        polecat: Some(format!("polecat-{n}")),
        previous: None,
        attempt: 1,
        priority: 2,
        created: start(),
        hold: false,
        rejected: None,
        retry: 0,
        retried: 0,
        end: None,
        history: History::default(),
        not_before: None,
        failed_until: None,
        retest_at: None,
        source: Source::Unknown,
        build: None,
        landing: Landing::No,
        author: Author::Unknown,
        author_notified: false,
        cleaned: false,
        saved_until: None,
    }
}

/// For how long the simulated rig keeps what was saved beside landed work.
pub(super) const SAVED_SECONDS: i64 = 2 * KEPT_SECONDS;

/// What is true of remote and gates, beside the snapshot that the controller has of them.
pub(super) struct Simulation {
    pub(super) snapshot: Snapshot,
    /// The runs that are stored, by request.
    stored: BTreeMap<RequestId, Vec<PastRun>>,
    /// The number of the first run that counts.
    since: BTreeMap<RequestId, u32>,
    /// The remote's target, oldest first.
    history: Vec<CommitId>,
    /// The commits on the target that have a request's trailer.
    landed: BTreeMap<RequestId, CommitId>,
    /// The commits that the gate has run on, and whether it passed.
    ran: BTreeMap<CommitId, bool>,
    /// Requests whose candidates never pass.
    pub(super) failing: BTreeSet<u32>,
    /// Requests that conflict with every second tip.
    conflicting: BTreeSet<u32>,
    /// Tips on which the gate fails for all candidates but those of `fixer`.
    broken_tips: BTreeSet<CommitId>,
    /// The request that repairs broken tips.
    pub(super) fixer: Option<u32>,
    steps: usize,
}

impl Simulation {
    pub(super) fn new(
        requests: u32,
        failing: BTreeSet<u32>,
        conflicting: BTreeSet<u32>,
        gated: bool,
    ) -> Self {
        let snapshot = Snapshot {
            now: start(),
            target: Target::Unknown,
            gate: gated.then(|| GateId("g".into())),
            gates_may_start: true,
            delete_branches: true,
            requests: (0..requests).map(request).collect(),
            runs: Vec::new(),
            controls: Vec::new(),
            ended_runs: Vec::new(),
        };
        Self {
            snapshot,
            stored: BTreeMap::new(),
            since: BTreeMap::new(),
            history: vec![commit(&["root"])],
            landed: BTreeMap::new(),
            ran: BTreeMap::new(),
            failing,
            conflicting,
            broken_tips: BTreeSet::new(),
            fixer: None,
            steps: 0,
        }
    }

    fn number(id: &RequestId) -> u32 {
        id.0.trim_start_matches("uid-").parse().unwrap()
    }

    pub(super) fn tip(&self) -> CommitId {
        self.history.last().unwrap().clone()
    }

    fn at(&mut self, id: &RequestId) -> &mut Request {
        self.snapshot.requests.iter_mut().find(|r| r.id == *id).unwrap()
    }

    fn end(&mut self, id: &RequestId, phase: MergePhase, reason: &str) {
        let at = self.snapshot.now;
        let r = self.at(id);
        assert!(r.end.is_none(), "{id:?} ends twice");
        r.end = Some(End {
            phase,
            reason: reason.into(),
            message: String::new(),
            at,
            tested: None,
            landed: None,
        });
    }

    /// What the controller reads of a request's runs, after they changed.
    fn read_runs(&mut self, id: &RequestId) {
        let runs = self.stored.get(id).cloned().unwrap_or_default();
        let since = self.since.get(id).copied().unwrap_or_default();
        self.at(id).history = History::of(runs, since);
    }

    /// Records the end of a run; returns it.
    fn record(&mut self, name: &str, end: GateRunPhase) -> Run {
        let run = self.snapshot.runs.iter_mut().find(|r| r.name == name).unwrap();
        assert!(!run.recorded, "an end is recorded twice");
        run.recorded = true;
        let run = run.clone();
        let stored = self.stored.get_mut(&run.request).unwrap();
        stored.iter_mut().find(|p| p.number == run.number).unwrap().end = Some(end);
        self.read_runs(&run.request);
        run
    }

    fn build(&self, id: &RequestId, base: &CommitId) -> Built {
        if let Some(commit) = self.landed.get(id) {
            return Built::Landed(commit.clone());
        }
        let place = self.history.iter().position(|c| c == base).unwrap();
        if self.conflicting.contains(&Self::number(id)) && place % 2 == 1 {
            return Built::Conflict("a/file".into());
        }
        Built::Candidate(commit(&[&id.0, base.as_str()]))
    }

    /// Carries a step out as the controller does; returns whether there was anything to do.
    pub(super) fn act(&mut self, step: Step) -> bool {
        self.steps += 1;
        match step {
            Step::Wait { .. } => return false,
            Step::Fetch => {
                self.snapshot.target = Target::At { tip: self.tip(), seen: self.snapshot.now };
                self.snapshot.requests.iter_mut().for_each(|r| r.source = Source::Present);
            }
            Step::Build { request, base } => {
                let built = self.build(&request, &base);
                self.at(&request).build = Some(Build { base, built });
            }
            Step::EnsureGate { car, gate, run: number, purpose } => {
                let name = gate_job_name("r", &car.commit, &gate.0, &car.request.0, number);
                let state = RunState::Running(String::new());
                if let Some(run) = self.snapshot.runs.iter_mut().find(|r| r.name == name) {
                    assert_eq!(run.state, RunState::Unstarted, "the same run twice");
                    run.state = state;
                    return true;
                }
                let runs = self.stored.entry(car.request.clone()).or_default();
                assert!(runs.iter().all(|r| r.number < number), "a number is used twice");
                let (request, candidate) = (car.request, car.commit);
                let (past, of_gate) = (candidate.clone(), gate.clone());
                runs.push(PastRun { number, candidate: past, gate: of_gate, purpose, end: None });
                let recorded = false;
                let of = request.clone();
                let run = Run { name, number, request, candidate, gate, purpose, state, recorded };
                self.snapshot.runs.push(run);
                self.read_runs(&of);
                assert_eq!(self.snapshot.runs.len(), 1, "one request at a time");
            }
            Step::RecordVerdict { run, request, result, until } => {
                let pass = result == GateResult::Pass;
                let end = if pass { GateRunPhase::Passed } else { GateRunPhase::Failed };
                let run = self.record(&run, end);
                if run.purpose == GateRunPurpose::Control {
                    let (candidate, gate) = (run.candidate.clone(), run.gate.clone());
                    self.snapshot.controls.push(Verdict { candidate, gate, result });
                }
                let ran = self.ran.get(&run.candidate);
                assert_eq!(ran, Some(&pass), "a verdict that does not come from a run");
                if run.purpose == GateRunPurpose::Retry {
                    let verdicts = &self.at(&request).history.verdicts;
                    let before = verdicts[..verdicts.len() - 1].last().map(|v| v.result);
                    assert_eq!(before, Some(GateResult::Fail), "a retry without a failure");
                }
                let r = self.at(&request);
                r.retest_at = until.or(r.retest_at);
            }
            Step::RecordBrokenRun { run, request, until, .. } => {
                self.record(&run, GateRunPhase::Broken);
                self.snapshot.runs.retain(|r| r.name != run);
                self.at(&request).not_before = Some(until);
            }
            Step::ReleaseJob { run: name } => {
                let at = self.snapshot.runs.iter().position(|r| r.name == name).unwrap();
                let Run { number, request, recorded, .. } = self.snapshot.runs.remove(at);
                if recorded {
                    let finished = self.snapshot.now;
                    self.snapshot.ended_runs.push(EndedRun { name, request, finished });
                } else if let Some(runs) = self.stored.get_mut(&request) {
                    // Nothing was learnt from it. Its number is used again only when it was the last.
                    runs.retain(|r| r.number != number);
                }
            }
            Step::DeleteRun(name) => {
                let before = self.snapshot.ended_runs.len();
                self.snapshot.ended_runs.retain(|r| r.name != name);
                assert!(self.snapshot.ended_runs.len() < before);
            }
            Step::Land(tested) => self.land(&tested),
            Step::ReadBack { request, commit } => {
                self.at(&request).landing = Landing::Confirmed(commit);
            }
            Step::MarkLanded { request, commit, tested, reason } => {
                assert!(self.history.contains(&commit), "landed and not on the target");
                if reason == "AlreadyInTarget" {
                    assert_eq!((commit, tested), (self.tip(), None), "the tip that was compared");
                } else {
                    assert!(self.snapshot.gate.is_none() || tested == Some(commit));
                }
                self.end(&request, MergePhase::Landed, reason);
                self.at(&request).author_notified = true;
            }
            Step::NotifyAuthor(request) => self.at(&request).author_notified = true,
            Step::CleanUp(request) => {
                let until = self.snapshot.now + SignedDuration::from_secs(SAVED_SECONDS);
                let saves = Self::number(&request) % 2 == 0;
                let r = self.at(&request);
                (r.cleaned, r.saved_until) = (true, saves.then_some(until));
            }
            Step::DeleteSaved(request) => {
                let now = self.snapshot.now;
                let until = self.at(&request).saved_until.take();
                assert!(until.is_some_and(|until| until <= now), "not before its time");
            }
            Step::LookUpAuthor(request) => self.at(&request).author = Author::Present,
            Step::Rework { request, reason, .. } => {
                let n = Self::number(&request);
                match reason {
                    "GateFailed" => {
                        assert!(self.failing.contains(&n), "{request:?} is blamed wrongly");
                    }
                    "Conflict" => assert!(self.conflicting.contains(&n)),
                    "GateBroken" => {
                        let last = self.at(&request).history.verdicts.last().map(|v| v.result);
                        assert_eq!(last, Some(GateResult::Pass), "the target alone breaks too");
                    }
                    other => panic!("{other}"),
                }
                self.end(&request, MergePhase::Rework, reason);
            }
            Step::Reject { request, reason, .. } => {
                self.end(&request, MergePhase::Rejected, reason);
            }
            Step::Supersede { request, .. } => {
                self.end(&request, MergePhase::Superseded, "Superseded");
            }
            Step::Reopen(request) => {
                let r = self.at(&request);
                (r.end, r.not_before, r.retried) = (None, None, r.retry);
                let since = r.history.last_run + 1;
                self.since.insert(request.clone(), since);
                self.read_runs(&request);
            }
            Step::DeleteRequest(request) => {
                assert_eq!(self.at(&request).saved_until, None, "the refs are forgotten");
                self.snapshot.requests.retain(|r| r.id != request);
            }
        }
        true
    }

    fn land(&mut self, tested: &Tested<Car>) {
        let car = tested.what().clone();
        if self.snapshot.gate.is_some() {
            assert_eq!(
                self.ran.get(&car.commit),
                Some(&true),
                "a commit lands that its gate has not passed"
            );
        }
        if self.tip() != car.base {
            // The compare-and-swap fails.
            self.snapshot.target = Target::Unknown;
            return;
        }
        assert_eq!(
            car.commit,
            commit(&[&car.request.0, car.base.as_str()]),
            "a commit lands that was not built on the tip"
        );
        self.history.push(car.commit.clone());
        self.landed.insert(car.request.clone(), car.commit.clone());
        self.snapshot.target = Target::At { tip: car.commit.clone(), seen: self.snapshot.now };
        self.at(&car.request).landing = Landing::Pushed(car.commit);
    }

    /// Applies one of the events that come from outside.
    fn apply_event(&mut self, event: u8) {
        match event {
            0 => self.push(false),
            8 => self.push(true),
            1 => self.finish(true),
            2..=4 => self.finish(false),
            // The process is killed and loses its memory; runs and ends are stored, Jobs stay.
            5 => self.lose_memory(),
            // Somebody erases statuses.
            6 => self.snapshot.requests.iter_mut().for_each(|r| r.author_notified = false),
            7 => self.snapshot.now += SignedDuration::from_secs(40),
            // Somebody deletes a Job.
            9 => {
                let running = self.snapshot.runs.iter_mut().filter(|run| !run.recorded);
                running.for_each(|run| run.state = RunState::Unstarted);
            }
            _ => {}
        }
    }

    fn lose_memory(&mut self) {
        self.snapshot.target = Target::Unknown;
        for r in &mut self.snapshot.requests {
            (r.build, r.landing, r.source, r.author) =
                (None, Landing::No, Source::Unknown, Author::Unknown);
            r.retest_at = None;
        }
    }

    pub(super) fn finish(&mut self, broken: bool) {
        for run in &mut self.snapshot.runs {
            if matches!(run.state, RunState::Running(_)) {
                let n = Self::number(&run.request);
                let base = self
                    .history
                    .iter()
                    .find(|c| commit(&[&run.request.0, c.as_str()]) == run.candidate);
                let pass = match base {
                    Some(base) => {
                        !self.failing.contains(&n)
                            && (!self.broken_tips.contains(base) || self.fixer == Some(n))
                    }
                    None => !self.broken_tips.contains(&run.candidate),
                };
                run.state = match (broken, pass) {
                    (true, _) => RunState::Broken("evicted".into()),
                    (false, true) => RunState::Passed,
                    (false, false) => RunState::Failed,
                };
                if !broken {
                    self.ran.insert(run.candidate.clone(), pass);
                }
            }
        }
    }

    /// Somebody else pushes to the target; `broken` makes the gate fail there.
    pub(super) fn push(&mut self, broken: bool) {
        let pushed = commit(&["outsider", &self.history.len().to_string()]);
        if broken {
            self.broken_tips.insert(pushed.clone());
        }
        self.history.push(pushed);
    }

    /// Runs to the end without further events: gates end, time passes, the target is repaired.
    pub(super) fn settle(&mut self) {
        if self.broken_tips.contains(&self.tip()) {
            self.push(false);
        }
        for _ in 0..4000 {
            let step = decide(&self.snapshot);
            if let Step::Wait { on, until } = &step {
                match on {
                    Waiting::Gate { .. } => self.finish(false),
                    Waiting::Idle => return,
                    Waiting::Blocked | Waiting::NoTarget => {
                        self.snapshot.now = until.expect("it waits for nothing");
                    }
                }
            }
            self.act(step);
        }
        panic!("it does not end: {:?}", decide(&self.snapshot));
    }
}

proptest! {
    #[test]
    fn only_tested_commits_land_nobody_is_blamed_wrongly_and_every_request_ends(
        requests in 1..7u32,
        failing in prop::collection::btree_set(0..7u32, 0..3),
        conflicting in prop::collection::btree_set(0..7u32, 0..3),
        gated in prop::bool::weighted(0.9),
        fixer in prop::option::of(0..7u32),
        events in prop::collection::vec(0..14u8, 0..120),
    ) {
        let mut sim = Simulation::new(requests, failing, conflicting, gated);
        sim.fixer = fixer;
        for event in events {
            sim.apply_event(event);
            let step = decide(&sim.snapshot);
            sim.act(step);
        }
        sim.settle();
        prop_assert!(sim.snapshot.runs.is_empty());
        for r in &sim.snapshot.requests {
            let end = r.end.as_ref().unwrap();
            prop_assert!(matches!(end.phase, MergePhase::Landed | MergePhase::Rework), "{end:?}");
            if end.phase == MergePhase::Landed {
                prop_assert!(r.cleaned && r.author_notified);
                prop_assert!(!gated || !sim.failing.contains(&Simulation::number(&r.id)));
            }
        }
        prop_assert!(sim.steps < 4000);
    }
}
