//! The sidecar's state file, `/gastown/private/state.json`: `gt init` writes it, and `gt sync`
//! keeps it over its own restarts.

use std::path::Path;

use gastown_types::CommitId;
use serde::{Deserialize, Serialize};

/// What the remote holds, as far as we know. Only our own containers can write the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The target branch's commit that the work started from.
    pub base: CommitId,
    /// The work branch's commit on the remote when the attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<CommitId>,
    /// The work branch's commit on the remote; absent when the branch is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<CommitId>,
    /// The commit of a side branch that was pushed as the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<CommitId>,
    /// A push of the work branch whose answer was not recorded: the remote holds this or
    /// [`State::work`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushing: Option<CommitId>,
    /// The commit of the snapshot's ref on the remote; before this attempt's first snapshot that of
    /// the attempt before, where one is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wip: Option<CommitId>,
    /// The snapshot's ref is on the remote.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wip_exists: bool,
    /// The last snapshot has uncommitted changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wip_dirty: bool,
    /// The fence's commit on the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<CommitId>,
    /// A commit to which the fence was moved with a push whose answer was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_fence: Option<CommitId>,
}

impl State {
    /// Reads the file.
    pub fn load(path: &Path) -> std::io::Result<Self> {
        serde_json::from_slice(&std::fs::read(path)?).map_err(std::io::Error::other)
    }

    /// Writes the file atomically.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec(self)?;
        write_atomically(path, &text)
    }
}

/// Writes a file so that a reader, or a start after a crash, sees the old or the new content, never
/// a part of it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
