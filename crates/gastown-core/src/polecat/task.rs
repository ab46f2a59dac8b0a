//! The hash of what a Polecat is asked to do. Ledgers and pods hold it: a person who changes the task
//! gives a stuck Polecat a new budget of attempts, and a new version of the operator must not.

use std::sync::LazyLock;

use gastown_api::{AgentConfig, KubernetesSpec, PolecatSpec};
use gastown_types::digest;
use serde_json::Value;

/// What the hashes of this version begin with. A hash without it states nothing about this one.
const VERSION: &str = "2-";

/// How many hexadecimal digits a hash has.
const DIGITS: usize = 16;

/// Fields that only decide whether, when and how often the task runs, or who may see its pod.
const IGNORED: [&str; 9] = [
    "/desiredState",
    "/ttlSecondsAfterFinished",
    "/maxIdleSeconds",
    "/priority",
    "/maxRetries",
    "/maxAttempts",
    "/kubernetes/startTimeout",
    "/kubernetes/podAnnotations",
    "/kubernetes/podLabels",
];

/// The hash of the task: of the spec without what only decides when it runs or who sees it, and without
/// what is empty or has its default, so that a field that gets a default in a later version changes no
/// hash.
pub fn task_hash(spec: &PolecatSpec) -> String {
    let mut asked = serde_json::to_value(spec).unwrap_or_default();
    for pointer in IGNORED {
        remove(&mut asked, pointer);
    }
    without_defaults(&mut asked, &DEFAULTS);
    let mut text = String::new();
    canonical(&asked, &mut text);
    let mut digest = digest::sha256(text);
    digest.truncate(DIGITS);
    format!("{VERSION}{digest}")
}

/// Whether two hashes are known to be of different tasks. A hash of another version, or none, states
/// nothing.
pub(super) fn is_other_task(before: &str, now: &str) -> bool {
    before.starts_with(VERSION) && now.starts_with(VERSION) && before != now
}

/// A spec in which everything has its default, without what every spec has.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    let plain = PolecatSpec {
        kubernetes: Some(KubernetesSpec::of_repository("")),
        agent_config: Some(AgentConfig::default()),
        ..PolecatSpec::of_rig("")
    };
    let mut plain = serde_json::to_value(plain).unwrap_or_default();
    remove(&mut plain, "/rig");
    remove(&mut plain, "/kubernetes/gitRepository");
    plain
});

fn remove(value: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    if let Some(parent) = value.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.remove(key);
    }
}

/// Removes what equals its default, and what is empty.
fn without_defaults(value: &mut Value, defaults: &Value) {
    let Value::Object(map) = value else { return };
    let none = Value::Null;
    for (key, value) in map.iter_mut() {
        without_defaults(value, defaults.get(key).unwrap_or(&none));
    }
    map.retain(|key, value| {
        let default = defaults.get(key);
        !is_empty(value) && default != Some(&*value)
    });
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// The value as text with sorted keys, whatever order the maps of this build have.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: std::collections::BTreeMap<_, _> = map.iter().collect();
            out.push('{');
            for (key, value) in sorted {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::polecat;
    use super::*;

    fn of(change: impl FnOnce(&mut PolecatSpec)) -> String {
        let mut spec = polecat("make it so").spec;
        change(&mut spec);
        task_hash(&spec)
    }

    /// Otherwise each Polecat would get a new budget of attempts with the upgrade.
    #[test]
    fn a_task_that_an_earlier_version_hashed_can_be_compared() {
        for sample in gastown_compat::samples("asked.txt") {
            assert!(is_other_task(&sample.text, "2-fedcba9876543210"), "{}", sample.version);
            assert_eq!(sample.text.len(), of(|_| ()).len(), "{}", sample.version);
        }
    }

    #[test]
    fn a_default_that_is_written_out_is_no_other_task() {
        let plain = of(|_| ());
        assert_eq!(plain, of(|s| s.agent_config = Some(AgentConfig::default())));
        assert_eq!(plain, of(|s| (s.priority, s.max_attempts) = (Some(0), 3)));
        let started = |s: &mut PolecatSpec| {
            let kubernetes = s.kubernetes.as_mut().unwrap();
            kubernetes.pod.start_timeout = Some("1m".into());
            kubernetes.pod.pod_labels.insert("a".into(), "b".into());
        };
        assert_eq!(plain, of(started));
        assert_ne!(plain, of(|s| s.expect_changes = false));
        assert_ne!(plain, of(|s| s.kubernetes.as_mut().unwrap().pod.image = Some("i".into())));
        assert_ne!(plain, of(|s| s.kubernetes.as_mut().unwrap().active_deadline_seconds = 7200));
    }

    #[test]
    fn a_field_that_a_later_version_adds_with_a_default_changes_nothing() {
        let mut with = serde_json::json!({ "rig": "web", "new": { "on": false, "n": 3 }, "a": [] });
        let defaults = serde_json::json!({ "new": { "on": false, "n": 3 } });
        without_defaults(&mut with, &defaults);
        assert_eq!(with, serde_json::json!({ "rig": "web" }));
        let mut text = String::new();
        canonical(&serde_json::json!({ "b": [1, "x"], "a": null }), &mut text);
        assert_eq!(text, r#"{"a":null,"b":[1,"x",],}"#);
    }

    #[test]
    fn a_hash_of_another_version_states_nothing() {
        let (one, other) = (of(|_| ()), of(|s| s.task_description = Some("else".into())));
        assert!(is_other_task(&one, &other) && !is_other_task(&one, &one));
        for unknown in ["", "f6ba926073e1c13a", "3-f6ba926073e1c13a"] {
            assert!(!is_other_task(unknown, &one) && !is_other_task(&one, unknown), "{unknown}");
        }
    }
}
