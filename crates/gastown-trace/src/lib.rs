//! The finished spans of a life, as plain data.
//!
//! A span is made from what objects show when it is over: nothing is open in memory, and whoever reads
//! the same objects again makes the same span with the same id. So a controller that was killed
//! between a write and the export of its span repeats the span, and a backend that sees it twice sees
//! it once.
//!
//! Times are whole seconds, as those of Kubernetes are; those of [`Step`]s are milliseconds. The end of
//! each phase of a life is the beginning of the next one, so that the phases add up to the life.
//!
//! This crate must not know Kubernetes, and does not send anything.

mod convoy;
mod ids;
mod life;
mod request;
mod span;
mod step;
#[cfg(test)]
mod tests;

pub use convoy::{Convoy, ConvoyFacts};
pub use ids::{Context, Malformed, SpanId, TraceId};
pub use life::{Attempt, Beginning, End, Life, LifeFacts, Usage};
pub use request::{Request, RequestFacts, Run};
pub use span::{Attribute, SEMANTIC_CONVENTIONS, Span, Status, Value};
pub use step::{Step, StepKind};
