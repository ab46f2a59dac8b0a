//! A finished span.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::ids::{Context, SpanId, TraceId};

/// The schema of the names that are not below `gastown.`: OpenTelemetry's semantic conventions of this
/// version.
pub const SEMANTIC_CONVENTIONS: &str = "https://opentelemetry.io/schemas/1.37.0";

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// Yes or no.
    Boolean(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

/// An attribute.
pub type Attribute = (&'static str, Value);

/// Attributes whose texts are not empty.
pub(crate) fn texts<const N: usize>(all: [(&'static str, &str); N]) -> Vec<Attribute> {
    all.into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(key, text)| (key, text.into()))
        .collect()
}

/// How a span ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Nothing is known to have failed.
    #[default]
    Unset,
    /// As it should.
    Ok,
    /// With an error, in one sentence.
    Error(String),
}

/// A finished span. `end` is not before `begin`.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// The span that it is part of.
    pub parent: Option<SpanId>,
    /// Whether that one is another program's.
    pub remote_parent: bool,
    /// Its name, one of few.
    pub name: Cow<'static, str>,
    /// When it began.
    pub begin: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// What is known of it.
    pub attributes: Vec<Attribute>,
    /// Spans that it follows from, or that belong to it.
    pub links: Vec<Context>,
    /// How it ended.
    pub status: Status,
}

impl Span {
    /// A span of these times.
    pub(crate) fn new(
        context: Context,
        parent: Option<SpanId>,
        name: &'static str,
        (begin, end): (Timestamp, Timestamp),
    ) -> Self {
        Self {
            trace: context.trace,
            id: context.span,
            parent,
            remote_parent: false,
            name: Cow::Borrowed(name),
            begin,
            end: end.max(begin),
            attributes: Vec::new(),
            links: Vec::new(),
            status: Status::Unset,
        }
    }

    /// As others name it.
    pub fn context(&self) -> Context {
        Context { trace: self.trace, span: self.id }
    }

    /// The value of an attribute.
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        self.attributes.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

/// A time in whole seconds.
pub(crate) fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
