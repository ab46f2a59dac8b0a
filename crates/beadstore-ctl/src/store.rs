//! Handles of stores, through which alone a store is read and written: one reader or writer at a
//! time, wherever the beads are.
//!
//! A write starts from the newest contents of the store, and another writer who was faster loses
//! nothing, so any replica may write.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gastown_beads::Issue;
use gastown_beads_http::Session;
use gastown_core::beads::{Edit, Record};
use gastown_git::{Class, Git, GitError, Remote};
use gastown_types::CommitId;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::applied::Applied;
use crate::connection::Connection;
use crate::error::StoreError;
use crate::git::branches::Branches;
use crate::git::mirror::{Mirrors, NewCommit, Pushed};
use crate::http::edit::{self, EditResults};
use crate::http::read::{HttpConnection, HttpSnapshot, read_beads};
use crate::revisions::{self, Revisions};
use crate::snapshot::{Reading, StoreSnapshot};
use crate::validate::{Repository, ValidBeadStore};

/// How many times a write is made when others push meanwhile.
const TRIES: u32 = 6;

/// The result of a write.
#[derive(Debug)]
pub struct Written {
    /// The store after the write.
    pub snapshot: StoreSnapshot,
    /// The edits that succeeded, and those that the store refuses.
    pub applied: Applied,
    /// The commit that was pushed, where one was needed.
    pub commit: Option<CommitId>,
}

/// The handle of one store.
pub struct StoreHandle {
    /// The uid of its BeadStore.
    uid: String,
    mirrors: Mirrors,
    revisions: Revisions,
    /// Held by the one who reads or writes the store.
    turn: tokio::sync::Mutex<()>,
    reading: Mutex<Option<Reading>>,
    /// The error with which the server asked to be retried later, and the time that it named.
    backoff: Mutex<Option<(Instant, StoreError)>>,
    /// Summaries of edits that the store refused, and when.
    refused: Mutex<HashMap<String, Instant>>,
}

/// A handle, and the term in which it was made.
type OfTerm = (Option<u64>, Arc<StoreHandle>);

/// The handles of all stores, by the uid of their BeadStores.
pub struct Stores {
    mirrors: Mirrors,
    handles: Mutex<HashMap<String, OfTerm>>,
    /// The revisions of the stores, for callers that watch them.
    pub(crate) revisions: Revisions,
}

impl Stores {
    /// No handles yet; mirrors are kept under `root`.
    pub fn new(git: Git, root: PathBuf) -> Self {
        let (handles, revisions) = (Mutex::default(), Revisions::default());
        Self { mirrors: Mirrors::new(git, root), handles, revisions }
    }

    /// The handle of the BeadStore of this uid, in this term of our work for its rig: what was read in
    /// another one is forgotten, since another replica may have written since.
    pub fn handle(&self, uid: &str, term: Option<u64>) -> Arc<StoreHandle> {
        let mut handles = self.handles.lock();
        if let Some((made, handle)) = handles.get(uid)
            && (*made == term || term.is_none())
        {
            return handle.clone();
        }
        let (mirrors, revisions) = (self.mirrors.clone(), self.revisions.clone());
        let handle = Arc::new(StoreHandle::new(uid, mirrors, revisions));
        handles.insert(uid.to_owned(), (term, handle.clone()));
        handle
    }

    /// Drops the handle of a BeadStore that is deleted or inactive.
    pub fn remove(&self, uid: &str) {
        self.handles.lock().remove(uid);
        self.revisions.hide(uid);
    }
}

impl StoreHandle {
    fn new(uid: &str, mirrors: Mirrors, revisions: Revisions) -> Self {
        Self {
            uid: uid.to_owned(),
            mirrors,
            revisions,
            turn: tokio::sync::Mutex::default(),
            reading: Mutex::default(),
            backoff: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// The last reading of this source.
    pub fn reading(&self, valid: &ValidBeadStore) -> Option<Reading> {
        let key = valid.source_key();
        self.reading.lock().clone().filter(|reading| reading.source_key == key)
    }

    /// The last reading, or a new one where the last is older than `max_age` or of another source.
    pub async fn read(
        &self,
        valid: &ValidBeadStore,
        connection: &Connection,
        max_age: Duration,
    ) -> Result<Reading, StoreError> {
        let _turn = self.turn.lock().await;
        match self.reading(valid).filter(|reading| reading.at.elapsed() < max_age) {
            Some(reading) => Ok(reading),
            None => self.read_now(valid, connection).await,
        }
    }

    /// Makes the edits that `edits` returns for the newest contents of the store. When another
    /// writer was faster, `edits` is called again on what that one wrote.
    pub async fn write(
        &self,
        valid: &ValidBeadStore,
        connection: &Connection,
        edits: impl Fn(&StoreSnapshot) -> Vec<Edit>,
    ) -> Result<Written, StoreError> {
        let _turn = self.turn.lock().await;
        match connection {
            Connection::Git(repository, remote) => {
                self.write_git(valid, repository, remote, edits).await
            }
            Connection::Http(connection) => self.write_http(valid, connection, edits).await,
        }
    }

    /// Reads beads of a server with the text of their comments.
    pub async fn details(
        &self,
        connection: &HttpConnection,
        ids: &[String],
    ) -> Result<HashMap<String, Option<Arc<Issue>>>, StoreError> {
        self.check_backoff()?;
        connection.details(ids).await.map_err(|error| self.note_backoff(error))
    }

    /// Whether the store refused this edit less than `age` ago, and would refuse it again.
    pub fn is_refused(&self, edit: &Edit, age: Duration) -> bool {
        let mut refused = self.refused.lock();
        refused.retain(|_, at| at.elapsed() < age);
        refused.contains_key(&edit.summary())
    }

    async fn read_now(
        &self,
        valid: &ValidBeadStore,
        connection: &Connection,
    ) -> Result<Reading, StoreError> {
        match connection {
            Connection::Git(repository, remote) => {
                let branches = self.read_git(valid, repository, remote).await?;
                Ok(self.publish(valid, StoreSnapshot::Git(branches)))
            }
            Connection::Http(connection) => {
                self.read_http(valid, connection).await.map(|(_, _, reading)| reading)
            }
        }
    }

    async fn read_git(
        &self,
        valid: &ValidBeadStore,
        repository: &Repository,
        remote: &Remote,
    ) -> Result<Arc<Branches>, StoreError> {
        let before = self.reading(valid).and_then(|reading| reading.snapshot.git().cloned());
        self.mirrors.read(repository, remote, before).await
    }

    async fn read_http(
        &self,
        valid: &ValidBeadStore,
        connection: &HttpConnection,
    ) -> Result<(Session, Arc<HttpSnapshot>, Reading), StoreError> {
        self.check_backoff()?;
        let before = self.reading(valid).and_then(|reading| reading.snapshot.http().cloned());
        let (session, snapshot) =
            connection.read(before.as_deref()).await.map_err(|error| self.note_backoff(error))?;
        let snapshot = Arc::new(snapshot);
        let reading = self.publish(valid, StoreSnapshot::Http(snapshot.clone()));
        Ok((session, snapshot, reading))
    }

    /// Fails with the error with which the server asked to be retried later, until the time that it
    /// named.
    fn check_backoff(&self) -> Result<(), StoreError> {
        let Some((until, error)) = self.backoff.lock().clone() else { return Ok(()) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() { Ok(()) } else { Err(error.with_retry_after(left)) }
    }

    /// Remembers the time until which the server asks not to be called.
    fn note_backoff(&self, error: StoreError) -> StoreError {
        if let Some(wait) = error.retry_after() {
            *self.backoff.lock() = Some((Instant::now() + wait, error.clone()));
        }
        error
    }

    async fn write_http(
        &self,
        valid: &ValidBeadStore,
        connection: &HttpConnection,
        edits: impl Fn(&StoreSnapshot) -> Vec<Edit>,
    ) -> Result<Written, StoreError> {
        let (session, http, Reading { snapshot, .. }) = self.read_http(valid, connection).await?;
        let edits = edits(&snapshot);
        if edits.is_empty() {
            return Ok(Written { snapshot, applied: Applied::default(), commit: None });
        }
        snapshot.writable(valid.policy)?;
        let EditResults { applied, mut records, touched, error } =
            edit::apply(connection, &session, &http, edits, &valid.prefixes).await;
        let now = Instant::now();
        self.refused.lock().extend(applied.refused.iter().map(|(edit, _)| (edit.summary(), now)));
        let read = read_beads(&session, touched.iter().map(String::as_str)).await;
        if read.is_err() {
            // The old contents stay until the next reading: a bead that was closed is open there,
            // and must not look like one that was reopened.
            records.retain(|record| !matches!(record, Record::Closed { .. }));
        }
        let beads = read.unwrap_or_default();
        let snapshot = StoreSnapshot::Http(Arc::new(http.with(beads).with_records(records)));
        self.publish(valid, snapshot.clone());
        let Some(error) = error else { return Ok(Written { snapshot, applied, commit: None }) };
        for (edit, _) in &applied.done {
            tracing::info!(edit = edit.summary(), "edit made before the error");
        }
        Err(self.note_backoff(error))
    }

    async fn write_git(
        &self,
        valid: &ValidBeadStore,
        repository: &Repository,
        remote: &Remote,
        edits: impl Fn(&StoreSnapshot) -> Vec<Edit>,
    ) -> Result<Written, StoreError> {
        let mut contended = None;
        for attempt in 0..TRIES {
            if attempt > 0 {
                let wait = Duration::from_millis(50 << attempt);
                tokio::time::sleep(gastown_runtime::jittered(wait)).await;
            }
            let branches = self.read_git(valid, repository, remote).await?;
            let snapshot = StoreSnapshot::Git(branches.clone());
            self.publish(valid, snapshot.clone());
            let edits = edits(&snapshot);
            if edits.is_empty() && !snapshot.needs_settling(valid.policy) {
                return Ok(Written { snapshot, applied: Applied::default(), commit: None });
            }
            let branch = branches.writable(valid.policy)?.clone();
            let now = Timestamp::now();
            let (applied, bytes) = branches.apply(edits, &valid.prefixes, now);
            if !applied.needs_commit() {
                return Ok(Written { snapshot, applied, commit: None });
            }
            let new = NewCommit { rig: &valid.rig, applied: &applied, bytes: &bytes, now };
            match self.mirrors.push(repository, remote, branches, branch, &new).await? {
                Pushed::Done(commit, branches) => {
                    let snapshot = StoreSnapshot::Git(branches);
                    self.publish(valid, snapshot.clone());
                    return Ok(Written { snapshot, applied, commit: Some(commit) });
                }
                Pushed::Outdated(branch) => contended = Some(branch),
            }
        }
        Err(contended.map_or_else(
            || GitError::new(Class::Local, "push", "no attempt was made").into(),
            |branch| StoreError::Contended { branch, attempts: TRIES },
        ))
    }

    fn publish(&self, valid: &ValidBeadStore, snapshot: StoreSnapshot) -> Reading {
        let source_key = valid.source_key();
        let reading = Reading { source_key, snapshot, at: Instant::now(), time: Timestamp::now() };
        *self.reading.lock() = Some(reading.clone());
        self.revisions.show(&self.uid, revisions::of(&valid.rig, &reading.snapshot));
        reading
    }
}
