//! What `/proc` knows of a process.

use std::time::Duration;

use anyhow::{Context, Result};

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What is resident now.
    pub resident: u64,
    /// The most that ever was.
    pub peak: u64,
}

/// The CPU time that a process has used so far; not that of its children.
pub fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("{path}: the process is gone"))?;
    let ticks = parse_ticks(&text).with_context(|| format!("{path} has no CPU time"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / ticks_per_second() as f64))
}

/// How many of the clock ticks of `/proc` make a second.
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

/// The memory of a process; not that of its children.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("{path}: the process is gone"))?;
    parse_memory(&text).with_context(|| format!("{path} has no resident memory"))
}

/// `VmRSS` and `VmHWM` of `/proc/PID/status`.
pub(crate) fn parse_memory(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

/// `PPid` of `/proc/PID/status`.
pub(crate) fn parse_parent(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// `utime` and `stime` of `/proc/PID/stat` together, in clock ticks. A program's name may hold
/// spaces and parentheses, so fields are counted from the last parenthesis.
fn parse_ticks(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    // `state` is field 3 of proc(5), `utime` field 14, `stime` field 15.
    let mut fields = after.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_are_read_as_proc_shows_them() {
        assert_eq!(
            parse_memory("Name:\tx\nVmHWM:\t 300 kB\nVmRSS:\t   256 kB\nRssAnon:\t 1 kB\n"),
            Some(Memory { resident: 262_144, peak: 307_200 })
        );
        assert_eq!(parse_memory("Name:\tx\n"), None);
        assert_eq!(parse_parent("Name:\tx\nPPid:\t41\n"), Some(41));
        let stat =
            "42 (a) S (b) S 1 42 42 0 -1 4194560 5 0 0 0 700 31 9 9 20 0 1 0 987654 2650112 222";
        assert_eq!(parse_ticks(stat), Some(731));
        assert_eq!(parse_ticks("42 (x) S 1"), None);
    }
}
