//! What a comparison finds.

use std::fmt;

/// The folder of baselines, from the workspace's root.
pub const FOLDER: &str = "compat";

/// One way in which today's version breaks an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Break {
    /// The place, such as `gastown.v1.Bead.title` or `Polecat v1alpha1 .spec.rig`.
    pub at: String,
    /// What has changed.
    pub what: String,
}

impl Break {
    /// What has changed at a place.
    pub fn new(at: impl Into<String>, what: impl Into<String>) -> Self {
        Self { at: at.into(), what: what.into() }
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}
