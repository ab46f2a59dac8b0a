//! Makes edits at a server, one after the other, each with its record in an
//! [`IntentStore`](super::intent_store::IntentStore).

use std::collections::{BTreeMap, BTreeSet};

use gastown_beads::{Change, EditError};
use gastown_beads_http::{Class, Error, Session};
use gastown_core::beads::{CloseStep, Edit, Prefixes, Record, close_step};

use super::intents::{ClaimIntent, CloseIntent, Intents};
use super::read::{HttpConnection, HttpSnapshot};
use crate::applied::{Applied, check_bead};
use crate::error::{Operation, StoreError};

/// The actor of releases and closes in the server's own history.
const ACTOR: &str = "gastown/beadstore-ctl";
/// How many times a close reads a bead again that others edit meanwhile.
const TRIES: u32 = 4;

/// The results of edits.
#[derive(Default)]
pub(crate) struct EditResults {
    /// The edits that succeeded, and those that the store refuses.
    pub(crate) applied: Applied,
    /// The records of the edits.
    pub(crate) records: Vec<Record>,
    /// The beads that may have changed.
    pub(crate) touched: BTreeSet<String>,
    /// The error that ended the edits before the last one.
    pub(crate) error: Option<StoreError>,
}

/// Why an edit was not made.
enum Failure {
    /// The server refuses it for this bead; the next edit may succeed.
    Refused(EditError),
    /// We may have closed the bead, and a person may have reopened it: it stays open.
    LeftOpen(EditError),
    /// The store, or the records, failed.
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Makes edits in their order, until one of them fails for the store as a whole.
pub(crate) async fn apply(
    connection: &HttpConnection,
    session: &Session,
    snapshot: &HttpSnapshot,
    edits: Vec<Edit>,
    prefixes: &Prefixes,
) -> EditResults {
    let mut results = EditResults::default();
    let mut allowed = Vec::new();
    for edit in edits {
        match check_bead(edit.bead(), &snapshot.issues, prefixes) {
            Ok(()) => allowed.push(edit),
            Err(error) => results.applied.refused.push((edit, error)),
        }
    }
    results.error = record_intents(connection, snapshot, &allowed).await.err();
    for edit in allowed {
        if results.error.is_some() {
            break;
        }
        results.touched.insert(edit.bead().to_owned());
        let result = apply_one(connection, session, &edit).await;
        results.add(edit, result);
    }
    if let Err(error) = record_results(connection, &results.records).await {
        results.error.get_or_insert(error);
    }
    results
}

/// Records the claims that are about to be copied.
async fn record_intents(
    connection: &HttpConnection,
    snapshot: &HttpSnapshot,
    edits: &[Edit],
) -> Result<(), StoreError> {
    let claims: BTreeMap<String, ClaimIntent> = edits.iter().filter_map(claim_intent).collect();
    if claims.is_empty() {
        return Ok(());
    }
    let held = connection.intents.held_claims();
    let change = |intents: &mut Intents| {
        intents.bind(&snapshot.project);
        intents.prune(&snapshot.issues, &held);
        intents.claims.extend(claims.iter().map(|(bead, claim)| (bead.clone(), claim.clone())));
    };
    connection.intents.update_intents(&change).await?;
    Ok(())
}

/// Records what became of claims. An intent stays where it is unknown whether the claim was copied.
async fn record_results(connection: &HttpConnection, records: &[Record]) -> Result<(), StoreError> {
    let is_of_claims =
        |record: &&Record| matches!(record, Record::Claimed { .. } | Record::Released { .. });
    let records: Vec<&Record> = records.iter().filter(is_of_claims).collect();
    if records.is_empty() {
        return Ok(());
    }
    let change = |intents: &mut Intents| records.iter().for_each(|record| intents.add(record));
    connection.intents.update_intents(&change).await?;
    Ok(())
}

async fn apply_one(
    connection: &HttpConnection,
    session: &Session,
    edit: &Edit,
) -> Result<Option<Change>, Failure> {
    let result = match edit {
        Edit::Claim { bead, assignee, .. } => session.claim(bead, assignee).await,
        Edit::Release { bead, assignee, .. } => session.release(bead, assignee, ACTOR).await,
        Edit::Comment { bead, author, text } => session.comment(bead, author, text).await,
        Edit::Close { bead, request, reason } => {
            return close_once(connection, session, bead, request, reason).await;
        }
    };
    result.map(Some).map_err(|error| failure(connection, edit.bead(), error))
}

/// Closes a bead for a landing, once whatever happens; `None` where that was done before.
async fn close_once(
    connection: &HttpConnection,
    session: &Session,
    bead: &str,
    request: &str,
    reason: &str,
) -> Result<Option<Change>, Failure> {
    let failure = |error| failure(connection, bead, error);
    let done = CloseIntent::done(bead);
    let mut intent = connection.intents.close_intent(request).await.map_err(StoreError::from)?;
    for _ in 0..TRIES {
        let (issue, version) = session.get(bead).await.map_err(failure)?;
        let before = intent.clone();
        match close_step(intent.as_ref(), &issue, &version) {
            CloseStep::Skip => return Ok(None),
            CloseStep::Record => {
                replace(connection, request, intent.as_ref(), Some(&done)).await?;
                // Where there is an intent, this is its result.
                let is_ours = intent.is_some();
                return Ok(Some(if is_ours { Change::Made } else { Change::NotNeeded }));
            }
            CloseStep::LeaveOpen => {
                let open = CloseIntent::left_open(bead);
                replace(connection, request, intent.as_ref(), Some(&open)).await?;
                return Err(Failure::LeftOpen(left_open(bead, reason)));
            }
            CloseStep::Close => {}
        }
        let pending = CloseIntent { at: Some(version.clone()), ..CloseIntent::done(bead) };
        if intent.as_ref() != Some(&pending) {
            replace(connection, request, intent.as_ref(), Some(&pending)).await?;
        }
        match session.close(bead, ACTOR, reason, &version).await {
            Ok(change) => {
                replace(connection, request, Some(&pending), Some(&done)).await?;
                return Ok(Some(change));
            }
            Err(error) if error.is_outcome_unknown() => return Err(failure(error)),
            // An earlier close may have been done since; this one is known not to be.
            Err(Error::Moved { .. }) if before.is_some() => intent = Some(pending),
            Err(error) => {
                replace(connection, request, Some(&pending), before.as_ref()).await?;
                if !matches!(error, Error::Moved { .. }) {
                    return Err(failure(error));
                }
                intent = before;
            }
        }
    }
    Err(failure(Error::Moved { id: bead.to_owned() }))
}

/// Replaces the state of a close.
async fn replace(
    connection: &HttpConnection,
    request: &str,
    before: Option<&CloseIntent>,
    after: Option<&CloseIntent>,
) -> Result<(), StoreError> {
    Ok(connection.intents.replace_close_intent(request, before, after).await?)
}

/// Whether an error concerns the bead or the store.
fn failure(connection: &HttpConnection, bead: &str, error: Error) -> Failure {
    if error.class() != Class::Replan {
        return Failure::Store(connection.error(Operation::Write, error));
    }
    let id = bead.to_owned();
    Failure::Refused(match error {
        Error::NotFound(id) => EditError::NotFound(id),
        Error::AlreadyClaimed { by, .. } => {
            EditError::AlreadyClaimed { id, by: by.unwrap_or_else(|| "somebody else".to_owned()) }
        }
        Error::NotClaimable { status, .. } => EditError::NotClaimable { id, status },
        other => EditError::NotEditable { id, why: other.to_string() },
    })
}

impl EditResults {
    fn add(&mut self, edit: Edit, result: Result<Option<Change>, Failure>) {
        match result {
            Ok(change) => {
                self.records.extend(edit.record());
                self.applied.done.extend(change.map(|change| (edit, change)));
            }
            Err(Failure::LeftOpen(error)) => {
                if let Edit::Close { bead, request, .. } = &edit {
                    let (bead, request) = (bead.clone(), request.clone());
                    self.records.push(Record::LeftOpen { bead, request });
                }
                self.applied.refused.push((edit, error));
            }
            Err(Failure::Refused(error)) => self.applied.refused.push((edit, error)),
            Err(Failure::Store(error)) => self.error = Some(error),
        }
    }
}

/// The intent of an edit that copies a claim, by bead.
fn claim_intent(edit: &Edit) -> Option<(String, ClaimIntent)> {
    let Edit::Claim { bead, holder, assignee } = edit else { return None };
    let (holder, assignee) = (holder.clone(), assignee.clone());
    Some((bead.clone(), ClaimIntent { holder, assignee, is_pending: true }))
}

fn left_open(bead: &str, reason: &str) -> EditError {
    let why = format!(
        "it changed while the answer to its close ({reason}) was lost, and it is open now: somebody may have reopened it, so it stays open; \
         close it by hand if nothing is left to do"
    );
    EditError::NotEditable { id: bead.to_owned(), why }
}
