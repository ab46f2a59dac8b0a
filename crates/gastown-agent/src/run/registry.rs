//! The adapters by name.

use super::adapter::Adapter;
use super::claude_code::ClaudeCode;
use super::generic::Generic;

/// The adapter that `GASTOWN_AGENT` names; `None` when there is no such adapter.
pub fn adapter(name: &str) -> Option<Box<dyn Adapter>> {
    match name {
        "claude-code" => Some(Box::new(ClaudeCode::default())),
        "generic" => Some(Box::new(Generic::default())),
        _ => None,
    }
}
