//! Edits of one line. Each one reads the line first, so repeating an edit changes nothing.

use std::{ops::Range, sync::Arc};

use gastown_types::text;
use jiff::{SignedDuration, Timestamp};

use crate::{
    comment,
    dialect::{Dialect, TimeStyle},
    issue::{Issue, Status},
    join::Joined,
    json,
    line::{self, Line},
    problem::{MAX_SHOWN, NotWritable, Problem, Reason},
    store::{Store, is_ambiguous},
};

/// Whether an edit changed the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// One line was changed.
    Made,
    /// The store is in that state already, or in a later one that the edit must not undo.
    NotNeeded,
}

/// Why an edit was not made. The file is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The issue does not exist, or is deleted.
    #[error("there is no bead {0}")]
    NotFound(String),
    /// The issue is assigned to somebody else.
    #[error("{id} is claimed by {by}")]
    AlreadyClaimed {
        /// The issue.
        id: String,
        /// The assignee.
        by: String,
    },
    /// The issue is not open.
    #[error("{id} is {status}, not open")]
    NotClaimable {
        /// The issue.
        id: String,
        /// Its status, or `template`.
        status: String,
    },
    /// The file cannot be edited.
    #[error(transparent)]
    NotWritable(#[from] NotWritable),
    /// This issue cannot be edited: a field that decides cannot be read, or the line would become
    /// too long.
    #[error("{id} cannot be edited: {why}")]
    NotEditable {
        /// The issue.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// A text that must not be empty is empty.
    #[error("{0} must not be empty")]
    Empty(&'static str),
}

impl Store {
    /// Makes an open issue `in_progress` for `assignee`, where it has no assignee or this one.
    ///
    /// Like `bd update --claim`: no change where `assignee` already has it in progress; a `hooked` or
    /// closed issue cannot be claimed.
    pub fn claim(&mut self, id: &str, assignee: &str, now: Timestamp) -> Result<Change, EditError> {
        if assignee.trim().is_empty() {
            return Err(EditError::Empty("the assignee"));
        }
        let (place, issue) = self.editable(id, &["status", "assignee"])?;
        let not_claimable = |status: &str| EditError::NotClaimable {
            id: id.to_owned(),
            status: text::line(status, MAX_SHOWN),
        };
        let ours = match issue.assignee.as_deref() {
            _ if issue.status == Status::Closed => {
                return Err(not_claimable(issue.status.as_str()));
            }
            Some(by) if by != assignee => {
                return Err(EditError::AlreadyClaimed {
                    id: id.to_owned(),
                    by: text::line(by, MAX_SHOWN),
                });
            }
            holder => holder.is_some(),
        };
        match issue.status {
            Status::InProgress if ours => return Ok(Change::NotNeeded),
            Status::Open if !issue.is_template => {}
            Status::Open => return Err(not_claimable("template")),
            ref status => return Err(not_claimable(status.as_str())),
        }
        // A tool that does not know the key would drop it at its next write.
        let known = self.dialect() == Dialect::Export
            || self.issues.iter_any().any(|issue| issue.started_at.is_some());
        let starts = known && issue.started_at.is_none();
        self.edit(place, now, |draft| {
            draft.text("status", "in_progress")?;
            draft.text("assignee", assignee)?;
            draft.touch()?;
            if starts { draft.time("started_at") } else { Ok(()) }
        })
    }

    /// Releases an issue that is assigned to `assignee`: the assignee is removed, `in_progress` and
    /// `hooked` become `open`, another status stays.
    ///
    /// No change where the issue has another assignee or none, or is closed.
    pub fn release(
        &mut self,
        id: &str,
        assignee: &str,
        now: Timestamp,
    ) -> Result<Change, EditError> {
        let (place, issue) = self.editable(id, &["status", "assignee"])?;
        if issue.assignee.as_deref() != Some(assignee) || issue.status == Status::Closed {
            return Ok(Change::NotNeeded);
        }
        let opens = matches!(issue.status, Status::InProgress | Status::Hooked);
        self.edit(place, now, |draft| {
            if opens {
                draft.text("status", "open")?;
            }
            draft.remove("assignee")?;
            draft.touch()
        })
    }

    /// Closes an issue with a reason (`Closed` where it is empty), whatever its status and its
    /// blockers: the caller knows that the work is done.
    ///
    /// The first close wins: no change where the issue is closed already, for whatever reason.
    pub fn close(&mut self, id: &str, reason: &str, now: Timestamp) -> Result<Change, EditError> {
        let (place, issue) = self.editable(id, &["status"])?;
        if issue.status == Status::Closed {
            return Ok(Change::NotNeeded);
        }
        let reason = if reason.trim().is_empty() { "Closed" } else { reason };
        self.edit(place, now, |draft| {
            draft.text("status", "closed")?;
            draft.touch()?;
            draft.time("closed_at")?;
            draft.text("close_reason", reason)
        })
    }

    /// Adds a comment, once for the same author and text.
    pub fn comment(
        &mut self,
        id: &str,
        author: &str,
        comment: &str,
        now: Timestamp,
    ) -> Result<Change, EditError> {
        if author.trim().is_empty() {
            return Err(EditError::Empty("the author"));
        }
        if comment.trim().is_empty() {
            return Err(EditError::Empty("the comment"));
        }
        let (place, issue) = self.editable(id, &["comments"])?;
        if issue.comments.iter().any(|each| each.author == author && each.text == comment) {
            return Ok(Change::NotNeeded);
        }
        let count = issue.comments.len() + 1;
        let new_id = comment::new_id(&self.issues, id, author, comment, now).ok_or_else(|| {
            EditError::NotEditable {
                id: id.to_owned(),
                why: "no number is left for a comment".to_owned(),
            }
        })?;
        let written = self
            .dialect()
            .comment_time_style(self.value(place, "updated_at").as_deref())
            .format(now);
        self.edit(place, now, |draft| {
            draft.comment(&new_id, id, author, comment, &written)?;
            draft.touch()?;
            if draft.has("comment_count")? {
                draft.set("comment_count", &count.to_string())
            } else {
                Ok(())
            }
        })
    }

    /// Takes over everything that a join of the target branch with this file, the write branch's,
    /// found changed on the target branch.
    ///
    /// A new line goes to its place in a file sorted by id, else to the end. Fails where the file
    /// may not be written, and where it has no room for the new issues; it is unchanged then.
    pub fn adopt(&mut self, joined: &Joined) -> Result<Change, EditError> {
        self.writable()?;
        let is_new = |id: &str| self.issues.place(id).is_none();
        let changed = joined.changed();
        let mut new: Vec<&(String, String)> = changed.iter().filter(|(id, _)| is_new(id)).collect();
        if self.records.len() + new.len() > self.options.max_issues {
            let message = format!(
                "with the {} new issues of the target branch there are more than {} issues",
                new.len(),
                self.options.max_issues
            );
            return Err(NotWritable { reason: Reason::TooManyIssues, message }.into());
        }
        let mut splices: Vec<(Range<usize>, String)> = Vec::new();
        for (id, line) in changed {
            if let Some(record) = self.issues.place(id).and_then(|place| self.records.get(place)) {
                splices.push((record.span.clone(), line.clone()));
            }
        }
        let ids = || self.issues.iter_any().map(|issue| issue.id.as_str());
        let is_sorted = ids().zip(ids().skip(1)).all(|(one, next)| one < next);
        if is_sorted {
            new.sort_unstable();
        }
        let mut last = String::new();
        for (id, line) in new {
            let behind = if is_sorted { self.place_behind(id) } else { None };
            if let Some(record) = behind.and_then(|place| self.records.get(place)) {
                splices.push((record.span.start..record.span.start, format!("{line}\n")));
            } else {
                last.push_str(line);
                last.push('\n');
            }
        }
        if !last.is_empty() && !self.bytes.is_empty() && !self.bytes.ends_with(b"\n") {
            // The file's last line has no end, and the new last line has none either.
            last.pop();
            last.insert(0, '\n');
        }
        if splices.is_empty() && last.is_empty() {
            return Ok(Change::NotNeeded);
        }
        // An insertion before a line comes before the replacement of that line.
        splices.sort_by_key(|(span, _)| (span.start, span.end));
        let mut bytes = Vec::with_capacity(self.bytes.len() + last.len());
        let mut at = 0;
        for (span, text) in splices {
            bytes.extend_from_slice(&self.bytes[at..span.start]);
            bytes.extend_from_slice(text.as_bytes());
            at = span.end;
        }
        bytes.extend_from_slice(&self.bytes[at..]);
        bytes.extend_from_slice(last.as_bytes());
        *self = Self::parse(bytes, &self.options);
        Ok(Change::Made)
    }

    /// The first issue with a greater id, in a file sorted by id.
    fn place_behind(&self, id: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.records.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.issues.at(middle).is_some_and(|issue| issue.id.as_str() > id) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        (low < self.records.len()).then_some(low)
    }

    /// The index of an issue whose `fields` can be read and edited.
    fn editable(&self, id: &str, fields: &[&str]) -> Result<(usize, Arc<Issue>), EditError> {
        self.writable()?;
        let not_found = || EditError::NotFound(text::line(id, MAX_SHOWN));
        let issue = Arc::clone(self.issues.get(id).ok_or_else(not_found)?);
        let place = self.issues.place(id).ok_or_else(not_found)?;
        let not_editable = |why: String| EditError::NotEditable { id: id.to_owned(), why };
        if self.records.get(place).is_none_or(|record| record.ambiguous) {
            return Err(not_editable("a key occurs twice".to_owned()));
        }
        match issue.unreadable.iter().find(|field| fields.contains(field)) {
            Some(field) => Err(not_editable(format!("its `{field}` cannot be read"))),
            None => Ok((place, issue)),
        }
    }

    /// Makes the edit on a copy of the line, and replaces the line only when all of it succeeded.
    fn edit(
        &mut self,
        place: usize,
        now: Timestamp,
        make: impl FnOnce(&mut Draft<'_>) -> Result<(), String>,
    ) -> Result<Change, EditError> {
        let id = self.issues.at(place).map(|issue| issue.id.clone()).unwrap_or_default();
        let line = self.raw(&id).unwrap_or_default().to_owned();
        let mut draft = Draft { store: self, line, stamp: String::new() };
        self.stamp(place, now)
            .and_then(|stamp| {
                draft.stamp = stamp;
                make(&mut draft)
            })
            .map_err(|why| EditError::NotEditable { id, why })?;
        let line = draft.line;
        self.replace(place, &line)
    }

    /// The next `updated_at` of a line: now, but at least a second after the old one, since tools
    /// compare the two in whole seconds.
    fn stamp(&self, place: usize, now: Timestamp) -> Result<String, String> {
        let old = self.issues.at(place).and_then(|issue| issue.updated_at);
        let style = self.dialect().time_style(self.value(place, "updated_at").as_deref());
        let Some(old) = old else { return Ok(style.format(now)) };
        let least =
            later(old, style).ok_or("its `updated_at` is at the end of the range of times")?;
        Ok(style.format(now.max(least)))
    }

    /// The string at `key` of an issue's line.
    fn value(&self, place: usize, key: &str) -> Option<String> {
        let record = self.records.get(place)?;
        let line = std::str::from_utf8(self.bytes.get(record.span.clone())?).ok()?;
        let member = json::members(line).ok()?.into_iter().find(|member| member.key == key)?;
        json::decode(line.get(member.value_span)?).ok()
    }

    /// Replaces the line of an issue.
    fn replace(&mut self, place: usize, line: &str) -> Result<Change, EditError> {
        let Some(old) = self.issues.at(place).map(Arc::clone) else { return Ok(Change::NotNeeded) };
        let not_editable =
            |why: &str| EditError::NotEditable { id: old.id.clone(), why: why.to_owned() };
        if line.len() > self.options.max_line {
            return Err(not_editable("its line would be longer than the limit"));
        }
        let Line::Issue(read) = line::read(line.as_bytes()) else {
            return Err(not_editable("the new line would not be an issue"));
        };
        let Some(record) = self.records.get_mut(place).filter(|_| read.issue.id == old.id) else {
            return Err(not_editable("the new line would be another issue"));
        };
        let (number, span) = (record.line, record.span.clone());
        self.problems.forget_fields(number, record.defects);
        record.defects = read.defects.len();
        record.ambiguous = is_ambiguous(&read.defects);
        for defect in read.defects {
            self.problems.add(Problem { line: number, defect });
        }
        self.bytes.splice(span.clone(), line.bytes());
        for record in &mut self.records {
            if record.span.start > span.start {
                record.span = record.span.start + line.len() - span.len()
                    ..record.span.end + line.len() - span.len();
            } else if record.span.start == span.start {
                record.span.end = span.start + line.len();
            }
        }
        self.issues.insert(Arc::new(read.issue));
        Ok(Change::Made)
    }
}

/// The earliest time at least a second after `old` that the style can write.
fn later(old: Timestamp, style: TimeStyle) -> Option<Timestamp> {
    let second = SignedDuration::from_secs(1);
    let least = old.checked_add(second).ok()?;
    if style.round(least) < least {
        style.round(least).checked_add(second).ok()
    } else {
        Some(least)
    }
}

/// A copy of a line while it is edited.
struct Draft<'a> {
    store: &'a Store,
    line: String,
    stamp: String,
}

impl Draft<'_> {
    fn set(&mut self, key: &str, raw: &str) -> Result<(), String> {
        self.line = json::set(&self.line, key, raw, self.store.dialect().key_order())?;
        Ok(())
    }

    fn text(&mut self, key: &str, value: &str) -> Result<(), String> {
        self.set(key, &json::string(value, self.store.escaping))
    }

    fn remove(&mut self, key: &str) -> Result<(), String> {
        self.line = json::remove(&self.line, key)?;
        Ok(())
    }

    fn has(&self, key: &str) -> Result<bool, String> {
        Ok(json::members(&self.line)?.iter().any(|member| member.key == key))
    }

    /// The time of this edit.
    fn time(&mut self, key: &str) -> Result<(), String> {
        self.set(key, &format!("\"{}\"", self.stamp))
    }

    fn touch(&mut self) -> Result<(), String> {
        self.time("updated_at")
    }

    fn comment(
        &mut self,
        comment_id: &str,
        id: &str,
        author: &str,
        text: &str,
        at: &str,
    ) -> Result<(), String> {
        let members = json::members(&self.line)?;
        let (colon, comma) = json::separators(&self.line, &members);
        let string = |value: &str| json::string(value, self.store.escaping);
        let pairs = [
            ("id", comment_id.to_owned()),
            ("issue_id", string(id)),
            ("author", string(author)),
            ("text", string(text)),
            ("created_at", string(at)),
        ];
        let element = pairs.map(|(key, value)| format!("\"{key}\"{colon}{value}")).join(comma);
        let present = members
            .iter()
            .find(|member| member.key == "comments")
            .map_or("null", |member| &self.line[member.value_span.clone()]);
        let comments = json::push(present, &format!("{{{element}}}"), comma)?;
        self.set("comments", &comments)
    }
}
