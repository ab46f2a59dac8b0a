use std::ops::ControlFlow;

use gastown_api::{GateRunPurpose, MergePhase};
use gastown_types::CommitId;
use jiff::{SignedDuration, Timestamp};

use super::order::{queue, under_test};
use super::retention::expired;
use super::runs::Verdict;
use super::snapshot::{
    Author, Build, Built, Landing, Request, Run, RunState, Snapshot, Source, Target,
};
use super::{Car, GateId, GateResult, KEPT_SECONDS, RequestId, Step, Tested, Waiting};

/// While there is something to do, the remote is asked again after this many seconds.
pub const REMOTE_POLL_SECONDS: i64 = 30;
/// A commit that is missing from its branch for this many seconds goes back to its author.
pub const SOURCE_MISSING_SECONDS: i64 = 300;
/// This many broken runs in a row are tried again within seconds, later ones after ten minutes. When
/// the gate has broken so often on a candidate, the target is tested alone.
pub const BROKEN_RUNS_RETRIED_SOON: u32 = 3;
/// How often in a request's life its gate is run again after a failure, before anybody is blamed.
pub const MAX_RETRIES: u32 = 1;
/// A request whose target is broken is tested again after this many seconds, or earlier when the
/// target moves.
pub const BROKEN_TARGET_SECONDS: i64 = 600;

/// The next step: that of the first rule that has one, in the order below.
pub fn decide(snapshot: &Snapshot) -> Step {
    let rules = [
        follow_people,
        finish_landings,
        take_results,
        release_jobs,
        replace_old_requests,
        notify_authors,
        clean_up,
        look_at_remote,
        work,
    ];
    for rule in rules {
        if let ControlFlow::Break(step) = rule(snapshot) {
            return step;
        }
    }
    let until = snapshot
        .requests
        .iter()
        .filter_map(|r| match r.end {
            None => retry_time(snapshot, r),
            // What could not be done for it is tried again.
            Some(_) => r.not_before.max(r.failed_until).filter(|t| *t > snapshot.now),
        })
        .min();
    let on = if snapshot.requests.iter().any(|r| r.end.is_none()) {
        Waiting::Blocked
    } else {
        Waiting::Idle
    };
    Step::Wait { on, until }
}

type Rule = ControlFlow<Step>;
const NEXT: Rule = ControlFlow::Continue(());

fn after(t: Timestamp, seconds: i64) -> Timestamp {
    t.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(t)
}

fn open(snapshot: &Snapshot) -> impl Iterator<Item = &Request> {
    snapshot.requests.iter().filter(|r| r.end.is_none())
}

/// Whether nothing that was done for the request was just refused: it waits then, and the others do
/// not.
fn may_be_acted_on(snapshot: &Snapshot, r: &Request) -> bool {
    r.failed_until.is_none_or(|t| t <= snapshot.now)
}

/// What people ask for comes first: trying a request again, and rejecting it.
fn follow_people(snapshot: &Snapshot) -> Rule {
    for r in &snapshot.requests {
        if !may_be_acted_on(snapshot, r) {
            continue;
        }
        let again = r.retry > r.retried && r.rejected.is_none();
        // What has landed cannot be tried again, nor what a newer request has replaced.
        let may = r
            .end
            .as_ref()
            .is_none_or(|e| matches!(e.phase, MergePhase::Rework | MergePhase::Rejected));
        if again && may {
            return ControlFlow::Break(Step::Reopen(r.id.clone()));
        }
        if let (None, Some(why), Landing::No) = (&r.end, &r.rejected, &r.landing) {
            let message = why.clone();
            return ControlFlow::Break(Step::Reject {
                request: r.id.clone(),
                reason: "Rejected",
                message,
            });
        }
    }
    NEXT
}

/// What has been pushed is read back and recorded before anything else moves the target.
fn finish_landings(snapshot: &Snapshot) -> Rule {
    for r in open(snapshot).filter(|r| may_be_acted_on(snapshot, r)) {
        match &r.landing {
            Landing::No => {}
            Landing::Pushed(commit) => {
                return ControlFlow::Break(Step::ReadBack {
                    request: r.id.clone(),
                    commit: commit.clone(),
                });
            }
            Landing::Confirmed(commit) => {
                let tested = passed(r, commit).then(|| commit.clone());
                let step = Step::MarkLanded {
                    request: r.id.clone(),
                    commit: commit.clone(),
                    tested,
                    reason: "Merged",
                };
                return ControlFlow::Break(step);
            }
        }
    }
    NEXT
}

/// Whether a gate passed the commit; it may be another gate than the present one.
fn passed(r: &Request, commit: &CommitId) -> bool {
    r.history.verdicts.iter().any(|v| v.candidate == *commit && v.result == GateResult::Pass)
}

/// Whether a failure of the run is, or may be, the target's: the next try has time then.
fn concerns_target(snapshot: &Snapshot, run: &Run) -> bool {
    let broken = match &snapshot.target {
        Target::At { tip, .. } => is_known_broken(snapshot, tip, &run.gate),
        Target::Unknown | Target::Absent { .. } => false,
    };
    run.purpose == GateRunPurpose::Control || broken
}

/// Whether the gate failed when it last ran on this tip alone, whatever request that was for.
fn is_known_broken(snapshot: &Snapshot, tip: &CommitId, gate: &GateId) -> bool {
    let last = snapshot.controls.iter().rfind(|v| v.candidate == *tip && v.gate == *gate);
    last.is_some_and(|v| v.result == GateResult::Fail)
}

/// Results are recorded before their Jobs are deleted. A result holds for its commit, whatever the
/// target did meanwhile.
fn take_results(snapshot: &Snapshot) -> Rule {
    for run in snapshot.runs.iter().filter(|run| !run.recorded) {
        let found = open(snapshot).find(|r| r.id == run.request);
        let Some(r) = found.filter(|r| may_be_acted_on(snapshot, r)) else { continue };
        let record = |result| Step::RecordVerdict {
            run: run.name.clone(),
            request: r.id.clone(),
            result,
            until: (concerns_target(snapshot, run) && result == GateResult::Fail)
                .then(|| after(snapshot.now, BROKEN_TARGET_SECONDS)),
        };
        match &run.state {
            RunState::Passed => return ControlFlow::Break(record(GateResult::Pass)),
            RunState::Failed => return ControlFlow::Break(record(GateResult::Fail)),
            RunState::Broken(why) => {
                let soon = 10 << r.history.broken_runs.min(8);
                let wait =
                    if r.history.broken_runs < BROKEN_RUNS_RETRIED_SOON { soon } else { 600 };
                let until = after(snapshot.now, wait);
                return ControlFlow::Break(Step::RecordBrokenRun {
                    run: run.name.clone(),
                    request: r.id.clone(),
                    why: why.clone(),
                    until,
                });
            }
            RunState::Unstarted | RunState::Running(_) => {}
        }
    }
    NEXT
}

/// A Job is deleted when its run's end is recorded, and a run with its Job when nobody waits for it:
/// its request has ended, the gate has changed, or the request now has another candidate.
fn release_jobs(snapshot: &Snapshot) -> Rule {
    for run in &snapshot.runs {
        let wanted = open(snapshot).find(|r| r.id == run.request).is_some_and(|r| {
            let other = match (&r.build, &snapshot.target) {
                (Some(build), Target::At { tip, .. }) if build.base == *tip => {
                    run.candidate != *tip && build.built != Built::Candidate(run.candidate.clone())
                }
                _ => false,
            };
            !run.recorded && !other && snapshot.gate.as_ref() == Some(&run.gate)
        });
        if !wanted {
            return ControlFlow::Break(Step::ReleaseJob { run: run.name.clone() });
        }
    }
    NEXT
}

/// A newer request of the same Polecat, or one that names the older as its previous one, replaces it
/// once its commit was seen on its branch; unless the older one is under test: then the newer one
/// comes next. Both are of one namespace: nobody else's request replaces anything.
fn replace_old_requests(snapshot: &Snapshot) -> Rule {
    let age = |r: &Request| (r.created, r.attempt, r.name.clone());
    // What has landed or went back to its author was there.
    let was_there = |r: &Request| match &r.end {
        Some(end) => matches!(end.phase, MergePhase::Landed | MergePhase::Rework),
        None => r.source == Source::Present,
    };
    let is_free = |r: &&Request| !under_test(snapshot, r) && may_be_acted_on(snapshot, r);
    for r in open(snapshot).filter(is_free) {
        let (namespace, name) = r.name.split_once('/').unwrap_or_default();
        let newer = |o: &&Request| {
            let of_namespace = o.name.split_once('/').is_some_and(|(other, _)| other == namespace);
            let of_author = o.polecat.is_some() && o.polecat == r.polecat;
            let related = of_author || o.previous.as_deref() == Some(name);
            o.id != r.id && of_namespace && related && age(o) > age(r) && was_there(o)
        };
        if let Some(by) = snapshot.requests.iter().find(newer) {
            return ControlFlow::Break(Step::Supersede {
                request: r.id.clone(),
                by: by.name.clone(),
            });
        }
    }
    NEXT
}

/// A landed request's Polecat has the condition `Merged` for as long as both exist, even when its
/// status was erased.
fn notify_authors(snapshot: &Snapshot) -> Rule {
    let landed = |r: &&Request| r.end.as_ref().is_some_and(|e| e.phase == MergePhase::Landed);
    let due = |r: &&Request| !r.author_notified && may_be_acted_on(snapshot, r);
    match snapshot.requests.iter().filter(landed).find(due) {
        Some(r) => ControlFlow::Break(Step::NotifyAuthor(r.id.clone())),
        None => NEXT,
    }
}

/// Branches of landed requests are deleted, what was saved beside them once the rig does not keep it
/// any longer, and requests that ended long ago.
fn clean_up(snapshot: &Snapshot) -> Rule {
    for r in &snapshot.requests {
        let Some(end) = &r.end else { continue };
        let has_remains = snapshot.delete_branches || r.polecat.is_some();
        let may_be_tried =
            r.not_before.is_none_or(|t| t <= snapshot.now) && may_be_acted_on(snapshot, r);
        if end.phase == MergePhase::Landed && has_remains && !r.cleaned && may_be_tried {
            return ControlFlow::Break(Step::CleanUp(r.id.clone()));
        }
        if r.saved_until.is_some_and(|t| t <= snapshot.now) && may_be_tried {
            return ControlFlow::Break(Step::DeleteSaved(r.id.clone()));
        }
        let is_old = r.saved_until.is_none() && after(end.at, KEPT_SECONDS) <= snapshot.now;
        if is_old && may_be_tried {
            return ControlFlow::Break(Step::DeleteRequest(r.id.clone()));
        }
    }
    match expired(snapshot) {
        Some(run) => ControlFlow::Break(Step::DeleteRun(run.name.clone())),
        None => NEXT,
    }
}

/// When there is something to do, the remote must have been asked recently.
fn look_at_remote(snapshot: &Snapshot) -> Rule {
    let mut ready = open(snapshot)
        .filter(|r| may_be_tried(snapshot, r) || (!r.hold && target_is_broken(snapshot, r)))
        .peekable();
    if ready.peek().is_none() {
        return NEXT;
    }
    let old = |seen: Timestamp| after(seen, REMOTE_POLL_SECONDS) <= snapshot.now;
    match &snapshot.target {
        Target::Unknown => ControlFlow::Break(Step::Fetch),
        Target::Absent { seen } | Target::At { seen, .. } if old(*seen) => {
            ControlFlow::Break(Step::Fetch)
        }
        Target::Absent { seen } => ControlFlow::Break(Step::Wait {
            on: Waiting::NoTarget,
            until: Some(after(*seen, REMOTE_POLL_SECONDS)),
        }),
        Target::At { .. } => {
            let unseen = ready.any(|r| match r.source {
                Source::Unknown => true,
                Source::Present => false,
                Source::Missing { looked, .. } => old(looked),
            });
            if unseen { ControlFlow::Break(Step::Fetch) } else { NEXT }
        }
    }
}

fn may_be_tried(snapshot: &Snapshot, r: &Request) -> bool {
    let is_ahead = |until: Option<Timestamp>| until.is_some_and(|t| t > snapshot.now);
    let waits = is_ahead(r.not_before)
        || is_ahead(r.failed_until)
        || (is_ahead(r.retest_at) && target_is_broken(snapshot, r));
    !r.hold && !waits
}

/// When a request that cannot be tried now can be tried; `None` when time alone does not help.
fn retry_time(snapshot: &Snapshot, r: &Request) -> Option<Timestamp> {
    if r.hold {
        return None;
    }
    let next_look = match (&r.source, &snapshot.target) {
        (Source::Missing { looked, .. }, _) => Some(after(*looked, REMOTE_POLL_SECONDS)),
        // The target may move before the next test is due.
        (_, Target::At { seen, .. }) if target_is_broken(snapshot, r) => {
            return Some(after(*seen, REMOTE_POLL_SECONDS));
        }
        _ => None,
    };
    let waits = [r.not_before, r.failed_until].into_iter().flatten();
    waits.filter(|t| *t > snapshot.now).chain(next_look).max()
}

/// The first request in the queue that can be tried advances by one step.
fn work(snapshot: &Snapshot) -> Rule {
    let Target::At { tip, seen } = &snapshot.target else { return NEXT };
    for r in queue(snapshot).into_iter().filter(|r| may_be_tried(snapshot, r)) {
        if let Source::Missing { since, .. } = r.source {
            if after(since, SOURCE_MISSING_SECONDS) <= snapshot.now {
                let evidence =
                    format!("Branch {} on the remote does not have commit {}.", r.branch, r.commit);
                return ControlFlow::Break(send_back(r, "SourceCommitMissing", evidence));
            }
            continue;
        }
        return ControlFlow::Break(advance(snapshot, r, tip, *seen));
    }
    NEXT
}

fn advance(snapshot: &Snapshot, r: &Request, tip: &CommitId, seen: Timestamp) -> Step {
    let request = r.id.clone();
    match r.build.as_ref().filter(|b| b.base == *tip).map(|b| &b.built) {
        None => Step::Build { request, base: tip.clone() },
        Some(Built::Landed(commit)) => {
            let tested = passed(r, commit).then(|| commit.clone());
            let commit = commit.clone();
            Step::MarkLanded { request, commit, tested, reason: "FoundInTarget" }
        }
        // The tip that the request was compared with has its changes: that is where they are.
        Some(Built::AlreadyInTarget) => {
            let commit = tip.clone();
            Step::MarkLanded { request, commit, tested: None, reason: "AlreadyInTarget" }
        }
        Some(Built::Conflict(evidence)) => send_back(r, "Conflict", evidence.clone()),
        Some(Built::Candidate(commit)) => {
            let car = Car { request, base: tip.clone(), commit: commit.clone() };
            test_and_land(snapshot, r, car, seen)
        }
    }
}

/// The next step for a request whose candidate is built on the tip.
fn test_and_land(snapshot: &Snapshot, r: &Request, car: Car, seen: Timestamp) -> Step {
    let verdicts = &r.history.verdicts;
    if let Some(tested) = Tested::of(car.clone(), snapshot.gate.as_ref(), verdicts) {
        return Step::Land(tested);
    }
    // Without a gate every car counts as tested, so there is one.
    let Some(gate) = &snapshot.gate else {
        return Step::Wait { on: Waiting::Blocked, until: None };
    };
    let is_of_it = |run: &&Run| {
        run.request == r.id
            && run.gate == *gate
            && (run.candidate == car.commit || run.candidate == car.base)
    };
    if let Some(run) = snapshot.runs.iter().find(is_of_it) {
        return go_on(snapshot, run, car, seen);
    }
    let next = |car: Car, purpose| {
        ensure_gate(snapshot, car, gate.clone(), r.history.last_run + 1, purpose)
    };
    match blame(snapshot, r, &car.commit, &car.base, gate) {
        // On a target that is broken the request is tried again: it may repair it.
        Blame::Untested | Blame::Target => next(car, GateRunPurpose::Test),
        // A gate that fails by chance costs one more run, and none of the author's attempts.
        Blame::Unproven if r.history.retries < MAX_RETRIES => next(car, GateRunPurpose::Retry),
        Blame::Unproven | Blame::Unmeasured => {
            next(Car { commit: car.base.clone(), ..car }, GateRunPurpose::Control)
        }
        Blame::Request => send_back(r, "GateFailed", String::new()),
        Blame::Breaks => {
            let evidence = format!(
                "The gate breaks on {} and runs on the target alone; status.attempts has what broke.",
                car.commit
            );
            send_back(r, "GateBroken", evidence)
        }
    }
}

/// Begins a run, or goes on with its beginning. None begins while gates may not start.
fn ensure_gate(
    snapshot: &Snapshot,
    car: Car,
    gate: GateId,
    run: u32,
    purpose: GateRunPurpose,
) -> Step {
    if snapshot.gates_may_start {
        Step::EnsureGate { car, gate, run, purpose }
    } else {
        Step::Wait { on: Waiting::Blocked, until: None }
    }
}

/// The next step for a run of the car, or of its base, that has not ended.
fn go_on(snapshot: &Snapshot, run: &Run, car: Car, seen: Timestamp) -> Step {
    let message = match &run.state {
        RunState::Unstarted => {
            let car = Car { commit: run.candidate.clone(), ..car };
            return ensure_gate(snapshot, car, run.gate.clone(), run.number, run.purpose);
        }
        RunState::Running(message) => message.clone(),
        // The results of runs that are over were taken by an earlier rule.
        RunState::Passed | RunState::Failed | RunState::Broken(_) => String::new(),
    };
    let on = Waiting::Gate { request: car.request, message };
    Step::Wait { on, until: Some(after(seen, REMOTE_POLL_SECONDS)) }
}

/// Who is to blame for a failed run.
enum Blame {
    /// The gate has not run on the candidate.
    Untested,
    /// Nobody yet: the gate has not run on the target alone since the last failure.
    Unproven,
    /// Nobody yet: the gate has broken again and again, and not run on the target alone since.
    Unmeasured,
    /// The request: the target alone was tested later, and passed.
    Request,
    /// The target: it fails alone as well.
    Target,
    /// The request: the gate breaks on it again and again, and not on the target alone.
    Breaks,
}

fn blame(
    snapshot: &Snapshot,
    r: &Request,
    candidate: &CommitId,
    tip: &CommitId,
    gate: &GateId,
) -> Blame {
    let all = &r.history.verdicts;
    let is_on = |v: &Verdict, commit: &CommitId| v.candidate == *commit && v.gate == *gate;
    let Some(last) = all.iter().rposition(|v| is_on(v, candidate)) else {
        return blame_breaks(r, candidate, tip, gate);
    };
    match all[last..].iter().find(|v| is_on(v, tip)).map(|v| v.result) {
        // To blame the request takes a later run of the target that passed; that the target failed
        // before, for another request, is enough not to.
        None if is_known_broken(snapshot, tip, gate) => Blame::Target,
        None => Blame::Unproven,
        Some(GateResult::Pass) => Blame::Request,
        Some(GateResult::Fail) => Blame::Target,
    }
}

/// Who is to blame when the gate has only broken on the candidate so far.
fn blame_breaks(r: &Request, candidate: &CommitId, tip: &CommitId, gate: &GateId) -> Blame {
    let most = usize::try_from(BROKEN_RUNS_RETRIED_SOON).unwrap_or(usize::MAX);
    let Some(verdicts) = r.history.since_break(candidate, gate, most, tip) else {
        return Blame::Untested;
    };
    match verdicts.iter().find(|v| v.candidate == *tip && v.gate == *gate).map(|v| v.result) {
        Some(GateResult::Pass) => Blame::Breaks,
        Some(GateResult::Fail) => Blame::Target,
        None => Blame::Unmeasured,
    }
}

/// Whether the gate failed on the request's candidate on the present tip, and on the tip alone.
pub fn target_is_broken(snapshot: &Snapshot, r: &Request) -> bool {
    let (Some(gate), Target::At { tip, .. }) = (&snapshot.gate, &snapshot.target) else {
        return false;
    };
    match &r.build {
        Some(Build { base, built: Built::Candidate(candidate) }) if base == tip => {
            matches!(blame(snapshot, r, candidate, tip, gate), Blame::Target)
        }
        _ => false,
    }
}

fn send_back(r: &Request, reason: &'static str, evidence: String) -> Step {
    let request: RequestId = r.id.clone();
    match r.author {
        Author::Unknown => Step::LookUpAuthor(request),
        Author::Present => Step::Rework { request, reason, evidence },
        Author::Gone => {
            let message = format!("{reason}, and its Polecat does not exist any more");
            Step::Reject { request, reason: "AuthorGone", message }
        }
    }
}
