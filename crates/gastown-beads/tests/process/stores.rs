//! The stores that bd 0.49.6 and 1.0.3 wrote, against their own answers about them.

use crate::common::{at, changed_line, graph, ids, outside, parse, prefix};
use gastown_beads::{Change, Dialect, Metadata, Store, StoreConfig, discover, ready};
use serde_json::Value;

/// Each store with its dialect and a time shortly after it was written.
const STORES: &[(&str, Dialect, &str)] = &[
    ("classic-0.49.6", Dialect::Classic, "2026-11-23T00:11:00Z"),
    ("export-1.0.3", Dialect::Export, "2026-11-23T00:17:00Z"),
];

fn each(test: impl Fn(&std::path::Path, Store, Dialect, jiff::Timestamp)) {
    for (name, dialect, now) in STORES {
        if let Some(folder) = outside(name) {
            let store = parse(std::fs::read(folder.join("issues.jsonl")).unwrap());
            test(&folder, store, *dialect, at(now));
        }
    }
}

fn answers(folder: &std::path::Path, name: &str) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

#[test]
fn a_store_is_read_without_problems_and_written_unchanged() {
    each(|folder, store, dialect, _| {
        assert_eq!(store.write(), std::fs::read(folder.join("issues.jsonl")).unwrap());
        assert_eq!(
            (store.dialect(), prefix(&store), store.problems().total()),
            (dialect, Some("web"), 0)
        );
        assert_eq!(store.writable(), Ok(()));
    });
}

#[test]
fn ready_lists_the_issues_of_bd_ready_in_its_order() {
    each(|folder, store, _, now| {
        let answers = answers(folder, "ready.json");
        let expected: Vec<&str> =
            answers.iter().map(|issue| issue["id"].as_str().unwrap()).collect();
        let ids: Vec<&str> =
            ready(&store, now).into_iter().map(|issue| issue.id.as_str()).collect();
        assert_eq!(ids, expected);
    });
}

#[test]
fn every_issue_of_bd_list_is_read_with_its_values() {
    each(|folder, store, _, _| {
        let answers = answers(folder, "list.json");
        assert_eq!(store.issues().len(), answers.len());
        for answer in answers {
            let issue = store.issues().get(answer["id"].as_str().unwrap()).unwrap();
            let text = |key: &str| answer[key].as_str().unwrap_or_default();
            for (key, value) in [
                ("title", &issue.title),
                ("description", &issue.description),
                ("design", &issue.design),
                ("acceptance_criteria", &issue.acceptance_criteria),
                ("notes", &issue.notes),
                ("issue_type", &issue.issue_type),
                ("close_reason", &issue.close_reason),
            ] {
                assert_eq!(value, text(key), "{key} of {}", issue.id);
            }
            assert_eq!(
                (issue.status.as_str(), i64::from(issue.priority)),
                (text("status"), answer["priority"].as_i64().unwrap())
            );
            assert_eq!(issue.assignee.as_deref().unwrap_or_default(), text("assignee"));
            assert_eq!(issue.created_at, Some(at(text("created_at"))));
            assert_eq!(
                issue.comments.len() as u64,
                answer["comment_count"].as_u64().unwrap_or_default()
            );
            let labels = answer["labels"].as_array().map(Vec::as_slice).unwrap_or_default();
            assert_eq!(
                issue.labels.iter().map(|label| Value::from(label.as_str())).collect::<Vec<_>>(),
                labels
            );
        }
    });
}

#[test]
fn the_files_beside_the_issues_are_read() {
    each(|folder, _, dialect, _| {
        let metadata = std::fs::read(folder.join("metadata.json")).unwrap();
        let names = ["config.yaml", "interactions.jsonl", "issues.jsonl", "metadata.json"];
        assert_eq!(discover(&names, Some(&metadata)).unwrap(), "issues.jsonl");
        assert_eq!(Metadata::parse(&metadata).unwrap().is_dolt(), dialect == Dialect::Export);
        let config =
            StoreConfig::parse(&std::fs::read_to_string(folder.join("config.yaml")).unwrap());
        assert_eq!(config, StoreConfig::default(), "every setting is commented out");
    });
}

#[test]
fn the_dependencies_of_a_store_have_no_cycle() {
    each(|_, store, _, _| {
        assert_eq!(graph(store.issues()).cycle(&ids(store.issues())), None);
    });
}

#[test]
fn an_edit_of_each_kind_changes_one_line_as_bd_would() {
    each(|folder, mut store, dialect, now| {
        let id = answers(folder, "ready.json")[0]["id"].as_str().unwrap().to_owned();
        let before = store.write().to_vec();
        assert_eq!(store.claim(&id, "web/polecats/nux", now), Ok(Change::Made));
        let claimed = store.write().to_vec();
        let (_, line) = changed_line(&before, &claimed);
        let stamp = if dialect == Dialect::Export {
            r#""updated_at":"2026-11-23T00:17:00Z","started_at":"2026-11-23T00:17:00Z","labels""#
        } else {
            r#""updated_at":"2026-11-23T00:11:00Z","labels""#
        };
        assert!(
            line.contains(r#""issue_type":"task","assignee":"web/polecats/nux","owner""#),
            "{line}"
        );
        assert!(line.contains(stamp) && line.contains(r"passwords \u003c 12 chars"), "{line}");

        assert_eq!(store.comment(&id, "gt", "a <b> & c", now), Ok(Change::Made));
        let commented = store.write().to_vec();
        let (_, line) = changed_line(&claimed, &commented);
        assert!(
            line.contains(
                r#""author":"gt","text":"a \u003cb\u003e \u0026 c","created_at":"2026-11-23T00:1"#
            ),
            "{line}"
        );
        if dialect == Dialect::Export {
            assert!(line.ends_with(r#""comment_count":3}"#), "{line}");
        } else {
            assert!(line.contains(r#"{"id":3,"issue_id""#), "{line}");
        }

        assert_eq!(store.close(&id, "merged 1a2b3c4", now), Ok(Change::Made));
        let (_, line) = changed_line(&commented, store.write());
        assert!(
            line.contains(r#","close_reason":"merged 1a2b3c4","labels""#)
                && line.contains(r#""status":"closed""#),
            "{line}"
        );
        let issue = store.issues().get(&id).unwrap();
        assert_eq!(issue.closed_at, issue.updated_at);
    });
}

#[test]
fn a_claim_and_its_release_change_only_times() {
    each(|folder, mut store, _, now| {
        let id = answers(folder, "ready.json")[1]["id"].as_str().unwrap().to_owned();
        let before = store.raw(&id).unwrap().to_owned();
        store.claim(&id, "nux", now).unwrap();
        assert_eq!(store.release(&id, "nux", now), Ok(Change::Made));
        let (before, after): (Value, Value) = (
            serde_json::from_str(&before).unwrap(),
            serde_json::from_str(store.raw(&id).unwrap()).unwrap(),
        );
        let (mut before, mut after) =
            (before.as_object().unwrap().clone(), after.as_object().unwrap().clone());
        for key in ["updated_at", "started_at"] {
            before.remove(key);
            after.remove(key);
        }
        assert_eq!(before, after);
    });
}
