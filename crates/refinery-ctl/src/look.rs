//! What git says: where the branches are, whether a commit is on its branch, what it becomes on the
//! tip.

use std::collections::BTreeMap;

use gastown_core::train::{Build, Built, RequestId, Source, Target};
use gastown_git::{Class, Git, GitError, Mirror, Objects, Remote, build};
use gastown_runtime::events::Note;
use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::act::in_seconds;
use crate::gate::JobRecipe;
use crate::gather::Pass;
use crate::memory::Train;

/// Runs blocking git work beside the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GitError> + Send + 'static,
) -> Result<T, GitError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| GitError::new(Class::Local, "look at the repository", e.to_string()))?
}

/// What is to be found out about one request.
struct Question {
    id: RequestId,
    branch: BranchName,
    commit: CommitId,
    first: bool,
}

/// What was found: whether the commit is on its branch, and whether the request has landed although
/// its branch is gone.
struct Answer {
    id: RequestId,
    present: bool,
    landed: Option<CommitId>,
}

impl Pass<'_> {
    /// Asks the remote where the target and the open requests' branches are, and takes their
    /// objects.
    pub(crate) async fn fetch(&self, train: &mut Train, remote: &Remote) -> Result<(), GitError> {
        let mut branches = vec![self.target.clone()];
        let mut questions = Vec::new();
        for (id, e) in train.entries.iter().filter(|(_, e)| e.ledger.end.is_none()) {
            if !branches.contains(&e.branch) {
                branches.push(e.branch.clone());
            }
            let first = e.source == Source::Unknown;
            questions.push(Question {
                id: id.clone(),
                branch: e.branch.clone(),
                commit: e.commit.clone(),
                first,
            });
        }
        let mirror = self.ctx.mirror(&self.url);
        let heads = {
            let lock = self.ctx.mirror_lock(&self.url);
            let _one = lock.lock().await;
            mirror.refresh(remote, &branches).await?
        };
        let now = Timestamp::now();
        let Some(tip) = heads.get(&self.target).cloned() else {
            train.target = Some(Target::Absent { seen: now });
            return Ok(());
        };
        let answers = {
            let (mirror, tip) = (mirror.clone(), tip.clone());
            blocking(move || {
                questions
                    .into_iter()
                    .map(|q| look(&mirror, &tip, &heads, q))
                    .collect::<Result<Vec<_>, _>>()
            })
            .await?
        };
        for Answer { id, present, landed } in answers {
            let Some(e) = train.entry(&id) else { continue };
            if let Some(commit) = landed {
                e.build = Some(Build { base: tip.clone(), built: Built::Landed(commit) });
            }
            e.source = match (present, e.source) {
                (true, _) => Source::Present,
                (false, Source::Missing { since, .. }) => Source::Missing { since, looked: now },
                (false, _) => Source::Missing { since: now, looked: now },
            };
        }
        train.target = Some(Target::At { tip, seen: now });
        Ok(())
    }

    /// Finds out what a request becomes on a tip, and keeps a candidate for serving.
    pub(crate) async fn build(
        &self,
        train: &mut Train,
        request: &RequestId,
        base: &CommitId,
    ) -> Result<(), GitError> {
        let Some(e) = train.entries.get(request) else { return Ok(()) };
        let mirror = self.ctx.mirror(&self.url);
        let recipe = JobRecipe::candidate(request, base, &e.commit);
        let built = {
            let (mirror, git) = (mirror.clone(), self.ctx.git.clone());
            tokio::task::spawn_blocking(move || on_tip(&git, &mirror, &recipe)).await
        };
        let built = match built {
            Ok(built) => built?,
            // A defect that this request's content brings out must not hold up everybody else.
            Err(panic) => {
                tracing::error!(request = e.object.name_any(), %panic, "building a candidate failed by our own fault");
                let message = format!(
                    "building it on {base} failed by a defect of refinery-ctl; it is tried again later"
                );
                self.ctx.runtime.events.publish(
                    e.object.as_ref(),
                    Note::warning("build", "BuildFailed", message.clone()),
                );
                if let Some(e) = train.entry(request) {
                    e.not_before = Some(in_seconds(600));
                    e.note = Some(("BuildFailed".to_owned(), message));
                }
                return Ok(());
            }
        };
        if let Built::Candidate(commit) = &built {
            mirror.keep_candidate(commit).await?;
        }
        if let Some(e) = train.entry(request) {
            e.build = Some(Build { base: base.clone(), built });
        }
        Ok(())
    }

    /// Whether the remote's target holds the commit by now.
    pub(crate) async fn holds(
        &self,
        train: &mut Train,
        remote: &Remote,
        commit: &CommitId,
    ) -> Result<bool, GitError> {
        let name = self.target.full();
        let refs = remote.ls_remote(&self.ctx.git, std::slice::from_ref(&name)).await?;
        let Some(tip) = refs.get(&name).cloned() else { return Ok(false) };
        let seen = Timestamp::now();
        if tip == *commit {
            train.target = Some(Target::At { tip, seen });
            return Ok(true);
        }
        // Somebody pushed on top of it, or instead of it.
        train.target = Some(Target::Unknown);
        let mirror = self.ctx.mirror(&self.url);
        let heads = {
            let lock = self.ctx.mirror_lock(&self.url);
            let _one = lock.lock().await;
            mirror.refresh(remote, std::slice::from_ref(&self.target)).await?
        };
        let Some(tip) = heads.get(&self.target).cloned() else { return Ok(false) };
        let (commit, on) = (commit.clone(), tip.clone());
        let held = blocking(move || mirror.objects()?.is_ancestor(&commit, &on)).await?;
        if held {
            train.target = Some(Target::At { tip, seen });
        }
        Ok(held)
    }

    /// Whether `commit` descends from `base`: a lease switches git's own check off.
    pub(crate) async fn is_fast_forward(
        &self,
        base: &CommitId,
        commit: &CommitId,
    ) -> Result<bool, GitError> {
        let (mirror, base, commit) = (self.ctx.mirror(&self.url), base.clone(), commit.clone());
        blocking(move || mirror.objects()?.is_ancestor(&base, &commit)).await
    }
}

fn look(
    mirror: &Mirror,
    tip: &CommitId,
    heads: &BTreeMap<BranchName, CommitId>,
    q: Question,
) -> Result<Answer, GitError> {
    let objects = mirror.objects()?;
    let has = objects.has(&q.commit);
    let on_branch = has
        && heads.get(&q.branch).map_or(Ok(false), |head| objects.is_ancestor(&q.commit, head))?;
    if on_branch {
        return Ok(Answer { id: q.id, present: true, landed: None });
    }
    // Its branch may have been deleted because it has landed. The whole history is read for that,
    // so only once.
    let landed = if has && objects.is_ancestor(&q.commit, tip)? {
        Some(q.commit)
    } else if q.first {
        objects.contains_trailer(tip, None, &q.id.0)?
    } else {
        None
    };
    Ok(Answer { present: landed.is_some(), id: q.id, landed })
}

fn on_tip(git: &Git, mirror: &Mirror, recipe: &gastown_git::Recipe) -> Result<Built, GitError> {
    let objects: Objects = mirror.objects()?;
    let (tip, source) = (&recipe.base, &recipe.source);
    if objects.is_ancestor(source, tip)? {
        return Ok(Built::Landed(source.clone()));
    }
    let since = objects.merge_base(source, tip)?;
    if let Some(commit) = objects.contains_trailer(tip, since.as_ref(), &recipe.request)? {
        return Ok(Built::Landed(commit));
    }
    Ok(match build(git, &objects, recipe)? {
        gastown_git::Built::Candidate(c) => Built::Candidate(c.commit),
        gastown_git::Built::AlreadyInTarget => Built::AlreadyInTarget,
        gastown_git::Built::Conflict(c) => {
            let paths: Vec<String> = c.paths.iter().map(|p| format!("  {p}")).collect();
            let head = format!(
                "Commit {} does not apply to the target at {tip}. Conflicting paths:",
                c.commit
            );
            Built::Conflict(format!("{head}\n{}", paths.join("\n")))
        }
    })
}
