//! Reading: who answers, what is there, and what changed.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use gastown_beads::{Issue, IssueSet, Problems, is_valid_id};
use serde_json::Value;

use crate::endpoint::{Endpoint, encoded};
use crate::error::{Error, tame};
use crate::http::{Ask, Options, Wire};
use crate::token::Token;
use crate::wire::{self, Context, Edges, Journal, Page, Revision};

/// What a session needs of a server in any case. The contract wants them asked for, not its
/// version.
const NEEDED: [&str; 4] = ["issues.list", "issues.get", "dependencies.list", "project.enforce"];

/// The longest id of a project, in bytes.
const MAX_PROJECT: usize = 255;

/// The most issues that edges may be asked for at once.
const EDGES_AT_ONCE: usize = 100;

/// How many changes are asked for at once; the contract allows 1 to 10,000.
const CHANGES_AT_ONCE: u64 = 1000;

/// All of the store's issues: closed ones, templates and gates as well, as an export has them.
const EVERYTHING: &str = "all=true&include_templates=true&include_gates=true&sort=created";

/// One server, with a token where it wants one.
#[derive(Clone)]
pub struct Client(Arc<Wire>);

/// A server that is known to have the project that is wanted.
#[derive(Clone)]
pub struct Session {
    pub(crate) wire: Arc<Wire>,
    context: Arc<Context>,
}

/// A whole store.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Its issues, without the text of comments: the contract gives that for one issue at a time.
    pub issues: IssueSet,
    /// What of it cannot be read. "Lines" are rows, in the order in which the server gives them.
    pub problems: Problems,
}

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The issues that changed.
    pub issues: BTreeSet<String>,
    /// What to ask from the next time.
    pub upto: u64,
    /// Whether there are more already.
    pub more: bool,
}

impl Client {
    /// A client that has not spoken to its server yet.
    pub fn new(endpoint: Endpoint, token: Option<Token>, options: Options) -> Result<Self, Error> {
        Ok(Self(Arc::new(Wire::new(endpoint, token, options)?)))
    }

    /// Asks who answers, and goes on only with the project that is wanted; without one in the spec,
    /// with the one that is there.
    ///
    /// One request. The session's other requests name the project, and the server refuses them if
    /// it has another one by then.
    pub async fn connect(&self, project: Option<&str>) -> Result<Session, Error> {
        let operation = "context";
        let ask = Ask { operation, path: "context", body: None, project: None };
        let mut context: Context =
            self.0.ask(ask).await?.map_err(|refusal| refusal.error(operation, ""))?;
        if context.api_version != "v0" {
            return Err(Error::UnknownVersion(tame(&context.api_version)));
        }
        if let Some(expected) = project.filter(|expected| *expected != context.project_id) {
            return Err(Error::WrongProject {
                expected: expected.to_owned(),
                found: tame(&context.project_id),
            });
        }
        if context.project_id.is_empty() {
            return Err(Error::NoProject);
        }
        // It goes into headers, statuses and records.
        if context.project_id.len() > MAX_PROJECT
            || !context.project_id.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Error::NotBeads {
                operation,
                why: format!("its project id {:?} is none", tame(&context.project_id)),
            });
        }
        for words in [&mut context.bd_version, &mut context.backend, &mut context.database] {
            *words = tame(words);
        }
        let session = Session { wire: self.0.clone(), context: Arc::new(context) };
        session.needs(&NEEDED)?;
        Ok(session)
    }
}

impl Session {
    /// Who answers, for status.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The project that all requests name.
    pub fn project(&self) -> &str {
        &self.context.project_id
    }

    /// An error that names what of these the server does not offer.
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
    /// It is no picture of one moment: an issue that changes meanwhile is read as it was or as it
    /// is. Each row is whole.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let rows = match self.rows().await {
            // The contract: a cursor that is not known any more cannot be saved; begin again
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

    /// One issue with its comments and its edges, and the version that a guarded write names.
    pub async fn get(&self, id: &str) -> Result<(Arc<Issue>, Revision), Error> {
        let operation = "get";
        let not_found = || Error::NotFound(tame(id));
        if !is_valid_id(id) {
            return Err(not_found());
        }
        let path = format!("issues/{}?include_comments=true", encoded(id));
        let row: Value = match self.wire.ask(self.read(operation, &path)).await? {
            Ok(row) => row,
            Err(refusal) if refusal.is_not_found() => return Err(not_found()),
            Err(refusal) => return Err(refusal.error(operation, self.project())),
        };
        let mut edges = HashMap::new();
        self.edges(&[id], &mut edges).await?;
        let not_beads = |why: String| Error::NotBeads { operation, why };
        if row.get("comments_omitted").and_then(Value::as_bool) == Some(true) {
            return Err(not_beads("it leaves out the comments that were asked for".to_owned()));
        }
        let (issue, revision) =
            wire::detail(row, edges.remove(id).unwrap_or_default()).map_err(not_beads)?;
        if issue.id == id {
            Ok((issue, revision))
        } else {
            Err(not_beads("it is another issue".to_owned()))
        }
    }

    /// What changed after the change number `since`; 0 for the beginning of the journal.
    ///
    /// [`Error::Gone`] where the journal does not reach back that far or went back itself,
    /// [`Error::JournalDisabled`] where there is none: then only a snapshot tells. The journal
    /// knows nothing of changes that came in by a pull or by SQL, so take a snapshot now and then
    /// anyway.
    pub async fn changes(&self, since: u64) -> Result<Changes, Error> {
        let operation = "events";
        self.needs(&["events.list"])?;
        let path = format!("events?since={since}&limit={CHANGES_AT_ONCE}");
        let said = self.wire.ask::<Journal>(self.read(operation, &path)).await?;
        let journal = said.map_err(|refusal| refusal.error(operation, self.project()))?;
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

    /// The number of the last change, to ask [`Session::changes`] from after a snapshot; none where
    /// there is no journal.
    ///
    /// Asked before the snapshot, nothing that comes between is missed.
    pub async fn position(&self) -> Result<Option<u64>, Error> {
        if self.needs(&["events.list"]).is_err() {
            return Ok(None);
        }
        let said = self.wire.ask::<Journal>(self.read("events", "events?since=0&limit=1")).await?;
        match said.map_err(|refusal| refusal.error("events", self.project())) {
            Ok(journal) => Ok(Some(journal.head)),
            // It does not reach back to its beginning, and says where it ends.
            Err(Error::Gone { head: Some(head), .. }) => Ok(Some(head)),
            Err(Error::JournalDisabled | Error::Gone { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn read<'a>(&'a self, operation: &'static str, path: &'a str) -> Ask<'a> {
        Ask { operation, path, body: None, project: Some(self.project()) }
    }

    /// All rows, a page at a time.
    async fn rows(&self) -> Result<Vec<Value>, Error> {
        let operation = "list";
        let Options { max_store, max_issues, page, .. } = self.wire.options;
        let (mut rows, mut bytes, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let mut path = format!("issues?{EVERYTHING}&limit={}", page.max(1));
            if !cursor.is_empty() {
                path.push_str("&cursor=");
                path.push_str(&encoded(&cursor));
            }
            let said = self.wire.ask_sized::<Page>(self.read(operation, &path)).await?;
            let (page, size) = said.map_err(|refusal| refusal.error(operation, self.project()))?;
            bytes += size;
            if bytes > max_store {
                return Err(Error::TooLarge { operation, limit: max_store });
            }
            let nothing_new = page.items.is_empty();
            rows.extend(page.items);
            if rows.len() > max_issues {
                return Err(Error::TooMany(max_issues));
            }
            match page.next_cursor.filter(|_| page.has_more) {
                None if page.has_more => {
                    return Err(Error::NotBeads {
                        operation,
                        why: "there is more, and no cursor to it".to_owned(),
                    });
                }
                None => return Ok(rows),
                // A server that leads in circles would be followed for ever.
                Some(next) if nothing_new || next.is_empty() || next == cursor => {
                    return Err(Error::NotBeads {
                        operation,
                        why: "its cursor leads nowhere".to_owned(),
                    });
                }
                Some(next) => cursor = next,
            }
        }
    }

    /// Rows with the edges that they count and do not show: without them what is blocked would look
    /// ready.
    async fn with_edges(&self, mut rows: Vec<Value>) -> Result<Vec<Value>, Error> {
        let id = |row: &Value| {
            row.get("id").and_then(Value::as_str).filter(|id| is_valid_id(id)).map(str::to_owned)
        };
        let lacking: Vec<String> =
            rows.iter().filter(|row| wire::lacks_edges(row)).filter_map(id).collect();
        let (mut edges, mut bytes) = (HashMap::new(), 0);
        for ids in lacking.chunks(EDGES_AT_ONCE) {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            bytes += self.edges(&ids, &mut edges).await?;
            if bytes > self.wire.options.max_store {
                return Err(Error::TooLarge {
                    operation: "dependencies",
                    limit: self.wire.options.max_store,
                });
            }
        }
        for row in rows.iter_mut().filter(|row| wire::lacks_edges(row)) {
            let found = id(row).and_then(|id| edges.remove(&id));
            if let (Some(found), Some(members)) = (found, row.as_object_mut()) {
                members.insert("dependencies".to_owned(), Value::Array(found));
            }
        }
        Ok(rows)
    }

    /// Adds the edges of these issues, as they are stored, to those of others; gives the size of
    /// the answer in bytes.
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
        let said = self.wire.ask_sized::<Edges>(self.read(operation, &path)).await?;
        let (edges, size) = said.map_err(|refusal| refusal.error(operation, self.project()))?;
        for edge in edges.items {
            match edge.get("issue_id").and_then(Value::as_str) {
                Some(from) if ids.contains(&from) => {
                    by_issue.entry(from.to_owned()).or_default().push(edge)
                }
                _ => {
                    return Err(Error::NotBeads {
                        operation,
                        why: "an edge of another issue".to_owned(),
                    });
                }
            }
        }
        Ok(size)
    }
}
