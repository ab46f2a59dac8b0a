//! Breaks that are meant, each with the reason why no version notices it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::found::Break;

/// The file, in the folder of baselines.
pub const FILE: &str = "allowed.yaml";

/// One allowed break.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The version of the baseline.
    baseline: String,
    /// [`Break::at`].
    at: String,
    /// [`Break::what`].
    what: String,
    /// Why this version can run beside that one all the same.
    why: String,
    #[serde(skip)]
    is_used: bool,
}

/// All allowed breaks.
#[derive(Clone, Debug, Default)]
pub struct Allowed(Vec<Entry>);

/// Reads the file; one without entries holds an empty list.
pub fn read(path: &Path) -> Result<Allowed> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("reading {}", path.display()))
}

fn parse(text: &str) -> Result<Allowed> {
    let entries: Vec<Entry> = serde_saphyr::from_str(text)?;
    for entry in &entries {
        ensure!(entry.why.trim().len() > 20, "{}: {} has no reason", entry.at, entry.what);
    }
    Ok(Allowed(entries))
}

impl Allowed {
    /// Whether a break of this baseline is allowed.
    pub fn allows(&mut self, baseline: &str, found: &Break) -> bool {
        let is_it = |entry: &&mut Entry| {
            entry.baseline == baseline && entry.at == found.at && entry.what == found.what
        };
        let entry = self.0.iter_mut().find(is_it);
        entry.map(|entry| entry.is_used = true).is_some()
    }

    /// Entries that allowed nothing: the break does not exist, or does not any more.
    pub fn unused(&self) -> Vec<String> {
        let unused = self.0.iter().filter(|entry| !entry.is_used);
        unused
            .map(|e| {
                format!("{FILE} allows what is no break of {}: {}: {}", e.baseline, e.at, e.what)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_is_allowed_for_one_baseline_with_a_reason_and_an_entry_must_be_used() {
        let entry =
            "- {baseline: 0.1.0, at: a.b, what: is gone, why: nobody ever wrote this field}";
        let mut allowed = parse(entry).unwrap();
        assert_eq!(allowed.unused().len(), 1);
        assert!(!allowed.allows("0.2.0", &Break::new("a.b", "is gone")));
        assert!(!allowed.allows("0.1.0", &Break::new("a.b", "is not required any more")));
        assert!(allowed.allows("0.1.0", &Break::new("a.b", "is gone")));
        assert_eq!(allowed.unused(), Vec::<String>::new());
        assert!(parse("[]").unwrap().unused().is_empty());
        assert!(parse("- {baseline: 0.1.0, at: a.b, what: is gone, why: ok}").is_err());
    }
}
