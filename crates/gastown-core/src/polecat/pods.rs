//! The rules about a Polecat's pods: names, draining, deletion, and what a new one is built from.

use std::borrow::Cow;

use gastown_api::names::reason;
use gastown_api::{DesiredState, MergePhase};
use jiff::Timestamp;

use super::drain;
use super::facts::{PodFacts, Snapshot, later};
use super::ledger::{End, Ledger};
use super::plan::{Action, PodInputs, Rework};
use super::trace::begin;
use super::valid::{START_TIMEOUT_SECONDS, ValidPolecat, is_other_task};

/// How long a pod whose work is saved has to end, in seconds: one that did not obey its drain, or in
/// which only containers of others run. Its own grace is for saving.
const KILL_GRACE: u32 = 60;

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
    let again = matches!(ledger.end(), Some(End::Waits | End::Drained | End::Later));
    for pod in s.pods.iter().filter(|p| p.over(now) && ledger.accounts_for(&p.uid)) {
        if pod.finalizer {
            actions.push(remove_finalizer(pod));
        }
        let force = pod.lost(now) && pod.scheduled;
        if force || (pod.deletion.is_none() && (again || drain.is_some() || pod.attempt < newest)) {
            actions.push(delete(pod, force.then_some(0)));
        }
    }
}

/// Live pods that must stop are drained, and end by themselves when their work is saved. One whose
/// agent never ran holds no work and is deleted; so is one that does not end although its work is
/// saved. One whose work is not saved stays.
pub(super) fn stop_pods(
    now: Timestamp,
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
            actions.push(delete(pod, Some(0)));
            continue;
        }
        if pod.drain.is_some() {
            actions.extend(end_drained(now, s, pod));
            continue;
        }
        let duplicate = oldest != Some(pod.uid.as_str());
        if let Some(why) = why_drain(now, s, drain, duplicate, pod) {
            let (pod, uid) = (pod.name.clone(), pod.uid.clone());
            actions.push(Action::DrainPod { pod, uid, why });
        } else if only_strangers_run(pod) {
            // the kubelet ends no sidecar of ours while a container of others runs
            actions.push(delete(pod, Some(KILL_GRACE)));
        }
    }
}

/// Why a pod is drained now. Times are counted since this process first saw the pod so: another
/// machine's clock may be wrong.
fn why_drain(
    now: Timestamp,
    s: &Snapshot,
    drain: Option<&'static str>,
    duplicate: bool,
    pod: &PodFacts,
) -> Option<Cow<'static, str>> {
    if let Some(why) = drain {
        return Some(why.into());
    }
    if duplicate {
        return Some(drain::DUPLICATE.into());
    }
    // a restart that was wanted of another pod has been carried out
    if s.unhealthy.as_ref() == Some(&pod.uid) {
        return Some(drain::UNHEALTHY.into());
    }
    if pod.deletion.is_some() {
        return None;
    }
    if deadline_at(s, pod).is_some_and(|t| t <= now) {
        return Some(drain::DEADLINE.into());
    }
    let asked = pod.asked.as_deref().unwrap_or_default();
    if pod.seen.stalled.is_some()
        && s.spec.as_ref().is_ok_and(|spec| is_other_task(asked, &spec.hash))
    {
        return Some(drain::SPEC_CHANGED.into());
    }
    let (reason, message) = stalled(s, now, pod)?;
    Some(drain::start_timeout(&reason, &message))
}

/// Why a pod has not started, when it has not for longer than `startTimeout`.
fn stalled(s: &Snapshot, now: Timestamp, pod: &PodFacts) -> Option<(String, String)> {
    if start_timeout_at(s, pod)? > now {
        return None;
    }
    pod.waiting.clone().or_else(|| {
        let text = "no container has been started; see the events of the pod";
        Some((reason::START_TIMEOUT.to_owned(), text.to_owned()))
    })
}

/// When a pod that does not start is taken back: what is known to keep it, and also when nothing of
/// it ever ran. One whose `git-init` has ended may still be pulling the agent's image.
fn start_timeout_at(s: &Snapshot, pod: &PodFacts) -> Option<Timestamp> {
    let since = pod.seen.stalled?;
    if pod.waiting.is_none() && pod.init.is_some() {
        return None;
    }
    let most = s.spec.as_ref().map_or(START_TIMEOUT_SECONDS, |spec| spec.start_timeout);
    later(since, most)
}

/// When a pod that does not end at its own deadline is drained.
fn deadline_at(s: &Snapshot, pod: &PodFacts) -> Option<Timestamp> {
    let most = pod.deadline_seconds?.saturating_add(s.margins.deadline_seconds);
    later(pod.seen.running?, most)
}

/// Until when a drained pod is expected to have ended by itself.
pub(super) fn obeys_until(s: &Snapshot, pod: &PodFacts) -> Option<Timestamp> {
    later(pod.seen.drained?, s.margins.drain_seconds)
}

/// What is done about a pod that is drained or being deleted and has not ended.
fn end_drained(now: Timestamp, s: &Snapshot, pod: &PodFacts) -> Option<Action> {
    if pod.deletion.is_some() {
        return None;
    }
    if !pod.agent_started {
        return Some(delete(pod, None));
    }
    let overdue = obeys_until(s, pod).is_some_and(|t| t <= now) && pod.saved == Some(true);
    (overdue || only_strangers_run(pod)).then(|| delete(pod, Some(KILL_GRACE)))
}

/// The agent has ended, its work is saved, and a container of others keeps the pod from ending.
fn only_strangers_run(pod: &PodFacts) -> bool {
    pod.agent_ended && pod.strangers && pod.saved == Some(true) && pod.deletion.is_none()
}

/// When something has to be done about a live pod although nothing changed.
pub(super) fn wake_for(s: &Snapshot, pod: &PodFacts) -> Option<Timestamp> {
    if pod.deletion.is_some() {
        return pod.lost_at();
    }
    if pod.drain.is_some() {
        return obeys_until(s, pod);
    }
    [deadline_at(s, pod), start_timeout_at(s, pod)].into_iter().flatten().min()
}

fn remove_finalizer(pod: &PodFacts) -> Action {
    Action::RemovePodFinalizer { pod: pod.name.clone(), uid: pod.uid.clone() }
}

fn delete(pod: &PodFacts, grace: Option<u32>) -> Action {
    Action::DeletePod { pod: pod.name.clone(), uid: pod.uid.clone(), grace }
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
            .filter(|l| !matches!(l.end, End::Done | End::Waits))
            .map(|l| format!("{}: {}", l.reason, l.message)),
        rework,
        restore: ledger.end() != Some(End::Done),
        saved: ledger.saved.clone(),
        begin: begin(s, ledger, spec.pod.agent.as_str()),
        spec: spec.clone(),
    }
}
