//! From objects to facts; no judgement.

use gastown_api::names::{condition, reason};
use gastown_api::{Polecat, PolecatPhase, WitnessSpec, conditions, duration};
use gastown_core::witness::{Counted, PolecatState, Thresholds};
use jiff::SignedDuration;
use kube::ResourceExt as _;

/// The thresholds of a Witness; what does not read as a duration counts as not said.
pub(crate) fn thresholds(spec: &WitnessSpec) -> Thresholds {
    let read = |text: Option<&str>| {
        text.and_then(duration::parse).and_then(|d| SignedDuration::try_from(d).ok())
    };
    let usual = Thresholds::default();
    Thresholds {
        quiet: read(spec.quiet_threshold.as_deref()).unwrap_or(usual.quiet),
        stuck: read(Some(&spec.stuck_threshold)).filter(|d| !d.is_zero()).unwrap_or(usual.stuck),
        nudge_after: read(spec.nudge_after.as_deref()).unwrap_or(usual.nudge_after),
        restart_after: read(spec.restart_after.as_deref()).unwrap_or(usual.restart_after),
        grace: usual.grace,
    }
}

/// What of a Polecat is counted.
pub(crate) fn counted(polecat: &Polecat) -> Counted {
    let status = polecat.status.as_ref();
    let all = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let healthy = conditions::find(all, condition::HEALTHY);
    let sick = ["Wedged", "NotHeard", reason::RESTART_WANTED];
    Counted {
        name: format!("{}/{}", polecat.namespace().unwrap_or_default(), polecat.name_any()),
        state: match status.and_then(|s| s.phase) {
            None | Some(PolecatPhase::Idle) => PolecatState::Idle,
            Some(PolecatPhase::Working) => PolecatState::Working,
            Some(PolecatPhase::Done) => PolecatState::Done,
            Some(PolecatPhase::Stuck) => PolecatState::Stuck,
            Some(PolecatPhase::Terminated) => PolecatState::Terminated,
        },
        failed: conditions::is_true(all, condition::DEGRADED),
        unhealthy: healthy
            .is_some_and(|c| c.status == "False" && sick.contains(&c.reason.as_str())),
    }
}
