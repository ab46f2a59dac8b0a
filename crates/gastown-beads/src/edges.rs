//! The edges of a set of issues, looked up once.

use std::collections::HashMap;

use crate::{
    issue::{Dependency, DependencyKind, Gate, Issue},
    set::IssueSet,
};

/// The edges that have a say in what is ready, between issues by their place in `issues`.
pub(crate) struct Edges<'a> {
    pub(crate) issues: Vec<&'a Issue>,
    pub(crate) index: HashMap<&'a str, usize>,
    /// Of each dependent: its edges other than parent-child, with their targets.
    pub(crate) blockers: Vec<Vec<(&'a Dependency, usize)>>,
    pub(crate) parents: Vec<Vec<usize>>,
    pub(crate) children: Vec<Vec<usize>>,
    /// Edges to other projects, and to ids that are not there; neither blocks.
    pub(crate) external: Vec<&'a Dependency>,
    pub(crate) dangling: Vec<&'a Dependency>,
}

impl<'a> Edges<'a> {
    /// An edge belongs to the issue that it names as its dependent, as when `bd` imports it; not to
    /// the line that it is on.
    pub(crate) fn of(set: &'a IssueSet) -> Self {
        let issues: Vec<&Issue> = set.iter().map(AsRef::as_ref).collect();
        let index: HashMap<&str, usize> =
            issues.iter().enumerate().map(|(place, issue)| (issue.id.as_str(), place)).collect();
        let empty = || vec![Vec::new(); issues.len()];
        let (mut parents, mut children) = (empty(), empty());
        let mut blockers = vec![Vec::new(); issues.len()];
        let (mut external, mut dangling) = (Vec::new(), Vec::new());
        for edge in issues
            .iter()
            .flat_map(|issue| &issue.dependencies)
            .filter(|edge| edge.kind.orders_work())
        {
            if edge.is_external() {
                external.push(edge);
                continue;
            }
            let (Some(&from), Some(&to)) =
                (index.get(edge.issue_id.as_str()), index.get(edge.depends_on_id.as_str()))
            else {
                dangling.push(edge);
                continue;
            };
            if edge.kind == DependencyKind::ParentChild {
                parents[from].push(to);
                children[to].push(from);
            } else {
                blockers[from].push((edge, to));
            }
        }
        Self { issues, index, blockers, parents, children, external, dangling }
    }

    /// The children of `target` that a gate on it still waits for, with `done` saying what is done;
    /// none where it is open.
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
