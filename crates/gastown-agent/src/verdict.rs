//! What the agent says of its own work: `gt done` leaves it in a file, `gt run` reads it.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::hostile;
use crate::paths::Paths;
use crate::state::write_whole;

/// A longer verdict is none.
const MAX: u64 = 16 << 10;

/// How the agent wants its work to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// The task is done.
    Completed,
    /// It cannot be done.
    Failed,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How it ended.
    pub exit: Exit,
    /// What a person should know.
    #[serde(default)]
    pub message: String,
}

impl Verdict {
    /// Leaves it for `gt run`.
    pub fn leave(&self, paths: &Paths) -> std::io::Result<()> {
        let message: String = self.message.chars().take(1000).collect();
        let text = serde_json::to_vec(&Self { exit: self.exit, message })?;
        write_whole(&paths.verdict(), &text)
    }

    /// What was left, if anything.
    pub fn read(paths: &Paths) -> Option<Self> {
        let dir = hostile::open_root(&paths.run_dir()).ok()?;
        let (bytes, _) = hostile::read_file(&dir, "verdict.json".as_ref(), MAX).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Takes away what an earlier attempt left.
    pub fn forget(paths: &Paths) {
        let _ = std::fs::remove_file(paths.verdict());
    }
}
