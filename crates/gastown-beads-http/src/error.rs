//! Errors of the client, each with what its caller does next.

use std::time::Duration;

use crate::wire::Code;

/// How long to wait where a busy server does not name a time.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// Why an operation failed. No variant holds a token or a body; texts of the server are short and
/// without hidden characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached; nothing was sent.
    #[error("{endpoint} cannot be reached: {why}")]
    Unreachable {
        /// The server.
        endpoint: String,
        /// The cause.
        why: String,
    },
    /// The request was sent and its answer did not come back whole, so a write may have been done.
    #[error("{operation}: the answer was lost: {why}")]
    AnswerLost {
        /// The operation that failed.
        operation: &'static str,
        /// The cause.
        why: String,
    },
    /// 503 or 429: the server asks to be retried later.
    #[error("{operation}: the server is busy ({code})")]
    Unavailable {
        /// The operation that failed.
        operation: &'static str,
        /// `busy`, `db_unavailable`, `events_watch_saturated`.
        code: Code,
        /// How long the server asks to wait; absent where it does not name a time.
        retry_after: Option<Duration>,
    },
    /// 401: the request has no token, or one that the server does not know.
    #[error("{operation}: the server does not accept the token")]
    Unauthenticated {
        /// The operation that failed.
        operation: &'static str,
    },
    /// 403, which `bd serve` never answers: a proxy before it does.
    #[error("{operation}: a proxy before the server answers 403 Forbidden")]
    Forbidden {
        /// The operation that failed.
        operation: &'static str,
    },
    /// The server has another project than the wanted one. Nothing was read or written.
    #[error("the server has the project {found:?}, not {expected:?}")]
    WrongProject {
        /// The project id of the spec, else the one of the first connection.
        expected: String,
        /// The project id that the server answers.
        found: String,
    },
    /// The server has no project id, so it could not be distinguished from a wrong one.
    #[error(
        "the server has no project id, so it cannot be distinguished from another one (run `bd` 1.3 or later on the store once)"
    )]
    NoProject,
    /// The server has another major version of the API.
    #[error("the server speaks {0:?}, not v0")]
    UnknownVersion(String),
    /// The server does not offer capabilities that this client needs.
    #[error("the server (bd {version}) does not offer {missing}")]
    Unsupported {
        /// The release of `bd` that the server reports.
        version: String,
        /// Names of capabilities, comma-separated.
        missing: String,
    },
    /// The answer does not follow the contract: it is not from `bd serve`, or is malformed.
    #[error("{operation}: not an answer of bd serve: {why}")]
    NotBeads {
        /// The operation that failed.
        operation: &'static str,
        /// How the answer breaks the contract.
        why: String,
    },
    /// The answer is larger than the limit.
    #[error("{operation}: the answer is larger than {limit} bytes")]
    TooLarge {
        /// The operation that failed.
        operation: &'static str,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The store has more issues than the limit.
    #[error("the store has more than {0} issues")]
    TooMany(usize),
    /// The issue does not exist, or it is ephemeral and cannot be claimed.
    #[error("there is no bead {0}")]
    NotFound(String),
    /// 409: somebody else has claimed the issue.
    #[error("{id} is claimed by {}", by.as_deref().unwrap_or("somebody else"))]
    AlreadyClaimed {
        /// The issue.
        id: String,
        /// Who has claimed it; absent where the server does not name them.
        by: Option<String>,
    },
    /// 409: the issue cannot be claimed in its status.
    #[error("{id} is {status}, not open")]
    NotClaimable {
        /// The issue.
        id: String,
        /// Its status.
        status: String,
    },
    /// 409: the issue has the expected assignee and cannot be released in its status.
    #[error("{id} is {status} and cannot be released")]
    NotReleasable {
        /// The issue.
        id: String,
        /// Its status.
        status: String,
    },
    /// 409: children or blockers of the issue are open.
    #[error("{id} cannot be closed: {}", open_children.map_or_else(|| "a bead that blocks it is open".to_owned(), |n| format!("{n} of its children are open")))]
    NotClosable {
        /// The issue.
        id: String,
        /// How many children are open; absent where a blocker is open.
        open_children: Option<u64>,
    },
    /// The issue is not at the expected version: somebody else changed it meanwhile.
    #[error("{id} was changed by somebody else meanwhile")]
    Moved {
        /// The issue.
        id: String,
    },
    /// 409 with a code that this client does not know.
    #[error("{operation}: {code}")]
    Conflict {
        /// The operation that failed.
        operation: &'static str,
        /// The server's code.
        code: Code,
    },
    /// 410, or a journal whose head went back: the position is not valid any more, and the whole
    /// store must be read again.
    #[error(
        "the journal of changes does not reach back to this position; the whole store must be read again"
    )]
    Gone {
        /// The number of the first change in the journal.
        floor: Option<u64>,
        /// The number of the last change in the journal.
        head: Option<u64>,
    },
    /// 409: the workspace does not keep a journal of changes; read the whole store each time.
    #[error("the workspace does not keep a journal of changes")]
    JournalDisabled,
    /// 400 or another 4xx: the server refuses the request, and would refuse it again.
    #[error("{operation}: refused as {code}{}: {detail}", param.as_ref().map(|param| format!(" ({param})")).unwrap_or_default())]
    Refused {
        /// The operation that failed.
        operation: &'static str,
        /// The server's code.
        code: Code,
        /// The parameter that the server refuses.
        param: Option<String>,
        /// The server's text.
        detail: String,
    },
    /// The store cannot hold this text.
    #[error("{what} {why}")]
    Unwritable {
        /// The part of the request, such as `the comment`.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// 3xx: redirects are not followed, since the token must not go to another server.
    #[error("{operation}: the server redirects ({status}), which is not followed")]
    Redirected {
        /// The operation that failed.
        operation: &'static str,
        /// The HTTP status.
        status: u16,
    },
    /// Any other status; a write may have been done.
    #[error("{operation}: {status} {code}")]
    Server {
        /// The operation that failed.
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// Such as `internal`; empty where the answer has no problem document.
        code: Code,
    },
    /// There are no trusted certificates, or they cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// What a caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Send the same request again after this time.
    Wait(Duration),
    /// Send the same request again, with the caller's back-off.
    Retry,
    /// Read the bead and plan again; the same request would be refused again.
    Replan,
    /// Read the whole store again.
    Reread,
    /// Wait until a person changes the spec, the Secret or the server.
    Terminal,
}

impl Error {
    /// What the caller does next.
    pub fn class(&self) -> Class {
        match self {
            Self::Unavailable { retry_after, .. } => {
                Class::Wait(retry_after.unwrap_or(DEFAULT_WAIT))
            }
            Self::Unreachable { .. } | Self::AnswerLost { .. } | Self::Server { .. } => {
                Class::Retry
            }
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

    /// The reason of condition `Synced` for this error; `None` where the error concerns one bead
    /// and not the store.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } | Self::AnswerLost { .. } | Self::Server { .. } => {
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

    /// Whether a write that failed with this error may have been done all the same.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::AnswerLost { .. }
                | Self::Server { .. }
                | Self::NotBeads { .. }
                | Self::TooLarge { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_names_the_wait_and_the_default_applies_where_it_does_not() {
        let busy = |retry_after| Error::Unavailable {
            operation: "claim",
            code: Code::new("busy"),
            retry_after,
        };
        assert_eq!(busy(Some(Duration::from_secs(7))).class(), Class::Wait(Duration::from_secs(7)));
        assert_eq!(busy(None).class(), Class::Wait(DEFAULT_WAIT));
    }

    #[test]
    fn messages_name_who_has_a_bead_and_what_blocks_a_close() {
        let claimed = Error::AlreadyClaimed { id: "gt-1".into(), by: Some("maya".into()) };
        assert_eq!(claimed.to_string(), "gt-1 is claimed by maya");
        let blocked =
            |open_children| Error::NotClosable { id: "gt-1".into(), open_children }.to_string();
        assert_eq!(blocked(Some(2)), "gt-1 cannot be closed: 2 of its children are open");
        assert_eq!(blocked(None), "gt-1 cannot be closed: a bead that blocks it is open");
    }
}
