//! Merges two versions of an issue's line, field by field, against the version that both began
//! with.
//!
//! A field that only one side changed is taken from that side. Where both changed it, the side with
//! the later `updated_at` wins, the target branch where the two are equal. A field counts as
//! changed when its meaning changed: how a program spells it does not matter. Labels, dependencies
//! and comments are merged element by element, and what belongs to a status (when, why and by whom
//! it was closed) comes from the side that the status comes from. What is taken is copied byte for
//! byte.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::{
    json::{self, Member},
    list,
    meaning::{Side, means_the_same},
};

/// The fields that describe a status; they come from the side that the status comes from.
const OF_STATUS: &[&str] = &[
    "closed_at",
    "close_reason",
    "closed_by_session",
    "deleted_at",
    "deleted_by",
    "delete_reason",
    "original_type",
];

/// A version of a line.
#[derive(Clone, Copy)]
pub(crate) struct Version<'a> {
    /// The object.
    pub(crate) text: &'a str,
    /// Its `updated_at`; one that cannot be read is older than any other.
    pub(crate) updated_at: Option<Timestamp>,
}

/// What two versions of a line are merged to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// One of the versions, unchanged.
    Of(Side),
    /// A new line with fields of both.
    Mixed(String),
}

/// A merged line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// The line.
    pub(crate) line: Line,
    /// Whether both sides changed a field to different values, so that their times decided.
    pub(crate) contested: bool,
}

/// Where the value of a field comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    /// Both versions mean the same.
    Either,
    /// One side's, or its absence there.
    Of(Side),
    /// A new value.
    New(String),
}

/// Merges two versions of the line of the issue `id` that differ. `base` is the version that both
/// began with; without one both began with an open issue that has no fields. `fresh` gives unused
/// numbers of comments.
pub(crate) fn merge(
    id: &str,
    base: Option<&str>,
    target: Version<'_>,
    write: Version<'_>,
    fresh: &mut dyn FnMut() -> Option<u64>,
) -> Merged {
    let later = if write.updated_at > target.updated_at { Side::Write } else { Side::Target };
    let whole = Merged { line: Line::Of(later), contested: true };
    let members = |text: &str| json::members(text).unwrap_or_default();
    let (of_base, of_target, of_write) =
        (base.map(members).unwrap_or_default(), members(target.text), members(write.text));
    let merge = Merge {
        id,
        base: by_key(base.unwrap_or_default(), &of_base),
        target: by_key(target.text, &of_target),
        write: by_key(write.text, &of_write),
        later,
    };
    // Of a key that occurs twice it is unknown which one counts for others.
    if merge.target.len() < of_target.len() || merge.write.len() < of_write.len() {
        return whole;
    }
    let (choices, contested) = merge.choices(&of_target, &of_write, fresh);
    let all = |side: Side| {
        choices
            .values()
            .all(|choice| matches!(choice, Choice::Either) || *choice == Choice::Of(side))
    };
    let line = if all(Side::Write) {
        Line::Of(Side::Write)
    } else if all(Side::Target) {
        Line::Of(Side::Target)
    } else {
        Line::Mixed(assemble(&merge, &choices, write.text, &of_target, &of_write))
    };
    Merged { line, contested }
}

/// The values of a line by their keys, as text.
fn by_key<'a>(text: &'a str, members: &'a [Member]) -> HashMap<&'a str, &'a str> {
    members.iter().map(|member| (member.key.as_str(), &text[member.value_span.clone()])).collect()
}

struct Merge<'a> {
    id: &'a str,
    base: HashMap<&'a str, &'a str>,
    target: HashMap<&'a str, &'a str>,
    write: HashMap<&'a str, &'a str>,
    later: Side,
}

impl<'a> Merge<'a> {
    /// The choice for each key of the two versions, and whether a time decided any of them.
    fn choices(
        &self,
        of_target: &'a [Member],
        of_write: &'a [Member],
        fresh: &mut dyn FnMut() -> Option<u64>,
    ) -> (HashMap<&'a str, Choice>, bool) {
        let (status, mut contested) = self.scalar("status");
        let of_status = self.of_status(&status);
        let mut choices = HashMap::new();
        for key in of_target.iter().chain(of_write).map(|member| member.key.as_str()) {
            if choices.contains_key(key) {
                continue;
            }
            let choice = match key {
                "status" => status.clone(),
                "updated_at" if self.same(key) => Choice::Either,
                "updated_at" => Choice::Of(self.later),
                "dependency_count" | "comment_count" => continue,
                _ if OF_STATUS.contains(&key) && self.same(key) => Choice::Either,
                _ if OF_STATUS.contains(&key) && of_status.is_some() => {
                    contested |= status == Choice::Either;
                    of_status.map_or(Choice::Either, Choice::Of)
                }
                _ => {
                    let (choice, is_contested) = self.field(key, fresh);
                    contested |= is_contested;
                    choice
                }
            };
            choices.insert(key, choice);
        }
        for (count, list) in [("dependency_count", "dependencies"), ("comment_count", "comments")] {
            if self.target.contains_key(count) || self.write.contains_key(count) {
                choices.insert(count, self.count(count, list, choices.get(list)));
            }
        }
        (choices, contested)
    }

    /// The side that describes the status: the one that it comes from, the later one where both
    /// changed it to the same; `None` where neither changed it.
    fn of_status(&self, status: &Choice) -> Option<Side> {
        let value = |values: &HashMap<&'a str, &'a str>| values.get("status").copied();
        match status {
            Choice::Of(side) => Some(*side),
            Choice::Either | Choice::New(_) => {
                let is_unchanged = means_the_same("status", value(&self.base), value(&self.target));
                (!is_unchanged).then_some(self.later)
            }
        }
    }

    fn same(&self, key: &str) -> bool {
        means_the_same(key, self.target.get(key).copied(), self.write.get(key).copied())
    }

    /// The choice for a field that is taken whole, and whether a time decided it.
    fn scalar(&self, key: &str) -> (Choice, bool) {
        let base = self.base.get(key).copied();
        if self.same(key) {
            (Choice::Either, false)
        } else if means_the_same(key, base, self.target.get(key).copied()) {
            (Choice::Of(Side::Write), false)
        } else if means_the_same(key, base, self.write.get(key).copied()) {
            (Choice::Of(Side::Target), false)
        } else {
            (Choice::Of(self.later), true)
        }
    }

    fn field(&self, key: &str, fresh: &mut dyn FnMut() -> Option<u64>) -> (Choice, bool) {
        let choice = self.scalar(key);
        let (true, Some(kind)) = (choice.1, list::Kind::of(key)) else { return choice };
        let value = |values: &HashMap<&'a str, &'a str>| values.get(key).copied();
        let lists = list::Lists {
            kind,
            id: self.id,
            base: value(&self.base),
            target: value(&self.target),
            write: value(&self.write),
            later: self.later,
        };
        match lists.merge(fresh) {
            // A list that cannot be read is a value like others.
            None => choice,
            Some((raw, contested)) => {
                let is_of = |values: &HashMap<&'a str, &'a str>| {
                    means_the_same(key, value(values), Some(raw.as_str()))
                };
                let choice = if is_of(&self.write) {
                    Choice::Of(Side::Write)
                } else if is_of(&self.target) {
                    Choice::Of(Side::Target)
                } else {
                    Choice::New(raw)
                };
                (choice, contested)
            }
        }
    }

    /// The number of elements of a list, as some dialects write it beside the list.
    fn count(&self, key: &str, list: &str, choice: Option<&Choice>) -> Choice {
        let number = |values: &HashMap<&'a str, &'a str>| {
            values.get(key).and_then(|raw| json::decode::<i64>(raw).ok())
        };
        let length = |raw: Option<&str>| raw.and_then(json::elements).map_or(0, |all| all.len());
        match choice {
            _ if self.same(key) && !matches!(choice, Some(Choice::New(_))) => Choice::Either,
            Some(Choice::New(raw)) => {
                let before = length(self.target.get(list).copied());
                let grown = i64::try_from(length(Some(raw))).unwrap_or(0)
                    - i64::try_from(before).unwrap_or(0);
                let count = number(&self.target).unwrap_or(0).saturating_add(grown);
                Choice::New(count.to_string())
            }
            Some(Choice::Of(side)) => Choice::Of(*side),
            Some(Choice::Either) | None => self.scalar(key).0,
        }
    }
}

/// The line of the chosen values: the write branch's members in their order, each followed by what
/// only the target branch has after it.
fn assemble(
    merge: &Merge<'_>,
    choices: &HashMap<&str, Choice>,
    write: &str,
    of_target: &[Member],
    of_write: &[Member],
) -> String {
    let (colon, comma) = json::separators(write, of_write);
    let chosen = |key: &str| match choices.get(key) {
        None | Some(Choice::Either) => {
            merge.write.get(key).or_else(|| merge.target.get(key)).copied()
        }
        Some(Choice::Of(Side::Write)) => merge.write.get(key).copied(),
        Some(Choice::Of(Side::Target)) => merge.target.get(key).copied(),
        Some(Choice::New(raw)) => Some(raw.as_str()),
    };
    let mut new: HashMap<Option<&str>, Vec<&str>> = HashMap::new();
    let mut before = None;
    for member in of_target {
        if merge.write.contains_key(member.key.as_str()) {
            before = Some(member.key.as_str());
        } else {
            new.entry(before).or_default().push(&member.key);
        }
    }
    let mut keys: Vec<&str> = new.remove(&None).unwrap_or_default();
    for member in of_write {
        keys.push(&member.key);
        keys.extend(new.remove(&Some(member.key.as_str())).unwrap_or_default());
    }
    let members: Vec<String> = keys
        .into_iter()
        .filter_map(|key| {
            let name = serde_json::to_string(key).ok()?;
            Some(format!("{name}{colon}{}", chosen(key)?))
        })
        .collect();
    format!("{{{}}}", members.join(comma))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(second).ok()
    }

    /// The merged line; `t` and `w` are the times of the two versions.
    fn merged(base: &str, (target, t): (&str, i64), (write, w): (&str, i64)) -> (String, bool) {
        let version = |text, second| Version { text, updated_at: at(second) };
        let base = Some(base).filter(|text| !text.is_empty());
        let mut next = 100;
        let mut fresh = || {
            next += 1;
            Some(next)
        };
        let Merged { line, contested } =
            merge("a-1", base, version(target, t), version(write, w), &mut fresh);
        let line = match line {
            Line::Of(Side::Target) => target.to_owned(),
            Line::Of(Side::Write) => write.to_owned(),
            Line::Mixed(text) => text,
        };
        (line, contested)
    }

    #[test]
    fn a_field_that_one_side_changed_is_taken_from_that_side_whatever_the_times() {
        let base = r#"{"id":"a-1","title":"t","status":"open"}"#;
        let closed = r#"{"id":"a-1","title":"t","status":"closed","closed_at":"x"}"#;
        let titled = r#"{"id":"a-1","title":"new","status":"open","zz":1.50}"#;
        for times in [(1, 9), (9, 1), (1, 1)] {
            assert_eq!(
                merged(base, (titled, times.0), (closed, times.1)),
                (
                    r#"{"id":"a-1","title":"new","status":"closed","zz":1.50,"closed_at":"x"}"#
                        .to_owned(),
                    false
                )
            );
        }
    }

    #[test]
    fn of_two_changes_the_later_wins_and_the_target_where_they_are_equal() {
        let base = r#"{"id":"a-1","title":"t"}"#;
        let (one, two) = (r#"{"id":"a-1","title":"one"}"#, r#"{"id":"a-1","title":"two"}"#);
        assert_eq!(merged(base, (one, 2), (two, 1)), (one.to_owned(), true));
        assert_eq!(merged(base, (one, 1), (two, 1)), (one.to_owned(), true));
        assert_eq!(merged(base, (one, 1), (two, 2)), (two.to_owned(), true));
    }

    #[test]
    fn what_describes_a_status_comes_with_it() {
        let base = r#"{"id":"a-1","status":"open","title":"t"}"#;
        let closed =
            r#"{"id":"a-1","status":"closed","title":"t","closed_at":"x","close_reason":"merged"}"#;
        let taken = r#"{"id":"a-1","status":"blocked","title":"new"}"#;
        assert_eq!(merged(base, (taken, 9), (closed, 1)).0, taken, "no trace of the close is left");
        assert_eq!(
            merged(base, (taken, 1), (closed, 9)).0,
            closed.replace(r#""t""#, r#""new""#),
            "and the title stays in either case"
        );
    }

    #[test]
    fn a_reopening_is_seen_although_the_target_is_as_it_was_before_the_close() {
        let closed = r#"{"id":"a-1","status":"closed","closed_at":"x","close_reason":"done"}"#;
        let open = r#"{"id":"a-1","status":"open"}"#;
        let ours = r#"{"id":"a-1","status":"closed","closed_at":"x","close_reason":"done","comments":[{"id":1,"text":"c"}]}"#;
        let (line, contested) = merged(closed, (open, 1), (ours, 9));
        assert_eq!(line, r#"{"id":"a-1","status":"open","comments":[{"id":1,"text":"c"}]}"#);
        assert!(!contested);
    }

    #[test]
    fn another_spelling_is_no_change() {
        let base =
            r#"{"id":"a-1","updated_at":"2026-05-01T00:00:00Z","labels":["x"],"assignee":""}"#;
        let spelt = r#"{"assignee":null, "labels": [ "x" ], "id":"a-1", "updated_at":"2026-05-01T02:00:00+02:00","pinned":false}"#;
        let ours = base.replace(r#""assignee":"""#, r#""assignee":"me""#);
        assert_eq!(merged(base, (spelt, 9), (&ours, 1)), (ours.clone(), false));
        let other = r#"{"id":"a-1","x":12345678901234567890123}"#;
        assert!(!means_the_same(
            "x",
            Some("12345678901234567890123"),
            Some("12345678901234567890124")
        ));
        assert!(merged(r#"{"id":"a-1"}"#, (other, 1), (base, 9)).0.contains("90123"));
    }

    #[test]
    fn without_a_base_both_began_with_an_open_issue_without_fields() {
        let closed = r#"{"id":"a-1","status":"closed","title":"t"}"#;
        let open = r#"{"id":"a-1","status":"open","title":"t","notes":"n"}"#;
        let both = r#"{"id":"a-1","status":"closed","title":"t","notes":"n"}"#;
        assert_eq!(merged("", (open, 9), (closed, 1)), (both.to_owned(), false));
    }

    #[test]
    fn a_line_in_which_a_key_occurs_twice_is_taken_whole() {
        let base = r#"{"id":"a-1","title":"t","notes":"n"}"#;
        let twice = r#"{"id":"a-1","title":"one","title":"two","notes":"n"}"#;
        let noted = r#"{"id":"a-1","title":"t","notes":"new"}"#;
        assert_eq!(merged(base, (twice, 1), (noted, 2)), (noted.to_owned(), true));
        assert_eq!(merged(base, (twice, 2), (noted, 2)), (twice.to_owned(), true));
    }

    #[test]
    fn many_keys_are_merged_in_one_pass() {
        let line = |side: &str| {
            let keys: Vec<String> = (0..50_000).map(|n| format!(r#""{side}{n}":{n}"#)).collect();
            format!(r#"{{"id":"a-1",{}}}"#, keys.join(","))
        };
        let (target, write) = (line("t"), line("w"));
        let (both, _) = merged(r#"{"id":"a-1"}"#, (&target, 1), (&write, 1));
        assert_eq!(json::members(&both).unwrap().len(), 100_001);
    }

    #[test]
    fn counts_follow_their_lists() {
        let line = |comments: &str, count: u32| {
            format!(r#"{{"id":"a-1","comments":[{comments}],"comment_count":{count}}}"#)
        };
        let (a, b, c) = (
            r#"{"id":"u1","author":"a","text":"1"}"#,
            r#"{"id":"u2","author":"b","text":"2"}"#,
            r#"{"id":"u3","author":"c","text":"3"}"#,
        );
        let (target, write) = (line(&format!("{a},{b}"), 2), line(&format!("{a},{c}"), 2));
        let (both, contested) = merged(&line(a, 1), (&target, 1), (&write, 9));
        assert_eq!((both, contested), (line(&format!("{a},{b},{c}"), 3), false));
    }
}
