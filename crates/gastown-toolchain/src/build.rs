//! Building one part with Go.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::parts::Part;
use crate::{cache, host, timings};

/// How often a build prints a line while it runs; also while Go links, which prints nothing.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

/// Builds a part into its folder unless it is there. One process at a time builds it.
pub fn ensure(part: &Part, folder: &Path) -> Result<()> {
    if part.is_in(folder) {
        return Ok(());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let _lock = cache::lock(&folder.join("lock"))?;
    // Checked again under the lock: another process may have built it while this one waited.
    if part.is_in(folder) {
        return Ok(());
    }
    host::need_go()?;
    let started = Instant::now();
    eprintln!(
        "toolchain: building {} (kept in {}; takes about {})",
        part.name,
        folder.display(),
        timings::shown(timings::last(&part.timing()).unwrap_or(part.expected))
    );
    build(part, folder)?;
    timings::record(&part.timing(), started.elapsed());
    eprintln!("toolchain: built {} in {}", part.name, timings::shown(started.elapsed()));
    Ok(())
}

/// Builds a part in a folder of its own and renames its binaries into place one by one.
fn build(part: &Part, folder: &Path) -> Result<()> {
    // The lock is ours, so what is there was left by a process that was killed.
    let module = folder.join("build");
    if module.exists() {
        std::fs::remove_dir_all(&module)
            .with_context(|| format!("removing {}", module.display()))?;
    }
    let out = module.join("bin");
    std::fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    for (name, text) in part.files() {
        std::fs::write(module.join(name), text).with_context(|| format!("writing {name}"))?;
    }
    let mut go = Command::new("go");
    go.args(arguments(part, &out)).args(part.packages()).current_dir(&module);
    // Flags and a workspace of the user's own must not change what is built.
    go.env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOFLAGS", "-mod=readonly");
    run_with_progress(go, part.name)?;
    for (built, wanted) in part.binaries() {
        let from = out.join(built);
        std::fs::rename(&from, folder.join(wanted))
            .with_context(|| format!("go build wrote no {}", from.display()))?;
    }
    std::fs::remove_dir_all(&module).with_context(|| format!("removing {}", module.display()))
}

/// Runs `go build -v`, which prints the name of each package that it compiles: their count shows
/// that it is making progress.
fn run_with_progress(mut go: Command, name: &str) -> Result<()> {
    let started = Instant::now();
    let mut child = go
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting go")?;
    let output = BufReader::new(child.stderr.take().context("go has no standard error")?);
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let (mut last, mut count, mut printed) = (VecDeque::new(), 0_u32, Instant::now());
    loop {
        match lines.recv_timeout(PROGRESS_INTERVAL.saturating_sub(printed.elapsed())) {
            Ok(line) => {
                count += 1;
                last.push_back(line);
                if last.len() > 30 {
                    last.pop_front();
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                printed = Instant::now();
                eprintln!(
                    "toolchain: {name}: {count} packages compiled after {}",
                    timings::shown(started.elapsed())
                );
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("building {name} failed ({status}):\n{}", Vec::from(last).join("\n"));
    }
    Ok(())
}

fn arguments(part: &Part, out: &Path) -> Vec<OsString> {
    let ldflags = format!("-s -w {}", part.ldflags);
    let fixed = ["build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", ldflags.trim_end()];
    let mut arguments: Vec<OsString> = fixed.iter().map(Into::into).collect();
    if !part.tags.is_empty() {
        arguments.extend(["-tags".into(), part.tags.into()]);
    }
    // The slash at the end makes `go build` put a single package into the folder instead of giving
    // the program its name.
    let mut folder = out.as_os_str().to_owned();
    folder.push("/");
    arguments.extend(["-o".into(), folder]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::{CONTAINERD, CONTROL_PLANE, ETCD};

    fn text(part: &Part) -> Vec<String> {
        let arguments = arguments(part, Path::new("/x/bin"));
        arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn one_package_is_built_into_a_folder_with_its_flags() {
        let fixed = ["build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w"];
        assert_eq!(text(&ETCD), [&fixed[..], &["-o", "/x/bin/"]].concat());
        assert_eq!(text(&CONTAINERD)[6], "-tags");
    }

    #[test]
    fn kubernetes_reports_its_version() {
        let arguments = text(&CONTROL_PLANE);
        assert!(
            arguments.iter().any(|a| a.ends_with("version.gitVersion=v1.36.3")),
            "{arguments:?}"
        );
    }
}
