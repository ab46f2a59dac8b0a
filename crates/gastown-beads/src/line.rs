//! Reads one line of the file.

use gastown_types::text;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    id::is_valid_id,
    issue::{Comment, Dependency, Issue, Status},
    json::{self, Member},
    problem::{Defect, MAX_SHOWN},
};

/// The kinds of lines.
pub(crate) enum Line {
    /// Empty, or white space.
    Blank,
    /// An issue.
    Issue(Box<Read>),
    /// A header, a memory, or another record that is not an issue: kept unchanged.
    Other,
    /// A line that cannot be read: kept unchanged, and reported.
    Bad(Defect),
}

/// An issue, and the problems of its fields.
pub(crate) struct Read {
    pub(crate) issue: Issue,
    pub(crate) defects: Vec<Defect>,
    pub(crate) keys: Vec<String>,
}

/// Reads a line without its end.
pub(crate) fn read(bytes: &[u8]) -> Line {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Line::Blank;
    }
    if [b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||"]
        .iter()
        .any(|marker| bytes.starts_with(*marker))
    {
        return Line::Bad(Defect::ConflictMarker);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Line::Bad(Defect::NotUtf8(json::leading_id(bytes)));
    };
    let members = match json::members(text) {
        Ok(members) => members,
        Err(why) => return Line::Bad(Defect::Malformed { id: json::leading_id(bytes), why }),
    };
    match kind(text, &members) {
        Ok(Some(id)) => Line::Issue(Box::new(Fields::new(text, members, id).read())),
        Ok(None) => Line::Other,
        Err(defect) => Line::Bad(defect),
    }
}

/// The id where the object is an issue; `None` where it is another record.
fn kind(text: &str, members: &[Member]) -> Result<Option<String>, Defect> {
    let last = |key: &str| {
        members
            .iter()
            .rev()
            .find(|member| member.key == key)
            .map(|member| &text[member.value_span.clone()])
    };
    if let Some(raw) = last("_type") {
        let kind: String = json::decode(raw).map_err(|_| Defect::Malformed {
            id: json::leading_id(text.as_bytes()),
            why: "`_type` is not a string".to_owned(),
        })?;
        if kind != "issue" {
            return Ok(None);
        }
    } else if last("id").is_none() && last("_schema").is_some() {
        return Ok(None);
    }
    let raw = last("id")
        .ok_or_else(|| Defect::Malformed { id: None, why: "the issue has no id".to_owned() })?;
    match json::decode::<String>(raw) {
        Ok(id) if is_valid_id(&id) => Ok(Some(id)),
        Ok(id) => Err(Defect::BadId(text::line(&id, MAX_SHOWN))),
        Err(_) => Err(Defect::BadId(text::line(raw, MAX_SHOWN))),
    }
}

/// Reads the fields of one issue and collects their problems.
struct Fields<'a> {
    text: &'a str,
    members: Vec<Member>,
    id: String,
    defects: Vec<Defect>,
    unreadable: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    fn new(text: &'a str, members: Vec<Member>, id: String) -> Self {
        Self { text, members, id, defects: Vec::new(), unreadable: Vec::new() }
    }

    fn read(mut self) -> Read {
        let mut keys: Vec<String> = self.members.iter().map(|member| member.key.clone()).collect();
        let mut issue = Issue {
            id: self.id.clone(),
            title: self.string("title").unwrap_or_default(),
            description: self.string("description").unwrap_or_default(),
            design: self.string("design").unwrap_or_default(),
            acceptance_criteria: self.string("acceptance_criteria").unwrap_or_default(),
            notes: self.string("notes").unwrap_or_default(),
            status: self.status(),
            priority: self.priority(),
            issue_type: self
                .string("issue_type")
                .filter(|word| !word.is_empty())
                .unwrap_or_else(|| "task".to_owned()),
            assignee: self.string("assignee").filter(|name| !name.is_empty()),
            created_at: self.time("created_at"),
            updated_at: self.time("updated_at"),
            started_at: self.time("started_at"),
            closed_at: self.time("closed_at"),
            close_reason: self.string("close_reason").unwrap_or_default(),
            defer_until: self.time("defer_until"),
            labels: self.labels(),
            dependencies: self.dependencies(),
            comments: self.comments(),
            pinned: self.flag("pinned"),
            ephemeral: self.flag("ephemeral"),
            is_template: self.flag("is_template"),
            unreadable: Vec::new(),
        };
        issue.unreadable = std::mem::take(&mut self.unreadable);
        let in_file = keys.clone();
        keys.sort_unstable();
        if let Some(twice) =
            keys.windows(2).find_map(|pair| pair.first().filter(|key| pair.last() == Some(key)))
        {
            self.defects.push(Defect::DuplicateKey {
                id: self.id.clone(),
                key: text::line(twice, MAX_SHOWN),
            });
        }
        Read { issue, defects: self.defects, keys: in_file }
    }

    /// The JSON text of a field; `None` where it is absent or null.
    fn raw(&self, key: &str) -> Option<&'a str> {
        let member = self.members.iter().rev().find(|member| member.key == key)?;
        Some(&self.text[member.value_span.clone()]).filter(|raw| *raw != "null")
    }

    fn wrong(&mut self, field: &'static str, what: &str) {
        self.defects.push(Defect::WrongType { id: self.id.clone(), field, what: what.to_owned() });
        if !self.unreadable.contains(&field) {
            self.unreadable.push(field);
        }
    }

    fn string(&mut self, field: &'static str) -> Option<String> {
        let read = json::decode(self.raw(field)?);
        if read.is_err() {
            self.wrong(field, "not a string");
        }
        read.ok()
    }

    /// A status that is not a string counts as a custom one, since an absent status means open.
    fn status(&mut self) -> Status {
        let Some(raw) = self.raw("status") else { return Status::Open };
        self.string("status")
            .map_or_else(|| Status::Other(text::line(raw, MAX_SHOWN)), Status::from)
    }

    fn priority(&mut self) -> u8 {
        const DEFAULT: u8 = 2;
        let Some(raw) = self.raw("priority") else { return 0 };
        json::decode(raw).ok().filter(|priority| *priority <= 4).unwrap_or_else(|| {
            self.wrong("priority", "not a number from 0 to 4");
            DEFAULT
        })
    }

    fn flag(&mut self, field: &'static str) -> bool {
        let Some(raw) = self.raw(field) else { return false };
        json::decode(raw).unwrap_or_else(|_| {
            self.wrong(field, "not true or false");
            false
        })
    }

    fn time(&mut self, field: &'static str) -> Option<Timestamp> {
        let raw = self.raw(field)?;
        let read = json::decode::<String>(raw).ok().and_then(|text| text.parse().ok());
        if read.is_none() {
            self.wrong(field, "not an RFC 3339 time");
        }
        read
    }

    fn list(&mut self, field: &'static str) -> Vec<Value> {
        let Some(raw) = self.raw(field) else { return Vec::new() };
        json::decode(raw).unwrap_or_else(|_| {
            self.wrong(field, "not a readable list");
            Vec::new()
        })
    }

    /// Reads each element; those that cannot be read are left out and reported as one problem.
    fn each<T>(&mut self, field: &'static str, read: impl Fn(Value) -> Option<T>) -> Vec<T> {
        let elements = self.list(field);
        let count = elements.len();
        let out: Vec<T> = elements.into_iter().filter_map(read).collect();
        if out.len() < count {
            self.wrong(
                field,
                &format!("a list with {} elements of a wrong type", count - out.len()),
            );
        }
        out
    }

    fn labels(&mut self) -> Vec<String> {
        self.each(
            "labels",
            |value| if let Value::String(label) = value { Some(label) } else { None },
        )
    }

    fn dependencies(&mut self) -> Vec<Dependency> {
        let own = self.id.clone();
        self.each("dependencies", move |mut value| {
            let issue_id = optional(&mut value, "issue_id")?.unwrap_or_else(|| own.clone());
            let depends_on_id =
                optional(&mut value, "depends_on_id")?.filter(|id| !id.is_empty())?;
            let kind = optional(&mut value, "type")?
                .filter(|kind| !kind.is_empty())
                .unwrap_or_else(|| "blocks".to_owned())
                .into();
            let metadata = match value.get_mut("metadata").map(Value::take) {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(text),
                Some(other) => Some(other.to_string()),
            };
            Some(Dependency { issue_id, depends_on_id, kind, metadata })
        })
    }

    fn comments(&mut self) -> Vec<Comment> {
        self.each("comments", |mut value| {
            let id = match value.get_mut("id").map(Value::take) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(id)) => id,
                Some(Value::Number(id)) => id.to_string(),
                Some(_) => return None,
            };
            let created_at = optional(&mut value, "created_at")?.and_then(|at| at.parse().ok());
            let author = optional(&mut value, "author")?.unwrap_or_default();
            Some(Comment {
                id,
                author,
                text: optional(&mut value, "text")?.unwrap_or_default(),
                created_at,
            })
        })
    }
}

/// The string at `key` of an object: `Some(None)` where it is absent or null, `None` where it is
/// another kind of value or `value` is not an object.
#[allow(clippy::option_option)]
fn optional(value: &mut Value, key: &str) -> Option<Option<String>> {
    match value.as_object_mut()?.get_mut(key).map(Value::take) {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(text)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(text: &str) -> Read {
        match read(text.as_bytes()) {
            Line::Issue(read) => *read,
            _ => panic!("not an issue: {text}"),
        }
    }

    fn defect(bytes: &[u8]) -> String {
        match read(bytes) {
            Line::Bad(defect) => defect.to_string(),
            _ => panic!("not bad"),
        }
    }

    #[test]
    fn absent_fields_have_the_meaning_that_bd_gives_them() {
        let read = issue(r#"{"id":"a-1"}"#).issue;
        assert_eq!(
            (
                read.status,
                read.priority,
                read.issue_type.as_str(),
                read.assignee,
                read.unreadable.len()
            ),
            (Status::Open, 0, "task", None, 0)
        );
        let read = issue(
            r#"{"id":"a-1","status":null,"assignee":"","issue_type":"","labels":null,"priority":0}"#,
        );
        assert_eq!(
            (read.issue.status, read.issue.assignee, read.defects.len()),
            (Status::Open, None, 0)
        );
    }

    #[test]
    fn fields_of_a_wrong_type_count_as_absent_and_are_reported() {
        let read = issue(
            r#"{"id":"a-1","title":7,"status":[],"priority":"high","issue_type":{},"assignee":true,"created_at":"yesterday","updated_at":5,
            "labels":["x",1],"dependencies":{"a":1},"comments":[{"id":[],"text":"t"},5],"pinned":"yes","close_reason":"\ud800"}"#,
        );
        assert_eq!(read.issue.title, "");
        assert_eq!(read.issue.status, Status::Other("[]".to_owned()));
        assert_eq!(
            (read.issue.priority, read.issue.labels.len(), read.issue.comments.len()),
            (2, 1, 0)
        );
        let named: Vec<_> = read.issue.unreadable.clone();
        assert_eq!(
            named,
            [
                "title",
                "status",
                "priority",
                "issue_type",
                "assignee",
                "created_at",
                "updated_at",
                "close_reason",
                "labels",
                "dependencies",
                "comments",
                "pinned"
            ]
        );
        assert_eq!(read.defects.len(), named.len());
    }

    #[test]
    fn an_edge_of_a_wrong_type_is_reported_and_the_others_stay() {
        let read = issue(
            r#"{"id":"a-1","dependencies":[{"depends_on_id":"b-1","type":"waits-for","metadata":{"gate":"any-children"}},{"depends_on_id":5},{}]}"#,
        );
        assert_eq!(read.issue.dependencies.len(), 1);
        assert_eq!(read.issue.dependencies[0].gate(), crate::Gate::AnyChildren);
        assert_eq!(
            read.defects[0].to_string(),
            "a-1: `dependencies` is a list with 2 elements of a wrong type"
        );
    }

    #[test]
    fn records_that_are_not_issues_are_kept_without_a_problem() {
        for text in [
            r#"{"_type":"memory","key":"k","value":"v"}"#,
            r#"{"_schema":"beads-jsonl/1","_sort":"stable-v1"}"#,
            r#"{"_type":"new","id":"../x"}"#,
        ] {
            assert!(matches!(read(text.as_bytes()), Line::Other), "{text}");
        }
        for text in ["", " ", "\t\r"] {
            assert!(matches!(read(text.as_bytes()), Line::Blank));
        }
    }

    #[test]
    fn bad_lines_are_described() {
        assert_eq!(defect(b"<<<<<<< HEAD"), "a conflict marker");
        assert_eq!(defect(b"======="), "a conflict marker");
        assert_eq!(defect(b"\xff"), "not UTF-8");
        assert_eq!(defect(b"[]"), "malformed: not a JSON object");
        assert_eq!(defect(br#"{"title":"x"}"#), "malformed: the issue has no id");
        assert_eq!(defect(br#"{"_type":5,"id":"x"}"#), "x: malformed: `_type` is not a string");
        assert_eq!(
            defect(br#"{"id":"a-1","title":"#),
            "a-1: malformed: the line ends inside the object"
        );
        assert_eq!(defect(b"{\"id\":\"a-1\",\"title\":\"\xff\"}"), "a-1: not UTF-8");
        assert_eq!(defect(br#"{"id":"../../etc"}"#), "`../../etc` is not a valid id");
        assert_eq!(defect(br#"{"id":"a\u001b[2J"}"#), "`a\u{fffd}[2J` is not a valid id");
        assert_eq!(defect(br#"{"id":5}"#), "`5` is not a valid id");
    }

    #[test]
    fn a_repeated_key_is_reported_and_the_last_one_is_read() {
        let read = issue(r#"{"id":"a-1","status":"open","status":"closed"}"#);
        assert_eq!(read.issue.status, Status::Closed);
        assert_eq!(read.defects[0].to_string(), "a-1: the key `status` occurs twice");
    }
}
