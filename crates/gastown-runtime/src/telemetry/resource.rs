//! What telemetry is about: this process of this controller.

use std::collections::BTreeMap;

use gastown_trace::SEMANTIC_CONVENTIONS;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::settings::Settings;
use crate::args::RuntimeArgs;

/// The attributes of this process: what it knows itself, and what variables state, which wins.
pub(super) fn resource(
    args: &RuntimeArgs,
    controller: &str,
    version: &str,
    settings: &Settings,
) -> Resource {
    let identity = args.identity();
    let mut all: BTreeMap<String, String> = [
        ("service.name", controller),
        ("service.namespace", "gastown"),
        ("service.version", version),
        ("service.instance.id", &identity),
        ("k8s.namespace.name", &args.namespace),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "gastown"),
        ("telemetry.sdk.version", version),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    if let Some(pod) = args.pod_name.clone().filter(|pod| !pod.is_empty()) {
        all.insert("k8s.pod.name".to_owned(), pod);
    }
    all.extend(settings.resource.iter().cloned());
    all.extend(settings.service_name.iter().map(|name| ("service.name".to_owned(), name.clone())));
    let attributes = all.into_iter().map(|(key, value)| text(key, value)).collect();
    Resource { attributes, ..Resource::default() }
}

/// The same as the SDK has it.
pub(super) fn of_sdk(resource: &Resource) -> opentelemetry_sdk::Resource {
    let pairs = resource.attributes.iter().filter_map(|pair| {
        let Some(Value::StringValue(value)) = pair.value.as_ref()?.value.as_ref() else {
            return None;
        };
        Some(opentelemetry::KeyValue::new(pair.key.clone(), value.clone()))
    });
    opentelemetry_sdk::Resource::builder_empty()
        .with_schema_url(pairs, SEMANTIC_CONVENTIONS)
        .build()
}

/// A text attribute.
pub(super) fn text(key: String, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key, value, ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(resource: &'a Resource, key: &str) -> Option<&'a str> {
        let found = resource.attributes.iter().find(|pair| pair.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    #[test]
    fn a_process_names_itself_and_variables_win() {
        let mut args = crate::testing::args();
        args.pod_name = Some("polecat-ctl-1".into());
        let mut settings = Settings::default();
        let plain = resource(&args, "polecat-ctl", "1.2.3", &settings);
        assert_eq!(value(&plain, "service.name"), Some("polecat-ctl"));
        assert_eq!(value(&plain, "service.instance.id"), Some("polecat-ctl-1"));
        assert_eq!(value(&plain, "k8s.pod.name"), Some("polecat-ctl-1"));
        assert_eq!(value(&plain, "k8s.namespace.name"), Some(args.namespace.as_str()));
        settings.service_name = Some("polecats".into());
        settings.resource = vec![
            ("service.name".into(), "other".into()),
            ("k8s.cluster.name".into(), "prod".into()),
        ];
        let set = resource(&args, "polecat-ctl", "1.2.3", &settings);
        assert_eq!(value(&set, "service.name"), Some("polecats"), "its own variable wins");
        assert_eq!(value(&set, "k8s.cluster.name"), Some("prod"));
    }
}
