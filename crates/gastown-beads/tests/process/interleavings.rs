//! A person who edits the target branch, or the write branch by hand, while we write: whatever the
//! order and whatever their clocks, no edit is lost, and nothing is closed or opened that nobody
//! meant.

use std::collections::{BTreeMap, BTreeSet};

use gastown_beads::{Joined, Options, Store, join};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::common::{at, parse};

const BEAD: &str = "a-1";
/// A line that nobody touches.
const OTHER: &str = r#"{"id":"a-2" , "title":"left alone","zz":[1.50]}"#;
/// The fields whose value is one.
const SCALARS: [&str; 6] = ["title", "status", "priority", "assignee", "notes", "zz_unknown"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Branch {
    Target,
    Write,
}

/// What somebody does to the bead.
#[derive(Clone, Debug)]
enum Act {
    Set(&'static str, Value),
    AddLabel(u8),
    RemoveLabel(u8),
    AddEdge(u8),
    RemoveEdge(u8),
    Comment,
}

#[derive(Clone, Debug)]
enum Step {
    /// A person's edit, by a clock that is so many seconds off.
    Person(Branch, Act, i64),
    /// The controller reads.
    Read,
    /// The controller reads, then writes.
    Claim,
    Release,
    Close,
    Comment,
}

fn act() -> impl Strategy<Value = Act> {
    let status = proptest::sample::select(vec!["open", "in_progress", "blocked", "closed"]);
    let name = || proptest::sample::select(vec!["", "ann", "ben"]);
    prop_oneof![
        2 => name().prop_map(|text| Act::Set("title", json!(format!("title of {text}")))),
        4 => status.prop_map(|status| Act::Set("status", json!(status))),
        1 => (0..5_u8).prop_map(|n| Act::Set("priority", json!(n))),
        1 => name().prop_map(|name| Act::Set("assignee", json!(name))),
        1 => name().prop_map(|name| Act::Set("notes", json!(name))),
        1 => (0..3_u8).prop_map(|n| Act::Set("zz_unknown", json!({"n": n}))),
        1 => (0..3_u8).prop_map(Act::AddLabel),
        1 => (0..3_u8).prop_map(Act::RemoveLabel),
        1 => (0..3_u8).prop_map(Act::AddEdge),
        1 => (0..3_u8).prop_map(Act::RemoveEdge),
        1 => Just(Act::Comment),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let branch = prop_oneof![4 => Just(Branch::Target), 1 => Just(Branch::Write)];
    let skew = prop_oneof![3 => Just(0), 1 => -40..40_i64, 1 => Just(-86_400), 1 => Just(86_400)];
    prop_oneof![
        8 => (branch, act(), skew).prop_map(|(branch, act, skew)| Step::Person(branch, act, skew)),
        3 => Just(Step::Read),
        1 => Just(Step::Claim),
        1 => Just(Step::Release),
        1 => Just(Step::Close),
        1 => Just(Step::Comment),
    ]
}

/// What the bead is, as far as anybody edits it.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    scalars: BTreeMap<&'static str, Value>,
    labels: BTreeSet<String>,
    edges: BTreeSet<String>,
    comments: BTreeSet<String>,
    closed_at: bool,
    updated_at: Option<Timestamp>,
}

impl View {
    fn of(line: &str) -> Self {
        let map: Map<String, Value> = serde_json::from_str(line).unwrap();
        let list = |key: &str, field: Option<&str>| -> BTreeSet<String> {
            let all = map.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
            let text = |each: &Value| {
                field.map_or(each, |field| &each[field]).as_str().unwrap().to_owned()
            };
            let set: BTreeSet<String> = all.iter().map(text).collect();
            assert_eq!(set.len(), all.len(), "{key} has an element twice: {line}");
            set
        };
        let plain = |key: &'static str| {
            let value = map.get(key).cloned().unwrap_or(Value::Null);
            (key, if value == json!("") { Value::Null } else { value })
        };
        Self {
            scalars: SCALARS.map(plain).into(),
            labels: list("labels", None),
            edges: list("dependencies", Some("depends_on_id")),
            comments: list("comments", Some("text")),
            closed_at: map.contains_key("closed_at") || map.contains_key("close_reason"),
            updated_at: map["updated_at"].as_str().unwrap().parse().ok(),
        }
    }

    fn status(&self) -> &str {
        self.scalars["status"].as_str().unwrap_or("open")
    }
}

/// The two branches, the file that both began with, and what the last reading showed.
struct World {
    base: Store,
    target: Store,
    write: Store,
    now: Timestamp,
    shown: View,
    comments: BTreeSet<String>,
    /// The fields that were set on each branch since the last reading.
    set: Vec<(Branch, &'static str)>,
}

impl World {
    fn new(dialect: u8) -> Self {
        let own = match dialect {
            0 => "",
            1 => r#","source_repo":".","compaction_level":0,"original_size":0"#,
            _ => r#","dependency_count":0,"comment_count":0"#,
        };
        let kind = if dialect == 2 { r#""_type":"issue","# } else { "" };
        let line = format!(
            r#"{{{kind}"id":"a-1","title":"t","status":"open","priority":2,"updated_at":"2026-05-01T00:00:00Z"{own}}}"#
        );
        let store = parse(format!("{line}\n{OTHER}\n"));
        Self {
            base: store.clone(),
            target: store.clone(),
            write: store,
            now: at("2026-06-01T00:00:00Z"),
            shown: View::of(&line),
            comments: BTreeSet::new(),
            set: Vec::new(),
        }
    }

    fn store(&mut self, branch: Branch) -> &mut Store {
        match branch {
            Branch::Target => &mut self.target,
            Branch::Write => &mut self.write,
        }
    }

    /// A person's tool writes the line anew, with its keys in another order.
    fn person(&mut self, branch: Branch, act: &Act, skew: i64) {
        let now = self.now + SignedDuration::from_secs(skew);
        let count = self.comments.len();
        let line = self.store(branch).raw(BEAD).unwrap().to_owned();
        let mut map: Map<String, Value> = serde_json::from_str(&line).unwrap();
        let list = |map: &Map<String, Value>, key: &str| {
            map.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let edge =
            |n: u8| json!({"issue_id": BEAD, "depends_on_id": format!("b-{n}"), "type": "blocks"});
        match act {
            Act::Set(field, value) => {
                map.insert((*field).to_owned(), value.clone());
                if *field == "status" && value == "closed" {
                    map.insert("closed_at".to_owned(), json!(now.to_string()));
                } else if *field == "status" {
                    map.remove("closed_at");
                    map.remove("close_reason");
                }
                self.set.push((branch, field));
            }
            Act::AddLabel(n) => {
                let mut labels = list(&map, "labels");
                labels.retain(|label| *label != format!("l{n}"));
                labels.push(json!(format!("l{n}")));
                map.insert("labels".to_owned(), labels.into());
            }
            Act::RemoveLabel(n) => {
                let mut labels = list(&map, "labels");
                labels.retain(|label| *label != format!("l{n}"));
                map.insert("labels".to_owned(), labels.into());
            }
            Act::AddEdge(n) => {
                let mut edges = list(&map, "dependencies");
                edges.retain(|each| *each != edge(*n));
                edges.push(edge(*n));
                map.insert("dependencies".to_owned(), edges.into());
            }
            Act::RemoveEdge(n) => {
                let mut edges = list(&map, "dependencies");
                edges.retain(|each| *each != edge(*n));
                map.insert("dependencies".to_owned(), edges.into());
            }
            Act::Comment => {
                let mut comments = list(&map, "comments");
                let text = format!("by hand {count}");
                comments.push(json!({"id": comments.len() + 1, "author": "ann", "text": text}));
                map.insert("comments".to_owned(), comments.into());
                self.comments.insert(text);
            }
        }
        if map.contains_key("comment_count") {
            map.insert("comment_count".to_owned(), list(&map, "comments").len().into());
            map.insert("dependency_count".to_owned(), list(&map, "dependencies").len().into());
        }
        map.insert("updated_at".to_owned(), json!(now.to_string()));
        let text = std::str::from_utf8(self.store(branch).write()).unwrap();
        let text = text.replace(&line, &Value::from(map).to_string());
        *self.store(branch) = Store::parse(text, &Options::default());
    }

    /// Reads both branches, checks what is shown, and writes a join that a time decided.
    fn read(&mut self) -> Joined {
        let joined = join(&self.base, &self.target, &self.write);
        let mut file = self.write.clone();
        file.adopt(&joined).unwrap();
        let line = file.raw(BEAD).unwrap().to_owned();
        self.check(&View::of(&line), &line);
        if !joined.contested().is_empty() {
            self.write = file;
            self.base = self.target.clone();
        }
        joined
    }

    fn check(&mut self, shown: &View, line: &str) {
        let version = |store: &Store| View::of(store.raw(BEAD).unwrap());
        let (base, target, write) =
            (version(&self.base), version(&self.target), version(&self.write));
        for field in SCALARS {
            let (b, t, w) = (&base.scalars[field], &target.scalars[field], &write.scalars[field]);
            let value = &shown.scalars[field];
            let was_set = self.set.iter().any(|(_, set)| *set == field);
            assert!(
                was_set || *value == self.shown.scalars[field],
                "{field} changed by itself: {line}"
            );
            let expected = if t == w || w == b {
                t
            } else if t == b || write.updated_at > target.updated_at {
                w
            } else {
                t
            };
            assert_eq!(value, expected, "{field} of {line}");
        }
        let merged = |b: &BTreeSet<String>, t: &BTreeSet<String>, w: &BTreeSet<String>| {
            let all: BTreeSet<String> = t.union(w).cloned().collect();
            let stays =
                |e: &String| if b.contains(e) { t.contains(e) && w.contains(e) } else { true };
            all.into_iter().filter(stays).collect::<BTreeSet<String>>()
        };
        assert_eq!(shown.labels, merged(&base.labels, &target.labels, &write.labels));
        assert_eq!(shown.edges, merged(&base.edges, &target.edges, &write.edges));
        assert_eq!(shown.comments, self.comments, "a comment is lost");
        assert_eq!(shown.closed_at, shown.status() == "closed", "{line}");
        let count = serde_json::from_str::<Value>(line).unwrap()["comment_count"].as_u64();
        assert!(count.is_none_or(|count| count == shown.comments.len() as u64), "{line}");
        self.shown = shown.clone();
        self.set.clear();
    }

    /// Reads, takes over the target's changes and makes an edit, in one commit.
    fn write(&mut self, edit: impl FnOnce(&mut Store, Timestamp)) {
        let joined = self.read();
        // A read that wrote the join has taken over everything.
        if joined.contested().is_empty() {
            self.write.adopt(&joined).unwrap();
        }
        edit(&mut self.write, self.now);
        self.base = self.target.clone();
        self.shown = View::of(self.write.raw(BEAD).unwrap());
    }

    fn step(&mut self, step: &Step) {
        self.now += SignedDuration::from_secs(7);
        let text = format!("ours {}", self.comments.len());
        match step {
            Step::Person(branch, act, skew) => self.person(*branch, act, *skew),
            Step::Read => drop(self.read()),
            Step::Claim => self.write(|store, now| {
                let _ = store.claim(BEAD, "web/polecats/nux", now);
            }),
            Step::Release => self.write(|store, now| {
                store.release(BEAD, "web/polecats/nux", now).unwrap();
            }),
            Step::Close => {
                self.write(|store, now| {
                    store.close(BEAD, "merged abc", now).unwrap();
                });
                assert_eq!(self.shown.status(), "closed");
            }
            Step::Comment => {
                self.write(|store, now| {
                    store.comment(BEAD, "gt", &text, now).unwrap();
                });
                self.comments.insert(text);
            }
        }
        assert_eq!(self.write.raw("a-2"), Some(OTHER));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn no_edit_is_lost_and_nothing_changes_by_itself(dialect in 0..3_u8, steps in proptest::collection::vec(step(), 1..24)) {
        let mut world = World::new(dialect);
        for step in &steps {
            world.step(step);
        }
        world.read();
    }
}
