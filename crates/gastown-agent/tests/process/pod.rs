//! A pod's folders and containers, as plain processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gastown_core::report::{self, InitReport, RunReport, SyncReport};
use tempfile::TempDir;

/// Far longer than anything here takes.
pub const TIMEOUT: Duration = Duration::from_secs(90);

/// Waits until the condition is met.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < end, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs git with an identity and without this machine's configuration, and returns its output.
pub fn git(dir: &Path, args: &[&str]) -> String {
    let out = git_command(dir, args).output().unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// Whether git succeeds.
pub fn git_ok(dir: &Path, args: &[&str]) -> bool {
    git_command(dir, args).stderr(Stdio::null()).status().unwrap().success()
}

fn git_command(dir: &Path, args: &[&str]) -> Command {
    let mut c = Command::new("git");
    c.arg("-C")
        .arg(dir)
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        c.env(format!("GIT_{who}_NAME"), "T").env(format!("GIT_{who}_EMAIL"), "t@example.org");
    }
    c
}

/// A bare repository with one commit on `main`.
pub struct Origin {
    dir: TempDir,
}

impl Origin {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("gt-origin-").tempdir().unwrap();
        git(dir.path(), &["init", "-q", "--bare", "--initial-branch=main", "r.git"]);
        let origin = Self { dir };
        let seed = origin.clone_at("seed");
        fs::write(seed.join("README"), "hello\n").unwrap();
        fs::write(seed.join(".gitignore"), "*.log\nbuild/\n").unwrap();
        git(&seed, &["add", "-A"]);
        git(&seed, &["commit", "-q", "-m", "first"]);
        git(&seed, &["push", "-q", "origin", "HEAD:main"]);
        origin
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("r.git")
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// A clone of another writer.
    pub fn clone_at(&self, name: &str) -> PathBuf {
        let at = self.dir.path().join(name);
        git(self.dir.path(), &["clone", "-q", "r.git", name]);
        at
    }

    /// The commit of a ref.
    pub fn at(&self, name: &str) -> Option<String> {
        let out = git_command(&self.path(), &["rev-parse", "--verify", "--quiet", name])
            .output()
            .unwrap();
        out.status.success().then(|| String::from_utf8(out.stdout).unwrap().trim().to_owned())
    }

    /// All its refs but the fence, which every attempt moves.
    pub fn refs(&self) -> Vec<String> {
        git(&self.path(), &["for-each-ref", "--format=%(refname)"])
            .lines()
            .filter(|name| !name.ends_with("/fence"))
            .map(str::to_owned)
            .collect()
    }

    /// Has another writer push a commit on top of `main` to the branch; returns the commit.
    pub fn another_writer(&self, branch: &str) -> String {
        let name = format!("writer-{}", branch.replace('/', "-"));
        let clone = self.clone_at(&name);
        fs::write(clone.join("other"), "theirs\n").unwrap();
        git(&clone, &["add", "-A"]);
        git(&clone, &["commit", "-q", "-m", "theirs"]);
        git(&clone, &["push", "-q", "--force", "origin", &format!("HEAD:refs/heads/{branch}")]);
        git(&clone, &["rev-parse", "HEAD"])
    }
}

/// A running container.
pub struct Running {
    pub child: Child,
    log: PathBuf,
}

impl Running {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        until("the container ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    pub fn termination_message<T: serde::de::DeserializeOwned + report::Versioned>(&self) -> T {
        let text = fs::read_to_string(&self.log).unwrap();
        report::parse(&text).unwrap_or_else(|| panic!("not a termination message: {text:?}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One polecat's pod.
pub struct Pod {
    pub dir: TempDir,
    pub env: BTreeMap<String, String>,
}

pub const WIP: &str = "refs/gastown/wip/work/toast/1";

impl Pod {
    pub fn new(url: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("gt-").tempdir().unwrap();
        for folder in [
            "gastown/run",
            "gastown/pod",
            "gastown/prompt",
            "git-creds",
            "ssh-known-hosts",
            "workspace",
            "home/nonroot",
            "logs",
        ] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("gastown/pod/drain"), "").unwrap();
        fs::write(dir.path().join("gastown/prompt/prompt.md"), "Do the task.\n").unwrap();
        let mut pod = Self { env: BTreeMap::new(), dir };
        let root = pod.dir.path().display().to_string();
        for (name, value) in [
            ("GASTOWN_ROOT", root.as_str()),
            ("GASTOWN_REPOSITORY", url),
            ("GASTOWN_TARGET_BRANCH", "main"),
            ("GASTOWN_WORK_BRANCH", "polecat/toast"),
            ("GASTOWN_NAMESPACE", "work"),
            ("GASTOWN_ATTEMPT", "1"),
            ("GT_POLECAT", "toast"),
            ("GT_RIG", "rig"),
            ("GASTOWN_GRACE_SECONDS", "60"),
            ("GASTOWN_SNAPSHOT_SECONDS", "3600"),
            ("GASTOWN_AGENT", "generic"),
        ] {
            pod.set(name, value);
        }
        pod.set("GASTOWN_PROMPT_FILE", &format!("{root}/gastown/prompt/prompt.md"));
        pod
    }

    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Puts a file below the pod's root.
    pub fn put(&self, path: &str, text: &str) -> &Self {
        let at = self.path(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, text).unwrap();
        self
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn repo(&self) -> PathBuf {
        self.path("workspace/repo")
    }

    pub fn start(&self, name: &str, args: &[&str]) -> Running {
        let log = self.path(&format!("logs/{name}.json"));
        let _ = fs::remove_file(&log);
        let mut c = Command::new(env!("CARGO_BIN_EXE_gt"));
        c.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).envs(&self.env);
        c.env("GASTOWN_TERMINATION_LOG", &log).env("GASTOWN_LOG", "debug").stdin(Stdio::null());
        c.stdout(fs::File::create(self.path(&format!("logs/{name}.out"))).unwrap());
        c.stderr(fs::File::create(self.path(&format!("logs/{name}.log"))).unwrap());
        Running { child: c.spawn().unwrap(), log }
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("logs/{name}.log"))).unwrap_or_default()
    }

    pub fn init(&self) -> InitReport {
        let mut c = self.start("init", &["init"]);
        let code = c.wait();
        let report: InitReport = c.termination_message();
        assert_eq!(code, Some(i32::from(report.result != report::InitResult::Ready)), "{report:?}");
        report
    }

    pub fn ready(&self) -> InitReport {
        let report = self.init();
        assert_eq!(report.result, report::InitResult::Ready, "{report:?}\n{}", self.log("init"));
        report
    }

    pub fn sync(&self) -> Running {
        let sync = self.start("sync", &["sync"]);
        until("the socket is there", || self.path("gastown/run/sync.sock").exists());
        sync
    }

    /// Sends SIGTERM, as the kubelet does after the agent's container ended; returns the push record.
    pub fn end_sync(&self, sync: Running) -> SyncReport {
        sync.signal(rustix::process::Signal::TERM);
        self.end_sync_started(sync)
    }

    /// The push record of a sidecar that got SIGTERM.
    pub fn end_sync_started(&self, mut sync: Running) -> SyncReport {
        assert_eq!(sync.wait(), Some(0), "{}", self.log("sync"));
        sync.termination_message()
    }

    /// Starts `gt run` with this shell script as its agent.
    pub fn agent(&self, script: &str) -> Running {
        self.put("agent.sh", script);
        self.start("run", &["run", "--", "sh", self.path("agent.sh").to_str().unwrap()])
    }

    /// Waits for `gt run` to end.
    pub fn end_run(mut run: Running) -> (Option<i32>, RunReport) {
        let code = run.wait();
        (code, run.termination_message())
    }

    /// Compares a termination message with the golden file. What differs from run to run is replaced:
    /// commits and digests by their order, folders, and git's own messages. `GASTOWN_GOLDEN=write` writes the
    /// golden file.
    pub fn golden<T: serde::Serialize>(&self, name: &str, message: &T) {
        let mut text = serde_json::to_string_pretty(message).unwrap();
        let mut commits: Vec<String> = Vec::new();
        let is_id = |w: &&str| matches!(w.len(), 40 | 64);
        for commit in text.split(|c: char| !c.is_ascii_hexdigit()).filter(is_id) {
            if !commits.iter().any(|c| c == commit) {
                commits.push(commit.to_owned());
            }
        }
        for (i, commit) in commits.iter().enumerate() {
            text = text.replace(
                commit,
                &char::from_digit(i as u32 + 1, 16).unwrap().to_string().repeat(commit.len()),
            );
        }
        let url = self.env["GASTOWN_REPOSITORY"].clone();
        text = text
            .replace(&url, "ssh://git@forge/r.git")
            .replace(&self.dir.path().display().to_string(), "/pod");
        let lines: Vec<String> = text.lines().map(without_details).collect();
        text = lines.join("\n");
        let short: Vec<&str> =
            text.split(|c: char| !c.is_ascii_hexdigit()).filter(|w| w.len() == 12).collect();
        for id in short.iter().map(ToString::to_string).collect::<Vec<_>>() {
            text = text.replace(&id, &"1".repeat(12));
        }
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.json"));
        if std::env::var("GASTOWN_GOLDEN").is_ok_and(|v| v == "write") {
            fs::write(&file, format!("{text}\n")).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            golden.trim(),
            text,
            "{} (GASTOWN_GOLDEN=write writes the new one)",
            file.display()
        );
    }

    /// Runs `gt checkpoint`; whether it succeeded.
    pub fn checkpoint(&self) -> bool {
        self.start("checkpoint", &["checkpoint"]).wait() == Some(0)
    }
}

/// A line of a record; of a sentence without what git and ssh wrote, which is in brackets.
fn without_details(line: &str) -> String {
    let is_message =
        ["\"message\"", "\"saving\""].iter().any(|key| line.trim_start().starts_with(key));
    if let Some((before, rest)) = line.split_once(" (").filter(|_| is_message)
        && let Some((_, after)) = rest.rsplit_once(')')
    {
        return format!("{before}{after}");
    }
    line.to_owned()
}
