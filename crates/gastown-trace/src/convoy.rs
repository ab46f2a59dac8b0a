//! A convoy: a trace of its own, which links to the lives of its Polecats.

use jiff::Timestamp;

use crate::ids::{Context, SpanId, TraceId, origin};
use crate::span::{Span, Status, texts, whole};

/// Where the span of a convoy belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convoy {
    uid: String,
    trace: TraceId,
    creator: Option<SpanId>,
}

/// What is known of a convoy that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConvoyFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How many beads it tracked.
    pub beads: u32,
    /// Its phase at the end.
    pub phase: String,
    /// Whether it failed, and why.
    pub failure: Option<String>,
    /// The lives of its Polecats that are still known.
    pub lives: Vec<Context>,
}

impl Convoy {
    /// The most lives that a span links to: what backends take.
    pub const MAX_LIVES: usize = 128;

    /// The convoy with this uid. `traceparent` is its creator's, where it has one.
    pub fn of(uid: &str, traceparent: Option<&str>) -> Self {
        let (trace, creator) = origin(uid, traceparent.and_then(|text| text.parse().ok()));
        Self { uid: uid.to_owned(), trace, creator }
    }

    /// Its trace.
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// Its span.
    pub fn span(&self, facts: &ConvoyFacts) -> Span {
        let context = Context { trace: self.trace, span: SpanId::of(&self.uid, "convoy", "") };
        let times = (whole(facts.created), whole(facts.ended));
        let mut span = Span::new(context, self.creator, "convoy", times);
        span.remote_parent = self.creator.is_some();
        span.attributes = texts([
            ("k8s.namespace.name", &facts.namespace),
            ("gastown.convoy.name", &facts.name),
            ("gastown.convoy.phase", &facts.phase),
        ]);
        span.attributes.push(("gastown.convoy.beads", facts.beads.into()));
        span.links = facts.lives.iter().copied().take(Self::MAX_LIVES).collect();
        span.links.sort();
        span.status = match &facts.failure {
            Some(why) => Status::Error(why.clone()),
            None => Status::Ok,
        };
        span
    }
}
