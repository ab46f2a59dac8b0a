//! Building a request's candidate.

use gastown_core::train::{Build, Built, RequestId};
use gastown_git::{Git, GitError, Mirror, Objects, Recipe, Strategy};
use gastown_runtime::events::Note;
use gastown_types::CommitId;
use kube::ResourceExt as _;

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
    let mirror = pass.mirror();
    let recipe = Recipe {
        request: request.0.clone(),
        base: base.clone(),
        source: e.durable.commit.clone(),
        strategy: Strategy::Rebase,
    };
    let built = {
        let (mirror, git) = (mirror.clone(), pass.ctx.git.clone());
        tokio::task::spawn_blocking(move || on_base(&git, &mirror, &recipe)).await
    };
    let built = match built {
        Ok(built) => built?,
        // A bug that this request's content triggers must not hold up the other requests.
        Err(panic) => {
            tracing::error!(request = e.object().name_any(), %panic, "building a candidate panicked");
            let message = format!(
                "building the candidate on {base} failed because of a bug in refinery-ctl; the next try is in 10 min"
            );
            let note = Note::warning("build", "BuildFailed", message.clone());
            pass.ctx.runtime.events.publish(e.object(), note);
            e.wait_until(in_seconds(600), "BuildFailed", message);
            return Ok(());
        }
    };
    if let Built::Candidate(commit) = &built {
        mirror.keep_candidate(commit).await?;
    }
    e.cached.build = Some(Build { base: base.clone(), built });
    Ok(())
}

fn on_base(git: &Git, mirror: &Mirror, recipe: &Recipe) -> Result<Built, GitError> {
    let objects: Objects = mirror.objects()?;
    let Recipe { request, base, source, strategy: _ } = recipe;
    if objects.is_ancestor(source, base)? {
        return Ok(Built::Landed(source.clone()));
    }
    let since = objects.merge_base(source, base)?;
    if let Some(commit) = objects.contains_trailer(base, since.as_ref(), request)? {
        return Ok(Built::Landed(commit));
    }
    Ok(match gastown_git::build(git, &objects, recipe)? {
        gastown_git::Built::Candidate(c) => Built::Candidate(c.commit),
        gastown_git::Built::AlreadyInTarget => Built::AlreadyInTarget,
        gastown_git::Built::Conflict(c) => {
            let paths: Vec<String> = c.paths.iter().map(|p| format!("  {p}")).collect();
            let head = format!(
                "Commit {} does not apply to the target at {base}. Conflicting paths:",
                c.commit
            );
            Built::Conflict(format!("{head}\n{}", paths.join("\n")))
        }
    })
}
