//! What the worker of one target branch remembers between reconciles.
//!
//! The watch cache lags behind our own writes, so decisions are made from here. Another term of our
//! work for the rig, another process or another Refinery starts with an empty [`Train`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gastown_api::conditions::time;
use gastown_api::names::reason;
use gastown_api::{GateRunPhase, MergeAttempt, MergeRequest, MergeRequestStatus, Refinery};
use gastown_core::train::{Author, Build, History, Landing, RequestId, Source, Target};
use gastown_git::Committing;
use gastown_runtime::own_writes::resource_version;
use gastown_types::{BranchName, CommitId};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::gate::{self, OwnRun};
use crate::record::{Evidence, RequestRecord};

/// One request, in three parts by what a crash loses.
pub(crate) struct Entry {
    pub durable: Durable,
    pub cached: Cached,
    pub scratch: Scratch,
}

/// What the API server has: a crash loses nothing of it. The record is written before anything that
/// follows from it is done.
pub(crate) struct Durable {
    /// The newest version of the object that we know.
    pub object: Arc<MergeRequest>,
    pub branch: BranchName,
    pub commit: CommitId,
    pub record: RequestRecord,
}

/// Answers of the remote, the mirror and the API server: after a crash they are asked again, which
/// costs time only.
pub(crate) struct Cached {
    /// Whether the commit is on its branch.
    pub source: Source,
    /// What was built from the request, and on which tip.
    pub build: Option<Build>,
    /// The progress of its landing; what has landed is found again on the target.
    pub landing: Landing,
    /// Whether the author exists.
    pub author: Author,
    /// What is known from its runs.
    pub history: History,
    /// The resource version of the Polecat to which we added the condition `Merged`: whether an
    /// older one in the watch cache has it does not matter.
    pub merged_version: u64,
}

/// Delays and explanations: a crash loses them, and the request is tried earlier or its status
/// shows less.
pub(crate) struct Scratch {
    /// When the request may be tried again.
    pub not_before: Option<Timestamp>,
    /// Until when nothing is done for it, because what was done last is refused.
    pub failed_until: Option<Timestamp>,
    /// How often in a row that was.
    pub failures: u32,
    /// When it may be tested again on a broken target.
    pub retest_at: Option<Timestamp>,
    /// Why it was last made to wait.
    pub why: Option<WaitReason>,
    /// The version of the object that shows how the request ended: it is not looked at again.
    pub settled: Option<u64>,
    /// When its status may be written again, after a write was refused.
    pub status_after: Option<Timestamp>,
    /// The landings that the remote refused in a row.
    pub refused: Option<Refused>,
    /// When its candidate began to be built, until a run of it is created.
    pub building: Option<Timestamp>,
    /// Whether this process has exported its spans.
    pub exported: bool,
    /// The times and attempts of its status, with those that are not written yet.
    pub history: MergeRequestStatus,
}

/// Landings in a row that the remote refused.
pub(crate) struct Refused {
    pub times: u32,
    /// The remote's words of the last one.
    pub why: String,
}

/// Why something waits, as a condition shows it.
#[derive(Clone, Debug)]
pub(crate) struct WaitReason {
    pub reason: &'static str,
    pub message: String,
}

impl Entry {
    /// The entry of a request that is seen for the first time; `None` when its branch or commit is
    /// invalid.
    pub(crate) fn new(object: Arc<MergeRequest>) -> Option<Self> {
        let mut history = object.status.clone().unwrap_or_default();
        history.attempts.truncate(MergeRequestStatus::MAX_ATTEMPTS);
        let record = RequestRecord::of(&object);
        let ended = record.end.clone().zip(record.evidence.clone());
        let mut entry = Self {
            durable: Durable {
                branch: object.spec.source_branch.parse().ok()?,
                commit: object.spec.commit.parse().ok()?,
                record,
                object,
            },
            cached: Cached {
                source: Source::Unknown,
                build: None,
                landing: Landing::No,
                author: Author::Unknown,
                history: History::default(),
                merged_version: 0,
            },
            scratch: Scratch {
                not_before: None,
                failed_until: None,
                failures: 0,
                retest_at: None,
                why: None,
                settled: None,
                status_after: None,
                refused: None,
                building: None,
                exported: false,
                history,
            },
        };
        // The process may have ended between the record and the status.
        if let Some((end, evidence)) = ended
            && !entry.shows(&end.reason, &evidence)
        {
            entry.add_attempt(&end.reason, &evidence, end.at);
        }
        Some(entry)
    }

    /// Whether the history shows why the request went back to its author.
    fn shows(&self, why: &str, evidence: &Evidence) -> bool {
        let base = evidence.base.as_ref().map_or("", CommitId::as_str);
        let is_it = |a: &MergeAttempt| a.result.as_deref() == Some(why) && a.base == base;
        self.scratch.history.attempts.iter().any(is_it)
    }

    /// Has the history show why the request went back to its author.
    pub(crate) fn add_attempt(&mut self, why: &str, evidence: &Evidence, at: Timestamp) {
        let base = evidence.base.as_ref().map(ToString::to_string).unwrap_or_default();
        let attempt = self.attempt(&base, None);
        attempt.result = Some(why.to_owned());
        attempt.reason = Some(why.to_owned());
        attempt.finished_at = Some(time(at));
        attempt.evidence = Some(gate::evidence(&evidence.text, MergeAttempt::MAX_EVIDENCE));
    }

    /// Takes a version of the object, if it is newer than the present one.
    pub(crate) fn update(&mut self, object: &Arc<MergeRequest>) {
        if resource_version(object.as_ref()) > resource_version(self.object()) {
            self.durable.object = object.clone();
        }
    }

    pub(crate) fn object(&self) -> &MergeRequest {
        &self.durable.object
    }

    /// The object shows all that there is to show. How a request ended does not change.
    pub(crate) fn settle(&mut self) {
        self.scratch.settled = (!self.is_open()).then(|| resource_version(self.object()));
    }

    /// Whether nothing has changed since [`Entry::settle`].
    pub(crate) fn is_settled(&self) -> bool {
        !self.is_open() && self.scratch.settled == Some(resource_version(self.object()))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.durable.record.end.is_none()
    }

    /// The name under which people know its author: the Polecat's, or the request's own.
    pub(crate) fn author_name(&self) -> String {
        let polecat = self.object().spec.polecat_ref.as_ref();
        polecat.map_or_else(|| self.object().name_any(), |p| p.name.clone())
    }

    /// Has the request wait until `until`; its status shows why.
    pub(crate) fn wait_until(&mut self, until: Timestamp, reason: &'static str, message: String) {
        self.scratch.not_before = Some(until);
        self.scratch.why = Some(WaitReason { reason, message });
    }

    /// Has the request wait because what was done for it is refused, longer each time; its status
    /// shows why, where that can be written.
    pub(crate) fn fail(&mut self, message: String) {
        let seconds = (10 << self.scratch.failures.min(6)).min(600);
        self.scratch.failures = self.scratch.failures.saturating_add(1);
        self.scratch.failed_until = Some(in_seconds(seconds));
        self.scratch.why = Some(WaitReason { reason: reason::ACTION_FAILED, message });
    }

    /// Has the history show how a run ended, unless the run is older than all of it.
    pub(crate) fn note_run(&mut self, run: &OwnRun) {
        let (Some(end), Some(finished)) = (run.past.end, run.finished) else { return };
        let attempts = &self.scratch.history.attempts;
        let is_it = |a: &MergeAttempt| a.job.as_ref() == Some(&run.name);
        let is_shown = attempts.iter().any(|a| is_it(a) && a.result.is_some());
        let is_open = attempts.iter().any(|a| is_it(a) && a.result.is_none());
        let last = attempts.iter().filter_map(|a| a.finished_at.as_ref()).map(|t| t.0).max();
        if is_shown || (!is_open && last.is_some_and(|last| finished < last)) {
            return;
        }
        let (base, candidate) = (run.base.to_string(), run.past.candidate.to_string());
        let attempt = self.attempt(&base, Some(&candidate));
        attempt.gate = Some(gate::GATE.to_owned());
        attempt.job = Some(run.name.clone());
        attempt.finished_at = Some(time(finished));
        let (result, reason) = match end {
            GateRunPhase::Passed => ("Passed", None),
            GateRunPhase::Failed => ("Failed", Some("GateFailed")),
            GateRunPhase::Broken | GateRunPhase::Running | GateRunPhase::Unknown => {
                ("Broken", Some("Infrastructure"))
            }
        };
        attempt.result = Some(result.to_owned());
        attempt.reason = reason.map(str::to_owned);
        let evidence = run.evidence.as_deref();
        attempt.evidence = evidence.map(|e| gate::evidence(e, MergeAttempt::MAX_EVIDENCE));
    }

    /// The unfinished attempt for this base and candidate in the history; a new one if there is
    /// none, for which the oldest one goes when there are too many.
    pub(crate) fn attempt(&mut self, base: &str, candidate: Option<&str>) -> &mut MergeAttempt {
        let attempts = &mut self.scratch.history.attempts;
        let is_same = |a: &MergeAttempt| {
            a.result.is_none() && a.base == base && a.candidate.as_deref() == candidate
        };
        let at = if let Some(at) = attempts.iter().position(is_same) {
            at
        } else {
            let number = attempts.last().map_or(1, |a| a.number.saturating_add(1));
            if attempts.len() >= MergeRequestStatus::MAX_ATTEMPTS {
                attempts.remove(0);
            }
            attempts.push(MergeAttempt {
                number,
                commit: self.durable.commit.to_string(),
                base: base.to_owned(),
                candidate: candidate.map(str::to_owned),
                started_at: Some(time(Timestamp::now())),
                ..MergeAttempt::default()
            });
            attempts.len() - 1
        };
        &mut attempts[at]
    }
}

/// Why no gate starts, and until when nothing is tried.
pub(crate) struct GatesHeld {
    pub why: WaitReason,
    pub until: Timestamp,
}

/// What the worker of one target branch remembers.
#[derive(Default)]
pub(crate) struct Train {
    /// The term of our work for the rig in which this was learnt.
    pub term: Option<u64>,
    /// The uid of the Refinery for which this was learnt.
    pub refinery: String,
    /// The identity of the mirror in which candidates were built.
    pub mirror: Option<String>,
    /// How candidates were committed.
    pub committing: Committing,
    pub target: Option<Target>,
    pub entries: HashMap<RequestId, Entry>,
    /// When Jobs were created that the watch cache may not show yet, by name.
    pub created_jobs: HashMap<String, Timestamp>,
    /// The uids of Jobs that were deleted and that the watch cache may still show.
    pub released_jobs: HashSet<String>,
    /// Why the remote cannot be used.
    pub problem: Option<WaitReason>,
    /// Why no gate starts.
    pub gates_held: Option<GatesHeld>,
    /// How many reconciles in a row failed at the remote.
    pub failures: u32,
    /// The generation of the Refinery whose credentials have been read.
    pub credentials_of: Option<i64>,
    /// Until when the remote is left alone after a failure, for which generation of the Refinery:
    /// what changes elsewhere does not have it asked sooner.
    pub remote_held: Option<(Timestamp, Option<i64>)>,
    /// Whether the mirror was deleted since the remote was used last.
    pub discarded: bool,
    /// The Refinery as our last write of its status made it.
    pub written: Option<Arc<Refinery>>,
}

impl Train {
    /// Forgets what was built in another mirror than the present one: it is not there any more.
    pub(crate) fn use_mirror(&mut self, id: Option<String>) {
        if self.mirror != id {
            self.mirror = id;
            self.target = None;
            self.entries.values_mut().for_each(|e| e.cached.build = None);
        }
    }

    /// Forgets what was committed in another way than now. A landing that the remote refused is
    /// tried again at once: its committer may have been the reason.
    pub(crate) fn use_committing(&mut self, committing: &Committing) {
        if self.committing == *committing {
            return;
        }
        self.committing = committing.clone();
        for e in self.entries.values_mut() {
            e.cached.build = None;
            if e.scratch.refused.take().is_some() {
                e.scratch.not_before = None;
            }
        }
    }

    /// The remote has done what was asked of it.
    pub(crate) fn remote_works(&mut self) {
        (self.problem, self.failures, self.discarded) = (None, 0, false);
        self.remote_held = None;
    }

    /// Until when the remote is left alone by this generation of the Refinery.
    pub(crate) fn held_until(&self, now: Timestamp, generation: Option<i64>) -> Option<Timestamp> {
        let (until, of) = self.remote_held?;
        (until > now && of == generation).then_some(until)
    }

    pub(crate) fn target(&self) -> Target {
        self.target.clone().unwrap_or(Target::Unknown)
    }

    /// The target's commit, if it is known.
    pub(crate) fn tip(&self) -> Option<&CommitId> {
        match &self.target {
            Some(Target::At { tip, .. }) => Some(tip),
            Some(Target::Unknown | Target::Absent { .. }) | None => None,
        }
    }

    pub(crate) fn entry(&mut self, id: &RequestId) -> Option<&mut Entry> {
        self.entries.get_mut(id)
    }
}

/// The time that many seconds from now.
pub(crate) fn in_seconds(seconds: i64) -> Timestamp {
    let now = Timestamp::now();
    now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now)
}
