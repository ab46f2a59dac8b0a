//! Ids of traces and spans, made from the uids of objects, and the text in which W3C Trace Context
//! writes them: <https://www.w3.org/TR/trace-context/#traceparent-header>.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// The id of a trace. It is not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

/// The id of a span. It is not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId([u8; 8]);

/// A text is not a `traceparent`, or not an id of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a W3C traceparent")]
pub struct Malformed;

/// The first bytes of a hash of parts, each with its length. Never all zeros.
fn hash<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let digest = hasher.finalize();
    let mut id = [0; N];
    id.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    if id == [0; N] {
        id[N - 1] = 1;
    }
    id
}

/// Bytes in lowercase hexadecimal digits; none where they are all zeros or written otherwise.
fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_lower = !text.bytes().any(|b| b.is_ascii_uppercase());
    hex::decode_to_slice(text, &mut bytes).ok().filter(|()| is_lower && bytes != [0; N])?;
    Some(bytes)
}

impl TraceId {
    /// The trace of the object with this uid.
    pub fn of(uid: &str) -> Self {
        Self(hash(&["gastown.io/trace", uid]))
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl SpanId {
    /// The span of one phase of the object with this uid. `key` distinguishes phases of the same name.
    pub fn of(uid: &str, phase: &str, key: &str) -> Self {
        Self(hash(&["gastown.io/span", uid, phase, key]))
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for TraceId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        parse(text).map(Self).ok_or(Malformed)
    }
}

/// One span, as others name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Context {
    /// Its trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
}

impl fmt::Display for Context {
    /// The `traceparent`; spans of a life are always recorded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", self.trace, self.span)
    }
}

impl FromStr for Context {
    type Err = Malformed;

    /// Reads a `traceparent` of version 00, and what is known of a later version's.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut parts = text.split('-');
        let (Some(version), Some(trace), Some(span), Some(flags)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed);
        };
        let is_byte = |text: &str| {
            text.len() == 2 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let has_more = parts.next().is_some();
        if !is_byte(version) || !is_byte(flags) || version == "ff" || (version == "00" && has_more)
        {
            return Err(Malformed);
        }
        let span = parse(span).map(SpanId).ok_or(Malformed)?;
        Ok(Self { trace: trace.parse()?, span })
    }
}

/// The trace of the object with this uid, and the span that it is part of: its parent's, where it has one.
pub(crate) fn origin(uid: &str, parent: Option<Context>) -> (TraceId, Option<SpanId>) {
    let trace = parent.map_or_else(|| TraceId::of(uid), |parent| parent.trace);
    (trace, parent.map(|parent| parent.span))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn ids_follow_from_the_uid_the_phase_and_the_key() {
        // Written down, because a new version must go on with the traces of an old one.
        assert_eq!(TraceId::of("u").to_string(), "10eb45b7f03ee85c51dcc644d52ff877");
        assert_ne!(SpanId::of("u", "a", "bc"), SpanId::of("u", "ab", "c"));
        assert_ne!(SpanId::of("u", "a", ""), SpanId::of("v", "a", ""));
    }

    #[test]
    fn a_traceparent_reads_as_the_standard_has_it() {
        let context: Context = TEXT.parse().unwrap();
        assert_eq!(context.to_string(), TEXT);
        let unsampled = TEXT.replace("-01", "-00");
        assert_eq!(unsampled.parse(), Ok(context));
        let later = format!("cc{}-more", &TEXT[2..]);
        assert_eq!(later.parse(), Ok(context));
        for bad in [
            "",
            "00",
            &TEXT[..54],
            &format!("{TEXT}-more"),
            &format!("ff{}", &TEXT[2..]),
            &TEXT.to_uppercase(),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        ] {
            assert_eq!(bad.parse::<Context>(), Err(Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_reads_or_is_refused(text in ".*") {
            if let Ok(context) = text.parse::<Context>() {
                prop_assert_eq!(context.to_string().parse(), Ok(context));
            }
        }

        #[test]
        fn what_is_written_reads_back(uid in ".*", phase in ".*", key in ".*") {
            let context = Context { trace: TraceId::of(&uid), span: SpanId::of(&uid, &phase, &key) };
            prop_assert_eq!(context.to_string().parse(), Ok(context));
        }
    }
}
