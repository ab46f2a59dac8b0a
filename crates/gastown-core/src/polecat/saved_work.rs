//! What is saved on the remote beside the work branch, over all attempts, and what is lost: bounded,
//! so that the ledger stays small.

use std::fmt::Write as _;

use gastown_types::{CommitId, text};
use serde::{Deserialize, Serialize};

use crate::report::{Saved, SyncReport};

/// How many entries there are at most.
const MAX_ENTRIES: usize = 20;
/// How many bytes of JSON they have together, at most.
const MAX_BYTES: usize = 2800;
/// The longest ref, in characters.
const MAX_REF: usize = 250;
/// The longest description, in characters.
const MAX_OF: usize = 100;
/// How many entries a text for people names.
const MAX_NAMED: usize = 5;
/// How many parts of lost work are named.
const MAX_LOST: usize = 3;

/// Work that is on a ref of the remote beside the work branch. Keys are short: an annotation holds
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedWork {
    /// The ref on the remote from which `commit` can be fetched.
    pub r#ref: String,
    /// The commit.
    pub commit: CommitId,
    /// What it was in the pod, such as `branch side` or `uncommitted files`.
    pub of: String,
    /// How many files could not be saved with it.
    #[serde(default, rename = "skip", skip_serializing_if = "is_zero")]
    pub skipped: u32,
    /// The attempt whose work it is.
    #[serde(rename = "n")]
    pub attempt: u32,
}

// serde's skip_serializing_if passes a reference
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Work that is gone with its pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// The attempt whose work it was.
    pub attempt: u32,
    /// What it was and why it was not saved; at most three parts.
    pub what: Vec<String>,
    /// How many further parts there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u32,
}

impl Lost {
    /// What is lost, as the beginning of a sentence.
    pub fn text(&self) -> String {
        let more = if self.more > 0 { format!("; and {} more", self.more) } else { String::new() };
        format!("lost with the pod of attempt {}: {}{more}", self.attempt, self.what.join("; "))
    }

    /// The same, with bounded and visible texts.
    pub(super) fn bounded(mut self) -> Self {
        let dropped = self.what.len().saturating_sub(MAX_LOST);
        self.what.truncate(MAX_LOST);
        self.more = self.more.saturating_add(u32::try_from(dropped).unwrap_or(u32::MAX));
        for what in &mut self.what {
            *what = text::line(what, MAX_OF);
        }
        self
    }
}

/// Adds what a pod's record names, newest first; an entry of the same commit is replaced.
pub(super) fn add(all: &mut Vec<SavedWork>, attempt: u32, sync: &SyncReport) {
    let entry = |s: &Saved| SavedWork {
        r#ref: s.r#ref.clone(),
        commit: s.commit.clone(),
        of: s.of.clone(),
        skipped: s.skipped,
        attempt,
    };
    let new: Vec<SavedWork> = sync.saved.iter().map(entry).collect();
    all.retain(|old| !new.iter().any(|n| n.commit == old.commit));
    all.splice(0..0, new);
    bound(all);
}

/// Brings the entries within their bounds: the oldest go.
pub(super) fn bound(all: &mut Vec<SavedWork>) {
    all.truncate(MAX_ENTRIES);
    for entry in all.iter_mut() {
        entry.r#ref = text::line(&entry.r#ref, MAX_REF);
        entry.of = text::line(&entry.of, MAX_OF);
    }
    let size = |e: &SavedWork| serde_json::to_string(e).map_or(0, |s| s.len() + 1);
    let mut bytes = 0;
    all.retain(|entry| {
        bytes += size(entry);
        bytes <= MAX_BYTES
    });
}

/// The entries for people, as the rest of a paragraph; empty where there are none.
pub(super) fn describe(all: &[SavedWork]) -> String {
    let mut out = String::new();
    for entry in all.iter().take(MAX_NAMED) {
        let SavedWork { r#ref, commit, of, skipped, attempt } = entry;
        let _ = write!(out, "Saved from attempt {attempt}: {of}, {commit} on {ref}");
        if *skipped > 0 {
            let _ = write!(out, " ({skipped} files are missing in it)");
        }
        out.push_str(".\n");
    }
    let more = all.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        let _ = writeln!(out, "{more} more are in status.saved.");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{commit, sync};
    use super::*;
    use crate::report::SyncResult;

    fn record(commits: impl IntoIterator<Item = u8>) -> SyncReport {
        let mut record = sync(SyncResult::Pushed, Some(commit(1)), 1);
        record.saved = commits
            .into_iter()
            .map(|n| Saved {
                r#ref: format!("refs/gastown/wip/dev/toast/{n}"),
                commit: commit(n),
                of: format!("branch b{n}"),
                skipped: u32::from(n == 9),
            })
            .collect();
        record
    }

    #[test]
    fn the_newest_are_kept_first_each_once_and_within_bounds() {
        let mut all = Vec::new();
        add(&mut all, 1, &record([1, 2]));
        add(&mut all, 2, &record([2, 3]));
        let order: Vec<_> = all.iter().map(|s| (s.of.as_str(), s.attempt)).collect();
        assert_eq!(order, [("branch b2", 2), ("branch b3", 2), ("branch b1", 1)]);
        add(&mut all, 3, &record(10..60));
        assert!(all.len() <= MAX_ENTRIES && all.len() > 10, "{}", all.len());
        assert_eq!(all[0].of, "branch b10");
        assert!(serde_json::to_string(&all).unwrap().len() <= MAX_BYTES + 2);
    }

    #[test]
    fn people_read_where_it_is_and_what_is_missing() {
        let mut all = Vec::new();
        add(&mut all, 2, &record([9, 1, 2, 3, 4, 5, 6]));
        let text = describe(&all);
        let first = format!(
            "Saved from attempt 2: branch b9, {} on refs/gastown/wip/dev/toast/9 (1 files are \
             missing in it).\n",
            commit(9)
        );
        assert!(text.starts_with(&first), "{text}");
        assert!(text.ends_with("2 more are in status.saved.\n"), "{text}");
        assert_eq!(describe(&[]), "");
    }
}
