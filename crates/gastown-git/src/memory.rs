//! Limits of the memory of programs that read what strangers push.

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Limits the memory for data of a process that was just started, and of those that it will start.
pub(crate) fn limit(id: u32, bytes: u64) -> std::io::Result<()> {
    let Some(id) = i32::try_from(id).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    match prlimit(Some(id), Resource::Data, limit) {
        // It has ended.
        Ok(_) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a program's last words are those of one that needs more memory than it gets: of Rust, gix
/// and git.
pub fn is_exceeded(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["memory allocation", "fit in memory", "out of memory", "cannot allocate memory"]
        .iter()
        .any(|words| text.contains(words))
}
