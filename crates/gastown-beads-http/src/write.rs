//! Writing: each write looks at what is there, is guarded against what came between, and is not
//! done twice.

use gastown_beads::{Change, Status, is_valid_id};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::endpoint::encoded;
use crate::error::{Error, tame};
use crate::http::{Ask, Refusal};
use crate::session::Session;
use crate::wire::{Claimed, Closed, Commented, Released, Revision};

/// How often a close is asked for again when others change the issue between.
const TRIES: u32 = 4;

/// The longest name of an actor, in bytes and in characters.
const MAX_ACTOR: (usize, usize) = (256, 255);

/// The longest reason of a close, in characters.
const MAX_REASON: usize = 255;

/// What to do about open children and open blockers of an issue that is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blockers {
    /// [`Error::NotClosable`] says that there are some.
    Respect,
    /// Close all the same: the caller knows that the work is done. Nothing else is overridden.
    Override,
}

#[derive(Serialize)]
struct Close<'a> {
    actor: &'a str,
    reason: &'a str,
    force: bool,
    expected_version: &'a Revision,
}

impl Session {
    /// Makes an open issue `in_progress` for `assignee`: where nobody has it, or the same one.
    ///
    /// One request; a second one where the answer to the first is lost, since the server takes a
    /// claim of the same actor for the same claim.
    pub async fn claim(&self, id: &str, assignee: &str) -> Result<Change, Error> {
        let operation = "claim";
        self.needs(&["issues.claim"])?;
        actor("the assignee", assignee)?;
        let path = action(id, ":claim")?;
        let body = json!({ "actor": assignee });
        let (said, lost) = match self.post::<Claimed>(operation, &path, &body).await {
            Err(Error::Cut { why, .. }) => {
                tracing::debug!(id, why, "the claim is asked for again");
                (self.post::<Claimed>(operation, &path, &body).await?, true)
            }
            other => (other?, false),
        };
        match said {
            Ok(claimed) if claimed.already_claimed && !lost => Ok(Change::NotNeeded),
            Ok(_) => Ok(Change::Made),
            Err(refusal) => Err(match refusal.conflict() {
                "already_claimed" => Error::AlreadyClaimed {
                    id: id.to_owned(),
                    by: refusal.problem.assignee.filter(|by| !by.is_empty()),
                },
                "not_claimable" => {
                    let status = refusal
                        .problem
                        .issue_status
                        .unwrap_or_else(|| "in a state of its own".to_owned());
                    Error::NotClaimable { id: id.to_owned(), status }
                }
                _ => self.refused(operation, id, refusal),
            }),
        }
    }

    /// Gives an issue back that `assignee` has, in the name of `by`.
    ///
    /// No change where somebody else has it, nobody has it, or it is closed. Never asked for twice:
    /// where the answer is lost, the issue tells.
    pub async fn release(&self, id: &str, assignee: &str, by: &str) -> Result<Change, Error> {
        let operation = "release";
        self.needs(&["issues.release"])?;
        actor("the actor", by)?;
        actor("the assignee", assignee)?;
        let path = action(id, ":release")?;
        // The server takes `web-nux` and `web_nux` for one holder; here they are two.
        if self.held(id, assignee).await?.is_none() {
            return Ok(Change::NotNeeded);
        }
        let body = json!({ "actor": by, "expected_assignee": assignee });
        match self.post::<Released>(operation, &path, &body).await {
            Ok(Ok(released)) => Ok(if released.changed { Change::Made } else { Change::NotNeeded }),
            // None of these says that nobody has it: the contract wants the row read.
            Ok(Err(refusal))
                if ["not_releasable", "precondition_failed", "already_claimed"]
                    .contains(&refusal.conflict()) =>
            {
                match self.held(id, assignee).await? {
                    None => Ok(Change::NotNeeded),
                    Some(status) => Err(Error::NotReleasable {
                        id: id.to_owned(),
                        status: tame(status.as_str()),
                    }),
                }
            }
            Ok(Err(refusal)) => Err(self.refused(operation, id, refusal)),
            Err(error) if error.is_unsure() => match self.held(id, assignee).await {
                Ok(None) => Ok(Change::Made),
                Ok(Some(_)) | Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Closes an issue with a reason, in the name of `by`.
    ///
    /// The first close wins: no change where it is closed already. Each request names the version
    /// of the issue that was looked at, so that a close whose answer is lost is never done over a
    /// reopening: [`Error::Moved`] where it was changed and is not closed.
    pub async fn close(
        &self,
        id: &str,
        by: &str,
        reason: &str,
        blockers: Blockers,
    ) -> Result<Change, Error> {
        let mut lost: Option<(Error, Revision)> = None;
        for _ in 0..TRIES {
            let (issue, revision) = match (self.get(id).await, &lost) {
                (Err(_), Some((error, _))) => return Err(error.clone()),
                (seen, _) => seen?,
            };
            match &lost {
                _ if issue.status != Status::Closed => {}
                Some(_) => return Ok(Change::Made),
                None => return Ok(Change::NotNeeded),
            }
            if lost.as_ref().is_some_and(|(_, before)| *before != revision) {
                return Err(Error::Moved { id: id.to_owned() });
            }
            match self.close_at(id, by, reason, blockers, &revision).await {
                Ok(change) => return Ok(if lost.is_some() { Change::Made } else { change }),
                Err(Error::Moved { .. }) => {}
                Err(error) if error.is_unsure() && lost.is_none() => lost = Some((error, revision)),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Moved { id: id.to_owned() })
    }

    /// Closes an issue as [`Session::close`] does, where it still is at this version of
    /// [`Session::get`], and asks once.
    ///
    /// For a caller that remembers the version that it asked under: after a lost answer
    /// ([`Error::is_unsure`]), or after a life of its own, it looks at the issue, and where that is
    /// as it was it may ask again. [`Error::Moved`] where it is not: nothing was done by this call.
    pub async fn close_at(
        &self,
        id: &str,
        by: &str,
        reason: &str,
        blockers: Blockers,
        version: &Revision,
    ) -> Result<Change, Error> {
        let operation = "close";
        self.needs(&["issues.close"])?;
        actor("the actor", by)?;
        let path = action(id, ":close")?;
        let body = Close {
            actor: by,
            reason: &one_line(reason),
            force: blockers == Blockers::Override,
            expected_version: version,
        };
        match self.post::<Closed>(operation, &path, &body).await? {
            Ok(closed) if closed.already_closed => Ok(Change::NotNeeded),
            Ok(_) => Ok(Change::Made),
            Err(refusal) => Err(match refusal.conflict() {
                "precondition_failed" => Error::Moved { id: id.to_owned() },
                "not_closable" => Error::NotClosable {
                    id: id.to_owned(),
                    open_children: refusal.problem.open_children,
                },
                _ => self.refused(operation, id, refusal),
            }),
        }
    }

    /// Adds a comment, once for the same author and text. Never asked for twice: where the answer
    /// is lost, the issue's comments tell.
    pub async fn comment(&self, id: &str, author: &str, text: &str) -> Result<Change, Error> {
        let operation = "comment";
        self.needs(&["issues.addComment"])?;
        actor("the author", author)?;
        if text.trim().is_empty() {
            return Err(Error::Unwritable { what: "the comment", why: "must not be empty" });
        }
        let path = action(id, "/comments")?;
        if self.says(id, author, text).await? {
            return Ok(Change::NotNeeded);
        }
        match self
            .post::<Commented>(operation, &path, &json!({ "author": author, "text": text }))
            .await
        {
            Ok(Ok(_)) => Ok(Change::Made),
            Ok(Err(refusal)) => Err(self.refused(operation, id, refusal)),
            Err(error)
                if error.is_unsure() && self.says(id, author, text).await.unwrap_or(false) =>
            {
                Ok(Change::Made)
            }
            Err(error) => Err(error),
        }
    }

    /// The status of an issue that this one has and that is not closed.
    async fn held(&self, id: &str, assignee: &str) -> Result<Option<Status>, Error> {
        let (issue, _) = self.get(id).await?;
        let ours = issue.assignee.as_deref() == Some(assignee) && issue.status != Status::Closed;
        Ok(ours.then(|| issue.status.clone()))
    }

    /// Whether an issue has this comment.
    async fn says(&self, id: &str, author: &str, text: &str) -> Result<bool, Error> {
        let (issue, _) = self.get(id).await?;
        // The server keeps the author without the space around it, and the text as it is.
        Ok(issue
            .comments
            .iter()
            .any(|comment| comment.author == author.trim() && comment.text == text))
    }

    async fn post<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Result<T, Refusal>, Error> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Error::NotBeads { operation, why: error.to_string() })?;
        self.wire
            .ask(Ask { operation, path, body: Some(body), project: Some(self.project()) })
            .await
    }

    fn refused(&self, operation: &'static str, id: &str, refusal: Refusal) -> Error {
        if refusal.is_not_found() {
            Error::NotFound(id.to_owned())
        } else {
            refusal.error(operation, self.project())
        }
    }
}

/// The path of a write on one issue.
fn action(id: &str, verb: &str) -> Result<String, Error> {
    if is_valid_id(id) {
        Ok(format!("issues/{}{verb}", encoded(id)))
    } else {
        Err(Error::NotFound(tame(id)))
    }
}

/// The server's rules for names, so that what breaks them is said before anything is sent.
fn actor(what: &'static str, name: &str) -> Result<(), Error> {
    let refuse = |why| Err(Error::Unwritable { what, why });
    match name.trim() {
        "" => refuse("must not be empty"),
        name if name.len() > MAX_ACTOR.0 || name.chars().count() > MAX_ACTOR.1 => {
            refuse("is longer than 255 characters")
        }
        name if name.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) => {
            refuse("has control characters")
        }
        _ => Ok(()),
    }
}

/// A reason as the server takes it: one line, not too long; `Closed` where there is none, as `bd`
/// says.
fn one_line(reason: &str) -> String {
    let line: String = reason
        .chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c })
        .collect();
    match line.trim() {
        "" => "Closed".to_owned(),
        line if line.chars().count() > MAX_REASON => {
            line.chars().take(MAX_REASON - 1).chain(['…']).collect()
        }
        line => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_a_length_that_a_column_holds() {
        assert_eq!(one_line("merged abc"), "merged abc");
        assert_eq!(one_line("merged\nabc\u{85}"), "merged abc");
        assert_eq!(one_line(" \n"), "Closed");
        assert_eq!(one_line(&"é".repeat(300)).chars().count(), 255);
    }

    #[test]
    fn names_that_would_forge_a_line_of_history_are_refused() {
        for name in
            ["", "  ", "ada\nbd: by mallory", "a\u{9b}b", &"a".repeat(256), &"é".repeat(129)]
        {
            assert!(actor("the actor", name).is_err(), "{name:?}");
        }
        assert_eq!(actor("the actor", "web/polecats/nux"), Ok(()));
    }

    #[test]
    fn an_id_cannot_leave_its_path() {
        assert_eq!(action("gt-1", ":close").unwrap(), "issues/gt-1:close");
        assert_eq!(action("gt:1", ":close").unwrap(), "issues/gt%3A1:close");
        assert!(matches!(action("../gt-1", ":close"), Err(Error::NotFound(_))));
    }
}
