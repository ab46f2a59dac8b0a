//! Writing a container's termination message.

use gastown_core::report::{Versioned, render};
use serde::Serialize;

use crate::paths::Paths;

/// Writes the record where the kubelet looks for it. The file is a mount: it is written in place,
/// never replaced.
pub fn write<T: Serialize + Versioned>(paths: &Paths, record: &mut T) -> std::io::Result<()> {
    std::fs::write(paths.termination_log(), render(record))
}
