//! Tests that documents name exist: a table whose last column is "Test" or "Tried by" promises that
//! somebody tried it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Headings of columns that name tests.
const COLUMNS: [&str; 2] = ["Test", "Tried by"];

/// Fails with each test that a Markdown file among `listed` below `root` names and that does not exist,
/// and with each row that should name one and does not.
pub fn check(root: &Path, listed: &[&str]) -> Result<()> {
    let read = |name: &str| {
        let path = root.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let ending = |wanted: &'static str| {
        let has = move |name: &&&str| Path::new(name).extension().is_some_and(|e| e == wanted);
        listed.iter().filter(has)
    };
    let mut known = BTreeSet::new();
    for name in ending("rs") {
        known.extend(tests(name, &read(name)?));
    }
    let mut missing = Vec::new();
    for name in ending("md") {
        for (row, named) in rows(&read(name)?) {
            if named.is_empty() && !row.contains("the same") {
                missing.push(format!("{name}: no test is named in: {row}"));
            }
            let unknown = named.iter().filter(|test| !known.contains(*test));
            missing.extend(unknown.map(|test| format!("{name}: {test} does not exist")));
        }
    }
    ensure!(missing.is_empty(), "tests that documents promise:\n{}", missing.join("\n"));
    Ok(())
}

/// The files with the names of scenarios, which are texts.
const SCENARIOS: [&str; 2] = ["e2e/tests/e2e/main.rs", "e2e/tests/versions/main.rs"];

/// The tests of a source file: their names alone, and after the file's path.
fn tests(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if SCENARIOS.contains(&path)
            && let Some(name) = line.strip_prefix('"').and_then(|l| l.strip_suffix("\","))
        {
            found.extend([name.to_owned(), format!("{path}::{name}")]);
        }
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some((name, _)) = declared.and_then(|rest| rest.split_once('(')) {
            if is_test {
                found.push(name.to_owned());
                found.push(format!("{path}::{name}"));
            }
            is_test = false;
        }
    }
    found
}

/// The rows of tables that name tests: the row, and the names in back-ticks in its last column.
fn rows(text: &str) -> Vec<(&str, Vec<String>)> {
    let mut found = Vec::new();
    let mut is_ours = false;
    let mut in_table = false;
    for line in text.lines() {
        let Some(inner) = line.strip_prefix('|').and_then(|l| l.trim_end().strip_suffix('|'))
        else {
            in_table = false;
            continue;
        };
        let last = inner.rsplit('|').next().unwrap_or_default().trim();
        if !in_table {
            (in_table, is_ours) = (true, COLUMNS.contains(&last));
        } else if is_ours && !inner.trim_matches([':', '-', '|', ' ']).is_empty() {
            found.push((line, last.split('`').skip(1).step_by(2).map(str::to_owned).collect()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(document: &str) -> Result<()> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("d.md"), document)?;
        let source = "#[tokio::test(flavor = \"x\")]\nasync fn it_holds() {}\nfn helper() {}\n";
        std::fs::write(dir.path().join("t.rs"), source)?;
        check(dir.path(), &["d.md", "t.rs"])
    }

    #[test]
    fn a_test_that_does_not_exist_is_found() {
        let table = |test: &str| {
            format!("| Tries | Test |\n|---|---|\n| x | {test} |\n\n| Other |\n|---|\n| `z` |\n")
        };
        checked(&table("`it_holds`, `t.rs::it_holds`")).unwrap();
        for (named, wrong) in [
            ("`gone`", "gone"),
            ("`u.rs::it_holds`", "u.rs"),
            ("`helper`", "helper"),
            ("-", "no test"),
        ] {
            let error = checked(&table(named)).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
