//! Random input for tests of parsers of foreign bytes: valid examples, changed. It knows no parser.
//!
//! A test runs 256 cases; `PROPTEST_CASES=1000000 cargo test -p gastown-git --lib fuzz` runs more.

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What parsers stumble over.
const ODD: &[&str] = &[
    "",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\0",
    "/",
    "//",
    "../",
    ".git",
    ":",
    "=",
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    "<",
    ">",
    "%00",
    "\u{feff}",
    "\u{202e}",
    "ü",
    "\u{10ffff}",
    "-1",
    "0",
    "1e309",
    "null",
    "18446744073709551615",
    "18446744073709551616",
    "9999999999999999999999",
    "-",
    "--",
    "*",
    "^{}",
];

#[derive(Clone, Debug)]
enum Change {
    Replace(Index, u8),
    Cut(Index, Index),
    Insert(Index, &'static str),
    Repeat(Index, Index, u8),
    Append(Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (index(), index()).prop_map(|(from, to)| Change::Cut(from, to)),
        (index(), select(ODD)).prop_map(|(at, text)| Change::Insert(at, text)),
        (index(), index(), 0..32_u8).prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
        prop::collection::vec(any::<u8>(), 0..64).prop_map(Change::Append),
    ]
}

/// The two places as a range, whichever is first.
fn range(from: Index, to: Index, length: usize) -> std::ops::Range<usize> {
    let (a, b) = (from.index(length + 1), to.index(length + 1));
    a.min(b)..a.max(b)
}

fn apply(mut bytes: Vec<u8>, change: &Change) -> Vec<u8> {
    let length = bytes.len();
    match change {
        Change::Replace(at, byte) => {
            if length > 0 {
                bytes[at.index(length)] = *byte;
            }
        }
        Change::Cut(from, to) => drop(bytes.drain(range(*from, *to, length))),
        Change::Insert(at, text) => {
            let at = at.index(length + 1);
            bytes.splice(at..at, text.bytes());
        }
        Change::Repeat(from, to, times) => {
            let part = bytes[range(*from, *to, length)].repeat(usize::from(*times));
            bytes.extend(part.into_iter().take(4096));
        }
        Change::Append(more) => bytes.extend(more),
    }
    bytes
}

/// One of the examples with up to eight changes, or any bytes at all.
pub fn bytes(examples: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let changed = (select(examples), prop::collection::vec(change(), 0..8))
        .prop_map(|(example, changes)| changes.iter().fold(example.as_bytes().to_vec(), apply));
    prop_oneof![9 => changed, 1 => prop::collection::vec(any::<u8>(), 0..256)]
}

/// Like [`bytes`], as text: what is not UTF-8 is replaced.
pub fn text(examples: &'static [&'static str]) -> impl Strategy<Value = String> {
    bytes(examples).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #[test]
        fn changes_of_any_input_succeed(input in prop::collection::vec(any::<u8>(), 0..16), changes in prop::collection::vec(change(), 0..16)) {
            changes.iter().fold(input, apply);
        }
    }
}
