//! Whatever an agent does to its repositories, however it ends, and whatever the remote does
//! meanwhile: every commit and every file is reachable from the remote's refs before the pod may end.
//!
//! Every pair of values of the three lists is run by default. All combinations are run with
//! `GASTOWN_MATRIX=all` (`cargo xtask test process --all`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use gastown_core::report::SyncReport;
use gastown_fakes::sshd::Sshd;

use crate::pod::{Origin, Pod, Running, git, git_ok, until};

/// What the agent does. The commits and files that are there at its end are looked for on the remote.
const HABITS: [(&str, &str); 14] = [
    ("work branch", "c one"),
    ("worktree", "git worktree add -q ../wt -b side; cd ../wt; c one; d; cd ../repo"),
    ("side branch", "git switch -q -c side; c one"),
    ("two branches", "git switch -q -c a; c one; git switch -q -c b origin/main; c two"),
    ("stash", "d; git stash -q -u; d"),
    ("detached HEAD", "git checkout -q --detach; c one; c two"),
    (
        "second clone",
        "git clone -q ../origin.git ../second; cd ../second; who; c one; d; cd ../repo",
    ),
    ("reset --hard", "c one; c two; git reset -q --hard HEAD~1"),
    ("rebase", "c one; c two; git rebase -q --onto HEAD~1~1 HEAD~1"),
    ("amend", "c one; git commit -q --amend -m again"),
    ("nested repository", "git init -q ../nested; cd ../nested; who; c one; d; cd ../repo"),
    ("dirty tree", "echo changed >> README; rm .gitignore"),
    ("untracked", "d; mkdir deep; echo x > deep/file; chmod +x deep/file"),
    (".git deleted", "c one; git push -q origin HEAD; d; rm -rf .git"),
];

/// How the attempt ends.
const ENDS: [&str; 6] = ["exit 0", "exit 1", "kill -9", "drain", "deadline", "SIGTERM"];

/// What the remote does.
const REMOTES: [&str; 6] =
    ["well", "down then up", "401 then renewed", "Secret gone", "host key changed", "hook refuses"];

const FUNCTIONS: &str = r#"
n=0
c() { n=$((n+1)); echo "$1" > "file-$1"; git add "file-$1"; git commit -q -m "$1"; }
d() { echo "not committed" > "dirty-$$"; }
who() { git config user.name A; git config user.email a@example.org; }
"#;

type Case = (usize, usize, usize);

/// All combinations, or a set in which each pair of values occurs.
fn cases() -> Vec<Case> {
    let all = || {
        (0..HABITS.len()).flat_map(|habit| {
            (0..ENDS.len()).flat_map(move |end| (0..REMOTES.len()).map(move |r| (habit, end, r)))
        })
    };
    if std::env::var("GASTOWN_MATRIX").is_ok_and(|v| v == "all") {
        return all().collect();
    }
    let pairs =
        |(habit, end, remote): Case| [(0, habit, end), (1, habit, remote), (2, end, remote)];
    let mut missing: BTreeSet<_> = all().flat_map(pairs).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain = |case: &Case| pairs(*case).iter().filter(|p| missing.contains(*p)).count();
        let Some(best) = all().max_by_key(gain) else { break };
        for pair in pairs(best) {
            missing.remove(&pair);
        }
        chosen.push(best);
    }
    chosen
}

/// Everything that is there before the end: the commits of every repository below the workspace, by
/// what names them, and the files that are not ignored.
struct Held {
    commits: BTreeSet<String>,
    files: BTreeMap<String, Vec<u8>>,
}

fn held(pod: &Pod) -> Held {
    let mut held = Held { commits: BTreeSet::new(), files: BTreeMap::new() };
    for (repository, in_repository) in
        [("repo", true), ("wt", true), ("second", true), ("nested", true)]
    {
        let at = pod.path(&format!("workspace/{repository}"));
        if !at.exists() {
            continue;
        }
        if in_repository && at.join(".git").exists() {
            for args in [vec!["rev-list", "--all", "--reflog"], vec!["rev-list", "HEAD"]] {
                if git_ok(&at, &args) {
                    held.commits.extend(git(&at, &args).lines().map(str::to_owned));
                }
            }
        }
        files(&at, &at, &mut held.files);
    }
    let origin = pod.path("workspace/origin.git");
    held.commits.extend(git(&origin, &["rev-list", "--all"]).lines().map(str::to_owned));
    held
}

fn files(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == ".git" || name == "go" || name == "ready") {
            continue;
        }
        if path.is_dir() {
            files(root, &path, found);
        } else if let Ok(bytes) = fs::read(&path) {
            let name = path.strip_prefix(root.parent().unwrap()).unwrap();
            found.insert(name.display().to_string(), bytes);
        }
    }
}

/// What of it is not reachable from the remote's refs.
fn missing(held: &Held, origin: &Origin) -> Vec<String> {
    let there: BTreeSet<String> =
        git(&origin.path(), &["rev-list", "--all"]).lines().map(str::to_owned).collect();
    let objects: BTreeSet<String> = git(&origin.path(), &["rev-list", "--all", "--objects"])
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect();
    let mut missing: Vec<String> =
        held.commits.difference(&there).map(|commit| format!("commit {commit}")).collect();
    for (name, bytes) in &held.files {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let id =
            git(&origin.path(), &["hash-object", "--no-filters", file.path().to_str().unwrap()]);
        if !objects.contains(&id) {
            missing.push(format!("file {name}"));
        }
    }
    missing
}

/// The remote and the pod's access to it.
struct Access {
    sshd: Sshd,
    origin: Origin,
    pod: Pod,
}

impl Access {
    fn new() -> Self {
        let (sshd, origin) = (Sshd::start().unwrap(), Origin::new());
        let mut pod = Pod::new(&sshd.url(&origin.path()));
        pod.set("GASTOWN_GIT_SECRET", "git-creds").set("GASTOWN_GRACE_SECONDS", "40");
        let access = Self { sshd, origin, pod };
        access.renew();
        access
    }

    /// Writes the Secret as it should be.
    fn renew(&self) {
        self.pod.put("git-creds/ssh-privatekey", &self.sshd.user_key().unwrap());
        self.pod.put("git-creds/known_hosts", &self.sshd.known_hosts().unwrap());
    }

    fn hook(&self) -> std::path::PathBuf {
        self.origin.path().join("hooks/update")
    }

    fn spoil(&mut self, remote: &str) {
        match remote {
            "down then up" => self.sshd.stop(),
            "401 then renewed" => {
                self.pod.put("git-creds/ssh-privatekey", &self.sshd.stranger_key().unwrap());
            }
            "Secret gone" => fs::remove_dir_all(self.pod.path("git-creds")).unwrap(),
            "host key changed" => {
                self.pod.put("git-creds/known_hosts", &self.sshd.wrong_known_hosts().unwrap());
            }
            "hook refuses" => {
                let script =
                    "#!/bin/sh\ncase $1 in refs/heads/*) echo not like this >&2; exit 1;; esac\n";
                fs::write(self.hook(), script).unwrap();
                fs::set_permissions(
                    self.hook(),
                    std::os::unix::fs::PermissionsExt::from_mode(0o755),
                )
                .unwrap();
            }
            _ => {}
        }
    }

    fn mend(&mut self, remote: &str) {
        match remote {
            "down then up" => self.sshd.resume().unwrap(),
            "401 then renewed" | "Secret gone" | "host key changed" => self.renew(),
            _ => {}
        }
    }
}

/// What one case showed.
struct Seen {
    missing: Vec<String>,
    record: SyncReport,
}

fn run(case: Case) -> Seen {
    let ((_, habit), end, remote) = (HABITS[case.0], ENDS[case.1], REMOTES[case.2]);
    let mut access = Access::new();
    if end == "deadline" {
        access.pod.set("GASTOWN_DEADLINE_SECONDS", "15");
    }
    access.pod.ready();
    let sync = access.pod.sync();
    let last = match end {
        "exit 0" => "exit 0",
        "exit 1" => "exit 1",
        _ => "while [ -e \"$0\" ]; do sleep 0.1; done",
    };
    let ready = access.pod.path("ready").display().to_string();
    let go = access.pod.path("go").display().to_string();
    let script = format!(
        "{FUNCTIONS}{habit}\ntouch {ready}\nwhile [ ! -e {go} ]; do sleep 0.05; done\n{last}\n"
    );
    let mut agent = access.pod.agent(&script);
    until("the agent has done its work", || access.pod.path("ready").exists());
    access.spoil(remote);
    let held = held(&access.pod);
    fs::write(access.pod.path("go"), "").unwrap();
    end_agent(end, &access.pod, &mut agent);
    let is_transient = !["well", "hook refuses"].contains(&remote);
    if is_transient {
        // It does not end while the work is in the pod only, and states why.
        until("the sidecar has tried to save", || {
            let unsaved = fs::read_to_string(access.pod.path("gastown/private/unsaved"));
            unsaved.is_ok_and(|text| text.contains("tried again"))
        });
        if end != "kill -9" {
            assert!(agent.child.try_wait().unwrap().is_none(), "the pod's end was not held");
        }
        access.mend(remote);
    }
    agent.wait();
    let record = access.pod.end_sync(sync);
    Seen { missing: missing(&held, &access.origin), record }
}

fn end_agent(end: &str, pod: &Pod, agent: &mut Running) {
    match end {
        "kill -9" => {
            agent.signal(rustix::process::Signal::KILL);
            agent.wait();
            // The sidecar is ended afterwards; a drain has it save without being asked.
            pod.put("gastown/pod/drain", "Terminated");
        }
        "drain" => {
            pod.put("gastown/pod/drain", "Terminated");
        }
        "SIGTERM" => agent.signal(rustix::process::Signal::TERM),
        _ => {}
    }
}

#[test]
fn nothing_is_lost_whatever_the_agent_its_end_and_the_remote_do() {
    let cases = cases();
    let queue = std::sync::Mutex::new(cases.clone().into_iter());
    let table = std::sync::Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else { break };
                    let seen = run(case);
                    table.lock().unwrap().insert(case, seen);
                }
            });
        }
    });
    let table = table.into_inner().unwrap();
    let mut text = String::new();
    let mut failed = 0;
    for ((habit, end, remote), seen) in &table {
        let verdict = if seen.missing.is_empty() && seen.record.unsaved.is_empty() {
            format!("saved ({:?}, {} refs named)", seen.record.result, seen.record.saved.len())
        } else {
            failed += 1;
            format!("LOST {:?}; {:?}", seen.missing, seen.record)
        };
        let (habit, end, remote) = (HABITS[*habit].0, ENDS[*end], REMOTES[*remote]);
        let _ = writeln!(text, "{habit:18} | {end:9} | {remote:17} | {verdict}");
    }
    println!("{text}{} cases, {failed} lost something", table.len());
    assert_eq!(table.len(), cases.len());
    assert_eq!(failed, 0, "\n{text}");
}
