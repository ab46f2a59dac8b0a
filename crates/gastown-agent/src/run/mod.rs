//! `gt run`: starts the agent, watches it, saves its work, and reports how it ended.

pub mod adapter;
mod claude_code;
mod claude_events;
mod cpu;
mod generic;
mod input;
mod lines;
mod processes;
pub mod reaper;
mod registry;
mod reporter;
mod session;
mod turn;
mod workspace;

use std::ffi::OsStr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use gastown_core::report::{AgentExit, RunReport, SyncResult, VERSION};
use tokio::time::Instant;

use crate::done::{Done, Exit};
use crate::paths::Paths;
use crate::settings::{Budget, RunSettings};
use crate::socket::{self, Request};
use crate::termination::{self, add_to_message};
use adapter::{Ending, Launch};
use reporter::Reporter;
use session::{Session, Stop};
use workspace::Workspace;

/// Runs the agent to its end and writes the termination message. The exit code is 0 when the task is
/// completed, 3 when we stopped the agent, else 1.
pub async fn run(
    settings: &RunSettings,
    paths: &Paths,
    command: &[String],
) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let mut report = RunReport {
        v: VERSION,
        exit: AgentExit::ImageLacks,
        message: String::new(),
        code: None,
        reset_at: None,
        model: settings.model.clone(),
        usage: gastown_core::report::Usage::default(),
    };
    match prepare(settings, paths, command) {
        Err(ending) => set_ending(&mut report, ending),
        Ok((adapter, launch)) => {
            Done::delete(paths);
            let mut workspace = Workspace::new(paths, &settings.work, &settings.target);
            let mut term =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            let reporter = Reporter::start(paths.socket());
            let mut session = Session::start(adapter, &launch, paths, settings.soft, reporter)?;
            let stop = session.watch(settings, paths, &mut workspace, &mut term, started).await;
            let status = session.end(&stop).await;
            let ending = ending_of(&stop, &session, status, Done::read(paths));
            report.code = status.and_then(|s| s.code());
            report.usage = session.adapter().usage();
            report.model = session.adapter().model().or(report.model);
            set_ending(&mut report, ending);
            if settings.budget != Budget::default() && !session.adapter().reports_usage() {
                let note = "spec.budget had no effect: the agent printed no usage";
                add_to_message(&mut report, note);
            }
            session.finish().await;
            save(&mut workspace, paths, &mut report, settings.grace, &mut term).await;
        }
    }
    tracing::info!(exit = ?report.exit, message = report.message, "the agent has ended");
    let exit = report.exit;
    termination::write(paths, &mut report)?;
    Ok(match exit {
        AgentExit::Completed => ExitCode::SUCCESS,
        AgentExit::Drained | AgentExit::Deadline | AgentExit::BudgetExceeded => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    })
}

fn set_ending(report: &mut RunReport, ending: Ending) {
    report.exit = ending.exit;
    report.message = ending.message;
    report.reset_at = ending.reset_at;
}

fn missing_in_image(what: impl std::fmt::Display) -> Ending {
    // Only the name: the Polecat's condition shows it after the reason, as in `ImageLacks: git`.
    Ending::new(AgentExit::ImageLacks, what.to_string())
}

/// Checks what the image must hold (`docs/agent-image.md`) and creates the agent's home.
fn prepare(
    settings: &RunSettings,
    paths: &Paths,
    command: &[String],
) -> Result<(Box<dyn adapter::Adapter>, Launch), Ending> {
    let path = search_path(paths);
    for tool in ["git", "sh"] {
        find(tool, &path, paths).ok_or_else(|| missing_in_image(tool))?;
    }
    let failed = |message: String| Ending::new(AgentExit::Failed, message);
    let adapter = registry::adapter(&settings.agent)
        .ok_or_else(|| failed(format!("unknown agent {:?}", settings.agent)))?;
    let prompt = prompt(settings)
        .ok_or_else(|| failed(format!("no prompt in {}", settings.prompt_file.display())))?;
    let mut launch = adapter.launch(settings, command, &prompt, &settings.prompt_file);
    if launch.program.is_empty() {
        return Err(failed("the generic agent has no command".into()));
    }
    let program =
        find(&launch.program, &path, paths).ok_or_else(|| missing_in_image(&launch.program))?;
    launch.program = program.display().to_string();
    home(paths).map_err(|e| failed(format!("creating the agent's home: {e}")))?;
    launch.env.push(("PATH".into(), path));
    launch.env.push(("HOME".into(), paths.agent_home().into_os_string()));
    launch.env.push(("GIT_TERMINAL_PROMPT".into(), "0".into()));
    Ok((adapter, launch))
}

/// The program `name`: on the search path, or relative to the clone when it is a path.
fn find(name: &str, path: &OsStr, paths: &Paths) -> Option<PathBuf> {
    which::which_in(name, Some(path), paths.worktree()).ok()
}

/// The text of the prompt's file, else of the task's variable.
fn prompt(settings: &RunSettings) -> Option<Vec<u8>> {
    let file = std::fs::read(&settings.prompt_file).ok();
    let task = || std::env::var("GT_TASK_DESCRIPTION").ok().map(String::into_bytes);
    file.or_else(task).filter(|p| !p.trim_ascii().is_empty())
}

/// The `PATH` of the agent: its own, and then the tools volume.
fn search_path(paths: &Paths) -> std::ffi::OsString {
    let own = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    // The image's own agent goes before our copy; only we have a `gt`.
    let all = std::env::split_paths(&own).chain(std::iter::once(paths.tools_bin()));
    std::env::join_paths(all.collect::<Vec<PathBuf>>()).unwrap_or(own)
}

/// Creates the agent's home, with git's configuration and the agent's credentials.
fn home(paths: &Paths) -> std::io::Result<()> {
    let home = paths.agent_home();
    std::fs::create_dir_all(&home)?;
    let config = home.join(".gitconfig");
    if !config.exists() {
        // Without fixed user ids (OpenShift), another user may own the folders.
        std::fs::write(&config, "[safe]\n\tdirectory = *\n")?;
    }
    let Ok(credentials) = std::fs::read(paths.claude_creds()) else { return Ok(()) };
    let folder = home.join(".claude");
    std::fs::create_dir_all(&folder)?;
    let to = folder.join(".credentials.json");
    let _ = std::fs::remove_file(&to);
    let in_memory = paths.agent_login();
    // A pod of an older polecat-ctl has no volume for it.
    if !in_memory.is_dir() {
        return write_private(&to, &credentials);
    }
    let copy = in_memory.join(".credentials.json");
    let _ = std::fs::remove_file(&copy);
    write_private(&copy, &credentials)?;
    std::os::unix::fs::symlink(copy, to)
}

fn write_private(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, bytes)
}

/// How the agent ended: by our reason to stop it, else by what it reported with `gt done`, else by
/// how its program ended.
fn ending_of(
    stop: &Stop,
    session: &Session,
    status: Option<std::process::ExitStatus>,
    done: Option<Done>,
) -> Ending {
    match stop {
        Stop::Drained(reason) => return Ending::new(AgentExit::Drained, reason.clone()),
        Stop::Deadline => return Ending::new(AgentExit::Deadline, "the deadline was reached"),
        Stop::Budget(what) => return Ending::new(AgentExit::BudgetExceeded, what.clone()),
        Stop::Ended | Stop::Done => {}
    }
    if let Some(done) = done {
        let exit = match done.exit {
            Exit::Completed => AgentExit::Completed,
            Exit::Failed => AgentExit::GaveUp,
        };
        return Ending::new(exit, done.message);
    }
    match status {
        Some(status) => session.adapter().ending(status),
        None => Ending::new(AgentExit::Crashed, "its exit status is not known"),
    }
}

/// How long an answer of the sidecar is waited for before it is asked again.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(10);

/// The part of the grace period in which the sidecar is asked: the rest is its own.
fn margin(grace: Duration) -> Duration {
    grace.saturating_sub(Duration::from_secs(60).min(grace / 2))
}

/// Pushes to the local origin, and asks the sidecar until the remote holds everything. Only the end
/// of the pod (SIGTERM) sets a time for that: until then the pod stays, and so does the work.
async fn save(
    workspace: &mut Workspace,
    paths: &Paths,
    report: &mut RunReport,
    grace: Duration,
    term: &mut tokio::signal::unix::Signal,
) {
    workspace.push().await;
    let socket = paths.socket();
    let mut pause = Duration::from_secs(1);
    let mut end: Option<Instant> = None;
    loop {
        let now = Instant::now();
        let wait = end
            .map_or(ANSWER_TIMEOUT, |end| end.saturating_duration_since(now).min(ANSWER_TIMEOUT));
        let finish = socket::send(&socket, &Request::Finish, wait);
        let answer = tokio::select! {
            answer = finish => answer,
            _ = term.recv() => {
                end = Some(end.unwrap_or(Instant::now() + margin(grace)));
                continue;
            }
        };
        let failure = match answer {
            Ok(a) if a.ok => return,
            // The sidecar restarts.
            Ok(a) if a.reason.is_none_or(|reason| reason == SyncResult::Internal) => a.message,
            Ok(a) => {
                add_to_message(report, &a.message);
                return;
            }
            Err(e) => e.to_string(),
        };
        if end.is_some_and(|end| Instant::now() + pause >= end) {
            add_to_message(report, &failure);
            return;
        }
        tracing::info!(failure, "the work is not saved yet");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = term.recv() => end = Some(end.unwrap_or(Instant::now() + margin(grace))),
        }
        pause = (pause * 2).min(Duration::from_secs(8));
    }
}
