//! Issues by id, in the order of their file.

use std::{collections::HashMap, sync::Arc};

use crate::{
    dialect::Dialect,
    issue::{Issue, Status},
};

/// Issues by id, in the order of their file. Deleted issues (tombstones) are not shown.
#[derive(Clone, Debug, Default)]
pub struct IssueSet {
    dialect: Dialect,
    issues: Vec<Arc<Issue>>,
    index: HashMap<String, usize>,
}

impl IssueSet {
    /// Makes a set of a store of this dialect; of two issues with the same id the later one is taken.
    pub fn new(dialect: Dialect, issues: impl IntoIterator<Item = Arc<Issue>>) -> Self {
        let mut set = Self { dialect, ..Self::default() };
        for issue in issues {
            set.insert(issue);
        }
        set
    }

    /// The dialect of the file, which decides the order of `bd ready`.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The issue of this id, unless it is deleted.
    pub fn get(&self, id: &str) -> Option<&Arc<Issue>> {
        self.get_any(id).filter(|issue| issue.status != Status::Tombstone)
    }

    /// All issues that are not deleted.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issue>> {
        self.iter_any().filter(|issue| issue.status != Status::Tombstone)
    }

    /// The number of issues that are not deleted.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are no issues that are not deleted.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The issue of this id, deleted or not.
    pub(crate) fn get_any(&self, id: &str) -> Option<&Arc<Issue>> {
        self.index.get(id).map(|place| &self.issues[*place])
    }

    /// All issues, deleted or not.
    pub(crate) fn iter_any(&self) -> impl Iterator<Item = &Arc<Issue>> {
        self.issues.iter()
    }

    /// The index of an id, deleted or not: a tombstone keeps its index.
    pub(crate) fn place(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    pub(crate) fn at(&self, place: usize) -> Option<&Arc<Issue>> {
        self.issues.get(place)
    }

    /// Adds an issue at the end, or replaces the one with its id; returns its index.
    pub(crate) fn insert(&mut self, issue: Arc<Issue>) -> usize {
        if let Some(place) = self.place(&issue.id) {
            self.issues[place] = issue;
            return place;
        }
        self.index.insert(issue.id.clone(), self.issues.len());
        self.issues.push(issue);
        self.issues.len() - 1
    }

    pub(crate) fn set_dialect(&mut self, dialect: Dialect) {
        self.dialect = dialect;
    }
}

impl AsRef<IssueSet> for IssueSet {
    fn as_ref(&self) -> &IssueSet {
        self
    }
}
