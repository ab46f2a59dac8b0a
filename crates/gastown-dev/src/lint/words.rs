//! Words that readers of Kubernetes, git and OpenTelemetry do not know, and that once stood here for
//! things which have a name in those fields. `docs/glossary.md` has the words that are used.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// A word that is refused, and what to write instead.
struct Refused {
    /// Lowercase, as parts of identifiers are compared: `told` is found in `was_told` and `WasTold`.
    words: &'static [&'static str],
    instead: &'static str,
}

const REFUSED: &[Refused] = &[
    Refused {
        words: &["tell", "tells", "told", "telling", "say", "says", "said", "saying"],
        instead: "report, notify, publish, send, event, message, or what is meant",
    },
    Refused { words: &["alarm", "alarms"], instead: "escalation" },
    Refused { words: &["trouble", "troubles", "troubled"], instead: "problem" },
    Refused { words: &["deed", "deeds"], instead: "action, edit or write" },
    Refused { words: &["desk", "desks"], instead: "store handle" },
    Refused { words: &["seat", "seats", "seated"], instead: "slot" },
    Refused { words: &["heed", "patience"], instead: "back-off, deadline or retry_after" },
    Refused { words: &["bury", "buries", "buried"], instead: "delete finished pods" },
    Refused { words: &["tame", "tamed"], instead: "gastown_types::text" },
    Refused { words: &["remark", "remarks"], instead: "bead comment" },
    Refused { words: &["noway"], instead: "ConnectError" },
    Refused { words: &["testkit"], instead: "gastown-cluster, gastown-fakes or gastown-demo" },
    Refused {
        words: &["town", "ground"],
        instead: "the cluster, the operator, fixture, toolchain",
    },
];

/// Text in which a refused word stands for something else: what Gas Town calls itself, and names that
/// objects already hold (annotations, fields, a condition's reason), which stay as they are.
const QUOTED: &[&str] = &[
    "Gas Town",
    "gas town",
    "ground floor",
    "gastown.io/alarm",
    "gastown.io/convoy-told",
    "\"Told\"",
    "`Told`",
    "rename = \"told\"",
    "\"told\":",
    "background",
    "foreground",
];

/// Endings of files that are read.
const READ: &[&str] = &["rs", "md", "proto", "toml", "yaml", "yml", "tpl", "txt", "sh", "json"];

/// Files that are not ours to word: what programs printed, and this list.
const NOT_READ: &[&str] = &["lint/words.rs", "Cargo.lock", "LICENSE", "/captured/", "toolchain/"];

/// Fails with each place where a refused word stands, of the files `listed` below `root`.
pub fn check(root: &Path, listed: &[&str]) -> Result<()> {
    let mut found = Vec::new();
    for name in listed {
        let is_read = Path::new(name)
            .extension()
            .and_then(|ending| ending.to_str())
            .is_some_and(|ending| READ.contains(&ending));
        if !is_read || NOT_READ.iter().any(|part| name.contains(part)) {
            continue;
        }
        let path = root.join(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            found.extend(
                refused(line).map(|(word, instead)| {
                    format!("{name}:{}: {word}: write {instead}", number + 1)
                }),
            );
        }
    }
    ensure!(
        found.is_empty(),
        "{} words that a stranger does not know (docs/glossary.md):\n{}",
        found.len(),
        found.join("\n")
    );
    Ok(())
}

/// The refused words of a line.
fn refused(line: &str) -> impl Iterator<Item = (String, &'static str)> {
    let mut line = line.to_owned();
    for quoted in QUOTED {
        line = line.replace(quoted, " ");
    }
    words(&line).into_iter().filter_map(|word| {
        let rule = REFUSED.iter().find(|rule| rule.words.contains(&word.as_str()))?;
        Some((word, rule.instead))
    })
}

/// The words of a line in lowercase; identifiers are cut at `_` and where an uppercase letter begins
/// a part.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in line.chars() {
        let begins = c.is_uppercase() && before.is_lowercase();
        if (!c.is_alphanumeric() || begins) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Vec<String> {
        refused(line).map(|(word, _)| word).collect()
    }

    #[test]
    fn a_refused_word_is_found_in_prose_and_in_identifiers() {
        assert_eq!(found("What is told, and Told, was_told, WasTold: untold."), ["told"; 4]);
        assert_eq!(found("let desks = StoreDesk::new();"), ["desks", "desk"]);
        assert!(found("essays, foretell, Gas Town, background").is_empty());
    }
}
