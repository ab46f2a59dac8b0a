//! Fetching the target and the requests' branches into the mirror.

use std::collections::BTreeMap;

use gastown_core::train::{Build, Built, RequestId, Source, Target};
use gastown_git::{Class, GitError, Mirror, Remote};
use gastown_types::{BranchName, CommitId, Identity};
use jiff::Timestamp;

use crate::error::Error;
use crate::pass::Pass;
use crate::train::Train;

/// Runs blocking git work on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GitError> + Send + 'static,
) -> Result<T, GitError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| GitError::new(Class::Local, "read the mirror", e.to_string()))?
}

/// Fetches branches of the remote into the mirror and returns their commits.
pub(super) async fn refresh(
    pass: &Pass<'_>,
    remote: &Remote,
    branches: &[BranchName],
) -> Result<BTreeMap<BranchName, CommitId>, GitError> {
    let lock = pass.ctx.mirror_lock(&pass.url);
    let _guard = lock.lock().await;
    if let Err(error) = pass.mirror().pack().await {
        tracing::warn!(%error, "a mirror was not packed");
    }
    pass.mirror().refresh(remote, branches).await
}

/// Fetches the tags in the history of the target branch: a gate's `git describe` needs them.
async fn follow_tags(pass: &Pass<'_>, remote: &Remote, tip: &CommitId) -> Result<(), GitError> {
    let lock = pass.ctx.mirror_lock(&pass.url);
    let _guard = lock.lock().await;
    pass.mirror().follow_tags(remote, &pass.target, tip).await
}

/// A question about one request.
struct Question {
    id: RequestId,
    branch: BranchName,
    commit: CommitId,
    /// Whether it is asked for the first time.
    first: bool,
}

struct Answer {
    id: RequestId,
    /// Whether the commit is on its branch, or on the target.
    present: bool,
    /// The request's commit on the target.
    landed: Option<CommitId>,
}

/// Asks the remote where the target and the open requests' branches are, and fetches them.
pub(super) async fn fetch(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &Remote,
) -> Result<(), Error> {
    let mut branches = vec![pass.target.clone()];
    let mut questions = Vec::new();
    for (id, e) in train.entries.iter().filter(|(_, e)| e.is_open()) {
        let (branch, commit) = (e.durable.branch.clone(), e.durable.commit.clone());
        if !branches.contains(&branch) {
            branches.push(branch.clone());
        }
        let first = e.cached.source == Source::Unknown;
        questions.push(Question { id: id.clone(), branch, commit, first });
    }
    let heads = refresh(pass, remote, &branches).await?;
    train.use_mirror(pass.mirror().id());
    let now = Timestamp::now();
    let Some(tip) = heads.get(&pass.target).cloned() else {
        train.target = Some(Target::Absent { seen: now });
        return Ok(());
    };
    follow_tags(pass, remote, &tip).await?;
    let answers = {
        let (mirror, tip) = (pass.mirror(), tip.clone());
        let committer = pass.committing.committer.clone();
        let all = move || {
            questions
                .into_iter()
                .map(|q| answer(&mirror, &tip, &heads, committer.as_ref(), q))
                .collect::<Result<Vec<_>, _>>()
        };
        blocking(all).await?
    };
    for Answer { id, present, landed } in answers {
        let Some(e) = train.entry(&id) else { continue };
        if let Some(commit) = landed {
            e.cached.build = Some(Build { base: tip.clone(), built: Built::Landed(commit) });
        }
        e.cached.source = match (present, e.cached.source) {
            (true, _) => Source::Present,
            (false, Source::Missing { since, .. }) => Source::Missing { since, looked: now },
            (false, Source::Unknown | Source::Present) => {
                Source::Missing { since: now, looked: now }
            }
        };
    }
    train.target = Some(Target::At { tip, seen: now });
    Ok(())
}

fn answer(
    mirror: &Mirror,
    tip: &CommitId,
    heads: &BTreeMap<BranchName, CommitId>,
    committer: Option<&Identity>,
    q: Question,
) -> Result<Answer, GitError> {
    let objects = mirror.objects()?;
    let exists = objects.has(&q.commit);
    let on_branch = exists
        && heads.get(&q.branch).map_or(Ok(false), |head| objects.is_ancestor(&q.commit, head))?;
    if on_branch {
        return Ok(Answer { id: q.id, present: true, landed: None });
    }
    // The branch may have been deleted because the request has landed. Finding that out reads the
    // whole history, so it is done only once.
    let landed = if exists && objects.is_ancestor(&q.commit, tip)? {
        Some(q.commit)
    } else if q.first {
        objects.contains_trailer(tip, None, &q.id.0, committer)?
    } else {
        None
    };
    Ok(Answer { present: landed.is_some(), id: q.id, landed })
}
