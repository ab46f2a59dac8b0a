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
    /// The file that both branches began with: of the target branch as it was when its changes were
    /// last taken over to the write branch. Absent where no such file is known.
    pub base: Option<Side>,
    /// Both branches as one store.
    pub joined: Joined,
    /// Our earlier edits.
    pub history: Arc<History>,
    /// A number that grows with each change of the beads or of what we wrote.
    pub number: u64,
    /// Our last write that took over the changes of the target branch.
    takeover: Option<Takeover>,
}

/// A write of ours that took over the changes of the target branch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Takeover {
    /// The commit on the write branch.
    commit: CommitId,
    /// The commit of the target branch whose changes it took over.
    target: CommitId,
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
        let known: Vec<&Side> = before
            .map(|before| {
                [&before.target, &before.write, &before.base].into_iter().flatten().collect()
            })
            .unwrap_or_default();
        let read = |commit: &CommitId| match known.iter().find(|side| side.commit == *commit) {
            Some(side) => Ok(Side::clone(side)),
            // The file seldom changes when its branch moves: the same one is kept once.
            None => folder::read(objects, commit, path).map(|side| side.sharing(&known)),
        };
        let target = tips.target.as_ref().map(read).transpose()?;
        let write = tips.write.as_ref().map(read).transpose()?;
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
        let (history, takeover) = Self::history(objects, tips, before)?;
        let base = match Self::base_commit(objects, tips, takeover.as_ref())? {
            None => None,
            Some(commit) => match target.as_ref().filter(|side| side.commit == commit) {
                Some(side) => Some(side.clone()),
                None => Self::base(read(&commit))?,
            },
        };
        let joined = match (&target, &write) {
            (Some(theirs), Some(ours)) => {
                let nothing = Store::default();
                let base = base.as_ref().map_or(&nothing, |side| side.store.as_ref());
                join(base, &theirs.store, &ours.store)
            }
            (Some(one), None) | (None, Some(one)) => Joined::of(&one.store),
            (None, None) => Joined::default(),
        };
        let number = before.map_or(1, |before| {
            let is_unchanged = same(before.target.as_ref(), target.as_ref())
                && same(before.write.as_ref(), write.as_ref())
                && same(before.base.as_ref(), base.as_ref())
                && before.history == history;
            before.number + u64::from(!is_unchanged)
        });
        Ok(Self { target, write, branch, base, joined, history, number, takeover })
    }

    /// The commit whose file both branches began with: the target branch's when its changes were
    /// last taken over, or the best common ancestor where people merged one branch into the other
    /// since.
    fn base_commit(
        objects: &Objects,
        tips: &Tips,
        takeover: Option<&Takeover>,
    ) -> Result<Option<CommitId>, ReadError> {
        let (Some(target), Some(write)) = (&tips.target, &tips.write) else { return Ok(None) };
        let ancestor = objects.merge_base(target, write)?;
        let Some(Takeover { commit, target }) = takeover.filter(|last| objects.has(&last.target))
        else {
            return Ok(ancestor);
        };
        let Some(ancestor) = ancestor else { return Ok(Some(target.clone())) };
        let is_newer =
            objects.is_ancestor(commit, &ancestor)? || objects.is_ancestor(target, &ancestor)?;
        Ok(Some(if is_newer { ancestor } else { target.clone() }))
    }

    /// The file that both branches began with; absent where it cannot be read as it was then.
    fn base(read: Result<Side, ReadError>) -> Result<Option<Side>, ReadError> {
        match read {
            Ok(side) => Ok(Some(side)),
            Err(ReadError::NotReadable(error)) => {
                tracing::info!(%error, "the branches are joined without their base");
                Ok(None)
            }
            Err(error @ ReadError::Git(_)) => Err(error),
        }
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

    /// Our records on the write branch, and the last takeover. Without a write branch they are read
    /// from the target branch, which people may have merged it into before they deleted it. Commits
    /// that `before` has read are not read again.
    fn history(
        objects: &Objects,
        tips: &Tips,
        before: Option<&Self>,
    ) -> Result<(Arc<History>, Option<Takeover>), ReadError> {
        let tip_of = |tips: &Tips| tips.write.clone().or_else(|| tips.target.clone());
        let Some(tip) = tip_of(tips) else { return Ok((Arc::default(), None)) };
        let known = before.and_then(|before| Some((tip_of(&before.tips())?, before)));
        let (since, mut history, mut takeover) = match known {
            Some((old, before)) if old == tip => {
                return Ok((before.history.clone(), before.takeover.clone()));
            }
            Some((old, before)) if objects.has(&old) && objects.is_ancestor(&old, &tip)? => {
                (vec![old], before.history.as_ref().clone(), before.takeover.clone())
            }
            // A rewritten branch is read from its beginning.
            _ => (Vec::new(), History::default(), None),
        };
        let records = objects.trailers(&tip, &since, COMMITTER, TRAILER)?;
        let records =
            records.into_iter().filter_map(|(at, text)| Some((at, Record::parse(&text)?)));
        for (commit, record) in records {
            if let Record::Joined { target } = &record
                && let Ok(target) = target.parse()
            {
                takeover = Some(Takeover { commit, target });
            }
            history.extend([record]);
        }
        Ok((Arc::new(history), takeover))
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
                let message = format!("{}: {}", side.place(), no.message);
                WriteBlocked::new(no.reason.as_str(), message)
            })?;
        }
        Ok(branch)
    }

    /// The side that a write starts from: the write branch, else the target branch.
    pub fn parent(&self) -> Option<&Side> {
        self.write.as_ref().or(self.target.as_ref())
    }

    /// The beads of which both branches changed a field, so that a time decided. Until the result
    /// is written, another edit of the bead could change what was decided.
    pub fn contested(&self) -> &[String] {
        self.joined.contested()
    }

    /// The lines that are not read: in each file the first one, and how many others there are.
    pub fn not_read(&self) -> Vec<String> {
        let of_side = |side: &Side| {
            let (first, count) = side.store.problems().not_read()?;
            let more = match count - 1 {
                0 => String::new(),
                more => format!(", nor are {more} more"),
            };
            Some(format!("{}: {first} (not read{more})", side.place()))
        };
        self.sides().filter_map(of_side).collect()
    }

    /// The folder and the file that a write replaces.
    pub fn file(&self) -> Option<(&str, &str)> {
        let parent = self.parent()?;
        let named = parent.file.as_deref().or_else(|| self.target.as_ref()?.file.as_deref())?;
        Some((&parent.folder, named))
    }

    /// Takes over the changes of the target branch, then makes the edits one after the other;
    /// returns the result and the bytes of the file.
    pub fn apply(
        &self,
        edits: Vec<Edit>,
        prefixes: &Prefixes,
        now: Timestamp,
    ) -> (Applied, Vec<u8>) {
        let mut next = self.parent().map(|side| Store::clone(&side.store)).unwrap_or_default();
        let mut applied = Applied::default();
        if let Err(error) = next.adopt(&self.joined) {
            applied.refused = edits.into_iter().map(|edit| (edit, error.clone())).collect();
            return (applied, next.into_bytes());
        }
        applied.settled = self.contested().to_vec();
        applied.target = self.target.as_ref().map(|side| side.commit.clone());
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
        check_bead(bead, self.issues(), prefixes)?;
        match edit {
            Edit::Claim { assignee, .. } => next.claim(bead, assignee, now),
            Edit::Release { assignee, .. } => next.release(bead, assignee, now),
            Edit::Close { reason, .. } => next.close(bead, reason, now),
            Edit::Comment { author, text, .. } => next.comment(bead, author, text, now),
        }
    }
}

/// Whether two sides have the same file.
fn same(one: Option<&Side>, other: Option<&Side>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            Arc::ptr_eq(&one.store, &other.store) || one.store.write() == other.store.write()
        }
        (None, None) => true,
        (Some(one), None) | (None, Some(one)) => one.store.write().is_empty(),
    }
}
