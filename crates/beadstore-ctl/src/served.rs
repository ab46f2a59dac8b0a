//! A store that `bd serve` has: asked for, and kept up with by its journal.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gastown_beads::{Dialect, Issue, IssueSet};
use gastown_beads_http::{Class, Client, Error, Session};

use crate::desk::Fault;
use crate::keeper::Keeper;
use crate::ledger::{Ledger, Record};
use crate::place::Server;
use crate::records::Book;

/// All of the store is read this often: its journal knows nothing of what came by a pull or by SQL.
const WHOLE_EVERY: Duration = Duration::from_secs(600);
/// When more beads changed than this, all of the store is read at once.
const MAX_LOOKS: usize = 200;
/// The most answers of the journal that are followed at once.
const MAX_PAGES: u32 = 20;

/// For messages.
pub(crate) const READING: &str = "reading beads";
/// For messages.
pub(crate) const WRITING: &str = "writing beads";

/// How a server is reached.
pub struct Line {
    /// The server.
    pub server: Server,
    /// With the token that its Secret held just now.
    pub client: Client,
    /// Where records are kept.
    pub keeper: Arc<dyn Keeper>,
}

/// A server's store as it was read.
#[derive(Clone, Debug)]
pub struct Served {
    /// Its project.
    pub project: String,
    /// Where it is.
    pub url: String,
    /// The beads. The text of comments is there where a bead was looked at by itself.
    pub issues: IssueSet,
    /// Rows that no bead was read from.
    pub malformed: usize,
    /// What we wrote.
    pub ledger: Ledger,
    /// Counts up with each change of the beads.
    pub number: u64,
    /// How far its journal was followed; nothing where it keeps none.
    position: Option<u64>,
    /// When all of it was read.
    whole: Instant,
}

/// A fault of a server, with what was attempted.
pub(crate) fn fault(doing: &'static str, url: &str, source: Error) -> Fault {
    Fault::Served { doing, url: url.to_owned(), source: Box::new(source) }
}

impl Line {
    /// A fault that says what was attempted.
    pub(crate) fn fault(&self, doing: &'static str, source: Error) -> Fault {
        fault(doing, &self.server.url, source)
    }

    fn unread(&self) -> impl Fn(Error) -> Fault + '_ {
        |error| self.fault(READING, error)
    }

    /// Asks the server who it is and what it has; what did not change since `before` is taken from
    /// there.
    pub(crate) async fn read(&self, before: Option<&Served>) -> Result<(Session, Served), Fault> {
        let (session, book) = self.connect().await?;
        let before = before.filter(|before| before.project == session.project());
        let followed = match before {
            Some(before) => self.follow(&session, before).await?,
            None => None,
        };
        let mut served = match followed {
            Some(served) => served,
            None => self.whole(&session, before).await?,
        };
        served.ledger = Ledger::default();
        served.ledger.extend(book.records().chain(self.keeper.closed()));
        Ok((session, served))
    }

    /// A session with the project of the spec, else with the one of the first contact.
    async fn connect(&self) -> Result<(Session, Book), Fault> {
        let book = self.keeper.book().await?;
        let known = Some(book.project.as_str()).filter(|project| !project.is_empty());
        let session = self
            .client
            .connect(self.server.project.as_deref().or(known))
            .await
            .map_err(self.unread())?;
        if known == Some(session.project()) {
            return Ok((session, book));
        }
        let book = self.keeper.keep_book(&|book| book.bind(session.project())).await?;
        Ok((session, book))
    }

    /// What the journal makes of `before`; nothing where all is to be read.
    async fn follow(&self, session: &Session, before: &Served) -> Result<Option<Served>, Fault> {
        let Some(mut position) = before.position.filter(|_| before.whole.elapsed() < WHOLE_EVERY)
        else {
            return Ok(None);
        };
        let mut touched = BTreeSet::new();
        for _ in 0..MAX_PAGES {
            let changes = match session.changes(position).await {
                Ok(changes) => changes,
                Err(error) if error.class() == Class::Reread => return Ok(None),
                Err(error) => return Err(self.fault(READING, error)),
            };
            touched.extend(changes.issues);
            position = changes.upto;
            if touched.len() > MAX_LOOKS {
                return Ok(None);
            }
            if !changes.more {
                let looks = look(session, touched.iter().map(String::as_str))
                    .await
                    .map_err(self.unread())?;
                return Ok(Some(Served { position: Some(position), ..before.with(looks) }));
            }
        }
        Ok(None)
    }

    async fn whole(&self, session: &Session, before: Option<&Served>) -> Result<Served, Fault> {
        // Before the snapshot, so that nothing between the two is missed.
        let position = session.position().await.map_err(self.unread())?;
        let whole = Instant::now();
        let snapshot = session.snapshot().await.map_err(self.unread())?;
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
        Ok(Served {
            project,
            url,
            issues,
            malformed,
            ledger: Ledger::default(),
            number,
            position,
            whole,
        })
    }

    /// These beads with their comments, as the server has them now.
    pub(crate) async fn details(
        &self,
        ids: &[String],
    ) -> Result<HashMap<String, Option<Arc<Issue>>>, Fault> {
        let (session, _) = self.connect().await?;
        look(&session, ids.iter().map(String::as_str)).await.map_err(self.unread())
    }
}

impl Served {
    /// The same with these beads as they were just looked at; one that is gone is taken out.
    pub(crate) fn with(&self, mut looks: HashMap<String, Option<Arc<Issue>>>) -> Self {
        let mut served = self.clone();
        if looks.is_empty() {
            return served;
        }
        let kept = self.issues.iter().map(|issue| match looks.remove(&issue.id) {
            Some(look) => look,
            None => Some(issue.clone()),
        });
        let kept: Vec<Arc<Issue>> = kept.flatten().collect();
        served.issues =
            IssueSet::new(Dialect::Export, kept.into_iter().chain(looks.into_values().flatten()));
        served.number += u64::from(!same(&served.issues, &self.issues));
        served
    }

    /// The same after these records.
    pub(crate) fn after(mut self, records: impl IntoIterator<Item = Record>) -> Self {
        self.ledger.extend(records);
        self
    }
}

/// These beads as they are now; nothing for one that is not there.
pub(crate) async fn look<'a>(
    session: &Session,
    ids: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, Option<Arc<Issue>>>, Error> {
    let mut looks = HashMap::new();
    for id in ids {
        let issue = match session.get(id).await {
            Ok((issue, _)) => Some(issue),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        looks.insert(id.to_owned(), issue);
    }
    Ok(looks)
}

/// A row of a list, which shows no comments, with those that are known of it.
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
