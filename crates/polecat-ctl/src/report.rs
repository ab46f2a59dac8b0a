//! From a view to a status: pure, and the same again for the same view.

use gastown_api::conditions::time;
use gastown_api::names::manager;
use gastown_api::{Outcome, Polecat, PolecatPhase, PolecatStatus, Usage, conditions};
use gastown_core::polecat::{Desired, End, Phase, Snapshot, View};
use gastown_runtime::apply::StatusOwner;
use jiff::Timestamp;
use kube::Resource as _;

use crate::gather::CONDITIONS;

/// What of a Polecat's status is this controller's.
pub const OWNER: StatusOwner = StatusOwner {
    manager: manager::POLECAT,
    fields: &[
        "phase",
        "assignedBead",
        "branch",
        "commit",
        "baseCommit",
        "podName",
        "podActive",
        "lastActivity",
        "agent",
        "agentImage",
        "agentModel",
        "outcome",
        "attempts",
        "mergeRequest",
        "usage",
        "startedAt",
        "finishedAt",
    ],
    conditions: &CONDITIONS,
};

fn phase(phase: Phase) -> PolecatPhase {
    match phase {
        Phase::Idle => PolecatPhase::Idle,
        Phase::Working => PolecatPhase::Working,
        Phase::Done => PolecatPhase::Done,
        Phase::Stuck => PolecatPhase::Stuck,
        Phase::Terminated => PolecatPhase::Terminated,
    }
}

/// The status that shows `view`. `image` is what agents run in that name none.
pub fn status(
    polecat: &Polecat,
    s: &Snapshot,
    view: &View,
    default_image: &str,
    now: Timestamp,
) -> PolecatStatus {
    let mut present = polecat.status.as_ref().map(|st| st.conditions.clone()).unwrap_or_default();
    present.retain(|c| view.conditions.iter().any(|wanted| wanted.kind == c.type_));
    for c in &view.conditions {
        conditions::set(
            &mut present,
            c.kind,
            c.status,
            &c.reason,
            &c.message,
            polecat.meta().generation,
            now,
        );
    }
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let settings = s.spec.as_ref().ok().map(|spec| &spec.pod).filter(|_| view.attempts > 0);
    PolecatStatus {
        phase: Some(phase(view.phase)),
        // cleared on Idle by wish, as the Go operator does, and kept otherwise
        assigned_bead: polecat.spec.bead_id.clone().filter(|_| s.desired != Desired::Idle),
        branch: view.branch.as_ref().map(ToString::to_string),
        commit: view.commit.as_ref().map(ToString::to_string),
        base_commit: view.base.as_ref().map(ToString::to_string),
        pod_name: view.pod.as_ref().map(|(name, _)| name.clone()),
        pod_active: Some(view.pod.as_ref().is_some_and(|(_, runs)| *runs)),
        last_activity: view.activity.map(time),
        // witness-ctl's
        activity: None,
        agent: settings.map(|p| p.agent.as_str().to_owned()),
        agent_image: settings.map(|p| p.image.clone().unwrap_or_else(|| default_image.to_owned())),
        agent_model: view.model.clone().or_else(|| settings.and_then(|p| p.model.clone())),
        outcome: view.outcome.as_ref().map(|last| Outcome {
            exit: exit(last.end).to_owned(),
            reason: last.reason.chars().take(64).collect(),
            message: last.message.clone(),
            finished_at: Timestamp::from_second(last.at).ok().map(time),
        }),
        attempts: i32::try_from(view.attempts).ok(),
        merge_request: view.request.clone(),
        usage: (view.usage != gastown_core::report::Usage::default()).then(|| Usage {
            turns: whole(view.usage.turns),
            input_tokens: whole(view.usage.input_tokens),
            output_tokens: whole(view.usage.output_tokens),
            cache_read_tokens: whole(view.usage.cache_read_tokens),
            cache_write_tokens: whole(view.usage.cache_write_tokens),
            cost_usd: view.usage.cost_usd,
        }),
        started_at: view.started.map(time),
        finished_at: view.finished.map(time),
        conditions: present,
    }
}

fn exit(end: End) -> &'static str {
    match end {
        End::Done | End::DoneWithoutChanges => "Completed",
        End::Waits | End::Later => "Waiting",
        End::Drained => "Drained",
        End::Retries => "Failed",
        End::Stuck => "Stuck",
    }
}
