//! A store of ten thousand lines: correctness at that size, and the time of each step, printed.

use std::{fmt::Write, time::Instant};

use gastown_beads::{Change, join, ready};

use crate::common::{at, changed_line, graph, ids, parse};

const LINES: usize = 10_000;

/// An export of ten chains, each issue blocked by the one ten before it.
fn export() -> String {
    let mut text = String::new();
    for number in 0..LINES {
        let edges = number.checked_sub(10).map_or_else(String::new, |before| {
            format!(r#""dependencies":[{{"issue_id":"web-{number}","depends_on_id":"web-{before}","type":"blocks","created_at":"2026-05-02T08:00:00Z","metadata":"{{}}"}}],"#)
        });
        let description = "Why \\u003cthis\\u003e matters, and how to see it. ".repeat(6);
        writeln!(
            text,
            r#"{{"_type":"issue","id":"web-{number}","title":"Task {number}","description":"{description}","status":"open","priority":{},"issue_type":"task","created_at":"2026-05-02T08:00:00Z","updated_at":"2026-05-02T08:00:00Z",{edges}"comment_count":0}}"#,
            number % 5
        )
        .unwrap();
    }
    text
}

#[test]
fn ten_thousand_lines_are_read_and_edited() {
    let text = export();
    let mut last = Instant::now();
    let mut lap = |what: &str| {
        println!(
            "{what} ({LINES} lines, {} KiB): {:.1} ms",
            text.len() / 1024,
            last.elapsed().as_secs_f64() * 1e3
        );
        last = Instant::now();
    };
    let mut store = parse(text.as_str());
    lap("parse");
    let listed = ready(&store, at("2026-06-01T12:00:00Z")).len();
    lap("ready");
    let cycle = graph(store.issues()).cycle(&ids(store.issues()));
    lap("cycle");
    assert_eq!(
        (store.issues().len(), store.problems().total(), listed, cycle),
        (LINES, 0, 10, None)
    );

    let target = store.clone();
    lap("clone");
    assert_eq!(store.claim("web-5000", "nux", at("2026-06-01T12:00:00Z")), Ok(Change::Made));
    lap("claim");
    assert_eq!(
        store.close("web-0", "merged 1a2b3c4", at("2026-06-01T12:00:00Z")),
        Ok(Change::Made)
    );
    lap("close");
    let joined = join(&target, &target, &store);
    lap("join");
    assert_eq!(ready(&joined, at("2026-06-01T12:00:00Z")).len(), 10, "web-10 came after web-0");

    let mut other = target.clone();
    other.close("web-9999", "x", at("2026-06-01T12:00:00Z")).unwrap();
    changed_line(target.write(), other.write());
}
