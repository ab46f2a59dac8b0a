//! Two branches read as one store.

use std::sync::Arc;

use crate::{set::IssueSet, store::Store};

/// The issues of two branches, each in its later version.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    issues: IssueSet,
}

/// Reads two branches as one: of each issue the line with the later `updated_at`, the write
/// branch's where both are equal; in the order of the target branch, followed by issues that only
/// the write branch has.
///
/// A line whose time cannot be read counts as the older one. An issue that was removed from one
/// file is still shown from the other: in JSONL a missing line does not mean a deletion.
pub fn join(target: &Store, write: &Store) -> Joined {
    let mut joined = Joined::default();
    let dialect = if target.issues().iter_any().next().is_some() {
        target.dialect()
    } else {
        write.dialect()
    };
    joined.issues.set_dialect(dialect);
    for theirs in target.issues().iter_any() {
        let ours = write.issues().get_any(&theirs.id);
        let issue = match ours {
            Some(ours) if ours.updated_at >= theirs.updated_at => ours,
            _ => theirs,
        };
        joined.issues.insert(Arc::clone(issue));
    }
    for ours in write.issues().iter_any().filter(|ours| target.issues().get_any(&ours.id).is_none())
    {
        joined.issues.insert(Arc::clone(ours));
    }
    joined
}

impl Joined {
    /// The issues.
    pub fn issues(&self) -> &IssueSet {
        &self.issues
    }
}

impl AsRef<IssueSet> for Joined {
    fn as_ref(&self) -> &IssueSet {
        &self.issues
    }
}
