//! The API reference: every field of every kind with its type, default and rules, from the schema
//! that is served.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// `docs/api-reference.md`.
pub fn page(crds: &[CustomResourceDefinition]) -> Result<String> {
    let mut page = String::from(
        "<!-- Made by `cargo xtask gen` from crates/gastown-api; edit that. -->\n\
         # API reference\n\n\
         Group `gastown.gastown.io`, version `v1alpha1`, category `gastown` (`kubectl get gastown -A` lists everything).\n\
         A field in **bold** is required where its parent is there. Fields under `[]` are those of a list's items. Conditions, environment\n\
         variables, resources, tolerations and volume mounts are as in Kubernetes.\n",
    );
    for crd in crds {
        kind(&mut page, crd).with_context(|| format!("describing {}", crd.spec.names.kind))?;
    }
    Ok(page)
}

fn kind(page: &mut String, crd: &CustomResourceDefinition) -> Result<()> {
    let names = &crd.spec.names;
    let version = crd.spec.versions.first().context("the definition has no version")?;
    let schema = version
        .schema
        .as_ref()
        .and_then(|s| s.open_api_v3_schema.as_ref())
        .context("the version has no schema")?;
    let schema = serde_json::to_value(schema)?;
    let short =
        names.short_names.iter().flatten().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", ");
    let _ = write!(page, "\n## {}\n\n{}\n\n", names.kind, text(&schema, "description"));
    let _ = writeln!(page, "{} · `{}` · short {short}", crd.spec.scope, names.plural);
    let columns = version.additional_printer_columns.iter().flatten();
    let columns =
        columns.map(|c| format!("{} (`{}`)", c.name, c.json_path)).collect::<Vec<_>>().join(", ");
    let _ = writeln!(page, "\nColumns: {columns}");
    rules_of_object(page, &schema);
    for part in ["spec", "status"] {
        let Some(schema) = schema.pointer(&format!("/properties/{part}")) else { continue };
        let _ = write!(page, "\n### {} {part}\n\n{}\n", names.kind, text(schema, "description"));
        rules_of_object(page, schema);
        page.push_str("\n| Field | Type | Default | Meaning and rules |\n|---|---|---|---|\n");
        fields(page, schema, "");
    }
    Ok(())
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The messages of an object's own rules, as a list.
fn rules_of_object(page: &mut String, schema: &Value) {
    let messages = messages(schema);
    if !messages.is_empty() {
        page.push('\n');
        for message in messages {
            let _ = writeln!(page, "- {message}");
        }
    }
}

fn messages(schema: &Value) -> Vec<&str> {
    schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|r| text(r, "message"))
        .collect()
}

fn fields(page: &mut String, schema: &Value, path: &str) {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let at = format!("{path}{name}");
        row(page, &at, field, required.contains(&name.as_str()));
        if known(name).is_some() {
            continue;
        }
        match field.get("items") {
            Some(items) => fields(page, items, &format!("{at}[].")),
            None => fields(page, field, &format!("{at}.")),
        }
    }
}

/// Parts that are as they are everywhere in Kubernetes and are not spelled out again.
fn known(name: &str) -> Option<&'static str> {
    match name {
        "conditions" => Some("list of conditions"),
        "env" => Some("list of environment variables"),
        "resources" => Some("resource requests and limits"),
        "tolerations" => Some("list of tolerations"),
        "volumeMounts" => Some("list of volume mounts"),
        _ => None,
    }
}

fn row(page: &mut String, path: &str, field: &Value, required: bool) {
    let name = if required { format!("**`{path}`**") } else { format!("`{path}`") };
    let default = field.get("default").map(|d| format!("`{}`", scalar(d))).unwrap_or_default();
    let mut meaning: Vec<String> = Some(text(field, "description").replace('\n', " "))
        .filter(|d| !d.is_empty())
        .into_iter()
        .collect();
    meaning.extend(bounds(field));
    let rules =
        messages(field).into_iter().chain(field.get("items").into_iter().flat_map(messages));
    meaning.extend(rules.map(|message| format!("Rule: {message}.")));
    let kind =
        path.rsplit('.').next().and_then(known).map_or_else(|| type_of(field), ToOwned::to_owned);
    let _ = writeln!(
        page,
        "| {name} | {kind} | {default} | {} |",
        meaning.join(" ").replace('|', "\\|")
    );
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn type_of(field: &Value) -> String {
    if field.get("x-kubernetes-int-or-string").is_some() {
        return "quantity".into();
    }
    if let Some(values) = field.get("enum").and_then(Value::as_array) {
        return values.iter().map(scalar).collect::<Vec<_>>().join(" \\| ");
    }
    match (text(field, "type"), text(field, "format")) {
        ("array", _) => format!("list of {}", field.get("items").map(type_of).unwrap_or_default()),
        ("object", _) if field.get("additionalProperties").is_some() => {
            format!("map of {}", field.get("additionalProperties").map(type_of).unwrap_or_default())
        }
        ("object", _) if field.get("x-kubernetes-preserve-unknown-fields").is_some() => {
            "object (as in a pod)".into()
        }
        ("string", "date-time") => "time".into(),
        ("integer", format @ ("int32" | "int64")) => format.into(),
        (other, _) => other.into(),
    }
}

/// Limits of a field in one sentence each.
fn bounds(field: &Value) -> Option<String> {
    let number = |key: &str| field.get(key).and_then(Value::as_f64);
    let range = |low: &str, high: &str, what: &str| match (number(low), number(high)) {
        (Some(low), Some(high)) => Some(format!("{low} to {high}{what}.")),
        (Some(low), None) => Some(format!("At least {low}{what}.")),
        (None, Some(high)) => Some(format!("At most {high}{what}.")),
        (None, None) => None,
    };
    let found = [
        range("minimum", "maximum", ""),
        range("minLength", "maxLength", " characters"),
        range("minItems", "maxItems", " items"),
        range("minProperties", "maxProperties", " entries"),
    ];
    let found: Vec<String> = found.into_iter().flatten().collect();
    (!found.is_empty()).then(|| found.join(" "))
}
