//! What is remembered between init and sync, and over a restart of sync:
//! `/gastown/private/state.json`.

use std::path::Path;

use gastown_types::CommitId;
use serde::{Deserialize, Serialize};

/// The sidecar's memory. Only our own containers can write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The target branch's commit that the work started from.
    pub base: CommitId,
    /// Where the work branch stands on the remote, as far as we know; absent when it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<CommitId>,
    /// A push of the work branch whose answer was not recorded: the remote holds this or
    /// [`State::work`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushing: Option<CommitId>,
    /// Where the snapshot's ref stands on the remote, as far as we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wip: Option<CommitId>,
}

impl State {
    /// Reads it.
    pub fn load(path: &Path) -> std::io::Result<Self> {
        serde_json::from_slice(&std::fs::read(path)?).map_err(std::io::Error::other)
    }

    /// Writes it whole or not at all.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec(self)?;
        write_whole(path, &text)
    }
}

/// Writes a file so that a reader (or a crash) sees the old or the new text, never a part.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
