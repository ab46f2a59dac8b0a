//! What may happen to a Polecat and its pods.

use gastown_api::{DesiredState, MergePhase};
use proptest::prelude::*;

use crate::report::{AgentExit, InitResult, SyncResult};

#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// Seconds pass.
    Tick(u16),
    /// The controller decides and carries out this many actions before it is killed.
    Reconcile {
        actions: usize,
        calls_work: bool,
    },
    /// The agent's container starts.
    AgentStarts,
    /// The agent of the live pod commits.
    Commits,
    /// The sidecar of the live pod saves what is not on the remote, if that is up.
    Saves,
    /// The remote goes down, or comes up again.
    Remote {
        up: bool,
    },
    /// The live pod cannot start, or can again.
    Blocked(bool),
    /// A container of others is injected into the live pod, which keeps it from ending.
    Stranger,
    /// The clocks of nodes and of other controllers are this many seconds ahead of ours.
    Clocks(i32),
    /// The controller is started again: it has seen nothing before.
    Restart,
    /// A pod that was given up with its node still lives, and saves its work.
    ZombieSaves,
    /// The live pod ends, with these records of the agent and the sidecar, unless its sidecar waits
    /// for the remote.
    PodEnds {
        exit: Option<AgentExit>,
        sync: Option<SyncResult>,
        new_commit: bool,
        disrupted: bool,
        oom: bool,
    },
    InitFails(InitResult),
    /// Somebody deletes the live pod; its node may be silent.
    PodDeleted {
        scheduled: bool,
    },
    Desired(DesiredState),
    TaskChanges(u8),
    RetryAsked(u8),
    Request(MergePhase),
    Rig {
        there: bool,
        suspended: bool,
    },
    Slot(bool),
    /// witness-ctl wants a pod restarted: the live one, or an earlier one.
    Unhealthy {
        live: bool,
    },
    Delete,
    ForceDelete,
}

pub fn events() -> impl Strategy<Value = Event> {
    let exit = prop_oneof![
        4 => Just(Some(AgentExit::Completed)),
        1 => Just(None),
        1 => prop::sample::select(vec![
            AgentExit::GaveUp, AgentExit::Failed, AgentExit::Crashed, AgentExit::Deadline, AgentExit::Drained,
            AgentExit::BudgetExceeded, AgentExit::RateLimited, AgentExit::BadCredentials, AgentExit::ImageLacks,
        ]).prop_map(Some),
    ];
    let carried = prop_oneof![
        4 => Just(Some(SyncResult::Pushed)),
        1 => Just(None),
        1 => prop::sample::select(vec![
            SyncResult::NoChanges, SyncResult::PushRace, SyncResult::PushRejected, SyncResult::BadObjects,
            SyncResult::RemoteUnreachable, SyncResult::AccessDenied, SyncResult::AmbiguousWork, SyncResult::Internal,
        ]).prop_map(Some),
    ];
    let init = prop::sample::select(vec![
        InitResult::SecretNotFound,
        InitResult::BadCredentials,
        InitResult::BranchExists,
        InitResult::RemoteUnreachable,
        InitResult::LfsUnavailable,
        InitResult::InvalidConfig,
        InitResult::Internal,
    ]);
    let phases = prop::sample::select(vec![
        MergePhase::Queued,
        MergePhase::Testing,
        MergePhase::Landed,
        MergePhase::Rework,
        MergePhase::Rejected,
        MergePhase::Superseded,
    ]);
    let ends = (exit, carried, any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    prop_oneof![
        6 => (1u16..1200).prop_map(Event::Tick),
        12 => (0usize..7, any::<bool>()).prop_map(|(actions, calls_work)| Event::Reconcile { actions, calls_work }),
        5 => Just(Event::AgentStarts),
        6 => ends.prop_map(|(exit, sync, new_commit, disrupted, oom)| Event::PodEnds { exit, sync, new_commit, disrupted, oom }),
        1 => init.prop_map(Event::InitFails),
        1 => any::<bool>().prop_map(|scheduled| Event::PodDeleted { scheduled }),
        2 => prop::sample::select(vec![DesiredState::Idle, DesiredState::Working, DesiredState::Working, DesiredState::Terminated]).prop_map(Event::Desired),
        1 => (0u8..3).prop_map(Event::TaskChanges),
        1 => (0u8..3).prop_map(Event::RetryAsked),
        3 => phases.prop_map(Event::Request),
        1 => (prop::bool::weighted(0.8), prop::bool::weighted(0.2)).prop_map(|(there, suspended)| Event::Rig { there, suspended }),
        1 => prop::bool::weighted(0.8).prop_map(Event::Slot),
        1 => prop::bool::weighted(0.7).prop_map(|live| Event::Unhealthy { live }),
        1 => prop::bool::weighted(0.15).prop_map(|d| if d { Event::Delete } else { Event::Tick(1) }),
        1 => prop::bool::weighted(0.03).prop_map(|d| if d { Event::ForceDelete } else { Event::Tick(2) }),
        4 => Just(Event::Commits),
        4 => Just(Event::Saves),
        2 => prop::bool::weighted(0.6).prop_map(|up| Event::Remote { up }),
        1 => any::<bool>().prop_map(Event::Blocked),
        1 => prop::bool::weighted(0.3).prop_map(|s| if s { Event::Stranger } else { Event::Saves }),
        1 => (-7200..7200).prop_map(Event::Clocks),
        1 => Just(Event::Restart),
        1 => Just(Event::ZombieSaves),
    ]
}
