//! What a train's worker has in mind: each request as it was written last, and what is known of it
//! beyond that.
//!
//! Caches lag behind our own writes, so decisions are made from here; what must survive a crash is
//! in the request's annotation ([`Ledger`]), the rest is found out again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gastown_api::names::annotation;
use gastown_api::{MergeRequest, MergeRequestStatus, RefineryStatus};
use gastown_core::train::{Author, Build, End, Landing, RequestId, Run, Source, Target, Verdict};
use gastown_runtime::own_writes::resource_version;
use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

/// The annotation `gastown.io/verdicts`: what may not be forgotten about a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Ledger {
    /// The format's version.
    pub v: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Verdict>,
    /// Runs in a row that infrastructure broke, and all runs that ended so.
    #[serde(skip_serializing_if = "is_zero")]
    pub faults: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub runs: u32,
    /// How often a red run was doubted.
    #[serde(skip_serializing_if = "is_zero")]
    pub doubts: u32,
    /// How often a person's wish to try again was heeded.
    #[serde(skip_serializing_if = "is_none")]
    pub retried: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// The branch of a landed request has been dealt with.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cleaned: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_none(n: &i32) -> bool {
    *n == 0
}

impl Ledger {
    /// The ledger of a request; an unreadable one is none, and the work is done again rather than
    /// believed done.
    pub(crate) fn of(request: &MergeRequest) -> Self {
        let text = request.annotations().get(annotation::VERDICTS);
        let read = text.and_then(|t| serde_json::from_str::<Self>(t).ok());
        read.filter(|l| l.v == 1).unwrap_or(Self { v: 1, ..Self::default() })
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// One request.
pub(crate) struct Entry {
    /// Its newest version that we know.
    pub object: Arc<MergeRequest>,
    pub branch: BranchName,
    pub commit: CommitId,
    pub ledger: Ledger,
    /// Times and attempts of its status.
    pub history: MergeRequestStatus,
    pub source: Source,
    pub build: Option<Build>,
    pub landing: Landing,
    pub author: Author,
    /// The version of its Polecat that says that it has landed: older ones in the cache say nothing
    /// about it.
    pub told: u64,
    pub not_before: Option<Timestamp>,
    pub retest_at: Option<Timestamp>,
    /// Why it waits, beyond what the decision says: (reason, message).
    pub note: Option<(String, String)>,
}

impl Entry {
    /// What is known of a request that was never seen before; `None` when its branch or commit are
    /// none.
    pub(crate) fn new(object: Arc<MergeRequest>) -> Option<Self> {
        let ledger = Ledger::of(&object);
        let mut history = object.status.clone().unwrap_or_default();
        history.attempts.truncate(MergeRequestStatus::MAX_ATTEMPTS);
        Some(Self {
            branch: object.spec.source_branch.parse().ok()?,
            commit: object.spec.commit.parse().ok()?,
            ledger,
            history,
            source: Source::Unknown,
            build: None,
            landing: Landing::No,
            author: Author::Unknown,
            told: 0,
            not_before: None,
            retest_at: None,
            note: None,
            object,
        })
    }

    /// Takes a version of the object when it is newer than the one at hand.
    pub(crate) fn update(&mut self, object: &Arc<MergeRequest>) {
        if resource_version(object.as_ref()) > resource_version(self.object.as_ref()) {
            self.object = object.clone();
        }
    }
}

/// A Job that was started and that the cache may not show yet.
pub(crate) struct Started {
    pub run: Run,
    pub at: Timestamp,
}

/// All that one worker knows of its target branch.
#[derive(Default)]
pub(crate) struct Train {
    /// Which term of the lease this was learnt in: another term starts from nothing.
    pub term: Option<i32>,
    /// The uid of the Refinery that it was learnt for.
    pub refinery: String,
    pub target: Option<Target>,
    pub entries: HashMap<RequestId, Entry>,
    pub started: HashMap<String, Started>,
    /// Jobs, by uid, that were deleted and that the cache may still show.
    pub released: HashSet<String>,
    /// What keeps the refinery from its remote: (reason, message).
    pub problem: Option<(String, String)>,
    /// How often in a row there was problem.
    pub troubled: u32,
    /// A broken mirror was thrown away since the last success.
    pub discarded: bool,
    /// The Refinery's status as it was written last, with the version that it made.
    pub written: Option<(RefineryStatus, Option<u64>)>,
}

impl Train {
    pub(crate) fn target(&self) -> Target {
        self.target.clone().unwrap_or(Target::Unknown)
    }

    pub(crate) fn entry(&mut self, id: &RequestId) -> Option<&mut Entry> {
        self.entries.get_mut(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_reads_back_and_a_strange_one_is_none() {
        let mut request = MergeRequest::new("mr", serde_json::from_value(spec()).unwrap());
        assert_eq!(Ledger::of(&request), Ledger { v: 1, ..Ledger::default() });
        let ledger = Ledger { v: 1, faults: 2, retried: 1, cleaned: true, ..Ledger::default() };
        assert_eq!(ledger.text(), r#"{"v":1,"faults":2,"retried":1,"cleaned":true}"#);
        request.annotations_mut().insert(annotation::VERDICTS.into(), ledger.text());
        assert_eq!(Ledger::of(&request), ledger);
        request
            .annotations_mut()
            .insert(annotation::VERDICTS.into(), r#"{"v":2,"faults":7}"#.into());
        assert_eq!(Ledger::of(&request).faults, 0);
    }

    fn spec() -> serde_json::Value {
        serde_json::json!({"rigRef": "r", "sourceBranch": "b", "commit": "a".repeat(40), "targetBranch": "main"})
    }
}
