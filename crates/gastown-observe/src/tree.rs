//! A trace as a tree for people.

use opentelemetry_proto::tonic::trace::v1::Span;

use crate::span::{attribute, below, between, seconds};

/// Each span of a trace in a line: its name below its parent's, when it began after the root, how long it
/// took, and what is worth knowing. Copies of a span are shown once.
pub fn tree(spans: &[Span]) -> String {
    let mut unique: Vec<&Span> = Vec::new();
    for span in spans {
        if unique.iter().all(|other| other.span_id != span.span_id) {
            unique.push(span);
        }
    }
    let mut rows = Vec::new();
    let has_parent =
        |span: &Span| unique.iter().any(|parent| parent.span_id == span.parent_span_id);
    let mut roots: Vec<&Span> = unique.iter().copied().filter(|span| !has_parent(span)).collect();
    roots.sort_by_key(|root| root.start_time_unix_nano);
    for root in roots {
        let from = root.start_time_unix_nano;
        rows.push(row(root, from, &unique, ""));
        add_below(root, from, &unique, "", &mut rows);
    }
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
    let line = |row: &Row| {
        let Row { name, begin, took, notes } = row;
        format!("{name:<width$}  {begin:>7} {took:>7}  {notes}").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

struct Row {
    name: String,
    begin: String,
    took: String,
    notes: String,
}

fn add_below(parent: &Span, from: u64, spans: &[&Span], indent: &str, rows: &mut Vec<Row>) {
    let children = below(spans, parent);
    for (n, child) in children.iter().enumerate() {
        let is_last = n + 1 == children.len();
        let (branch, further) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        rows.push(row(child, from, spans, &format!("{indent}{branch}")));
        add_below(child, from, spans, &format!("{indent}{further}"), rows);
    }
}

fn row(span: &Span, from: u64, spans: &[&Span], indent: &str) -> Row {
    let begin = between(from, span.start_time_unix_nano);
    Row {
        name: format!("{indent}{}", span.name),
        begin: format!("+{begin:.0} s"),
        took: format!("{:.0} s", seconds(span)),
        notes: notes(span, spans),
    }
}

fn notes(span: &Span, spans: &[&Span]) -> String {
    let keys: &[&str] = match span.name.as_str() {
        "polecat" => &["gastown.polecat.name", "gastown.polecat.result"],
        "attempt" => &["gastown.attempt.number", "gastown.attempt.end"],
        "agent" => &["gen_ai.agent.name", "gen_ai.response.model"],
        "execute_tool" => &["gen_ai.tool.name"],
        "gate run" => &["cicd.pipeline.run.id", "cicd.pipeline.result"],
        "land" | "verdict" => &["gastown.merge_request.phase", "gastown.merge_request.reason"],
        _ => &[],
    };
    let mut notes: Vec<String> = keys.iter().filter_map(|key| attribute(span, key)).collect();
    for link in &span.links {
        let run = spans.iter().find(|other| other.span_id == link.span_id);
        let run = run.and_then(|run| attribute(run, "cicd.pipeline.run.id"));
        notes.push(format!("because of {}", run.unwrap_or_else(|| hex::encode(&link.span_id))));
    }
    notes.join(", ")
}
