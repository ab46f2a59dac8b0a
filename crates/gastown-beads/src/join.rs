//! Two branches read as one store.

use std::sync::Arc;

use crate::{
    issue::Issue,
    line,
    meaning::Side,
    merge::{Line, Merged, Version, merge},
    set::IssueSet,
    store::Store,
};

/// The issues of two branches as one store, and what the write branch lacks of it.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    issues: IssueSet,
    /// Issues whose line differs from the write branch's, with their line.
    changed: Vec<(String, String)>,
    contested: Vec<String>,
}

/// Reads two branches as one: of each issue the fields that either branch changed since `base`, the
/// file that both began with; in the order of the target branch, followed by issues that only the
/// write branch has.
///
/// Where both changed a field, the later `updated_at` of the two lines wins, and the target branch
/// where they are equal; a line whose time cannot be read counts as the older one. An issue that
/// was removed from one file is still shown from the other: in JSONL a missing line does not mean a
/// deletion. An issue that is not in `base` began as an open one without fields.
pub fn join(base: &Store, target: &Store, write: &Store) -> Joined {
    let mut joined = Joined::default();
    let is_empty = target.issues().iter_any().next().is_none();
    joined.issues.set_dialect(if is_empty { write.dialect() } else { target.dialect() });
    let mut numbers = Numbers { of: [target, write], last: None };
    for theirs in target.issues().iter_any() {
        let Some(ours) = write.issues().get_any(&theirs.id) else {
            joined.take(theirs, target);
            continue;
        };
        joined.add([theirs, ours], [base, target, write], &mut || numbers.next());
    }
    for ours in write.issues().iter_any().filter(|ours| target.issues().get_any(&ours.id).is_none())
    {
        joined.issues.insert(Arc::clone(ours));
    }
    joined
}

impl Joined {
    /// One branch alone.
    pub fn of(store: &Store) -> Self {
        Self { issues: store.issues().clone(), ..Self::default() }
    }

    /// The issues.
    pub fn issues(&self) -> &IssueSet {
        &self.issues
    }

    /// The issues of which both branches changed a field to different values, so that their times
    /// decided. The result holds until one of the lines gets another time; [`Store::adopt`] makes
    /// it last.
    pub fn contested(&self) -> &[String] {
        &self.contested
    }

    /// The issues whose line differs from the write branch's, with their line.
    pub(crate) fn changed(&self) -> &[(String, String)] {
        &self.changed
    }

    /// Takes an issue's line from the target branch.
    fn take(&mut self, theirs: &Arc<Issue>, target: &Store) {
        self.changed
            .extend(target.raw(&theirs.id).map(|line| (theirs.id.clone(), line.to_owned())));
        self.issues.insert(Arc::clone(theirs));
    }

    /// Adds an issue that both branches have.
    fn add(
        &mut self,
        [theirs, ours]: [&Arc<Issue>; 2],
        [base, target, write]: [&Store; 3],
        fresh: &mut dyn FnMut() -> Option<u64>,
    ) {
        let id = theirs.id.as_str();
        let (Some(text), Some(our_text)) = (target.raw(id), write.raw(id)) else { return };
        let before = base.raw(id);
        let keeps_ours = text == our_text || before == Some(text);
        let merged = if keeps_ours {
            Merged { line: Line::Of(Side::Write), contested: false }
        } else if before == Some(our_text) {
            Merged { line: Line::Of(Side::Target), contested: false }
        } else {
            let target = Version { text, updated_at: theirs.updated_at };
            let write = Version { text: our_text, updated_at: ours.updated_at };
            merge(id, before, target, write, fresh)
        };
        if merged.contested {
            self.contested.push(id.to_owned());
        }
        match merged.line {
            Line::Of(Side::Write) => {
                self.issues.insert(Arc::clone(ours));
            }
            Line::Of(Side::Target) => self.take(theirs, target),
            Line::Mixed(line) => match line::read(line.as_bytes()) {
                line::Line::Issue(read)
                    if read.issue.id == id && line.len() <= write.options.max_line =>
                {
                    self.issues.insert(Arc::new(read.issue));
                    self.changed.push((id.to_owned(), line));
                }
                // A line that is too long is not written, so one of the versions is taken whole.
                _ if ours.updated_at > theirs.updated_at => {
                    self.issues.insert(Arc::clone(ours));
                }
                _ => self.take(theirs, target),
            },
        }
    }
}

impl AsRef<IssueSet> for Joined {
    fn as_ref(&self) -> &IssueSet {
        &self.issues
    }
}

/// Numbers of comments that neither branch uses.
struct Numbers<'a> {
    of: [&'a Store; 2],
    last: Option<u64>,
}

impl Numbers<'_> {
    /// The next number; `None` where they are used up.
    fn next(&mut self) -> Option<u64> {
        let of = self.of;
        let greatest = || {
            let comments =
                of.iter().flat_map(|store| store.issues().iter_any()).flat_map(|i| &i.comments);
            comments.filter_map(|comment| comment.id.parse().ok()).max().unwrap_or(0)
        };
        let next = self.last.unwrap_or_else(greatest).checked_add(1)?;
        self.last = Some(next);
        Some(next)
    }
}
