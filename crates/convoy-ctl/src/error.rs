//! Why a reconcile failed.

use gastown_runtime::apply;
use gastown_runtime::controller::{Class, Classify};

/// Why a reconcile failed. What had been written by then stays, and the next reconcile goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("annotating convoy {convoy}")]
    Annotate {
        convoy: String,
        #[source]
        source: apply::Error,
    },
    #[error(
        "reading the merge requests of bead {bead} before creating polecat {polecat} for convoy {convoy}"
    )]
    ReadRequests {
        convoy: String,
        polecat: String,
        bead: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("creating polecat {polecat} for convoy {convoy}")]
    CreatePolecat {
        convoy: String,
        polecat: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("writing the status of convoy {convoy}")]
    Report {
        convoy: String,
        #[source]
        source: apply::Error,
    },
}

impl Error {
    /// The API server's message about a Polecat that it refused, for a condition.
    pub(crate) fn refusal(&self) -> Option<String> {
        match self {
            Self::CreatePolecat { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.message.clone()),
                other => Some(other.to_string()),
            },
            Self::Annotate { .. } | Self::ReadRequests { .. } | Self::Report { .. } => None,
        }
    }
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Annotate { source, .. } | Self::Report { source, .. } => source.class(),
            Self::ReadRequests { source, .. } | Self::CreatePolecat { source, .. } => {
                Class::of(source)
            }
        }
    }
}
