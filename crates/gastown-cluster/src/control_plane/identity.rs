//! Processes by pid and start time, so that a pid that was reused is never taken for ours.

use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// One process: a pid is used again, a pid with its start time is not (until the machine is booted
/// again).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks after boot.
    pub started: u64,
}

impl Identity {
    /// The process that has this pid now, unless it is dead already.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parse_stat(&stat).map(|started| Self { pid, started })
    }

    /// Whether exactly this process still runs; a zombie does not.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Sends a signal to exactly this process; `false` when it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        // The descriptor is of whatever process has the pid now; only after that its start time proves
        // which one it is.
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return false };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        self.is_alive() && pidfd_send_signal(process, signal).is_ok()
    }

    /// Sends SIGTERM, and SIGKILL after `grace`. Returns when the process has ended.
    pub async fn end(&self, grace: Duration) {
        self.signal(Signal::TERM);
        if !self.gone_within(grace).await {
            self.signal(Signal::KILL);
            self.gone_within(Duration::from_secs(30)).await;
        }
    }

    async fn gone_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while self.is_alive() {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

/// The start time of `/proc/PID/stat`; `None` for a zombie. A program's name may hold spaces and
/// parentheses, so fields are counted from the last parenthesis.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    // `state` is field 3 of proc(5), `starttime` field 22.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (a) S (b) S 1 4242 4242 0 -1 4194560 5 0 0 0 0 0 0 0 20 0 1 0 987654 2650112 222 18446744073709551615 1 1 0";

    #[test]
    fn the_start_time_is_found_after_a_name_with_parentheses() {
        assert_eq!(parse_stat(STAT), Some(987_654));
    }

    #[test]
    fn a_zombie_is_not_alive() {
        assert_eq!(parse_stat(&STAT.replace(") S 1", ") Z 1")), None);
    }

    #[test]
    fn other_text_is_not_a_process() {
        for text in ["", ")", "1 (x) S", "1 (x) S 1 2 3"] {
            assert_eq!(parse_stat(text), None, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_start_time_is_found_after_any_name(name in "\\PC{0,15}", started in 0_u64..=u64::MAX) {
            let stat = format!("1 ({name}) S 1 1 1 0 -1 4194560 5 0 0 0 0 0 0 0 20 0 1 0 {started} 2650112 222");
            proptest::prop_assert_eq!(parse_stat(&stat), Some(started));
        }

        #[test]
        fn any_text_is_accepted(text in "\\PC*") {
            parse_stat(&text);
        }
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        let other = Identity { started: me.started + 1, ..me };
        assert!(!other.is_alive());
        // Would end this test if the start time were not checked.
        assert!(!other.signal(Signal::KILL));
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "trap '' TERM; echo ready; while :; do read x; done"]);
        let mut child = command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let it = Identity::of(child.id()).unwrap();
        it.end(Duration::from_millis(50)).await;
        assert!(!it.is_alive());
        child.wait().unwrap();
    }
}
