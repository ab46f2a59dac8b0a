//! Why a reconcile failed.

use gastown_runtime::apply;
use gastown_runtime::controller::{Class, Classify};

/// Why a reconcile failed. What had been written by then stays, and the next reconcile goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("carrying out the plan for rig {rig}")]
    Act {
        rig: String,
        #[source]
        source: apply::Error,
    },
    #[error("writing the status of rig {rig}")]
    Report {
        rig: String,
        #[source]
        source: apply::Error,
    },
}

impl Error {
    /// The API server's message, for a condition; without one, what was attempted.
    pub(crate) fn refusal(&self) -> String {
        let (Self::Act { source, .. } | Self::Report { source, .. }) = self;
        source.refusal().map_or_else(|| source.to_string(), ToOwned::to_owned)
    }
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Act { source, .. } | Self::Report { source, .. } => source.class(),
        }
    }
}
