//! Candidates are built in a process of their own, whose memory and time are limited: what a request
//! contains can end that process, and nothing else.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use gastown_core::train::Built;
use gastown_git::memory::is_exceeded;
use gastown_git::{Class, Git, GitError, Mirror, Objects, Recipe};
use gastown_types::CommitId;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The argument with which this program builds a candidate instead of running the controller.
pub const ARGUMENT: &str = "build-candidate";
/// How many bytes of an answer or of error output are read.
const MAX_OUTPUT: usize = 1 << 20;

/// What a build may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The program that builds: this one.
    pub program: PathBuf,
    /// Bytes of memory for data; files that are read do not count.
    pub memory: u64,
    /// How long it may take.
    pub time: Duration,
}

/// Why there is no candidate.
#[derive(Debug)]
pub enum Failure {
    /// The mirror failed.
    Git(GitError),
    /// The build needs more than it may use; one sentence.
    TooBig(String),
    /// A defect of ours that the content brings out; one sentence.
    Defect(String),
}

/// The order to the building process, on its standard input.
#[derive(Serialize, Deserialize)]
struct Order {
    mirror: PathBuf,
    recipe: Recipe,
    memory: u64,
}

/// Its answer, on its standard output.
#[derive(Serialize, Deserialize)]
enum Answer {
    Candidate(CommitId),
    Landed(CommitId),
    AlreadyInTarget,
    Conflict(String),
    OutOfMemory,
    Corrupt(String, String),
    NotFound(String, String),
    Failed(String, String),
}

/// Builds a candidate in a process of its own.
pub async fn build(limits: &Limits, mirror: &Mirror, recipe: Recipe) -> Result<Built, Failure> {
    let order = Order { mirror: mirror.path().to_owned(), recipe, memory: limits.memory };
    let Ok(output) = tokio::time::timeout(limits.time, run(limits, &order)).await else {
        let why = format!("takes longer than {} s", limits.time.as_secs());
        return Err(Failure::TooBig(too_big(&order.recipe, &why)));
    };
    let output = output.map_err(|e| Failure::Git(local("start a build", &e)))?;
    let memory = || {
        let mebibytes = limits.memory >> 20;
        Failure::TooBig(too_big(
            &order.recipe,
            &format!("needs more than {mebibytes} MiB of memory"),
        ))
    };
    let error = |class, doing, detail| Err(Failure::Git(GitError::new(class, doing, detail)));
    match serde_json::from_slice(&output.stdout) {
        Ok(Answer::Candidate(commit)) => Ok(Built::Candidate(commit)),
        Ok(Answer::Landed(commit)) => Ok(Built::Landed(commit)),
        Ok(Answer::AlreadyInTarget) => Ok(Built::AlreadyInTarget),
        Ok(Answer::Conflict(text)) => Ok(Built::Conflict(text)),
        Ok(Answer::OutOfMemory) => Err(memory()),
        Ok(Answer::Corrupt(doing, detail)) => error(Class::Corrupt, doing, detail),
        Ok(Answer::NotFound(doing, detail)) => error(Class::RefNotFound, doing, detail),
        Ok(Answer::Failed(doing, detail)) => error(Class::Local, doing, detail),
        Err(_) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let killed = output.status.signal() == Some(Signal::KILL.as_raw());
            if killed || is_exceeded(&stderr) {
                return Err(memory());
            }
            let last = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            Err(Failure::Defect(format!(
                "the building process ended with {}: {last}",
                output.status
            )))
        }
    }
}

fn too_big(recipe: &Recipe, why: &str) -> String {
    format!(
        "Building commit {} on the target at {} {why}. Rebase the branch on the target: then nothing \
         has to be merged.",
        recipe.source, recipe.base
    )
}

fn local(doing: &str, error: &std::io::Error) -> GitError {
    GitError::new(Class::Local, doing, error.to_string())
}

/// Kills a process with all that it has started.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

async fn run(limits: &Limits, order: &Order) -> std::io::Result<std::process::Output> {
    // A process that is killed leaves its temporary files; they go with this folder.
    let scratch = tempfile::Builder::new().prefix("gastown-build-").tempdir()?;
    let mut child = Command::new(&limits.program)
        .arg(ARGUMENT)
        .env("TMPDIR", scratch.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    if let Some(mut stdin) = child.stdin.take() {
        let text = serde_json::to_vec(order).map_err(std::io::Error::other)?;
        // One that has ended already is heard below.
        let _ = stdin.write_all(&text).await;
    }
    let output = child.wait_with_output().await?;
    // Its children have ended with it; the number may be another's soon.
    group.0 = None;
    Ok(output)
}

/// The building process: reads an order, and writes the answer.
pub fn main() -> ExitCode {
    let order: Order = match serde_json::from_reader(std::io::stdin().lock()) {
        Ok(order) => order,
        Err(error) => {
            eprintln!("the order of a build cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    let limit = Rlimit { current: Some(order.memory), maximum: Some(order.memory) };
    if let Err(error) = rustix::process::setrlimit(Resource::Data, limit) {
        eprintln!("the memory of a build cannot be limited: {error}");
        return ExitCode::FAILURE;
    }
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let executor = match executor {
        Ok(executor) => executor,
        Err(error) => {
            eprintln!("starting the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // git is started by the runtime and waited for on a thread that may block.
    let built = executor.block_on(async {
        let git = Git::from_env();
        tokio::task::spawn_blocking(move || on_base(&git, &order.mirror, &order.recipe)).await
    });
    let answer = match built {
        Ok(answer) => answer,
        Err(panic) => {
            eprintln!("building a candidate panicked: {panic}");
            return ExitCode::FAILURE;
        }
    };
    match serde_json::to_string(&answer) {
        Ok(text) if text.len() <= MAX_OUTPUT => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

fn on_base(git: &Git, mirror: &Path, recipe: &Recipe) -> Answer {
    match try_on_base(git, mirror, recipe) {
        Ok(answer) => answer,
        Err(error) if is_exceeded(&error.detail) => Answer::OutOfMemory,
        Err(GitError { class, doing, detail, .. }) => match class {
            Class::Corrupt => Answer::Corrupt(doing, detail),
            Class::RefNotFound => Answer::NotFound(doing, detail),
            _ => Answer::Failed(doing, detail),
        },
    }
}

fn try_on_base(git: &Git, mirror: &Path, recipe: &Recipe) -> Result<Answer, GitError> {
    let objects = Objects::open(mirror)?;
    let Recipe { request, base, source, strategy: _, committing } = recipe;
    if objects.is_ancestor(source, base)? {
        return Ok(Answer::Landed(source.clone()));
    }
    let since = objects.merge_base(source, base)?;
    let committer = committing.committer.as_ref();
    if let Some(commit) = objects.contains_trailer(base, since.as_ref(), request, committer)? {
        return Ok(Answer::Landed(commit));
    }
    Ok(match gastown_git::build(git, &objects, recipe)? {
        gastown_git::Built::Candidate(c) => Answer::Candidate(c.commit),
        gastown_git::Built::AlreadyInTarget => Answer::AlreadyInTarget,
        gastown_git::Built::Conflict(c) => {
            let paths: Vec<String> = c.paths.iter().map(|p| format!("  {p}")).collect();
            let head = format!(
                "Commit {} does not apply to the target at {base}. Conflicting paths:",
                c.commit
            );
            Answer::Conflict(format!("{head}\n{}", paths.join("\n")))
        }
    })
}
