//! What is odd about a file, and which of it stops writing.

use std::collections::BTreeMap;

/// One odd thing, with the line (from 1) where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// What it is.
    pub defect: Defect,
}

/// The kinds of odd things. Texts from the file are shortened and free of control characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// A line of an unfinished merge.
    #[error("a conflict marker")]
    ConflictMarker,
    /// A line that is no JSON object, or no issue of any dialect.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A line that is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A line longer than [`crate::Options::max_line`]; it is kept, not read.
    #[error("{bytes} bytes are more than the {limit} that a line may have")]
    LineTooLong {
        /// How long it is.
        bytes: usize,
        /// What was allowed.
        limit: usize,
    },
    /// The file holds more issues than [`crate::Options::max_issues`]; this line and what follows
    /// it is kept, not read.
    #[error("more than {0} issues")]
    TooManyIssues(usize),
    /// An id that could be mistaken for a path or a control sequence; the issue is not shown.
    #[error("`{0}` is no usable id")]
    BadId(String),
    /// The id of an earlier line again; the later one is read.
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
    /// A value of a type that its field does not have; the field counts as absent.
    #[error("{id}: `{field}` is {what}")]
    WrongType {
        /// The issue.
        id: String,
        /// The field, as in the file.
        field: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A key twice in one issue; the last is read and the issue is not edited.
    #[error("{id}: the key `{key}` is there twice")]
    DuplicateKey {
        /// The issue.
        id: String,
        /// The key.
        key: String,
    },
}

/// Why a store is not written to, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Somebody's merge is unfinished.
    ConflictMarkers,
    /// Two lines have one id, so an edit might change the wrong one.
    DuplicateIds,
    /// A line is no issue; `bd import` would refuse the whole file, and our edit with it.
    MalformedLines,
    /// A line is not UTF-8.
    NotUtf8,
    /// A line is longer than may be read.
    LineTooLong,
    /// There are more issues than may be read.
    TooManyIssues,
    /// An id is no usable one.
    BadId,
    /// The file begins with a byte order mark.
    ByteOrderMark,
    /// Lines end with CR LF.
    CarriageReturns,
}

impl Reason {
    /// The word for a condition.
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
    /// The reason for which this stops all writing; none where reads and edits can go on around it.
    pub fn stops_writes(&self) -> Option<Reason> {
        match self {
            Self::ConflictMarker => Some(Reason::ConflictMarkers),
            Self::Malformed(_) => Some(Reason::MalformedLines),
            Self::NotUtf8 => Some(Reason::NotUtf8),
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
    /// The word.
    pub reason: Reason,
    /// The first place and how many there are.
    pub message: String,
}

/// How many problems of each reason are kept with their places, and as many without a reason; the
/// others are counted.
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

    /// How many there are of those that stop writing for `reason`.
    pub fn count(&self, reason: Reason) -> usize {
        self.counts.get(&Some(reason)).copied().unwrap_or(0)
    }

    /// How many there are that reads and edits go on around.
    pub fn harmless(&self) -> usize {
        self.counts.get(&None).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, problem: Problem) {
        let count = self.counts.entry(problem.defect.stops_writes()).or_default();
        *count += 1;
        if *count <= KEPT {
            let place = self.kept.partition_point(|kept| kept.line <= problem.line);
            self.kept.insert(place, problem);
        }
    }

    /// Forgets what was said of the fields of `line`: `count` problems.
    pub(crate) fn forget_fields(&mut self, line: usize, count: usize) {
        self.kept.retain(|kept| kept.line != line || kept.defect.stops_writes().is_some());
        if let Some(total) = self.counts.get_mut(&None) {
            *total = total.saturating_sub(count);
        }
        self.counts.retain(|_, count| *count > 0);
    }

    /// The gravest reason against writing, with its first place.
    pub(crate) fn stops_writes(&self) -> Result<(), NotWritable> {
        let Some((reason, count)) =
            self.counts.iter().find_map(|(reason, count)| Some(((*reason)?, *count)))
        else {
            return Ok(());
        };
        let first = self
            .kept
            .iter()
            .find(|kept| kept.defect.stops_writes() == Some(reason))
            .map(ToString::to_string)
            .unwrap_or_default();
        let message = if count > 1 { format!("{first}, and {} more", count - 1) } else { first };
        Err(NotWritable { reason, message })
    }
}

/// Text from a file, fit for a message: short, without control characters.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut out: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() || is_invisible(c) { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

/// Characters that reorder or hide what stands beside them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_reason_comes_first_with_its_first_place() {
        let mut problems = Problems::default();
        problems.add(Problem { line: 1, defect: Defect::ByteOrderMark });
        assert_eq!(
            problems.stops_writes().unwrap_err().to_string(),
            "ByteOrderMark: line 1: a byte order mark"
        );
        problems.add(Problem { line: 7, defect: Defect::ConflictMarker });
        problems.add(Problem { line: 9, defect: Defect::ConflictMarker });
        assert_eq!(
            problems.stops_writes().unwrap_err().to_string(),
            "ConflictMarkers: line 7: a conflict marker, and 1 more"
        );
    }

    #[test]
    fn a_flood_is_counted_and_not_kept() {
        let mut problems = Problems::default();
        for line in 1..=1000 {
            problems.add(Problem { line, defect: Defect::NotUtf8 });
        }
        problems.add(Problem { line: 1001, defect: Defect::ConflictMarker });
        assert_eq!(
            (problems.total(), problems.count(Reason::NotUtf8), problems.iter().count()),
            (1001, 1000, KEPT + 1)
        );
    }

    #[test]
    fn text_for_messages_is_short_and_tame() {
        assert_eq!(shown("a\u{1b}[2Jb\u{202e}"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(shown(&"é".repeat(100)).chars().count(), 81);
    }
}
