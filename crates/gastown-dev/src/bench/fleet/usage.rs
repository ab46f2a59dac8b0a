//! CPU time of the controllers, of the control plane and of everything else on this machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::proc;
use serde::Serialize;

use super::controllers::Controllers;

/// What had been used at a moment.
pub struct Usage {
    at: Instant,
    programs: BTreeMap<&'static str, Duration>,
    machine: Machine,
}

/// What was used between two moments.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Used {
    /// How long that was, in seconds.
    pub seconds: f64,
    /// CPU seconds by program: controllers, parts of the control plane, and this bench.
    pub cpu_seconds: BTreeMap<String, f64>,
    /// CPU seconds of all other processes.
    pub others_cpu_seconds: f64,
    /// How busy this machine was in all, from 0 to 1.
    pub busy: f64,
    /// The load average of the last minute, at the end.
    pub load: f64,
}

/// CPU time of all processors together, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Machine {
    busy: f64,
    idle: f64,
}

/// The name of this program among the others.
pub const BENCH: &str = "bench";

impl Usage {
    /// What has been used so far.
    pub fn now(plane: &ControlPlane, controllers: &Controllers) -> Result<Self> {
        let mut programs = controllers.cpu()?;
        programs.extend(plane.cpu()?);
        programs.insert(BENCH, proc::cpu(std::process::id())?);
        Ok(Self { at: Instant::now(), programs, machine: Machine::now()? })
    }

    /// What was used from `before` to this; a program that was started meanwhile counts whole.
    pub fn since(&self, before: &Self) -> Used {
        let difference = |name: &str, now: Duration| {
            let then = before.programs.get(name).copied().unwrap_or_default();
            now.checked_sub(then).unwrap_or(now).as_secs_f64()
        };
        let cpu_seconds: BTreeMap<String, f64> = self
            .programs
            .iter()
            .map(|(name, now)| ((*name).to_owned(), difference(name, *now)))
            .collect();
        let busy = self.machine.busy - before.machine.busy;
        let all = busy + self.machine.idle - before.machine.idle;
        Used {
            seconds: (self.at - before.at).as_secs_f64(),
            others_cpu_seconds: (busy - cpu_seconds.values().sum::<f64>()).max(0.0),
            cpu_seconds,
            busy: if all > 0.0 { busy / all } else { 0.0 },
            load: load().unwrap_or_default(),
        }
    }
}

impl Machine {
    fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        Self::parse(&text).context("/proc/stat has no line of all processors")
    }

    /// From the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> =
            line.split_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, _steal] = ticks[..] else {
            return None;
        };
        let seconds = |ticks: u64| ticks as f64 / proc::ticks_per_second() as f64;
        Some(Self {
            busy: seconds(user + nice + system + irq + softirq),
            idle: seconds(idle + iowait),
        })
    }
}

/// The load average of the last minute.
pub fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(polecat: u64, busy: f64, idle: f64, at: Instant) -> Usage {
        let programs = [("polecat-ctl", Duration::from_secs(polecat))].into();
        Usage { at, programs, machine: Machine { busy, idle } }
    }

    #[test]
    fn what_others_used_is_what_is_left_of_the_machine() {
        let at = Instant::now();
        let before = usage(3, 10.0, 10.0, at);
        let used = usage(5, 16.0, 12.0, at + Duration::from_secs(4)).since(&before);
        assert_eq!(used.cpu_seconds["polecat-ctl"].to_string(), "2");
        assert_eq!(
            (used.others_cpu_seconds.to_string(), used.busy.to_string()),
            ("4".into(), "0.75".into())
        );
    }

    #[test]
    fn a_program_that_was_started_again_counts_whole() {
        let at = Instant::now();
        let used = usage(2, 1.0, 1.0, at).since(&usage(9, 0.0, 0.0, at));
        assert_eq!(used.cpu_seconds["polecat-ctl"].to_string(), "2");
    }

    #[test]
    fn the_processors_time_is_read_as_proc_shows_it() {
        let hz = proc::ticks_per_second();
        let stat = format!("cpu  {hz} 0 {hz} {hz} {hz} 0 0 7 0 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n");
        assert_eq!(Machine::parse(&stat), Some(Machine { busy: 2.0, idle: 2.0 }));
        assert_eq!(Machine::parse("intr 1"), None);
    }
}
