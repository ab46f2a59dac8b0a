//! Conditions: made, compared and settled without a clock of their own.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The longest message that the API server takes.
const MESSAGE_MAX: usize = 32_768;

/// A condition without a transition time; [`settle`] sets that.
pub fn condition(kind: &str, status: bool, reason: &str, message: &str, generation: Option<i64>) -> Condition {
    with_status(kind, if status { "True" } else { "False" }, reason, message, generation)
}

/// As [`condition`], with status `Unknown`.
pub fn unknown(kind: &str, reason: &str, message: &str, generation: Option<i64>) -> Condition {
    with_status(kind, "Unknown", reason, message, generation)
}

fn with_status(kind: &str, status: &str, reason: &str, message: &str, generation: Option<i64>) -> Condition {
    let mut message = message.to_owned();
    if message.len() > MESSAGE_MAX {
        let end = (0..=MESSAGE_MAX).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
    }
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

/// Gives each wanted condition its transition time: the present one's while the status is the same, else `now`.
pub fn settle(present: &[Condition], wanted: Vec<Condition>, now: Timestamp) -> Vec<Condition> {
    // The API server keeps whole seconds; anything finer would differ from what is read back.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let settled = wanted.into_iter().map(|mut wanted| {
        let same = present.iter().find(|present| present.type_ == wanted.type_ && present.status == wanted.status);
        wanted.last_transition_time = same.map_or(Time(now), |same| same.last_transition_time.clone());
        wanted
    });
    settled.collect()
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition is there and `True`.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_time_moves_only_when_the_status_flips() {
        let first = Timestamp::from_second(1_000).unwrap();
        let later = Timestamp::from_second(2_000).unwrap();
        let before = settle(&[], vec![condition("Ready", false, "Waiting", "for a", Some(1))], first);
        let reworded = settle(&before, vec![condition("Ready", false, "Waiting", "for b", Some(2))], later);
        assert_eq!(reworded[0].last_transition_time.0, first);
        let flipped = settle(&reworded, vec![condition("Ready", true, "Ready", "", Some(2))], later);
        assert_eq!(flipped[0].last_transition_time.0, later);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = condition("Ready", false, "Long", &"ä".repeat(20_000), None);
        assert!(cut.message.len() <= MESSAGE_MAX && cut.message.chars().all(|c| c == 'ä'));
    }
}
