//! Changes of the gRPC interface that a version which does not know them would not survive.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto,
};

use super::found::Break;

/// The interface that today's programs have.
pub fn today() -> Result<FileDescriptorSet> {
    FileDescriptorSet::decode(gastown_proto::v1::DESCRIPTORS).context("decoding the descriptors")
}

/// Compiles every `.proto` file below a folder.
pub fn compile(folder: &Path) -> Result<FileDescriptorSet> {
    let mut files = Vec::new();
    list(folder, &mut files)?;
    ensure!(!files.is_empty(), "{} has no .proto file", folder.display());
    protox::compile(files, [folder]).with_context(|| format!("compiling {}", folder.display()))
}

fn list(folder: &Path, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    let listed =
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in listed {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

/// What of `old` is not as it was in `new`. More is allowed: messages, fields, values and methods.
pub fn breaks(old: &FileDescriptorSet, new: &FileDescriptorSet) -> Vec<Break> {
    let (old, new) = (Interface::of(old), Interface::of(new));
    let mut found = Vec::new();
    for (name, message) in &old.messages {
        match new.messages.get(name) {
            Some(now) => message_breaks(name, message, now, &mut found),
            None => found.push(Break::new(name, "the message is gone")),
        }
    }
    for (name, values) in &old.enums {
        match new.enums.get(name) {
            Some(now) => enum_breaks(name, values, now, &mut found),
            None => found.push(Break::new(name, "the enum is gone")),
        }
    }
    for (name, method) in &old.methods {
        match new.methods.get(name) {
            Some(now) => method_breaks(name, method, now, &mut found),
            None => found.push(Break::new(name, "the method is gone")),
        }
    }
    found
}

/// Everything of an interface by its full name.
#[derive(Default)]
struct Interface<'a> {
    messages: BTreeMap<String, &'a DescriptorProto>,
    enums: BTreeMap<String, &'a EnumDescriptorProto>,
    methods: BTreeMap<String, &'a MethodDescriptorProto>,
}

impl<'a> Interface<'a> {
    fn of(set: &'a FileDescriptorSet) -> Self {
        let mut all = Self::default();
        for file in &set.file {
            let package = file.package();
            for message in &file.message_type {
                all.add_message(package, message);
            }
            for values in &file.enum_type {
                all.enums.insert(format!("{package}.{}", values.name()), values);
            }
            for service in &file.service {
                for method in &service.method {
                    let name = format!("{package}.{}/{}", service.name(), method.name());
                    all.methods.insert(name, method);
                }
            }
        }
        all
    }

    fn add_message(&mut self, parent: &str, message: &'a DescriptorProto) {
        let name = format!("{parent}.{}", message.name());
        for inner in &message.nested_type {
            self.add_message(&name, inner);
        }
        for values in &message.enum_type {
            self.enums.insert(format!("{name}.{}", values.name()), values);
        }
        self.messages.insert(name, message);
    }
}

fn message_breaks(
    name: &str,
    old: &DescriptorProto,
    new: &DescriptorProto,
    found: &mut Vec<Break>,
) {
    for field in &old.field {
        let at = format!("{name}.{}", field.name());
        let number = field.number();
        let Some(now) = new.field.iter().find(|f| f.number() == number) else {
            found.push(Break::new(&at, format!("field {number} is gone")));
            let is_reserved =
                new.reserved_range.iter().any(|r| (r.start()..r.end()).contains(&number));
            if !is_reserved {
                found.push(Break::new(&at, format!("number {number} is not reserved")));
            }
            continue;
        };
        if now.name() != field.name() {
            let what = format!("field {number} has another name: {}", now.name());
            found.push(Break::new(&at, what));
        }
        let (before, after) = (shape(old, field), shape(new, now));
        if before != after {
            found.push(Break::new(&at, format!("field {number} was {before} and is {after}")));
        }
    }
    for range in &old.reserved_range {
        for number in range.start()..range.end().min(range.start().saturating_add(1000)) {
            if let Some(again) = new.field.iter().find(|f| f.number() == number) {
                let what = format!("number {number} was reserved and is used again");
                found.push(Break::new(format!("{name}.{}", again.name()), what));
            }
        }
    }
}

/// The type of a field, its cardinality, and the choice that it belongs to.
fn shape(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let cardinality = match field.label() {
        Label::Repeated => "repeated ",
        Label::Required => "required ",
        Label::Optional if field.proto3_optional() => "optional ",
        Label::Optional => "",
    };
    let kind = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().to_owned(),
        other => other.as_str_name().trim_start_matches("TYPE_").to_ascii_lowercase(),
    };
    let choice = field.oneof_index.filter(|_| !field.proto3_optional()).and_then(|index| {
        let choice = message.oneof_decl.get(usize::try_from(index).ok()?)?;
        Some(format!(" of {}", choice.name()))
    });
    format!("{cardinality}{kind}{}", choice.unwrap_or_default())
}

fn enum_breaks(
    name: &str,
    old: &EnumDescriptorProto,
    new: &EnumDescriptorProto,
    found: &mut Vec<Break>,
) {
    for value in &old.value {
        let at = format!("{name}.{}", value.name());
        let now = new.value.iter().find(|v| v.number() == value.number());
        match now {
            None => found.push(Break::new(at, format!("value {} is gone", value.number()))),
            Some(now) if now.name() != value.name() => {
                let what = format!("value {} has another name: {}", value.number(), now.name());
                found.push(Break::new(at, what));
            }
            Some(_) => {}
        }
    }
}

fn method_breaks(
    name: &str,
    old: &MethodDescriptorProto,
    new: &MethodDescriptorProto,
    found: &mut Vec<Break>,
) {
    let shape = |method: &MethodDescriptorProto| {
        let stream = |is: bool| if is { "stream " } else { "" };
        format!(
            "{}{} -> {}{}",
            stream(method.client_streaming()),
            method.input_type(),
            stream(method.server_streaming()),
            method.output_type()
        )
    };
    let (before, after) = (shape(old), shape(new));
    if before != after {
        found.push(Break::new(name, format!("the method was {before} and is {after}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
        syntax = "proto3";
        package t;
        message Ask { string name = 1; int32 count = 2; repeated string tags = 3; reserved 9; oneof how { bool fast = 5; bool slow = 6; } }
        message Answer { State state = 1; }
        enum State { NONE = 0; DONE = 1; }
        service Queue { rpc Get(Ask) returns (Answer); rpc Watch(Ask) returns (stream Answer); }
    "#;

    fn compiled(text: &str) -> FileDescriptorSet {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("t.proto"), text).unwrap();
        compile(dir.path()).unwrap()
    }

    /// The breaks after each `from` in [`BEFORE`] became `to`.
    fn after(changes: &[(&str, &str)]) -> Vec<String> {
        let mut text = BEFORE.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        breaks(&compiled(BEFORE), &compiled(&text)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_added_breaks_nothing() {
        let none = Vec::<String>::new();
        assert_eq!(after(&[]), none);
        assert_eq!(after(&[("reserved 9;", "reserved 9; optional bytes more = 10;")]), none);
        assert_eq!(after(&[("DONE = 1;", "DONE = 1; FAILED = 2;")]), none);
        assert_eq!(
            after(&[("service Queue {", "service Queue { rpc Put(Ask) returns (Ask);")]),
            none
        );
        assert_eq!(after(&[("message Answer", "message More {} message Answer")]), none);
    }

    #[test]
    fn each_kind_of_break_is_found() {
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[("int32 count = 2;", "")], "t.Ask.count: field 2 is gone"),
            (&[("int32 count = 2;", "")], "t.Ask.count: number 2 is not reserved"),
            (&[("count = 2", "count = 4")], "t.Ask.count: field 2 is gone"),
            (&[("int32 count", "int64 count")], "t.Ask.count: field 2 was int32 and is int64"),
            (&[("string name", "bytes name")], "t.Ask.name: field 1 was string and is bytes"),
            (
                &[("repeated string tags", "string tags")],
                "t.Ask.tags: field 3 was repeated string and is string",
            ),
            (
                &[("int32 count", "optional int32 count")],
                "t.Ask.count: field 2 was int32 and is optional int32",
            ),
            (&[("int32 count", "int32 number")], "t.Ask.count: field 2 has another name: number"),
            (
                &[("bool slow = 6; }", "} bool slow = 6;")],
                "t.Ask.slow: field 6 was bool of how and is bool",
            ),
            (
                &[("reserved 9;", "string old = 9;")],
                "t.Ask.old: number 9 was reserved and is used again",
            ),
            (&[(" DONE = 1;", "")], "t.State.DONE: value 1 is gone"),
            (&[("DONE = 1", "ENDED = 1")], "t.State.DONE: value 1 has another name: ENDED"),
            (&[("rpc Get(Ask) returns (Answer);", "")], "t.Queue/Get: the method is gone"),
            (&[("service Queue", "service Line")], "t.Queue/Watch: the method is gone"),
            (
                &[("(stream Answer)", "(Answer)")],
                "t.Queue/Watch: the method was .t.Ask -> stream .t.Answer and is .t.Ask -> .t.Answer",
            ),
            (
                &[("Get(Ask)", "Get(Answer)")],
                "t.Queue/Get: the method was .t.Ask -> .t.Answer and is .t.Answer -> .t.Answer",
            ),
            (&[("Answer", "Reply")], "t.Answer: the message is gone"),
            (
                &[("enum State", "enum Phase"), ("State state", "Phase state")],
                "t.State: the enum is gone",
            ),
        ];
        for (changes, wanted) in table {
            let found = after(changes);
            assert!(found.iter().any(|f| f == wanted), "{changes:?}: {found:?}");
        }
    }

    #[test]
    fn a_removed_field_is_reserved_at_least() {
        let found = after(&[("int32 count = 2;", "reserved 2;")]);
        assert_eq!(found, ["t.Ask.count: field 2 is gone"]);
    }
}
