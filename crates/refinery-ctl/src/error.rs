//! Why a reconcile failed.

use gastown_git::GitError;
use gastown_runtime::controller::{Class, Classify};
use gastown_runtime::{apply, sentence};

/// A failed reconcile, or a failed step of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A request to the API server failed.
    #[error("{doing}")]
    Kube {
        /// What was attempted.
        doing: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// An apply or a delete failed.
    #[error("{doing}")]
    Apply {
        /// What was attempted.
        doing: String,
        #[source]
        source: apply::Error,
    },
    /// The credentials cannot be used.
    #[error("{message}")]
    Credentials {
        /// The reason for conditions.
        reason: &'static str,
        /// What is wrong with them.
        message: String,
    },
    /// The remote or the mirror failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A bug in this program, or a broken installation.
    #[error("{0}")]
    Internal(String),
    /// The lease was lost in the middle of a reconcile.
    #[error("the lease is not held any more")]
    LeaseLost,
}

impl Error {
    /// An error of the API server while `doing`.
    pub(crate) fn kube(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Kube { doing, source: Box::new(source) }
    }
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Kube { source, .. } => Class::of(source),
            Self::Apply { source, .. } => source.class(),
            Self::Git(_) | Self::Credentials { .. } => Class::Retry { after: None },
            Self::Internal(_) => Class::Fatal,
            Self::LeaseLost => Class::Conflict,
        }
    }
}

impl Error {
    /// Whether the API server refuses what was attempted: a missing permission, a policy, a quota. It
    /// concerns one object, and does not pass by itself.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Kube { .. } | Self::Apply { .. } => {
                matches!(self.class(), Class::Forbidden | Class::InvalidSpec)
            }
            Self::Git(_) | Self::Credentials { .. } | Self::Internal(_) | Self::LeaseLost => false,
        }
    }

    /// What was attempted, and the other side's words.
    pub(crate) fn sentence(&self) -> String {
        sentence::of(self)
    }
}

/// Whether a write failed because its object was deleted: 409 means that the name belongs to
/// another object now.
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}
