//! Which issues `bd ready` would list, and why it would not list the others.
//!
//! The rules are those of `bd` from 1.0 on for every dialect: an issue waits for the targets of
//! `blocks` and `conditional-blocks` that are neither closed nor pinned, for the children that a
//! `waits-for` edge names, and for what its parents wait for, at any depth. `bd` up to 0.49 knew
//! fewer kinds of edges, so it never wrote the others. Only the order of the list depends on the
//! dialect. Templates, which `bd` lists, are never work here.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    dialect::Dialect,
    edges::Edges,
    issue::{Dependency, DependencyKind, Gate, Issue, Status},
    set::IssueSet,
};

/// Types that are never work.
const NOT_WORK: &[&str] = &["merge-request", "gate", "molecule", "message", "agent", "role", "rig"];

/// Fields that decide whether an issue is ready; an issue with an unreadable one is not ready.
const DECIDING: &[&str] =
    &["status", "dependencies", "defer_until", "issue_type", "pinned", "ephemeral", "is_template"];

/// `bd` up to 0.49 lists issues younger than this first, by priority, and older ones after them, by
/// age.
const RECENT: SignedDuration = SignedDuration::from_hours(48);

/// Whether an issue is ready, or the first of these reasons why it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It may be claimed and worked on.
    Ready,
    /// It is done.
    Closed,
    /// It is in progress or hooked.
    Claimed {
        /// The assignee; absent where the file has none.
        by: Option<&'a str>,
    },
    /// Its status is neither open, claimed nor closed.
    NotOpen {
        /// The status in the file.
        status: &'a str,
    },
    /// It is not work: it is pinned, ephemeral, a template, or of a type that is never work.
    NotWork {
        /// The flag or the type.
        what: &'a str,
    },
    /// A field that decides cannot be read.
    Unreadable {
        /// The field.
        field: &'static str,
    },
    /// It, or an ancestor, waits for these.
    Blocked {
        /// Their ids.
        by: Vec<&'a str>,
    },
    /// It, or a direct parent, is deferred.
    Deferred {
        /// The end of the deferral.
        until: Timestamp,
    },
}

/// The standing of all issues of a set at one time.
pub struct Readiness<'a> {
    edges: Edges<'a>,
    dialect: Dialect,
    now: Timestamp,
    /// For each blocked issue: the issue whose own blockers block it (itself or an ancestor).
    cause: Vec<Option<usize>>,
}

/// The issues that `bd ready` would list at `now`, in its order.
pub fn ready<T: AsRef<IssueSet>>(issues: &T, now: Timestamp) -> Vec<&Issue> {
    Readiness::of(issues, now).ready()
}

impl<'a> Readiness<'a> {
    /// Examines all issues, in time linear in the number of issues and edges.
    pub fn of<T: AsRef<IssueSet>>(issues: &'a T, now: Timestamp) -> Self {
        let set = issues.as_ref();
        let edges = Edges::of(set);
        let cause = spread(&edges, &blocked_directly(&edges));
        Self { edges, dialect: set.dialect(), now, cause }
    }

    /// The ready issues, best first: by priority and then the youngest, like `bd` from 1.0 on; or
    /// those younger than 48 h by priority and then the others by age, like `bd` up to 0.49.
    pub fn ready(&self) -> Vec<&'a Issue> {
        let is_ready = |place: &usize| {
            self.cause[*place].is_none() && self.standing_at(*place) == Standing::Ready
        };
        let mut ready: Vec<&Issue> = (0..self.edges.issues.len())
            .filter(is_ready)
            .map(|place| self.edges.issues[place])
            .collect();
        match self.dialect {
            Dialect::Export => {
                ready.sort_by_key(|issue| (issue.priority, Reverse(issue.created_at), &issue.id))
            }
            Dialect::Classic | Dialect::Br => {
                let since = self.now.checked_sub(RECENT).unwrap_or(Timestamp::MIN);
                ready.sort_by_key(|issue| {
                    let recent = issue.created_at.is_some_and(|at| at >= since);
                    (!recent, if recent { issue.priority } else { 0 }, issue.created_at, &issue.id)
                });
            }
        }
        ready
    }

    /// Whether an issue or an ancestor of it waits for another issue. A done or unknown issue is not
    /// blocked.
    pub fn is_blocked(&self, id: &str) -> bool {
        self.edges.index.get(id).is_some_and(|place| self.cause[*place].is_some())
    }

    /// The standing of an issue; `None` for an unknown id.
    pub fn standing(&self, id: &str) -> Option<Standing<'a>> {
        self.edges.index.get(id).map(|place| self.standing_at(*place))
    }

    fn standing_at(&self, place: usize) -> Standing<'a> {
        let issue = self.edges.issues[place];
        if let Some(field) = issue.unreadable.iter().find(|field| DECIDING.contains(field)) {
            return Standing::Unreadable { field };
        }
        match &issue.status {
            Status::Open => {}
            Status::Closed => return Standing::Closed,
            Status::InProgress | Status::Hooked => {
                return Standing::Claimed { by: issue.assignee.as_deref() };
            }
            status => return Standing::NotOpen { status: status.as_str() },
        }
        let flags = [
            (issue.pinned, "pinned"),
            (issue.ephemeral, "ephemeral"),
            (issue.is_template, "a template"),
        ];
        if let Some((_, what)) = flags.iter().find(|(set, _)| *set) {
            return Standing::NotWork { what };
        }
        if NOT_WORK.contains(&issue.issue_type.as_str()) {
            return Standing::NotWork { what: &issue.issue_type };
        }
        if let Some(cause) = self.cause[place] {
            let blockers = direct_blockers(&self.edges, cause);
            return Standing::Blocked {
                by: blockers
                    .into_iter()
                    .map(|blocker| self.edges.issues[blocker].id.as_str())
                    .collect(),
            };
        }
        let parents = self.edges.parents[place].iter().map(|parent| self.edges.issues[*parent]);
        let deferred =
            std::iter::once(issue).chain(parents).filter_map(|each| each.defer_until).max();
        match deferred.filter(|until| *until > self.now) {
            Some(until) => Standing::Deferred { until },
            None => Standing::Ready,
        }
    }
}

/// What blocks an issue itself, apart from its ancestors: targets that are not done, and children
/// that a `waits-for` edge still waits for.
fn direct_blockers(edges: &Edges<'_>, place: usize) -> Vec<usize> {
    let done = |place: usize| edges.issues[place].is_done();
    let mut out = Vec::new();
    for (edge, target) in &edges.blockers[place] {
        if edge.kind == DependencyKind::WaitsFor {
            out.extend(edges.awaited(*target, edge.gate(), done));
        } else if !done(*target) {
            out.push(*target);
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Whether each issue has blockers of its own. Each gate is evaluated once, however many issues wait
/// for it.
fn blocked_directly(edges: &Edges<'_>) -> Vec<bool> {
    let done = |place: usize| edges.issues[place].is_done();
    let mut gates = HashMap::new();
    let mut waits = |target: usize, gate: Gate| {
        *gates
            .entry((target, gate))
            .or_insert_with(|| !edges.awaited(target, gate, done).is_empty())
    };
    let mut holds = |edge: &Dependency, target: usize| match edge.kind {
        DependencyKind::WaitsFor => waits(target, edge.gate()),
        _ => !done(target),
    };
    edges
        .blockers
        .iter()
        .map(|blockers| blockers.iter().any(|(edge, target)| holds(edge, *target)))
        .collect()
}

/// Passes blocks from parents to children; a done issue is not blocked and passes nothing on.
fn spread(edges: &Edges<'_>, direct: &[bool]) -> Vec<Option<usize>> {
    let mut cause = vec![None; direct.len()];
    let mut queue = VecDeque::new();
    for place in 0..direct.len() {
        if direct[place] && !edges.issues[place].is_done() {
            cause[place] = Some(place);
            queue.push_back(place);
        }
    }
    while let Some(parent) = queue.pop_front() {
        for child in &edges.children[parent] {
            if cause[*child].is_none() && !edges.issues[*child].is_done() {
                cause[*child] = cause[parent];
                queue.push_back(*child);
            }
        }
    }
    cause
}
