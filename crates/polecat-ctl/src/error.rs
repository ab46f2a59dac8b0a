//! What can go wrong in a reconcile.

use gastown_core::polecat::sanitize;
use gastown_runtime::controller::{Class, Classify};
use gastown_runtime::{apply, sentence};

/// Why an action was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused a request, or did not answer.
    #[error("{doing} {name}")]
    Api {
        /// What was attempted.
        doing: &'static str,
        /// The object.
        name: String,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// The cache of pods is behind the API server.
    #[error("the watch of pods is behind the API server by {pods} pods: nothing is started yet")]
    Behind {
        /// How many pods it does not show as they are.
        pods: usize,
    },
    /// The Polecat is not as the cache showed it.
    #[error("polecat {name} has changed since its pod was decided about")]
    Stale {
        /// The Polecat.
        name: String,
    },
    /// The API server refuses the pod or its prompt.
    #[error("creating pod {name}: {message}")]
    Refused {
        /// The pod.
        name: String,
        /// The API server's message.
        message: String,
    },
    /// The claim on the bead is not as the cache showed it.
    #[error("claim {name}: {message}")]
    Claim {
        /// The Lease.
        name: String,
        /// One sentence.
        message: String,
    },
    /// The bead cannot be read, or must not be begun.
    #[error("{reason}: {message}")]
    Bead {
        /// The reason, in CamelCase.
        reason: &'static str,
        /// One sentence.
        message: String,
    },
    /// witness-ctl did not accept a request.
    #[error("escalating {cause}: {message}")]
    Escalation {
        /// The Escalation's key.
        cause: String,
        /// One sentence.
        message: String,
    },
    /// The bead was not commented on.
    #[error("commenting on bead {bead}: {message}")]
    Comment {
        /// The bead.
        bead: String,
        /// Sending the comment again soon would not help.
        refused: bool,
        /// One sentence.
        message: String,
    },
    /// A shared write failed.
    #[error(transparent)]
    Write(#[from] apply::Error),
    /// refinery-ctl did not accept the commit.
    #[error("submitting {commit}: {reason}: {message}")]
    Submit {
        /// The commit.
        commit: String,
        /// The reason, in CamelCase.
        reason: String,
        /// One sentence.
        message: String,
    },
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => Class::of(source),
            Self::Write(error) => error.class(),
            Self::Claim { .. } | Self::Stale { .. } => Class::Conflict,
            Self::Behind { .. }
            | Self::Refused { .. }
            | Self::Submit { .. }
            | Self::Bead { .. }
            | Self::Comment { .. }
            | Self::Escalation { .. } => Class::Retry { after: None },
        }
    }
}

impl Error {
    /// What was attempted on which object, and the other side's own sentence.
    pub(crate) fn sentence(&self) -> String {
        sanitize(&sentence::of(self))
    }
}

/// Wraps an error of the API server with what was attempted on which object.
pub(crate) fn api_error(doing: &'static str, name: &str) -> impl FnOnce(kube::Error) -> Error {
    let name = name.to_owned();
    move |source| Error::Api { doing, name, source: Box::new(source) }
}
