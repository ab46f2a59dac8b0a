//! The rules of a polecat's life, in the order in which they apply.

use jiff::Timestamp;

use super::account::remember;
use super::alarm::{Alarm, alarm};
use super::claim::{self, ClaimFacts, Wanted};
use super::facts::{
    Desired, PodFacts, RequestFacts, RequestPhase, RigFacts, Snapshot, SubmitFacts,
};
use super::ledger::{End, Ledger};
use super::outcome::UNHEALTHY;
use super::phase::{self, State};
use super::plan::{Deed, Phase, Plan, PodInputs, Rework, SubmitInputs};
use super::remark::{Remark, remark};
use super::valid::ValidPolecat;
use crate::admission::{Candidate, Slot};

/// What a Polecat without a live pod does next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// The next attempt may start as soon as there is a slot.
    Start,
    /// Its bead is free, and is claimed before anything starts.
    Claim,
    /// It waits for something, perhaps until a time.
    Wait { reason: String, message: String, until: Option<Timestamp> },
    /// It is finished; what its merge does is shown elsewhere.
    Finished,
    /// A person is needed. `spent`: it has given up, and holds its bead no longer.
    Stuck { reason: String, message: String, spent: bool },
}

/// Decides. Deterministic: the same snapshot at the same time gives the same plan.
pub fn decide(now: Timestamp, s: &Snapshot) -> Plan {
    let known = match &s.ledger {
        Ok(ledger) => ledger.clone(),
        // what is being deleted needs no past
        Err(_) if s.deleting => Ledger::default(),
        Err(error) => return frozen(now, s, &error.to_string()),
    };
    let mut ledger = remember(now, s, &known);
    let mut deeds = Vec::new();
    let drain = why_drain(s);
    let live: Vec<&PodFacts> = s.live(now).collect();
    let next = next(now, s, &mut ledger);
    let submit = submission(now, s, &ledger);
    let wanted = claim::wanted(s, &ledger, &next, &submit, !live.is_empty());
    let claims = s.claim == ClaimFacts::Free && wanted == Wanted::Have;

    let starts = live.is_empty()
        && drain.is_none()
        && next == Next::Start
        && name_is_free(s, &ledger)
        && s.slot == Slot::Granted;
    let finalizer =
        !live.is_empty() || needed_later(&next, drain) || claims || s.claim == ClaimFacts::Held;
    record(s, &known, &ledger, finalizer, &mut deeds);
    bury(now, s, &ledger, drain, &live, &mut deeds);
    stop(s, drain, &live, &mut deeds);
    if claims {
        deeds.push(Deed::Claim);
    } else if s.claim == ClaimFacts::Held && wanted == Wanted::GiveBack {
        deeds.push(Deed::ReleaseClaim);
    }
    let remark = remark(now, s, &ledger, &next, &submit, !live.is_empty());
    if let Remark::Due(inputs) = &remark {
        deeds.push(Deed::Comment(inputs.clone()));
    }
    let alarm = alarm(now, s, &ledger, &next, !live.is_empty());
    if let Alarm::Due(inputs) = &alarm {
        deeds.push(Deed::Alarm(inputs.clone()));
    }
    if s.deleting
        && s.finalizer
        && live.is_empty()
        && remark == Remark::Nothing
        && alarm == Alarm::Nothing
    {
        deeds.push(Deed::Record { ledger: None, finalizer: false });
    }
    if starts && let Ok(spec) = &s.spec {
        deeds.push(Deed::Start(Box::new(pod_inputs(s, &ledger, spec))));
    }
    if let Submission::Due(inputs) = &submit {
        deeds.push(Deed::Submit(inputs.clone()));
    }
    let expiry = expires_at(s, &ledger, &submit, live.is_empty());
    if expiry.is_some_and(|t| t <= now) {
        deeds.push(Deed::DeletePolecat);
    }
    let state = State { s, ledger: &ledger, live: &live, next: &next, drain, submit: &submit };
    let wake = wake(now, s, &next, &submit, &live, expiry);
    let again = if let Remark::Later(until) = remark { Some(until) } else { None };
    let told = if let Alarm::Later(until) = alarm { Some(until) } else { None };
    Plan { deeds, view: phase::view(&state), wake: wake.into_iter().chain(again).chain(told).min() }
}

/// Whether the Polecat would start a pod now, were there a slot for it.
pub fn wants_slot(now: Timestamp, s: &Snapshot) -> Option<Candidate> {
    let mut ledger = remember(now, s, s.ledger.as_ref().ok()?);
    let wants = s.live(now).next().is_none()
        && why_drain(s).is_none()
        && next(now, s, &mut ledger) == Next::Start
        && name_is_free(s, &ledger);
    let priority = s.spec.as_ref().map_or(2, |spec| spec.priority);
    wants.then(|| Candidate { priority, created: s.created, key: s.key(), uid: s.uid.clone() })
}

/// The ledger cannot be read: nothing is started, stopped or recorded until a person has looked.
fn frozen(now: Timestamp, s: &Snapshot, error: &str) -> Plan {
    let message = format!(
        "the annotation gastown.io/ledger cannot be read: {error}; remove it to begin again"
    );
    let next = Next::Stuck { reason: "LedgerUnreadable".to_owned(), message, spent: false };
    let live: Vec<&PodFacts> = s.live(now).collect();
    let ledger = Ledger::default();
    let state = State {
        s,
        ledger: &ledger,
        live: &live,
        next: &next,
        drain: None,
        submit: &Submission::Nothing,
    };
    Plan { deeds: Vec::new(), view: phase::view(&state), wake: None }
}

/// Why a live pod must stop now.
fn why_drain(s: &Snapshot) -> Option<&'static str> {
    if s.deleting {
        Some("Deleted")
    } else if s.desired == Desired::Terminated {
        Some("Terminated")
    } else if s.desired == Desired::Idle {
        Some("Idle")
    } else if s.rig.deleting() {
        Some("RigDeleted")
    } else {
        None
    }
}

/// The finalizer is held while a pod may hold work, and while another is to come.
fn needed_later(next: &Next, drain: Option<&str>) -> bool {
    drain.is_none() && matches!(next, Next::Start | Next::Claim | Next::Wait { .. })
}

/// One patch for labels, finalizer and ledger.
fn record(s: &Snapshot, known: &Ledger, ledger: &Ledger, wanted: bool, deeds: &mut Vec<Deed>) {
    let changed = known != ledger;
    // A Polecat that is being deleted takes no new finalizer; it loses the old one in a step of its
    // own.
    let finalizer = if s.deleting { s.finalizer } else { wanted || (s.finalizer && !changed) };
    if changed || (!s.deleting && (!s.labelled || finalizer != s.finalizer)) {
        deeds.push(Deed::Record { ledger: changed.then(|| Box::new(ledger.clone())), finalizer });
    }
}

/// Pods that are over and accounted for lose their finalizer, and go when their name or place is
/// needed.
fn bury(
    now: Timestamp,
    s: &Snapshot,
    ledger: &Ledger,
    drain: Option<&str>,
    live: &[&PodFacts],
    deeds: &mut Vec<Deed>,
) {
    let newest = live.iter().map(|p| p.attempt).max().unwrap_or(ledger.attempt).max(ledger.attempt);
    let again = matches!(ledger.end(), Some(End::Waits | End::Drained));
    for pod in s.pods.iter().filter(|p| p.over(now) && ledger.accounts_for(&p.uid)) {
        if pod.finalizer {
            deeds.push(Deed::Release { pod: pod.name.clone(), uid: pod.uid.clone() });
        }
        let force = pod.lost(now) && pod.scheduled;
        if force || (pod.deletion.is_none() && (again || drain.is_some() || pod.attempt < newest)) {
            deeds.push(Deed::DeletePod { pod: pod.name.clone(), uid: pod.uid.clone(), force });
        }
    }
}

/// Live pods that must stop are asked to; one whose agent never ran holds no work and is deleted.
fn stop(s: &Snapshot, drain: Option<&'static str>, live: &[&PodFacts], deeds: &mut Vec<Deed>) {
    let oldest = live.iter().min_by_key(|p| (p.created, &p.uid)).map(|p| p.uid.as_str());
    for pod in live {
        let (name, uid) = (pod.name.clone(), pod.uid.clone());
        if s.deleting && s.force_delete {
            if pod.finalizer {
                deeds.push(Deed::Release { pod: name.clone(), uid: uid.clone() });
            }
            deeds.push(Deed::DeletePod { pod: name, uid, force: true });
            continue;
        }
        let duplicate = oldest != Some(pod.uid.as_str());
        // a verdict on another pod of its is one that has been acted on
        let unhealthy = s.unhealthy.as_ref() == Some(&pod.uid);
        let Some(why) =
            drain.or(duplicate.then_some("Duplicate")).or(unhealthy.then_some(UNHEALTHY))
        else {
            continue;
        };
        if pod.drain.is_none() {
            deeds.push(Deed::Drain { pod: name, uid, why });
        } else if !pod.agent_started && pod.deletion.is_none() {
            deeds.push(Deed::DeletePod { pod: name, uid, force: false });
        }
    }
}

/// The next step of a Polecat that is wanted to work and has no live pod. Re-arms the ledger where
/// a person asked.
fn next(now: Timestamp, s: &Snapshot, ledger: &mut Ledger) -> Next {
    let mut next = follow(s, ledger);
    if matches!(next, Next::Stuck { .. }) && asked_again(s, ledger) {
        let hash = s.spec.as_ref().map_or("", |spec| spec.hash.as_str());
        ledger.rearm(hash, s.retry.as_ref());
        next = Next::Start;
    }
    if next != Next::Start {
        return next;
    }
    match &s.spec {
        Err(invalid) => Next::Stuck {
            reason: invalid.reason.to_owned(),
            message: invalid.message.clone(),
            spent: false,
        },
        Ok(spec) => match may_start(now, s, ledger, spec) {
            Next::Start => claim::gate(s),
            waits => waits,
        },
    }
}

/// A person changed the task, or set another value of `gastown.io/retry`, since the last outcome.
fn asked_again(s: &Snapshot, ledger: &Ledger) -> bool {
    let changed =
        !ledger.spec.is_empty() && s.spec.as_ref().is_ok_and(|spec| spec.hash != ledger.spec);
    changed || (s.retry.is_some() && s.retry != ledger.retry)
}

/// What follows from the ledger and the merge.
fn follow(s: &Snapshot, ledger: &Ledger) -> Next {
    let Some(last) = &ledger.last else { return Next::Start };
    let stuck = |reason: &str, message: String| Next::Stuck {
        reason: reason.to_owned(),
        message,
        spent: false,
    };
    let spent = |reason: &str, message: String| Next::Stuck {
        reason: reason.to_owned(),
        message,
        spent: true,
    };
    match last.end {
        End::DoneWithoutChanges => return Next::Finished,
        End::Done if ledger.landed.is_some() => return Next::Finished,
        End::Done => match request(s, ledger).map(|r| (r.phase, r)) {
            Some((RequestPhase::Rework, _)) => {}
            Some((RequestPhase::Rejected, r)) => {
                return stuck(
                    "Rejected",
                    format!("MergeRequest {} was rejected: {}", r.name, r.reason),
                );
            }
            _ => return Next::Finished,
        },
        End::Stuck => return stuck(&last.reason, last.message.clone()),
        End::Waits | End::Drained | End::Later | End::Retries => {}
    }
    let (retries, attempts) =
        s.spec.as_ref().map_or((3, 8), |spec| (spec.max_retries, spec.max_attempts));
    if last.end == End::Retries && ledger.respawns.total() > retries {
        return spent(&last.reason, format!("{}; all {retries} retries are spent", last.message));
    }
    if ledger.next_attempt() > ledger.attempt && ledger.spent() >= attempts {
        return spent(
            "AttemptsSpent",
            format!("all {attempts} attempts are spent; the last one: {}", last.message),
        );
    }
    Next::Start
}

/// What must be there before anybody asks for a slot.
fn may_start(now: Timestamp, s: &Snapshot, ledger: &Ledger, spec: &ValidPolecat) -> Next {
    let wait = |reason: &str, message: String| Next::Wait {
        reason: reason.to_owned(),
        message,
        until: None,
    };
    match &s.rig {
        RigFacts::Missing { name } => {
            return wait("RigNotFound", format!("there is no Rig {name}"));
        }
        RigFacts::Present { name, admits_namespace: false, .. } => {
            return wait(
                "NamespaceNotAllowed",
                format!(
                    "rig {name} does not list namespace {} in spec.allowedNamespaces",
                    s.namespace
                ),
            );
        }
        RigFacts::Present { name, deleting: true, .. } => {
            return wait("RigDeleting", format!("rig {name} is being deleted"));
        }
        RigFacts::Present { name, parked: true, .. } => {
            return wait("RigSuspended", format!("rig {name} is parked (spec.suspend)"));
        }
        RigFacts::Present { .. } => {}
    }
    if let Some(refused) = s.refused.as_ref().filter(|r| r.until > now) {
        let (reason, message) = (refused.reason.clone(), refused.message.clone());
        return Next::Wait { reason, message, until: Some(refused.until) };
    }
    let Some(last) = &ledger.last else { return Next::Start };
    let unchanged = ledger.spec.is_empty() || ledger.spec == spec.hash;
    match last.until.and_then(|t| Timestamp::from_second(t).ok()) {
        Some(until) if unchanged && until > now => {
            let reason = if last.end == End::Retries { "BackOff" } else { &last.reason };
            let message = if last.end == End::Retries {
                format!("tried again later after {}: {}", last.reason, last.message)
            } else {
                last.message.clone()
            };
            Next::Wait { reason: reason.to_owned(), message, until: Some(until) }
        }
        _ => Next::Start,
    }
}

/// The request for the last finished commit.
fn request<'a>(s: &'a Snapshot, ledger: &Ledger) -> Option<&'a RequestFacts> {
    ledger.commit.as_ref().and_then(|c| s.request_for(c))
}

fn name_is_free(s: &Snapshot, ledger: &Ledger) -> bool {
    let name = pod_name(&s.name, &s.uid, ledger.next_attempt());
    s.pods.iter().all(|p| p.name != name)
}

/// `polecat-<name>` for the first attempt, `polecat-<name>-<uid5>-<n>` for later ones.
pub fn pod_name(polecat: &str, uid: &str, attempt: u32) -> String {
    if attempt <= 1 {
        format!("polecat-{polecat}")
    } else {
        format!("polecat-{polecat}-{}-{attempt}", uid.get(..5).unwrap_or(uid))
    }
}

/// The attempt that a pod's name says, if the name is one of ours.
pub fn attempt_of(pod: &str, polecat: &str, uid: &str) -> Option<u32> {
    let rest = pod.strip_prefix("polecat-")?.strip_prefix(polecat)?;
    if rest.is_empty() {
        return Some(1);
    }
    let number =
        rest.strip_prefix('-')?.strip_prefix(uid.get(..5).unwrap_or(uid))?.strip_prefix('-')?;
    number.parse().ok().filter(|n| *n > 1 && *n < u32::MAX)
}

fn pod_inputs(s: &Snapshot, ledger: &Ledger, spec: &ValidPolecat) -> PodInputs {
    let attempt = ledger.next_attempt();
    let sent_back = s.latest_request().filter(|r| r.phase == RequestPhase::Rework);
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

/// Where the merge of a finished task stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Submission {
    /// There is nothing to merge, or not yet.
    Nothing,
    /// To be asked for now.
    Due(SubmitInputs),
    /// Asked for, or to be asked again at a time.
    Wait { reason: String, message: String, until: Option<Timestamp> },
    /// It can never be merged in this rig.
    Never { reason: &'static str, message: String },
    /// There is a request.
    Made { request: String, phase: RequestPhase, reason: String, landed: Option<Timestamp> },
}

fn submission(now: Timestamp, s: &Snapshot, ledger: &Ledger) -> Submission {
    if let Some(landed) = &ledger.landed {
        let at = Timestamp::from_second(landed.at).ok();
        return Submission::Made {
            request: landed.request.clone(),
            phase: RequestPhase::Landed,
            reason: "Landed".to_owned(),
            landed: at,
        };
    }
    if let Some(r) = request(s, ledger).or_else(|| s.latest_request()) {
        let current = ledger.end() != Some(End::Done) || Some(&r.commit) == ledger.commit.as_ref();
        if current {
            let landed = r.landed_at.filter(|_| r.phase == RequestPhase::Landed);
            return Submission::Made {
                request: r.name.clone(),
                phase: r.phase,
                reason: r.reason.clone(),
                landed,
            };
        }
    }
    let Ok(spec) = &s.spec else { return Submission::Nothing };
    let (repository, rig) = match &s.rig {
        RigFacts::Present { repository, name, .. } => (repository.as_deref(), name),
        RigFacts::Missing { name } if ledger.end() == Some(End::Done) => {
            return Submission::Wait {
                reason: "RigNotFound".to_owned(),
                message: format!("there is no Rig {name}"),
                until: None,
            };
        }
        RigFacts::Missing { .. } => return Submission::Nothing,
    };
    let ours = spec.repository.normalised();
    if repository.is_some_and(|r| r != ours) {
        let message = format!(
            "spec.kubernetes.gitRepository is not the repository of rig {rig}: its work is not merged"
        );
        return Submission::Never { reason: "WrongRepository", message };
    }
    match (&ledger.commit, &ledger.branch) {
        (Some(commit), Some(branch)) if ledger.end() == Some(End::Done) && !s.deleting => {
            let inputs = SubmitInputs {
                rig: rig.clone(),
                branch: branch.clone(),
                commit: commit.clone(),
                target: spec.target.clone(),
                attempt: ledger.attempt,
                previous: s.latest_request().map(|r| r.name.clone()).unwrap_or_default(),
                bead: spec.bead.clone().unwrap_or_default(),
                priority: spec.priority,
            };
            due(now, s, inputs)
        }
        _ => Submission::Nothing,
    }
}

fn due(now: Timestamp, s: &Snapshot, inputs: SubmitInputs) -> Submission {
    match &s.submit {
        SubmitFacts::Acknowledged { commit, request, until }
            if *commit == inputs.commit && *until > now =>
        {
            Submission::Made {
                request: request.clone(),
                phase: RequestPhase::Queued,
                reason: "Queued".to_owned(),
                landed: None,
            }
        }
        SubmitFacts::Failed { commit, reason, message, until }
            if *commit == inputs.commit && *until > now =>
        {
            Submission::Wait {
                reason: reason.clone(),
                message: message.clone(),
                until: Some(*until),
            }
        }
        _ => Submission::Due(inputs),
    }
}

/// When `spec.ttlSecondsAfterFinished` deletes the Polecat: after the landing, or after the end
/// when nothing is to merge.
fn expires_at(
    s: &Snapshot,
    ledger: &Ledger,
    submit: &Submission,
    rests: bool,
) -> Option<Timestamp> {
    let ttl = s.ttl_seconds?;
    if s.deleting || !rests || s.desired == Desired::Idle {
        return None;
    }
    let last = ledger.last.as_ref()?;
    let end = match (last.end, submit) {
        (End::Done, Submission::Made { phase: RequestPhase::Landed, landed, .. }) => {
            landed.map_or(last.at, Timestamp::as_second)
        }
        (End::Done, Submission::Never { .. }) | (End::DoneWithoutChanges, _) => last.at,
        (End::Done, _) => return None,
        _ if s.desired == Desired::Terminated => last.at,
        _ => return None,
    };
    Timestamp::from_second(end.saturating_add(ttl)).ok()
}

fn wake(
    now: Timestamp,
    s: &Snapshot,
    next: &Next,
    submit: &Submission,
    live: &[&PodFacts],
    expiry: Option<Timestamp>,
) -> Option<Timestamp> {
    let working = live.is_empty() && why_drain(s).is_none();
    let retry = match next {
        Next::Wait { until, .. } if working => *until,
        _ => None,
    };
    let submit = match (submit, &s.submit) {
        (Submission::Wait { until, .. }, _) => *until,
        (
            Submission::Made { phase: RequestPhase::Queued, .. },
            SubmitFacts::Acknowledged { until, .. },
        ) if s.requests.is_empty() => Some(*until),
        _ => None,
    };
    let lost = live.iter().filter_map(|p| p.deletion).min().and_then(|d| {
        Timestamp::from_second(d.as_second().saturating_add(super::facts::NODE_LOST_SECONDS)).ok()
    });
    [retry, submit, lost, expiry].into_iter().flatten().filter(|t| *t > now).min()
}

/// What `status.phase` a Polecat without work shows.
pub(super) fn rest_phase(desired: Desired) -> Phase {
    if desired == Desired::Terminated { Phase::Terminated } else { Phase::Idle }
}
