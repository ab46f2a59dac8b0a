//! Reads: the identity of the server, its issues, and its changes.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use gastown_beads::{Issue, IssueSet, Problems, is_valid_id};
use gastown_types::text;
use serde_json::Value;

use crate::endpoint::{Endpoint, encoded};
use crate::error::Error;
use crate::http::{Call, Options, Transport};
use crate::token::Token;
use crate::wire::{self, Context, Edges, Journal, MAX_TEXT, Page, Revision};

/// The capabilities that every session needs. The contract asks to check these, not the version.
const NEEDED: [&str; 4] = ["issues.list", "issues.get", "dependencies.list", "project.enforce"];

/// The longest project id, in bytes.
const MAX_PROJECT: usize = 255;

/// The most issues whose edges are requested at once.
const EDGES_AT_ONCE: usize = 100;

/// How many changes are requested at once; the contract allows 1 to 10,000.
const CHANGES_AT_ONCE: u64 = 1000;

/// The query for all issues: closed ones, templates and gates as well, as in an export.
const EVERYTHING: &str = "all=true&include_templates=true&include_gates=true&sort=created";

/// A client of one server, with a token where the server needs one.
#[derive(Clone)]
pub struct Client(Arc<Transport>);

/// A connection to a server that has the wanted project.
#[derive(Clone)]
pub struct Session {
    pub(crate) transport: Arc<Transport>,
    context: Arc<Context>,
}

/// All issues of a store.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The issues, without the text of comments: the contract gives that for one issue at a time.
    pub issues: IssueSet,
    /// The rows that cannot be read. "Lines" are rows, in the order of the server.
    pub problems: Problems,
}

/// The changes after a position of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The issues that changed.
    pub issues: BTreeSet<String>,
    /// The position to ask from the next time.
    pub upto: u64,
    /// Whether the journal already holds more.
    pub more: bool,
}

impl Client {
    /// Makes a client; nothing is sent yet.
    pub fn new(endpoint: Endpoint, token: Option<Token>, options: Options) -> Result<Self, Error> {
        Ok(Self(Arc::new(Transport::new(endpoint, token, options)?)))
    }

    /// Asks the server for its project and capabilities. Fails where the project is not `project`;
    /// without one, any project is taken.
    ///
    /// Sends one request. The session's other requests name the project, and the server refuses
    /// them if it has another one by then.
    pub async fn connect(&self, project: Option<&str>) -> Result<Session, Error> {
        let operation = "context";
        let call = Call { operation, path: "context", body: None, project: None };
        let mut context: Context =
            self.0.send(call).await?.map_err(|refusal| refusal.error(operation, ""))?;
        if context.api_version != "v0" {
            return Err(Error::UnknownVersion(text::line(&context.api_version, MAX_TEXT)));
        }
        if let Some(expected) = project.filter(|expected| *expected != context.project_id) {
            return Err(Error::WrongProject {
                expected: expected.to_owned(),
                found: text::line(&context.project_id, MAX_TEXT),
            });
        }
        if context.project_id.is_empty() {
            return Err(Error::NoProject);
        }
        // It goes into headers, statuses and annotations.
        if context.project_id.len() > MAX_PROJECT
            || !context.project_id.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Error::NotBeads {
                operation,
                why: format!(
                    "its project id {:?} is not valid",
                    text::line(&context.project_id, MAX_TEXT)
                ),
            });
        }
        for field in [&mut context.bd_version, &mut context.backend, &mut context.database] {
            *field = text::line(field, MAX_TEXT);
        }
        let session = Session { transport: self.0.clone(), context: Arc::new(context) };
        session.needs(&NEEDED)?;
        Ok(session)
    }
}

impl Session {
    /// The identity of the server.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The id of the project that all requests name.
    pub fn project(&self) -> &str {
        &self.context.project_id
    }

    /// Fails with the names of those of these capabilities that the server does not offer.
    pub(crate) fn needs(&self, capabilities: &[&str]) -> Result<(), Error> {
        let missing: Vec<_> =
            capabilities.iter().copied().filter(|needed| !self.context.offers(needed)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::Unsupported {
            version: self.context.bd_version.clone(),
            missing: missing.join(", "),
        })
    }

    /// Reads the whole store.
    ///
    /// The result is not from one moment: an issue that changes meanwhile is read before or after
    /// its change. Each row is whole.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let rows = match self.rows().await {
            // The contract: a cursor that the server has forgotten cannot be continued; begin again
            // without one.
            Err(Error::Refused { code, .. }) if code.as_str() == "invalid_cursor" => {
                self.rows().await?
            }
            other => other?,
        };
        let rows = self.with_edges(rows).await?;
        let (issues, problems) = wire::issues(&rows);
        Ok(Snapshot { issues, problems })
    }

    /// Reads one issue with its comments and edges, and its version for a guarded write.
    pub async fn get(&self, id: &str) -> Result<(Arc<Issue>, Revision), Error> {
        let operation = "get";
        let not_found = || Error::NotFound(text::line(id, MAX_TEXT));
        if !is_valid_id(id) {
            return Err(not_found());
        }
        let path = format!("issues/{}?include_comments=true", encoded(id));
        let row: Value = match self.transport.send(self.get_call(operation, &path)).await? {
            Ok(row) => row,
            Err(refusal) if refusal.is_not_found() => return Err(not_found()),
            Err(refusal) => return Err(refusal.error(operation, self.project())),
        };
        let mut edges = HashMap::new();
        self.edges(&[id], &mut edges).await?;
        let not_beads = |why: String| Error::NotBeads { operation, why };
        if row.get("comments_omitted").and_then(Value::as_bool) == Some(true) {
            return Err(not_beads("the requested comments are missing".to_owned()));
        }
        let (issue, revision) =
            wire::detail(row, edges.remove(id).unwrap_or_default()).map_err(not_beads)?;
        if issue.id == id {
            Ok((issue, revision))
        } else {
            Err(not_beads("it is not the requested issue".to_owned()))
        }
    }

    /// Reads the changes after change number `since`; 0 for the beginning of the journal.
    ///
    /// [`Error::Gone`] where the journal does not reach back that far or its head went back,
    /// [`Error::JournalDisabled`] where the server keeps no journal: then a snapshot is needed. The
    /// journal misses changes that came in by a pull or by SQL, so take a snapshot from time to
    /// time anyway.
    pub async fn changes(&self, since: u64) -> Result<Changes, Error> {
        let operation = "events";
        self.needs(&["events.list"])?;
        let path = format!("events?since={since}&limit={CHANGES_AT_ONCE}");
        let answer = self.transport.send::<Journal>(self.get_call(operation, &path)).await?;
        let journal = answer.map_err(|refusal| refusal.error(operation, self.project()))?;
        if journal.head < since {
            return Err(Error::Gone { floor: None, head: Some(journal.head) });
        }
        let rises = journal
            .records
            .iter()
            .try_fold(since, |last, record| (record.seq > last).then_some(record.seq));
        let Some(upto) = rises.filter(|upto| *upto <= journal.head) else {
            return Err(Error::NotBeads {
                operation,
                why: "the changes are out of order".to_owned(),
            });
        };
        let more = upto < journal.head && !journal.records.is_empty();
        Ok(Changes {
            issues: journal
                .records
                .into_iter()
                .map(|record| record.issue_id)
                .filter(|id| is_valid_id(id))
                .collect(),
            upto,
            more,
        })
    }

    /// Reads the number of the last change, from which [`Session::changes`] continues after a
    /// snapshot; `None` where the server keeps no journal.
    ///
    /// Read it before the snapshot, so that no change between the two is missed.
    pub async fn position(&self) -> Result<Option<u64>, Error> {
        if self.needs(&["events.list"]).is_err() {
            return Ok(None);
        }
        let answer = self
            .transport
            .send::<Journal>(self.get_call("events", "events?since=0&limit=1"))
            .await?;
        match answer.map_err(|refusal| refusal.error("events", self.project())) {
            Ok(journal) => Ok(Some(journal.head)),
            // The journal was cut short at its beginning; the error names its end.
            Err(Error::Gone { head: Some(head), .. }) => Ok(Some(head)),
            Err(Error::JournalDisabled | Error::Gone { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A GET for this project.
    fn get_call<'a>(&'a self, operation: &'static str, path: &'a str) -> Call<'a> {
        Call { operation, path, body: None, project: Some(self.project()) }
    }

    /// Reads all rows, a page at a time.
    async fn rows(&self) -> Result<Vec<Value>, Error> {
        let operation = "list";
        let Options { max_store, max_issues, page, .. } = self.transport.options;
        let (mut rows, mut bytes, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let mut path = format!("issues?{EVERYTHING}&limit={}", page.max(1));
            if !cursor.is_empty() {
                path.push_str("&cursor=");
                path.push_str(&encoded(&cursor));
            }
            let answer = self.transport.send_sized::<Page>(self.get_call(operation, &path)).await?;
            let (page, size) =
                answer.map_err(|refusal| refusal.error(operation, self.project()))?;
            bytes += size;
            if bytes > max_store {
                return Err(Error::TooLarge { operation, limit: max_store });
            }
            let is_empty = page.items.is_empty();
            rows.extend(page.items);
            if rows.len() > max_issues {
                return Err(Error::TooMany(max_issues));
            }
            match page.next_cursor.filter(|_| page.has_more) {
                None if page.has_more => {
                    return Err(Error::NotBeads {
                        operation,
                        why: "there are more pages, but the cursor is missing".to_owned(),
                    });
                }
                None => return Ok(rows),
                // Without this check a cursor that leads in a circle would be followed for ever.
                Some(next) if is_empty || next.is_empty() || next == cursor => {
                    return Err(Error::NotBeads {
                        operation,
                        why: "its cursor does not advance".to_owned(),
                    });
                }
                Some(next) => cursor = next,
            }
        }
    }

    /// Adds the edges that rows count and do not show: without them a blocked issue would look ready.
    async fn with_edges(&self, mut rows: Vec<Value>) -> Result<Vec<Value>, Error> {
        let id = |row: &Value| {
            row.get("id").and_then(Value::as_str).filter(|id| is_valid_id(id)).map(str::to_owned)
        };
        let incomplete: Vec<String> =
            rows.iter().filter(|row| wire::hides_edges(row)).filter_map(id).collect();
        let (mut edges, mut bytes) = (HashMap::new(), 0);
        for ids in incomplete.chunks(EDGES_AT_ONCE) {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            bytes += self.edges(&ids, &mut edges).await?;
            if bytes > self.transport.options.max_store {
                return Err(Error::TooLarge {
                    operation: "dependencies",
                    limit: self.transport.options.max_store,
                });
            }
        }
        for row in rows.iter_mut().filter(|row| wire::hides_edges(row)) {
            let found = id(row).and_then(|id| edges.remove(&id));
            if let (Some(found), Some(members)) = (found, row.as_object_mut()) {
                members.insert("dependencies".to_owned(), Value::Array(found));
            }
        }
        Ok(rows)
    }

    /// Adds the edges of these issues, as they are stored, to `by_issue`; returns the size of the
    /// answer in bytes.
    async fn edges(
        &self,
        ids: &[&str],
        by_issue: &mut HashMap<String, Vec<Value>>,
    ) -> Result<usize, Error> {
        let operation = "dependencies";
        let mut path = String::from("dependencies?");
        for (place, id) in ids.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(path, "{}issue_id={}", if place > 0 { "&" } else { "" }, encoded(id));
        }
        let answer = self.transport.send_sized::<Edges>(self.get_call(operation, &path)).await?;
        let (edges, size) = answer.map_err(|refusal| refusal.error(operation, self.project()))?;
        for edge in edges.items {
            match edge.get("issue_id").and_then(Value::as_str) {
                Some(from) if ids.contains(&from) => {
                    by_issue.entry(from.to_owned()).or_default().push(edge)
                }
                _ => {
                    return Err(Error::NotBeads {
                        operation,
                        why: "it has an edge of another issue".to_owned(),
                    });
                }
            }
        }
        Ok(size)
    }
}
