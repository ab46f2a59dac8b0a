//! The edges among a set of issues.

use std::collections::HashMap;

use crate::{
    issue::{Dependency, DependencyKind, Gate, Issue},
    set::IssueSet,
};

/// The edges that decide which issues are ready; issues are named by their index in `issues`.
pub(crate) struct Edges<'a> {
    pub(crate) issues: Vec<&'a Issue>,
    pub(crate) index: HashMap<&'a str, usize>,
    /// For each issue: its edges other than parent-child, with their targets.
    pub(crate) blockers: Vec<Vec<(&'a Dependency, usize)>>,
    pub(crate) parents: Vec<Vec<usize>>,
    pub(crate) children: Vec<Vec<usize>>,
}

impl<'a> Edges<'a> {
    /// Reads the edges of a set. An edge belongs to the issue that it names as its dependent, as when
    /// `bd` imports it, not to the line that it is on. Edges to other projects and to unknown ids do
    /// not block, and are left out.
    pub(crate) fn of(set: &'a IssueSet) -> Self {
        let issues: Vec<&Issue> = set.iter().map(AsRef::as_ref).collect();
        let index: HashMap<&str, usize> =
            issues.iter().enumerate().map(|(place, issue)| (issue.id.as_str(), place)).collect();
        let empty = || vec![Vec::new(); issues.len()];
        let (mut parents, mut children) = (empty(), empty());
        let mut blockers = vec![Vec::new(); issues.len()];
        for edge in issues
            .iter()
            .flat_map(|issue| &issue.dependencies)
            .filter(|edge| edge.kind.orders_work() && !edge.is_external())
        {
            let (Some(&from), Some(&to)) =
                (index.get(edge.issue_id.as_str()), index.get(edge.depends_on_id.as_str()))
            else {
                continue;
            };
            if edge.kind == DependencyKind::ParentChild {
                parents[from].push(to);
                children[to].push(from);
            } else {
                blockers[from].push((edge, to));
            }
        }
        Self { issues, index, blockers, parents, children }
    }

    /// The children of `target` that a `waits-for` edge with this gate still waits for; empty where
    /// the gate is open.
    pub(crate) fn awaited(
        &self,
        target: usize,
        gate: Gate,
        done: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let children = &self.children[target];
        let open: Vec<usize> = children.iter().copied().filter(|child| !done(*child)).collect();
        if gate == Gate::AnyChildren && open.len() < children.len() { Vec::new() } else { open }
    }
}
