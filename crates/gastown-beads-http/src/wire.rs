//! The messages of the v0 contract, read leniently: unknown members are ignored, and `null` counts
//! as absent.

use std::fmt;
use std::sync::Arc;

use gastown_beads::{Dialect, Issue, IssueSet, Options, Problems, Store};
use gastown_types::text;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The most characters of a server's text in a message.
pub(crate) const MAX_TEXT: usize = 200;

/// The `code` of a problem document. New codes may come; an unknown one is handled by its HTTP
/// status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Code(String);

impl Code {
    /// The code as the server spells it, cleaned for messages.
    pub fn new(code: &str) -> Self {
        Self(text::line(code, MAX_TEXT))
    }

    /// The code; empty where the answer is not a problem document.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "without a problem document" } else { &self.0 })
    }
}

/// The version of a row: opaque, sent back as it was received. A string since 1.3, a number in its
/// previews.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Revision(Value);

impl<'de> Deserialize<'de> for Revision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            value @ (Value::String(_) | Value::Number(_)) => Ok(Self(value)),
            _ => Err(serde::de::Error::custom("a revision is a string")),
        }
    }
}

/// The answer to `GET context`: which server this is and what it offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Context {
    /// The version of the API, `v0`.
    #[serde(deserialize_with = "or_default")]
    pub api_version: String,
    /// The release of `bd`.
    #[serde(deserialize_with = "or_default")]
    pub bd_version: String,
    /// The version of the database schema. For people: the contract forbids decisions on it.
    #[serde(deserialize_with = "or_default")]
    pub schema_version: u64,
    /// The kind of database, such as `dolt`.
    #[serde(deserialize_with = "or_default")]
    pub backend: String,
    /// The name of the database.
    #[serde(deserialize_with = "or_default")]
    pub database: String,
    /// The id of the project, which identifies the store.
    #[serde(deserialize_with = "or_default")]
    pub project_id: String,
    /// Names of the operations and behaviours that the server offers.
    #[serde(deserialize_with = "or_default")]
    pub capabilities: Vec<String>,
}

impl Context {
    /// Whether the server offers this capability.
    pub fn offers(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|offered| offered == capability)
    }
}

/// A problem document (RFC 9457) with the members that this contract adds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    #[serde(deserialize_with = "or_default")]
    pub(crate) code: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) reason: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) detail: String,
    pub(crate) param: Option<String>,
    pub(crate) assignee: Option<String>,
    pub(crate) issue_status: Option<String>,
    pub(crate) open_children: Option<u64>,
    pub(crate) server_project_id: Option<String>,
    pub(crate) floor: Option<u64>,
    pub(crate) head: Option<u64>,
}

/// The answer to `GET issues`: one page of the list.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) items: Vec<Value>,
    pub(crate) has_more: bool,
    #[serde(default)]
    pub(crate) next_cursor: Option<String>,
}

/// The answer to `GET dependencies`: edges as they are stored.
#[derive(Debug, Deserialize)]
pub(crate) struct Edges {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) items: Vec<Value>,
}

/// The answer to `GET events`: a part of the journal of changes.
#[derive(Debug, Deserialize)]
pub(crate) struct Journal {
    pub(crate) head: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) records: Vec<Record>,
}

/// One change in the journal.
#[derive(Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) issue_id: String,
}

/// The answer to a claim.
#[derive(Debug, Deserialize)]
pub(crate) struct Claimed {
    pub(crate) already_claimed: bool,
}

/// The answer to a close.
#[derive(Debug, Deserialize)]
pub(crate) struct Closed {
    pub(crate) already_closed: bool,
}

/// The answer to a release.
#[derive(Debug, Deserialize)]
pub(crate) struct Released {
    pub(crate) changed: bool,
}

/// The answer to a new comment: the stored comment, whose fields are not needed.
#[derive(Debug, Deserialize)]
pub(crate) struct Commented {
    #[serde(rename = "id")]
    pub(crate) _id: Value,
}

/// Reads rows as issues, and the problems of rows. A row has the members of a line in an export and
/// is read by the same rules.
pub(crate) fn issues(rows: &[Value]) -> (IssueSet, Problems) {
    let mut lines = Vec::new();
    for row in rows {
        lines.extend_from_slice(row.to_string().as_bytes());
        lines.push(b'\n');
    }
    let store = Store::parse(lines, &Options { max_line: usize::MAX, max_issues: usize::MAX });
    let issues = IssueSet::new(Dialect::Export, store.issues().iter().cloned());
    (issues, store.problems().clone())
}

/// Reads the detail of one issue, whose `dependencies` are whole issues and not edges; the edges
/// come from `edges`.
pub(crate) fn detail(mut row: Value, edges: Vec<Value>) -> Result<(Arc<Issue>, Revision), String> {
    let members = row.as_object_mut().ok_or("the issue is not an object")?;
    let revision = members.remove("revision").ok_or("the issue has no revision")?;
    let revision = Revision::deserialize(revision).map_err(|error| error.to_string())?;
    members.insert("dependencies".to_owned(), Value::Array(edges));
    let (issues, problems) = issues(std::slice::from_ref(&row));
    let issue = issues.iter().next().cloned();
    let why = || {
        problems.iter().next().map_or_else(
            || "the issue cannot be read".to_owned(),
            |problem| text::line(&problem.defect.to_string(), MAX_TEXT),
        )
    };
    Ok((issue.ok_or_else(why)?, revision))
}

/// Whether a row counts more edges than it shows.
pub(crate) fn hides_edges(row: &Value) -> bool {
    let shown = row.get("dependencies").and_then(Value::as_array).map_or(0, Vec::len);
    row.get("dependency_count").and_then(Value::as_u64).is_some_and(|count| count > shown as u64)
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_code_is_short_and_without_hidden_characters() {
        assert_eq!(Code::new("a\u{1b}[2J\u{202e}b").as_str(), "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(Code::new(&"é".repeat(500)).as_str().chars().count(), MAX_TEXT);
    }

    #[test]
    fn a_row_is_read_as_a_line_of_an_export() {
        let (issues, problems) = issues(&[
            json!({"id":"gt-1","title":"a","status":"open","priority":1,"parent":"gt-0","dependency_count":1,
                "dependencies":[{"issue_id":"gt-1","depends_on_id":"gt-0","type":"parent-child"}]}),
            json!({"id":"../x","title":"b"}),
            json!(["no", "issue"]),
        ]);
        assert_eq!((issues.len(), problems.total(), issues.dialect()), (1, 2, Dialect::Export));
        assert_eq!(issues.get("gt-1").unwrap().parents().collect::<Vec<_>>(), ["gt-0"]);
    }

    #[test]
    fn a_detail_takes_its_edges_from_where_they_are_stored() {
        let row = json!({"id":"gt-1","title":"a","status":"open","priority":1,"revision":"-9223372036854775808",
            "dependencies":[{"id":"gt-0","title":"whole issue","dependency_type":"blocks"}]});
        let edges = vec![json!({"issue_id":"gt-1","depends_on_id":"external:x:y","type":"blocks"})];
        let (issue, revision) = detail(row, edges).unwrap();
        assert_eq!(issue.dependencies[0].depends_on_id, "external:x:y");
        assert_eq!(serde_json::to_string(&revision).unwrap(), "\"-9223372036854775808\"");
    }

    #[test]
    fn a_revision_is_sent_back_as_it_was_received() {
        for text in ["\"77\"", "9223372036854775807", "-1"] {
            let revision: Revision = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&revision).unwrap(), text);
        }
        assert!(serde_json::from_str::<Revision>("{}").is_err());
    }

    #[test]
    fn null_counts_as_absent() {
        let context: Context = serde_json::from_str(
            r#"{"api_version":"v0","project_id":null,"capabilities":null,"new":{}}"#,
        )
        .unwrap();
        assert_eq!((context.project_id.as_str(), context.capabilities.len()), ("", 0));
    }

    #[test]
    fn a_row_that_shows_fewer_edges_than_it_counts_is_noticed() {
        assert!(hides_edges(&json!({"dependency_count":1})));
        assert!(hides_edges(&json!({"dependency_count":2,"dependencies":[{}]})));
        assert!(!hides_edges(&json!({"dependency_count":0})));
        assert!(!hides_edges(&json!({"dependency_count":1,"dependencies":[{},{}]})));
        assert!(!hides_edges(&json!({"dependency_count":"many"})));
    }

    /// JSON of any shape, in which the members that the client reads are frequent.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        let key = prop_oneof![
            "(id|title|status|items|has_more|next_cursor|dependencies|depends_on_id|dependency_count|comments|revision|code|head|records|seq|_type)",
            any::<String>(),
        ];
        leaf.prop_recursive(4, 48, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn read_everything(bytes: &[u8]) {
        let _ = serde_json::from_slice::<Context>(bytes);
        let _ = serde_json::from_slice::<Problem>(bytes);
        let _ = serde_json::from_slice::<Journal>(bytes);
        let _ = serde_json::from_slice::<Claimed>(bytes);
        let _ = serde_json::from_slice::<Closed>(bytes);
        let _ = serde_json::from_slice::<Released>(bytes);
        if let Ok(page) = serde_json::from_slice::<Page>(bytes) {
            let (issues, _) = issues(&page.items);
            assert!(issues.iter().all(|issue| gastown_beads::is_valid_id(&issue.id)));
        }
        if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
            let _ = hides_edges(&value);
            let _ = detail(value, Vec::new());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            read_everything(&bytes);
        }

        #[test]
        fn any_json_is_read_or_refused(value in any_json()) {
            read_everything(value.to_string().as_bytes());
        }

        #[test]
        fn rows_become_issues_with_valid_ids_or_problems(rows in prop::collection::vec(any_json(), 0..8)) {
            let (issues, problems) = issues(&rows);
            prop_assert!(issues.iter().all(|issue| gastown_beads::is_valid_id(&issue.id)));
            prop_assert!(issues.len() <= rows.len());
            prop_assert!(rows.iter().all(Value::is_object) || problems.total() > 0);
        }
    }
}
