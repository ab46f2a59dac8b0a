//! The CPU time of the agent's container.
//!
//! The container's own cgroup counts it exactly. Where that cannot be read (cgroup v1, a sandboxed
//! runtime), our own processes are added up: each one's time and that of the children that it has
//! reaped, so that no process is lost or counted twice.

use std::path::PathBuf;

use super::processes;

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
                let all = processes::all();
                let own = all.iter().filter(|p| p.pid == *root).copied();
                let below = processes::below(*root, &all).into_iter();
                let ticks = own.chain(below).map(|p| p.ticks).fold(0, u64::saturating_add);
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
        fn no_text_breaks_the_parser(text in ".{0,200}") {
            let _ = usage(&text);
        }
    }
}
