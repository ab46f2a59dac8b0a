//! The fence: a ref on the remote that each attempt moves when it begins, and with each push of the
//! work branch, in one transaction. A pod that was given up and is still running pushes with an old
//! value of it, and is refused.

use std::path::Path;

use gastown_types::CommitId;

use crate::commits;
use crate::settings::SyncSettings;
use crate::sync::failure::Failure;

/// The ref's name.
pub fn name(settings: &SyncSettings) -> String {
    format!("{}/fence", settings.wip_folder)
}

/// Writes the commit to which the fence is moved next into the repository.
pub fn next(
    repo: &Path,
    settings: &SyncSettings,
    before: Option<&CommitId>,
) -> Result<CommitId, Failure> {
    let repo = commits::open(repo)?;
    let tree = repo.write_object(gix::objs::Tree::empty()).map_err(Failure::internal)?.detach();
    // The value before makes each one unique, also within a second. It is no parent: the fence has
    // no history to keep.
    let message = format!(
        "Attempt {} of pod {} holds {}\n\nAfter: {}\n",
        settings.who.attempt,
        settings.pod_uid.as_deref().unwrap_or("-"),
        settings.work,
        before.map_or("-", CommitId::as_str),
    );
    commits::write(&repo, tree, &[], message)
}
