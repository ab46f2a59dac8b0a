//! Landing a tested candidate: the push, reading it back, and what follows.

use std::time::Duration;

use gastown_api::conditions::time;
use gastown_api::names::reason;
use gastown_api::{MergeAttempt, MergePhase, MergeRequest};
use gastown_core::train::{Car, End, Landing, RequestId, Target, Tested};
use gastown_git::{GitError, PushOutcome, RefUpdate, Refusal, Remote};
use gastown_runtime::events::Note;
use gastown_types::CommitId;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::fetch::{blocking, refresh};
use super::polecat::mark_merged;
use super::record::end;
use crate::error::Error;
use crate::gate;
use crate::pass::Pass;
use crate::trace;
use crate::train::{Entry, Refused, Train, in_seconds};

/// The wait after the first landing that the remote refused, in seconds; each further one doubles it.
const FIRST_WAIT: i64 = 10;
/// The longest wait after a landing that the remote refused, in seconds.
const LONGEST_WAIT: i64 = 1800;

/// Pushes a tested candidate to the target.
pub(super) async fn land(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &Remote,
    tested: &Tested<Car>,
) -> Result<(), Error> {
    let car = tested.what();
    if !is_fast_forward(pass, &car.base, &car.commit).await? {
        return Err(Error::Internal(format!(
            "candidate {} does not descend from {}",
            car.commit, car.base
        )));
    }
    if pass.ctx.runtime.shards.held(&pass.refinery.spec.rig_ref).is_none() {
        return Err(Error::LeaseLost);
    }
    let update = RefUpdate {
        name: pass.target.full(),
        expected: Some(car.base.clone()),
        new: Some(car.commit.clone()),
    };
    let outcome = match remote.push(&pass.ctx.git, pass.mirror().path(), &[update]).await {
        Ok(outcomes) => outcomes.into_iter().next(),
        Err(error) => {
            // The push may have arrived all the same: the target is read before anything else.
            train.target = None;
            return Err(error.into());
        }
    };
    let outcome =
        outcome.unwrap_or(PushOutcome::Rejected(Refusal::Other, "git reported nothing".into()));
    let Some(e) = train.entry(&car.request) else { return Ok(()) };
    match outcome {
        PushOutcome::Done | PushOutcome::UpToDate => {
            e.cached.landing = Landing::Pushed(car.commit.clone());
            train.target = Some(Target::At { tip: car.commit.clone(), seen: Timestamp::now() });
        }
        PushOutcome::Rejected(Refusal::Stale, detail) => {
            tracing::info!(
                request = e.object().name_any(),
                detail,
                "the target moved: the request is built and tested again"
            );
            train.target = None;
        }
        PushOutcome::Rejected(refusal, message) => {
            // The target may have moved all the same.
            train.target = None;
            let Some(e) = train.entry(&car.request) else { return Ok(()) };
            refused(e, car, refusal, &message);
            let message = format!("Merge failed for {}: {message}", e.author_name());
            let note = Note::warning("landing", reason::MERGE_FAILED, message);
            publish(pass, e.object(), note);
        }
    }
    Ok(())
}

/// Has the request wait after the remote refused its landing, longer each time, and shows it in its
/// history.
fn refused(e: &mut Entry, car: &Car, refusal: Refusal, message: &str) {
    let times = e.scratch.refused.as_ref().map_or(0, |refused| refused.times);
    let wait = (FIRST_WAIT << times.min(8)).min(LONGEST_WAIT);
    let why = format!("the remote refused the push ({refusal:?}): {message}");
    e.wait_until(in_seconds(wait), reason::PUSH_REJECTED, why.clone());
    let attempt = e.attempt(car.base.as_str(), Some(car.commit.as_str()));
    attempt.result = Some(reason::PUSH_REJECTED.to_owned());
    attempt.reason = Some(reason::PUSH_REJECTED.to_owned());
    attempt.finished_at = Some(time(Timestamp::now()));
    attempt.evidence = Some(gate::evidence(&why, MergeAttempt::MAX_EVIDENCE));
    e.scratch.refused = Some(Refused { times: times.saturating_add(1), why });
}

/// Whether `commit` descends from `base`: a push with a lease skips git's own check.
async fn is_fast_forward(
    pass: &Pass<'_>,
    base: &CommitId,
    commit: &CommitId,
) -> Result<bool, GitError> {
    let (mirror, base, commit) = (pass.mirror(), base.clone(), commit.clone());
    blocking(move || mirror.objects()?.is_ancestor(&base, &commit)).await
}

/// Confirms that the target has what was pushed.
pub(super) async fn read_back(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &Remote,
    id: &RequestId,
    commit: CommitId,
) -> Result<(), Error> {
    for wait in [0, 200, 1000] {
        // A forge's replicas may be behind the one that accepted the push.
        tokio::time::sleep(Duration::from_millis(wait)).await;
        if target_has(pass, train, remote, &commit).await? {
            if let Some(e) = train.entry(id) {
                e.cached.landing = Landing::Confirmed(commit);
            }
            return Ok(());
        }
    }
    pass.ctx.metrics.mismatches.inc(pass.labels());
    let message =
        format!("the remote accepted {commit}, but its branch {} does not have it", pass.target);
    let note = Note::warning("landing", "ReadBackFailed", &message);
    pass.ctx.runtime.events.publish(pass.refinery.as_ref(), note);
    train.target = None;
    if let Some(e) = train.entry(id) {
        e.cached.landing = Landing::No;
        e.cached.build = None;
        e.wait_until(in_seconds(30), "ReadBackFailed", message);
    }
    Ok(())
}

/// Whether the remote's target has the commit now.
async fn target_has(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &Remote,
    commit: &CommitId,
) -> Result<bool, GitError> {
    let name = pass.target.full();
    let refs = remote.ls_remote(&pass.ctx.git, std::slice::from_ref(&name)).await?;
    let Some(tip) = refs.get(&name).cloned() else { return Ok(false) };
    let seen = Timestamp::now();
    if tip == *commit {
        train.target = Some(Target::At { tip, seen });
        return Ok(true);
    }
    // Somebody pushed on top of it, or instead of it.
    train.target = Some(Target::Unknown);
    let heads = refresh(pass, remote, std::slice::from_ref(&pass.target)).await?;
    let Some(tip) = heads.get(&pass.target).cloned() else { return Ok(false) };
    let (mirror, commit, on) = (pass.mirror(), commit.clone(), tip.clone());
    let has = blocking(move || mirror.objects()?.is_ancestor(&commit, &on)).await?;
    if has {
        train.target = Some(Target::At { tip, seen });
    }
    Ok(has)
}

/// Ends a request that is on the target.
pub(super) async fn mark_landed(
    pass: &Pass<'_>,
    train: &mut Train,
    id: &RequestId,
    commit: CommitId,
    tested: Option<CommitId>,
    why: &'static str,
) -> Result<(), Error> {
    let Some(e) = train.entry(id) else { return Ok(()) };
    // The Polecat comes first: after a crash in between, the request is found landed again and the
    // Polecat is marked again.
    let message =
        format!("Branch {} merged to {} (commit: {commit})", e.durable.branch, pass.target);
    e.cached.merged_version = mark_merged(&pass.client(), e.object(), &message).await?;
    let (object, author) = (e.durable.object.clone(), e.author_name());
    let landed = End {
        phase: MergePhase::Landed,
        reason: why.to_owned(),
        message,
        at: Timestamp::now(),
        tested,
        landed: Some(commit),
    };
    end(pass, train, id, landed).await?;
    if let Some(created) = object.creation_timestamp() {
        let seconds = Timestamp::now().duration_since(created.0).as_secs_f64();
        pass.ctx.metrics.landed(pass.rig_name(), seconds, trace::place(&object).trace());
    }
    let message = format!("Successfully merged {author}");
    publish(pass, &object, Note::normal("landing", reason::MERGE_SUCCEEDED, message));
    Ok(())
}

/// Sets the condition `Merged` of a landed request's Polecat again.
pub(super) async fn notify_author(
    pass: &Pass<'_>,
    train: &mut Train,
    id: &RequestId,
) -> Result<(), Error> {
    let Some(e) = train.entry(id) else { return Ok(()) };
    let Some(end) = &e.durable.record.end else { return Ok(()) };
    e.cached.merged_version = mark_merged(&pass.client(), e.object(), &end.message).await?;
    Ok(())
}

/// Publishes an event of the Refinery about the request. One that needs its author is an event of
/// the request as well.
pub(super) fn publish(pass: &Pass<'_>, request: &MergeRequest, note: Note) {
    let events = &pass.ctx.runtime.events;
    if note.warning {
        events.publish(request, note.clone());
    }
    events.publish(pass.refinery.as_ref(), note.about(request));
}
