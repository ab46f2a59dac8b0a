//! `cargo xtask gen`: the files that are made from code: CRDs, the API reference, the roles and the
//! page about them.

mod reference;
mod roles;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use xtask::cli::GenArgs;

use crate::util;

/// A file that is made, with its path from the workspace's top.
struct Made {
    path: PathBuf,
    text: String,
}

/// Folders that hold made files only: anything else in them is left over.
const FOLDERS: &[&str] = &["deploy/crds", "charts/gastown-operator/files/rbac"];

/// Writes every made file, or says which are not fresh.
pub fn run(args: &GenArgs) -> Result<()> {
    let root = util::root();
    let files = all()?;
    let mut stale = Vec::new();
    for file in &files {
        let path = root.join(&file.path);
        if std::fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            continue;
        }
        stale.push(file.path.clone());
        if !args.check {
            write(&path, &file.text)?;
        }
    }
    for path in left_over(&root, &files)? {
        if !args.check {
            std::fs::remove_file(root.join(&path))
                .with_context(|| format!("removing {}", path.display()))?;
        }
        stale.push(path);
    }
    let list = stale.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    match (args.check, stale.is_empty()) {
        (true, false) => bail!("not what the code makes: {list}; run `cargo xtask gen`"),
        (false, false) => println!("gen: wrote {list}"),
        (_, true) => println!("gen: {} files are fresh", files.len()),
    }
    Ok(())
}

fn all() -> Result<Vec<Made>> {
    let crds = gastown_api::crds();
    let mut files = Vec::new();
    for crd in &crds {
        files.push(Made {
            path: format!("deploy/crds/{}.yaml", crd.spec.names.plural).into(),
            text: yaml(&whole_numbers(serde_json::to_value(crd)?))?,
        });
    }
    files.push(Made { path: "docs/api-reference.md".into(), text: reference::page(&crds)? });
    files.push(Made { path: "docs/rbac.md".into(), text: roles::page() });
    for (name, rules) in roles::files() {
        files.push(Made {
            path: format!("charts/gastown-operator/files/rbac/{name}.yaml").into(),
            text: yaml(&rules)?,
        });
    }
    Ok(files)
}

fn yaml(value: &impl Serialize) -> Result<String> {
    Ok(format!(
        "# Made by `cargo xtask gen` from crates/gastown-api; edit that.\n{}",
        serde_norway::to_string(value)?
    ))
}

/// The schema's type keeps bounds as floating-point numbers; `minimum: 1.0` would puzzle readers.
fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().map(|(name, field)| (name, whole_numbers(field))).collect()
        }
        Value::Array(items) => items.into_iter().map(whole_numbers).collect(),
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() && f.fract() == 0.0 && f.abs() < 1e15 => Value::from(f as i64),
            _ => Value::Number(n),
        },
        other => other,
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Files of the made folders that nothing makes any more.
fn left_over(root: &Path, files: &[Made]) -> Result<Vec<PathBuf>> {
    let made: BTreeSet<&Path> = files.iter().map(|f| f.path.as_path()).collect();
    let mut found = Vec::new();
    for folder in FOLDERS.iter().map(Path::new) {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            let path = folder.join(entry?.file_name());
            if !made.contains(path.as_path()) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
