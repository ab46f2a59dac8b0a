//! Two branches read as one, and the file that adopts the result.

use gastown_beads::{Change, EditError, Options, Reason, Store, join, ready};

use crate::common::{at, changed_line, parse};

const NOW: &str = "2026-06-01T12:00:00.5Z";

fn line(id: &str, title: &str, day: &str) -> String {
    format!(
        "{{\"id\":\"{id}\",\"title\":\"{title}\",\"updated_at\":\"2026-05-{day}T00:00:00Z\"}}\n"
    )
}

/// `write` after it has adopted its join with `target`; both began with `base`.
fn adopted(base: &Store, target: &Store, write: &Store) -> Store {
    let mut adopted = write.clone();
    adopted.adopt(&join(base, target, write)).unwrap();
    adopted
}

#[test]
fn of_two_new_lines_the_later_is_read_and_the_target_s_where_they_are_equal() {
    let unreadable = "{\"id\":\"d-1\",\"title\":\"target\",\"updated_at\":5}\n".to_owned();
    let target = parse(
        [
            line("c-1", "target", "02"),
            line("a-1", "target", "01"),
            line("b-1", "target", "01"),
            unreadable,
        ]
        .concat(),
    );
    let write = parse(
        ["x-1/01", "a-1/01", "b-1/02", "c-1/01", "d-1/01"]
            .map(|each| each.split_once('/').unwrap())
            .map(|(id, day)| line(id, "write", day))
            .concat(),
    );
    let joined = join(&Store::default(), &target, &write);
    let read: Vec<(&str, &str)> =
        joined.issues().iter().map(|issue| (issue.id.as_str(), issue.title.as_str())).collect();
    assert_eq!(
        read,
        [
            ("c-1", "target"),
            ("a-1", "target"),
            ("b-1", "write"),
            ("d-1", "write"),
            ("x-1", "write")
        ]
    );
    assert_eq!(joined.contested(), ["c-1", "a-1", "b-1", "d-1"]);
}

/// We close an issue; a person then changes its title on the target branch, where it is still open.
#[test]
fn an_edit_of_the_title_does_not_reopen_what_was_closed_on_the_other_branch() {
    let base = parse(line("a-1", "First", "01"));
    let mut write = base.clone();
    write.comment("a-1", "gt", "merged", at(NOW)).unwrap();
    write.close("a-1", "merged abc", at(NOW)).unwrap();
    let titled = line("a-1", "Second", "01").replace("2026-05-01", "2027-01-01");
    let joined = join(&base, &parse(titled.as_str()), &write);
    let issue = joined.issues().get("a-1").unwrap();
    assert_eq!((issue.status.as_str(), issue.title.as_str()), ("closed", "Second"));
    assert_eq!((issue.comments.len(), issue.close_reason.as_str()), (1, "merged abc"));
    assert!(ready(&joined, at("2027-06-01T00:00:00Z")).is_empty());
    assert!(joined.contested().is_empty(), "no time decided");
}

#[test]
fn an_edit_in_the_second_of_our_write_is_kept() {
    let base = parse(line("a-1", "First", "01"));
    let mut write = base.clone();
    write.claim("a-1", "web/polecats/nux", at(NOW)).unwrap();
    let stamp = write.issues().get("a-1").unwrap().updated_at.unwrap();
    let edited = line("a-1", "Second", "01").replace("2026-05-01T00:00:00Z", &stamp.to_string());
    let joined = join(&base, &parse(edited), &write);
    let issue = joined.issues().get("a-1").unwrap();
    assert_eq!(
        (issue.title.as_str(), issue.assignee.as_deref()),
        ("Second", Some("web/polecats/nux"))
    );
}

#[test]
fn a_deletion_on_one_branch_hides_the_issue_unless_the_other_changed_its_status_later() {
    let none = Store::default();
    let live = parse("{\"id\":\"a-1\",\"updated_at\":\"2026-05-01T00:00:00Z\"}\n");
    let deleted = parse(
        "{\"id\":\"a-1\",\"status\":\"tombstone\",\"updated_at\":\"2026-05-02T00:00:00Z\"}\n",
    );
    for base in [&none, &live] {
        assert!(join(base, &live, &deleted).issues().get("a-1").is_none());
        assert!(join(base, &deleted, &live).issues().is_empty());
        assert!(ready(&join(base, &deleted, &live), at(NOW)).is_empty());
    }
    let mut claimed = live.clone();
    claimed.claim("a-1", "me", at(NOW)).unwrap();
    assert!(join(&live, &deleted, &claimed).issues().get("a-1").is_some());
    let file = adopted(&live, &deleted, &live);
    assert_eq!(file.write(), deleted.write(), "a deletion is taken over as it is");
}

#[test]
fn what_only_the_target_has_is_adopted_at_its_place() {
    let target = parse("{\"id\":\"a-9\", \"x\":1 }\n{\"id\":\"a-2\",\"title\":\"new\"}\n");
    let write = parse("{\"id\":\"a-1\"}\n{\"id\":\"a-3\"}\n");
    let mut file = adopted(&Store::default(), &target, &write);
    assert_eq!(
        file.write(),
        b"{\"id\":\"a-1\"}\n{\"id\":\"a-2\",\"title\":\"new\"}\n{\"id\":\"a-3\"}\n{\"id\":\"a-9\", \"x\":1 }\n"
    );
    assert_eq!(file.claim("a-2", "me", at(NOW)), Ok(Change::Made));

    let two = "{\"id\":\"a-9\", \"x\":1 }\n{\"id\":\"a-2\",\"title\":\"new\"}";
    for (before, after) in [
        ("", "{\"id\":\"a-2\",\"title\":\"new\"}\n{\"id\":\"a-9\", \"x\":1 }\n".to_owned()),
        (
            "{\"id\":\"b-1\"}\n{\"id\":\"a-1\"}",
            format!("{{\"id\":\"b-1\"}}\n{{\"id\":\"a-1\"}}\n{two}"),
        ),
        (
            "{\"id\":\"b-1\"}\n{\"id\":\"a-1\"}\n",
            format!("{{\"id\":\"b-1\"}}\n{{\"id\":\"a-1\"}}\n{two}\n"),
        ),
    ] {
        let file = adopted(&Store::default(), &target, &parse(before));
        assert_eq!(String::from_utf8_lossy(file.write()), after);
    }
}

#[test]
fn a_line_that_only_the_target_changed_is_adopted_byte_for_byte() {
    let base = parse([line("a-1", "old", "01"), line("b-1", "same", "01")].concat());
    let target = parse(
        "{\"title\":\"new\" , \"id\":\"a-1\",\"z\":1.50,\"updated_at\":\"2026-05-02T00:00:00Z\"}\n",
    );
    let file = adopted(&base, &target, &base);
    let (_, after) = changed_line(base.write(), file.write());
    assert_eq!(Some(after), target.raw("a-1"));
    let mut again = file.clone();
    assert_eq!(again.adopt(&join(&target, &target, &file)), Ok(Change::NotNeeded));
}

#[test]
fn a_file_that_cannot_be_written_or_has_no_room_adopts_nothing() {
    let target = parse([line("a-1", "one", "01"), line("a-2", "two", "01")].concat());
    let mut full =
        Store::parse(line("b-1", "x", "01"), &Options { max_issues: 2, ..Options::default() });
    let before = full.clone();
    let joined = join(&Store::default(), &target, &full);
    let Err(EditError::NotWritable(no)) = full.adopt(&joined) else { panic!("{full:?}") };
    assert_eq!((no.reason, full.write()), (Reason::TooManyIssues, before.write()));
    let mut broken = parse("{\"id\":\"b-1\"}\n<<<<<<<\n");
    let joined = join(&Store::default(), &target, &broken);
    assert!(matches!(broken.adopt(&joined), Err(EditError::NotWritable(_))));
    assert_eq!(joined.issues().len(), 3, "reads go on");
}

#[test]
fn a_line_that_would_be_too_long_is_taken_whole_from_the_later_side() {
    let options = Options { max_line: 150, ..Options::default() };
    let text = |more: &str, day: &str| {
        format!("{{\"id\":\"a-1\",\"updated_at\":\"2026-05-{day}T00:00:00Z\"{more}}}\n")
    };
    let long = "x".repeat(60);
    let base = Store::parse(text("", "01"), &options);
    let target = Store::parse(text(&format!(",\"notes\":\"{long}\""), "02"), &options);
    let write = Store::parse(text(&format!(",\"design\":\"{long}\""), "03"), &options);
    let joined = join(&base, &target, &write);
    let issue = joined.issues().get("a-1").unwrap();
    assert_eq!((issue.notes.as_str(), issue.design.as_str()), ("", long.as_str()));
}

/// `br` gives comments numbers, and so does a person's tool.
#[test]
fn a_number_that_both_sides_gave_to_a_comment_is_not_used_twice() {
    let base =
        parse(r#"{"id":"a-1","source_repo":".","comments":[{"id":1,"author":"a","text":"1"}]}"#);
    let (mut target, mut write) = (base.clone(), base.clone());
    target.comment("a-1", "ann", "theirs", at(NOW)).unwrap();
    write.comment("a-1", "gt", "ours", at(NOW)).unwrap();
    let joined = join(&base, &target, &write);
    let issue = joined.issues().get("a-1").unwrap();
    let comments: Vec<(&str, &str)> =
        issue.comments.iter().map(|c| (c.id.as_str(), c.text.as_str())).collect();
    assert_eq!(comments, [("1", "1"), ("2", "theirs"), ("3", "ours")]);
}
