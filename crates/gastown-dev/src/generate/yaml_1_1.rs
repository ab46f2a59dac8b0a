//! Reads YAML as a YAML 1.1 reader such as `kubectl` does, to test what is written for it. Only
//! what generated files contain: no tags, no anchors.

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// The first document of a text.
pub fn read(text: &str) -> Value {
    let mut events = Parser::new_from_str(text).map(|event| event.unwrap().0);
    loop {
        match events.next() {
            Some(Event::DocumentStart(..)) => break,
            Some(_) => {}
            None => panic!("there is no document"),
        }
    }
    let first = next(&mut events);
    value(first, &mut events)
}

fn next<'a>(events: &mut impl Iterator<Item = Event<'a>>) -> Event<'a> {
    loop {
        match events.next().unwrap() {
            Event::Comment(..) => {}
            event => return event,
        }
    }
}

fn value<'a>(event: Event<'a>, events: &mut impl Iterator<Item = Event<'a>>) -> Value {
    match event {
        Event::Scalar(text, ScalarStyle::Plain, ..) => plain(&text),
        Event::Scalar(text, ..) => Value::String(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match next(events) {
                    Event::SequenceEnd => return Value::Array(items),
                    event => items.push(value(event, events)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut fields = Map::new();
            loop {
                let event = next(events);
                if event == Event::MappingEnd {
                    return Value::Object(fields);
                }
                let Value::String(key) = value(event, events) else {
                    panic!("a key is not a string for YAML 1.1")
                };
                let event = next(events);
                let old = fields.insert(key, value(event, events));
                assert_eq!(old, None, "a key appears twice");
            }
        }
        other => panic!("unexpected: {other:?}"),
    }
}

/// A scalar without quotes, by the types of https://yaml.org/type/.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return true.into();
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return false.into();
        }
        _ => {}
    }
    integer(text)
        .map(Value::from)
        .or_else(|| float(text))
        .or_else(|| is_timestamp(text).then(|| Value::String(format!("timestamp {text}"))))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes() {
        [b'-', ..] => (-1, &text[1..]),
        [b'+', ..] => (1, &text[1..]),
        _ => (1, text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let radix = |prefix: &str, radix| {
        digits.strip_prefix(prefix).and_then(|rest| i64::from_str_radix(rest, radix).ok())
    };
    let octal = if digits.len() > 1 { radix("0", 8) } else { None };
    let base_60 = digits.contains(':').then(|| {
        digits.split(':').try_fold(0_i64, |sum, part| {
            let part: i64 = part.parse().ok()?;
            (part < 60 || sum == 0).then_some(sum * 60 + part)
        })
    });
    let read = radix("0b", 2)
        .or_else(|| radix("0o", 8))
        .or_else(|| radix("0x", 16))
        .or(octal)
        .or_else(|| base_60.flatten())
        .or_else(|| digits.parse().ok())?;
    Some(sign * read)
}

fn float(text: &str) -> Option<Value> {
    let unsigned = text.trim_start_matches(['-', '+']);
    if [".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"].contains(&unsigned) {
        return Some(Value::String(format!("float {text}")));
    }
    let begins = |c: char| c.is_ascii_digit() || c == '.';
    if !unsigned.starts_with(begins) || !unsigned.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text.replace('_', "").parse::<f64>().ok().map(Value::from)
}

/// More than YAML's timestamps; no generated text begins like a date.
fn is_timestamp(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: Option<&str>, most: usize| {
        part.is_some_and(|p| (1..=most).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
    };
    digits(parts.next(), 4)
        && digits(parts.next(), 2)
        && parts.next().is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
