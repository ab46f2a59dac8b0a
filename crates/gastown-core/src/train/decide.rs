use std::ops::ControlFlow;

use gastown_types::CommitId;
use jiff::{SignedDuration, Timestamp};

use super::facts::{Author, Build, Built, Facts, Landing, Request, Run, RunState, Source, Target};
use super::order::{queue, under_test};
use super::{
    Car, EndPhase, GateId, Judgement, KEPT_SECONDS, RequestId, Step, Tested, Verdict, Waiting,
};

/// Seconds after which the remote is asked again while there is something to do.
pub const LOOK_AGAIN: i64 = 30;
/// Seconds for which a commit may be missing from its branch before its author hears of it.
pub const MISSING_FOR: i64 = 300;
/// So many broken runs are tried again soon, later ones every ten minutes.
pub const FAULTS_WITHOUT_DELAY: u32 = 3;
/// So often in a request's life a red run is tried once more before anybody is blamed.
pub const DOUBTS: u32 = 1;
/// Seconds after which a request whose target is broken is tested again, should the target not move
/// before.
pub const BROKEN_FOR: i64 = 600;

/// The next step. Rules stand in the order in which they apply.
pub fn decide(facts: &Facts) -> Step {
    let rules = [
        asked_by_people,
        finish_landings,
        take_results,
        release_jobs,
        replace_old_requests,
        tell_authors,
        tidy,
        know_the_remote,
        work,
    ];
    for rule in rules {
        if let ControlFlow::Break(step) = rule(facts) {
            return step;
        }
    }
    let until =
        facts.requests.iter().filter(|r| r.end.is_none()).filter_map(|r| wakes(facts, r)).min();
    let on = if facts.requests.iter().any(|r| r.end.is_none()) {
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

fn open(facts: &Facts) -> impl Iterator<Item = &Request> {
    facts.requests.iter().filter(|r| r.end.is_none())
}

/// What people ask for comes first: trying again, and not wanting it.
fn asked_by_people(facts: &Facts) -> Rule {
    for r in &facts.requests {
        let again = r.retry > r.retried && r.rejected.is_none();
        // What has landed cannot be tried again, nor what a newer request stands for.
        let may =
            r.end.as_ref().is_none_or(|e| matches!(e.phase, EndPhase::Rework | EndPhase::Rejected));
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

/// What has been pushed is read back and told before anything else moves the target.
fn finish_landings(facts: &Facts) -> Rule {
    for r in open(facts) {
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
                    commit: Some(commit.clone()),
                    tested,
                    reason: "Merged",
                };
                return ControlFlow::Break(step);
            }
        }
    }
    NEXT
}

/// A commit counts as tested when a gate passed it, whichever gate is set by now.
fn passed(r: &Request, commit: &CommitId) -> bool {
    r.verdicts.iter().any(|v| v.candidate == *commit && v.result == Judgement::Pass)
}

fn verdict<'a>(r: &'a Request, run: &Run) -> Option<&'a Verdict> {
    r.verdicts.iter().find(|v| v.candidate == run.candidate && v.gate == run.gate)
}

/// Results are written down before their Jobs go. They are true of their commit, whatever the
/// target did meanwhile.
fn take_results(facts: &Facts) -> Rule {
    for run in &facts.runs {
        let Some(r) = open(facts).find(|r| r.id == run.request) else { continue };
        if verdict(r, run).is_some() {
            continue;
        }
        let of_target = r.build.as_ref().is_some_and(|b| b.base == run.candidate);
        let record = |result| Step::RecordVerdict {
            job: run.job.clone(),
            request: r.id.clone(),
            candidate: run.candidate.clone(),
            gate: run.gate.clone(),
            result,
            until: (of_target && result == Judgement::Fail).then(|| after(facts.now, BROKEN_FOR)),
        };
        match &run.state {
            RunState::Passed => return ControlFlow::Break(record(Judgement::Pass)),
            RunState::Failed => return ControlFlow::Break(record(Judgement::Fail)),
            RunState::Broken(why) => {
                let soon = 10 << r.faults.min(8);
                let wait = if r.faults < FAULTS_WITHOUT_DELAY { soon } else { 600 };
                let until = after(facts.now, wait);
                return ControlFlow::Break(Step::RecordFault {
                    job: run.job.clone(),
                    request: r.id.clone(),
                    why: why.clone(),
                    until,
                });
            }
            RunState::Running(_) => {}
        }
    }
    NEXT
}

/// A Job goes when its verdict is written down, and when nobody waits for it: its request ended,
/// its gate is another one now, or its request is known to become another commit.
fn release_jobs(facts: &Facts) -> Rule {
    for run in &facts.runs {
        let wanted = open(facts).find(|r| r.id == run.request).is_some_and(|r| {
            let other = match (&r.build, &facts.target) {
                (Some(build), Target::At { tip, .. }) if build.base == *tip => {
                    run.candidate != *tip && build.built != Built::Candidate(run.candidate.clone())
                }
                _ => false,
            };
            verdict(r, run).is_none() && !other && facts.gate.as_ref() == Some(&run.gate)
        });
        if !wanted {
            return ControlFlow::Break(Step::ReleaseJob { job: run.job.clone() });
        }
    }
    NEXT
}

/// A newer request of a branch or an author stands for the older one, unless that one is under
/// test: then it comes next.
fn replace_old_requests(facts: &Facts) -> Rule {
    let age = |r: &Request| (r.created, r.attempt, r.name.clone());
    for r in open(facts).filter(|r| !under_test(facts, r)) {
        let namespace = r.name.split('/').next();
        let newer = |o: &&Request| {
            let kin = o.branch == r.branch || o.polecat.is_some() && o.polecat == r.polecat;
            let named = o.previous.as_deref() == r.name.split('/').nth(1)
                && o.name.split('/').next() == namespace;
            o.id != r.id && (kin && age(o) > age(r) || named)
        };
        if let Some(by) = facts.requests.iter().find(newer) {
            return ControlFlow::Break(Step::Supersede {
                request: r.id.clone(),
                by: by.name.clone(),
            });
        }
    }
    NEXT
}

/// A landed request's Polecat says so for as long as both are there, whatever became of its status.
fn tell_authors(facts: &Facts) -> Rule {
    let landed = |r: &&Request| r.end.as_ref().is_some_and(|e| e.phase == EndPhase::Landed);
    match facts.requests.iter().filter(landed).find(|r| !r.told) {
        Some(r) => ControlFlow::Break(Step::TellAuthor(r.id.clone())),
        None => NEXT,
    }
}

/// What is over is cleaned up: branches of landed requests, requests of last week.
fn tidy(facts: &Facts) -> Rule {
    for r in &facts.requests {
        let Some(end) = &r.end else { continue };
        if end.phase == EndPhase::Landed
            && facts.delete_branches
            && !r.cleaned
            && r.not_before.is_none_or(|t| t <= facts.now)
        {
            return ControlFlow::Break(Step::DeleteSource(r.id.clone()));
        }
        if after(end.at, KEPT_SECONDS) <= facts.now {
            return ControlFlow::Break(Step::Forget(r.id.clone()));
        }
    }
    NEXT
}

/// The remote is asked only when there is something to do, and then not too long ago.
fn know_the_remote(facts: &Facts) -> Rule {
    let mut eager = open(facts)
        .filter(|r| may_be_tried(facts, r) || (!r.hold && target_is_broken(facts, r)))
        .peekable();
    if eager.peek().is_none() {
        return NEXT;
    }
    let old = |seen: Timestamp| after(seen, LOOK_AGAIN) <= facts.now;
    match &facts.target {
        Target::Unknown => ControlFlow::Break(Step::Fetch),
        Target::Absent { seen } | Target::At { seen, .. } if old(*seen) => {
            ControlFlow::Break(Step::Fetch)
        }
        Target::Absent { seen } => ControlFlow::Break(Step::Wait {
            on: Waiting::NoTarget,
            until: Some(after(*seen, LOOK_AGAIN)),
        }),
        Target::At { .. } => {
            let unseen = eager.any(|r| match r.source {
                Source::Unknown => true,
                Source::Present => false,
                Source::Missing { looked, .. } => old(looked),
            });
            if unseen { ControlFlow::Break(Step::Fetch) } else { NEXT }
        }
    }
}

fn may_be_tried(facts: &Facts, r: &Request) -> bool {
    let waits = |until: Option<Timestamp>| until.is_some_and(|t| t > facts.now);
    let pauses = waits(r.not_before) || (waits(r.retest_at) && target_is_broken(facts, r));
    !r.hold && !pauses
}

/// When a request that cannot be tried now can be.
fn wakes(facts: &Facts, r: &Request) -> Option<Timestamp> {
    if r.hold {
        return None;
    }
    let looks = match (&r.source, &facts.target) {
        (Source::Missing { looked, .. }, _) => Some(after(*looked, LOOK_AGAIN)),
        // A target that moves helps sooner than another try.
        (_, Target::At { seen, .. }) if target_is_broken(facts, r) => {
            return Some(after(*seen, LOOK_AGAIN));
        }
        _ => None,
    };
    r.not_before.filter(|t| *t > facts.now).into_iter().chain(looks).max()
}

/// The first request in the queue that can be tried is brought one step further.
fn work(facts: &Facts) -> Rule {
    let Target::At { tip, seen } = &facts.target else { return NEXT };
    for r in queue(facts).into_iter().filter(|r| may_be_tried(facts, r)) {
        if let Source::Missing { since, .. } = r.source {
            if after(since, MISSING_FOR) <= facts.now {
                let said = format!(
                    "The branch {} on the remote does not hold the commit {}.",
                    r.branch, r.commit
                );
                return ControlFlow::Break(send_back(r, "SourceCommitMissing", said));
            }
            continue;
        }
        return ControlFlow::Break(advance(facts, r, tip, *seen));
    }
    NEXT
}

fn advance(facts: &Facts, r: &Request, tip: &CommitId, seen: Timestamp) -> Step {
    let request = r.id.clone();
    let built = r.build.as_ref().filter(|b| b.base == *tip).map(|b| &b.built);
    let candidate = match built {
        None => return Step::Build { request, base: tip.clone() },
        Some(Built::Landed(commit)) => {
            let tested = passed(r, commit).then(|| commit.clone());
            return Step::MarkLanded {
                request,
                commit: Some(commit.clone()),
                tested,
                reason: "FoundInTarget",
            };
        }
        Some(Built::AlreadyInTarget) => {
            return Step::MarkLanded {
                request,
                commit: None,
                tested: None,
                reason: "AlreadyInTarget",
            };
        }
        Some(Built::Conflict(evidence)) => return send_back(r, "Conflict", evidence.clone()),
        Some(Built::Candidate(commit)) => commit,
    };
    let car = Car { request: request.clone(), base: tip.clone(), commit: candidate.clone() };
    if let Some(tested) = Tested::of(car.clone(), facts.gate.as_ref(), &r.verdicts) {
        return Step::Land(tested);
    }
    // Without a gate everything is tested, so here is one.
    let Some(gate) = &facts.gate else { return Step::Wait { on: Waiting::Blocked, until: None } };
    let car = match blame(r, candidate, tip, gate) {
        Blame::Untested => car,
        // A gate that fails by chance costs one more run, and no author's attempt.
        Blame::Unproven if r.doubts < DOUBTS => return Step::Doubt(request),
        Blame::Unproven => Car { commit: tip.clone(), ..car },
        Blame::Request(red) => return send_back(r, "GateFailed", red.evidence.clone()),
        Blame::Target => return Step::Retest(request),
    };
    match facts
        .runs
        .iter()
        .find(|run| run.request == r.id && run.candidate == car.commit && run.gate == *gate)
    {
        Some(Run { state: RunState::Running(message), .. }) => {
            let on = Waiting::Gate { request, message: message.clone() };
            Step::Wait { on, until: Some(after(seen, LOOK_AGAIN)) }
        }
        // Results were taken above; what is left here is a run that began.
        Some(_) => Step::Wait {
            on: Waiting::Gate { request, message: String::new() },
            until: Some(after(seen, LOOK_AGAIN)),
        },
        None => Step::EnsureGate { car, gate: gate.clone(), run: r.runs_done + 1 },
    }
}

/// Who a red run is to be blamed on.
enum Blame<'a> {
    /// There is none.
    Untested,
    /// Nobody yet: the gate has not run on the target alone since.
    Unproven,
    /// The request: the target alone is green, and was tested later.
    Request(&'a Verdict),
    /// The target.
    Target,
}

fn blame<'a>(r: &'a Request, candidate: &CommitId, tip: &CommitId, gate: &GateId) -> Blame<'a> {
    let Some(at) = r.verdicts.iter().position(|v| v.candidate == *candidate && v.gate == *gate)
    else {
        return Blame::Untested;
    };
    match r.verdicts[at..].iter().find(|v| v.candidate == *tip && v.gate == *gate).map(|v| v.result)
    {
        None => Blame::Unproven,
        Some(Judgement::Pass) => Blame::Request(&r.verdicts[at]),
        Some(Judgement::Fail) => Blame::Target,
    }
}

/// Whether the request's run on the present tip was red and so was that of the tip alone.
pub fn target_is_broken(facts: &Facts, r: &Request) -> bool {
    let (Some(gate), Target::At { tip, .. }) = (&facts.gate, &facts.target) else { return false };
    match &r.build {
        Some(Build { base, built: Built::Candidate(candidate) }) if base == tip => {
            matches!(blame(r, candidate, tip, gate), Blame::Target)
        }
        _ => false,
    }
}

fn send_back(r: &Request, reason: &'static str, evidence: String) -> Step {
    let request: RequestId = r.id.clone();
    match r.author {
        Author::Unknown => Step::AskAuthor(request),
        Author::Present => Step::Rework { request, reason, evidence },
        Author::Gone => {
            let message = format!("{reason}, and its Polecat is gone");
            Step::Reject { request, reason: "AuthorGone", message }
        }
    }
}
