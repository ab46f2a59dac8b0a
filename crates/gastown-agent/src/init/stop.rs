//! Why the work cannot begin.

use gastown_core::report::InitResult;

use crate::credentials::Missing;
use crate::settings::BadSetting;
use crate::submodules::Unavailable;

/// The work cannot begin.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Stop {
    /// How `gt init` ends.
    pub result: InitResult,
    /// What is missing or wrong, and what to do.
    pub message: String,
}

impl Stop {
    /// With this result and message.
    pub fn new(result: InitResult, message: impl Into<String>) -> Self {
        Self { result, message: message.into() }
    }

    /// A failure of our own.
    pub fn internal(e: impl std::fmt::Display) -> Self {
        Self::new(InitResult::Internal, e.to_string())
    }
}

impl From<Missing> for Stop {
    fn from(e: Missing) -> Self {
        Self::new(e.result, e.message)
    }
}

impl From<BadSetting> for Stop {
    fn from(e: BadSetting) -> Self {
        Self::new(InitResult::InvalidConfig, e.to_string())
    }
}

impl From<Unavailable> for Stop {
    fn from(e: Unavailable) -> Self {
        let result = if e.transient {
            InitResult::RemoteUnreachable
        } else {
            InitResult::SubmoduleUnavailable
        };
        Self::new(result, e.message)
    }
}
