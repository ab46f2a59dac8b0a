//! What a store says, wherever its beads are kept, and what deeds made of it. Pure.

use std::fmt::Write as _;
use std::sync::Arc;

use gastown_api::WritePolicy;
use gastown_beads::{Change, Dialect, EditError, IssueSet};

use crate::branches::Branches;
use crate::ledger::{Ledger, TRAILER};
use crate::plan::{Deed, Prefixes};
use crate::served::Served;

/// A store as it was read.
#[derive(Clone, Debug)]
pub enum View {
    /// Files in git.
    Git(Arc<Branches>),
    /// What a server has.
    Served(Arc<Served>),
}

impl View {
    /// The beads.
    pub fn issues(&self) -> &IssueSet {
        match self {
            Self::Git(branches) => branches.issues(),
            Self::Served(served) => &served.issues,
        }
    }

    /// What we wrote.
    pub fn ledger(&self) -> &Ledger {
        match self {
            Self::Git(branches) => &branches.ledger,
            Self::Served(served) => &served.ledger,
        }
    }

    /// Counts up with each change of the beads.
    pub fn number(&self) -> u64 {
        match self {
            Self::Git(branches) => branches.number,
            Self::Served(served) => served.number,
        }
    }

    /// The two branches of a store in git.
    pub fn branches(&self) -> Option<&Arc<Branches>> {
        match self {
            Self::Git(branches) => Some(branches),
            Self::Served(_) => None,
        }
    }

    /// What a server has.
    pub fn served(&self) -> Option<&Arc<Served>> {
        match self {
            Self::Git(_) => None,
            Self::Served(served) => Some(served),
        }
    }

    /// The format of the file; a server has none.
    pub fn dialect(&self) -> Option<Dialect> {
        self.branches().map(|branches| branches.dialect())
    }

    /// Whether what is read is the truth, and not an export of a database.
    pub fn is_authoritative(&self) -> bool {
        match self {
            Self::Git(branches) => branches.is_authoritative(),
            Self::Served(_) => true,
        }
    }

    /// The id of the project, as the store has it.
    pub fn project_id(&self) -> Option<&str> {
        match self {
            Self::Git(branches) => branches.project_id(),
            Self::Served(served) => Some(&served.project),
        }
    }

    /// Lines or rows that no bead was read from.
    pub fn malformed(&self) -> usize {
        match self {
            Self::Git(branches) => branches.malformed(),
            Self::Served(served) => served.malformed,
        }
    }

    /// Where writes go, for people; or a reason and a sentence why there are none.
    pub fn writable(&self, policy: WritePolicy) -> Result<String, (String, String)> {
        match self {
            Self::Git(branches) => {
                branches.writable(policy).map(|branch| format!("branch {branch}"))
            }
            Self::Served(served) => {
                read_only(policy).map(|()| format!("project {} at {}", served.project, served.url))
            }
        }
    }
}

/// What deeds make of a store.
#[derive(Debug, Default)]
pub struct Applied {
    /// What was asked, and whether it changed anything.
    pub done: Vec<(Deed, Change)>,
    /// What the store does not allow.
    pub refused: Vec<(Deed, EditError)>,
}

impl Applied {
    /// Whether there is anything to commit: a changed line, or something to be remembered.
    pub fn is_news(&self) -> bool {
        self.done.iter().any(|(deed, change)| *change == Change::Made || deed.record().is_some())
    }

    /// The message of the commit.
    pub fn message(&self, author: &str) -> String {
        let news: Vec<&Deed> = self
            .done
            .iter()
            .filter(|(deed, change)| *change == Change::Made || deed.record().is_some())
            .map(|(deed, _)| deed)
            .collect();
        let one_line = |deed: &Deed| {
            deed.words()
                .replace(|c: char| c.is_control(), " ")
                .chars()
                .take(200)
                .collect::<String>()
        };
        let mut text = match news[..] {
            [one] => format!("{}\n\n", one_line(one)),
            _ => format!(
                "Update {} beads\n\n{}\n\n",
                news.len(),
                news.iter()
                    .map(|deed| format!("* {}", one_line(deed)))
                    .collect::<Vec<_>>()
                    .join("\n")
            ),
        };
        for record in
            news.iter().filter_map(|deed| deed.record()).filter_map(|record| record.text())
        {
            let _ = writeln!(text, "{TRAILER}: {record}");
        }
        let _ = writeln!(text, "Gastown-Store: {author}");
        text
    }
}

/// The reason and the sentence of a store that is read and never written.
pub(crate) fn read_only(policy: WritePolicy) -> Result<(), (String, String)> {
    match policy {
        WritePolicy::ReadOnly => {
            Err(("ReadOnly".to_owned(), "spec.writePolicy is ReadOnly".to_owned()))
        }
        WritePolicy::Write | WritePolicy::AllowExportOnly => Ok(()),
    }
}

/// Whether a bead is there and may be written.
pub(crate) fn allowed(bead: &str, issues: &IssueSet, prefixes: &Prefixes) -> Result<(), EditError> {
    if !prefixes.allow(bead) {
        let why =
            "it has none of the store's prefixes (spec.prefix, spec.allowedPrefixes)".to_owned();
        return Err(EditError::NotEditable { id: bead.to_owned(), why });
    }
    match issues.get(bead) {
        Some(_) => Ok(()),
        None => {
            Err(EditError::NotFound(bead.chars().filter(|c| !c.is_control()).take(80).collect()))
        }
    }
}
