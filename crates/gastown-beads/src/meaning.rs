//! What values of a line mean, however a program spells them.

use jiff::Timestamp;
use serde_json::Value;

use crate::{issue::Status, json};

/// Which of the two versions a field or a line is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The target branch, where people work.
    Target,
    /// The write branch.
    Write,
}

/// Whether two values of a field mean the same: an absent one is like null, false and an empty
/// one.
pub(crate) fn means_the_same(key: &str, one: Option<&str>, other: Option<&str>) -> bool {
    if one == other {
        return true;
    }
    if key == "status" {
        let status = |raw: Option<&str>| match raw {
            None | Some("null") => Some(Status::Open),
            Some(raw) => json::decode::<String>(raw).ok().map(Status::from),
        };
        let (one, other) = (status(one), status(other));
        return one.is_some() && one == other;
    }
    // An absent priority is 0.
    let absent = if key == "priority" { "0" } else { "null" };
    let value = |raw: Option<&str>| json::decode::<Value>(raw.unwrap_or(absent)).ok();
    let (Some(one), Some(other)) = (value(one), value(other)) else { return false };
    (is_empty(&one) && is_empty(&other))
        || (is_exact(&one) && one == other)
        || is_same_time(key, &one, &other)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
    }
}

/// Whether a value is held as it is written: numbers with a fraction, and very large ones, are not.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_i64() || number.is_u64(),
        Value::Array(all) => all.iter().all(is_exact),
        Value::Object(all) => all.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn is_same_time(key: &str, one: &Value, other: &Value) -> bool {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    (key.ends_with("_at") || key == "defer_until")
        && time(one).is_some()
        && time(one) == time(other)
}
