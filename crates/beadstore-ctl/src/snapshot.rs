//! The contents of a store at one time, wherever its beads are. Pure.

use std::sync::Arc;
use std::time::Instant;

use gastown_api::WritePolicy;
use gastown_beads::{Dialect, IssueSet};
use gastown_core::beads::{self, History, Plan, Wanted};
use jiff::Timestamp;

use crate::applied::{WriteBlocked, check_policy};
use crate::git::branches::Branches;
use crate::http::read::HttpSnapshot;
use crate::validate::ValidBeadStore;

/// The contents of a store at one time.
#[derive(Clone, Debug)]
pub enum StoreSnapshot {
    /// The contents of files in git.
    Git(Arc<Branches>),
    /// The contents of a server.
    Http(Arc<HttpSnapshot>),
}

/// A snapshot, and when the store was read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The source that was read (see [`ValidBeadStore::source_key`]).
    pub(crate) source_key: String,
    /// The contents of the store.
    pub snapshot: StoreSnapshot,
    /// When the store was read.
    pub at: Instant,
    /// When the store was read, for people.
    pub time: Timestamp,
}

impl StoreSnapshot {
    /// The beads.
    pub fn issues(&self) -> &IssueSet {
        match self {
            Self::Git(branches) => branches.issues(),
            Self::Http(snapshot) => &snapshot.issues,
        }
    }

    /// Our earlier edits.
    pub fn history(&self) -> &History {
        match self {
            Self::Git(branches) => &branches.history,
            Self::Http(snapshot) => &snapshot.history,
        }
    }

    /// A number that grows with each change of the beads.
    pub fn number(&self) -> u64 {
        match self {
            Self::Git(branches) => branches.number,
            Self::Http(snapshot) => snapshot.number,
        }
    }

    /// The two branches of a store in git.
    pub fn git(&self) -> Option<&Arc<Branches>> {
        match self {
            Self::Git(branches) => Some(branches),
            Self::Http(_) => None,
        }
    }

    /// The store of a server.
    pub fn http(&self) -> Option<&Arc<HttpSnapshot>> {
        match self {
            Self::Git(_) => None,
            Self::Http(snapshot) => Some(snapshot),
        }
    }

    /// The dialect of the file; a server has none.
    pub fn dialect(&self) -> Option<Dialect> {
        self.git().map(|branches| branches.dialect())
    }

    /// Whether the beads are authoritative, and not an export of a database.
    pub fn is_authoritative(&self) -> bool {
        match self {
            Self::Git(branches) => branches.is_authoritative(),
            Self::Http(_) => true,
        }
    }

    /// The id of the project.
    pub fn project_id(&self) -> Option<&str> {
        match self {
            Self::Git(branches) => branches.project_id(),
            Self::Http(snapshot) => Some(&snapshot.project),
        }
    }

    /// The number of lines or rows that cannot be read as a bead.
    pub fn malformed(&self) -> usize {
        match self {
            Self::Git(branches) => branches.malformed(),
            Self::Http(snapshot) => snapshot.malformed,
        }
    }

    /// The place that edits are written to, for people.
    pub fn writable(&self, policy: WritePolicy) -> Result<String, WriteBlocked> {
        match self {
            Self::Git(branches) => {
                branches.writable(policy).map(|branch| format!("branch {branch}"))
            }
            Self::Http(snapshot) => check_policy(policy)
                .map(|()| format!("project {} at {}", snapshot.project, snapshot.url)),
        }
    }

    /// Whether people and we changed the same field of a bead, and the result can be written, so
    /// that a later edit of another field does not turn it over.
    pub fn needs_settling(&self, policy: WritePolicy) -> bool {
        self.git().is_some_and(|branches| {
            !branches.contested().is_empty() && branches.writable(policy).is_ok()
        })
    }

    /// The edits that this store needs.
    pub(crate) fn plan(&self, valid: &ValidBeadStore, wanted: &Wanted) -> Plan {
        beads::plan(&valid.rig, wanted, self.issues(), self.history(), &valid.prefixes)
    }
}
