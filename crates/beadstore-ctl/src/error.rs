//! Why a store could not be read or written, and why a reconcile failed.

use std::fmt;
use std::time::Duration;

use gastown_beads_http::{Class as HttpClass, Error as HttpError};
use gastown_credentials::reason_of;
use gastown_git::GitError;
use gastown_runtime::apply;
use gastown_runtime::controller::{Class, Classify};
use gastown_types::BranchName;

use crate::applied::WriteBlocked;
use crate::git::folder::{NotReadable, ReadError};
use crate::http::intent_store::IntentError;

/// What was attempted at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Beads were read.
    Read,
    /// Beads were written.
    Write,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading beads",
            Self::Write => "writing beads",
        })
    }
}

/// Why a store could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The remote, or git in this process, failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The repository holds no readable beads.
    #[error(transparent)]
    NotReadable(#[from] NotReadable),
    /// The store may not be written.
    #[error(transparent)]
    WriteBlocked(#[from] WriteBlocked),
    /// The remote rejects the push.
    #[error("the remote rejects the push to {branch}: {message}")]
    PushRejected {
        /// The branch.
        branch: BranchName,
        /// The remote's message.
        message: String,
    },
    /// Others pushed first in every attempt.
    #[error("others pushed to {branch} first, {attempts} times in a row")]
    Contended {
        /// The branch.
        branch: BranchName,
        /// The number of attempts.
        attempts: u32,
    },
    /// The server, or the connection to it, failed.
    #[error("{operation} at {url}: {source}")]
    Http {
        /// What was attempted.
        operation: Operation,
        /// The server.
        url: String,
        /// The cause.
        source: Box<HttpError>,
    },
    /// The record of an edit could not be written, so the edit was not made.
    #[error(transparent)]
    Intent(#[from] IntentError),
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotReadable(error) => Self::NotReadable(error),
            ReadError::Git(error) => Self::Git(error),
        }
    }
}

impl StoreError {
    /// An error of a server.
    pub(crate) fn http(operation: Operation, url: &str, source: HttpError) -> Self {
        Self::Http { operation, url: url.to_owned(), source: Box::new(source) }
    }

    /// The condition's reason.
    pub fn reason(&self) -> &str {
        match self {
            Self::Git(error) => reason_of(error.class),
            Self::NotReadable(error) => error.reason,
            Self::WriteBlocked(error) => &error.reason,
            Self::PushRejected { .. } => "PushRejected",
            Self::Contended { .. } => "Contended",
            Self::Http { source, .. } => source.reason().unwrap_or("Refused"),
            Self::Intent(_) => "RecordsNotKept",
        }
    }

    /// The condition's message.
    pub fn message(&self) -> String {
        match self {
            Self::NotReadable(error) => error.message.clone(),
            Self::WriteBlocked(error) => error.message.clone(),
            Self::Http { source, .. } => format!("{self}; {}", advice(source)),
            other => other.to_string(),
        }
    }

    /// Whether the store could be read, and only the write failed.
    pub fn is_write_error(&self) -> bool {
        match self {
            Self::WriteBlocked(_)
            | Self::PushRejected { .. }
            | Self::Contended { .. }
            | Self::Intent(_) => true,
            Self::Http { operation, .. } => *operation == Operation::Write,
            Self::Git(_) | Self::NotReadable(_) => false,
        }
    }

    /// Whether only a change of the spec, of a Secret or of the store helps, and a retry does not.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NotReadable(_) | Self::WriteBlocked(_) => true,
            Self::Http { source, .. } => source.class() == HttpClass::Terminal,
            Self::Git(_) | Self::PushRejected { .. } | Self::Contended { .. } | Self::Intent(_) => {
                false
            }
        }
    }

    /// How long the server asks to wait before the next request.
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Http { source, .. } = self else { return None };
        match source.class() {
            HttpClass::Wait(wait) => Some(wait),
            HttpClass::Retry | HttpClass::Replan | HttpClass::Reread | HttpClass::Terminal => None,
        }
    }

    /// This error with the rest of the wait that the server asked for.
    pub(crate) fn with_retry_after(&self, left: Duration) -> Self {
        let mut error = self.clone();
        if let Self::Http { source, .. } = &mut error
            && let HttpError::Unavailable { retry_after, .. } = source.as_mut()
        {
            *retry_after = Some(left);
        }
        error
    }
}

/// What a person can do about an error of a server.
fn advice(error: &HttpError) -> &'static str {
    match error.reason() {
        Some("RemoteUnreachable") => {
            "the last reading is still served and writes wait until a retry succeeds: check that bd serve runs there, and spec.http.url"
        }
        Some("RemoteBusy") => {
            "the last reading is still served and writes wait until the time that the server named"
        }
        Some("AuthFailed") => {
            "put a token that the server knows into key token of the Secret that spec.http.tokenSecretRef names"
        }
        Some("ProjectMismatch") => {
            "set spec.http.url to the server of the intended project, or spec.http.projectId to the server's project"
        }
        Some("SchemaUnsupported") => "run a bd serve there that offers it (bd 1.3 or later)",
        Some("NotBeads") => {
            "spec.http.url must lead to bd serve itself, with the path that a proxy before it needs"
        }
        Some("TooLarge") => "a store of this size is not read",
        Some("TlsFailed") => "the image's certificates must include the server's CA",
        _ => "it is retried automatically",
    }
}

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused to give the credentials, or could not be reached.
    #[error("reading the credentials of bead store {name}")]
    Credentials {
        /// The BeadStore.
        name: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// A write to the API server failed.
    #[error("{doing} bead store {name}")]
    Apply {
        /// What was attempted.
        doing: &'static str,
        /// The BeadStore.
        name: String,
        /// The cause.
        #[source]
        source: apply::Error,
    },
    /// The store could not be read or written; the status shows it too.
    #[error("syncing bead store {name}")]
    Store {
        /// The BeadStore.
        name: String,
        /// The cause.
        #[source]
        source: StoreError,
    },
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Credentials { source, .. } => Class::of(source),
            Self::Apply { source, .. } => source.class(),
            Self::Store { source: StoreError::Contended { .. }, .. } => Class::Conflict,
            Self::Store { source, .. } => Class::Retry { after: source.retry_after() },
        }
    }
}
