//! Parts of the CRDs' schemas that types alone do not express: rules in CEL, bounds, and pod-shaped
//! pieces.
//!
//! Texts are checked by rules rather than by `pattern`, because the error of a pattern shows a
//! regular expression, and that of a rule what to write instead.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Rules for `x-kubernetes-validations`, as (expression, message).
pub fn rules(list: &[(&str, &str)]) -> Value {
    list.iter().map(|(rule, message)| json!({ "rule": rule, "message": message })).collect()
}

/// A repository's URL: `git@host:path`, `ssh://`, `https://`, `http://`, `file:///`. The same set
/// as `gastown_types::GitUrl`.
pub fn git_url() -> Value {
    let form = r"self.matches('^([A-Za-z0-9_.][A-Za-z0-9_.-]*@[A-Za-z0-9_][A-Za-z0-9_.-]*:/?|ssh://([A-Za-z0-9_.][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.-]*(:[1-9][0-9]{0,4})?/+|https?://[A-Za-z0-9_][A-Za-z0-9_.-]*(:[1-9][0-9]{0,4})?/+|file:///+)[A-Za-z0-9._~+@%][A-Za-z0-9._~+@%/-]*$')";
    let no_parent = "!self.matches('[/:][.][.](/|$)')";
    let port = "!self.matches('^[a-z]+://[^/]*:(6553[6-9]|655[4-9][0-9]|65[6-9][0-9]{2}|6[6-9][0-9]{3}|[7-9][0-9]{4})/')";
    let message = "must be a repository URL: git@host:path, ssh://[user@]host[:port]/path, https://host[:port]/path, http://host[:port]/path \
                   or file:///path, without credentials (put them into a Secret and name it in gitSecretRef)";
    rules(&[(&format!("{form} && {no_parent} && {port}"), message)])
}

/// The URL of a server over HTTP. The same set as the client accepts, except for hosts that are not
/// host names.
pub fn http_url() -> Value {
    let form = r"self.matches('^https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9a-fA-F:.]+\\])(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._~%/-]*)?$')";
    let port = "!self.matches('^https?://[^/]*:(6553[6-9]|655[4-9][0-9]|65[6-9][0-9]{2}|6[6-9][0-9]{3}|[7-9][0-9]{4})(/|$)')";
    let message = "must be a server's URL: http://host[:port] or https://host[:port], with a path where a proxy wants one, without a user, a \
                   password, a query or a fragment (the token is in the Secret of tokenSecretRef)";
    rules(&[(&format!("{form} && {port}"), message)])
}

/// A branch's short name.
pub fn branch() -> Value {
    rules(&[(
        r"self.matches('^[A-Za-z0-9_][A-Za-z0-9_./@#+=-]*$') && !self.matches('[.][.]|//|/[.]|@[{]|[.](?i:lock)(/|$)|[./]$') && self != 'HEAD' && !self.startsWith('refs/')",
        "must be a branch's short name, such as main or feature/x: letters, digits and . _ / @ # + = -, without refs/, `..`, `//` or an ending in .lock",
    )])
}

/// A name and an address in a commit. The same set as `gastown_types::Identity`, together with a
/// length of at most 256.
pub fn identity(field: &str, example: &str) -> Value {
    rules(&[(
        r"self.matches('^[^<>\\p{Cc}\\p{Z}]([^<>\\p{Cc}]*[^<>\\p{Cc}\\p{Z}])? <[^<>\\p{Cc}\\p{Z}]+>$')",
        &format!("{field} must be a name and an address, such as {example}"),
    )])
}

/// A size in bytes as Kubernetes writes it.
pub fn quantity() -> Value {
    rules(&[(
        "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        "must be a size such as 40Gi or 500M: a number and a unit, more than 0",
    )])
}

/// A bead's id. The empty text means that there is none.
pub fn bead_id() -> Value {
    rules(&[(
        r"self == '' || (self.matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*$') && !self.contains('..') && !self.endsWith('.'))",
        "must be a bead id such as gt-a1b2 or gt-a1b2.3: letters, digits, `.`, `_` and `-`, without `..` or `/`",
    )])
}

/// A list of beads, at least one.
pub fn bead_ids(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 1000,
        "items": { "type": "string", "minLength": 1, "maxLength": 255, "x-kubernetes-validations": bead_id() },
    })
}

/// A commit's full object id.
pub fn commit() -> Value {
    rules(&[(
        "self.matches('^([0-9a-f]{40}|[0-9a-f]{64})$')",
        "must be a commit's full id: 40 or 64 lowercase hexadecimal digits",
    )])
}

/// A duration in Go's form.
pub fn duration() -> Value {
    rules(&[(
        r"self.matches('^(0|([0-9]+([.][0-9]+)?(ns|us|µs|ms|s|m|h))+)$')",
        "must be a duration such as 30s, 15m or 1h30m",
    )])
}

/// A point in time.
pub fn time(_: &mut SchemaGenerator) -> Schema {
    time_schema()
}

fn time_schema() -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 64 })
}

/// Conditions, one of a type, so that several controllers own one each.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "minLength": 1, "maxLength": 316 },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1024 },
                "message": { "type": "string", "maxLength": 32768 },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                "lastTransitionTime": time_schema(),
            },
        },
    })
}

fn quantities() -> Value {
    json!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "pattern": r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
            "maxLength": 32,
        },
    })
}

/// Requests and limits of a container.
pub fn resources(_: &mut SchemaGenerator) -> Schema {
    let exceeds = |name: &str| {
        json!({
            "rule": format!(
                "!has(self.requests) || !has(self.limits) || !('{name}' in self.requests) || !('{name}' in self.limits) || \
                 quantity(string(self.requests['{name}'])).compareTo(quantity(string(self.limits['{name}']))) <= 0"
            ),
            "message": format!("{name} request exceeds limit: lower requests.{name} or raise limits.{name}"),
        })
    };
    json_schema!({
        "type": "object",
        "properties": {
            "requests": quantities(),
            "limits": quantities(),
            "claims": {
                "type": "array",
                "maxItems": 16,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": { "type": "string", "minLength": 1, "maxLength": 253 },
                        "request": { "type": "string", "maxLength": 253 },
                    },
                },
            },
        },
        "x-kubernetes-validations": [exceeds("cpu"), exceeds("memory"), exceeds("ephemeral-storage")],
    })
}

fn key_ref() -> Value {
    json!({
        "type": "object",
        "required": ["key"],
        "properties": {
            "name": { "type": "string", "maxLength": 253 },
            "key": { "type": "string", "minLength": 1, "maxLength": 253 },
            "optional": { "type": "boolean" },
        },
    })
}

/// Environment variables of a container.
pub fn env(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 100,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 256 },
                "value": { "type": "string", "maxLength": 32768 },
                "valueFrom": {
                    "type": "object",
                    "properties": {
                        "configMapKeyRef": key_ref(),
                        "secretKeyRef": key_ref(),
                        "fieldRef": {
                            "type": "object",
                            "required": ["fieldPath"],
                            "properties": {
                                "apiVersion": { "type": "string", "maxLength": 64 },
                                "fieldPath": { "type": "string", "maxLength": 512 },
                            },
                        },
                        "resourceFieldRef": {
                            "type": "object",
                            "required": ["resource"],
                            "properties": {
                                "containerName": { "type": "string", "maxLength": 63 },
                                "resource": { "type": "string", "maxLength": 253 },
                                "divisor": { "type": "string", "maxLength": 32 },
                            },
                        },
                    },
                },
            },
            "x-kubernetes-validations": rules(&[
                ("self.name.matches('^[A-Za-z_.-][A-Za-z0-9_.-]*$')", "env[].name must be a variable's name: letters, digits, `_`, `-` and `.`, not beginning with a digit"),
                ("!has(self.value) || !has(self.valueFrom)", "env[] takes value or valueFrom, not both"),
            ]),
        },
    })
}

/// Tolerations of a pod.
pub fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "properties": {
                "key": { "type": "string", "maxLength": 317 },
                "operator": { "type": "string", "enum": ["Exists", "Equal"] },
                "value": { "type": "string", "maxLength": 63 },
                "effect": { "type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"] },
                "tolerationSeconds": { "type": "integer", "format": "int64" },
            },
        },
    })
}

/// Volume mounts of a container.
pub fn volume_mounts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["mountPath"],
        "items": {
            "type": "object",
            "required": ["name", "mountPath"],
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 63 },
                "mountPath": { "type": "string", "minLength": 1, "maxLength": 1024 },
                "readOnly": { "type": "boolean" },
                "subPath": { "type": "string", "maxLength": 1024 },
            },
        },
    })
}

/// Which objects of a namespace, or which namespaces, by their labels.
fn label_selector() -> Value {
    json!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": { "type": "string", "maxLength": 63 },
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 16,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": { "type": "string", "minLength": 1, "maxLength": 317 },
                        "operator": { "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"] },
                        "values": {
                            "type": "array",
                            "maxItems": 16,
                            "items": { "type": "string", "maxLength": 63 },
                        },
                    },
                },
            },
        },
    })
}

/// A range of addresses.
fn cidr() -> Value {
    json!({
        "type": "string",
        "maxLength": 64,
        "x-kubernetes-validations":
            rules(&[("isCIDR(self)", "must be a range of addresses such as 192.0.2.0/24 or 2001:db8::/32")]),
    })
}

/// Rules of a NetworkPolicy's `egress`.
pub fn egress(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "type": "object",
            "properties": {
                "ports": {
                    "type": "array",
                    "maxItems": 16,
                    "items": {
                        "type": "object",
                        "properties": {
                            "protocol": { "type": "string", "enum": ["TCP", "UDP", "SCTP"] },
                            "port": {
                                "x-kubernetes-int-or-string": true,
                                "anyOf": [{ "type": "integer" }, { "type": "string" }],
                                "maxLength": 15,
                            },
                            "endPort": { "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535 },
                        },
                    },
                },
                "to": {
                    "type": "array",
                    "maxItems": 16,
                    "items": {
                        "type": "object",
                        "properties": {
                            "podSelector": label_selector(),
                            "namespaceSelector": label_selector(),
                            "ipBlock": {
                                "type": "object",
                                "required": ["cidr"],
                                "properties": {
                                    "cidr": cidr(),
                                    "except": { "type": "array", "maxItems": 32, "items": cidr() },
                                },
                            },
                        },
                    },
                },
            },
        },
    })
}

/// Labels that a node must have.
pub fn node_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 63 },
    })
}

/// Labels of a pod.
pub fn pod_labels(_: &mut SchemaGenerator) -> Schema {
    string_map(
        63,
        &[
            (
                "self.all(k, k.matches('^([A-Za-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$'))",
                "podLabels has a key that is not a label's name, such as app or example.com/team",
            ),
            (
                "self.all(k, self[k] == '' || self[k].matches('^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$'))",
                "podLabels has a value that is not a label's: at most 63 letters, digits, `-`, `_` and `.`",
            ),
        ],
    )
}

/// Annotations of a pod.
pub fn pod_annotations(_: &mut SchemaGenerator) -> Schema {
    string_map(
        4096,
        &[(
            "self.all(k, k.matches('^([A-Za-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$'))",
            "podAnnotations has a key that is not an annotation's name, such as example.com/inject",
        )],
    )
}

fn string_map(longest: u32, list: &[(&str, &str)]) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": longest },
        "x-kubernetes-validations": rules(list),
    })
}

/// An object that is passed on to the pod as it is written.
pub fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
