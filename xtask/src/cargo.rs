//! Running cargo so that it is never silent for long.
//!
//! Cargo draws a progress bar for terminals only; here it is asked for it always, and each fifteen
//! seconds a line is printed of what it shows. Warnings and errors pass through.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How often a line is printed while cargo compiles.
const INTERVAL: Duration = Duration::from_secs(15);

/// Lines of cargo that add nothing to the progress.
const ROUTINE: [&str; 9] = [
    "Compiling",
    "Checking",
    "Finished",
    "Fresh",
    "Downloading",
    "Downloaded",
    "Updating",
    "Locking",
    "Running",
];

/// The cargo that runs us, so that a toolchain override holds for what we start too.
pub fn command() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::root());
    cargo
}

/// Compiles with `cargo`, to which its subcommand and selection were added, and returns the
/// executables by name. `label` stands before each line that is printed.
pub fn compile(mut cargo: Command, label: &str) -> Result<BTreeMap<String, PathBuf>> {
    cargo
        .arg("--message-format=json-render-diagnostics")
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "160")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if std::io::stderr().is_terminal() {
        cargo.env("CARGO_TERM_COLOR", "always");
    }
    let shown = format!("{cargo:?}");
    let mut child = cargo.spawn().with_context(|| format!("starting {shown}"))?;
    let messages = BufReader::new(child.stdout.take().context("cargo has no output")?);
    let built = std::thread::spawn(move || {
        messages.lines().map_while(Result::ok).filter_map(|line| executable(&line)).collect()
    });
    report(child.stderr.take().context("cargo has no standard error")?, label);
    let status = child.wait()?;
    let built = built.join().ok().context("reading what cargo built")?;
    if !status.success() {
        bail!("{label}: cargo ended with {status}");
    }
    Ok(built)
}

/// The name and the path of an executable that cargo built or found built.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    Some((message["target"]["name"].as_str()?.to_owned(), message["executable"].as_str()?.into()))
}

/// Prints the progress and what else cargo writes, until it closes its output.
fn report(output: impl Read + Send + 'static, label: &str) {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        // The progress is drawn over itself: its lines end with a carriage return alone.
        while let Some(end) = read_line(&mut output, &mut line) {
            let text = String::from_utf8_lossy(&line).into_owned();
            if sender.send((text, end)).is_err() {
                return;
            }
        }
    });
    let started = Instant::now();
    let (mut progress, mut printed) = (None, Instant::now());
    loop {
        match lines.recv_timeout(INTERVAL.saturating_sub(printed.elapsed())) {
            Ok((line, end)) => {
                if let Some(at) = parse(&line) {
                    progress = Some(at);
                } else if end == b'\n' && !is_routine(&line) {
                    eprintln!("{line}");
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                printed = Instant::now();
                let seconds = started.elapsed().as_secs();
                let state = progress.as_ref().map_or_else(
                    || "waiting for cargo to resolve and fetch the crates".to_owned(),
                    |at: &Progress| at.to_string(),
                );
                eprintln!("{label}: {state} after {} min {:02} s", seconds / 60, seconds % 60);
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Reads up to the next end of a line, `\r` or `\n`, and returns which it was.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> Option<u8> {
    line.clear();
    loop {
        let buffer = input.fill_buf().ok()?;
        if buffer.is_empty() {
            return (!line.is_empty()).then_some(b'\n');
        }
        let end = buffer.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        line.extend_from_slice(&buffer[..end.unwrap_or(buffer.len())]);
        let (used, found) = end.map_or((buffer.len(), None), |at| (at + 1, Some(buffer[at])));
        input.consume(used);
        if found.is_some() {
            return found;
        }
    }
}

/// What cargo's progress bar shows.
#[derive(Debug, PartialEq, Eq)]
struct Progress {
    done: u32,
    all: u32,
    /// The crates that are being compiled.
    now: String,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "compiled {} of {} crates", self.done, self.all)?;
        if self.now.is_empty() { Ok(()) } else { write!(f, " (now {})", self.now) }
    }
}

/// Reads a line such as `Building [====>   ] 214/640: k8s-openapi, aws-lc-sys(build)`.
fn parse(line: &str) -> Option<Progress> {
    let (_, rest) = line.split_once("] ")?;
    let (counts, now) = rest.split_once(':').unwrap_or((rest, ""));
    let (done, all) = counts.trim().split_once('/')?;
    let (done, all) = (done.parse().ok()?, all.trim().parse().ok()?);
    // What follows clears the rest of a terminal's line.
    let now = now.split('\u{1b}').next().unwrap_or_default().trim().to_owned();
    Some(Progress { done, all, now })
}

/// Whether a line is one of [`ROUTINE`].
fn is_routine(line: &str) -> bool {
    let plain = without_colours(line);
    let plain = plain.trim_start();
    plain.is_empty() || ROUTINE.iter().any(|word| plain.starts_with(word))
}

/// The text without the escape sequences of colours.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    let is_end = |c: char| c.is_ascii_alphabetic();
    parts.fold(first, |text, part| text + part.split_once(is_end).map_or("", |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_is_read_from_the_bar() {
        let plain = "    Building [=====>        ] 214/640: k8s-openapi, aws-lc-sys(build)";
        let coloured = "\u{1b}[1m\u{1b}[96m    Building\u{1b}[0m [==>  ] 1/2: a\u{1b}[K";
        let at = parse(plain).unwrap();
        assert_eq!(
            at.to_string(),
            "compiled 214 of 640 crates (now k8s-openapi, aws-lc-sys(build))"
        );
        assert_eq!(parse(coloured), Some(Progress { done: 1, all: 2, now: "a".to_owned() }));
        assert_eq!(parse("error[E0308]: mismatched types"), None);
    }

    #[test]
    fn errors_pass_and_routine_does_not() {
        assert!(is_routine("   Compiling serde v1.0.0"));
        assert!(is_routine("\u{1b}[1m\u{1b}[92m    Finished\u{1b}[0m `dev` profile"));
        assert!(!is_routine("warning: unused variable"));
        assert!(!is_routine("\u{1b}[1m\u{1b}[91merror\u{1b}[0m: no such command"));
    }

    #[test]
    fn lines_end_with_either_end() {
        let mut input = BufReader::with_capacity(3, "one\rtwo\nthree".as_bytes());
        let (mut line, mut read) = (Vec::new(), Vec::new());
        while let Some(end) = read_line(&mut input, &mut line) {
            read.push((String::from_utf8_lossy(&line).into_owned(), end));
        }
        let expected = [("one", b'\r'), ("two", b'\n'), ("three", b'\n')];
        assert_eq!(read, expected.map(|(text, end)| (text.to_owned(), end)));
    }

    #[test]
    fn executables_are_read_from_messages() {
        let message =
            r#"{"reason":"compiler-artifact","target":{"name":"gt"},"executable":"/t/gt"}"#;
        assert_eq!(executable(message), Some(("gt".to_owned(), "/t/gt".into())));
        let library = r#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable("noise"), None);
    }
}
