//! Edits and unusual files, on fixtures written by hand.

use crate::common::{BR, HYPHENATED, at, changed_line, parse, prefix};
use gastown_beads::{
    Change, Defect, Dialect, EditError, Options, Reason, Standing, Status, Store, ready,
};

const NOW: &str = "2026-06-01T12:00:00.5Z";

fn ids(issues: Vec<&gastown_beads::Issue>) -> Vec<&str> {
    issues.into_iter().map(|issue| issue.id.as_str()).collect()
}

fn one(fields: &str) -> Store {
    parse(format!(
        "{{\"id\":\"a-1\",\"title\":\"t\",\"priority\":1,\"created_at\":\"2026-05-01T08:00:00.5Z\",\"updated_at\":\"2026-05-01T08:00:00.5Z\"{fields}}}\n"
    ))
}

fn stopped(text: impl Into<Vec<u8>>) -> (Reason, Store) {
    let store = parse(text);
    (store.writable().unwrap_err().reason, store)
}

#[test]
fn br_is_detected_by_its_keys_and_written_in_its_style() {
    let mut store = parse(BR);
    assert_eq!(
        (store.dialect(), prefix(&store), store.problems().total()),
        (Dialect::Br, Some("br"), 0)
    );
    assert_eq!(store.write(), BR.as_bytes());
    assert_eq!(ids(ready(&store, at("2026-01-10T12:00:00Z"))), ["br-4d5", "br-1a2"]);

    store.claim("br-1a2", "a<b", at(NOW)).unwrap();
    let (_, line) = changed_line(BR.as_bytes(), store.write());
    assert!(line.contains(r#""issue_type":"task","assignee":"a<b","created_at""#), "{line}");
    assert!(
        line.contains(r#""updated_at":"2026-06-01T12:00:00.500Z","source_repo":".""#)
            && !line.contains("started_at"),
        "{line}"
    );

    let before = store.write().to_vec();
    store.comment("br-1a2", "gt", "x & y", at(NOW)).unwrap();
    let (_, line) = changed_line(&before, store.write());
    assert!(
        line.ends_with(r#""original_size":0,"comments":[{"id":8,"issue_id":"br-1a2","author":"gt","text":"x & y","created_at":"2026-06-01T12:00:00.500Z"}]}"#),
        "{line}"
    );
}

#[test]
fn a_hyphenated_prefix_a_header_and_memories_stay_unchanged() {
    let mut store = parse(HYPHENATED);
    assert_eq!(
        (store.dialect(), prefix(&store), store.issues().len()),
        (Dialect::Export, Some("bd-main"), 3)
    );
    assert_eq!((store.problems().total(), store.write()), (0, HYPHENATED.as_bytes()));
    assert_eq!(ids(ready(&store, at(NOW))), ["bd-main-idj", "bd-main-idj.1"]);
    store.claim("bd-main-idj", "nux", at(NOW)).unwrap();
    let (_, line) = changed_line(HYPHENATED.as_bytes(), store.write());
    assert!(
        line.contains(r#""metadata":{"their.own/key":{"b":1,"a":[1.0,1e3]}},"zz_unknown":9007199254740993,"dependency_count":0"#),
        "{line}"
    );
    assert!(
        line.contains(
            r#""updated_at":"2026-06-01T12:00:00Z","started_at":"2026-06-01T12:00:00Z","metadata""#
        ),
        "{line}"
    );
}

#[test]
fn an_export_gets_uuids_and_correct_counts() {
    let mut store = parse(HYPHENATED);
    store.comment("bd-main-idj", "gt", "hello", at(NOW)).unwrap();
    let again = {
        let mut other = parse(HYPHENATED);
        other.comment("bd-main-idj", "gt", "hello", at(NOW)).unwrap();
        other.into_bytes()
    };
    assert_eq!(store.write(), again, "the same comment has the same bytes wherever it is made");
    let issue = store.issues().get("bd-main-idj").unwrap();
    assert_eq!((issue.comments.len(), issue.comments[0].id.len()), (1, 36));
    assert!(store.raw("bd-main-idj").unwrap().ends_with(r#""comment_count":1}"#));
}

#[test]
fn a_claim_has_one_holder_and_repeating_it_changes_nothing() {
    let mut store = parse(HYPHENATED);
    assert_eq!(
        store.claim("bd-main-idj.1", "web/polecats/rictus", at(NOW)),
        Err(EditError::AlreadyClaimed {
            id: "bd-main-idj.1".into(),
            by: "web/polecats/nux".into()
        })
    );
    assert_eq!(store.claim("bd-main-idj.1", "web/polecats/nux", at(NOW)), Ok(Change::Made));
    let bytes = store.write().to_vec();
    assert_eq!(
        store.claim("bd-main-idj.1", "web/polecats/nux", at("2027-01-01T00:00:00Z")),
        Ok(Change::NotNeeded)
    );
    assert_eq!(
        store.claim("bd-main-k3f", "nux", at(NOW)),
        Err(EditError::NotClaimable { id: "bd-main-k3f".into(), status: "closed".into() })
    );
    assert_eq!(
        store.claim("bd-main-zzz", "nux", at(NOW)),
        Err(EditError::NotFound("bd-main-zzz".into()))
    );
    assert_eq!(store.claim("bd-main-idj", " ", at(NOW)), Err(EditError::Empty("the assignee")));
    assert_eq!(store.write(), bytes);
}

#[test]
fn only_open_work_can_be_claimed() {
    for (fields, status) in [
        (r#","status":"hooked","assignee":"me""#, "hooked"),
        (r#","status":"in_progress""#, "in_progress"),
        (r#","status":"deferred""#, "deferred"),
        (r#","status":"in review""#, "in review"),
        (r#","is_template":true"#, "template"),
    ] {
        assert_eq!(
            one(fields).claim("a-1", "me", at(NOW)),
            Err(EditError::NotClaimable { id: "a-1".into(), status: status.into() })
        );
    }
    assert_eq!(
        parse(BR).claim("br-3c4", "me", at(NOW)),
        Err(EditError::NotFound("br-3c4".into())),
        "a tombstone"
    );
}

#[test]
fn a_release_needs_the_assignee_and_keeps_a_person_s_status() {
    for (fields, change, status, assignee) in [
        (r#","status":"in_progress","assignee":"me""#, Change::Made, Status::Open, None),
        (r#","status":"hooked","assignee":"me""#, Change::Made, Status::Open, None),
        (r#","status":"blocked","assignee":"me""#, Change::Made, Status::Blocked, None),
        (
            r#","status":"in_progress","assignee":"you""#,
            Change::NotNeeded,
            Status::InProgress,
            Some("you"),
        ),
        (r#","status":"open""#, Change::NotNeeded, Status::Open, None),
        (r#","status":"closed","assignee":"me""#, Change::NotNeeded, Status::Closed, Some("me")),
    ] {
        let mut store = one(fields);
        assert_eq!(store.release("a-1", "me", at(NOW)), Ok(change), "{fields}");
        let issue = store.issues().get("a-1").unwrap();
        assert_eq!((&issue.status, issue.assignee.as_deref()), (&status, assignee), "{fields}");
    }
}

#[test]
fn the_first_close_wins() {
    let mut store = one("");
    assert_eq!(store.close("a-1", "merged abc", at(NOW)), Ok(Change::Made));
    let bytes = store.write().to_vec();
    assert_eq!(store.close("a-1", "merged abc", at(NOW)), Ok(Change::NotNeeded));
    assert_eq!(store.close("a-1", "other", at(NOW)), Ok(Change::NotNeeded));
    assert_eq!(store.write(), bytes);
    let mut store = one("");
    store.close("a-1", "", at(NOW)).unwrap();
    assert_eq!(store.issues().get("a-1").unwrap().close_reason, "Closed");
}

#[test]
fn a_comment_is_added_once_for_its_author_and_text() {
    let mut store = one(r#","comments":null"#);
    assert_eq!(store.comment("a-1", "gt", "x", at(NOW)), Ok(Change::Made));
    assert_eq!(store.comment("a-1", "gt", "x", at("2027-01-01T00:00:00Z")), Ok(Change::NotNeeded));
    assert_eq!(store.comment("a-1", "ada", "x", at(NOW)), Ok(Change::Made));
    assert_eq!(store.comment("a-1", "ada", "\n", at(NOW)), Err(EditError::Empty("the comment")));
    assert_eq!(store.comment("a-1", "", "x", at(NOW)), Err(EditError::Empty("the author")));
    let ids: Vec<&str> = store
        .issues()
        .get("a-1")
        .unwrap()
        .comments
        .iter()
        .map(|comment| comment.id.as_str())
        .collect();
    assert_eq!(ids, ["1", "2"]);
}

#[test]
fn updated_at_grows_by_a_second_even_when_the_clock_does_not() {
    let updated = |store: &Store| store.issues().get("a-1").unwrap().updated_at;
    let mut store = one("");
    store.claim("a-1", "me", at("2020-01-01T00:00:00Z")).unwrap();
    assert_eq!(updated(&store), Some(at("2026-05-01T08:00:01.5Z")));
    store.release("a-1", "me", at("2026-05-01T08:00:01.6Z")).unwrap();
    assert_eq!(updated(&store), Some(at("2026-05-01T08:00:02.5Z")));

    let export = r#"{"_type":"issue","id":"a-1","updated_at":"2026-05-01T08:00:00.5Z"}"#;
    let mut store = parse(export);
    store.claim("a-1", "me", at("2026-05-01T08:00:00.9Z")).unwrap();
    assert_eq!(
        updated(&store),
        Some(at("2026-05-01T08:00:02Z")),
        "whole seconds, and a second after the old one"
    );

    let mut store = parse(r#"{"id":"a-1","updated_at":"9999-12-30T22:00:00.999999999Z"}"#);
    assert!(matches!(store.claim("a-1", "me", at(NOW)), Err(EditError::NotEditable { .. })));
    let mut store = parse(r#"{"id":"a-1","updated_at":5}"#);
    store.claim("a-1", "me", at(NOW)).unwrap();
    assert_eq!(
        (updated(&store), store.problems().total()),
        (Some(at(NOW)), 0),
        "the unreadable time is replaced"
    );
}

#[test]
fn a_local_offset_is_kept() {
    let mut store = parse(r#"{"id":"a-1","updated_at":"2026-05-01T08:00:00.123456789-07:00"}"#);
    store.close("a-1", "done", at("2026-05-01T20:00:00.25Z")).unwrap();
    assert_eq!(
        store.raw("a-1").unwrap(),
        r#"{"id":"a-1","status":"closed","updated_at":"2026-05-01T13:00:00.25-07:00","closed_at":"2026-05-01T13:00:00.25-07:00","close_reason":"done"}"#
    );
}

#[test]
fn problems_that_prevent_writes_are_reported_and_reads_go_on() {
    let good = r#"{"id":"a-1","status":"open"}"#;
    for (text, reason, message) in [
        (format!("{good}\n{{\"id\":"), Reason::MalformedLines, "line 2: malformed"),
        (
            format!("{good}\n{{\"id\":\"a-2\",\"title\":\n"),
            Reason::MalformedLines,
            "line 2: a-2: malformed",
        ),
        (
            format!("<<<<<<< HEAD\n{good}\n=======\n>>>>>>> x\n"),
            Reason::ConflictMarkers,
            "line 1: a conflict marker, and 2 more",
        ),
        (
            format!("{good}\n{good}\n"),
            Reason::DuplicateIds,
            "line 2: the id a-1 was already on line 1",
        ),
        (
            format!("{good}\n{{\"id\":\"../../x\"}}\n"),
            Reason::BadId,
            "line 2: `../../x` is not a valid id",
        ),
        (format!("\u{feff}{good}\n"), Reason::ByteOrderMark, "line 1: a byte order mark"),
        (format!("\n{good}\r\n"), Reason::CarriageReturns, "line 2: the line ends with CR LF"),
    ] {
        let (found, mut store) = stopped(text.clone());
        assert_eq!(found, reason);
        assert!(
            store.writable().unwrap_err().message.starts_with(message),
            "{:?}",
            store.writable()
        );
        assert_eq!(ids(ready(&store, at(NOW))), ["a-1"], "reads go on");
        for edit in [Store::claim, Store::release, Store::close] {
            assert!(matches!(
                edit(&mut store, "a-1", "x", at(NOW)),
                Err(EditError::NotWritable(_))
            ));
        }
        assert!(matches!(store.comment("a-1", "x", "y", at(NOW)), Err(EditError::NotWritable(_))));
        assert_eq!(store.write(), text.as_bytes());
    }
    assert_eq!(stopped(*b"{\"id\":\"a-1\",\"title\":\"\xff\"}").0, Reason::NotUtf8);
}

#[test]
fn the_later_of_two_lines_with_the_same_id_is_read() {
    let store = parse(
        "{\"id\":\"a-1\",\"title\":\"one\"}\n{\"id\":\"b-1\"}\n{\"id\":\"a-1\",\"title\":\"two\"}\n",
    );
    assert_eq!(store.issues().get("a-1").unwrap().title, "two");
    assert_eq!(store.raw("a-1"), Some(r#"{"id":"a-1","title":"two"}"#));
    assert_eq!(store.issues().len(), 2);
}

#[test]
fn a_line_of_more_than_64_mib_is_kept_and_not_read() {
    let mut bytes = b"{\"id\":\"a-1\"}\n{\"id\":\"b-1\",\"notes\":\"".to_vec();
    bytes.resize(bytes.len() + (64 << 20), b'x');
    bytes.extend_from_slice(b"\"}\n{\"id\":\"c-1\"}\n");
    let (reason, store) = stopped(bytes.clone());
    assert_eq!(
        (reason, store.issues().len(), store.problems().total()),
        (Reason::LineTooLong, 2, 1)
    );
    let message = store.writable().unwrap_err().message;
    assert!(message.starts_with("line 2: b-1: the line has "), "{message}");
    assert!(store.write() == bytes.as_slice());
}

#[test]
fn issues_above_the_limit_are_kept_and_not_read() {
    let text = "{\"id\":\"a-1\"}\n{\"id\":\"a-2\"}\n\n{\"id\":\"a-3\"}\n{\"id\":\"a-4\"}\n";
    let store = Store::parse(text, &Options { max_issues: 2, ..Options::default() });
    assert_eq!(
        (store.issues().len(), store.writable().unwrap_err().reason),
        (2, Reason::TooManyIssues)
    );
    assert_eq!(store.problems().iter().next().unwrap().defect, Defect::TooManyIssues(2));
    assert_eq!(store.write(), text.as_bytes());
}

#[test]
fn an_edit_that_exceeds_the_longest_line_is_refused() {
    let text = r#"{"id":"a-1"}"#;
    let mut store = Store::parse(text, &Options { max_line: 100, ..Options::default() });
    assert!(matches!(
        store.comment("a-1", "gt", &"x".repeat(100), at(NOW)),
        Err(EditError::NotEditable { .. })
    ));
    assert_eq!(store.write(), text.as_bytes());
}

#[test]
fn an_issue_whose_deciding_fields_cannot_be_read_is_neither_ready_nor_edited() {
    for fields in [
        r#","status":5"#,
        r#","status":"open","assignee":[]"#,
        r#","status":"open","status":"open""#,
    ] {
        let mut store = one(fields);
        assert_eq!(store.writable(), Ok(()), "other issues are edited");
        assert!(
            matches!(store.claim("a-1", "me", at(NOW)), Err(EditError::NotEditable { .. })),
            "{fields}"
        );
    }
    let mut store = one(r#","comments":{}"#);
    assert!(matches!(store.comment("a-1", "me", "x", at(NOW)), Err(EditError::NotEditable { .. })));
    for field in ["status", "dependencies", "defer_until", "pinned"] {
        let store = one(&format!(r#","{field}":5"#));
        let readiness = gastown_beads::Readiness::of(&store, at(NOW));
        assert!(
            matches!(readiness.standing("a-1"), Some(Standing::Unreadable { field: named }) if named == field)
        );
        assert_eq!(store.problems().harmless(), 1);
    }
}

#[test]
fn a_missing_line_end_at_the_end_stays_missing() {
    let mut store = parse("\n{\"id\":\"a-1\"}\n\n{\"id\":\"b-1\"}");
    store.close("b-1", "x", at(NOW)).unwrap();
    store.close("a-1", "x", at(NOW)).unwrap();
    let text = String::from_utf8(store.into_bytes()).unwrap();
    assert!(
        text.starts_with("\n{\"id\":\"a-1\",")
            && text.ends_with("\"x\"}")
            && text.contains("}\n\n{"),
        "{text}"
    );
}
