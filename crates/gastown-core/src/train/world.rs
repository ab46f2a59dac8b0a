//! A town in miniature: whatever happens in it, what lands was tested where it landed, and
//! everything ends.

use std::collections::{BTreeMap, BTreeSet};

use gastown_types::CommitId;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

fn commit(parts: &[&str]) -> CommitId {
    short_digest(parts, 40).parse().unwrap()
}

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn request(n: u32) -> Request {
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
        verdicts: Vec::new(),
        faults: 0,
        runs_done: 0,
        not_before: None,
        doubts: 0,
        retest_at: None,
        source: Source::Unknown,
        build: None,
        landing: Landing::No,
        author: Author::Unknown,
        told: false,
        cleaned: false,
    }
}

/// What is true, beside what is known of it.
struct World {
    facts: Facts,
    /// The remote's target, oldest first.
    history: Vec<CommitId>,
    /// Sources that a request's trailer stands for on the target.
    landed: BTreeMap<RequestId, CommitId>,
    /// Commits that a gate really passed or failed on.
    ran: BTreeMap<CommitId, bool>,
    /// Requests whose candidates never pass, or do not fit on odd tips.
    bad: BTreeSet<u32>,
    clumsy: BTreeSet<u32>,
    /// Tips on which the gate fails whatever is built on them, but for what the mender makes.
    sick: BTreeSet<CommitId>,
    mender: Option<u32>,
    steps: usize,
}

impl World {
    fn new(requests: u32, bad: BTreeSet<u32>, clumsy: BTreeSet<u32>, gated: bool) -> Self {
        let facts = Facts {
            now: start(),
            target: Target::Unknown,
            gate: gated.then(|| GateId("g".into())),
            delete_branches: true,
            requests: (0..requests).map(request).collect(),
            runs: Vec::new(),
        };
        Self {
            facts,
            history: vec![commit(&["root"])],
            landed: BTreeMap::new(),
            ran: BTreeMap::new(),
            bad,
            clumsy,
            sick: BTreeSet::new(),
            mender: None,
            steps: 0,
        }
    }

    fn number(id: &RequestId) -> u32 {
        id.0.trim_start_matches("uid-").parse().unwrap()
    }

    fn tip(&self) -> CommitId {
        self.history.last().unwrap().clone()
    }

    fn at(&mut self, id: &RequestId) -> &mut Request {
        self.facts.requests.iter_mut().find(|r| r.id == *id).unwrap()
    }

    fn end(&mut self, id: &RequestId, phase: EndPhase, reason: &str) {
        let at = self.facts.now;
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

    fn build(&self, id: &RequestId, base: &CommitId) -> Built {
        if let Some(commit) = self.landed.get(id) {
            return Built::Landed(commit.clone());
        }
        let place = self.history.iter().position(|c| c == base).unwrap();
        if self.clumsy.contains(&Self::number(id)) && place % 2 == 1 {
            return Built::Conflict("a/file".into());
        }
        Built::Candidate(commit(&[&id.0, base.as_str()]))
    }

    /// Carries a step out as the controller does; says whether there was anything to do.
    fn act(&mut self, step: Step) -> bool {
        self.steps += 1;
        match step {
            Step::Wait { .. } => return false,
            Step::Fetch => {
                self.facts.target = Target::At { tip: self.tip(), seen: self.facts.now };
                self.facts.requests.iter_mut().for_each(|r| r.source = Source::Present);
            }
            Step::Build { request, base } => {
                let built = self.build(&request, &base);
                self.at(&request).build = Some(Build { base, built });
            }
            Step::EnsureGate { car, gate, run } => {
                let job = gate_job_name("r", &car.commit, &gate.0, "", run);
                assert!(!self.facts.runs.iter().any(|r| r.job == job), "the same run twice");
                self.facts.runs.push(Run {
                    job,
                    request: car.request,
                    candidate: car.commit,
                    gate,
                    state: RunState::Running(String::new()),
                });
                assert_eq!(self.facts.runs.len(), 1, "one request at a time");
            }
            Step::RecordVerdict { request, candidate, gate, result, until, .. } => {
                assert_eq!(
                    self.ran.get(&candidate),
                    Some(&(result == Judgement::Pass)),
                    "a verdict that no gate gave"
                );
                let r = self.at(&request);
                r.verdicts.push(Verdict { candidate, gate, result, evidence: "log".into() });
                r.retest_at = until.or(r.retest_at);
            }
            Step::Doubt(request) => {
                let r = self.at(&request);
                assert_eq!(
                    r.verdicts.last().map(|v| v.result),
                    Some(Judgement::Fail),
                    "a run that was not red is doubted"
                );
                (r.runs_done, r.doubts) = (r.runs_done + 1, r.doubts + 1);
                r.verdicts.clear();
            }
            Step::Retest(request) => {
                let sick =
                    matches!(&self.facts.target, Target::At { tip, .. } if self.sick.contains(tip));
                assert!(sick, "a target that is well is taken for a broken one");
                let r = self.at(&request);
                (r.runs_done, r.retest_at) = (r.runs_done + 1, None);
                r.verdicts.clear();
            }
            Step::RecordFault { job, request, until, .. } => {
                self.facts.runs.retain(|r| r.job != job);
                let r = self.at(&request);
                (r.faults, r.runs_done, r.not_before) =
                    (r.faults + 1, r.runs_done + 1, Some(until));
            }
            Step::ReleaseJob { job } => {
                let before = self.facts.runs.len();
                self.facts.runs.retain(|r| r.job != job);
                assert!(self.facts.runs.len() < before);
            }
            Step::Land(tested) => self.land(&tested),
            Step::ReadBack { request, commit } => {
                self.at(&request).landing = Landing::Confirmed(commit)
            }
            Step::MarkLanded { request, commit, tested, reason } => {
                if let Some(commit) = commit {
                    assert!(self.history.contains(&commit), "landed and not on the target");
                    assert!(self.facts.gate.is_none() || tested == Some(commit));
                } else {
                    assert_eq!(reason, "AlreadyInTarget");
                }
                self.end(&request, EndPhase::Landed, reason);
                self.at(&request).told = true;
            }
            Step::TellAuthor(request) => self.at(&request).told = true,
            Step::DeleteSource(request) => self.at(&request).cleaned = true,
            Step::AskAuthor(request) => self.at(&request).author = Author::Present,
            Step::Rework { request, reason, .. } => {
                let n = Self::number(&request);
                match reason {
                    "GateFailed" => {
                        assert!(self.bad.contains(&n), "{request:?} is blamed for nothing")
                    }
                    "Conflict" => assert!(self.clumsy.contains(&n)),
                    other => panic!("{other}"),
                }
                self.end(&request, EndPhase::Rework, reason);
            }
            Step::Reject { request, reason, .. } => self.end(&request, EndPhase::Rejected, reason),
            Step::Supersede { request, .. } => {
                self.end(&request, EndPhase::Superseded, "Superseded")
            }
            Step::Reopen(request) => {
                let r = self.at(&request);
                (r.end, r.faults, r.not_before, r.retried) = (None, 0, None, r.retry);
                r.verdicts.clear();
            }
            Step::Forget(request) => self.facts.requests.retain(|r| r.id != request),
        }
        true
    }

    fn land(&mut self, tested: &Tested<Car>) {
        let car = tested.what().clone();
        if self.facts.gate.is_some() {
            assert_eq!(
                self.ran.get(&car.commit),
                Some(&true),
                "a commit lands that its gate has not passed"
            );
        }
        if self.tip() != car.base {
            // The lease is stale.
            self.facts.target = Target::Unknown;
            return;
        }
        assert_eq!(
            car.commit,
            commit(&[&car.request.0, car.base.as_str()]),
            "a commit lands that was not built on the tip"
        );
        self.history.push(car.commit.clone());
        self.landed.insert(car.request.clone(), car.commit.clone());
        self.facts.target = Target::At { tip: car.commit.clone(), seen: self.facts.now };
        self.at(&car.request).landing = Landing::Pushed(car.commit);
    }

    /// Something happens outside.
    fn happen(&mut self, event: u8) {
        match event {
            0 => self.push(false),
            8 => self.push(true),
            1 => self.finish(true),
            2..=4 => self.finish(false),
            // The process is killed: what it had in mind is gone; verdicts and ends are in
            // annotations, Jobs stay.
            5 => self.forget_what_is_in_mind(),
            // Somebody erases statuses.
            6 => self.facts.requests.iter_mut().for_each(|r| r.told = false),
            7 => self.facts.now += SignedDuration::from_secs(40),
            _ => {}
        }
    }

    fn forget_what_is_in_mind(&mut self) {
        self.facts.target = Target::Unknown;
        for r in &mut self.facts.requests {
            (r.build, r.landing, r.source, r.author) =
                (None, Landing::No, Source::Unknown, Author::Unknown);
            r.retest_at = None;
        }
    }

    fn finish(&mut self, broken: bool) {
        for run in &mut self.facts.runs {
            if matches!(run.state, RunState::Running(_)) {
                let n = Self::number(&run.request);
                let base = self
                    .history
                    .iter()
                    .find(|c| commit(&[&run.request.0, c.as_str()]) == run.candidate);
                let pass = match base {
                    Some(base) => {
                        !self.bad.contains(&n)
                            && (!self.sick.contains(base) || self.mender == Some(n))
                    }
                    None => !self.sick.contains(&run.candidate),
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

    /// A stranger pushes to the target.
    fn push(&mut self, sick: bool) {
        let pushed = commit(&["stranger", &self.history.len().to_string()]);
        if sick {
            self.sick.insert(pushed.clone());
        }
        self.history.push(pushed);
    }

    /// Nothing disturbs any more: gates end, time passes, the target is mended.
    fn settle(&mut self) {
        if self.sick.contains(&self.tip()) {
            self.push(false);
        }
        for _ in 0..4000 {
            let step = decide(&self.facts);
            if let Step::Wait { on, until } = &step {
                match on {
                    Waiting::Gate { .. } => self.finish(false),
                    Waiting::Idle => return,
                    Waiting::Blocked | Waiting::NoTarget => {
                        self.facts.now = until.expect("waits for nothing")
                    }
                }
            }
            self.act(step);
        }
        panic!("no end: {:?}", decide(&self.facts));
    }
}

proptest! {
    #[test]
    fn only_what_was_tested_lands_nobody_is_blamed_for_nothing_and_all_ends(
        requests in 1..7u32,
        bad in prop::collection::btree_set(0..7u32, 0..3),
        clumsy in prop::collection::btree_set(0..7u32, 0..3),
        gated in prop::bool::weighted(0.9),
        mender in prop::option::of(0..7u32),
        events in prop::collection::vec(0..14u8, 0..120),
    ) {
        let mut world = World::new(requests, bad, clumsy, gated);
        world.mender = mender;
        for event in events {
            world.happen(event);
            let step = decide(&world.facts);
            world.act(step);
        }
        world.settle();
        prop_assert!(world.facts.runs.is_empty());
        for r in &world.facts.requests {
            let end = r.end.as_ref().unwrap();
            prop_assert!(matches!(end.phase, EndPhase::Landed | EndPhase::Rework), "{end:?}");
            if end.phase == EndPhase::Landed {
                prop_assert!(r.cleaned && r.told);
                prop_assert!(!gated || !world.bad.contains(&World::number(&r.id)));
            }
        }
        prop_assert!(world.steps < 4000);
    }
}

#[test]
fn an_older_request_goes_first_and_priority_outweighs_two_hours() {
    let mut world = World::new(3, BTreeSet::new(), BTreeSet::new(), true);
    world.facts.requests[2].created = start() - SignedDuration::from_hours(1);
    world.facts.requests[1].priority = 1;
    let names: Vec<&str> = queue(&world.facts).into_iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["ns/mr-1", "ns/mr-2", "ns/mr-0"]);
}

#[test]
fn what_is_held_waits_and_what_nobody_wants_is_rejected() {
    let mut world = World::new(2, BTreeSet::new(), BTreeSet::new(), true);
    world.facts.requests[0].hold = true;
    world.facts.requests[1].rejected = Some("ann: not now".into());
    assert!(matches!(decide(&world.facts), Step::Reject { reason: "Rejected", .. }));
    world.facts.requests.remove(1);
    assert_eq!(decide(&world.facts), Step::Wait { on: Waiting::Blocked, until: None });
}

#[test]
fn a_newer_request_of_the_branch_stands_for_the_older() {
    let mut world = World::new(2, BTreeSet::new(), BTreeSet::new(), true);
    world.facts.requests[1].branch = world.facts.requests[0].branch.clone();
    world.facts.requests[1].created += SignedDuration::from_secs(1);
    assert_eq!(
        decide(&world.facts),
        Step::Supersede { request: RequestId("uid-0".into()), by: "ns/mr-1".into() }
    );
}

#[test]
fn a_red_run_is_blamed_on_the_request_only_when_the_target_alone_is_green() {
    let mut world = World::new(1, BTreeSet::from([0]), BTreeSet::new(), true);
    let tip = world.tip();
    for _ in 0..=DOUBTS {
        while world.act(decide(&world.facts)) {}
        assert!(world.facts.runs.iter().all(|r| r.candidate != tip));
        world.finish(false);
    }
    while world.act(decide(&world.facts)) {}
    assert_eq!(
        world.facts.runs.iter().map(|r| &r.candidate).collect::<Vec<_>>(),
        [&tip],
        "the target alone is not tested"
    );
    world.finish(false);
    while world.act(decide(&world.facts)) {}
    assert_eq!(world.facts.requests[0].end.as_ref().unwrap().reason, "GateFailed");
}

#[test]
fn a_broken_target_is_nobodys_fault_and_who_mends_it_lands() {
    let mut world = World::new(3, BTreeSet::new(), BTreeSet::new(), true);
    world.push(true);
    world.mender = Some(2);
    for _ in 0..200 {
        let step = decide(&world.facts);
        match &step {
            Step::Wait { on: Waiting::Gate { .. }, .. } => world.finish(false),
            Step::Wait { on: Waiting::Idle, .. } => break,
            Step::Wait { until, .. } => world.facts.now = until.unwrap(),
            Step::Rework { request, .. } => panic!("{request:?} is blamed"),
            _ => {}
        }
        world.act(step);
    }
    assert!(
        world
            .facts
            .requests
            .iter()
            .all(|r| r.end.as_ref().is_some_and(|e| e.phase == EndPhase::Landed))
    );
    assert_eq!(world.facts.now, start(), "the others waited although the target was mended");
}

#[test]
fn on_a_broken_target_the_remote_is_looked_at_and_the_gate_asked_again_later() {
    let mut world = World::new(1, BTreeSet::new(), BTreeSet::new(), true);
    world.push(true);
    let (mut fetches, mut retests) = (0, 0);
    while retests < 2 {
        let step = decide(&world.facts);
        match &step {
            Step::Wait { on: Waiting::Gate { .. }, .. } => world.finish(false),
            Step::Wait { until, .. } => world.facts.now = until.unwrap(),
            Step::Fetch => fetches += 1,
            Step::Retest(_) => retests += 1,
            _ => {}
        }
        world.act(step);
    }
    let waited = world.facts.now.as_second() - start().as_second();
    assert!((2 * BROKEN_FOR..3 * BROKEN_FOR).contains(&waited), "{waited}");
    assert!(fetches >= waited / LOOK_AGAIN, "{fetches} looks in {waited} s");
}

#[test]
fn a_newer_request_waits_for_the_verdict_on_the_older() {
    let mut world = World::new(1, BTreeSet::new(), BTreeSet::new(), true);
    while world.act(decide(&world.facts)) {}
    let mut newer = request(1);
    newer.branch = world.facts.requests[0].branch.clone();
    newer.created += SignedDuration::from_secs(1);
    world.facts.requests.push(newer);
    assert_eq!(decide(&world.facts), Step::Fetch);
    world.act(Step::Fetch);
    assert!(matches!(decide(&world.facts), Step::Wait { on: Waiting::Gate { .. }, .. }));
    world.settle();
    assert!(
        world
            .facts
            .requests
            .iter()
            .all(|r| r.end.as_ref().is_some_and(|e| e.phase == EndPhase::Landed))
    );
}

#[test]
fn broken_runs_back_off_without_blame_and_others_go_on() {
    let mut world = World::new(2, BTreeSet::new(), BTreeSet::new(), true);
    let mut waits = Vec::new();
    while world.facts.requests[0].faults < 5 {
        match decide(&world.facts) {
            Step::Wait { on: Waiting::Gate { request, .. }, .. } => {
                world.finish(request.0 == "uid-0")
            }
            Step::Wait { until, .. } => world.facts.now = until.unwrap(),
            step => {
                if let Step::RecordFault { until, .. } = &step {
                    waits.push(until.as_second() - world.facts.now.as_second());
                }
                world.act(step);
            }
        }
    }
    assert_eq!(waits, [10, 20, 40, 600, 600]);
    assert!(world.facts.requests[0].end.is_none());
    assert_eq!(world.facts.requests[1].end.as_ref().unwrap().phase, EndPhase::Landed);
}

#[test]
fn a_commit_that_is_not_on_its_branch_waits_and_then_goes_back() {
    let mut world = World::new(1, BTreeSet::new(), BTreeSet::new(), true);
    world.act(Step::Fetch);
    let now = world.facts.now;
    world.facts.requests[0].source = Source::Missing { since: now, looked: now };
    assert!(matches!(decide(&world.facts), Step::Wait { on: Waiting::Blocked, until: Some(_) }));
    world.facts.now += SignedDuration::from_secs(MISSING_FOR);
    let now = world.facts.now;
    world.facts.target = Target::At { tip: world.tip(), seen: now };
    world.facts.requests[0].source = Source::Missing { since: start(), looked: now };
    assert_eq!(decide(&world.facts), Step::AskAuthor(RequestId("uid-0".into())));
    world.facts.requests[0].author = Author::Gone;
    assert!(matches!(decide(&world.facts), Step::Reject { reason: "AuthorGone", .. }));
    world.facts.requests[0].author = Author::Present;
    assert!(matches!(decide(&world.facts), Step::Rework { reason: "SourceCommitMissing", .. }));
}

#[test]
fn a_person_can_have_a_rejected_work_tried_again() {
    let mut world = World::new(1, BTreeSet::from([0]), BTreeSet::new(), true);
    world.settle();
    assert_eq!(world.facts.requests[0].end.as_ref().unwrap().reason, "GateFailed");
    world.bad.clear();
    world.facts.requests[0].retry = 1;
    world.settle();
    assert_eq!(world.facts.requests[0].end.as_ref().unwrap().phase, EndPhase::Landed);
}

#[test]
fn ended_requests_are_forgotten_after_a_week() {
    let mut world = World::new(1, BTreeSet::new(), BTreeSet::new(), false);
    world.settle();
    world.facts.now += SignedDuration::from_secs(KEPT_SECONDS);
    assert_eq!(decide(&world.facts), Step::Forget(RequestId("uid-0".into())));
}
