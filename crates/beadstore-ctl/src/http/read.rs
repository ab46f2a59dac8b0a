//! Reads stores behind `bd serve`: the whole store, then its journal of changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gastown_beads::{Dialect, Issue, IssueSet};
use gastown_beads_http::{Class, Client, Error, Session};
use gastown_core::beads::{History, Record};

use super::intent_store::IntentStore;
use super::intents::Intents;
use crate::error::{Operation, StoreError};
use crate::validate::Server;

/// The whole store is read this often: its journal misses changes by a pull or by SQL.
const WHOLE_EVERY: Duration = Duration::from_secs(600);
/// When more beads changed than this, the whole store is read instead.
const MAX_CHANGED: usize = 200;
/// The most parts of the journal that one reading follows.
const MAX_PAGES: u32 = 20;

/// A connection to a server.
pub struct HttpConnection {
    /// The server.
    pub server: Server,
    /// The client, with the token that the Secret holds now.
    pub client: Client,
    /// The records of our edits.
    pub intents: Arc<dyn IntentStore>,
}

/// The store of a server at one time.
#[derive(Clone, Debug)]
pub struct HttpSnapshot {
    /// The id of the project.
    pub project: String,
    /// The URL of the server.
    pub url: String,
    /// The beads. Comments are present where a bead was read on its own.
    pub issues: IssueSet,
    /// The number of rows that cannot be read as a bead.
    pub malformed: usize,
    /// Our earlier edits.
    pub history: History,
    /// A number that grows with each change of the beads or of what we wrote.
    pub number: u64,
    /// The position in the journal; absent where the server keeps no journal.
    position: Option<u64>,
    /// When the whole store was read.
    whole_at: Instant,
}

impl HttpConnection {
    /// An error of this server.
    pub(crate) fn error(&self, operation: Operation, source: Error) -> StoreError {
        StoreError::http(operation, &self.server.url, source)
    }

    fn read_error(&self) -> impl Fn(Error) -> StoreError + '_ {
        |error| self.error(Operation::Read, error)
    }

    /// Reads the store; beads that did not change since `before` are taken from there.
    pub(crate) async fn read(
        &self,
        before: Option<&HttpSnapshot>,
    ) -> Result<(Session, HttpSnapshot), StoreError> {
        let (session, intents) = self.connect().await?;
        // Before the beads: one whose close was done before is open only when it was reopened.
        let done_closes = self.intents.done_closes();
        let before = before.filter(|before| before.project == session.project());
        let followed = match before {
            Some(before) => self.follow(&session, before).await?,
            None => None,
        };
        let mut snapshot = match followed {
            Some(snapshot) => snapshot,
            None => self.whole(&session, before).await?,
        };
        snapshot.history = History::default();
        snapshot.history.extend(intents.records().chain(done_closes));
        snapshot.number +=
            u64::from(before.is_some_and(|before| before.history != snapshot.history));
        Ok((session, snapshot))
    }

    /// A session with the project of the spec, else with the one of the first connection.
    async fn connect(&self) -> Result<(Session, Intents), StoreError> {
        let intents = self.intents.intents().await?;
        let known = Some(intents.project.as_str()).filter(|project| !project.is_empty());
        let session = self
            .client
            .connect(self.server.project.as_deref().or(known))
            .await
            .map_err(self.read_error())?;
        if known == Some(session.project()) {
            return Ok((session, intents));
        }
        let bind = |intents: &mut Intents| intents.bind(session.project());
        let intents = self.intents.update_intents(&bind).await?;
        Ok((session, intents))
    }

    /// `before` with the changes in the journal; `None` where the whole store must be read.
    async fn follow(
        &self,
        session: &Session,
        before: &HttpSnapshot,
    ) -> Result<Option<HttpSnapshot>, StoreError> {
        let Some(mut position) =
            before.position.filter(|_| before.whole_at.elapsed() < WHOLE_EVERY)
        else {
            return Ok(None);
        };
        let mut touched = BTreeSet::new();
        for _ in 0..MAX_PAGES {
            let changes = match session.changes(position).await {
                Ok(changes) => changes,
                Err(error) if error.class() == Class::Reread => return Ok(None),
                Err(error) => return Err(self.error(Operation::Read, error)),
            };
            touched.extend(changes.issues);
            position = changes.upto;
            if touched.len() > MAX_CHANGED {
                return Ok(None);
            }
            if !changes.more {
                let beads = read_beads(session, touched.iter().map(String::as_str))
                    .await
                    .map_err(self.read_error())?;
                let snapshot = before.with(beads);
                return Ok(Some(HttpSnapshot { position: Some(position), ..snapshot }));
            }
        }
        Ok(None)
    }

    async fn whole(
        &self,
        session: &Session,
        before: Option<&HttpSnapshot>,
    ) -> Result<HttpSnapshot, StoreError> {
        // Before the snapshot, so that no change between the two is missed.
        let position = session.position().await.map_err(self.read_error())?;
        let whole_at = Instant::now();
        let snapshot = session.snapshot().await.map_err(self.read_error())?;
        let malformed = snapshot.problems.total().saturating_sub(snapshot.problems.harmless());
        let (number, issues) = match before {
            None => (1, snapshot.issues),
            Some(before) => {
                let issues = IssueSet::new(
                    Dialect::Export,
                    snapshot.issues.iter().map(|issue| with_comments(issue, &before.issues)),
                );
                (before.number + u64::from(!same(&issues, &before.issues)), issues)
            }
        };
        let (project, url) = (session.project().to_owned(), self.server.url.clone());
        Ok(HttpSnapshot {
            project,
            url,
            issues,
            malformed,
            history: History::default(),
            number,
            position,
            whole_at,
        })
    }

    /// Reads beads with their comments.
    pub(crate) async fn details(&self, ids: &[String]) -> Result<Beads, StoreError> {
        let (session, _) = self.connect().await?;
        read_beads(&session, ids.iter().map(String::as_str)).await.map_err(self.read_error())
    }
}

impl HttpSnapshot {
    /// This snapshot with beads that were just read; a bead that does not exist any more is removed.
    pub(crate) fn with(&self, mut beads: Beads) -> Self {
        let mut snapshot = self.clone();
        if beads.is_empty() {
            return snapshot;
        }
        let kept = self.issues.iter().map(|issue| match beads.remove(&issue.id) {
            Some(read) => read,
            None => Some(issue.clone()),
        });
        let kept: Vec<Arc<Issue>> = kept.flatten().collect();
        snapshot.issues =
            IssueSet::new(Dialect::Export, kept.into_iter().chain(beads.into_values().flatten()));
        snapshot.number += u64::from(!same(&snapshot.issues, &self.issues));
        snapshot
    }

    /// This snapshot with further records in its history.
    pub(crate) fn with_records(mut self, records: impl IntoIterator<Item = Record>) -> Self {
        let before = self.history.clone();
        self.history.extend(records);
        self.number += u64::from(self.history != before);
        self
    }
}

/// Beads by id; `None` for one that does not exist.
pub(crate) type Beads = HashMap<String, Option<Arc<Issue>>>;

/// Reads beads one by one.
pub(crate) async fn read_beads<'a>(
    session: &Session,
    ids: impl Iterator<Item = &'a str>,
) -> Result<Beads, Error> {
    let mut beads = HashMap::new();
    for id in ids {
        let issue = match session.get(id).await {
            Ok((issue, _)) => Some(issue),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        beads.insert(id.to_owned(), issue);
    }
    Ok(beads)
}

/// A row of the list, which has no comments, with the comments that were read before.
fn with_comments(row: &Arc<Issue>, known: &IssueSet) -> Arc<Issue> {
    let Some(before) = known.get(&row.id).filter(|before| !before.comments.is_empty()) else {
        return row.clone();
    };
    Arc::new(Issue { comments: before.comments.clone(), ..Issue::clone(row) })
}

fn same(one: &IssueSet, other: &IssueSet) -> bool {
    one.len() == other.len()
        && one.iter().all(|issue| other.get(&issue.id).is_some_and(|before| before == issue))
}
