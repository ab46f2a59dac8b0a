//! The machine against a world that does anything: pods die in every way, the controller is killed
//! between deeds, people toggle the spec, requests come back, the ledger is all that is remembered.

mod events;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::fixtures::{self, UID, commit, snapshot, sync};
use super::*;
use crate::admission::Slot;
use crate::report::{AgentExit, InitResult, SyncResult};

pub(super) use events::{Event, events};

/// What the API server has of the one bead: the claim's holder, which Polecats there are, and who
/// has a live pod.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub holder: Option<String>,
    pub there: BTreeSet<String>,
    pub working: BTreeSet<String>,
}

impl Desk {
    /// What a look at the API server says of the claim to this Polecat.
    fn read(&self, uid: &str, bead: &str) -> ClaimFacts {
        let record = self.holder.as_ref().map(|holder| ClaimRecord {
            rig: "web".into(),
            bead: bead.into(),
            holder: holder.clone(),
            polecat: format!("dev/{holder}"),
            abandoned: !self.there.contains(holder) && !self.working.contains(holder),
        });
        ClaimFacts::read(uid, "web", bead, record.as_ref())
    }
}

pub(super) struct World {
    pub s: Snapshot,
    pub now: Timestamp,
    /// The Polecat is still there.
    pub exists: bool,
    /// What it shares with those who want the same bead.
    pub desk: Rc<RefCell<Desk>>,
    /// The cache does not show the claim as it is.
    pub blind: bool,
    /// Commits that a new one is numbered from.
    commits: u8,
    pods_made: u32,
    highest_attempt: u32,
    people_asked: u32,
    /// What has happened, so that a test can tell that it did.
    pub seen: BTreeSet<String>,
}

impl World {
    fn new(ttl: Option<i64>) -> Self {
        Self::of(Snapshot { ttl_seconds: ttl, witness: true, ..snapshot() }, Rc::default())
    }

    pub fn of(s: Snapshot, desk: Rc<RefCell<Desk>>) -> Self {
        desk.borrow_mut().there.insert(s.uid.clone());
        Self {
            s,
            now: fixtures::at(10),
            exists: true,
            desk,
            blind: false,
            commits: 0,
            pods_made: 0,
            highest_attempt: 0,
            people_asked: 0,
            seen: BTreeSet::new(),
        }
    }

    pub fn live(&mut self) -> Option<&mut PodFacts> {
        let now = self.now;
        self.s.pods.iter_mut().find(|p| !p.over(now) && !p.terminal())
    }

    pub fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Tick(seconds) => {
                self.now = now + SignedDuration::from_millis(i64::from(seconds) * 1000 + 7)
            }
            Event::Reconcile { deeds, calls_work } => {
                self.reconcile(deeds, calls_work);
            }
            Event::AgentStarts => {
                if let Some(pod) = self.live().filter(|p| p.scheduled) {
                    pod.phase = PodPhase::Running;
                    pod.agent_started = true;
                    pod.init = Some(fixtures::init(InitResult::Ready));
                }
            }
            Event::PodEnds { exit, sync, new_commit, disrupted, oom } => {
                self.end_pod(exit, sync, new_commit, disrupted, oom)
            }
            Event::InitFails(result) => {
                if let Some(pod) = self.live().filter(|p| !p.agent_started && p.scheduled) {
                    pod.init = Some(fixtures::init(result));
                    pod.phase = PodPhase::Failed;
                    pod.ended = Some(now);
                }
            }
            Event::PodDeleted { scheduled } => {
                if let Some(pod) = self.live().filter(|p| p.deletion.is_none()) {
                    pod.scheduled &= scheduled || pod.agent_started;
                    pod.deletion = Some(now);
                }
            }
            Event::Desired(desired) => {
                self.people_asked += 1;
                self.s.desired = desired;
            }
            Event::TaskChanges(n) => {
                self.people_asked += 1;
                self.s.spec = Ok(fixtures::valid(&format!("task {n}")));
            }
            Event::RetryAsked(n) => {
                self.people_asked += 1;
                self.s.retry = Some(n.to_string());
            }
            Event::Request(phase) => {
                if let Some(request) =
                    self.s.requests.last_mut().filter(|r| {
                        !matches!(r.phase, RequestPhase::Landed | RequestPhase::Rejected)
                    })
                {
                    request.phase = phase;
                    request.landed_at = (phase == RequestPhase::Landed).then_some(now);
                }
            }
            Event::Rig { there, parked } => {
                let RigFacts::Present { repository, .. } = snapshot().rig else { unreachable!() };
                self.s.rig = if there {
                    RigFacts::Present {
                        name: "web".into(),
                        parked,
                        deleting: false,
                        admits_namespace: true,
                        repository,
                    }
                } else {
                    RigFacts::Missing { name: "web".into() }
                };
            }
            Event::Slot(free) => {
                self.s.slot = if free {
                    Slot::Granted
                } else {
                    Slot::AtCapacity { used: 1, cap: 1, position: 1 }
                }
            }
            Event::Unhealthy { live } => {
                let uid = self
                    .live()
                    .filter(|_| live)
                    .map_or_else(|| "pod-0".to_owned(), |p| p.uid.clone());
                self.s.unhealthy = Some(uid);
            }
            Event::Delete => self.s.deleting = self.exists,
        }
        self.collect();
    }

    /// The cache catches up with the claim.
    fn look(&mut self) {
        if let Some(bead) = self.s.bead.as_deref().filter(|_| !self.blind) {
            self.s.claim = self.desk.borrow().read(&self.s.uid, bead);
        }
    }

    /// The API server removes what is deleted and has no finalizer.
    fn collect(&mut self) {
        self.s
            .pods
            .retain(|p| p.finalizer || p.deletion.is_none() || (p.agent_started && !p.terminal()));
        if self.s.deleting && !self.s.finalizer {
            self.exists = false;
        }
        let mut desk = self.desk.borrow_mut();
        if self.s.live(self.now).next().is_some() {
            desk.working.insert(self.s.uid.clone());
        } else {
            desk.working.remove(&self.s.uid);
        }
        if !self.exists {
            desk.there.remove(&self.s.uid);
        }
    }

    fn end_pod(
        &mut self,
        exit: Option<AgentExit>,
        carried: Option<SyncResult>,
        new_commit: bool,
        disrupted: bool,
        oom: bool,
    ) {
        let now = self.now;
        self.commits = self.commits.saturating_add(u8::from(new_commit));
        let tip = commit(self.commits);
        if let Some(pod) = self.live().filter(|p| p.agent_started) {
            let sync = carried.map(|result| {
                let tip = (result == SyncResult::Pushed).then_some(tip);
                sync(result, tip, u32::from(result == SyncResult::Pushed))
            });
            let mut ended = pod.clone().ended(exit, sync);
            ended.ended = Some(now);
            ended.oom = oom;
            ended.disruption = disrupted.then(|| "Evicted".to_owned());
            *pod = ended;
        }
    }

    /// Returns whether anything was left to do.
    pub fn reconcile(&mut self, deeds: usize, calls_work: bool) -> Plan {
        self.look();
        let mut plan = decide(self.now, &self.s);
        if !self.exists {
            plan.deeds.clear();
            return plan;
        }
        assert_eq!(plan, decide(self.now, &self.s), "decide is deterministic");
        for deed in plan.deeds.iter().take(deeds) {
            self.carry_out(deed, calls_work);
        }
        plan
    }

    fn carry_out(&mut self, deed: &Deed, calls_work: bool) {
        let now = self.now;
        let known = self.s.ledger.clone().unwrap();
        self.note(deed);
        let find = |s: &Snapshot, uid: &str| {
            s.pods.iter().position(|p| p.uid == uid).expect("a plan names pods that exist")
        };
        match deed {
            Deed::Record { ledger, finalizer } => {
                if self.s.finalizer && !finalizer {
                    assert!(
                        self.s.live(now).next().is_none(),
                        "the finalizer goes only when nothing runs"
                    );
                }
                assert!(
                    !self.s.deleting || !finalizer || self.s.finalizer,
                    "nothing gets a finalizer while it is deleted"
                );
                self.s.finalizer = *finalizer;
                self.s.labelled = true;
                if let Some(ledger) = ledger {
                    let text = ledger.render();
                    assert!(text.len() <= MAX_BYTES);
                    let read = Ledger::parse(&text).expect("what is written can be read");
                    assert_eq!(&read, ledger.as_ref());
                    assert!(read.attempt >= known.attempt && read.usage.turns >= known.usage.turns);
                    self.s.ledger = Ok(read);
                }
            }
            Deed::Claim => {
                assert!(self.s.finalizer && !self.s.deleting, "what is claimed can be given back");
                let mut desk = self.desk.borrow_mut();
                // the API server takes it from nobody who is there
                if desk.read(&self.s.uid, "web-1") == ClaimFacts::Free {
                    desk.holder = Some(self.s.uid.clone());
                }
            }
            Deed::ReleaseClaim => {
                assert!(self.s.live(now).next().is_none(), "a working polecat keeps its claim");
                let queued = |r: &RequestFacts| {
                    matches!(
                        r.phase,
                        RequestPhase::Queued | RequestPhase::Testing | RequestPhase::Landed
                    )
                };
                assert!(
                    self.s.deleting || !self.s.requests.iter().any(queued),
                    "nobody starts again what is to land or has"
                );
                let mut desk = self.desk.borrow_mut();
                desk.holder = desk.holder.take().filter(|h| *h != self.s.uid);
            }
            Deed::Comment(inputs) => {
                assert!(
                    self.s.remark != RemarkFacts::Acknowledged { text: inputs.text.clone() },
                    "it is said once"
                );
                let (text, until) =
                    (inputs.text.clone(), Timestamp::from_second(now.as_second() + 5).unwrap());
                let tries = if let RemarkFacts::Failed { tries, .. } = self.s.remark {
                    tries + 1
                } else {
                    1
                };
                self.s.remark = if calls_work {
                    RemarkFacts::Acknowledged { text }
                } else {
                    RemarkFacts::Failed { text, tries, until }
                };
            }
            Deed::Alarm(inputs) => {
                assert!(
                    self.s.alarm != AlarmFacts::Acknowledged(inputs.call.clone()),
                    "it is told once"
                );
                let (call, until) =
                    (inputs.call.clone(), Timestamp::from_second(now.as_second() + 5).unwrap());
                let tries =
                    if let AlarmFacts::Failed { tries, .. } = self.s.alarm { tries + 1 } else { 1 };
                self.s.alarm = if calls_work {
                    AlarmFacts::Acknowledged(call)
                } else {
                    AlarmFacts::Failed { call, tries, until }
                };
            }
            // the API server is asked once more before the pod is made
            Deed::Start(_)
                if self.s.bead.is_some()
                    && self.desk.borrow().holder.as_ref() != Some(&self.s.uid) =>
            {
                assert!(self.blind, "a pod without the claim");
            }
            Deed::Start(inputs) => {
                assert!(self.s.pods.iter().all(|p| p.over(now)), "two live pods");
                assert!(self.desk.borrow().working.is_empty(), "two polecats at work on one bead");
                assert!(self.s.pods.iter().all(|p| p.name != inputs.name), "the name is taken");
                assert!(self.s.finalizer && !self.s.deleting && self.s.desired == Desired::Working);
                assert!(
                    self.s.pods.iter().all(|p| known.accounts_for(&p.uid)),
                    "a start before the last end is written down"
                );
                let sent_back = known
                    .commit
                    .as_ref()
                    .and_then(|c| self.s.request_for(c))
                    .is_some_and(|r| r.phase == RequestPhase::Rework);
                assert!(
                    !known.finished() || (known.end() == Some(End::Done) && sent_back),
                    "finished work is not repeated"
                );
                if !calls_work {
                    let until = now + SignedDuration::from_millis(1_493);
                    self.s.refused = Some(Refused {
                        reason: "BeadUnavailable".to_owned(),
                        message: String::new(),
                        until,
                    });
                    return;
                }
                self.s.refused = None;
                assert!(inputs.attempt <= known.forgiven + 8, "attempts are bounded");
                if sent_back {
                    assert!(inputs.rework.is_some(), "a rework is told why");
                }
                self.highest_attempt = self.highest_attempt.max(inputs.attempt);
                self.pods_made += 1;
                let mut pod = fixtures::pod(inputs.attempt);
                pod.uid = format!("pod-{}", self.pods_made);
                pod.name.clone_from(&inputs.name);
                pod.asked = Some(inputs.spec.hash.clone());
                pod.created = now;
                self.s.pods.push(pod);
            }
            Deed::Drain { uid, why, .. } => {
                let i = find(&self.s, uid);
                if *why == UNHEALTHY {
                    assert_eq!(self.s.unhealthy.as_ref(), Some(uid), "the verdict is on this pod");
                }
                self.s.pods[i].drain = Some((*why).to_owned());
            }
            Deed::Release { uid, .. } => {
                let i = find(&self.s, uid);
                assert!(self.s.pods[i].over(now), "a live pod keeps its finalizer");
                assert!(known.accounts_for(uid), "its outcome is in the ledger first");
                self.s.pods[i].finalizer = false;
            }
            Deed::DeletePod { uid, force, .. } => {
                // with its finalizer a pod that was being deleted is gone already
                let Some(i) = self.s.pods.iter().position(|p| &p.uid == uid) else { return };
                let pod = &mut self.s.pods[i];
                if pod.over(now) {
                    assert!(known.accounts_for(uid) && !pod.finalizer);
                    self.s.pods.remove(i);
                } else {
                    assert!(
                        !force && !pod.agent_started,
                        "a pod with work is drained, never deleted"
                    );
                    pod.deletion = Some(now);
                }
            }
            Deed::Submit(inputs) => {
                assert!(
                    known.end() == Some(End::Done) && Some(&inputs.commit) == known.commit.as_ref()
                );
                assert!(self.s.request_for(&inputs.commit).is_none(), "a request is made once");
                if calls_work {
                    let name = format!("request-{}", self.s.requests.len());
                    let mut request = fixtures::request(0, inputs.attempt, RequestPhase::Queued);
                    (request.name, request.commit) = (name, inputs.commit.clone());
                    self.s.requests.push(request);
                    self.s.submit = SubmitFacts::Untried;
                } else {
                    let until = Timestamp::from_second(now.as_second() + 5).unwrap();
                    let (reason, message) = ("Unavailable".to_owned(), String::new());
                    self.s.submit = SubmitFacts::Failed {
                        commit: inputs.commit.clone(),
                        reason,
                        message,
                        until,
                    };
                }
            }
            Deed::DeletePolecat => {
                assert!(self.s.ttl_seconds.is_some() && self.s.live(now).next().is_none());
                self.s.deleting = true;
            }
        }
        self.collect();
    }

    fn note(&mut self, deed: &Deed) {
        let name = match deed {
            Deed::Record { ledger: Some(ledger), .. } => format!("{:?}", ledger.end()),
            Deed::Start(inputs) if inputs.rework.is_some() => "rework".to_owned(),
            Deed::DeletePod { force, .. } => format!("delete, force {force}"),
            Deed::Drain { why, .. } => format!("Drain {why}"),
            other => format!("{other:?}").split([' ', '(']).next().unwrap_or_default().to_owned(),
        };
        self.seen.insert(name);
    }

    /// From here on everything works; agents finish, requests land. Everything comes to rest.
    pub fn settles(&mut self) {
        self.blind = false;
        self.s.slot = Slot::Granted;
        self.s.rig = snapshot().rig;
        for _ in 0..400 {
            let plan = self.reconcile(usize::MAX, true);
            self.collect();
            if !self.exists {
                return;
            }
            if !plan.deeds.is_empty() {
                continue;
            }
            if let Some(request) = self
                .s
                .requests
                .iter_mut()
                .find(|r| matches!(r.phase, RequestPhase::Queued | RequestPhase::Testing))
            {
                request.phase = RequestPhase::Landed;
                request.landed_at = Some(self.now);
            } else if self.live().is_some() {
                self.happen(Event::AgentStarts);
                let drained = self.live().is_some_and(|p| p.drain.is_some());
                let exit = if drained { AgentExit::Drained } else { AgentExit::Completed };
                self.end_pod(Some(exit), Some(SyncResult::Pushed), true, false, false);
                if let Some(pod) = self.live() {
                    // deleted before it ran, on a node that never answers
                    pod.deletion.get_or_insert(Timestamp::UNIX_EPOCH);
                }
            } else if let Some(wake) = plan.wake {
                assert!(wake > self.now);
                self.now = wake;
            } else {
                self.assert_at_rest(&plan);
                return;
            }
        }
        panic!("does not come to rest: {:#?}", decide(self.now, &self.s));
    }

    fn assert_at_rest(&self, plan: &Plan) {
        let ledger = self.s.ledger.as_ref().unwrap();
        assert!(self.s.pods.iter().all(|p| !p.finalizer && ledger.accounts_for(&p.uid)));
        match self.s.desired {
            Desired::Idle => assert_eq!(plan.view.phase, Phase::Idle),
            Desired::Terminated => assert_eq!(plan.view.phase, Phase::Terminated),
            Desired::Working if matches!(self.s.claim, ClaimFacts::HeldBy { .. }) => {}
            Desired::Working => {
                assert!(matches!(plan.view.phase, Phase::Done | Phase::Stuck), "{:?}", plan.view)
            }
        }
        assert!(
            self.highest_attempt <= 8 * (1 + self.people_asked),
            "attempts are bounded by what people ask"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_work_is_lost_or_repeated_and_everything_comes_to_rest(
        ttl in prop::option::weighted(0.3, prop::sample::select(vec![0, 60, 1_000_000])),
        events in prop::collection::vec(events(), 0..120),
    ) {
        let mut world = World::new(ttl);
        for event in events {
            world.happen(event);
            if !world.exists { break; }
        }
        if world.exists {
            world.settles();
        }
    }

    #[test]
    fn no_text_breaks_the_ledger(text in ".{0,200}", json in "\\{(\"[a-z]{1,8}\":([0-9]{1,30}|\"x\"|\\[\\]|\\{\\})(,)?){0,6}\\}") {
        for text in [text, json] {
            if let Ok(ledger) = Ledger::parse(&text) {
                prop_assert_eq!(Ledger::parse(&ledger.render()).unwrap(), ledger);
            }
        }
    }

    #[test]
    fn a_pods_name_says_its_attempt(name in "[a-z][a-z0-9-]{0,50}[a-z0-9]", attempt in 1u32..100_000) {
        let pod = pod_name(&name, UID, attempt);
        prop_assert!(pod.len() <= 8 + 52 + 7 + 5);
        prop_assert_eq!(attempt_of(&pod, &name, UID), Some(attempt));
    }
}

/// The invariants above are worth what the worlds that they were tried on have lived through.
#[test]
fn the_worlds_of_chance_live_through_everything() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for i in 0..3000 {
        let mut world = World::new((i % 4 == 0).then_some(60));
        let events = prop::collection::vec(events(), 60).new_tree(&mut runner).unwrap().current();
        for event in events {
            world.happen(event);
            if !world.exists {
                break;
            }
        }
        if world.exists {
            world.settles();
        }
        seen.extend(world.seen);
    }
    let wanted = [
        "Start",
        "rework",
        "Drain Terminated",
        "Drain Unhealthy",
        "Release",
        "Submit",
        "DeletePolecat",
        "delete, force true",
        "delete, force false",
        "Some(Done)",
        "Some(Stuck)",
        "Some(Waits)",
        "Some(Drained)",
        "Some(Retries)",
        "Some(Later)",
    ];
    let missing: Vec<_> = wanted.iter().filter(|w| !seen.contains(**w)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?} in {seen:?}");
}

/// A world with one pod that works, and one deed that no plan may hold.
fn forged(deed: impl FnOnce(&World) -> Deed) {
    let mut world = World::new(None);
    for _ in 0..3 {
        world.reconcile(usize::MAX, true);
    }
    world.happen(Event::AgentStarts);
    let deed = deed(&world);
    world.carry_out(&deed, true);
}

#[test]
#[should_panic(expected = "two live pods")]
fn the_world_refuses_a_second_pod() {
    forged(|world| {
        let (ledger, spec) = (Ledger::default(), fixtures::valid("make it so"));
        let name = pod_name("toast", UID, ledger.next_attempt());
        Deed::Start(Box::new(PodInputs {
            name,
            attempt: 1,
            resume: false,
            rework: None,
            before: None,
            spec: world.s.spec.clone().unwrap_or(spec),
        }))
    });
}

#[test]
#[should_panic(expected = "a live pod keeps its finalizer")]
fn the_world_refuses_to_let_a_working_pod_go() {
    forged(|world| Deed::Release {
        pod: world.s.pods[0].name.clone(),
        uid: world.s.pods[0].uid.clone(),
    });
}

#[test]
#[should_panic(expected = "a pod with work is drained, never deleted")]
fn the_world_refuses_to_delete_a_working_pod() {
    forged(|world| Deed::DeletePod {
        pod: world.s.pods[0].name.clone(),
        uid: world.s.pods[0].uid.clone(),
        force: false,
    });
}
