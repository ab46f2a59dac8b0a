//! What a landed request leaves on the remote, and when that goes.

use std::collections::BTreeMap;

use gastown_api::{MergeRequest, Polecat};
use gastown_core::train::RequestId;
use gastown_git::{GitError, RefUpdate, Remote};
use gastown_types::{BranchName, CommitId};
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::fetch::fetch;
use super::record::save;
use crate::error::Error;
use crate::pass::Pass;
use crate::record::RequestRecord;
use crate::train::{Entry, Train, in_seconds};

/// How many refs with saved work are recorded of one request.
const MAX_SAVED: usize = 64;
/// A remote that does not answer is tried again after this many seconds.
const RETRY_SECONDS: i64 = 60;

/// Deletes a landed branch that nobody has moved since, where that is wanted, and records which refs
/// hold what its author saved beside it. What cannot be deleted stays, which is not an error.
pub(super) async fn branch(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &Remote,
    id: &RequestId,
) -> Result<(), Error> {
    let Some(e) = train.entries.get(id) else { return Ok(()) };
    let (branch, commit) = (e.durable.branch.clone(), e.durable.commit.clone());
    let saved = match saved_refs(pass, remote, e).await {
        Ok(saved) => saved,
        Err(error) => {
            postpone(train, id, &error);
            return Ok(());
        }
    };
    let is_needed = is_needed(pass, train, id, &branch);
    if pass.refinery.spec.delete_merged_branches && branch != pass.target && !is_needed {
        let update = RefUpdate { name: branch.full(), expected: Some(commit), new: None };
        if !delete(pass, train, remote, id, update).await? {
            return Ok(());
        }
    }
    if let Some(e) = train.entry(id) {
        e.durable.record.cleaned = true;
        e.durable.record.saved = saved;
    }
    save(pass, train, id).await
}

/// Whether another open request needs the branch: one for this target, or for another one of the same
/// repository.
fn is_needed(pass: &Pass<'_>, train: &Train, id: &RequestId, branch: &BranchName) -> bool {
    let here = |(other, e): (&RequestId, &Entry)| {
        other != id && e.durable.branch == *branch && e.is_open()
    };
    let elsewhere = |r: &MergeRequest| {
        r.spec.source_branch == branch.as_str()
            && (&r.spec.rig_ref, r.spec.target_branch.as_str())
                != (&pass.refinery.spec.rig_ref, pass.target.as_str())
            && RequestRecord::of(r).end.is_none()
            && pass.ctx.is_of_repository(&r.spec.rig_ref, &pass.url)
    };
    train.entries.iter().any(here) || pass.ctx.stores.requests.find(elsewhere).is_some()
}

/// Deletes the refs with what was saved beside landed work, those that are still as they were at the
/// landing: another Polecat of the same name may use them since.
pub(super) async fn saved(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &Remote,
    id: &RequestId,
) -> Result<(), Error> {
    let Some(e) = train.entries.get(id) else { return Ok(()) };
    // One by one: a ref that has moved must not keep the others.
    for (name, commit) in e.durable.record.saved.clone() {
        let update = RefUpdate { name, expected: Some(commit), new: None };
        if !delete(pass, train, remote, id, update).await? {
            return Ok(());
        }
    }
    if let Some(e) = train.entry(id) {
        e.durable.record.saved.clear();
    }
    save(pass, train, id).await
}

/// The refs that the author's status names, with their commits. Only those of the author's own
/// folder: a status is not believed about others.
async fn saved_refs(
    pass: &Pass<'_>,
    remote: &Remote,
    e: &Entry,
) -> Result<BTreeMap<String, CommitId>, GitError> {
    let names = saved_names(pass, e);
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    match remote.ls_remote(&pass.ctx.git, &names).await {
        Err(error) if !error.class.is_transient() => {
            tracing::info!(%error, "what was saved beside landed work stays");
            Ok(BTreeMap::new())
        }
        other => other,
    }
}

fn saved_names(pass: &Pass<'_>, e: &Entry) -> Vec<String> {
    let Some(author) = &e.object().spec.polecat_ref else { return Vec::new() };
    let namespace = e.object().namespace().unwrap_or_default();
    let key = ObjectRef::<Polecat>::new(&author.name).within(&namespace);
    let polecat = pass.ctx.stores.polecats.get(&key);
    let polecat = polecat.filter(|p| p.uid().as_deref() == Some(author.uid.as_str()));
    let saved = polecat.and_then(|p| p.status.as_ref().map(|status| status.saved.clone()));
    let folder = format!("refs/gastown/wip/{namespace}/{}/", author.name);
    let mut names: Vec<String> = saved.into_iter().flatten().map(|work| work.r#ref).collect();
    names.retain(|name| name.starts_with(&folder) && !name.contains('*'));
    names.sort_unstable();
    names.dedup();
    names.truncate(MAX_SAVED);
    names
}

/// Deletes a ref that is at its expected commit, if the remote lets us. False when it does not answer:
/// then cleaning up is tried again later.
async fn delete(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &Remote,
    id: &RequestId,
    update: RefUpdate,
) -> Result<bool, Error> {
    if !pass.mirror().path().exists() {
        // A push needs a repository, even one that only deletes.
        fetch(pass, train, remote).await?;
    }
    let name = update.name.clone();
    match remote.push(&pass.ctx.git, pass.mirror().path(), &[update]).await {
        Ok(outcomes) => tracing::debug!(name, ?outcomes, "deleted a ref of landed work"),
        Err(error) if error.class.is_transient() => {
            postpone(train, id, &error);
            return Ok(false);
        }
        Err(error) => tracing::info!(name, %error, "a ref of landed work was not deleted"),
    }
    Ok(true)
}

fn postpone(train: &mut Train, id: &RequestId, error: &GitError) {
    tracing::debug!(%error, "cleaning up is tried again later");
    if let Some(e) = train.entry(id) {
        e.scratch.not_before = Some(in_seconds(RETRY_SECONDS));
    }
}
