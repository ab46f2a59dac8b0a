//! The processes of the agent's container, and the end of those that the agent leaves behind.

use std::collections::HashMap;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, getppid, kill_process};

/// At most this many processes are read.
const PROCESSES_MAX: usize = 20_000;
/// How often processes that are left are killed, and the pause after each time.
const KILL_ATTEMPTS: u32 = 100;
const KILL_PAUSE: Duration = Duration::from_millis(20);

/// A line of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    parent: i32,
    /// Its own CPU time and its reaped children's, in ticks.
    pub(super) ticks: u64,
}

fn process(text: &str) -> Option<Process> {
    // The name may hold spaces and parentheses: the last one ends it.
    let (pid, rest) = text.split_once(' ')?;
    let (_, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let times = fields.get(11..15)?.iter().map(|f| f.parse::<u64>().unwrap_or(0));
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: times.fold(0, u64::saturating_add),
    })
}

/// All processes that can be seen.
pub(super) fn all() -> Vec<Process> {
    let Ok(folder) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = folder
        .filter_map(Result::ok)
        .filter(|e| e.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    pids.take(PROCESSES_MAX)
        .filter_map(|e| std::fs::read_to_string(e.path().join("stat")).ok())
        .filter_map(|t| process(&t))
        .collect()
}

/// The processes below one of them.
pub(super) fn below(root: i32, all: &[Process]) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
    for p in all {
        children.entry(p.parent).or_default().push(p);
    }
    let (mut found, mut left) = (Vec::new(), vec![root]);
    // The list was not read at one moment: a pid may have been reused. Each parent's children are
    // taken once, so that a cycle ends.
    while let Some(pid) = left.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(*child);
            left.push(child.pid);
        }
    }
    found
}

/// Kills what the agent left behind, and waits until it is gone: a process in a session of its own
/// outlives the agent and its group, and must not change files while they are saved. Our parent
/// reaps all orphans of the agent, so they are below it.
pub(super) async fn end_left_behind() {
    let Some(first) = getppid() else { return };
    let ours = [first.as_raw_pid(), getpid().as_raw_pid()];
    for attempt in 0..KILL_ATTEMPTS {
        let mut left = below(ours[0], &all());
        left.retain(|p| !ours.contains(&p.pid));
        if left.is_empty() {
            return;
        }
        if attempt == 0 {
            tracing::info!(processes = left.len(), "killing what the agent left behind");
        }
        for pid in left.iter().filter_map(|p| Pid::from_raw(p.pid)) {
            // It fails when the process has ended already.
            let _ = kill_process(pid, Signal::KILL);
        }
        tokio::time::sleep(KILL_PAUSE).await;
    }
    tracing::warn!("processes of the agent do not end: files may change while they are saved");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_process_name_with_parentheses_is_parsed() {
        let stat = "17 (a) b) S 4 17 17 0 -1 4194304 100 0 0 0 10 20 3 4 20 0 1 0 100 0 0";
        assert_eq!(process(stat), Some(Process { pid: 17, parent: 4, ticks: 37 }));
        assert_eq!(process("17 (x"), None);
    }

    #[test]
    fn processes_below_one_are_found_and_no_others() {
        let p = |pid, parent| Process { pid, parent, ticks: 0 };
        let all = [p(1, 0), p(10, 1), p(11, 10), p(12, 11), p(13, 1), p(14, 10)];
        let pids = |root, all: &[Process]| {
            let mut pids: Vec<i32> = below(root, all).iter().map(|p| p.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(10, &all), [11, 12, 14]);
        assert!(pids(99, &all).is_empty());
        assert!(pids(10, &[p(10, 11), p(11, 10)]).contains(&11), "a cycle ends");
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in ".{0,200}") {
            let _ = process(&text);
        }
    }
}
