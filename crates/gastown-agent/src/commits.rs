//! The commits that the operator itself makes: snapshots, and the values of the fence.

use gastown_types::CommitId;
use gix::ObjectId;

use crate::sync::failure::Failure;

/// Opens our own repository, without any configuration but its own.
pub fn open(path: &std::path::Path) -> Result<gix::Repository, Failure> {
    gix::open_opts(path, gix::open::Options::isolated()).map_err(Failure::internal)
}

/// Writes a commit of ours, made now.
pub fn write(
    repo: &gix::Repository,
    tree: ObjectId,
    parents: &[CommitId],
    message: String,
) -> Result<CommitId, Failure> {
    let id = |commit: &CommitId| ObjectId::from_hex(commit.as_str().as_bytes());
    let who = gix::actor::Signature {
        name: "Gas Town Polecat".into(),
        email: "polecat@gastown.io".into(),
        time: gix::date::Time { seconds: jiff::Timestamp::now().as_second(), offset: 0 },
    };
    let commit = gix::objs::Commit {
        tree,
        parents: parents.iter().map(id).collect::<Result<_, _>>().map_err(Failure::internal)?,
        author: who.clone(),
        committer: who,
        encoding: None,
        message: message.into(),
        extra_headers: Vec::new(),
    };
    let written = repo.write_object(&commit).map_err(Failure::internal)?;
    written.to_string().parse().map_err(Failure::internal)
}
