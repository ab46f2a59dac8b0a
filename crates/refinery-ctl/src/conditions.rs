//! A status's conditions, whole: those wanted and no others, each with the time at which it last
//! flipped.

use gastown_api::conditions::{Status, is_true, set};
use gastown_api::{Polecat, names};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Whether a Polecat says that its work has landed.
pub(crate) fn says_merged(polecat: &Polecat) -> bool {
    polecat.status.as_ref().is_some_and(|s| is_true(&s.conditions, names::condition::MERGED))
}

/// A condition without its times.
pub(crate) struct Wanted {
    kind: &'static str,
    status: Status,
    reason: String,
    message: String,
    generation: Option<i64>,
}

/// True or False.
pub(crate) fn condition(
    kind: &'static str,
    holds: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
) -> Wanted {
    Wanted {
        kind,
        status: holds.into(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        generation,
    }
}

/// Unknown.
pub(crate) fn unknown(
    kind: &'static str,
    reason: &str,
    message: &str,
    generation: Option<i64>,
) -> Wanted {
    Wanted { status: Status::Unknown, ..condition(kind, false, reason, message, generation) }
}

/// The wanted conditions; times of the present ones are kept while their status is the same.
pub(crate) fn settle(present: &[Condition], wanted: &[Wanted], now: Timestamp) -> Vec<Condition> {
    let mut list: Vec<Condition> =
        present.iter().filter(|c| wanted.iter().any(|w| w.kind == c.type_)).cloned().collect();
    for w in wanted {
        set(&mut list, w.kind, w.status, &w.reason, &w.message, w.generation, now);
    }
    list
}
