//! What went wrong, and what to do about it.

use std::time::Duration;

use crate::wire::Code;

/// How long to wait where a server is busy and does not say until when.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// What went wrong. No variant holds a token or a body; a server's own words are short and without
/// control characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was sent.
    #[error("{endpoint} cannot be reached: {why}")]
    Unreachable {
        /// The server.
        endpoint: String,
        /// The cause.
        why: String,
    },
    /// The request went out and its answer did not come back whole, so a write may have been done.
    #[error("{operation}: the answer did not come: {why}")]
    Cut {
        /// What was asked for.
        operation: &'static str,
        /// The cause.
        why: String,
    },
    /// 503 or 429: the server asks for patience.
    #[error("{operation}: the server is busy ({code})")]
    Unavailable {
        /// What was asked for.
        operation: &'static str,
        /// `busy`, `db_unavailable`, `events_watch_saturated`.
        code: Code,
        /// How long it asks to wait, where it says so.
        retry_after: Option<Duration>,
    },
    /// 401: no token, or none that the server knows.
    #[error("{operation}: the server does not accept the token")]
    Unauthenticated {
        /// What was asked for.
        operation: &'static str,
    },
    /// 403, which `bd serve` never says: something in front of it does.
    #[error("{operation}: forbidden by what stands before the server")]
    Forbidden {
        /// What was asked for.
        operation: &'static str,
    },
    /// The server has another project than the one that is wanted. Nothing was read or written.
    #[error("the server has the project {found:?}, not {expected:?}")]
    WrongProject {
        /// Of the spec, or the one of the first contact.
        expected: String,
        /// What the server says.
        found: String,
    },
    /// The server names no project, so nothing would tell a wrong one.
    #[error(
        "the server names no project id, so it cannot be told from another one (run `bd` 1.3 or later on the store once)"
    )]
    NoProject,
    /// Another major version of the API.
    #[error("the server speaks {0:?}, not v0")]
    UnknownVersion(String),
    /// It lacks what this client needs.
    #[error("the server (bd {version}) does not offer {missing}")]
    Unsupported {
        /// As it says.
        version: String,
        /// Names of capabilities, comma-separated.
        missing: String,
    },
    /// What answered is not `bd serve`, or it answered what its rules do not allow.
    #[error("{operation}: not an answer of bd serve: {why}")]
    NotBeads {
        /// What was asked for.
        operation: &'static str,
        /// What is odd about it.
        why: String,
    },
    /// The answer is larger than is read.
    #[error("{operation}: the answer is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        operation: &'static str,
        /// In bytes.
        limit: usize,
    },
    /// More issues than are read.
    #[error("the store has more than {0} issues")]
    TooMany(usize),
    /// No such issue, or it is ephemeral and cannot be claimed.
    #[error("there is no bead {0}")]
    NotFound(String),
    /// 409: somebody else has it.
    #[error("{id} is claimed by {}", by.as_deref().unwrap_or("somebody else"))]
    AlreadyClaimed {
        /// The issue.
        id: String,
        /// Who has it, where the server says so.
        by: Option<String>,
    },
    /// 409: its status does not let it be claimed.
    #[error("{id} is {status}, not open")]
    NotClaimable {
        /// The issue.
        id: String,
        /// Its status.
        status: String,
    },
    /// 409: it is ours, and its status does not let it be given back.
    #[error("{id} is {status} and cannot be released")]
    NotReleasable {
        /// The issue.
        id: String,
        /// Its status.
        status: String,
    },
    /// 409: what must be done before it is not.
    #[error("{id} cannot be closed: {}", open_children.map_or_else(|| "something that it waits for is open".to_owned(), |n| format!("{n} of its children are open")))]
    NotClosable {
        /// The issue.
        id: String,
        /// How many children are open; absent where a blocker is.
        open_children: Option<u64>,
    },
    /// It changed while it was being written, again and again, or in a way that the write must not
    /// go over.
    #[error("{id} was changed by somebody else meanwhile")]
    Moved {
        /// The issue.
        id: String,
    },
    /// 409 with a code that is none of the above.
    #[error("{operation}: {code}")]
    Conflict {
        /// What was asked for.
        operation: &'static str,
        /// The server's code.
        code: Code,
    },
    /// 410, or a journal whose head went back: what was remembered is worth nothing, read
    /// everything.
    #[error(
        "the journal of changes no longer reaches back that far; everything is to be read anew"
    )]
    Gone {
        /// The first change that is still there.
        floor: Option<u64>,
        /// The last one.
        head: Option<u64>,
    },
    /// 409: the workspace keeps no journal of changes; read everything each time.
    #[error("the workspace keeps no journal of changes")]
    JournalDisabled,
    /// 400: the request is wrong, and stays wrong.
    #[error("{operation}: refused as {code}{}: {detail}", param.as_ref().map(|param| format!(" ({param})")).unwrap_or_default())]
    Refused {
        /// What was asked for.
        operation: &'static str,
        /// The server's code.
        code: Code,
        /// What it does not like.
        param: Option<String>,
        /// The server's words.
        detail: String,
    },
    /// What should be written is nothing that the store could keep.
    #[error("{what} {why}")]
    Unwritable {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// 3xx: a token is never taken to another place.
    #[error("{operation}: the server redirects ({status}), which is not followed")]
    Redirected {
        /// What was asked for.
        operation: &'static str,
        /// The status.
        status: u16,
    },
    /// Any other status; a write may have been done.
    #[error("{operation}: {status} {code}")]
    Server {
        /// What was asked for.
        operation: &'static str,
        /// The status.
        status: u16,
        /// `internal`, where the server says anything.
        code: Code,
    },
    /// The host has no certificates to trust, or the ones that were given cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// What a caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same again after this time.
    Wait(Duration),
    /// The same again, with a back-off of the caller's.
    Retry,
    /// Look at the bead and plan anew; the same request would be refused again.
    Replan,
    /// Read the whole store anew.
    Reread,
    /// Nothing, until a person changes the spec, the Secret or the server.
    Terminal,
}

impl Error {
    /// What to do next.
    pub fn class(&self) -> Class {
        match self {
            Self::Unavailable { retry_after, .. } => {
                Class::Wait(retry_after.unwrap_or(DEFAULT_WAIT))
            }
            Self::Unreachable { .. } | Self::Cut { .. } | Self::Server { .. } => Class::Retry,
            Self::NotFound(_)
            | Self::AlreadyClaimed { .. }
            | Self::NotClaimable { .. }
            | Self::NotReleasable { .. }
            | Self::NotClosable { .. }
            | Self::Moved { .. }
            | Self::Conflict { .. }
            | Self::Unwritable { .. } => Class::Replan,
            Self::Gone { .. } | Self::JournalDisabled => Class::Reread,
            Self::Unauthenticated { .. }
            | Self::Forbidden { .. }
            | Self::WrongProject { .. }
            | Self::NoProject
            | Self::UnknownVersion(_)
            | Self::Unsupported { .. }
            | Self::NotBeads { .. }
            | Self::TooLarge { .. }
            | Self::TooMany(_)
            | Self::Refused { .. }
            | Self::Redirected { .. }
            | Self::Tls(_) => Class::Terminal,
        }
    }

    /// The reason of the condition `Synced` that it makes false; none where it is about one bead
    /// and not about the store.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } | Self::Cut { .. } | Self::Server { .. } => {
                Some("RemoteUnreachable")
            }
            Self::Unavailable { .. } => Some("RemoteBusy"),
            Self::Unauthenticated { .. } | Self::Forbidden { .. } => Some("AuthFailed"),
            Self::WrongProject { .. } | Self::NoProject => Some("ProjectMismatch"),
            Self::UnknownVersion(_) | Self::Unsupported { .. } => Some("SchemaUnsupported"),
            Self::NotBeads { .. } | Self::Redirected { .. } => Some("NotBeads"),
            Self::TooLarge { .. } | Self::TooMany(_) => Some("TooLarge"),
            Self::Refused { .. } | Self::Conflict { .. } => Some("Refused"),
            Self::Tls(_) => Some("TlsFailed"),
            Self::NotFound(_)
            | Self::AlreadyClaimed { .. }
            | Self::NotClaimable { .. }
            | Self::NotReleasable { .. }
            | Self::NotClosable { .. }
            | Self::Moved { .. }
            | Self::Unwritable { .. }
            | Self::Gone { .. }
            | Self::JournalDisabled => None,
        }
    }

    /// Whether a write that failed with it may have been done all the same.
    pub fn is_unsure(&self) -> bool {
        matches!(
            self,
            Self::Cut { .. } | Self::Server { .. } | Self::NotBeads { .. } | Self::TooLarge { .. }
        )
    }
}

/// A server's words, fit for a message: short, without control characters and what reorders text.
pub(crate) fn tame(text: &str) -> String {
    const LONGEST: usize = 200;
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut out: String =
        text.chars().take(LONGEST).map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_says_how_long_and_a_silent_one_gets_a_default() {
        let busy = |retry_after| Error::Unavailable {
            operation: "claim",
            code: Code::new("busy"),
            retry_after,
        };
        assert_eq!(busy(Some(Duration::from_secs(7))).class(), Class::Wait(Duration::from_secs(7)));
        assert_eq!(busy(None).class(), Class::Wait(DEFAULT_WAIT));
    }

    #[test]
    fn a_message_says_who_has_a_bead_and_what_a_close_waits_for() {
        let claimed = Error::AlreadyClaimed { id: "gt-1".into(), by: Some("maya".into()) };
        assert_eq!(claimed.to_string(), "gt-1 is claimed by maya");
        let blocked =
            |open_children| Error::NotClosable { id: "gt-1".into(), open_children }.to_string();
        assert_eq!(blocked(Some(2)), "gt-1 cannot be closed: 2 of its children are open");
        assert_eq!(blocked(None), "gt-1 cannot be closed: something that it waits for is open");
    }

    #[test]
    fn words_of_a_server_are_short_and_tame() {
        assert_eq!(tame("a\u{1b}[2J\u{202e}b"), "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(tame(&"é".repeat(500)).chars().count(), 201);
    }
}
