//! The only module that starts git.
//!
//! A git that we start sees an allow-list of our environment and only our configuration (given
//! through variables, so that no secret is on a command line). It runs no hook and never prompts.
//! It is killed with all of its children at its deadline, when it makes no progress, or when its
//! caller is dropped.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gastown_types::{GitUrl, Scheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::error::{Class, GitError, classify, tail};
use crate::{memory, progress};

/// The deadline of a run where none is set and progress does not decide.
const DEADLINE: Duration = Duration::from_secs(600);
/// The deadline of a [patient](Call::patient) run where none is set: CPU time alone may be a loop.
const LONGEST: Duration = Duration::from_secs(6 * 3600);
/// How long a [patient](Call::patient) run may be without progress.
const QUIET: Duration = Duration::from_secs(120);

/// The variables of our own environment that git gets.
const ALLOWED: [&str; 12] = [
    "PATH",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// Configuration that every git gets, in any repository.
const FIXED: [(&str, &str); 24] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.askPass", ""),
    ("core.sshCommand", ""),
    ("core.logAllRefUpdates", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("credential.helper", ""),
    ("credential.interactive", "false"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("push.recurseSubmodules", "no"),
    ("fetch.writeCommitGraph", "false"),
    ("transfer.fsckObjects", "true"),
    // Harmless faults that old tools left in real histories.
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
    ("fetch.fsck.missingSpaceBeforeEmail", "ignore"),
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.fsck.zeroPaddedDate", "ignore"),
    ("protocol.allow", "never"),
    ("protocol.version", "2"),
    ("http.lowSpeedLimit", "100"),
    ("http.lowSpeedTime", "60"),
];

/// The git program, and the limits of each run.
#[derive(Clone, Debug)]
pub struct Git {
    program: PathBuf,
    ssh: PathBuf,
    keys: Option<PathBuf>,
    deadline: Option<Duration>,
    quiet: Duration,
    limit: usize,
    memory: Option<u64>,
}

/// The output of a git that has exited.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit status: success, unless [`Call::any_exit`] is set.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// The end of its error output.
    pub stderr: Vec<u8>,
}

fn find(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable).filter(|p| !p.is_empty()) {
        return PathBuf::from(path);
    }
    let dirs =
        std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    let found = std::env::split_paths(&dirs)
        .filter(|d| d.is_absolute())
        .map(|d| d.join(name))
        .find(|p| p.is_file());
    found.unwrap_or_else(|| Path::new("/usr/bin").join(name))
}

impl Git {
    /// The programs named by `GASTOWN_GIT` and `GASTOWN_SSH`, or else the first `git` and `ssh` on
    /// the `PATH`. A run is limited to 64 MiB of output, and to ten minutes; a
    /// [patient](Call::patient) one to two minutes without progress instead. Copies of credentials are
    /// written in `GASTOWN_KEYS_DIR`, which a pod has in memory; without it, in the folder of temporary
    /// files.
    pub fn from_env() -> Self {
        let keys = std::env::var_os("GASTOWN_KEYS_DIR").filter(|dir| !dir.is_empty());
        Self {
            program: find("git", "GASTOWN_GIT"),
            ssh: find("ssh", "GASTOWN_SSH"),
            keys: keys.map(PathBuf::from),
            deadline: None,
            quiet: QUIET,
            limit: 64 << 20,
            memory: None,
        }
    }

    /// Sets how many bytes of memory for data each process of a run may take; files that are mapped do
    /// not count. What needs more fails, and nothing beside it.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Sets the deadline of each run, of patient ones too.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets how long a patient run may be without progress.
    #[must_use]
    pub fn with_quiet(mut self, quiet: Duration) -> Self {
        self.quiet = quiet;
        self
    }

    /// Sets the folder for copies of credentials.
    #[must_use]
    pub fn with_keys(mut self, folder: impl Into<PathBuf>) -> Self {
        self.keys = Some(folder.into());
        self
    }

    /// The folder for copies of credentials.
    pub(crate) fn keys(&self) -> PathBuf {
        self.keys.clone().unwrap_or_else(std::env::temp_dir)
    }

    pub(crate) fn ssh_program(&self) -> &Path {
        &self.ssh
    }

    /// A run of git with these arguments; it does not start yet.
    pub fn call<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Call {
        Call {
            git: self.clone(),
            args: args.into_iter().map(|a| a.as_ref().to_owned()).collect(),
            repo: None,
            dir: None,
            env: Vec::new(),
            config: Vec::new(),
            stdin: None,
            doing: String::new(),
            any_exit: false,
            patient: false,
        }
    }
}

/// A run of git that has not started yet.
#[derive(Clone, Debug)]
pub struct Call {
    git: Git,
    args: Vec<OsString>,
    repo: Option<PathBuf>,
    dir: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    config: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
    doing: String,
    any_exit: bool,
    patient: bool,
}

impl Call {
    /// Runs in this bare repository (`GIT_DIR`); without one git finds no repository.
    #[must_use]
    pub fn repo(mut self, git_dir: &Path) -> Self {
        self.repo = Some(git_dir.to_owned());
        self
    }

    /// Runs in this working tree (`GIT_WORK_TREE`), whose repository [`Call::repo`] has set before.
    #[must_use]
    pub fn work_tree(mut self, dir: &Path) -> Self {
        self.env.push(("GIT_WORK_TREE".into(), dir.into()));
        self.dir = Some(dir.to_owned());
        self
    }

    /// Adds an environment variable, such as `GIT_ALTERNATE_OBJECT_DIRECTORIES`.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Adds a line of configuration. It overrides the fixed ones and the repository's own.
    #[must_use]
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.push((key.into(), value.into()));
        self
    }

    /// Allows the transport of `url`, and no other.
    #[must_use]
    pub fn allow(self, url: &GitUrl) -> Self {
        let scheme = match url.scheme() {
            Scheme::Ssh => "ssh",
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::File => "file",
        };
        self.config(format!("protocol.{scheme}.allow"), "always")
    }

    /// Sets the standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Some(bytes);
        self
    }

    /// Names what the run is for, for errors (`fetch from git@host:org/repo`).
    #[must_use]
    pub fn doing(mut self, text: impl Into<String>) -> Self {
        self.doing = text.into();
        self
    }

    /// Sets the deadline of this run.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.git.deadline = Some(deadline);
        self
    }

    /// Lets the run go on as long as it makes progress: it writes output (pass `--progress`), or
    /// uses CPU time. A deadline that is set holds beside it.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.patient = true;
        self
    }

    /// Limits the standard output to this many bytes; more is [`Class::TooMuchOutput`].
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.git.limit = bytes;
        self
    }

    /// Returns the output of any exit code, not only of success.
    #[must_use]
    pub fn any_exit(mut self) -> Self {
        self.any_exit = true;
        self
    }

    fn what(&self) -> String {
        if self.doing.is_empty() {
            format!("git {}", self.args.first().map(|a| a.to_string_lossy()).unwrap_or_default())
        } else {
            self.doing.clone()
        }
    }

    fn command(&self) -> Command {
        let mut c = Command::new(&self.git.program);
        c.args(&self.args).env_clear();
        // A variable would override the configured CA.
        let own_ca = self.config.iter().any(|(key, _)| key == "http.sslCAInfo");
        for name in ALLOWED {
            if own_ca && name.starts_with("GIT_SSL_") {
                continue;
            }
            if let Some(value) = std::env::var_os(name) {
                c.env(name, value);
            }
        }
        c.env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_OPTIONAL_LOCKS", "0");
        match &self.repo {
            Some(dir) => c.env("GIT_DIR", dir).current_dir(dir),
            // Never a repository in a parent folder.
            None => c.env("GIT_DIR", "/nonexistent").current_dir(std::env::temp_dir()),
        };
        if let Some(dir) = &self.dir {
            c.current_dir(dir);
        }
        let config: Vec<(&str, &str)> = FIXED
            .iter()
            .copied()
            .chain(self.config.iter().map(|(k, v)| (k.as_str(), v.as_str())))
            .collect();
        c.env("GIT_CONFIG_COUNT", config.len().to_string());
        for (i, (key, value)) in config.iter().enumerate() {
            c.env(format!("GIT_CONFIG_KEY_{i}"), key).env(format!("GIT_CONFIG_VALUE_{i}"), value);
        }
        for (name, value) in &self.env {
            c.env(name, value);
        }
        c.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        c
    }

    pub(crate) fn start(&self) -> Result<Running, GitError> {
        let mut command = self.command();
        let child = command.spawn().map_err(|e| {
            GitError::local(self.what(), format_args!("{}: {e}", self.git.program.display()))
        })?;
        let running = Running { child, ended: false };
        if let (Some(bytes), Some(id)) = (self.git.memory, running.child.id()) {
            memory::limit(id, bytes).map_err(|e| GitError::local(self.what(), e))?;
        }
        Ok(running)
    }

    pub(crate) fn stdin_bytes(&mut self) -> Option<Vec<u8>> {
        self.stdin.take()
    }

    /// Runs git until it exits.
    pub async fn output(mut self) -> Result<Output, GitError> {
        let what = self.what();
        let mut running = self.start()?;
        let input = self.stdin.take();
        let (limit, quiet) = (self.git.limit, self.git.quiet);
        let total = self.git.deadline.unwrap_or(if self.patient { LONGEST } else { DEADLINE });
        let (group, bytes) = (running.child.id(), AtomicU64::new(0));
        let work = async {
            let child = &mut running.child;
            let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
                return Err(GitError::local(&what, "no pipes"));
            };
            let feed = feed(child.stdin.take(), input);
            let ((), stdout, stderr, status) = tokio::join!(
                feed,
                read_all(out, limit, &bytes),
                read_tail(err, &bytes),
                child.wait()
            );
            let status = status.map_err(|e| GitError::local(&what, e))?;
            let stdout = stdout.map_err(|e| GitError::local(&what, e))?;
            let stderr = stderr.map_err(|e| GitError::local(&what, e))?;
            match stdout {
                Some(stdout) => Ok(Output { status, stdout, stderr }),
                None => Err(GitError::new(
                    Class::TooMuchOutput,
                    &what,
                    format!("more than {limit} bytes"),
                )),
            }
        };
        let late = async {
            tokio::time::sleep(total).await;
            format!("{} s", total.as_secs())
        };
        let quiet = async {
            if self.patient {
                progress::stalled(group, quiet, &bytes).await;
            } else {
                std::future::pending::<()>().await;
            }
            format!("no progress for {} s", quiet.as_secs())
        };
        let done = tokio::select! {
            done = work => done,
            why = late => Err(GitError::new(Class::Timeout, &what, why)),
            why = quiet => Err(GitError::new(Class::Timeout, &what, why)),
        };
        let mut output = done?;
        running.ended = true;
        if self.patient {
            output.stderr = progress::without_progress(&output.stderr);
        }
        if self.any_exit || output.status.success() {
            return Ok(output);
        }
        let mut error = failure(&what, &output);
        if let Some(bytes) = self.git.memory.filter(|_| memory::is_exceeded(&error.detail)) {
            error.detail =
                format!("it needs more than {} MiB of memory ({})", bytes >> 20, error.detail);
        }
        Err(error)
    }
}

pub(crate) fn failure(what: &str, output: &Output) -> GitError {
    GitError::new(
        classify(&String::from_utf8_lossy(&output.stderr)),
        what,
        tail(&output.stderr, 600),
    )
}

async fn feed(stdin: Option<tokio::process::ChildStdin>, input: Option<Vec<u8>>) {
    if let (Some(mut pipe), Some(bytes)) = (stdin, input) {
        // A git that exits early closes the pipe; its exit code is the reason.
        let _ = pipe.write_all(&bytes).await;
        let _ = pipe.shutdown().await;
    }
}

/// Everything, or `None` when it is more than `limit` bytes; reads to the end in both cases.
async fn read_all(
    mut from: impl AsyncRead + Unpin,
    limit: usize,
    bytes: &AtomicU64,
) -> std::io::Result<Option<Vec<u8>>> {
    let (mut all, mut chunk, mut over) = (Vec::new(), vec![0u8; 64 << 10], false);
    loop {
        let n = from.read(&mut chunk).await?;
        bytes.fetch_add(n as u64, Ordering::Relaxed);
        if n == 0 {
            return Ok((!over).then_some(all));
        }
        over |= all.len() + n > limit;
        if !over {
            all.extend_from_slice(&chunk[..n]);
        }
    }
}

/// The last 16 KiB; reads to the end.
async fn read_tail(
    mut from: impl AsyncRead + Unpin,
    bytes: &AtomicU64,
) -> std::io::Result<Vec<u8>> {
    const KEEP: usize = 16 << 10;
    let (mut all, mut chunk) = (Vec::new(), vec![0u8; 8 << 10]);
    loop {
        let n = from.read(&mut chunk).await?;
        bytes.fetch_add(n as u64, Ordering::Relaxed);
        if n == 0 {
            return Ok(all);
        }
        all.extend_from_slice(&chunk[..n]);
        if all.len() > KEEP {
            all.drain(..all.len() - KEEP);
        }
    }
}

/// A running git. When it is dropped before its end, it is killed with all of its children (ssh,
/// remote helpers).
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // Its own group, by `process_group(0)`. The group may be gone already.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn git_runs_without_our_environment_and_with_our_configuration() {
        let out =
            Git::from_env().call(["config", "--list", "--show-scope"]).output().await.unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.lines().all(|l| l.starts_with("command")), "{text}");
        assert!(text.contains("core.hookspath=/dev/null"));
        assert!(text.contains("protocol.allow=never"));
    }

    #[tokio::test]
    async fn too_much_output_and_a_passed_deadline_have_classes_of_their_own() {
        let git = Git::from_env();
        let e = git.call(["config", "--list"]).limit(10).output().await.unwrap_err();
        assert_eq!(e.class, Class::TooMuchOutput);
        // Reading a pipe that nobody writes never ends by itself.
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        let call =
            git.call(["config".as_ref(), "--list".as_ref(), "--file".as_ref(), pipe.as_os_str()]);
        let e = call.deadline(Duration::from_millis(50)).output().await.unwrap_err();
        assert_eq!(e.class, Class::Timeout);
    }

    #[tokio::test]
    async fn the_error_for_a_missing_git_names_its_path() {
        let mut git = Git::from_env();
        git.program = PathBuf::from("/nonexistent/git");
        let e = git.call(["version"]).output().await.unwrap_err();
        assert_eq!(e.class, Class::Local);
        assert!(e.to_string().contains("/nonexistent/git"), "{e}");
    }
}
