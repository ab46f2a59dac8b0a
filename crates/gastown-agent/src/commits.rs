//! The commits that the operator itself makes: snapshots, and the values of the fence.

use gastown_types::CommitId;
use gix::ObjectId;

use crate::sync::failure::Failure;

/// Opens our own repository, without any configuration but its own.
pub fn open(path: &std::path::Path) -> Result<gix::Repository, Failure> {
    gix::open_opts(path, gix::open::Options::isolated()).map_err(Failure::internal)
}

fn object_id(commit: &CommitId) -> Result<ObjectId, Failure> {
    ObjectId::from_hex(commit.as_str().as_bytes()).map_err(Failure::internal)
}

/// When a commit was made by its own account, in seconds since 1970.
pub fn time(repo: &gix::Repository, commit: &CommitId) -> Result<i64, Failure> {
    let commit = repo.find_commit(object_id(commit)?).map_err(Failure::internal)?;
    Ok(commit.time().map_err(Failure::internal)?.seconds)
}

/// Writes a commit of ours, made now, or at the time of its newest parent where that is later: git
/// ends a walk too early where a commit is older than its parents, and takes for new what is known.
pub fn write(
    repo: &gix::Repository,
    tree: ObjectId,
    parents: &[CommitId],
    message: String,
) -> Result<CommitId, Failure> {
    let mut seconds = jiff::Timestamp::now().as_second();
    for parent in parents {
        seconds = seconds.max(time(repo, parent)?);
    }
    write_at(repo, tree, parents, message, seconds)
}

/// Writes a commit of ours, made at this time in seconds since 1970.
pub fn write_at(
    repo: &gix::Repository,
    tree: ObjectId,
    parents: &[CommitId],
    message: String,
    seconds: i64,
) -> Result<CommitId, Failure> {
    let who = gix::actor::Signature {
        name: "Gas Town Polecat".into(),
        email: "polecat@gastown.io".into(),
        time: gix::date::Time { seconds, offset: 0 },
    };
    let commit = gix::objs::Commit {
        tree,
        parents: parents.iter().map(object_id).collect::<Result<_, _>>()?,
        author: who.clone(),
        committer: who,
        encoding: None,
        message: message.into(),
        extra_headers: Vec::new(),
    };
    let written = repo.write_object(&commit).map_err(Failure::internal)?;
    written.to_string().parse().map_err(Failure::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_never_older_than_its_parents() {
        let dir = tempfile::tempdir().unwrap();
        gix::init_bare(dir.path()).unwrap();
        let repo = open(dir.path()).unwrap();
        let tree = repo.write_object(gix::objs::Tree::empty()).unwrap().detach();
        let at = |seconds: i64| write_at(&repo, tree, &[], seconds.to_string(), seconds).unwrap();
        let future = 4_000_000_000;
        let late = write(&repo, tree, &[at(1), at(future)], "late".into()).unwrap();
        assert_eq!(time(&repo, &late).unwrap(), future);
        let now = write(&repo, tree, &[at(1)], "now".into()).unwrap();
        assert!((1_700_000_000..future).contains(&time(&repo, &now).unwrap()));
    }
}
