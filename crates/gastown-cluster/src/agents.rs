//! The coding agents that tests and the demo run.

pub use crate::toolchain::claude_code;
