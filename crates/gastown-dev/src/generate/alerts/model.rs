//! What an alert is.

use serde::Serialize;

/// How soon a person is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Now.
    Critical,
    /// Today.
    Warning,
}

/// An alert.
pub struct Alert {
    pub name: &'static str,
    /// The query: what it gives is wrong.
    pub query: String,
    /// For how long it must be so.
    pub lasts: &'static str,
    pub severity: Severity,
    /// One sentence, which may use labels.
    pub summary: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to type, one command each.
    pub look: &'static [&'static str],
    /// What to do, one step each.
    pub steps: &'static [&'static str],
}
