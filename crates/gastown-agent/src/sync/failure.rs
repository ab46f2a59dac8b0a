//! Why work could not be brought to the remote.

use gastown_core::report::SyncResult;
use gastown_git::{Class, GitError, Refusal};

use crate::credentials::Missing;
use crate::quarantine::ImportError;

/// Work could not be brought to the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The result for the push record.
    pub result: SyncResult,
    /// One sentence.
    pub message: String,
    /// Whether another attempt can succeed.
    pub retryable: bool,
}

impl Failure {
    /// A failure of our own: disk or git.
    pub fn internal(e: impl std::fmt::Display) -> Self {
        Self { result: SyncResult::Internal, message: e.to_string(), retryable: true }
    }

    /// The agent's objects or folders are broken.
    pub fn bad_objects(message: impl Into<String>) -> Self {
        Self { result: SyncResult::BadObjects, message: message.into(), retryable: false }
    }

    /// Another writer moved the ref.
    pub fn race(message: impl Into<String>) -> Self {
        Self { result: SyncResult::PushRace, message: message.into(), retryable: false }
    }

    /// A rule of the remote refuses the push: it would refuse it again.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self { result: SyncResult::PushRejected, message: message.into(), retryable: false }
    }

    /// The remote refuses the push and names no rule. A remote without room may have some later;
    /// objects that it finds broken stay so.
    pub fn refused(message: impl Into<String>) -> Self {
        let message = message.into();
        let text = message.to_ascii_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|p| text.contains(p));
        if !has(&["fsck"]) && has(&["unpack", "no space", "quota", "disk", "temporar", "try again"])
        {
            return Self { result: SyncResult::RemoteUnreachable, message, retryable: true };
        }
        Self::rejected(message)
    }

    /// The remote does not let us in, or there is nothing to get in with. A Secret that is renewed
    /// is read at the next attempt.
    pub fn access(message: impl Into<String>) -> Self {
        Self { result: SyncResult::AccessDenied, message: message.into(), retryable: true }
    }

    /// Whether the remote may have done what it was asked for: its answer is missing, and it did not
    /// refuse us before.
    pub fn leaves_doubt(&self) -> bool {
        self.retryable && self.result != SyncResult::AccessDenied
    }

    /// The remote cannot be reached in time.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { result: SyncResult::RemoteUnreachable, message: message.into(), retryable: true }
    }
}

impl From<GitError> for Failure {
    fn from(e: GitError) -> Self {
        let message = e.to_string();
        match e.class {
            Class::Unreachable | Class::Timeout | Class::Rejected(Refusal::Locked) => {
                Self::unreachable(message)
            }
            Class::Rejected(Refusal::Stale) => Self::race(message),
            Class::AuthFailed
            | Class::PermissionDenied
            | Class::BadCredentials
            | Class::RepositoryNotFound
            | Class::UnknownHostKey
            | Class::HostKeyMismatch => Self::access(message),
            Class::Rejected(Refusal::Other) => Self::refused(message),
            Class::Rejected(_) => Self::rejected(message),
            Class::Corrupt => Self::bad_objects(message),
            Class::RefNotFound | Class::TooMuchOutput | Class::MissingProgram | Class::Local => {
                Self::internal(message)
            }
        }
    }
}

impl From<ImportError> for Failure {
    fn from(e: ImportError) -> Self {
        match e {
            ImportError::Invalid(message) => Self::bad_objects(message),
            ImportError::Internal(message) => Self::internal(message),
        }
    }
}

impl From<Missing> for Failure {
    fn from(e: Missing) -> Self {
        Self::access(e.message)
    }
}
