//! Building a request's candidate.

use gastown_core::train::{Build, Built, RequestId};
use gastown_git::{Recipe, Strategy};
use gastown_runtime::events::Note;
use gastown_types::CommitId;
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::builder::{self, Failure};
use crate::error::Error;
use crate::pass::Pass;
use crate::train::{Train, in_seconds};

/// Builds the request's candidate on `base` and keeps it for serving, or finds out that the request
/// has landed or conflicts.
pub(super) async fn build(
    pass: &Pass<'_>,
    train: &mut Train,
    request: &RequestId,
    base: &CommitId,
) -> Result<(), Error> {
    let Some(e) = train.entry(request) else { return Ok(()) };
    let (mirror, began) = (pass.mirror(), Timestamp::now());
    let recipe = Recipe {
        request: request.0.clone(),
        base: base.clone(),
        source: e.durable.commit.clone(),
        strategy: Strategy::Rebase,
        committing: pass.committing.clone(),
    };
    let built = match builder::build(&pass.ctx.build_limits, &mirror, recipe).await {
        Ok(built) => built,
        Err(Failure::Git(error)) => return Err(error.into()),
        // Its author can help: a branch that descends from the target is not merged.
        Err(Failure::TooBig(why)) => Built::Conflict(why),
        // A defect that this request's content brings out must not hold up the other requests.
        Err(Failure::Defect(why)) => {
            tracing::error!(request = e.object().name_any(), why, "building a candidate failed");
            let message = format!(
                "building the candidate on {base} failed because of a bug in refinery-ctl; the next try is in 10 min: {why}"
            );
            let note = Note::warning("build", "BuildFailed", message.clone());
            pass.ctx.runtime.events.publish(e.object(), note);
            e.wait_until(in_seconds(600), "BuildFailed", message);
            return Ok(());
        }
    };
    if let Built::Candidate(commit) = &built {
        mirror.keep_candidate(commit).await?;
        e.scratch.building = Some(began);
    }
    e.cached.build = Some(Build { base: base.clone(), built });
    Ok(())
}
