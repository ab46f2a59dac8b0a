//! Any bytes at all, and any edit of any store.

use gastown_beads::{
    Change, EditError, Metadata, Options, Status, Store, discover, is_valid_id, join, prefix_of,
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::common::{BR, HYPHENATED, changed_line, parse};

/// Valid, unusual and invalid lines.
fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let fixture = prop_oneof![Just(BR), Just(HYPHENATED)].prop_flat_map(|text| {
        let lines: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
        proptest::sample::select(lines)
    });
    let broken = (fixture.clone(), any::<proptest::sample::Index>(), any::<u8>()).prop_map(
        |(mut line, place, byte)| {
            if !line.is_empty() {
                let place = place.index(line.len());
                line[place] = byte;
            }
            line
        },
    );
    let hostile = proptest::sample::select(vec![
        r#"{"id":"../../etc/passwd"}"#,
        r#"{"id":"a","id":"b"}"#,
        r#"{"id":"a-1","comments":[{"id":18446744073709551615}]}"#,
        r#"{"id":"a-2","updated_at":"9999-12-30T22:00:00.999999999Z"}"#,
        r#"{"id":"a-3","updated_at":"-009999-01-02T01:59:59Z"}"#,
        r#"{"id":"a-4","dependencies":[[[[]]],{"depends_on_id":null}],"labels":{"a":1}}"#,
        r#"{"id":"a-5","title":"\ud800","priority":1e999}"#,
        r#"{ "id" : "a-6" , "status" : "open" }"#,
        "<<<<<<< HEAD",
        "{}",
        "null",
        "",
    ])
    .prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![4 => fixture, 2 => broken, 2 => hostile, 1 => proptest::collection::vec(any::<u8>(), 0..40)]
}

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![6 => Just("\n"), 1 => Just("\r\n"), 1 => Just("\n\n")];
    let lines = proptest::collection::vec((any_line(), end), 0..8);
    (prop_oneof![9 => Just(""), 1 => Just("\u{feff}")], lines, any::<bool>()).prop_map(
        |(mark, lines, cut)| {
            let mut bytes = mark.as_bytes().to_vec();
            for (line, end) in lines {
                bytes.extend(line);
                bytes.extend(end.as_bytes());
            }
            if cut {
                bytes.pop();
            }
            bytes
        },
    )
}

#[derive(Clone, Debug)]
enum Edit {
    Claim(String),
    Release(String),
    Close(String),
    Comment(String, String),
}

impl Edit {
    fn make(&self, store: &mut Store, id: &str, now: Timestamp) -> Result<Change, EditError> {
        match self {
            Self::Claim(assignee) => store.claim(id, assignee, now),
            Self::Release(assignee) => store.release(id, assignee, now),
            Self::Close(reason) => store.close(id, reason, now),
            Self::Comment(author, text) => store.comment(id, author, text, now),
        }
    }

    fn keys(&self) -> &[&str] {
        match self {
            Self::Claim(_) => &["status", "assignee", "updated_at", "started_at"],
            Self::Release(_) => &["status", "assignee", "updated_at"],
            Self::Close(_) => &["status", "updated_at", "closed_at", "close_reason"],
            Self::Comment(..) => &["comments", "updated_at", "comment_count"],
        }
    }
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let name = || prop_oneof![Just("me".to_owned()), Just("you".to_owned()), any::<String>()];
    let text =
        || prop_oneof![Just("a <b> & \u{2028} \"c\" \\ \n\u{0}".to_owned()), any::<String>()];
    prop_oneof![
        name().prop_map(Edit::Claim),
        name().prop_map(Edit::Release),
        text().prop_map(Edit::Close),
        (name(), text()).prop_map(|(author, text)| Edit::Comment(author, text)),
    ]
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    // 1900 to 2100, and the times of a broken clock.
    prop_oneof![
        (-2_208_988_800_i64..4_102_444_800, 0..1_000_000_000_i32).prop_map(|(second, nano)| {
            Timestamp::new(second, if second < 0 { 0 } else { nano }).unwrap()
        }),
        Just(Timestamp::MIN),
        Just(Timestamp::MAX),
    ]
}

/// A line of any of the dialects with any values, compact or spaced.
fn any_issue(number: usize) -> impl Strategy<Value = String> {
    let status = proptest::sample::select(vec![
        "open",
        "open",
        "open",
        "in_progress",
        "hooked",
        "blocked",
        "closed",
        "deferred",
        "tombstone",
        "odd",
    ]);
    let assignee = proptest::option::of(proptest::sample::select(vec!["me", "you", ""]));
    let updated = proptest::sample::select(vec![
        "2026-05-02T08:00:00Z",
        "2026-05-02T08:00:00.123456789Z",
        "2026-05-02T08:00:00.123456789+05:30",
        "2026-05-02T08:00:00-07:00",
        "1969-12-31T23:59:59.5Z",
        "2999-01-01T00:00:00.999999999Z",
    ]);
    (
        status,
        assignee,
        updated,
        any::<String>(),
        0..3_u8,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            move |(status, assignee, updated, title, dialect, comments, labels, spaced)| {
                let string = |text: &str| Value::from(text).to_string();
                let mut members: Vec<(&str, String)> = Vec::new();
                if dialect == 2 {
                    members.push(("_type", string("issue")));
                }
                members.extend([
                    ("id", string(&format!("a-{number}"))),
                    ("title", string(&title)),
                    ("status", string(status)),
                    ("priority", "0".into()),
                ]);
                members.extend(assignee.map(|name| ("assignee", string(name))));
                members.extend([
                    ("created_at", string(updated)),
                    ("updated_at", string(updated)),
                    ("unknown", r#"{"z":1.50,"a":[1e3,12345678901234567890]}"#.into()),
                ]);
                if dialect == 1 {
                    members.extend([
                        ("source_repo", string(".")),
                        ("compaction_level", "0".into()),
                        ("original_size", "0".into()),
                    ]);
                }
                if labels {
                    members.push(("labels", r#"["x",  "y"]"#.into()));
                }
                if comments {
                    members.push((
                        "comments",
                        r#"[{"id":3,"author":"me","text":"t", "more":1}]"#.into(),
                    ));
                }
                if dialect == 2 {
                    members.extend([
                        ("dependency_count", "0".into()),
                        ("comment_count", u8::from(comments).to_string()),
                    ]);
                }
                let (colon, comma) = if spaced { (": ", ", ") } else { (":", ",") };
                let members: Vec<String> = members
                    .into_iter()
                    .map(|(key, value)| format!("\"{key}\"{colon}{value}"))
                    .collect();
                format!("{{{}}}", members.join(comma))
            },
        )
}

fn any_store() -> impl Strategy<Value = String> {
    let lines = (any_issue(0), any_issue(1), any_issue(2));
    let between =
        proptest::sample::select(vec!["\n", "\n\n", "\n{\"_type\":\"memory\",\"key\":\"k\"}\n"]);
    (lines, between, any::<bool>()).prop_map(|((one, two, three), between, end)| {
        format!("{one}\n{two}{between}{three}{}", if end { "\n" } else { "" })
    })
}

fn object(line: &str) -> Map<String, Value> {
    serde_json::from_str(line).unwrap()
}

/// The members other than `keys` as text; the order of the lines shows that their order is kept.
fn others(line: &str, keys: &[&str]) -> Vec<(String, Value)> {
    let mut all: Vec<(usize, String, Value)> = object(line)
        .into_iter()
        .filter(|(key, _)| !keys.contains(&key.as_str()))
        .map(|(key, value)| (line.find(&format!("\"{key}\"")).unwrap(), key, value))
        .collect();
    all.sort_by_key(|(place, ..)| *place);
    all.into_iter().map(|(_, key, value)| (key, value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_bytes_are_written_as_they_were_read(bytes in any_file()) {
        let store = parse(bytes.clone());
        prop_assert_eq!(store.write(), bytes.as_slice());
    }

    #[test]
    fn random_bytes_are_written_as_they_were_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(parse(bytes.clone()).into_bytes(), bytes);
    }

    #[test]
    fn any_edit_of_any_file_is_made_or_refused(bytes in any_file(), edit in any_edit(), now in any_time()) {
        let mut store = parse(bytes.clone());
        let ids: Vec<String> = store.issues().iter().map(|issue| issue.id.clone()).collect();
        for id in ids.into_iter().chain(["gone-1".to_owned(), "../x".to_owned()]) {
            let before = store.write().to_vec();
            match edit.make(&mut store, &id, now) {
                Ok(Change::Made) => {
                    changed_line(&before, store.write());
                    prop_assert!(store.writable().is_ok());
                }
                Ok(Change::NotNeeded) | Err(_) => prop_assert_eq!(store.write(), before.as_slice()),
            }
        }
    }

    #[test]
    fn an_edit_changes_its_fields_on_one_line_and_nothing_else(text in any_store(), edit in any_edit(), which in 0..3_usize, now in any_time()) {
        let mut store = parse(text.clone());
        prop_assert_eq!(store.problems().total(), 0);
        let id = format!("a-{which}");
        let old = store.issues().get(&id).cloned();
        let made = edit.make(&mut store, &id, now);
        if made != Ok(Change::Made) {
            prop_assert_eq!(store.write(), text.as_bytes());
            return Ok(());
        }
        let old = old.unwrap();
        let (before, after) = changed_line(text.as_bytes(), store.write());
        prop_assert_eq!(&object(after)["id"], &Value::from(id.as_str()));
        prop_assert_eq!(others(before, edit.keys()), others(after, edit.keys()));
        prop_assert!(after.contains(r#"{"z":1.50,"a":[1e3,12345678901234567890]}"#), "what is not touched is not written anew");

        let read = parse(store.write());
        let issue = read.issues().get(&id).unwrap();
        prop_assert_eq!(Some(issue), store.issues().get(&id), "what is held is what would be read");
        prop_assert_eq!(read.problems(), store.problems());
        let (was, is) = (old.updated_at.unwrap(), issue.updated_at.unwrap());
        prop_assert!(is.duration_since(was).as_secs() >= 1, "{} to {}", was, is);
        match &edit {
            Edit::Claim(assignee) => prop_assert_eq!((&issue.status, issue.assignee.as_deref()), (&Status::InProgress, Some(assignee.as_str()))),
            Edit::Release(_) => prop_assert_eq!((issue.status == Status::InProgress, issue.assignee.as_deref()), (false, None)),
            Edit::Close(reason) => {
                prop_assert_eq!((&issue.status, issue.closed_at), (&Status::Closed, issue.updated_at));
                prop_assert_eq!(&issue.close_reason, if reason.trim().is_empty() { "Closed" } else { reason });
            }
            Edit::Comment(author, text) => {
                let comment = issue.comments.last().unwrap();
                prop_assert_eq!((&comment.author, &comment.text, issue.comments.len()), (author, text, old.comments.len() + 1));
                if let Some(count) = object(after).get("comment_count") {
                    prop_assert_eq!(count.as_u64(), Some(issue.comments.len() as u64));
                }
            }
        }
        let bytes = store.write().to_vec();
        prop_assert_eq!(edit.make(&mut store, &id, Timestamp::UNIX_EPOCH), Ok(Change::NotNeeded));
        prop_assert_eq!(store.into_bytes(), bytes);
    }

    #[test]
    fn many_edits_leave_the_store_as_it_would_be_read(text in any_store(), edits in proptest::collection::vec((any_edit(), 0..3_usize, any_time()), 0..8)) {
        let mut store = parse(text);
        for (edit, which, now) in edits {
            let _ = edit.make(&mut store, &format!("a-{which}"), now);
        }
        let read = Store::parse(store.write(), &Options::default());
        prop_assert_eq!(read.problems(), store.problems());
        prop_assert!(read.issues().iter().eq(store.issues().iter()));
        for issue in read.issues().iter() {
            prop_assert_eq!(read.raw(&issue.id), store.raw(&issue.id));
        }
    }

    #[test]
    fn a_discovered_file_is_always_one_of_the_folder(names in proptest::collection::vec("[a-z./\\\\-]{0,6}(\\.jsonl)?", 0..5), export in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let configured = Value::from(Map::from_iter([("jsonl_export".to_owned(), Value::from(export))])).to_string();
        for metadata in [None, Some(configured.as_bytes()), Some(bytes.as_slice())] {
            if let Ok(name) = discover(&names, metadata) {
                prop_assert!(names.contains(&name.as_str()) && !name.contains(['/', '\\']) && !name.starts_with('.'), "{}", name);
            }
        }
        let _ = Metadata::parse(&bytes);
    }

    #[test]
    fn a_prefix_is_the_beginning_of_its_id(id in "[a-z0-9.é-]{0,20}") {
        prop_assert!(id.starts_with(prefix_of(&id)));
        prop_assert!(!is_valid_id(&id) || !prefix_of(&id).is_empty());
    }

    /// An adopted issue is then edited as if the file had always held it.
    #[test]
    fn adopting_a_join_keeps_every_other_line(target in any_store(), keep in 0..3_usize) {
        let lines: Vec<&str> = target.lines().collect();
        let mut write = parse(format!("{}\n", lines[keep.min(lines.len() - 1)]));
        let before = write.write().to_vec();
        let target = parse(target.clone());
        let joined = join(&Store::default(), &target, &write);
        prop_assert!(write.adopt(&joined).is_ok());
        prop_assert!(write.writable().is_ok());
        let text = std::str::from_utf8(write.write()).unwrap();
        prop_assert!(std::str::from_utf8(&before).unwrap().lines().all(|line| text.lines().any(|other| other == line)));
        for issue in target.issues().iter() {
            prop_assert_eq!(write.raw(&issue.id), target.raw(&issue.id));
        }
        prop_assert_eq!(write.adopt(&join(&target, &target, &write)), Ok(Change::NotNeeded));
    }

    /// Whatever the three versions are, the join is what is read from the file that adopts it.
    #[test]
    fn a_join_of_any_files_is_what_is_read_again(base in any_store(), target in any_store(), write in any_store()) {
        let (base, target, mut write) = (parse(base), parse(target), parse(write));
        let joined = join(&base, &target, &write);
        prop_assert!(write.adopt(&joined).is_ok());
        for issue in joined.issues().iter() {
            prop_assert_eq!(write.issues().get(&issue.id), Some(issue));
        }
        prop_assert_eq!(write.issues().len(), joined.issues().len());
        // From then on the target's file is what both began with, and nothing is left to decide.
        let again = join(&target, &target, &write);
        prop_assert!(again.contested().is_empty());
        prop_assert!(again.issues().iter().all(|issue| joined.issues().get(&issue.id) == Some(issue)));
    }

    #[test]
    fn files_of_any_bytes_are_joined(base in any_file(), target in any_file(), write in any_file()) {
        let (base, target, write) = (parse(base), parse(target), parse(write));
        let joined = join(&base, &target, &write);
        let (target, write) = (target.issues(), write.issues());
        prop_assert!(joined.issues().iter().all(|i| target.get(&i.id).or_else(|| write.get(&i.id)).is_some()));
    }
}
