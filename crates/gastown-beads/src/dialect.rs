//! The dialects of issues.jsonl: which program writes it, and how that program spells keys, strings
//! and times.

use jiff::{Timestamp, tz::Offset};

/// The program that writes a JSONL file. A hyphenated prefix (`bd-main-idj`) is not a dialect of its
/// own: see [`crate::prefix_of`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// `bd` up to 0.49: the file is the source of truth; local-offset times with nanoseconds,
    /// sorted by id.
    #[default]
    Classic,
    /// `br`: like classic, with `source_repo` and compaction figures in each line; does not escape
    /// `<`, `>` and `&`.
    Br,
    /// An export of the database of `bd` from 1.0 on: `_type` first, times in whole seconds of UTC,
    /// counts last.
    Export,
}

/// How strings are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Escaping {
    /// Like Go's encoder: `<`, `>`, `&`, U+2028 and U+2029 as `\u003c`, ….
    #[default]
    Html,
    /// Only the escapes that JSON requires.
    Plain,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeStyle {
    /// The offset from UTC; `None` is written `Z`.
    offset: Option<Offset>,
    fraction: Fraction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fraction {
    /// Whole seconds.
    None,
    /// As many digits as needed, like Go.
    Trimmed,
    /// None, 3, 6 or 9 digits, like chrono.
    Thousands,
}

/// The keys of a line as `bd` orders them, in 0.49 and in 1.0 (which adds `_type`, `started_at` and
/// the counts).
const BD_ORDER: &[&str] = &[
    "_type",
    "id",
    "title",
    "description",
    "design",
    "acceptance_criteria",
    "notes",
    "spec_id",
    "status",
    "priority",
    "issue_type",
    "assignee",
    "owner",
    "estimated_minutes",
    "created_at",
    "created_by",
    "updated_at",
    "started_at",
    "closed_at",
    "close_reason",
    "closed_by_session",
    "due_at",
    "defer_until",
    "external_ref",
    "source_system",
    "metadata",
    "compaction_level",
    "compacted_at",
    "compacted_at_commit",
    "original_size",
    "labels",
    "dependencies",
    "comments",
    "deleted_at",
    "deleted_by",
    "delete_reason",
    "original_type",
    "sender",
    "ephemeral",
    "pinned",
    "is_template",
    "dependency_count",
    "dependent_count",
    "comment_count",
];

/// `br` has what describes a deletion and a compaction before the labels, and nothing after the
/// comments.
const BR_ORDER: &[&str] = &[
    "id",
    "title",
    "description",
    "design",
    "acceptance_criteria",
    "notes",
    "status",
    "priority",
    "issue_type",
    "assignee",
    "owner",
    "estimated_minutes",
    "created_at",
    "created_by",
    "updated_at",
    "closed_at",
    "close_reason",
    "closed_by_session",
    "due_at",
    "defer_until",
    "external_ref",
    "source_system",
    "source_repo",
    "deleted_at",
    "deleted_by",
    "delete_reason",
    "original_type",
    "compaction_level",
    "compacted_at",
    "compacted_at_commit",
    "original_size",
    "sender",
    "ephemeral",
    "pinned",
    "is_template",
    "labels",
    "dependencies",
    "comments",
];

impl Dialect {
    /// The name of the dialect for conditions and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "Classic",
            Self::Br => "Br",
            Self::Export => "Export",
        }
    }

    pub(crate) fn key_order(self) -> &'static [&'static str] {
        match self {
            Self::Classic | Self::Export => BD_ORDER,
            Self::Br => BR_ORDER,
        }
    }

    pub(crate) fn default_escaping(self) -> Escaping {
        match self {
            Self::Classic | Self::Export => Escaping::Html,
            Self::Br => Escaping::Plain,
        }
    }

    /// The style of a line's times, taken from `example` where there is one. Export times are whole
    /// seconds even where a person wrote a fraction; a time without a fraction in another dialect
    /// was not written by a clock of nanoseconds, so the next one has no fraction either.
    pub(crate) fn time_style(self, example: Option<&str>) -> TimeStyle {
        let offset = example.and_then(offset_of);
        match self {
            Self::Export => TimeStyle { offset: None, fraction: Fraction::None },
            _ if example.is_some_and(|text| !text.contains('.')) => {
                TimeStyle { offset, fraction: Fraction::None }
            }
            Self::Classic => TimeStyle { offset, fraction: Fraction::Trimmed },
            Self::Br => TimeStyle { offset, fraction: Fraction::Thousands },
        }
    }

    /// The style of a comment's time: whole seconds of UTC in every version of `bd`; `br` writes it
    /// like other times.
    pub(crate) fn comment_time_style(self, example: Option<&str>) -> TimeStyle {
        match self {
            Self::Classic | Self::Export => TimeStyle { offset: None, fraction: Fraction::None },
            Self::Br => self.time_style(example),
        }
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Counts the lines that look like each dialect.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Votes {
    classic: usize,
    br: usize,
    export: usize,
}

impl Votes {
    /// Counts one issue by its keys.
    pub(crate) fn count<'a>(&mut self, keys: impl Iterator<Item = &'a str>) {
        let (mut export, mut source_repo, mut compaction) = (false, false, 0);
        for key in keys {
            match key {
                "_type" | "dependency_count" | "dependent_count" | "comment_count" => export = true,
                "source_repo" => source_repo = true,
                "compaction_level" | "original_size" => compaction += 1,
                _ => {}
            }
        }
        if export {
            self.export += 1;
        } else if source_repo || compaction == 2 {
            self.br += 1;
        } else {
            self.classic += 1;
        }
    }

    /// The dialect of most lines; of equal counts the one with the more certain marks.
    pub(crate) fn dialect(self) -> Dialect {
        if self.export > 0 && self.export >= self.br.max(self.classic) {
            Dialect::Export
        } else if self.br > 0 && self.br >= self.classic {
            Dialect::Br
        } else {
            Dialect::Classic
        }
    }
}

impl Escaping {
    /// The escaping that the file shows: an escaped `<`, `>` or `&` anywhere, else a bare one, else
    /// the dialect's.
    pub(crate) fn detect(bytes: &[u8], dialect: Dialect) -> Self {
        let escaped =
            bytes.windows(6).any(|six| matches!(six, br"\u003c" | br"\u003e" | br"\u0026"));
        if escaped {
            Self::Html
        } else if bytes.iter().any(|byte| matches!(byte, b'<' | b'>' | b'&')) {
            Self::Plain
        } else {
            dialect.default_escaping()
        }
    }
}

impl TimeStyle {
    /// The time as this style can write it: an export has no fractions.
    pub(crate) fn round(self, at: Timestamp) -> Timestamp {
        match self.fraction {
            Fraction::None => {
                Timestamp::from_second(at.as_second() - i64::from(at.subsec_nanosecond() < 0))
                    .unwrap_or(at)
            }
            Fraction::Trimmed | Fraction::Thousands => at,
        }
    }

    pub(crate) fn format(self, at: Timestamp) -> String {
        let at = self.round(at);
        let digits = match (self.fraction, at.subsec_nanosecond().unsigned_abs()) {
            (Fraction::None, _) | (_, 0) => Some(0),
            (Fraction::Trimmed, _) => None,
            (Fraction::Thousands, nanos) if nanos % 1_000_000 == 0 => Some(3),
            (Fraction::Thousands, nanos) if nanos % 1_000 == 0 => Some(6),
            (Fraction::Thousands, _) => Some(9),
        };
        match (self.offset, digits) {
            (None, None) => format!("{at}"),
            (None, Some(digits)) => format!("{at:.digits$}"),
            (Some(offset), None) => format!("{}", at.display_with_offset(offset)),
            (Some(offset), Some(digits)) => format!("{:.digits$}", at.display_with_offset(offset)),
        }
    }
}

/// The numeric offset at the end of an RFC 3339 time; `None` for `Z` and for other text.
fn offset_of(text: &str) -> Option<Offset> {
    let tail = text.get(text.len().checked_sub(6)?..)?;
    let (sign, digits) = match tail.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    let seconds = hours.parse::<u16>().ok()?.checked_mul(60)?.checked_add(minutes.parse().ok()?)?;
    Offset::from_seconds(sign * i32::from(seconds) * 60).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn times_are_written_as_each_dialect_writes_them() {
        let now = at("2026-05-02T08:00:00.120000000Z");
        assert_eq!(
            Dialect::Export.time_style(Some("2026-01-01T00:00:00+02:00")).format(now),
            "2026-05-02T08:00:00Z"
        );
        assert_eq!(
            Dialect::Classic.time_style(Some("2026-01-01T00:00:00.5+02:00")).format(now),
            "2026-05-02T10:00:00.12+02:00"
        );
        assert_eq!(
            Dialect::Classic.time_style(Some("2026-01-01T00:00:00.5-08:30")).format(now),
            "2026-05-01T23:30:00.12-08:30"
        );
        assert_eq!(
            Dialect::Classic.time_style(Some("2026-01-01T00:00:00.5Z")).format(now),
            "2026-05-02T08:00:00.12Z"
        );
        assert_eq!(
            Dialect::Classic.time_style(Some("2026-01-01T00:00:00+02:00")).format(now),
            "2026-05-02T10:00:00+02:00"
        );
        assert_eq!(
            Dialect::Classic.time_style(None).format(at("2026-05-02T08:00:00Z")),
            "2026-05-02T08:00:00Z"
        );
        assert_eq!(Dialect::Br.time_style(None).format(now), "2026-05-02T08:00:00.120Z");
        assert_eq!(
            Dialect::Br.time_style(None).format(at("2026-05-02T08:00:00.000001Z")),
            "2026-05-02T08:00:00.000001Z"
        );
        assert_eq!(
            Dialect::Classic.comment_time_style(Some("2026-01-01T00:00:00.5+02:00")).format(now),
            "2026-05-02T08:00:00Z"
        );
    }

    #[test]
    fn whole_seconds_never_round_up() {
        let style = Dialect::Export.time_style(None);
        assert_eq!(style.format(at("2026-05-02T08:00:00.999999999Z")), "2026-05-02T08:00:00Z");
        assert_eq!(style.format(at("1969-12-31T23:59:59.5Z")), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn other_text_is_not_an_offset() {
        for text in ["", "Z", "+1", "+aa:bb", "+99:99", "é02:00", "+0é:00"] {
            assert_eq!(offset_of(text), None, "{text}");
        }
        assert_eq!(offset_of("+02:00"), Some(jiff::tz::offset(2)));
    }

    #[test]
    fn most_lines_decide_the_dialect() {
        let mut votes = Votes::default();
        assert_eq!(votes.dialect(), Dialect::Classic);
        votes.count(["id", "title"].into_iter());
        assert_eq!(votes.dialect(), Dialect::Classic);
        votes.count(["id", "source_repo"].into_iter());
        assert_eq!(votes.dialect(), Dialect::Br);
        votes.count(["id", "compaction_level", "original_size"].into_iter());
        votes.count(["_type", "id"].into_iter());
        assert_eq!(votes.dialect(), Dialect::Br);
        votes.count(["id", "comment_count"].into_iter());
        assert_eq!(votes.dialect(), Dialect::Export);
    }
}
