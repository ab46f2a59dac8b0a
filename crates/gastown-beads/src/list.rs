//! Merges the lists of an issue element by element: labels, dependencies and comments.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    json,
    meaning::{Side, means_the_same},
};

/// The lists that are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An element is the same label.
    Labels,
    /// An element is the same edge: its ends and its kind.
    Dependencies,
    /// An element is the same comment: its author, text and time. Numbers of comments are not
    /// compared, since two programs give the same number to different comments.
    Comments,
}

impl Kind {
    /// The kind of list that this field holds.
    pub(crate) fn of(key: &str) -> Option<Self> {
        match key {
            "labels" => Some(Self::Labels),
            "dependencies" => Some(Self::Dependencies),
            "comments" => Some(Self::Comments),
            _ => None,
        }
    }
}

/// The versions of a list, as JSON text; absent where the line has none.
pub(crate) struct Lists<'a> {
    pub(crate) kind: Kind,
    /// The issue.
    pub(crate) id: &'a str,
    pub(crate) base: Option<&'a str>,
    pub(crate) target: Option<&'a str>,
    pub(crate) write: Option<&'a str>,
    /// The side that wins where both changed an element.
    pub(crate) later: Side,
}

/// The elements of a list in their order, and by what makes them the same.
#[derive(Default)]
struct Elements<'a> {
    order: Vec<(String, &'a str)>,
    by_key: HashMap<String, &'a str>,
}

impl Lists<'_> {
    /// The merged list as JSON text, and whether a time decided about an element; `None` where one
    /// of the lists cannot be read. The target's elements come first, in their order.
    pub(crate) fn merge(&self, fresh: &mut dyn FnMut() -> Option<u64>) -> Option<(String, bool)> {
        let base = self.elements(self.base).unwrap_or_default();
        let (target, write) = (self.elements(self.target)?, self.elements(self.write)?);
        let (mut kept, mut contested) = (Vec::new(), false);
        for (key, theirs) in &target.order {
            let before = base.by_key.get(key).copied();
            let Some(ours) = write.by_key.get(key).copied() else {
                // Removed on the write branch, unless it was added or changed here.
                let is_unchanged = before.is_some_and(|before| same(before, theirs));
                kept.extend((!is_unchanged).then_some(*theirs));
                continue;
            };
            kept.push(if same(theirs, ours) || before.is_some_and(|before| same(before, ours)) {
                *theirs
            } else if before.is_some_and(|before| same(before, theirs)) {
                ours
            } else {
                // The same comment with two numbers is no contest.
                contested |= self.kind != Kind::Comments;
                if self.later == Side::Write { ours } else { *theirs }
            });
        }
        let mut added = Vec::new();
        for (key, ours) in &write.order {
            let is_unchanged = base.by_key.get(key).is_some_and(|before| same(before, ours));
            if !target.by_key.contains_key(key) && !is_unchanged {
                added.push(*ours);
            }
        }
        let mut all: Vec<String> = kept.iter().map(|raw| (*raw).to_owned()).collect();
        // A number that both sides gave to a new comment stays the target's.
        let mut numbers: HashSet<u64> = kept.iter().filter_map(|raw| number(raw)).collect();
        for raw in added {
            let is_taken = self.kind == Kind::Comments
                && number(raw).is_some_and(|number| !numbers.insert(number));
            let number = if is_taken { fresh() } else { None };
            all.push(match number {
                Some(number) => json::set(raw, "id", &number.to_string(), &[]).ok()?,
                None => raw.to_owned(),
            });
        }
        Some((format!("[{}]", all.join(",")), contested))
    }

    /// The elements of a list, each once; an absent list has none.
    fn elements<'b>(&self, raw: Option<&'b str>) -> Option<Elements<'b>> {
        let raw = raw.filter(|raw| *raw != "null").unwrap_or("[]");
        let mut elements = Elements::default();
        for element in json::elements(raw)? {
            let key = self.key(element).unwrap_or_else(|| element.to_owned());
            if !elements.by_key.contains_key(&key) {
                elements.by_key.insert(key.clone(), element);
                elements.order.push((key, element));
            }
        }
        Some(elements)
    }

    /// What makes an element the same as another one; `None` where it has a wrong type.
    fn key(&self, raw: &str) -> Option<String> {
        let value: Value = json::decode(raw).ok()?;
        let text = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Some(""),
            Some(other) => other.as_str(),
        };
        let parts = match self.kind {
            Kind::Labels => vec![value.as_str()?.to_owned()],
            Kind::Dependencies => {
                let from = text("issue_id")?;
                let from = if from.is_empty() { self.id } else { from };
                vec![from.to_owned(), text("depends_on_id")?.to_owned(), text("type")?.to_owned()]
            }
            Kind::Comments => {
                let written = text("created_at")?;
                let at =
                    written.parse::<Timestamp>().map_or(written.to_owned(), |at| at.to_string());
                vec![text("author")?.to_owned(), text("text")?.to_owned(), at]
            }
        };
        serde_json::to_string(&parts).ok()
    }
}

fn same(one: &str, other: &str) -> bool {
    means_the_same("", Some(one), Some(other))
}

/// The number of a comment, where its id is one.
fn number(raw: &str) -> Option<u64> {
    json::decode::<Value>(raw).ok()?.get("id")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(kind: Kind, base: &str, target: &str, write: &str, later: Side) -> (String, bool) {
        let lists = Lists {
            kind,
            id: "a-1",
            base: Some(base),
            target: Some(target),
            write: Some(write),
            later,
        };
        let mut next = 10;
        let mut fresh = || {
            next += 1;
            Some(next)
        };
        lists.merge(&mut fresh).unwrap()
    }

    fn labels(base: &str, target: &str, write: &str) -> String {
        merged(Kind::Labels, base, target, write, Side::Write).0
    }

    #[test]
    fn labels_are_added_and_removed_by_both_sides() {
        assert_eq!(labels(r#"["a","b"]"#, r#"["b","c"]"#, r#"["a","b","d"]"#), r#"["b","c","d"]"#);
        assert_eq!(labels(r#"["a"]"#, "null", r#"["a","b"]"#), r#"["b"]"#);
        assert_eq!(
            labels("{}", r#"["x"]"#, r#"["y","y"]"#),
            r#"["x","y"]"#,
            "no base is an empty one"
        );
    }

    #[test]
    fn a_changed_edge_survives_its_removal_and_of_two_changes_the_later_wins() {
        let edge = |gate: &str| {
            format!(r#"{{"depends_on_id":"b-1","type":"waits-for","metadata":"{gate}"}}"#)
        };
        let list = |gate: &str| format!("[{}]", edge(gate));
        let merge = |target: &str, write: &str, later| {
            merged(Kind::Dependencies, &list("x"), target, write, later)
        };
        assert_eq!(merge(&list("y"), "[]", Side::Write), (list("y"), false));
        assert_eq!(merge("[]", &list("y"), Side::Target), (list("y"), false));
        assert_eq!(merge("[]", &list("x"), Side::Write), ("[]".to_owned(), false));
        assert_eq!(merge(&list("y"), &list("x"), Side::Write), (list("y"), false));
        assert_eq!(merge(&list("x"), &list("z"), Side::Target), (list("z"), false));
        assert_eq!(merge(&list("y"), &list("z"), Side::Target), (list("y"), true));
        assert_eq!(merge(&list("y"), &list("z"), Side::Write), (list("z"), true));
    }

    #[test]
    fn comments_of_both_sides_are_kept_and_one_number_is_not_used_twice() {
        let comment = |id: &str, text: &str, at: &str| {
            format!(r#"{{"id":{id},"author":"a","text":"{text}","created_at":"{at}"}}"#)
        };
        let (z, offset) = ("2026-05-01T00:00:00Z", "2026-05-01T02:00:00+02:00");
        let one = comment("1", "one", z);
        let (theirs, ours) = (comment("2", "theirs", z), comment("2", "ours", z));
        let (line, contested) = merged(
            Kind::Comments,
            &format!("[{one}]"),
            &format!("[{},{theirs}]", comment("7", "one", offset)),
            &format!("[{one},{ours}]"),
            Side::Write,
        );
        let expected =
            format!("[{},{theirs},{}]", comment("7", "one", offset), comment("11", "ours", z));
        assert_eq!((line, contested), (expected, false));
    }

    #[test]
    fn what_is_not_a_list_is_not_merged() {
        let lists = Lists {
            kind: Kind::Labels,
            id: "a-1",
            base: None,
            target: Some("5"),
            write: Some("[]"),
            later: Side::Write,
        };
        assert_eq!(lists.merge(&mut || None), None);
    }
}
