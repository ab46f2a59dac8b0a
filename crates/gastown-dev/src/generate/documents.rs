//! Where people read the documentation.

/// The address of `docs`.
pub const DOCUMENTS: &str = "https://github.com/gastown-operator/gastown-operator/blob/main/docs";
