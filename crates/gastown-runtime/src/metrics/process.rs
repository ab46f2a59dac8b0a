//! What the kernel knows of this process, under the names that Prometheus's own libraries give it.

use gastown_metrics::{Definition, every};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::names::{base_name, unit};
use super::view::Shown;

/// The gauges, which [`fill`] computes.
pub(super) static GAUGES: [&Definition; 5] = [
    &every::PROCESS_RESIDENT.0,
    &every::PROCESS_VIRTUAL.0,
    &every::PROCESS_FDS.0,
    &every::PROCESS_MAX_FDS.0,
    &every::PROCESS_START.0,
];

/// Shows this process as it is now.
pub(super) fn fill(shown: &mut Shown) {
    if let Some(stat) = Stat::of_this() {
        shown.set(&every::PROCESS_RESIDENT, [], stat.resident as f64);
        shown.set(&every::PROCESS_VIRTUAL, [], stat.virtual_bytes as f64);
        if let Some(boot) = boot_time() {
            shown.set(&every::PROCESS_START, [], boot + stat.started);
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One is that of the folder.
        shown.set(&every::PROCESS_FDS, [], open.count().saturating_sub(1) as f64);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        shown.set(&every::PROCESS_MAX_FDS, [], most as f64);
    }
}

/// The CPU time, which is a counter that the kernel keeps.
#[derive(Debug)]
pub(super) struct Cpu;

impl Collector for Cpu {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(stat) = Stat::of_this() else { return Ok(()) };
        let definition = &every::PROCESS_CPU.0;
        let (unit, help) = (unit(definition.unit), format!("{}.", definition.help));
        let name = base_name(definition);
        let metric = encoder.encode_descriptor(name, &help, unit.as_ref(), MetricType::Counter)?;
        ConstCounter::new(stat.cpu).encode(metric)
    }
}

/// What `/proc/self/stat` has.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    /// Seconds.
    cpu: f64,
    /// Seconds after the start of the machine.
    started: f64,
    /// Bytes.
    virtual_bytes: u64,
    /// Bytes.
    resident: u64,
}

impl Stat {
    fn of_this() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        Self::parse(&text, clock_ticks_per_second() as f64, page_size() as u64)
    }

    /// The program's name, which may have any character, is in parentheses; what follows is numbers.
    fn parse(text: &str, ticks: f64, page: u64) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        // The first one is the third field of proc(5).
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu: (number(14)? + number(15)?) as f64 / ticks,
            started: number(22)? as f64 / ticks,
            virtual_bytes: number(23)?,
            resident: number(24)?.checked_mul(page)?,
        })
    }
}

/// When the machine started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_strange_name_is_read() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194304 300 0 1 0 250 50 0 0 20 0 4 0 1000 8192000 12 18446744073709551615 1";
        let stat = Stat { cpu: 3.0, started: 10.0, virtual_bytes: 8_192_000, resident: 49_152 };
        assert_eq!(Stat::parse(text, 100.0, 4096), Some(stat));
        assert_eq!(Stat::parse("7 (a) S 1", 100.0, 4096), None);
    }
}
