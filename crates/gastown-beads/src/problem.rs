//! The problems of a file, and which of them prevent writes.

use std::collections::BTreeMap;

/// The most characters of a text from the file in a message.
pub(crate) const MAX_SHOWN: usize = 80;

/// One problem, with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// The kind of problem.
    pub defect: Defect,
}

/// The kinds of problems. Texts from the file are short and without hidden characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// A line of an unfinished merge.
    #[error("a conflict marker")]
    ConflictMarker,
    /// A line that is not a JSON object, or not an issue of any dialect.
    #[error("{}malformed: {why}", named(id.as_deref()))]
    Malformed {
        /// The issue, where the line shows its id.
        id: Option<String>,
        /// What is wrong.
        why: String,
    },
    /// A line that is not UTF-8.
    #[error("{}not UTF-8", named(.0.as_deref()))]
    NotUtf8(
        /// The issue, where the line shows its id.
        Option<String>,
    ),
    /// A line longer than [`crate::Options::max_line`]; it is kept, not read.
    #[error("{}the line has {bytes} bytes, more than the limit of {limit}", named(id.as_deref()))]
    LineTooLong {
        /// The issue, where the line shows its id.
        id: Option<String>,
        /// Its length, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The file holds more issues than [`crate::Options::max_issues`]; this line and those after it
    /// are kept, not read.
    #[error("more than {0} issues")]
    TooManyIssues(usize),
    /// An id that could be mistaken for a path or a control sequence; the issue is not shown.
    #[error("`{0}` is not a valid id")]
    BadId(String),
    /// The id of an earlier line; the later line is read.
    #[error("the id {id} was already on line {first}")]
    DuplicateId {
        /// The id.
        id: String,
        /// The line that had it first.
        first: usize,
    },
    /// The file begins with a byte order mark, which `bd` takes for a malformed line.
    #[error("a byte order mark")]
    ByteOrderMark,
    /// The first line that ends with CR LF.
    #[error("the line ends with CR LF")]
    CarriageReturn,
    /// A value of a wrong type; the field counts as absent.
    #[error("{id}: `{field}` is {what}")]
    WrongType {
        /// The issue.
        id: String,
        /// The key in the file.
        field: &'static str,
        /// What is wrong, such as `not a string`.
        what: String,
    },
    /// A key that occurs twice in one issue; the last one is read, and the issue is not edited.
    #[error("{id}: the key `{key}` occurs twice")]
    DuplicateKey {
        /// The issue.
        id: String,
        /// The key.
        key: String,
    },
}

/// The id of an issue before what is wrong with it.
fn named(id: Option<&str>) -> String {
    id.map(|id| format!("{id}: ")).unwrap_or_default()
}

/// Why a store is not written, as the reason of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A merge in the file is unfinished.
    ConflictMarkers,
    /// Two lines have the same id, so an edit might change the wrong one.
    DuplicateIds,
    /// A line is not an issue; `bd import` would refuse the whole file, and our edit with it.
    MalformedLines,
    /// A line is not UTF-8.
    NotUtf8,
    /// A line is longer than the limit.
    LineTooLong,
    /// There are more issues than the limit.
    TooManyIssues,
    /// An id is not valid.
    BadId,
    /// The file begins with a byte order mark.
    ByteOrderMark,
    /// Lines end with CR LF.
    CarriageReturns,
}

impl Reason {
    /// The reason as a condition has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConflictMarkers => "ConflictMarkers",
            Self::DuplicateIds => "DuplicateIds",
            Self::MalformedLines => "MalformedLines",
            Self::NotUtf8 => "NotUtf8",
            Self::LineTooLong => "LineTooLong",
            Self::TooManyIssues => "TooManyIssues",
            Self::BadId => "BadId",
            Self::ByteOrderMark => "ByteOrderMark",
            Self::CarriageReturns => "CarriageReturns",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Defect {
    /// The reason why this prevents all writes; `None` where other issues can still be read and
    /// edited.
    pub fn prevents_writes(&self) -> Option<Reason> {
        match self {
            Self::ConflictMarker => Some(Reason::ConflictMarkers),
            Self::Malformed { .. } => Some(Reason::MalformedLines),
            Self::NotUtf8(_) => Some(Reason::NotUtf8),
            Self::LineTooLong { .. } => Some(Reason::LineTooLong),
            Self::TooManyIssues(_) => Some(Reason::TooManyIssues),
            Self::BadId(_) => Some(Reason::BadId),
            Self::DuplicateId { .. } => Some(Reason::DuplicateIds),
            Self::ByteOrderMark => Some(Reason::ByteOrderMark),
            Self::CarriageReturn => Some(Reason::CarriageReturns),
            Self::WrongType { .. } | Self::DuplicateKey { .. } => None,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.defect)
    }
}

/// Why a store is not written to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct NotWritable {
    /// The reason.
    pub reason: Reason,
    /// The first line with the problem, and how many others there are.
    pub message: String,
}

/// How many problems of each reason are kept with their lines, and how many without a reason; the
/// others are only counted.
const KEPT: usize = 20;

/// The problems of a file: all counted, the first of each kind kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    kept: Vec<Problem>,
    counts: BTreeMap<Option<Reason>, usize>,
}

impl Problems {
    /// The first problems of each kind, in the order of their lines.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.kept.iter()
    }

    /// How many problems there are, kept or not.
    pub fn total(&self) -> usize {
        self.counts.values().sum()
    }

    /// How many problems prevent writes for `reason`.
    pub fn count(&self, reason: Reason) -> usize {
        self.counts.get(&Some(reason)).copied().unwrap_or(0)
    }

    /// The first line that is not read, and how many there are; `None` where all are.
    pub fn not_read(&self) -> Option<(&Problem, usize)> {
        let reasons = [
            Reason::MalformedLines,
            Reason::NotUtf8,
            Reason::LineTooLong,
            Reason::TooManyIssues,
            Reason::BadId,
        ];
        let is_not_read = |problem: &&Problem| {
            problem.defect.prevents_writes().is_some_and(|reason| reasons.contains(&reason))
        };
        let count = reasons.iter().map(|reason| self.count(*reason)).sum();
        self.iter().find(is_not_read).map(|first| (first, count))
    }

    /// How many problems do not prevent writes.
    pub fn harmless(&self) -> usize {
        self.counts.get(&None).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, problem: Problem) {
        let count = self.counts.entry(problem.defect.prevents_writes()).or_default();
        *count += 1;
        if *count <= KEPT {
            let place = self.kept.partition_point(|kept| kept.line <= problem.line);
            self.kept.insert(place, problem);
        }
    }

    /// Removes the `count` problems of the fields of `line`.
    pub(crate) fn forget_fields(&mut self, line: usize, count: usize) {
        self.kept.retain(|kept| kept.line != line || kept.defect.prevents_writes().is_some());
        if let Some(total) = self.counts.get_mut(&None) {
            *total = total.saturating_sub(count);
        }
        self.counts.retain(|_, count| *count > 0);
    }

    /// Whether the file may be written, else the gravest reason with its first line.
    pub(crate) fn prevents_writes(&self) -> Result<(), NotWritable> {
        let Some((reason, count)) =
            self.counts.iter().find_map(|(reason, count)| Some(((*reason)?, *count)))
        else {
            return Ok(());
        };
        let first = self
            .kept
            .iter()
            .find(|kept| kept.defect.prevents_writes() == Some(reason))
            .map(ToString::to_string)
            .unwrap_or_default();
        let message = if count > 1 { format!("{first}, and {} more", count - 1) } else { first };
        Err(NotWritable { reason, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_reason_comes_first_with_its_first_line() {
        let mut problems = Problems::default();
        problems.add(Problem { line: 1, defect: Defect::ByteOrderMark });
        assert_eq!(
            problems.prevents_writes().unwrap_err().to_string(),
            "ByteOrderMark: line 1: a byte order mark"
        );
        problems.add(Problem { line: 7, defect: Defect::ConflictMarker });
        problems.add(Problem { line: 9, defect: Defect::ConflictMarker });
        assert_eq!(
            problems.prevents_writes().unwrap_err().to_string(),
            "ConflictMarkers: line 7: a conflict marker, and 1 more"
        );
    }

    #[test]
    fn many_problems_are_counted_and_few_are_kept() {
        let mut problems = Problems::default();
        for line in 1..=1000 {
            problems.add(Problem { line, defect: Defect::NotUtf8(None) });
        }
        problems.add(Problem { line: 1001, defect: Defect::ConflictMarker });
        assert_eq!(
            (problems.total(), problems.count(Reason::NotUtf8), problems.iter().count()),
            (1001, 1000, KEPT + 1)
        );
    }
}
