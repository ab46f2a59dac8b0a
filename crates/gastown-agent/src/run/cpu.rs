//! The CPU time of the agent's container.
//!
//! The container's own cgroup counts it exactly. Where that cannot be read (cgroup v1, a sandboxed
//! runtime), our own processes are added up: each one's time and that of the children that it has
//! reaped, so that no process is lost or counted twice.

use std::collections::HashMap;
use std::path::PathBuf;

/// Processes that are added up at most.
const PROCESSES_MAX: usize = 20_000;

/// Where the CPU time is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// `cpu.stat` of our cgroup.
    Cgroup(PathBuf),
    /// The processes below this one.
    Processes(i32),
}

impl Cpu {
    /// Finds the best of the two.
    pub fn find() -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = own
            .lines()
            .find_map(|l| l.strip_prefix("0::"))
            .map(|p| PathBuf::from("/sys/fs/cgroup").join(p.trim_start_matches('/')));
        // The root of the machine's hierarchy has no type: its count is not the container's alone.
        let found = path.filter(|p| p.join("cgroup.type").exists()).map(|p| p.join("cpu.stat"));
        match found.filter(|f| std::fs::read_to_string(f).is_ok_and(|t| usage(&t).is_some())) {
            Some(file) => Self::Cgroup(file),
            // Our parent reaps the agent's orphans: all processes of the agent are below it.
            None => Self::Processes(
                rustix::process::getppid().map_or(1, rustix::process::Pid::as_raw_pid),
            ),
        }
    }

    /// CPU seconds so far; 0 when they cannot be read.
    pub fn seconds(&self) -> f64 {
        match self {
            Self::Cgroup(file) => {
                std::fs::read_to_string(file).ok().and_then(|t| usage(&t)).unwrap_or(0.0)
            }
            Self::Processes(root) => {
                let ticks = below(*root, &processes());
                ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64
            }
        }
    }
}

/// `usage_usec` of `cpu.stat`, in seconds.
fn usage(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|l| l.strip_prefix("usage_usec "))?;
    line.trim().parse::<u64>().ok().map(|n| n as f64 / 1e6)
}

/// A line of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    /// Its own time and its reaped children's, in ticks.
    ticks: u64,
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

fn processes() -> Vec<Process> {
    let Ok(folder) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = folder
        .filter_map(Result::ok)
        .filter(|e| e.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    pids.take(PROCESSES_MAX)
        .filter_map(|e| std::fs::read_to_string(e.path().join("stat")).ok())
        .filter_map(|t| process(&t))
        .collect()
}

/// The ticks of a process and of all processes below it.
fn below(root: i32, all: &[Process]) -> u64 {
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
    for p in all {
        children.entry(p.parent).or_default().push(p);
    }
    let mut sum = all.iter().find(|p| p.pid == root).map_or(0, |p| p.ticks);
    let mut left = vec![root];
    // The list was not read at one moment: a pid may have been reused. Each parent's children are
    // taken once, so that a cycle ends.
    while let Some(pid) = left.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            sum = sum.saturating_add(child.ticks);
            left.push(child.pid);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_cgroups_own_count_is_read() {
        assert_eq!(usage("usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n"), Some(2.5));
        assert_eq!(usage("nr_periods 1\n"), None);
    }

    #[test]
    fn a_process_name_with_parentheses_is_parsed() {
        let stat = "17 (a) b) S 4 17 17 0 -1 4194304 100 0 0 0 10 20 3 4 20 0 1 0 100 0 0";
        assert_eq!(process(stat), Some(Process { pid: 17, parent: 4, ticks: 37 }));
        assert_eq!(process("17 (x"), None);
    }

    #[test]
    fn processes_below_the_first_one_are_counted_and_no_others() {
        let p = |pid, parent, ticks| Process { pid, parent, ticks };
        let all =
            [p(1, 0, 1000), p(10, 1, 1), p(11, 10, 2), p(12, 11, 4), p(13, 1, 100), p(14, 10, 8)];
        assert_eq!(below(10, &all), 15);
        assert_eq!(below(99, &all), 0);
        let cycle = [p(10, 11, 1), p(11, 10, 2)];
        assert!(below(10, &cycle) >= 3, "a cycle ends");
    }

    #[test]
    fn our_own_cpu_time_is_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut n = 0u64;
        while Cpu::Processes(own).seconds() < 0.02 {
            n = n.wrapping_mul(31).wrapping_add(std::hint::black_box(1));
        }
        assert!(Cpu::find().seconds() > 0.0);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parsers(text in ".{0,200}") {
            let _ = (usage(&text), process(&text));
        }
    }
}
