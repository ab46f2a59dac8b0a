//! One simulated Polecat with everything that decides about it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use gastown_api::conditions::Draft;
use gastown_api::{DesiredState, MergePhase, PolecatPhase};
use gastown_trace::{Span, SpanId};
use jiff::{SignedDuration, Timestamp};

use super::events::Event;
use super::remote::Remote;
use crate::admission::Decision;
use crate::polecat::fixtures::{self, decide_with, snapshot};
use crate::polecat::{
    Action, ClaimFacts, ClaimRecord, Plan, PodFacts, PodPhase, RigFacts, Seen, Snapshot, life,
    spans,
};
use crate::report::{AgentExit, InitResult, SyncResult};

/// The one bead at the API server: the claim's holder, which Polecats exist, and which of them have
/// a live pod.
#[derive(Debug, Default)]
pub struct SharedBead {
    pub holder: Option<String>,
    pub existing: BTreeSet<String>,
    pub working: BTreeSet<String>,
}

impl SharedBead {
    /// The claim, as the API server shows it to this Polecat.
    pub fn read(&self, uid: &str, bead: &str) -> ClaimFacts {
        let record = self.holder.as_ref().map(|holder| ClaimRecord {
            rig: "web".into(),
            bead: bead.into(),
            holder: holder.clone(),
            polecat: format!("dev/{holder}"),
            abandoned: !self.existing.contains(holder) && !self.working.contains(holder),
        });
        ClaimFacts::read(uid, "web", bead, record.as_ref(), &[])
    }
}

pub struct World {
    pub s: Snapshot,
    /// The rig's answer when a slot is asked for.
    pub admission: Decision,
    pub now: Timestamp,
    /// The Polecat still exists.
    pub exists: bool,
    /// What it shares with other Polecats of the same bead.
    pub bead: Rc<RefCell<SharedBead>>,
    /// The cache does not show the claim as it is.
    pub stale: bool,
    /// Where its commits are.
    pub remote: Remote,
    /// By how much the clocks of others are ahead of ours.
    clocks: SignedDuration,
    /// A defect: drained pods are deleted after a time whether or not their work is saved.
    pub reckless: bool,
    /// Commits that a new one is numbered from.
    commits: u8,
    pub pods_made: u32,
    pub highest_attempt: u32,
    /// How often a person changed the spec.
    changes: u32,
    /// The actions and outcomes that happened, so that a test can check that all did.
    pub seen: BTreeSet<String>,
    /// The spans of its life that were ever over, by their ids.
    spans: BTreeMap<SpanId, Span>,
}

impl World {
    pub fn new(ttl: Option<i64>) -> Self {
        Self::of(Snapshot { ttl_seconds: ttl, witness: true, ..snapshot() }, Rc::default())
    }

    pub fn of(s: Snapshot, bead: Rc<RefCell<SharedBead>>) -> Self {
        bead.borrow_mut().existing.insert(s.uid.clone());
        Self {
            s,
            admission: Decision::Granted,
            now: fixtures::at(10),
            exists: true,
            bead,
            stale: false,
            remote: Remote::default(),
            clocks: SignedDuration::ZERO,
            reckless: false,
            commits: 0,
            pods_made: 0,
            highest_attempt: 0,
            changes: 0,
            seen: BTreeSet::new(),
            spans: BTreeMap::new(),
        }
    }

    pub fn live(&mut self) -> Option<&mut PodFacts> {
        let now = self.now;
        self.s.pods.iter_mut().find(|p| !p.over(now) && !p.terminal())
    }

    /// A time of another machine.
    fn their_clock(&self) -> Timestamp {
        self.now + self.clocks
    }

    pub fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Commits => self.commit(),
            Event::Saves => {
                let uid = self.live().filter(|p| p.agent_started).map(|p| p.uid.clone());
                if let Some(uid) = uid {
                    let saved = self.remote.save(&uid);
                    self.live().into_iter().for_each(|p| p.saved = Some(saved));
                }
            }
            Event::Remote { up } => self.remote.down = !up,
            Event::Blocked(blocked) => {
                if let Some(pod) = self.live().filter(|p| !p.agent_started) {
                    let why =
                        ("ImagePullBackOff".to_owned(), "image i cannot be pulled".to_owned());
                    pod.waiting = blocked.then_some(why);
                }
            }
            Event::Stranger => {
                self.live().into_iter().for_each(|p| p.strangers = true);
            }
            Event::Clocks(seconds) => self.clocks = SignedDuration::from_secs(seconds.into()),
            Event::Restart => {
                for pod in &mut self.s.pods {
                    pod.seen = Seen::default();
                    pod.deletion = pod.deletion.map(|_| now);
                }
            }
            Event::ZombieSaves => self.remote.zombies_save(),
            Event::ForceDelete => {
                (self.s.deleting, self.s.force_delete) = (self.exists, self.exists);
            }
            Event::Tick(seconds) => {
                self.now = now + SignedDuration::from_millis(i64::from(seconds) * 1000 + 7);
            }
            Event::Reconcile { actions, calls_work } => {
                self.reconcile(actions, calls_work);
            }
            Event::AgentStarts => {
                let started = self.their_clock();
                if let Some(pod) =
                    self.live().filter(|p| p.scheduled && !p.agent_started && p.waiting.is_none())
                {
                    pod.phase = PodPhase::Running;
                    (pod.agent_started, pod.saved) = (true, Some(true));
                    pod.started = Some(started);
                    pod.init = Some(fixtures::init(InitResult::Ready));
                }
            }
            Event::PodEnds { exit, sync, new_commit, disrupted, oom } => {
                self.end_pod(exit, sync, new_commit, disrupted, oom);
            }
            Event::InitFails(result) => {
                let ended = self.their_clock();
                if let Some(pod) = self.live().filter(|p| !p.agent_started && p.scheduled) {
                    pod.init = Some(fixtures::init(result));
                    pod.phase = PodPhase::Failed;
                    pod.ended = Some(ended);
                }
            }
            Event::PodDeleted { scheduled } => {
                if let Some(pod) = self.live().filter(|p| p.deletion.is_none()) {
                    pod.scheduled &= scheduled || pod.agent_started;
                    (pod.deletion, pod.grace_seconds) = (Some(now), 600);
                }
            }
            Event::Desired(desired) => {
                self.changes += 1;
                self.s.desired = desired;
            }
            Event::TaskChanges(n) => {
                self.changes += 1;
                self.s.spec = Ok(fixtures::valid(&format!("task {n}")));
            }
            Event::RetryAsked(n) => {
                self.changes += 1;
                self.s.retry = Some(n.to_string());
            }
            Event::Request(phase) => {
                let landed = self.their_clock();
                if let Some(request) = self
                    .s
                    .requests
                    .last_mut()
                    .filter(|r| !matches!(r.phase, MergePhase::Landed | MergePhase::Rejected))
                {
                    request.phase = phase;
                    request.landed_at = (phase == MergePhase::Landed).then_some(landed);
                }
            }
            Event::Rig { there, suspended } => {
                let mut rig = snapshot().rig;
                if let RigFacts::Present { suspended: is, .. } = &mut rig {
                    *is = suspended;
                }
                self.s.rig = if there { rig } else { RigFacts::Missing { name: "web".into() } };
            }
            Event::Slot(free) => {
                self.admission = if free {
                    Decision::Granted
                } else {
                    Decision::AtCapacity { used: 1, cap: 1, position: 1 }
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
    fn refresh_claim(&mut self) {
        if let Some(bead) = self.s.bead.as_deref().filter(|_| !self.stale) {
            self.s.claim = self.bead.borrow().read(&self.s.uid, bead);
        }
    }

    /// The API server removes what is deleted and has no finalizer.
    pub fn collect(&mut self) {
        self.s
            .pods
            .retain(|p| p.finalizer || p.deletion.is_none() || (p.agent_started && !p.terminal()));
        if self.s.deleting && !self.s.finalizer {
            self.exists = false;
        }
        let mut bead = self.bead.borrow_mut();
        if self.s.live(self.now).next().is_some() {
            bead.working.insert(self.s.uid.clone());
        } else {
            bead.working.remove(&self.s.uid);
        }
        if !self.exists {
            bead.existing.remove(&self.s.uid);
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
        if new_commit {
            self.commit();
        }
        let (tip, ended_at) = (self.commits, self.their_clock());
        let Some(pod) = self.live().filter(|p| p.agent_started).cloned() else { return };
        let killed = disrupted || oom || pod.deletion.is_some();
        if !killed && !self.remote.save(&pod.uid) {
            // the agent's end waits until everything is saved
            self.live().into_iter().for_each(|p| p.saved = Some(false));
            self.seen.insert("a pod waits for the remote".to_owned());
            return;
        }
        if pod.strangers && pod.deletion.is_none() && !disrupted {
            let saved = self.remote.save(&pod.uid);
            self.live().into_iter().for_each(|p| (p.agent_ended, p.saved) = (true, Some(saved)));
            return;
        }
        let carried = carried.filter(|result| {
            // a remote that is down accepts nothing
            let reaches = matches!(
                result,
                SyncResult::RemoteUnreachable | SyncResult::AccessDenied | SyncResult::Internal
            );
            reaches || !self.remote.down
        });
        let sync = carried.map(|result| self.remote.record(&pod.uid, tip, result));
        self.remote.gone(&pod.uid);
        let mut ended = pod.ended(exit, sync);
        ended.ended = Some(ended_at);
        ended.oom = oom;
        ended.disruption = disrupted.then(|| "Evicted".to_owned());
        if let Some(pod) = self.live() {
            *pod = ended;
        }
    }

    /// The agent of the live pod commits; one that was drained and does not obey may, too.
    fn commit(&mut self) {
        let Some(uid) =
            self.live().filter(|p| p.agent_started && !p.agent_ended).map(|p| p.uid.clone())
        else {
            return;
        };
        self.commits = self.commits.saturating_add(1);
        self.remote.commit(&uid, self.commits);
        self.live().into_iter().for_each(|p| p.saved = Some(false));
    }

    /// The controller looks at the pods.
    fn look(&mut self) {
        let now = self.now;
        for pod in &mut self.s.pods {
            let since = |first: Option<Timestamp>, holds: bool| holds.then(|| first.unwrap_or(now));
            pod.seen = Seen {
                running: since(pod.seen.running, pod.agent_started && !pod.agent_ended),
                drained: since(pod.seen.drained, pod.drain.is_some()),
                stalled: since(pod.seen.stalled, !pod.agent_started),
                saved: pod.saved.or(pod.seen.saved),
            };
        }
    }

    fn decide(&self) -> Plan {
        decide_with(self.now, &self.s, &self.admission)
    }

    /// Decides and carries out the first `actions` actions. Returns the plan.
    pub fn reconcile(&mut self, actions: usize, calls_work: bool) -> Plan {
        self.collect();
        self.refresh_claim();
        self.look();
        let mut plan = self.decide();
        if !self.exists {
            plan.actions.clear();
            return plan;
        }
        assert_eq!(plan, self.decide(), "decide is deterministic");
        Self::assert_truthful(&plan);
        if self.reckless {
            plan.actions.extend(self.reckless_deletion());
        }
        for action in plan.actions.iter().take(actions) {
            self.execute(action, calls_work);
        }
        self.assert_traced();
        plan
    }

    /// A span that is over stays as it is, whichever process makes it and whatever happens later. The
    /// whole life may begin again: somebody changed its task.
    fn assert_traced(&mut self) {
        let root = life(&self.s).root().span;
        for span in spans(&self.s) {
            assert!(span.begin <= span.end, "{span:?}");
            let is_known = |parent| parent == root || self.spans.contains_key(&parent);
            assert!(span.parent.is_none_or(is_known), "{span:?} is an orphan");
            if let Some(before) = self.spans.insert(span.id, span.clone()) {
                assert!(span.id == root || before == span, "{before:?} has become {span:?}");
            }
        }
    }

    /// From here on everything works, agents finish and requests land: nothing is left to do in the
    /// end.
    pub fn settle(&mut self) {
        self.stale = false;
        self.remote.down = false;
        self.admission = Decision::Granted;
        self.s.rig = snapshot().rig;
        for _ in 0..400 {
            let plan = self.reconcile(usize::MAX, true);
            self.collect();
            if !self.exists {
                return;
            }
            if !plan.actions.is_empty() {
                continue;
            }
            if let Some(request) = self
                .s
                .requests
                .iter_mut()
                .find(|r| matches!(r.phase, MergePhase::Queued | MergePhase::Testing))
            {
                request.phase = MergePhase::Landed;
                request.landed_at = Some(self.now);
            } else if self.live().is_some() {
                self.happen(Event::Blocked(false));
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
                self.assert_settled(&plan);
                return;
            }
        }
        panic!("always something to do: {:#?}", self.decide());
    }

    /// Work is called saved only where the ledger has it so, which is compared with the remote when a
    /// pod is accounted for.
    fn assert_truthful(plan: &Plan) {
        let saved = plan.status.outcome.as_ref().is_some_and(|last| last.saved == Some(true));
        let stated = |c: &Draft| c.message.contains("; its work is saved");
        assert!(saved || !plan.status.conditions.iter().any(stated), "called saved: {plan:#?}");
    }

    /// What a controller would do that believes a drained pod to be saved after a time.
    fn reckless_deletion(&self) -> Option<Action> {
        let overdue = |p: &&PodFacts| {
            p.seen.drained.is_some_and(|t| self.now.duration_since(t).as_secs() >= 300)
        };
        let pod = self.s.live(self.now).filter(|p| p.deletion.is_none()).find(overdue)?;
        Some(Action::DeletePod { pod: pod.name.clone(), uid: pod.uid.clone(), grace: Some(60) })
    }

    fn assert_settled(&self, plan: &Plan) {
        let ledger = self.s.ledger.as_ref().unwrap();
        assert!(self.s.pods.iter().all(|p| !p.finalizer && ledger.accounts_for(&p.uid)));
        match self.s.desired {
            DesiredState::Idle => assert_eq!(plan.status.phase, PolecatPhase::Idle),
            DesiredState::Terminated => assert_eq!(plan.status.phase, PolecatPhase::Terminated),
            DesiredState::Working if matches!(self.s.claim, ClaimFacts::HeldBy { .. }) => {}
            DesiredState::Unknown => panic!("nobody asks for it here"),
            DesiredState::Working => {
                assert!(
                    matches!(plan.status.phase, PolecatPhase::Done | PolecatPhase::Stuck),
                    "{:?}",
                    plan.status
                );
            }
        }
        assert!(
            self.highest_attempt <= 8 * (1 + self.changes),
            "attempts are bounded by what people ask"
        );
    }
}
