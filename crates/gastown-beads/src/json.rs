//! A JSON object as text with the positions of its members, so that a member can be changed while
//! every other byte stays.

use std::ops::Range;

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::{dialect::Escaping, id::is_valid_id};

/// A member of an object: the positions of its key (with quotes) and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The key, unescaped; as written where it is not a valid string.
    pub(crate) key: String,
    pub(crate) key_span: Range<usize>,
    pub(crate) value_span: Range<usize>,
}

/// The members of the object that `text` holds, or why it does not hold one.
pub(crate) fn members(text: &str) -> Result<Vec<Member>, String> {
    let mut at = skip_space(text, 0);
    if text.as_bytes().get(at) != Some(&b'{') {
        return Err("not a JSON object".to_owned());
    }
    at = skip_space(text, at + 1);
    let mut members = Vec::new();
    if text.as_bytes().get(at) == Some(&b'}') {
        return end(text, at + 1, members);
    }
    loop {
        if text.as_bytes().get(at) != Some(&b'"') {
            return Err(format!("a key is missing at byte {at}"));
        }
        let key_span = value(text, at)?;
        at = skip_space(text, key_span.end);
        if text.as_bytes().get(at) != Some(&b':') {
            return Err(format!("`:` is missing at byte {at}"));
        }
        let value_span = value(text, skip_space(text, at + 1))?;
        at = skip_space(text, value_span.end);
        let written = &text[key_span.clone()];
        members.push(Member {
            key: decode(written).unwrap_or_else(|_| written.to_owned()),
            key_span,
            value_span,
        });
        match text.as_bytes().get(at) {
            Some(b',') => at = skip_space(text, at + 1),
            Some(b'}') => return end(text, at + 1, members),
            _ => return Err(format!("`,` or `}}` is missing at byte {at}")),
        }
    }
}

/// The id of a line that cannot be read as a whole, where its beginning still shows one: it may be
/// cut short, be invalid further on, or be too long to be read.
pub(crate) fn leading_id(line: &[u8]) -> Option<String> {
    const LOOKED_AT: usize = 4096;
    let start = &line[..line.len().min(LOOKED_AT)];
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&start[..error.valid_up_to()]).ok()?,
    };
    let mut at = skip_space(text, 0);
    while matches!(text.as_bytes().get(at), Some(b'{' | b',')) {
        let key = value(text, skip_space(text, at + 1)).ok()?;
        at = skip_space(text, key.end);
        if text.as_bytes().get(at) != Some(&b':') {
            return None;
        }
        let found = value(text, skip_space(text, at + 1)).ok()?;
        if decode::<String>(&text[key]).is_ok_and(|key| key == "id") {
            return decode::<String>(&text[found]).ok().filter(|id| is_valid_id(id));
        }
        at = skip_space(text, found.end);
    }
    None
}

/// The elements of the JSON array `raw`, as text; `None` where it is not an array.
pub(crate) fn elements(raw: &str) -> Option<Vec<&str>> {
    let mut at = skip_space(raw, 0);
    if raw.as_bytes().get(at) != Some(&b'[') {
        return None;
    }
    at = skip_space(raw, at + 1);
    let mut elements = Vec::new();
    if raw.as_bytes().get(at) == Some(&b']') {
        return Some(elements);
    }
    loop {
        let span = value(raw, at).ok()?;
        at = skip_space(raw, span.end);
        elements.push(&raw[span]);
        match raw.as_bytes().get(at) {
            Some(b',') => at = skip_space(raw, at + 1),
            Some(b']') => return Some(elements),
            _ => return None,
        }
    }
}

/// Reads a value into a type; the error does not repeat the value.
pub(crate) fn decode<T: DeserializeOwned>(raw: &str) -> Result<T, String> {
    serde_json::from_str(raw).map_err(|error| error.to_string())
}

/// Sets `key` to the JSON text `raw`: in place where the key is present, else after the nearest
/// present key before it in `order`.
pub(crate) fn set(text: &str, key: &str, raw: &str, order: &[&str]) -> Result<String, String> {
    let members = members(text)?;
    if let Some(member) = members.iter().find(|member| member.key == key) {
        return Ok(splice(text, member.value_span.clone(), raw));
    }
    let (colon, comma) = separators(text, &members);
    let rank = |name: &str| order.iter().position(|each| *each == name);
    let own = rank(key);
    let ranked = || members.iter().filter_map(|member| Some((rank(&member.key)?, member)));
    let before = ranked()
        .filter(|(rank, _)| own.is_some_and(|own| *rank < own))
        .max_by_key(|(rank, _)| *rank);
    let behind = ranked()
        .filter(|(rank, _)| own.is_some_and(|own| *rank > own))
        .min_by_key(|(rank, _)| *rank);
    match (
        before.map(|(_, member)| member).or(if behind.is_none() { members.last() } else { None }),
        behind,
    ) {
        (Some(member), _) => {
            let at = member.value_span.end;
            Ok(splice(text, at..at, &format!("{comma}\"{key}\"{colon}{raw}")))
        }
        (None, Some((_, member))) => {
            let at = member.key_span.start;
            Ok(splice(text, at..at, &format!("\"{key}\"{colon}{raw}{comma}")))
        }
        (None, None) => {
            let at = skip_space(text, 0) + 1;
            Ok(splice(text, at..at, &format!("\"{key}\"{colon}{raw}")))
        }
    }
}

/// Removes `key` and one comma; the text is unchanged where the key is absent.
pub(crate) fn remove(text: &str, key: &str) -> Result<String, String> {
    let members = members(text)?;
    let Some(index) = members.iter().position(|member| member.key == key) else {
        return Ok(text.to_owned());
    };
    let span =
        match (index.checked_sub(1).and_then(|before| members.get(before)), members.get(index + 1))
        {
            (_, Some(next)) => members[index].key_span.start..next.key_span.start,
            (Some(before), None) => before.value_span.end..members[index].value_span.end,
            (None, None) => members[index].key_span.start..members[index].value_span.end,
        };
    Ok(splice(text, span, ""))
}

/// Adds `element` at the end of the JSON array `raw`; `null` counts as an empty one.
pub(crate) fn push(raw: &str, element: &str, comma: &str) -> Result<String, String> {
    let raw = raw.trim_matches(SPACE);
    if raw == "null" {
        return Ok(format!("[{element}]"));
    }
    let inner =
        raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or("not a JSON array")?;
    if inner.trim_matches(SPACE).is_empty() {
        Ok(format!("[{element}]"))
    } else {
        Ok(format!("[{inner}{comma}{element}]"))
    }
}

/// The text between a key and its value, and between two members, on this line; `:` and `,` where
/// the line has too few members to show it.
pub(crate) fn separators<'a>(text: &'a str, members: &[Member]) -> (&'a str, &'a str) {
    let colon =
        members.first().map_or(":", |member| &text[member.key_span.end..member.value_span.start]);
    let comma =
        members.get(..2).map_or(",", |pair| &text[pair[0].value_span.end..pair[1].key_span.start]);
    (colon, comma)
}

/// A JSON string in this escaping.
pub(crate) fn string(value: &str, escaping: Escaping) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        let short = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            _ => "",
        };
        let escaped_by_go =
            escaping == Escaping::Html && matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        if !short.is_empty() {
            out.push_str(short);
        } else if c < ' ' || escaped_by_go {
            out.extend(unicode_escape(c));
        } else {
            out.push(c);
        }
    }
    out.push('"');
    out
}

/// `\u` and four hexadecimal digits, for a character of the basic plane.
fn unicode_escape(c: char) -> impl Iterator<Item = char> {
    let digit =
        move |shift: u32| char::from_digit((u32::from(c) >> shift) & 0xf, 16).unwrap_or('0');
    ['\\', 'u'].into_iter().chain([12, 8, 4, 0].into_iter().map(digit))
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

fn end(text: &str, at: usize, members: Vec<Member>) -> Result<Vec<Member>, String> {
    let at = skip_space(text, at);
    if at == text.len() {
        Ok(members)
    } else {
        Err(format!("there is more text after the object, at byte {at}"))
    }
}

fn skip_space(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    text.len() - rest.trim_start_matches(SPACE).len()
}

/// The span of the value that begins at `at`. serde_json skips values without recursion, so deep
/// nesting does no harm.
fn value(text: &str, at: usize) -> Result<Range<usize>, String> {
    let rest = text.get(at..).unwrap_or_default();
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Ok(at..at + values.byte_offset()),
        Some(Err(error)) => {
            Err(format!("not valid JSON at byte {}", at + error.column().saturating_sub(1)))
        }
        None => Err("the line ends inside the object".to_owned()),
    }
}

fn splice(text: &str, span: Range<usize>, with: &str) -> String {
    let mut out = String::with_capacity(text.len() + with.len());
    out.push_str(&text[..span.start]);
    out.push_str(with);
    out.push_str(&text[span.end..]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ORDER: &[&str] = &["id", "status", "assignee", "updated_at", "closed_at", "labels"];

    #[test]
    fn the_id_of_a_broken_line_is_found_in_its_beginning() {
        for (line, id) in [
            (r#"{"id":"a-1","title":"#, Some("a-1")),
            (r#"{ "_type" : "issue" , "id" : "a-1", "x":"#, Some("a-1")),
            (r#"{"title":{"id":"b-1"},"id":"a-1""#, Some("a-1")),
            (r#"{"id":"a-1"#, None),
            (r#"{"id":"../x","#, None),
            (r#"{"title" "id":"a-1"}"#, None),
            ("{{{", None),
            ("", None),
        ] {
            assert_eq!(leading_id(line.as_bytes()).as_deref(), id, "{line}");
        }
        assert_eq!(leading_id(b"{\"id\":\"a-1\",\"t\":\"\xff\"}").as_deref(), Some("a-1"));
        let far = format!(r#"{{"t":"{}","id":"a-1"}}"#, "x".repeat(5000));
        assert_eq!(leading_id(far.as_bytes()), None, "only the beginning is looked at");
    }

    #[test]
    fn elements_are_found_as_they_are_written() {
        assert_eq!(
            elements(r#" [ 1 , {"a":[2]},"x,]" ] "#).unwrap(),
            ["1", r#"{"a":[2]}"#, r#""x,]""#]
        );
        assert_eq!(elements("[]").unwrap(), [] as [&str; 0]);
        for raw in ["{}", "[1", "[1 2]", "null", ""] {
            assert_eq!(elements(raw), None, "{raw}");
        }
    }

    #[test]
    fn a_member_is_set_in_place() {
        assert_eq!(
            set(r#"{"id":"a", "status" : "open" }"#, "status", r#""closed""#, ORDER).unwrap(),
            r#"{"id":"a", "status" : "closed" }"#
        );
    }

    #[test]
    fn a_new_member_goes_to_its_place_in_the_order() {
        assert_eq!(
            set(r#"{"id":"a","x":1,"labels":[]}"#, "assignee", "1", ORDER).unwrap(),
            r#"{"id":"a","assignee":1,"x":1,"labels":[]}"#
        );
        assert_eq!(
            set(r#"{"x":1,"labels":[]}"#, "assignee", "1", ORDER).unwrap(),
            r#"{"x":1,"assignee":1,"labels":[]}"#
        );
        assert_eq!(set(r#"{"x":1}"#, "assignee", "1", ORDER).unwrap(), r#"{"x":1,"assignee":1}"#);
        assert_eq!(set("{ }", "assignee", "1", ORDER).unwrap(), r#"{"assignee":1 }"#);
    }

    #[test]
    fn a_new_member_is_spaced_like_its_neighbours() {
        assert_eq!(
            set(r#"{"id": "a", "status": "open"}"#, "assignee", "1", ORDER).unwrap(),
            r#"{"id": "a", "status": "open", "assignee": 1}"#
        );
    }

    #[test]
    fn a_member_is_removed_with_one_comma() {
        for (text, without) in [
            (r#"{"a":1,"id":2,"b":3}"#, r#"{"a":1,"b":3}"#),
            (r#"{"id":2,"b":3}"#, r#"{"b":3}"#),
            (r#"{"a":1,"id":2}"#, r#"{"a":1}"#),
            (r#"{ "id":2 }"#, "{  }"),
            (r#"{"a":1}"#, r#"{"a":1}"#),
        ] {
            assert_eq!(remove(text, "id").unwrap(), without);
        }
    }

    #[test]
    fn an_element_is_added_at_the_end() {
        assert_eq!(push("[1,  2]", "3", ",").unwrap(), "[1,  2,3]");
        assert_eq!(push("[ ]", "3", ",").unwrap(), "[3]");
        assert_eq!(push("null", "3", ",").unwrap(), "[3]");
        assert!(push("{}", "3", ",").is_err());
    }

    #[test]
    fn text_that_is_not_an_object_is_refused() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1}}"#,
            r#"{"a":1 "b":2}"#,
            "{a:1}",
            "{\"a\":\"\u{1}\"}",
            r#"{"a":tru}"#,
            r#"{"a":01}"#,
        ] {
            assert!(members(text).is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_does_no_harm() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(members(&deep).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn a_string_reads_back_as_itself(value in any::<String>(), html in any::<bool>()) {
            let escaping = if html { Escaping::Html } else { Escaping::Plain };
            let written = string(&value, escaping);
            prop_assert_eq!(decode::<String>(&written).unwrap(), value);
            let bare = written.contains(['<', '>', '&', '\u{2028}']);
            prop_assert!(!html || !bare);
        }

        #[test]
        fn members_are_what_serde_reads(keys in proptest::collection::vec("[a-z\"\\\\<é]{0,4}", 0..6), values in proptest::collection::vec("[ -~é]{0,6}", 6)) {
            let map: serde_json::Map<String, serde_json::Value> = keys.iter().zip(&values).map(|(k, v)| (k.clone(), v.clone().into())).collect();
            let text = serde_json::to_string(&map).unwrap();
            let read = members(&text).unwrap();
            prop_assert_eq!(read.len(), map.len());
            for member in read {
                prop_assert_eq!(decode::<String>(&text[member.value_span]).unwrap(), map[&member.key].as_str().unwrap());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}\",:0-9a-z\\\\ ]{0,40}") {
            if let Ok(read) = members(&text) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok() || !read.is_empty());
            }
        }
    }
}
