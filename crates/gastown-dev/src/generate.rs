//! `cargo xtask gen`: files generated from code: the CRDs, the API reference, the page of reasons,
//! the roles and the page about them; the page of metrics, dashboards, alerts and the pages about them; and
//! from the chart: the manifests for kustomize.

mod alerts;
mod dashboards;
mod documents;
mod manifests;
mod metrics;
#[cfg(test)]
mod queries;
mod reasons;
mod reference;
mod roles;
#[cfg(test)]
mod yaml_1_1;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use xtask::cli::GenArgs;

use crate::util;

/// A generated file, with its path from the workspace's root.
struct Generated {
    path: PathBuf,
    text: String,
}

/// Directories that hold generated files only: any other file in them is deleted.
const FOLDERS: &[&str] = &[
    "deploy/crds",
    "deploy/kustomize",
    "charts/gastown-operator/files/crds",
    "charts/gastown-operator/files/rbac",
    "charts/gastown-operator/files/dashboards",
    "docs/runbooks",
];

/// Writes every generated file, or with `--check` fails and names those that differ.
pub fn run(args: &GenArgs) -> Result<()> {
    let root = util::root();
    let mut files = all()?;
    let mut stale = update(&root, &files, args.check)?;
    // The chart is rendered with the files that were written just now.
    let manifests = manifests()?;
    stale.extend(update(&root, &manifests, args.check)?);
    files.extend(manifests);
    for path in left_over(&root, &files)? {
        if !args.check {
            std::fs::remove_file(root.join(&path))
                .with_context(|| format!("removing {}", path.display()))?;
        }
        stale.push(path);
    }
    let list = stale.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    match (args.check, stale.is_empty()) {
        (true, false) => bail!("out of date: {list}; run `cargo xtask gen` and commit the result"),
        (false, false) => println!("gen: wrote {list}"),
        (_, true) => println!("gen: {} files are up to date", files.len()),
    }
    if args.baseline {
        let version = std::fs::read_to_string(root.join("VERSION")).context("reading VERSION")?;
        let commit = crate::compat::commit(&root)?;
        crate::compat::freeze(&root, version.trim(), &commit)?;
    }
    Ok(())
}

/// Writes those files that differ, or with `check` none, and returns their paths.
fn update(root: &Path, files: &[Generated], check: bool) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for file in files {
        let path = root.join(&file.path);
        if std::fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            continue;
        }
        stale.push(file.path.clone());
        if !check {
            write(&path, &file.text)?;
        }
    }
    Ok(stale)
}

fn manifests() -> Result<Vec<Generated>> {
    let crds: Vec<String> = definitions()?.into_iter().map(|(name, _)| name).collect();
    let files = manifests::files(&util::root(), &crds)?.into_iter();
    Ok(files
        .map(|(name, text)| Generated { path: format!("deploy/{name}").into(), text })
        .collect())
}

fn all() -> Result<Vec<Generated>> {
    let crds = gastown_api::crds();
    let mut files = Vec::new();
    for (name, crd) in definitions()? {
        let text = yaml(&crd)?;
        // One is for kubectl and GitOps tools; Helm reads only what is in the chart.
        for folder in ["deploy/crds", "charts/gastown-operator/files/crds"] {
            let path = format!("{folder}/{name}.yaml").into();
            files.push(Generated { path, text: text.clone() });
        }
    }
    files.push(Generated { path: "docs/api-reference.md".into(), text: reference::page(&crds)? });
    files.push(Generated { path: "docs/reasons.md".into(), text: reasons::page() });
    files.push(Generated { path: "docs/rbac.md".into(), text: roles::page() });
    files.push(Generated { path: "docs/metrics.md".into(), text: metrics::page() });
    files.extend(monitoring()?);
    files.push(Generated {
        path: "charts/gastown-operator/files/admission.yaml".into(),
        text: yaml(&policies()?)?,
    });
    for (name, rules) in roles::files() {
        files.push(Generated {
            path: format!("charts/gastown-operator/files/rbac/{name}.yaml").into(),
            text: yaml(&rules)?,
        });
    }
    Ok(files)
}

/// Dashboards, rules, and the pages about alerts.
fn monitoring() -> Result<Vec<Generated>> {
    let dashboards = dashboards::files()?.into_iter().map(|(name, text)| Generated {
        path: format!("charts/gastown-operator/files/dashboards/{name}").into(),
        text,
    });
    let runbooks = alerts::runbooks().into_iter();
    let runbooks = runbooks
        .map(|(name, text)| Generated { path: format!("docs/runbooks/{name}").into(), text });
    let rules = Generated {
        path: "charts/gastown-operator/files/rules.yaml".into(),
        text: yaml_of(&alerts::rules(), "crates/gastown-dev/src/generate/alerts")?,
    };
    Ok(dashboards.chain(runbooks).chain([rules]).collect())
}

/// The admission policies and their bindings, as the chart has them.
fn policies() -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for (policy, binding) in
        gastown_api::admission::policies(gastown_api::admission::RELEASE_NAMESPACE)
    {
        objects.extend([serde_json::to_value(policy)?, serde_json::to_value(binding)?]);
    }
    Ok(objects)
}

/// The CRDs by their plural name.
pub fn definitions() -> Result<Vec<(String, Value)>> {
    let crds = gastown_api::crds().into_iter();
    crds.map(|crd| Ok((crd.spec.names.plural.clone(), whole_numbers(serde_json::to_value(crd)?))))
        .collect()
}

/// YAML for every reader. `kubectl` reads YAML 1.1, in which a plain `yes` is a boolean; the
/// serializer quotes whatever either version would read as something else than a string.
fn yaml(value: &impl Serialize) -> Result<String> {
    yaml_of(value, "crates/gastown-api")
}

/// The same of what is made from other code.
fn yaml_of(value: &impl Serialize, source: &str) -> Result<String> {
    let options = serde_saphyr::ser_options! { yaml_12: false, folded_wrap_chars: 100 };
    Ok(format!(
        "# Generated by `cargo xtask gen` from {source}. Do not edit.\n{}",
        serde_saphyr::to_string_with_options(value, options)?
    ))
}

/// The schema's type stores bounds as floating-point numbers. This writes `minimum: 1`, not
/// `minimum: 1.0`.
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
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Files in [`FOLDERS`] that are not generated any more.
fn left_over(root: &Path, files: &[Generated]) -> Result<Vec<PathBuf>> {
    let generated: BTreeSet<&Path> = files.iter().map(|f| f.path.as_path()).collect();
    let mut found = Vec::new();
    for folder in FOLDERS.iter().map(Path::new) {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            let path = folder.join(entry?.file_name());
            if !generated.contains(path.as_path()) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yaml_1_1_reader_reads_what_was_written() {
        for (name, crd) in definitions().unwrap() {
            let read = yaml_1_1::read(&yaml(&crd).unwrap());
            assert_eq!(read, crd, "{name}");
        }
        for (name, rules) in roles::files() {
            let read = yaml_1_1::read(&yaml(&rules).unwrap());
            assert_eq!(read, serde_json::to_value(&rules).unwrap(), "{name}");
        }
    }

    #[test]
    fn texts_that_yaml_1_1_reads_as_something_else_are_quoted() {
        let texts = [
            "yes",
            "No",
            "ON",
            "off",
            "y",
            "N",
            "true",
            "~",
            "null",
            "",
            "0123",
            "0o17",
            "0x1f",
            "1_000",
            "1:30",
            "1.5e3",
            ".5",
            ".inf",
            ".NaN",
            "2026-01-02",
            "2026-01-02T03:04:05Z",
            "=",
            "<<",
            "- a",
            "a: b",
            "a #b",
            " a",
            "a\nb\n",
            "a\n\n - b",
        ];
        let value = serde_json::json!({ "texts": texts });
        assert_eq!(yaml_1_1::read(&yaml(&value).unwrap()), value);
    }

    #[test]
    fn the_reader_reads_plain_words_as_yaml_1_1_does() {
        let read = yaml_1_1::read("{a: yes, b: 0123, c: 1:30, d: 1_000, e: ~, f: off, g: 'no'}");
        let wanted = serde_json::json!({
            "a": true, "b": 83, "c": 90, "d": 1000, "e": null, "f": false, "g": "no",
        });
        assert_eq!(read, wanted);
    }
}
