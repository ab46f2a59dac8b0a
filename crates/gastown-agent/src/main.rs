//! `gt`: the program inside a polecat's pod.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use gastown_agent::done::{Done, Exit};
use gastown_agent::fetch::FetchSettings;
use gastown_agent::paths::Paths;
use gastown_agent::settings::{self, RunSettings, SyncSettings};
use gastown_agent::socket::{self, Escalation, Request, Severity};
use gastown_agent::{fetch, init, run, sync};

/// Bytes of an escalation's texts: as JSON they may grow sixfold, and must fit into a line of the
/// socket.
const ESCALATION_MAX: usize = socket::MAX_LINE / 6 - 100;
/// How long a checkpoint may take.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_mins(5);
/// How long the sidecar may take to answer an escalation.
const ESCALATE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Parser)]
#[command(name = "gt", version, about = "The program inside a polecat's pod")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the credentials and the repository, and create the workspace (the init container)
    Init,
    /// Push the work branch to the remote while the agent works (the sidecar)
    Sync,
    /// Run the agent and save its work
    Run {
        /// The agent's command, instead of the preset one
        #[arg(last = true)]
        agent: Vec<String>,
    },
    /// Print the task again
    Prime,
    /// Report that the task is done, or that it cannot be done
    Done {
        /// How the task ended
        #[arg(long, value_enum, default_value_t = Exit::Completed)]
        exit: Exit,
        /// What a person should know
        #[arg(long, default_value = "")]
        message: String,
    },
    /// Save the commits and the uncommitted changes on the remote now
    Checkpoint,
    /// Report a problem that only a person can solve; the agent goes on working
    Escalate {
        /// How urgent the problem is
        #[arg(short, long, value_enum, ignore_case = true, default_value_t)]
        severity: Severity,
        /// The problem, in one sentence; the same sentence counts as the same problem
        summary: String,
        /// What was tried, and everything that helps to judge the problem
        #[arg(long, default_value = "")]
        details: String,
    },
    /// Fail while work of the pod is not on the remote (the sidecar's readiness probe)
    Saved,
    /// Fetch a merge candidate and check it out (a gate's init container)
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
    // Logs go to stderr: the container's stdout is the agent's own stream.
    let filter = tracing_subscriber::EnvFilter::try_from_env("GASTOWN_LOG")
        .unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Err(e) = with_home() {
        tracing::error!("cannot start again with HOME set: {e}");
        return ExitCode::FAILURE;
    }
    let ended =
        runtime.map_err(Into::into).and_then(|rt| rt.block_on(execute(Args::parse().command)));
    match ended {
        Ok(code) => code,
        Err(e) => {
            tracing::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    let paths = Paths::from_env();
    match command {
        Command::Init => {
            let ready = init::run(&paths).await?;
            Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Sync => {
            sync::run(SyncSettings::from_env()?, &paths).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { .. } if run::reaper::is_wanted() => run::reaper::run().await,
        Command::Run { agent } => {
            run::reaper::bind_to_parent()?;
            run::run(&RunSettings::from_env()?, &paths, &agent).await
        }
        Command::Prime => prime(),
        Command::Done { exit, message } => {
            Done { exit, message }.write(&paths)?;
            println!("Noted. End your turn now.");
            Ok(ExitCode::SUCCESS)
        }
        Command::Checkpoint => checkpoint(&paths).await,
        Command::Escalate { severity, summary, details } => {
            escalate(&paths, Escalation { severity, summary, details }).await
        }
        Command::Saved => {
            let unsaved = std::fs::read_to_string(paths.unsaved()).unwrap_or_default();
            if unsaved.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
            println!("{unsaved}");
            Ok(ExitCode::FAILURE)
        }
        Command::Fetch => {
            fetch::run(&paths, &FetchSettings::from_env()?).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn prime() -> anyhow::Result<ExitCode> {
    use std::io::Write as _;
    let prompt = std::fs::read(settings::prompt_file())?;
    std::io::stdout().write_all(&prompt)?;
    Ok(ExitCode::SUCCESS)
}

async fn checkpoint(paths: &Paths) -> anyhow::Result<ExitCode> {
    let answer = socket::send(&paths.socket(), &Request::Checkpoint, CHECKPOINT_TIMEOUT).await?;
    if !answer.ok {
        anyhow::bail!("not saved: {}", answer.message);
    }
    let commit =
        answer.commit.map_or_else(|| "no commits yet".to_owned(), |c| format!("commit {c}"));
    let wip = answer.wip.map(|w| format!(", uncommitted changes in {w}")).unwrap_or_default();
    println!("The remote holds {commit}{wip}.");
    Ok(ExitCode::SUCCESS)
}

async fn escalate(paths: &Paths, escalation: Escalation) -> anyhow::Result<ExitCode> {
    if escalation.summary.len() + escalation.details.len() > ESCALATION_MAX {
        anyhow::bail!(
            "not escalated: summary and details are longer than {ESCALATION_MAX} bytes together"
        );
    }
    let request = Request::Escalate(escalation);
    let answer = socket::send(&paths.socket(), &request, ESCALATE_TIMEOUT).await?;
    if !answer.ok {
        anyhow::bail!("not escalated: {}", answer.message);
    }
    println!("{}", answer.message);
    Ok(ExitCode::SUCCESS)
}
