//! `gt`: the program inside a polecat's pod.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use gastown_agent::paths::Paths;
use gastown_agent::settings::{self, Carry};
use gastown_agent::socket::{self, Alarm, Request, Severity};
use gastown_agent::verdict::{Exit, Verdict};
use gastown_agent::{fetch, init, run, sync};

/// Of an alarm's text: as JSON it may grow sixfold, and must fit a line of the socket.
const ALARM_MAX: usize = socket::MAX_LINE / 6 - 100;

#[derive(Parser)]
#[command(name = "gt", version, about = "The program inside a polecat's pod")]
struct Args {
    #[command(subcommand)]
    command: Deed,
}

#[derive(Subcommand)]
enum Deed {
    /// Check credentials and repository, and lay out the workspace
    Init,
    /// Carry the work branch to the remote (the sidecar)
    Sync,
    /// Start the agent and save its work
    Run {
        /// The agent's command, when it is not the preset one
        #[arg(last = true)]
        agent: Vec<String>,
    },
    /// Print the task again
    Prime,
    /// Say that the task is done, or cannot be
    Done {
        /// How it ended
        #[arg(long, value_enum, default_value_t = Exit::Completed)]
        exit: Exit,
        /// What a person should know
        #[arg(long, default_value = "")]
        message: String,
    },
    /// Save the commits and the uncommitted changes now
    Checkpoint,
    /// Tell a person what only a person can help with, and go on
    Escalate {
        /// How much it matters
        #[arg(short, long, value_enum, ignore_case = true, default_value_t)]
        severity: Severity,
        /// What is wrong, in one sentence: the same sentence is the same trouble
        summary: String,
        /// What was tried, and all that helps to judge it
        #[arg(long, default_value = "")]
        details: String,
    },
    /// Take a merge candidate (a gate's init container)
    Fetch,
}

/// Without `HOME`, libraries ask the user database for it, and a statically linked glibc crashes on
/// a user that is not in there. A process cannot set its own variables safely, so it starts itself
/// once more with one.
fn with_home() -> std::io::Result<()> {
    use std::os::unix::process::CommandExt as _;
    if std::env::var_os("HOME").is_some_and(|home| !home.is_empty()) {
        return Ok(());
    }
    let mut again = std::process::Command::new(std::env::current_exe()?);
    Err(again
        .args(std::env::args_os().skip(1))
        .env("HOME", Paths::from_env().private_home())
        .exec())
}

fn main() -> ExitCode {
    // Logs go to stderr: the agent's own stream is the container's stdout.
    let filter = tracing_subscriber::EnvFilter::try_from_env("GASTOWN_LOG")
        .unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Err(e) = with_home() {
        tracing::error!("start again with a HOME: {e}");
        return ExitCode::FAILURE;
    }
    let ended = runtime.map_err(Into::into).and_then(|rt| rt.block_on(deed(Args::parse().command)));
    match ended {
        Ok(code) => code,
        Err(e) => {
            tracing::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn deed(command: Deed) -> anyhow::Result<ExitCode> {
    let paths = Paths::from_env();
    match command {
        Deed::Init => {
            let ready = init::run(&paths).await?;
            Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Deed::Sync => sync::run(Carry::from_env()?, &paths).await.map(|()| ExitCode::SUCCESS),
        Deed::Run { .. } if run::reaper::is_wanted() => run::reaper::run().await,
        Deed::Run { agent } => {
            run::reaper::bind_to_parent()?;
            run::run(&settings::Run::from_env()?, &paths, &agent).await
        }
        Deed::Prime => prime(),
        Deed::Done { exit, message } => {
            Verdict { exit, message }.leave(&paths)?;
            println!("Noted. End your turn now.");
            Ok(ExitCode::SUCCESS)
        }
        Deed::Checkpoint => checkpoint(&paths).await,
        Deed::Escalate { severity, summary, details } => {
            escalate(&paths, Alarm { severity, summary, details }).await
        }
        Deed::Fetch => fetch_candidate(&paths).await,
    }
}

fn prime() -> anyhow::Result<ExitCode> {
    use std::io::Write as _;
    let prompt = std::fs::read(settings::prompt_file())?;
    std::io::stdout().write_all(&prompt)?;
    Ok(ExitCode::SUCCESS)
}

async fn checkpoint(paths: &Paths) -> anyhow::Result<ExitCode> {
    let answer =
        socket::ask(&paths.socket(), Request::Checkpoint, Duration::from_secs(300)).await?;
    if !answer.ok {
        anyhow::bail!("not saved: {}", answer.message);
    }
    let commit =
        answer.commit.map_or_else(|| "no commits yet".to_owned(), |c| format!("commit {c}"));
    let wip = answer.wip.map(|w| format!(", uncommitted changes in {w}")).unwrap_or_default();
    println!("The remote holds {commit}{wip}.");
    Ok(ExitCode::SUCCESS)
}

async fn escalate(paths: &Paths, alarm: Alarm) -> anyhow::Result<ExitCode> {
    if alarm.summary.len() + alarm.details.len() > ALARM_MAX {
        anyhow::bail!(
            "not escalated: summary and details are longer than {ALARM_MAX} bytes together"
        );
    }
    let answer =
        socket::ask(&paths.socket(), Request::Escalate(alarm), Duration::from_secs(30)).await?;
    if !answer.ok {
        anyhow::bail!("not escalated: {}", answer.message);
    }
    println!("{}", answer.message);
    Ok(ExitCode::SUCCESS)
}

async fn fetch_candidate(paths: &Paths) -> anyhow::Result<ExitCode> {
    let order = fetch::Order::from_env()?;
    let mut pause = Duration::from_secs(1);
    for tries_left in (0..6).rev() {
        match fetch::run(paths, &order).await {
            Ok(()) => return Ok(ExitCode::SUCCESS),
            // The endpoint may be changing hands.
            Err(fetch::FetchError::Unreachable(why)) if tries_left > 0 => {
                tracing::warn!(why, "trying again")
            }
            Err(e) => return Err(e.into()),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Ok(ExitCode::FAILURE)
}
