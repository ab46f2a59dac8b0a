//! `gt run`: starts the agent, watches it, saves its work, and says how it ended.

pub mod adapter;
mod claude_code;
mod cpu;
mod generic;
mod input;
pub mod lines;
pub mod reaper;
mod reporter;
mod session;
mod turn;
mod workspace;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use gastown_core::report::{AgentExit, RunReport, SyncResult, VERSION};
use tokio::time::Instant;

use crate::paths::Paths;
use crate::settings::Run;
use crate::socket::{self, Request};
use crate::verdict::{Exit, Verdict};
use crate::{record, which};
use adapter::{Ending, Launch};
use reporter::Reporter;
use session::{Session, Stop};
use workspace::Workspace;

/// Runs the agent to its end; the exit code is the contract's.
pub async fn run(settings: &Run, paths: &Paths, command: &[String]) -> anyhow::Result<ExitCode> {
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
        Err(ending) => note(&mut report, ending),
        Ok((adapter, launch)) => {
            Verdict::forget(paths);
            let mut workspace = Workspace::new(paths, &settings.work, &settings.target);
            let mut term =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            let reporter = Reporter::start(paths.socket());
            let mut session = Session::start(adapter, &launch, paths, settings.soft, reporter)?;
            let stop = session.watch(settings, paths, &mut workspace, &mut term, started).await;
            let status = session.end(&stop).await;
            let ending = judge(&stop, &session, status, Verdict::read(paths));
            report.code = status.and_then(|s| s.code());
            report.usage = session.adapter().usage();
            report.model = session.adapter().model().or(report.model);
            note(&mut report, ending);
            let end = save_until(settings, &stop, started);
            save(&mut workspace, paths, &mut report, end, settings.grace, &mut term).await;
        }
    }
    tracing::info!(exit = ?report.exit, message = report.message, "the agent has ended");
    let exit = report.exit;
    record::write(paths, &mut report)?;
    Ok(match exit {
        AgentExit::Completed => ExitCode::SUCCESS,
        AgentExit::Drained | AgentExit::Deadline | AgentExit::BudgetExceeded => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    })
}

fn note(report: &mut RunReport, ending: Ending) {
    report.exit = ending.exit;
    report.message = ending.message;
    report.reset_at = ending.reset_at;
}

fn lacks(what: impl std::fmt::Display) -> Ending {
    // The word alone: it stands behind the reason, as in `ImageLacks: git`.
    Ending::new(AgentExit::ImageLacks, what.to_string())
}

/// Checks the image contract and lays out the agent's home.
fn prepare(
    settings: &Run,
    paths: &Paths,
    command: &[String],
) -> Result<(Box<dyn adapter::Adapter>, Launch), Ending> {
    let path = search_path(paths);
    for tool in ["git", "sh"] {
        which::find_in(tool, &path).ok_or_else(|| lacks(tool))?;
    }
    let failed = |message: String| Ending::new(AgentExit::Failed, message);
    let adapter = adapter::named(&settings.agent)
        .ok_or_else(|| failed(format!("there is no agent {:?} here", settings.agent)))?;
    let prompt = prompt(settings).ok_or_else(|| {
        failed(format!("there is no prompt at {}", settings.prompt_file.display()))
    })?;
    let mut launch = adapter.launch(settings, command, &prompt, &settings.prompt_file);
    if launch.program.is_empty() {
        return Err(failed("the generic agent was given no command".into()));
    }
    let program = which::find_in(&launch.program, &path).ok_or_else(|| lacks(&launch.program))?;
    launch.program = program.display().to_string();
    home(paths).map_err(|e| failed(format!("the agent's home: {e}")))?;
    launch.env.push(("PATH".into(), path));
    launch.env.push(("HOME".into(), paths.agent_home().into_os_string()));
    launch.env.push(("GIT_TERMINAL_PROMPT".into(), "0".into()));
    Ok((adapter, launch))
}

/// The text of the prompt's file, else the task itself.
pub fn prompt(settings: &Run) -> Option<Vec<u8>> {
    let file = std::fs::read(&settings.prompt_file).ok();
    let task = || std::env::var("GT_TASK_DESCRIPTION").ok().map(String::into_bytes);
    file.or_else(task).filter(|p| !p.trim_ascii().is_empty())
}

fn search_path(paths: &Paths) -> std::ffi::OsString {
    let own = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    // The image's own agent is preferred to our copy; our `gt` has no rival.
    let all = std::env::split_paths(&own).chain(std::iter::once(paths.tools_bin()));
    std::env::join_paths(all.collect::<Vec<PathBuf>>()).unwrap_or(own)
}

fn home(paths: &Paths) -> std::io::Result<()> {
    let home = paths.agent_home();
    std::fs::create_dir_all(&home)?;
    let config = home.join(".gitconfig");
    if !config.exists() {
        // With ids left out (OpenShift), git may find the folders owned by another.
        std::fs::write(&config, "[safe]\n\tdirectory = *\n")?;
    }
    let Ok(credentials) = std::fs::read(paths.claude_creds()) else { return Ok(()) };
    let folder = home.join(".claude");
    std::fs::create_dir_all(&folder)?;
    let to = folder.join(".credentials.json");
    let _ = std::fs::remove_file(&to);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    std::io::Write::write_all(&mut file, &credentials)
}

/// What the end means: our own reason for it first, then the agent's word, then how its program
/// ended.
fn judge(
    stop: &Stop,
    session: &Session,
    status: Option<std::process::ExitStatus>,
    verdict: Option<Verdict>,
) -> Ending {
    match stop {
        Stop::Drained(why) => return Ending::new(AgentExit::Drained, why.clone()),
        Stop::Deadline => return Ending::new(AgentExit::Deadline, "its time was up"),
        Stop::Budget(what) => return Ending::new(AgentExit::BudgetExceeded, what.clone()),
        Stop::Ended | Stop::Done => {}
    }
    if let Some(verdict) = verdict {
        let exit =
            if verdict.exit == Exit::Completed { AgentExit::Completed } else { AgentExit::GaveUp };
        return Ending::new(exit, verdict.message);
    }
    match status {
        Some(status) => session.adapter().ending(status),
        None => Ending::new(AgentExit::Crashed, "nobody knows how it ended"),
    }
}

/// How long saving may be tried.
fn save_until(settings: &Run, stop: &Stop, started: Instant) -> Instant {
    let now = Instant::now();
    let grace = now + margin(settings.grace);
    match (stop, settings.deadline) {
        (Stop::Drained(_), _) | (_, None) => grace,
        // Time is left: a remote that is down may come back. A minute in any case.
        (_, Some(deadline)) => (started + deadline).max(now + Duration::from_secs(60)),
    }
}

/// The grace without what ending takes.
fn margin(grace: Duration) -> Duration {
    grace.saturating_sub(Duration::from_secs(10).min(grace / 4))
}

/// Brings HEAD to the local origin and asks the sidecar until the remote holds it.
async fn save(
    workspace: &mut Workspace,
    paths: &Paths,
    report: &mut RunReport,
    mut end: Instant,
    grace: Duration,
    term: &mut tokio::signal::unix::Signal,
) {
    workspace.push().await;
    let socket = paths.socket();
    let mut pause = Duration::from_secs(1);
    loop {
        let now = Instant::now();
        let asked = socket::ask(&socket, Request::Finish, end.saturating_duration_since(now));
        let answer = tokio::select! {
            answer = asked => answer,
            _ = term.recv() => {
                end = end.min(Instant::now() + margin(grace));
                continue;
            }
        };
        let trouble = match answer {
            Ok(a) if a.ok => return,
            Ok(a)
                if !matches!(
                    a.reason,
                    Some(SyncResult::RemoteUnreachable | SyncResult::Internal)
                ) =>
            {
                add(report, &a.message);
                return;
            }
            Ok(a) => a.message,
            Err(e) => e.to_string(),
        };
        if Instant::now() + pause >= end {
            add(report, &trouble);
            return;
        }
        tracing::info!(trouble, "the work is not saved yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(8));
    }
}

fn add(report: &mut RunReport, text: &str) {
    if !report.message.is_empty() {
        report.message.push_str("; ");
    }
    report.message.push_str(text);
}
