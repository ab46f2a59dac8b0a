//! Conditions: finding one, and merging new ones so that an unchanged state stays an unchanged
//! object.
//!
//! A decision returns [`Draft`]s; whoever writes the status [`merge`]s them into the conditions
//! that the object has.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::names::reason;

/// Longest message that the schema takes.
const MAX_MESSAGE: usize = 32_768;

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// The controller cannot find out.
    Unknown,
}

impl Status {
    /// The status as it is written in an object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition as a decision wants it. Times and the observed generation come when it is merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Its type, one of [`crate::names::condition`].
    pub type_: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// Why, as one CamelCase word.
    pub reason: Cow<'static, str>,
    /// Why, as a sentence that names objects and what to do; cut to 32,768 characters.
    pub message: String,
}

impl Draft {
    /// A condition of this type. A reason without a documented meaning is shown as
    /// [`reason::documented`] has it.
    pub fn new(
        type_: &'static str,
        status: impl Into<Status>,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        let (reason, message) = reason::documented(reason, message);
        Self { type_, status: status.into(), reason, message }
    }
}

/// Merges drafts into an object's conditions: a present one of the same type is replaced in its place, another is added at the end, and types without a draft stay as they are.
/// `lastTransitionTime` moves only when the status flips, so merging what already holds changes
/// nothing. Times are whole seconds, as objects keep them.
pub fn merge(
    conditions: &mut Vec<Condition>,
    drafts: impl IntoIterator<Item = Draft>,
    generation: Option<i64>,
    now: Timestamp,
) {
    for draft in drafts {
        set(conditions, draft.type_, draft.status, &draft.reason, &draft.message, generation, now);
    }
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of a type is there and True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == "True")
}

/// Sets the condition of a type, with a reason that has a documented meaning. `lastTransitionTime`
/// moves only when the status flips, so setting what already holds changes nothing. Times are whole
/// seconds, as objects keep them.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: impl Into<Status>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = status.into().as_str();
    let (reason, message) = reason::documented(reason.to_owned(), message);
    let kept = find(conditions, type_)
        .filter(|c| c.status == status)
        .map(|c| c.last_transition_time.clone());
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.into_owned(),
        message: message.chars().take(MAX_MESSAGE).collect(),
        observed_generation: generation,
        last_transition_time: kept.unwrap_or_else(|| time(now)),
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(present) => *present = condition,
        None => conditions.push(condition),
    }
}

/// Takes the condition of a type away.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|c| c.type_ != type_);
}

/// The second that a time is in.
pub fn whole_seconds(t: Timestamp) -> Timestamp {
    Timestamp::from_second(t.as_second()).unwrap_or(t)
}

/// A time as objects keep it: to the second.
pub fn time(t: Timestamp) -> Time {
    Time(whole_seconds(t))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_time_moves_only_when_the_status_flips() {
        let mut all = Vec::new();
        set(&mut all, "Ready", true, "Ready", "It is up.", Some(1), at(10));
        set(&mut all, "Ready", true, "Healthy", "It is still up.", Some(2), at(20));
        let ready = find(&all, "Ready").unwrap();
        assert_eq!((ready.reason.as_str(), ready.observed_generation), ("Healthy", Some(2)));
        assert_eq!(ready.last_transition_time, Time(at(10)));
        set(&mut all, "Ready", Status::Unknown, "NodeLost", "", Some(2), at(30));
        assert_eq!(find(&all, "Ready").unwrap().last_transition_time, Time(at(30)));
        assert!(!is_true(&all, "Ready"));
    }

    #[test]
    fn a_word_of_another_program_is_in_the_message() {
        let mut all = Vec::new();
        set(&mut all, "Ready", false, "OciRuntimeError", "no such file", None, at(10));
        let shown = |all: &[Condition]| (all[0].reason.clone(), all[0].message.clone());
        let wanted = ("Other".to_owned(), "OciRuntimeError: no such file".to_owned());
        assert_eq!(shown(&all), wanted);
        let draft = Draft::new("Ready", false, "OciRuntimeError", "no such file");
        merge(&mut all, [draft], None, at(20));
        assert_eq!(shown(&all), wanted);
    }

    #[test]
    fn setting_the_same_again_changes_nothing() {
        let mut all = Vec::new();
        set(&mut all, "Ready", false, "NotReady", "Not yet.", None, at(10));
        let before = all.clone();
        set(&mut all, "Ready", false, "NotReady", "Not yet.", None, at(99));
        assert_eq!(all, before);
    }

    #[test]
    fn another_type_is_left_alone() {
        let mut all = Vec::new();
        set(&mut all, "Ready", true, "Ready", "", None, at(1));
        set(&mut all, "Merged", true, "MergeComplete", "", None, at(2));
        remove(&mut all, "Ready");
        assert!(find(&all, "Ready").is_none());
        assert!(is_true(&all, "Merged"));
    }

    #[test]
    fn times_are_whole_seconds_and_messages_bounded() {
        let mut all = Vec::new();
        set(
            &mut all,
            "Ready",
            true,
            "Ready",
            &"日".repeat(40_000),
            None,
            Timestamp::from_millisecond(1_500).unwrap(),
        );
        assert_eq!(all[0].last_transition_time, Time(at(1)));
        assert_eq!(all[0].message.chars().count(), MAX_MESSAGE);
    }
}
