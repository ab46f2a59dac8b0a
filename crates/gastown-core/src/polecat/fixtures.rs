//! Facts for tests: constructors with modifiers.

use gastown_api::{DesiredState, KubernetesSpec, MergePhase, Polecat, PolecatSpec};
use jiff::Timestamp;

use super::*;
use crate::admission::Decision;
use crate::report::{AgentExit, InitReport, InitResult, RunReport, SyncReport, SyncResult, Usage};

pub const UID: &str = "0a1b2c3d-0000-4000-8000-000000000001";
pub const URL: &str = "git@github.com:org/repo.git";

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub fn commit(n: u8) -> gastown_types::CommitId {
    format!("{:040x}", u32::from(n) + 1).parse().unwrap()
}

pub fn polecat(task: &str) -> Polecat {
    let mut spec = PolecatSpec::of_rig("web");
    spec.task_description = Some(task.to_owned());
    spec.kubernetes = Some(KubernetesSpec::of_repository(URL));
    Polecat::new("toast", spec)
}

pub fn valid(task: &str) -> ValidPolecat {
    ValidPolecat::try_from(&polecat(task)).unwrap()
}

/// The plan where a slot is granted to whoever asks.
pub fn decide(now: Timestamp, s: &Snapshot) -> Plan {
    decide_with(now, s, &Decision::Granted)
}

/// The plan with this answer about a slot.
pub fn decide_with(now: Timestamp, s: &Snapshot, admission: &Decision) -> Plan {
    super::decide(now, s, &assess(now, s), admission)
}

pub fn snapshot() -> Snapshot {
    Snapshot {
        namespace: "dev".into(),
        name: "toast".into(),
        uid: UID.into(),
        created: at(0),
        deleting: false,
        finalizer: false,
        labelled: false,
        force_delete: false,
        retry: None,
        ledger: Ok(Ledger::default()),
        desired: DesiredState::Working,
        ttl_seconds: None,
        max_idle_seconds: None,
        spec: Ok(valid("make it so")),
        rig: RigFacts::Present {
            name: "web".into(),
            suspended: false,
            deleting: false,
            admits_namespace: true,
            repository: Some("github.com/org/repo".into()),
            targets: vec!["main".into()],
            wip_retention: 604_800,
        },
        pods: Vec::new(),
        requests: Vec::new(),
        bead: None,
        claim: ClaimFacts::NotNeeded,
        bead_store: false,
        witness: false,
        deliveries: Deliveries::default(),
        shown_stuck: false,
        unhealthy: None,
        saving: None,
        service_wait: None,
        network: None,
        margins: Margins::default(),
        trace: TraceFacts::default(),
    }
}

/// A Polecat with this bead, whose claim is free.
pub fn with_bead(bead: &str) -> Snapshot {
    let mut p = polecat("make it so");
    p.spec.bead_id = Some(bead.to_owned());
    Snapshot {
        spec: Ok(ValidPolecat::try_from(&p).unwrap()),
        bead: Some(bead.to_owned()),
        claim: ClaimFacts::Free,
        ..snapshot()
    }
}

pub fn pod(attempt: u32) -> PodFacts {
    PodFacts {
        name: pod_name("toast", UID, attempt),
        uid: format!("pod-{attempt}"),
        attempt,
        branch: Some("polecat/toast".parse().unwrap()),
        asked: Some(valid("make it so").hash),
        created: at(1),
        phase: PodPhase::Pending,
        scheduled: true,
        deletion: None,
        grace_seconds: 0,
        finalizer: true,
        drain: None,
        agent_started: false,
        agent_ended: false,
        strangers: false,
        saved: None,
        deadline_seconds: Some(3600),
        seen: Seen::default(),
        started: Some(at(1)),
        ended: None,
        init: None,
        sync: None,
        run: None,
        oom: false,
        disruption: None,
        waiting: None,
        failure: None,
        trace: PodTrace::default(),
    }
}

pub fn init(result: InitResult) -> InitReport {
    InitReport {
        v: 1,
        result,
        message: format!("init: {result:?}"),
        base: Some(commit(200)),
        head: None,
    }
}

pub fn sync(result: SyncResult, commit: Option<gastown_types::CommitId>, ahead: u32) -> SyncReport {
    SyncReport {
        v: 1,
        result,
        message: String::new(),
        base: commit.as_ref().map(|_| self::commit(200)),
        commit,
        ahead: Some(ahead),
        changes: None,
        unpushed: None,
        wip: None,
        saved: Vec::new(),
        saved_more: 0,
        unsaved: Vec::new(),
        unsaved_more: 0,
    }
}

pub fn run(exit: AgentExit) -> RunReport {
    RunReport {
        v: 1,
        exit,
        message: String::new(),
        code: None,
        reset_at: None,
        model: Some("model".into()),
        usage: Usage { turns: 3, ..Usage::default() },
    }
}

impl PodFacts {
    pub(super) fn running(mut self) -> Self {
        self.phase = PodPhase::Running;
        self.agent_started = true;
        self.init = Some(init(InitResult::Ready));
        self
    }

    pub(super) fn ended(mut self, exit: Option<AgentExit>, sync: Option<SyncReport>) -> Self {
        self = self.running();
        self.phase =
            if exit == Some(AgentExit::Completed) { PodPhase::Succeeded } else { PodPhase::Failed };
        self.agent_ended = true;
        self.run = exit.map(run);
        self.sync = sync;
        self.ended = Some(at(100));
        self
    }

    pub(super) fn init_failed(mut self, result: InitResult) -> Self {
        self.phase = PodPhase::Failed;
        self.init = Some(init(result));
        self.ended = Some(at(100));
        self
    }
}

pub fn request(n: u8, attempt: u32, phase: MergePhase) -> RequestFacts {
    RequestFacts {
        name: format!("request-{n}"),
        uid: format!("uid-request-{n}"),
        created: at(100),
        branch: "polecat/toast".parse().unwrap(),
        commit: commit(n),
        attempt,
        phase,
        reason: "GateFailed".into(),
        evidence: "assert 1 == 2".into(),
        landed_at: (phase == MergePhase::Landed).then(|| at(150)),
        trace: RequestTrace::default(),
    }
}
