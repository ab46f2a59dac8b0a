//! What `xtask` knows of a run when it hands over to `gastown-dev`: when it began, and how long
//! each part took so far.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The variable of the environment that carries it.
pub const VARIABLE: &str = "GASTOWN_XTASK_HANDOVER";

/// A run so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// When the command was started.
    pub started: SystemTime,
    /// The name under which its time is remembered; nothing is without a name.
    pub timing: Option<String>,
    /// What was done, in order, and how long it took. Parts may have run side by side.
    pub parts: Vec<(String, Duration)>,
}

impl Default for Handover {
    fn default() -> Self {
        Self { started: SystemTime::now(), timing: None, parts: Vec::new() }
    }
}

impl Handover {
    /// What the environment holds; a run that begins now without it.
    pub fn from_env() -> Self {
        std::env::var(VARIABLE).ok().and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// How long ago the command was started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed().unwrap_or_default()
    }

    /// Adds a part that has just ended.
    pub fn add(&mut self, name: &str, took: Duration) {
        self.parts.push((name.to_owned(), took));
    }

    /// Remembers how long the command took, for the estimate of the next run.
    pub fn record(&self) {
        if let Some(name) = &self.timing {
            gastown_toolchain::timings::record(name, self.elapsed());
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let started = UNIX_EPOCH + Duration::from_millis(value["startedMs"].as_u64()?);
        let part = |part: &Value| {
            let took = Duration::from_millis(part["ms"].as_u64()?);
            Some((part["name"].as_str()?.to_owned(), took))
        };
        let parts = value["parts"].as_array()?.iter().map(part).collect::<Option<_>>()?;
        let timing = value["timing"].as_str().map(str::to_owned);
        Some(Self { started, timing, parts })
    }
}

impl std::fmt::Display for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let part = |(name, took): &(String, Duration)| json!({"name": name, "ms": ms(*took)});
        let parts: Vec<Value> = self.parts.iter().map(part).collect();
        write!(f, "{}", json!({"startedMs": ms(started), "timing": self.timing, "parts": parts}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_is_read_back() {
        let handover = Handover {
            started: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            timing: Some("demo".to_owned()),
            parts: vec![("cargo build".to_owned(), Duration::from_millis(61_500))],
        };
        assert_eq!(Handover::parse(&handover.to_string()), Some(handover));
        assert_eq!(Handover::parse("{}"), None);
    }
}
