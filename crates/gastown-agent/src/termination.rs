//! Writing a container's termination message.

use gastown_core::report::{Versioned, render};
use serde::Serialize;

use crate::paths::Paths;

/// Writes the report where the kubelet looks for it. The file is a mount: it is written in place,
/// never replaced.
pub fn write<T: Serialize + Versioned>(paths: &Paths, report: &mut T) -> std::io::Result<()> {
    std::fs::write(paths.termination_log(), render(report))
}

/// Adds a sentence to the message of a report.
pub fn add_to_message<T: Versioned>(report: &mut T, text: &str) {
    let message = report.message_mut();
    if !message.is_empty() {
        message.push_str("; ");
    }
    message.push_str(text);
}
