//! The store and the rules of its API.

use std::collections::BTreeSet;

use hyper::http::request::Parts;
use serde_json::{Map, Value, json};

/// The project of the store.
pub const PROJECT: &str = "proj-web";
/// The token that its server accepts.
pub const TOKEN: &str = "s3cret-token";

/// A response.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// A store, with settings that a test may change.
pub struct Store {
    /// The project of the store.
    pub project: String,
    /// The version of the API, `v0`.
    pub api_version: String,
    /// The capabilities that it reports.
    pub capabilities: BTreeSet<String>,
    /// Whether lists hold the dependencies, and not only their number.
    pub shows_edges: bool,
    /// The encoding of cursors; a cursor of another one is refused.
    pub cursors: u32,
    /// Whether changes are recorded in the journal.
    pub journal_is_kept: bool,
    /// The first change that is still in the journal.
    pub floor: u64,
    journal: Vec<(u64, String)>,
    rows: Vec<Value>,
    versions: u64,
}

type Answer = Result<Value, (u16, Value)>;

const CAPABILITIES: &str = "dependencies.list events.list issues.addComment issues.claim issues.close issues.get issues.list issues.release project.enforce ready.list";

impl Store {
    /// An empty store.
    pub(super) fn new() -> Self {
        Self {
            project: PROJECT.to_owned(),
            api_version: "v0".to_owned(),
            capabilities: CAPABILITIES.split(' ').map(str::to_owned).collect(),
            shows_edges: true,
            cursors: 1,
            journal_is_kept: true,
            floor: 1,
            journal: Vec::new(),
            rows: Vec::new(),
            versions: 0,
        }
    }

    /// Adds an issue; fields that are not given are those of a new one.
    pub fn add(&mut self, given: &Value) {
        let time = "2026-11-25T12:00:00Z";
        let mut row = json!({"title": "t", "status": "open", "priority": 2, "issue_type": "task", "created_at": time, "updated_at": time,
            "dependencies": [], "comments": []});
        for (key, value) in given.as_object().unwrap() {
            row[key] = value.clone();
        }
        self.rows.push(row);
        let id = given["id"].as_str().unwrap().to_owned();
        self.change(&id, |_| {});
    }

    /// An issue as the store keeps it.
    pub fn row(&self, id: &str) -> Option<&Value> {
        self.rows.iter().find(|row| row["id"] == id)
    }

    /// Changes an issue, which gives it another revision and an entry in the journal.
    pub fn change(&mut self, id: &str, change: impl FnOnce(&mut Map<String, Value>)) {
        self.versions += 1;
        // As large as the contract allows, so that a number would lose digits.
        let version = (i64::MAX as u64 - self.versions).to_string();
        let row = self.rows.iter_mut().find(|row| row["id"] == id).unwrap();
        change(row.as_object_mut().unwrap());
        row["revision"] = version.into();
        self.journal.push((self.versions, id.to_owned()));
    }

    pub(super) fn answer(&mut self, parts: &Parts, body: &[u8]) -> Reply {
        match self.handle(parts, body) {
            Ok(body) => Reply { status: 200, headers: Vec::new(), body: body.to_string() },
            Err((status, problem)) => {
                let headers = if status == 401 {
                    vec![("www-authenticate", "Bearer".to_owned())]
                } else {
                    Vec::new()
                };
                Reply { status, headers, body: problem.to_string() }
            }
        }
    }

    fn handle(&mut self, parts: &Parts, body: &[u8]) -> Answer {
        let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap());
        let path = parts
            .uri
            .path()
            .strip_prefix("/v0/beads/")
            .ok_or_else(|| refusal(404, "not_found"))?
            .to_owned();
        if header("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return Err(refusal(401, "unauthenticated"));
        }
        if let Some(stamp) =
            header("bd-project-id").filter(|stamp| path != "context" && *stamp != self.project)
        {
            assert!(!stamp.is_empty());
            let mut problem = refusal(400, "invalid_argument").1;
            (problem["param"], problem["reason"]) =
                ("Bd-Project-Id".into(), "project_mismatch".into());
            problem["server_project_id"] = self.project.clone().into();
            return Err((400, problem));
        }
        assert!(
            path == "context" || header("bd-project-id").is_some(),
            "a request without a project: {path}"
        );
        let query: Vec<(String, String)> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        if parts.method == "GET" {
            return self.read(&path, &query);
        }
        assert_eq!(
            (parts.method.as_str(), header("content-type"), query.len()),
            ("POST", Some("application/json"), 0)
        );
        let body: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| refusal(400, "invalid_argument"))?;
        let (id, verb) = path
            .strip_prefix("issues/")
            .and_then(|rest| rest.split_once([':', '/']))
            .ok_or_else(|| refusal(404, "not_found"))?;
        let row = self.row(id).cloned().ok_or_else(|| refusal(404, "not_found"))?;
        self.write(id, verb, &row, &body)
    }

    fn read(&self, path: &str, query: &[(String, String)]) -> Answer {
        let allow =
            |known: &[&str]| match query.iter().find(|(key, _)| !known.contains(&key.as_str())) {
                Some((key, _)) => {
                    Err(refusal_because(400, "invalid_argument", key, "unknown_parameter"))
                }
                None => Ok(()),
            };
        let value =
            |key: &str| query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        match path {
            "context" => {
                allow(&[])?;
                Ok(
                    json!({"api_version": self.api_version, "bd_version": "1.3.0", "schema_version": 66, "backend": "dolt", "dolt_mode": "server",
                    "database": "web", "project_id": self.project, "capabilities": self.capabilities, "wire_revision": 1}),
                )
            }
            "issues" => {
                allow(&["all", "include_templates", "include_gates", "sort", "cursor", "limit"])?;
                self.list(value)
            }
            "dependencies" => {
                allow(&["issue_id"])?;
                assert!((1..=100).contains(&query.len()));
                let edges = query
                    .iter()
                    .filter_map(|(_, id)| self.row(id))
                    .flat_map(|row| row["dependencies"].as_array().unwrap());
                let missing: Vec<_> = query
                    .iter()
                    .filter(|(_, id)| self.row(id).is_none())
                    .map(|(_, id)| id)
                    .collect();
                Ok(json!({"items": edges.collect::<Vec<_>>(), "missing": missing}))
            }
            "events" => {
                allow(&["since", "limit"])?;
                self.events(
                    value("since").unwrap().parse().unwrap(),
                    value("limit").unwrap().parse().unwrap(),
                )
            }
            _ => {
                allow(&["include_comments"])?;
                let mut row = path
                    .strip_prefix("issues/")
                    .and_then(|id| self.row(id))
                    .cloned()
                    .ok_or_else(|| refusal(404, "not_found"))?;
                let whole =
                    |edge: &Value| self.row(edge["depends_on_id"].as_str().unwrap()).cloned();
                row["dependencies"] =
                    row["dependencies"].as_array().unwrap().iter().filter_map(whole).collect();
                row["comments_omitted"] = (value("include_comments") != Some("true")).into();
                Ok(row)
            }
        }
    }

    fn list<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> Answer {
        let limit: usize = value("limit").unwrap().parse().unwrap();
        assert!(limit > 0, "unlimited reads are for the loopback only");
        let mark = format!("v{}|&=", self.cursors);
        let after = match value("cursor") {
            None => None,
            Some(cursor) => Some(
                cursor
                    .strip_prefix(&mark)
                    .ok_or_else(|| refusal(400, "invalid_cursor"))?
                    .to_owned(),
            ),
        };
        let all = value("all") == Some("true");
        let mut rows: Vec<&Value> =
            self.rows.iter().filter(|row| all || row["status"] != "closed").collect();
        rows.sort_by_key(|row| row["id"].as_str());
        let rows: Vec<&Value> =
            rows.into_iter().filter(|row| after.as_deref() < row["id"].as_str()).collect();
        let items: Vec<Value> = rows
            .iter()
            .take(limit)
            .map(|row| {
                let mut item = (*row).clone();
                let members = item.as_object_mut().unwrap();
                members.remove("revision");
                members.insert(
                    "comment_count".to_owned(),
                    row["comments"].as_array().unwrap().len().into(),
                );
                members.remove("comments");
                members.insert(
                    "dependency_count".to_owned(),
                    row["dependencies"].as_array().unwrap().len().into(),
                );
                if !self.shows_edges {
                    members.remove("dependencies");
                }
                item
            })
            .collect();
        let mut page = json!({"has_more": rows.len() > limit, "items": items});
        if rows.len() > limit {
            page["next_cursor"] =
                format!("{mark}{}", page["items"][limit - 1]["id"].as_str().unwrap()).into();
        }
        Ok(page)
    }

    fn events(&self, since: u64, limit: usize) -> Answer {
        if !self.journal_is_kept {
            return Err(refusal(409, "events_journal_disabled"));
        }
        let head = self.journal.last().map_or(0, |(seq, _)| *seq);
        if since + 1 < self.floor {
            let mut problem = refusal(410, "events_journal_truncated").1;
            (problem["floor"], problem["head"]) = (self.floor.into(), head.into());
            return Err((410, problem));
        }
        let records = self.journal.iter().filter(|(seq, _)| *seq > since).take(limit);
        let records: Vec<_> = records
            .map(|(seq, id)| json!({"seq": seq, "op": "update", "issue_id": id, "issue": null}))
            .collect();
        Ok(json!({"head": head, "records": records}))
    }

    fn write(&mut self, id: &str, verb: &str, row: &Value, body: &Map<String, Value>) -> Answer {
        let known: &[&str] = match verb {
            "claim" => &["actor"],
            "release" => &["actor", "expected_assignee", "force"],
            "close" => &["actor", "reason", "session", "force", "expected_version"],
            "comments" => &["author", "text"],
            _ => return Err(refusal(404, "not_found")),
        };
        if let Some(key) = body.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(refusal_because(400, "invalid_argument", key, "unknown_member"));
        }
        let text = |key: &str| {
            body.get(key)
                .and_then(Value::as_str)
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let holder = row["assignee"].as_str();
        let status = row["status"].as_str().unwrap();
        if verb == "comments" {
            let (Some(author), Some(_)) = (text("author"), text("text")) else {
                return Err(refusal(400, "invalid_argument"));
            };
            let comment = json!({"id": format!("c{}", self.versions), "issue_id": id, "author": author, "text": body["text"],
                "created_at": "2026-11-25T12:00:00Z"});
            self.change(id, |row| row["comments"].as_array_mut().unwrap().push(comment.clone()));
            return Ok(comment);
        }
        let actor = text("actor").ok_or_else(|| refusal(400, "invalid_argument"))?;
        let already = match verb {
            "claim" => {
                if row["ephemeral"] == true {
                    return Err(refusal(404, "not_found"));
                }
                if let Some(holder) = holder.filter(|holder| *holder != actor) {
                    return Err(refusal_with(
                        409,
                        "already_claimed",
                        &json!({"assignee": holder, "issue_status": status}),
                    ));
                }
                let already = status == "in_progress" && holder.is_some();
                if !already && status != "open" {
                    return Err(refusal_with(
                        409,
                        "not_claimable",
                        &json!({"issue_status": status}),
                    ));
                }
                if !already {
                    self.change(id, |row| {
                        row.insert("status".to_owned(), "in_progress".into());
                        row.insert("assignee".to_owned(), actor.into());
                    });
                }
                json!({"already_claimed": already})
            }
            "release" => {
                if !["open", "in_progress"].contains(&status) || holder.is_none() {
                    return Err(refusal(409, "not_releasable"));
                }
                let folded = |name: &str| name.replace(['.', '_'], "-");
                match text("expected_assignee") {
                    Some(expected) if holder.map(folded) != Some(folded(&expected)) => {
                        return Err(refusal(409, "precondition_failed"));
                    }
                    None if holder != Some(&actor) => return Err(refusal(409, "already_claimed")),
                    _ => {}
                }
                self.change(id, |row| {
                    row.insert("status".to_owned(), "open".into());
                    row.remove("assignee");
                });
                json!({"changed": true})
            }
            _ => {
                if body.get("expected_version").is_some_and(|version| *version != row["revision"]) {
                    return Err(refusal_with(
                        409,
                        "precondition_failed",
                        &json!({"param": "expected_version"}),
                    ));
                }
                let already = status == "closed";
                let edge = |edge: &Value, kind: &str, to: &str| {
                    edge["type"] == kind && edge["depends_on_id"] == to
                };
                let open = |row: &&Value| row["status"] != "closed";
                let edges = |row: &Value| row["dependencies"].as_array().unwrap().clone();
                let children = self
                    .rows
                    .iter()
                    .filter(open)
                    .filter(|child| edges(child).iter().any(|e| edge(e, "parent-child", id)))
                    .count();
                let blocked = self.rows.iter().filter(open).any(|other| {
                    edges(row).iter().any(|e| edge(e, "blocks", other["id"].as_str().unwrap()))
                });
                let forced = body.get("force") == Some(&true.into());
                if !already && !forced && children > 0 {
                    return Err(refusal_with(
                        409,
                        "not_closable",
                        &json!({"open_children": children}),
                    ));
                }
                if !already && !forced && blocked {
                    return Err(refusal(409, "not_closable"));
                }
                if !already {
                    let reason = body["reason"].clone();
                    self.change(id, |row| {
                        row.insert("status".to_owned(), "closed".into());
                        row.insert("close_reason".to_owned(), reason);
                    });
                }
                json!({"already_closed": already, "open_children": children})
            }
        };
        let mut reply = already;
        (reply["issue"], reply["revision"]) =
            (self.row(id).cloned().unwrap(), self.row(id).unwrap()["revision"].clone());
        Ok(reply)
    }
}

fn refusal(status: u16, code: &str) -> (u16, Value) {
    let detail = format!("refused; the request had the token {TOKEN}");
    (
        status,
        json!({"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail, "request_id": "r1"}),
    )
}

fn refusal_because(status: u16, code: &str, param: &str, reason: &str) -> (u16, Value) {
    refusal_with(status, code, &json!({"param": param, "reason": reason}))
}

fn refusal_with(status: u16, code: &str, members: &Value) -> (u16, Value) {
    let (status, mut problem) = refusal(status, code);
    for (key, value) in members.as_object().unwrap() {
        problem[key] = value.clone();
    }
    (status, problem)
}
