//! A file of issues: its bytes, and the issues in them.

use std::{ops::Range, sync::Arc};

use crate::{
    dialect::{Dialect, Escaping, Votes},
    json,
    line::{self, Line},
    problem::{Defect, NotWritable, Problem, Problems},
    set::IssueSet,
};

/// Limits of what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The longest line that is read, in bytes. `bd` reads up to 64 MiB.
    pub max_line: usize,
    /// The most issues that are read, so that a hostile file of tiny lines stays bounded in memory.
    pub max_issues: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_line: 64 << 20, max_issues: 200_000 }
    }
}

/// A file of issues. Its bytes are kept unchanged; an edit changes the bytes of one line.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub(crate) bytes: Vec<u8>,
    /// The position of each issue of `issues`, in the same order.
    pub(crate) records: Vec<Record>,
    pub(crate) issues: IssueSet,
    pub(crate) problems: Problems,
    pub(crate) escaping: Escaping,
    pub(crate) options: Options,
}

/// The position of an issue in the file.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) line: usize,
    /// The object, without a byte order mark and the line's end.
    pub(crate) span: Range<usize>,
    /// The number of problems of its fields.
    pub(crate) defects: usize,
    /// Whether a key occurs twice, so that an edit might change the one that is not read.
    pub(crate) ambiguous: bool,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Store {
    /// Reads any bytes; see [`Store::problems`] for lines and fields that cannot be read.
    pub fn parse(bytes: impl Into<Vec<u8>>, options: &Options) -> Self {
        let mut store = Self { bytes: bytes.into(), options: *options, ..Self::default() };
        let bytes = std::mem::take(&mut store.bytes);
        let mut votes = Votes::default();
        let (mut start, mut line, mut carriage_return, mut full) = (0, 0, false, false);
        if bytes.starts_with(BYTE_ORDER_MARK) {
            store.problems.add(Problem { line: 1, defect: Defect::ByteOrderMark });
            start = BYTE_ORDER_MARK.len();
        }
        while start < bytes.len() {
            line += 1;
            let rest = &bytes[start..];
            let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let content = rest[..length].strip_suffix(b"\r").unwrap_or(&rest[..length]);
            if content.len() < length && !std::mem::replace(&mut carriage_return, true) {
                store.problems.add(Problem { line, defect: Defect::CarriageReturn });
            }
            if content.len() > options.max_line {
                let defect = Defect::LineTooLong {
                    id: json::leading_id(content),
                    bytes: content.len(),
                    limit: options.max_line,
                };
                store.problems.add(Problem { line, defect });
            } else if !full {
                full = !store.take(line, start, content, &mut votes);
            }
            start += length + 1;
        }
        let dialect = votes.dialect();
        store.escaping = Escaping::detect(&bytes, dialect);
        store.issues.set_dialect(dialect);
        store.bytes = bytes;
        store
    }

    /// Adds a line; false where its issue is one more than the limit.
    fn take(&mut self, line: usize, start: usize, content: &[u8], votes: &mut Votes) -> bool {
        let read = match line::read(content) {
            Line::Blank | Line::Other => return true,
            Line::Bad(defect) => {
                self.problems.add(Problem { line, defect });
                return true;
            }
            Line::Issue(read) => *read,
        };
        if self.records.len() >= self.options.max_issues {
            self.problems
                .add(Problem { line, defect: Defect::TooManyIssues(self.options.max_issues) });
            return false;
        }
        votes.count(read.keys.iter().map(String::as_str));
        let record = Record {
            line,
            span: start..start + content.len(),
            defects: read.defects.len(),
            ambiguous: is_ambiguous(&read.defects),
        };
        for defect in read.defects {
            self.problems.add(Problem { line, defect });
        }
        if let Some(first) =
            self.issues.place(&read.issue.id).and_then(|place| self.records.get(place))
        {
            let defect = Defect::DuplicateId { id: read.issue.id.clone(), first: first.line };
            self.problems.add(Problem { line, defect });
        }
        let place = self.issues.insert(Arc::new(read.issue));
        match self.records.get_mut(place) {
            Some(earlier) => *earlier = record,
            None => self.records.push(record),
        }
        true
    }

    /// The bytes of the file: those that were parsed, with later edits.
    pub fn write(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of the file, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The issues that can be read.
    pub fn issues(&self) -> &IssueSet {
        &self.issues
    }

    /// The problems of the file.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Whether the file may be edited, else the gravest reason why not.
    pub fn writable(&self) -> Result<(), NotWritable> {
        self.problems.prevents_writes()
    }

    /// The dialect of the file.
    pub fn dialect(&self) -> Dialect {
        self.issues.dialect()
    }

    /// The line of an issue, as in the file.
    pub fn raw(&self, id: &str) -> Option<&str> {
        let record = self.records.get(self.issues.place(id)?)?;
        std::str::from_utf8(self.bytes.get(record.span.clone())?).ok()
    }
}

pub(crate) fn is_ambiguous(defects: &[Defect]) -> bool {
    defects.iter().any(|defect| matches!(defect, Defect::DuplicateKey { .. }))
}

impl AsRef<IssueSet> for Store {
    fn as_ref(&self) -> &IssueSet {
        &self.issues
    }
}
