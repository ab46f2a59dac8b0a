//! A store in git: two branches read as one, what we wrote into them before, and whether more may
//! be written. And what the file would say after deeds. Pure but for [`Branches::load`], which
//! blocks.

use std::sync::Arc;

use gastown_api::WritePolicy;
use gastown_beads::{Change, Dialect, EditError, IssueSet, Joined, Reason, Store, join};
use gastown_git::Objects;
use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;

use crate::folder::{self, Error, Lack, Side};
use crate::ledger::{COMMITTER, Ledger, Record, TRAILER};
use crate::plan::{Deed, Prefixes};
use crate::view::{Applied, allowed, read_only};

/// The branch that is written when nobody names one.
pub const DEFAULT_BRANCH: &str = "beads-sync";

/// A store at two commits.
#[derive(Debug)]
pub struct Branches {
    /// The branch that work lands on; read, never written.
    pub target: Option<Side>,
    /// The branch that is written; absent until the first write.
    pub write: Option<Side>,
    /// Its name, or why there is none.
    pub branch: Result<BranchName, Lack>,
    /// Both as one.
    pub joined: Joined,
    /// What we wrote.
    pub ledger: Arc<Ledger>,
    /// Counts up with each change of the beads.
    pub number: u64,
}

/// Where the two branches stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tips {
    /// The branch that work lands on.
    pub target: Option<CommitId>,
    /// The branch that is written.
    pub write: Option<CommitId>,
}

impl Branches {
    /// Reads both branches in a mirror. `branch` is the one that the spec names; `before` saves
    /// reading the history anew.
    pub fn load(
        objects: &Objects,
        path: &str,
        tips: &Tips,
        branch: Result<BranchName, Lack>,
        before: Option<&Self>,
    ) -> Result<Self, Error> {
        let read = |commit: &Option<CommitId>, had: Option<&Side>| match (commit, had) {
            (None, _) => Ok(None),
            (Some(commit), Some(had)) if had.commit == *commit => Ok(Some(had.clone())),
            (Some(commit), _) => folder::read(objects, commit, path).map(Some),
        };
        let target = read(&tips.target, before.and_then(|view| view.target.as_ref()))?;
        let write = read(&tips.write, before.and_then(|view| view.write.as_ref()))?;
        if target.is_none() && write.is_none() {
            return Err(Lack {
                reason: "BranchNotFound",
                message: "neither branch of the store exists".to_owned(),
            }
            .into());
        }
        if ![&target, &write].into_iter().flatten().any(|side| side.file.is_some()) {
            return Err(Self::no_jsonl(target.as_ref().or(write.as_ref()), path).into());
        }
        let ledger = match &tips.write {
            Some(tip) => Self::history(objects, tip, before)?,
            None => Arc::default(),
        };
        let nothing = Store::default();
        let store = |side: Option<&Side>| side.map_or(&nothing, |side| &side.store).clone();
        let (ours, theirs) = (store(write.as_ref()), store(target.as_ref()));
        let joined = join(&theirs, &ours);
        let same =
            |a: Option<&Side>, b: &Store| a.map_or(&[][..], |side| side.store.write()) == b.write();
        let number = before.map_or(1, |view| {
            let unchanged = same(view.target.as_ref(), &theirs) && same(view.write.as_ref(), &ours);
            view.number + u64::from(!unchanged)
        });
        Ok(Self { target, write, branch, joined, ledger, number })
    }

    fn no_jsonl(side: Option<&Side>, path: &str) -> Lack {
        let dolt = side.is_some_and(|side| side.metadata.is_dolt() || side.config.has_sync_remote);
        let message = if dolt {
            format!(
                "{path} belongs to a Dolt database and no JSONL file is committed: name its bd serve in spec.http (spec.backend HttpV0), or \
                 turn on export.auto and export.git-add in its config.yaml"
            )
        } else {
            format!("there is no JSONL file of beads in {path}")
        };
        Lack { reason: "NoJsonl", message }
    }

    /// Our records on the write branch. What was read of an ancestor is not read again.
    fn history(
        objects: &Objects,
        tip: &CommitId,
        before: Option<&Self>,
    ) -> Result<Arc<Ledger>, Error> {
        let known =
            before.and_then(|view| Some((view.write.as_ref()?.commit.clone(), &view.ledger)));
        let (since, mut ledger) = match known {
            Some((old, ledger)) if old == *tip => return Ok(ledger.clone()),
            Some((old, ledger)) if objects.has(&old) && objects.is_ancestor(&old, tip)? => {
                (Some(old), ledger.as_ref().clone())
            }
            // A rewritten branch is read from its beginning.
            _ => (None, Ledger::default()),
        };
        let texts = objects.trailers(tip, since.as_ref(), COMMITTER, TRAILER)?;
        ledger.extend(texts.iter().filter_map(|text| Record::parse(text)));
        Ok(Arc::new(ledger))
    }

    /// The beads.
    pub fn issues(&self) -> &IssueSet {
        self.joined.issues()
    }

    /// Where it was read.
    pub fn tips(&self) -> Tips {
        let commit = |side: Option<&Side>| side.map(|side| side.commit.clone());
        Tips { target: commit(self.target.as_ref()), write: commit(self.write.as_ref()) }
    }

    /// Both sides that exist.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        self.target.iter().chain(&self.write)
    }

    /// The dialect of the file that is the older of the two.
    pub fn dialect(&self) -> Dialect {
        self.issues().dialect()
    }

    /// Whether the files are the truth.
    pub fn is_authoritative(&self) -> bool {
        !self.sides().any(Side::is_export)
    }

    /// The id of the project, as the store has it.
    pub fn project_id(&self) -> Option<&str> {
        self.sides().find_map(|side| side.metadata.project_id.as_deref())
    }

    /// Lines that no bead was read from.
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

    /// Whether it may be written, or a reason and a sentence why not.
    pub fn writable(&self, policy: WritePolicy) -> Result<&BranchName, (String, String)> {
        read_only(policy)?;
        if policy == WritePolicy::Write && !self.is_authoritative() {
            let message = "the file is an export of a database, which would not see what is written here: with spec.writePolicy \
                           AllowExportOnly it is written all the same";
            return Err(("ExportOnly".to_owned(), message.to_owned()));
        }
        let branch =
            self.branch.as_ref().map_err(|lack| (lack.reason.to_owned(), lack.message.clone()))?;
        for side in self.sides() {
            side.store.writable().map_err(|no| {
                let file = side.file.as_deref().unwrap_or_default();
                (
                    no.reason.as_str().to_owned(),
                    format!("{}/{file} at {}: {}", side.folder, side.commit.short(), no.message),
                )
            })?;
        }
        Ok(branch)
    }

    /// The side that a write is made on: the branch that is written, else the one that it begins
    /// from.
    pub fn base(&self) -> Option<&Side> {
        self.write.as_ref().or(self.target.as_ref())
    }

    /// Folder and file that a write replaces.
    pub fn place(&self) -> Option<(&str, &str)> {
        let base = self.base()?;
        let named = base.file.as_deref().or_else(|| self.target.as_ref()?.file.as_deref())?;
        Some((&base.folder, named))
    }

    /// What the deeds make of the file: one after the other, each on the newest line of its bead of
    /// both branches.
    pub fn apply(
        &self,
        deeds: Vec<Deed>,
        prefixes: &Prefixes,
        now: Timestamp,
    ) -> (Applied, Vec<u8>) {
        let mut next = self.base().map(|side| side.store.clone()).unwrap_or_default();
        let mut applied = Applied::default();
        for deed in deeds {
            match self.one(&mut next, &deed, prefixes, now) {
                Ok(change) => applied.done.push((deed, change)),
                Err(error) => applied.refused.push((deed, error)),
            }
        }
        (applied, next.into_bytes())
    }

    fn one(
        &self,
        next: &mut Store,
        deed: &Deed,
        prefixes: &Prefixes,
        now: Timestamp,
    ) -> Result<Change, EditError> {
        let bead = deed.bead();
        // One that is deleted on the branch that was changed last is not there.
        allowed(bead, self.issues(), prefixes)?;
        if let Some(target) =
            self.target.as_ref().filter(|side| side.store.issues().get(bead).is_some())
        {
            next.adopt(&target.store, bead)?;
        }
        match deed {
            Deed::Claim { assignee, .. } => next.claim(bead, assignee, now),
            Deed::Release { assignee, .. } => next.release(bead, assignee, now),
            Deed::Close { reason, .. } => next.close(bead, reason, now),
            Deed::Comment { author, text, .. } => next.comment(bead, author, text, now),
        }
    }
}
