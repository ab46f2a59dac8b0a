//! The conditions of a status that is ours alone.

use gastown_api::conditions::{Draft, merge};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The drafted conditions and no others; `present` gives the times of those whose status stays.
pub(super) fn only(
    present: &[Condition],
    drafts: Vec<Draft>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let is_drafted = |c: &&Condition| drafts.iter().any(|draft| draft.type_ == c.type_);
    let mut conditions: Vec<Condition> = present.iter().filter(is_drafted).cloned().collect();
    merge(&mut conditions, drafts, generation, now);
    conditions
}
