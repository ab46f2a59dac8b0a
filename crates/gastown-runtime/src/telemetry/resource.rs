//! What telemetry is about: this process of this controller.

use std::collections::BTreeMap;

use gastown_trace::SEMANTIC_CONVENTIONS;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

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
    let attributes = all.into_iter().map(|(key, value)| KeyValue::new(key, value));
    Resource::builder_empty().with_schema_url(attributes, SEMANTIC_CONVENTIONS).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(resource: &Resource, key: &'static str) -> Option<String> {
        Some(resource.get(&key.into())?.to_string())
    }

    #[test]
    fn a_process_names_itself_and_variables_win() {
        let mut args = crate::testing::args();
        args.pod_name = Some("polecat-ctl-1".into());
        let mut settings = Settings::default();
        let plain = resource(&args, "polecat-ctl", "1.2.3", &settings);
        assert_eq!(value(&plain, "service.name").as_deref(), Some("polecat-ctl"));
        assert_eq!(value(&plain, "service.instance.id").as_deref(), Some("polecat-ctl-1"));
        assert_eq!(value(&plain, "k8s.pod.name").as_deref(), Some("polecat-ctl-1"));
        assert_eq!(value(&plain, "k8s.namespace.name").as_deref(), Some(args.namespace.as_str()));
        settings.service_name = Some("polecats".into());
        settings.resource = vec![
            ("service.name".into(), "other".into()),
            ("k8s.cluster.name".into(), "prod".into()),
        ];
        let set = resource(&args, "polecat-ctl", "1.2.3", &settings);
        assert_eq!(
            value(&set, "service.name").as_deref(),
            Some("polecats"),
            "its own variable wins"
        );
        assert_eq!(value(&set, "k8s.cluster.name").as_deref(), Some("prod"));
    }
}
