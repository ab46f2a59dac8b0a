use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition,
};
use kube::CustomResourceExt;
use kube::core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use schemars::generate::SchemaSettings;
use schemars::transform::{AddNullable, Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::names::{annotation, condition};
use crate::{
    BeadStore, Convoy, Escalation, GateRun, MergeRequest, Polecat, Refinery, Rig, Witness,
    schema_number,
};

/// The path of the schema in a definition.
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

/// The definitions of all kinds, as they are installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        definition::<Rig>(condition::AVAILABLE),
        definition::<Polecat>(condition::READY),
        definition::<Convoy>(condition::PROGRESSING),
        definition::<Witness>(condition::READY),
        definition::<Refinery>(condition::READY),
        definition::<BeadStore>(condition::READY),
        definition::<MergeRequest>(condition::READY),
        running(definition::<GateRun>(condition::COMPLETE)),
        definition::<Escalation>(condition::DELIVERED),
    ]
}

/// The derived definition with its schema replaced by [`schema`]. The derive drops the comments of
/// enum values, and for an optional enum the comment of the field. `waits_in` is the condition that
/// states what an object waits for.
fn definition<K: CustomResourceExt + JsonSchema>(waits_in: &str) -> CustomResourceDefinition {
    let mut crd = K::crd();
    let number = (annotation::SCHEMA.to_owned(), schema_number::SCHEMA.to_string());
    crd.metadata.annotations.get_or_insert_default().extend([number]);
    for version in &mut crd.spec.versions {
        add_columns(version.additional_printer_columns.get_or_insert_default(), waits_in);
    }
    let Ok(mut value) = serde_json::to_value(&crd) else { return crd };
    if let Some(place) = value.pointer_mut(SCHEMA) {
        *place = schema::<K>();
        tidy(place);
        if let Some(status) = place.pointer_mut("/properties/status") {
            drop_zeros(status);
        }
    }
    serde_json::from_value(value).unwrap_or(crd)
}

/// An object without a status is shown as running: a run has one write when it begins, and one when
/// it ends.
fn running(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let Ok(mut value) = serde_json::to_value(&crd) else { return crd };
    if let Some(status) =
        value.pointer_mut(SCHEMA).and_then(|s| s.pointer_mut("/properties/status"))
    {
        status["default"] = json!({ "phase": "Running" });
    }
    serde_json::from_value(value).unwrap_or(crd)
}

/// Adds what an object waits for: a condition's reason, where the kind has no such column of its own,
/// and its message for wide output.
fn add_columns(columns: &mut Vec<CustomResourceColumnDefinition>, condition: &str) {
    let column = |name: &str, field: &str, priority| CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: "string".to_owned(),
        json_path: format!(r#".status.conditions[?(@.type=="{condition}")].{field}"#),
        priority,
        ..CustomResourceColumnDefinition::default()
    };
    if columns.iter().all(|column| column.name != "Reason") {
        columns.push(column("Reason", "reason", None));
    }
    columns.push(column("Message", "message", Some(1)));
}

/// The schema of a kind as `#[derive(CustomResource)]` makes it, with [`Describe`] before its
/// transforms.
fn schema<K: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        settings.transforms.insert(0, Box::new(Describe));
    });
    settings
        .with_transform(AddNullable::default())
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString)
        .into_generator()
        .into_root_schema_for::<K>()
        .to_value()
}

/// Writes descriptions for people: the lines of a paragraph are joined, and the values of an enum
/// are listed with their comments, as Kubernetes does for its own kinds.
#[derive(Clone)]
struct Describe;

impl Transform for Describe {
    fn transform(&mut self, schema: &mut Schema) {
        keep_comment_of_field(schema);
        transform_subschemas(self, schema);
        let values = values(schema);
        let Some(text) = schema.get("description").and_then(Value::as_str) else { return };
        let text = paragraphs(text) + &values;
        schema.insert("description".to_owned(), text.into());
    }
}

/// An optional enum is `anyOf: [enum, null]`, of which the enum, and with it the enum's own
/// comment, is kept. The comment of the field takes its place.
fn keep_comment_of_field(schema: &mut Schema) {
    let Some(field) = schema.get("description").cloned() else { return };
    let Some([inner, null]) =
        schema.get_mut("anyOf").and_then(Value::as_array_mut).map(Vec::as_mut_slice)
    else {
        return;
    };
    if null.get("type") == Some(&json!("null")) && inner.get("oneOf").is_some() {
        inner["description"] = field;
        schema.remove("description");
    }
}

/// The values of an enum without fields, one per line; nothing for anything else.
fn values(schema: &Schema) -> String {
    let line = |branch: &Value| {
        let value = branch.get("const").or_else(|| branch.get("enum")?.get(0))?.as_str()?;
        let text = branch.get("description")?.as_str()?;
        Some(format!("\n - `{value}`: {text}"))
    };
    let branches = schema.get("oneOf").and_then(Value::as_array);
    let lines = branches.and_then(|all| all.iter().map(line).collect::<Option<String>>());
    lines.map(|lines| format!("\n\nPossible values:{lines}")).unwrap_or_default()
}

/// The text with each paragraph in one line.
fn paragraphs(text: &str) -> String {
    let join = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    text.split("\n\n").map(join).collect::<Vec<_>>().join("\n\n")
}

/// Adapts a derived schema to the API server: a null counts as absent (then a default applies), and
/// false, an empty list or an empty text is not written into objects that do not have it.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("nullable");
            if object.get("default").is_some_and(is_nothing) && object.contains_key("type") {
                object.remove("default");
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// A counter of a status that nobody wrote is not 0 but unknown.
fn drop_zeros(schema: &mut Value) {
    if let Value::Object(object) = schema {
        if object.get("default").and_then(Value::as_f64) == Some(0.0) {
            object.remove("default");
        }
        object.values_mut().for_each(drop_zeros);
    }
}

fn is_nothing(default: &Value) -> bool {
    match default {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema without descriptions.
    fn bare(mut schema: Value) -> Value {
        fn strip(value: &mut Value) {
            match value {
                Value::Object(object) => {
                    if object.get("description").is_some_and(Value::is_string) {
                        object.remove("description");
                    }
                    object.values_mut().for_each(strip);
                }
                Value::Array(items) => items.iter_mut().for_each(strip),
                _ => {}
            }
        }
        strip(&mut schema);
        schema
    }

    fn derived<K: CustomResourceExt>() -> Value {
        let mut value = serde_json::to_value(K::crd()).unwrap();
        let schema = value.pointer_mut(SCHEMA).unwrap();
        tidy(schema);
        drop_zeros(schema.pointer_mut("/properties/status").unwrap());
        bare(schema.take())
    }

    fn ours<K: CustomResourceExt + JsonSchema>() -> Value {
        let mut value = serde_json::to_value(definition::<K>(condition::READY)).unwrap();
        value.pointer_mut(SCHEMA).unwrap().take()
    }

    #[test]
    fn only_descriptions_differ_from_the_derived_schema() {
        macro_rules! check {
            ($($kind:ty),+) => {$(assert_eq!(bare(ours::<$kind>()), derived::<$kind>());)+};
        }
        check!(Rig, Polecat, Convoy, Witness, Refinery, BeadStore, MergeRequest, Escalation);
    }

    #[test]
    fn an_enum_lists_its_values_below_the_comment_of_the_field() {
        let schema = ours::<Convoy>();
        let text = |path: &str| schema.pointer(path).and_then(Value::as_str).unwrap().to_owned();
        let policy = text("/properties/spec/properties/failurePolicy/description");
        assert!(policy.starts_with("What a failed bead means"), "{policy}");
        assert!(policy.ends_with("\n - `Stop`: No further bead is started."), "{policy}");
        let phase = text("/properties/status/properties/phase/description");
        assert!(phase.starts_with("The convoy as a whole."), "{phase}");
        assert!(phase.contains("\n - `Complete`: All beads are done."), "{phase}");
    }

    #[test]
    fn every_field_has_a_description_of_more_than_three_words() {
        fn short(schema: &Value, path: &str, found: &mut Vec<String>) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                // Parts of a pod and of a network policy are described by Kubernetes.
                if [
                    "conditions",
                    "egress",
                    "env",
                    "resources",
                    "tolerations",
                    "volumeMounts",
                    "metadata",
                ]
                .contains(&name.as_str())
                {
                    continue;
                }
                let at = format!("{path}.{name}");
                let words = field["description"].as_str().unwrap_or_default();
                if words.split(' ').count() <= 3 {
                    found.push(format!("{at}: {words}"));
                }
                short(if field["items"].is_object() { &field["items"] } else { field }, &at, found);
            }
        }
        let mut found = Vec::new();
        for crd in crds() {
            let value = serde_json::to_value(&crd).unwrap();
            let schema = value.pointer(SCHEMA).unwrap();
            for part in ["spec", "status"] {
                let at = format!("{}.{part}", crd.spec.names.kind);
                short(&schema["properties"][part], &at, &mut found);
            }
        }
        assert_eq!(found, Vec::<String>::new());
    }
}
