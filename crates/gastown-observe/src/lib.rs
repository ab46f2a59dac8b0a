//! Jaeger and Prometheus beside a cluster on this machine, for the demo and for scenarios: the controllers
//! send their spans to the one and are scraped by the other.
//!
//! [`problems`] states what is wrong with the trace of a life, and [`tree()`] shows it to people; both are
//! pure. This crate must not know any controller's code.

mod check;
mod jaeger;
mod prometheus;
mod server;
mod span;
#[cfg(test)]
mod tests;
mod tree;

pub use check::problems;
pub use jaeger::Jaeger;
pub use prometheus::Prometheus;
pub use span::{attribute, of_lives};
pub use tree::tree;
