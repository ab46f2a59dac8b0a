//! Deeds, done one after the other in a server's store. What was done of each is remembered by a
//! [`crate::keeper::Keeper`].

use std::collections::{BTreeMap, BTreeSet};

use gastown_beads::{Change, EditError};
use gastown_beads_http::{Blockers, Class, Error, Session};

use crate::desk::Fault;
use crate::ledger::Record;
use crate::plan::{Deed, Prefixes};
use crate::records::{Book, Closing, Copied, Step, step};
use crate::served::{Line, Served, WRITING};
use crate::view::{Applied, allowed};

/// Who releases and closes, in the store's own history.
const ACTOR: &str = "gastown/beadstore-ctl";
/// How often a close looks again at a bead that others edit meanwhile.
const TRIES: u32 = 4;

/// What came of deeds.
#[derive(Default)]
pub(crate) struct Told {
    /// What was done, and what the store does not allow.
    pub(crate) applied: Applied,
    /// What is to be remembered of it.
    pub(crate) records: Vec<Record>,
    /// The beads that may be others now.
    pub(crate) touched: BTreeSet<String>,
    /// What ended it before the last deed.
    pub(crate) fault: Option<Fault>,
}

/// Why a deed was not done.
enum Problem {
    /// Its bead: the next deed may go on.
    Bead(EditError),
    /// The bead was perhaps closed by us and opened again by a person, and stays as it is.
    Heeded(EditError),
    /// The store, or our records.
    Store(Fault),
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Store(fault)
    }
}

impl Line {
    /// Does the deeds in their order, until one of them meets a fault of the store as a whole.
    pub(crate) async fn carry_out(
        &self,
        session: &Session,
        served: &Served,
        deeds: Vec<Deed>,
        prefixes: &Prefixes,
    ) -> Told {
        let mut told = Told::default();
        let mut allowed_deeds = Vec::new();
        for deed in deeds {
            match allowed(deed.bead(), &served.issues, prefixes) {
                Ok(()) => allowed_deeds.push(deed),
                Err(error) => told.applied.refused.push((deed, error)),
            }
        }
        let asked: BTreeMap<String, Copied> = allowed_deeds.iter().filter_map(asked).collect();
        told.fault = self.ask_for(served, &asked).await.err();
        for deed in allowed_deeds {
            if told.fault.is_some() {
                break;
            }
            told.touched.insert(deed.bead().to_owned());
            let done = self.one(session, &deed).await;
            told.take(deed, done);
        }
        if let Err(fault) = self.settle(&told.records).await {
            told.fault.get_or_insert(fault);
        }
        told
    }

    /// Remembers claims that are about to be copied.
    async fn ask_for(
        &self,
        served: &Served,
        asked: &BTreeMap<String, Copied>,
    ) -> Result<(), Fault> {
        if asked.is_empty() {
            return Ok(());
        }
        let held = self.keeper.held();
        let change = |book: &mut Book| {
            book.bind(&served.project);
            book.prune(&served.issues, &held);
            book.claims.extend(asked.iter().map(|(bead, copied)| (bead.clone(), copied.clone())));
        };
        self.keeper.keep_book(&change).await?;
        Ok(())
    }

    /// Remembers what became of claims. What was asked for stays so where it is not known to be
    /// done.
    async fn settle(&self, records: &[Record]) -> Result<(), Fault> {
        let ours =
            |record: &&Record| matches!(record, Record::Claimed { .. } | Record::Released { .. });
        let news: Vec<&Record> = records.iter().filter(ours).collect();
        if news.is_empty() {
            return Ok(());
        }
        self.keeper.keep_book(&|book| news.iter().for_each(|record| book.take(record))).await?;
        Ok(())
    }

    async fn one(&self, session: &Session, deed: &Deed) -> Result<Option<Change>, Problem> {
        let done = match deed {
            Deed::Claim { bead, assignee, .. } => session.claim(bead, assignee).await,
            Deed::Release { bead, assignee, .. } => session.release(bead, assignee, ACTOR).await,
            Deed::Close { bead, request: None, reason } => {
                session.close(bead, ACTOR, reason, Blockers::Respect).await
            }
            Deed::Comment { bead, author, text } => session.comment(bead, author, text).await,
            Deed::Close { bead, request: Some(request), reason } => {
                return self.close_once(session, bead, request, reason).await;
            }
        };
        done.map(Some).map_err(|error| self.trouble(deed.bead(), error))
    }

    /// Closes a bead for the landing of a request, once whatever happens; nothing where that was
    /// done before.
    async fn close_once(
        &self,
        session: &Session,
        bead: &str,
        request: &str,
        reason: &str,
    ) -> Result<Option<Change>, Problem> {
        let trouble = |error| self.trouble(bead, error);
        let mut record = self.closing(request).await?;
        for _ in 0..TRIES {
            let (issue, version) = session.get(bead).await.map_err(trouble)?;
            let asked_before = record.clone();
            match step(record.as_ref(), &issue, &version) {
                Step::Nothing => return Ok(None),
                Step::Remember => {
                    self.keep(request, record.as_ref(), Some(&Closing::done(bead))).await?;
                    // Where it was asked for before, its answer is this.
                    return Ok(Some(if record.is_some() {
                        Change::Made
                    } else {
                        Change::NotNeeded
                    }));
                }
                Step::Heed => {
                    self.keep(request, record.as_ref(), Some(&Closing::done(bead))).await?;
                    return Err(Problem::Heeded(heeded(bead, reason)));
                }
                Step::Ask => {}
            }
            let asked = Closing { bead: bead.to_owned(), asked: Some(version.clone()) };
            if record.as_ref() != Some(&asked) {
                self.keep(request, record.as_ref(), Some(&asked)).await?;
            }
            // The work is done, so what it waited for in the store is no reason to keep it open.
            match session.close_at(bead, ACTOR, reason, Blockers::Override, &version).await {
                Ok(change) => {
                    self.keep(request, Some(&asked), Some(&Closing::done(bead))).await?;
                    return Ok(Some(change));
                }
                Err(error) if error.is_unsure() => return Err(trouble(error)),
                // What was asked for earlier may have been done since; this one is known not to be.
                Err(Error::Moved { .. }) if asked_before.is_some() => record = Some(asked),
                Err(error) => {
                    self.keep(request, Some(&asked), asked_before.as_ref()).await?;
                    if !matches!(error, Error::Moved { .. }) {
                        return Err(trouble(error));
                    }
                    record = asked_before;
                }
            }
        }
        Err(trouble(Error::Moved { id: bead.to_owned() }))
    }

    async fn closing(&self, request: &str) -> Result<Option<Closing>, Fault> {
        Ok(self.keeper.closing(request).await?)
    }

    async fn keep(
        &self,
        request: &str,
        before: Option<&Closing>,
        after: Option<&Closing>,
    ) -> Result<(), Fault> {
        Ok(self.keeper.keep_closing(request, before, after).await?)
    }

    /// Whose trouble an error is.
    fn trouble(&self, bead: &str, error: Error) -> Problem {
        if error.class() != Class::Replan {
            return Problem::Store(self.fault(WRITING, error));
        }
        let id = bead.to_owned();
        Problem::Bead(match error {
            Error::NotFound(id) => EditError::NotFound(id),
            Error::AlreadyClaimed { by, .. } => EditError::AlreadyClaimed {
                id,
                by: by.unwrap_or_else(|| "somebody else".to_owned()),
            },
            Error::NotClaimable { status, .. } => EditError::NotClaimable { id, status },
            other => EditError::NotEditable { id, why: other.to_string() },
        })
    }
}

impl Told {
    fn take(&mut self, deed: Deed, done: Result<Option<Change>, Problem>) {
        match done {
            Ok(change) => {
                self.records.extend(deed.record());
                self.applied.done.extend(change.map(|change| (deed, change)));
            }
            Err(Problem::Heeded(error)) => {
                self.records.extend(deed.record());
                self.applied.refused.push((deed, error));
            }
            Err(Problem::Bead(error)) => self.applied.refused.push((deed, error)),
            Err(Problem::Store(fault)) => self.fault = Some(fault),
        }
    }
}

/// The claim that a deed will have copied.
fn asked(deed: &Deed) -> Option<(String, Copied)> {
    match deed {
        Deed::Claim { bead, holder: Some(holder), assignee } => Some((
            bead.clone(),
            Copied { holder: holder.clone(), assignee: assignee.clone(), asked: true },
        )),
        Deed::Claim { .. } | Deed::Release { .. } | Deed::Close { .. } | Deed::Comment { .. } => {
            None
        }
    }
}

fn heeded(bead: &str, reason: &str) -> EditError {
    let why = format!(
        "it was changed while the answer to its close ({reason}) was lost, and is not closed: somebody may have opened it again, so it stays \
         as it is; close it by hand if nothing is left to do"
    );
    EditError::NotEditable { id: bead.to_owned(), why }
}
