//! What the documents and the chart promise to somebody with `kubectl` and `helm`, typed into a real
//! API server.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on ends here

mod blocks;
mod chart;
mod documents;
mod shell;
mod uninstall;
mod upgrade;
