//! A store in git: two branches read as one, the history of our writes, whether the store may be
//! written, and the file after edits. Pure except for [`Branches::load`], which blocks.

use std::sync::Arc;

use gastown_api::WritePolicy;
use gastown_beads::{Change, Dialect, EditError, IssueSet, Joined, Reason, Store, join};
use gastown_core::beads::{Edit, History, Prefixes, Record};
use gastown_git::Objects;
use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;

use super::folder::{self, NotReadable, ReadError, Side};
use crate::applied::{Applied, COMMITTER, TRAILER, WriteBlocked, check_bead, check_policy};

/// A store at two commits.
#[derive(Debug)]
pub struct Branches {
    /// The target branch, which work lands on: read, never written.
    pub target: Option<Side>,
    /// The write branch; absent until the first write.
    pub write: Option<Side>,
    /// The name of the write branch, or why the store has none.
    pub branch: Result<BranchName, NotReadable>,
    /// Both branches as one store.
    pub joined: Joined,
    /// Our earlier edits.
    pub history: Arc<History>,
    /// A number that grows with each change of the beads.
    pub number: u64,
}

/// The commits of the two branches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tips {
    /// The commit of the target branch.
    pub target: Option<CommitId>,
    /// The commit of the write branch.
    pub write: Option<CommitId>,
}

impl Branches {
    /// Reads both branches in a mirror. `branch` is the name of the write branch; what `before` read
    /// already is not read again.
    pub fn load(
        objects: &Objects,
        path: &str,
        tips: &Tips,
        branch: Result<BranchName, NotReadable>,
        before: Option<&Self>,
    ) -> Result<Self, ReadError> {
        let read = |commit: &Option<CommitId>, had: Option<&Side>| match (commit, had) {
            (None, _) => Ok(None),
            (Some(commit), Some(had)) if had.commit == *commit => Ok(Some(had.clone())),
            (Some(commit), _) => folder::read(objects, commit, path).map(Some),
        };
        let target = read(&tips.target, before.and_then(|before| before.target.as_ref()))?;
        let write = read(&tips.write, before.and_then(|before| before.write.as_ref()))?;
        if target.is_none() && write.is_none() {
            return Err(NotReadable {
                reason: "BranchNotFound",
                message: "neither branch of the store exists".to_owned(),
            }
            .into());
        }
        if ![&target, &write].into_iter().flatten().any(|side| side.file.is_some()) {
            return Err(Self::no_jsonl(target.as_ref().or(write.as_ref()), path).into());
        }
        let history = match &tips.write {
            Some(tip) => Self::history(objects, tip, before)?,
            None => Arc::default(),
        };
        let nothing = Store::default();
        let store = |side: Option<&Side>| side.map_or(&nothing, |side| &side.store).clone();
        let (ours, theirs) = (store(write.as_ref()), store(target.as_ref()));
        let joined = join(&theirs, &ours);
        let same =
            |a: Option<&Side>, b: &Store| a.map_or(&[][..], |side| side.store.write()) == b.write();
        let number = before.map_or(1, |before| {
            let unchanged =
                same(before.target.as_ref(), &theirs) && same(before.write.as_ref(), &ours);
            before.number + u64::from(!unchanged)
        });
        Ok(Self { target, write, branch, joined, history, number })
    }

    fn no_jsonl(side: Option<&Side>, path: &str) -> NotReadable {
        let dolt = side.is_some_and(|side| side.metadata.is_dolt() || side.config.has_sync_remote);
        let message = if dolt {
            format!(
                "{path} belongs to a Dolt database and no JSONL file is committed: name its bd serve in spec.http (spec.backend HttpV0), or \
                 turn on export.auto and export.git-add in its config.yaml"
            )
        } else {
            format!("there is no JSONL file of beads in {path}")
        };
        NotReadable { reason: "NoJsonl", message }
    }

    /// Our records on the write branch. Commits that `before` has read are not read again.
    fn history(
        objects: &Objects,
        tip: &CommitId,
        before: Option<&Self>,
    ) -> Result<Arc<History>, ReadError> {
        let known = before
            .and_then(|before| Some((before.write.as_ref()?.commit.clone(), &before.history)));
        let (since, mut history) = match known {
            Some((old, history)) if old == *tip => return Ok(history.clone()),
            Some((old, history)) if objects.has(&old) && objects.is_ancestor(&old, tip)? => {
                (Some(old), history.as_ref().clone())
            }
            // A rewritten branch is read from its beginning.
            _ => (None, History::default()),
        };
        let texts = objects.trailers(tip, since.as_ref(), COMMITTER, TRAILER)?;
        history.extend(texts.iter().filter_map(|text| Record::parse(text)));
        Ok(Arc::new(history))
    }

    /// The beads.
    pub fn issues(&self) -> &IssueSet {
        self.joined.issues()
    }

    /// The commits that were read.
    pub fn tips(&self) -> Tips {
        let commit = |side: Option<&Side>| side.map(|side| side.commit.clone());
        Tips { target: commit(self.target.as_ref()), write: commit(self.write.as_ref()) }
    }

    /// The branches that exist.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        self.target.iter().chain(&self.write)
    }

    /// The dialect of the file.
    pub fn dialect(&self) -> Dialect {
        self.issues().dialect()
    }

    /// Whether the files are authoritative, and not an export of a database.
    pub fn is_authoritative(&self) -> bool {
        !self.sides().any(Side::is_export)
    }

    /// The id of the project, from metadata.json.
    pub fn project_id(&self) -> Option<&str> {
        self.sides().find_map(|side| side.metadata.project_id.as_deref())
    }

    /// The number of lines that cannot be read as a bead.
    pub fn malformed(&self) -> usize {
        let reasons = [
            Reason::MalformedLines,
            Reason::NotUtf8,
            Reason::LineTooLong,
            Reason::BadId,
            Reason::ConflictMarkers,
        ];
        self.sides()
            .map(|side| {
                reasons.iter().map(|reason| side.store.problems().count(*reason)).sum::<usize>()
            })
            .sum()
    }

    /// The branch that may be written.
    pub fn writable(&self, policy: WritePolicy) -> Result<&BranchName, WriteBlocked> {
        check_policy(policy)?;
        if policy == WritePolicy::Write && !self.is_authoritative() {
            let message = "the file is an export of a database, which would not see edits of the file; set spec.writePolicy to AllowExportOnly to write it all the same";
            return Err(WriteBlocked::new("ExportOnly", message));
        }
        let branch = self
            .branch
            .as_ref()
            .map_err(|error| WriteBlocked::new(error.reason, &error.message))?;
        for side in self.sides() {
            side.store.writable().map_err(|no| {
                let file = side.file.as_deref().unwrap_or_default();
                let message =
                    format!("{}/{file} at {}: {}", side.folder, side.commit.short(), no.message);
                WriteBlocked::new(no.reason.as_str(), message)
            })?;
        }
        Ok(branch)
    }

    /// The side that a write starts from: the write branch, else the target branch.
    pub fn base(&self) -> Option<&Side> {
        self.write.as_ref().or(self.target.as_ref())
    }

    /// The folder and the file that a write replaces.
    pub fn file(&self) -> Option<(&str, &str)> {
        let base = self.base()?;
        let named = base.file.as_deref().or_else(|| self.target.as_ref()?.file.as_deref())?;
        Some((&base.folder, named))
    }

    /// Applies edits one after the other, each to the newest line of its bead on both branches;
    /// returns the result and the bytes of the file.
    pub fn apply(
        &self,
        edits: Vec<Edit>,
        prefixes: &Prefixes,
        now: Timestamp,
    ) -> (Applied, Vec<u8>) {
        let mut next = self.base().map(|side| side.store.clone()).unwrap_or_default();
        let mut applied = Applied::default();
        for edit in edits {
            match self.apply_one(&mut next, &edit, prefixes, now) {
                Ok(change) => applied.done.push((edit, change)),
                Err(error) => applied.refused.push((edit, error)),
            }
        }
        (applied, next.into_bytes())
    }

    fn apply_one(
        &self,
        next: &mut Store,
        edit: &Edit,
        prefixes: &Prefixes,
        now: Timestamp,
    ) -> Result<Change, EditError> {
        let bead = edit.bead();
        // A bead that was deleted on the branch with the later change does not exist.
        check_bead(bead, self.issues(), prefixes)?;
        if let Some(target) =
            self.target.as_ref().filter(|side| side.store.issues().get(bead).is_some())
        {
            next.adopt(&target.store, bead)?;
        }
        match edit {
            Edit::Claim { assignee, .. } => next.claim(bead, assignee, now),
            Edit::Release { assignee, .. } => next.release(bead, assignee, now),
            Edit::Close { reason, .. } => next.close(bead, reason, now),
            Edit::Comment { author, text, .. } => next.comment(bead, author, text, now),
        }
    }
}
