//! What a long command prints while it runs: the time before each line, and at its end where the
//! time went.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gastown_toolchain::timings::shown;
use xtask::handover::Handover;

/// The time since the command was started.
#[derive(Debug)]
pub struct Clock {
    handover: Mutex<Handover>,
}

impl Clock {
    /// Goes on where `xtask` handed over.
    pub fn new(handover: Handover) -> Self {
        Self { handover: Mutex::new(handover) }
    }

    /// Prints a line after the seconds since the start.
    pub fn print(&self, line: &str) {
        println!("{:>5}s  {line}", self.with(|handover| handover.elapsed().as_secs()));
    }

    /// Does a part of the command and notes how long it took.
    pub async fn time<T>(&self, name: &str, work: impl Future<Output = T>) -> T {
        self.print(name);
        let begun = Instant::now();
        let result = work.await;
        self.with(|handover| handover.add(name, begun.elapsed()));
        result
    }

    /// How long each part took, for the terminal.
    pub fn table(&self) -> String {
        self.with(|handover| table(&handover.parts, handover.elapsed()))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Handover) -> T) -> T {
        work(&mut self.handover.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn table(parts: &[(String, Duration)], all: Duration) -> String {
    let mut text = "WHERE THE TIME WENT\n".to_owned();
    for (name, took) in parts {
        let _ = writeln!(text, "{name:<28} {:>12}", shown(*took));
    }
    let _ = write!(text, "{:<28} {:>12}", "everything", shown(all));
    if parts.iter().any(|(name, _)| name.starts_with("toolchain")) {
        text.push_str("  (the toolchain was built beside cargo)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_part() {
        let part = |name: &str, seconds| (name.to_owned(), Duration::from_secs(seconds));
        let text =
            table(&[part("toolchain etcd", 21), part("images", 75)], Duration::from_secs(90));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[2].starts_with("images") && lines[2].ends_with("1 min 15 s"), "{text}");
        assert!(lines[3].contains("1 min 30 s") && lines[3].contains("beside cargo"), "{text}");
        assert!(!table(&[part("images", 75)], Duration::ZERO).contains("beside cargo"));
    }
}
