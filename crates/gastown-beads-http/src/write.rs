//! Writes: each one reads the bead first, is guarded against changes in between, and is not done
//! twice.

use gastown_beads::{Change, Status, is_valid_id};
use gastown_types::text;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::endpoint::encoded;
use crate::error::Error;
use crate::http::{Call, Refusal};
use crate::session::Session;
use crate::wire::{Claimed, Closed, Commented, MAX_TEXT, Released, Revision};

/// The longest name of an actor, in bytes and in characters.
const MAX_ACTOR: (usize, usize) = (256, 255);

/// The longest reason of a close, in characters.
const MAX_REASON: usize = 255;

/// The body of a close.
#[derive(Serialize)]
struct Close<'a> {
    actor: &'a str,
    reason: &'a str,
    force: bool,
    expected_version: &'a Revision,
}

impl Session {
    /// Makes an open issue `in_progress` for `assignee`, where it has no assignee or this one.
    ///
    /// Sends one request, and a second one where the answer to the first is lost: the server takes
    /// a second claim of the same actor for the first one.
    pub async fn claim(&self, id: &str, assignee: &str) -> Result<Change, Error> {
        let operation = "claim";
        self.needs(&["issues.claim"])?;
        actor("the assignee", assignee)?;
        let path = action(id, ":claim")?;
        let body = json!({ "actor": assignee });
        let (answer, lost) = match self.post::<Claimed>(operation, &path, &body).await {
            Err(Error::AnswerLost { why, .. }) => {
                tracing::debug!(id, why, "the answer to a claim was lost; sending it again");
                (self.post::<Claimed>(operation, &path, &body).await?, true)
            }
            other => (other?, false),
        };
        match answer {
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
                        .unwrap_or_else(|| "in an unknown status".to_owned());
                    Error::NotClaimable { id: id.to_owned(), status }
                }
                _ => self.refused(operation, id, refusal),
            }),
        }
    }

    /// Releases an issue that is assigned to `assignee`, in the name of `by`.
    ///
    /// Changes nothing where the issue has another assignee or none, or is closed. Never sent
    /// twice: where the answer is lost, the issue is read to see whether it was done.
    pub async fn release(&self, id: &str, assignee: &str, by: &str) -> Result<Change, Error> {
        let operation = "release";
        self.needs(&["issues.release"])?;
        actor("the actor", by)?;
        actor("the assignee", assignee)?;
        let path = action(id, ":release")?;
        // The server takes `web-nux` and `web_nux` for one assignee; here they are two.
        if self.held(id, assignee).await?.is_none() {
            return Ok(Change::NotNeeded);
        }
        let body = json!({ "actor": by, "expected_assignee": assignee });
        match self.post::<Released>(operation, &path, &body).await {
            Ok(Ok(released)) => Ok(if released.changed { Change::Made } else { Change::NotNeeded }),
            // None of these codes means that there is no assignee: the contract asks to read the row.
            Ok(Err(refusal))
                if ["not_releasable", "precondition_failed", "already_claimed"]
                    .contains(&refusal.conflict()) =>
            {
                match self.held(id, assignee).await? {
                    None => Ok(Change::NotNeeded),
                    Some(status) => Err(Error::NotReleasable {
                        id: id.to_owned(),
                        status: text::line(status.as_str(), MAX_TEXT),
                    }),
                }
            }
            Ok(Err(refusal)) => Err(self.refused(operation, id, refusal)),
            Err(error) if error.is_outcome_unknown() => match self.held(id, assignee).await {
                Ok(None) => Ok(Change::Made),
                Ok(Some(_)) | Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Closes an issue with a reason, in the name of `by`, where it still is at this version of
    /// [`Session::get`]. Open children and open blockers do not prevent it: the caller knows that
    /// the work is done.
    ///
    /// Sends one request. No change where the issue is closed already; [`Error::Moved`] where it is
    /// at another version, and then this call did nothing. A caller that stores the version before
    /// the call may, after a lost answer ([`Error::is_outcome_unknown`]) or a restart, read the issue
    /// and send the close again where the version is still the same: so a close is never repeated
    /// over a person's reopening.
    pub async fn close(
        &self,
        id: &str,
        by: &str,
        reason: &str,
        version: &Revision,
    ) -> Result<Change, Error> {
        let operation = "close";
        self.needs(&["issues.close"])?;
        actor("the actor", by)?;
        let path = action(id, ":close")?;
        let body =
            Close { actor: by, reason: &one_line(reason), force: true, expected_version: version };
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

    /// Adds a comment, once for the same author and text. Never sent twice: where the answer is
    /// lost, the issue's comments are read to see whether it was done.
    pub async fn comment(&self, id: &str, author: &str, text: &str) -> Result<Change, Error> {
        let operation = "comment";
        self.needs(&["issues.addComment"])?;
        actor("the author", author)?;
        if text.trim().is_empty() {
            return Err(Error::Unwritable { what: "the comment", why: "must not be empty" });
        }
        let path = action(id, "/comments")?;
        if self.has_comment(id, author, text).await? {
            return Ok(Change::NotNeeded);
        }
        match self
            .post::<Commented>(operation, &path, &json!({ "author": author, "text": text }))
            .await
        {
            Ok(Ok(_)) => Ok(Change::Made),
            Ok(Err(refusal)) => Err(self.refused(operation, id, refusal)),
            Err(error)
                if error.is_outcome_unknown()
                    && self.has_comment(id, author, text).await.unwrap_or(false) =>
            {
                Ok(Change::Made)
            }
            Err(error) => Err(error),
        }
    }

    /// The status of an issue where it is assigned to `assignee` and not closed.
    async fn held(&self, id: &str, assignee: &str) -> Result<Option<Status>, Error> {
        let (issue, _) = self.get(id).await?;
        let ours = issue.assignee.as_deref() == Some(assignee) && issue.status != Status::Closed;
        Ok(ours.then(|| issue.status.clone()))
    }

    /// Whether an issue has this comment.
    async fn has_comment(&self, id: &str, author: &str, text: &str) -> Result<bool, Error> {
        let (issue, _) = self.get(id).await?;
        // The server trims the author, and stores the text as it is.
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
        self.transport
            .send(Call { operation, path, body: Some(body), project: Some(self.project()) })
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

/// The path of a write to one issue.
fn action(id: &str, verb: &str) -> Result<String, Error> {
    if is_valid_id(id) {
        Ok(format!("issues/{}{verb}", encoded(id)))
    } else {
        Err(Error::NotFound(text::line(id, MAX_TEXT)))
    }
}

/// Checks a name by the server's rules before anything is sent.
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

/// A reason as the server takes it: one line of at most 255 characters; `Closed` where it is empty,
/// as `bd` writes.
fn one_line(reason: &str) -> String {
    let line = text::line(reason, MAX_REASON);
    if line.is_empty() { "Closed".to_owned() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_that_fits_its_column() {
        assert_eq!(one_line("merged abc"), "merged abc");
        assert_eq!(one_line("merged\nabc\u{85}"), "merged abc");
        assert_eq!(one_line(" \n"), "Closed");
        assert_eq!(one_line(&"é".repeat(300)).chars().count(), 255);
    }

    #[test]
    fn names_that_could_forge_a_line_of_history_are_refused() {
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
