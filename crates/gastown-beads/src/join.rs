//! Two branches read as one store.

use std::{collections::HashMap, sync::Arc};

use crate::{set::IssueSet, store::Store};

/// Where the line of an issue was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The target branch: ours is older, or there is none.
    Target,
    /// The write branch: ours is as new, or the target has none.
    Write,
}

/// The issues of two branches, each as the later of the two says.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    issues: IssueSet,
    origins: HashMap<String, Origin>,
}

/// Reads two branches as one: of each issue the line with the later `updated_at`, the write
/// branch's where they are the same; the target's order first, then what only the write branch has.
///
/// A line whose time cannot be read counts as the older one. An issue that was taken out of one
/// file altogether is still shown from the other: absence says nothing in JSONL.
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
        let (issue, origin) = match ours {
            Some(ours) if ours.updated_at >= theirs.updated_at => (ours, Origin::Write),
            _ => (theirs, Origin::Target),
        };
        joined.add(issue, origin);
    }
    for ours in write.issues().iter_any().filter(|ours| target.issues().get_any(&ours.id).is_none())
    {
        joined.add(ours, Origin::Write);
    }
    joined
}

impl Joined {
    /// The issues.
    pub fn issues(&self) -> &IssueSet {
        &self.issues
    }

    /// Where an issue was taken from.
    pub fn origin(&self, id: &str) -> Option<Origin> {
        self.origins.get(id).copied()
    }

    fn add(&mut self, issue: &Arc<crate::Issue>, origin: Origin) {
        self.origins.insert(issue.id.clone(), origin);
        self.issues.insert(Arc::clone(issue));
    }
}

impl AsRef<IssueSet> for Joined {
    fn as_ref(&self) -> &IssueSet {
        &self.issues
    }
}
