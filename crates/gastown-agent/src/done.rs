//! How the agent reports the end of its work: `gt done` writes a file, `gt run` reads it.

use clap::ValueEnum;
use gastown_types::text;
use serde::{Deserialize, Serialize};

use crate::hostile;
use crate::paths::Paths;
use crate::state::write_atomically;

/// Bytes of the file; a larger one is ignored.
const FILE_MAX: u64 = 16 << 10;
/// Characters of the message.
const MESSAGE_MAX: usize = 1000;

/// How the agent wants its work to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// The task is done
    Completed,
    /// The task cannot be done
    Failed,
}

/// What `gt done` was called with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// How the work ended.
    pub exit: Exit,
    /// What a person should know.
    #[serde(default)]
    pub message: String,
}

impl Done {
    /// Writes the file for `gt run`.
    pub fn write(&self, paths: &Paths) -> std::io::Result<()> {
        let message = text::block(&self.message, MESSAGE_MAX);
        let bytes = serde_json::to_vec(&Self { exit: self.exit, message })?;
        write_atomically(&paths.done_file(), &bytes)
    }

    /// Reads the file; `None` when there is none, or it is not valid.
    pub fn read(paths: &Paths) -> Option<Self> {
        let dir = hostile::open_root(&paths.run_dir()).ok()?;
        let name = paths.done_file();
        let (bytes, _) = hostile::read_file(&dir, name.file_name()?, FILE_MAX).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Deletes the file of an earlier attempt.
    pub fn delete(paths: &Paths) {
        let _ = std::fs::remove_file(paths.done_file());
    }
}
