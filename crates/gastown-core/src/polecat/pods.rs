//! The rules about a Polecat's pods: names, draining, deletion, and what a new one is built from.

use gastown_api::{DesiredState, MergePhase};
use jiff::Timestamp;

use super::facts::{PodFacts, Snapshot};
use super::ledger::{End, Ledger};
use super::outcome::UNHEALTHY;
use super::plan::{Action, PodInputs, Rework};
use super::valid::ValidPolecat;

/// `polecat-<name>` for the first attempt, `polecat-<name>-<uid5>-<n>` for later ones.
pub fn pod_name(polecat: &str, uid: &str, attempt: u32) -> String {
    if attempt <= 1 {
        format!("polecat-{polecat}")
    } else {
        format!("polecat-{polecat}-{}-{attempt}", uid.get(..5).unwrap_or(uid))
    }
}

/// The attempt that a pod's name contains, if the name is one of this Polecat's.
pub fn attempt_of(pod: &str, polecat: &str, uid: &str) -> Option<u32> {
    let rest = pod.strip_prefix("polecat-")?.strip_prefix(polecat)?;
    if rest.is_empty() {
        return Some(1);
    }
    let number =
        rest.strip_prefix('-')?.strip_prefix(uid.get(..5).unwrap_or(uid))?.strip_prefix('-')?;
    number.parse().ok().filter(|n| *n > 1 && *n < u32::MAX)
}

/// Whether no pod has the name that the next attempt's pod needs.
pub(super) fn name_is_free(s: &Snapshot, ledger: &Ledger) -> bool {
    let name = pod_name(&s.name, &s.uid, ledger.next_attempt());
    s.pods.iter().all(|p| p.name != name)
}

/// Why live pods must stop now, if they must.
pub(super) fn drain_reason(s: &Snapshot) -> Option<&'static str> {
    if s.deleting {
        Some("Deleted")
    } else if s.desired == DesiredState::Terminated {
        Some("Terminated")
    } else if s.desired == DesiredState::Idle {
        Some("Idle")
    } else if s.rig.deleting() {
        Some("RigDeleted")
    } else {
        None
    }
}

/// Pods that are over and accounted for lose their finalizer, and are deleted when their name or
/// place is needed.
pub(super) fn delete_finished_pods(
    now: Timestamp,
    s: &Snapshot,
    ledger: &Ledger,
    drain: Option<&str>,
    live: &[&PodFacts],
    actions: &mut Vec<Action>,
) {
    let newest = live.iter().map(|p| p.attempt).max().unwrap_or(ledger.attempt).max(ledger.attempt);
    let again = matches!(ledger.end(), Some(End::Waits | End::Drained));
    for pod in s.pods.iter().filter(|p| p.over(now) && ledger.accounts_for(&p.uid)) {
        if pod.finalizer {
            actions.push(remove_finalizer(pod));
        }
        let force = pod.lost(now) && pod.scheduled;
        if force || (pod.deletion.is_none() && (again || drain.is_some() || pod.attempt < newest)) {
            actions.push(delete(pod, force));
        }
    }
}

/// Live pods that must stop are drained; one whose agent never ran holds no work and is deleted.
pub(super) fn stop_pods(
    s: &Snapshot,
    drain: Option<&'static str>,
    live: &[&PodFacts],
    actions: &mut Vec<Action>,
) {
    let oldest = live.iter().min_by_key(|p| (p.created, &p.uid)).map(|p| p.uid.as_str());
    for pod in live {
        if s.deleting && s.force_delete {
            if pod.finalizer {
                actions.push(remove_finalizer(pod));
            }
            actions.push(delete(pod, true));
            continue;
        }
        let duplicate = oldest != Some(pod.uid.as_str());
        // a restart that was wanted of another pod has been carried out
        let unhealthy = s.unhealthy.as_ref() == Some(&pod.uid);
        let Some(why) =
            drain.or(duplicate.then_some("Duplicate")).or(unhealthy.then_some(UNHEALTHY))
        else {
            continue;
        };
        if pod.drain.is_none() {
            let (pod, uid) = (pod.name.clone(), pod.uid.clone());
            actions.push(Action::DrainPod { pod, uid, why });
        } else if !pod.agent_started && pod.deletion.is_none() {
            actions.push(delete(pod, false));
        }
    }
}

fn remove_finalizer(pod: &PodFacts) -> Action {
    Action::RemovePodFinalizer { pod: pod.name.clone(), uid: pod.uid.clone() }
}

fn delete(pod: &PodFacts, force: bool) -> Action {
    Action::DeletePod { pod: pod.name.clone(), uid: pod.uid.clone(), force }
}

/// What the next attempt's pod is built from.
pub(super) fn pod_inputs(s: &Snapshot, ledger: &Ledger, spec: &ValidPolecat) -> PodInputs {
    let attempt = ledger.next_attempt();
    let sent_back = s.latest_request().filter(|r| r.phase == MergePhase::Rework);
    let rework = sent_back.map(|r| Rework {
        request: r.name.clone(),
        commit: r.commit.clone(),
        reason: r.reason.clone(),
        evidence: r.evidence.clone(),
    });
    PodInputs {
        name: pod_name(&s.name, &s.uid, attempt),
        attempt,
        resume: spec.resume_branch || (ledger.ours && ledger.branch.as_ref() == Some(&spec.work)),
        before: ledger
            .last
            .as_ref()
            .filter(|l| l.end != End::Done && l.end != End::Waits)
            .map(|l| format!("{}: {}", l.reason, l.message)),
        rework,
        spec: spec.clone(),
    }
}
