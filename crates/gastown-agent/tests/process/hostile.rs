//! A workspace that is made to exhaust, to block or to mislead the sidecar: it lives on in bounded
//! memory and ends in time, what can be saved is saved, and the record names what is not.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gastown_core::report::SyncResult;
use serde_json::{Value, json};

use crate::isolation::{assert_nowhere, commit, fifo, push};
use crate::pod::{Origin, Pod, Running, WIP, git, git_ok, until};

/// What the container of the sidecar may use.
const MEMORY: u64 = 1 << 30;

/// Looks at the memory of a process and of all that it starts.
struct Memory {
    ended: Arc<AtomicBool>,
    look: JoinHandle<u64>,
}

impl Memory {
    fn of(running: &Running) -> Self {
        let ended = Arc::<AtomicBool>::default();
        let (pid, stop) = (running.child.id(), ended.clone());
        let look = std::thread::spawn(move || {
            let mut most = 0;
            while !stop.load(Ordering::SeqCst) {
                most = most.max(resident(pid));
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        Self { ended, look }
    }

    /// Fails when it ever was more than the container may use.
    fn check(self) {
        self.ended.store(true, Ordering::SeqCst);
        let most = self.look.join().unwrap();
        println!("{} MiB", most >> 20);
        assert!(most > 0 && most < MEMORY, "{} MiB", most >> 20);
    }
}

/// The resident bytes of a process and of all below it. One that has ended has none.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let own = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let mut sum = own.unwrap_or_default() << 10;
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return sum };
    for thread in threads.flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        sum +=
            children.split_whitespace().filter_map(|c| c.parse().ok()).map(resident).sum::<u64>();
    }
    sum
}

fn ready() -> (Origin, Pod) {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    (origin, pod)
}

/// Sends one request over the socket, and returns the answer.
fn ask(pod: &Pod, request: &Value) -> Value {
    let mut stream = UnixStream::connect(pod.path("gastown/run/sync.sock")).unwrap();
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Makes so many commits on top of `from`, or without a parent; returns them.
fn commits(repo: &Path, count: usize, from: Option<&str>) -> Vec<String> {
    let marks = repo.join(".git/marks");
    let mut import = Command::new("git")
        .arg("-C")
        .arg(repo)
        .args(["fast-import", "--quiet", "--force"])
        .arg(format!("--export-marks={}", marks.display()))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    for n in 1..=count {
        let message = format!("commit {n} on {}", from.unwrap_or("nothing"));
        text.push_str("reset refs/heads/imported\n");
        let _ = writeln!(text, "commit refs/heads/imported\nmark :{n}");
        text.push_str("committer T <t@example.org> 1700000000 +0000\n");
        let _ = writeln!(text, "data {}\n{message}", message.len());
        if let Some(from) = from {
            let _ = writeln!(text, "from {from}");
        }
        text.push('\n');
    }
    import.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(import.wait().unwrap().success());
    git(repo, &["update-ref", "-d", "refs/heads/imported"]);
    let made = fs::read_to_string(&marks).unwrap();
    fs::remove_file(marks).unwrap();
    made.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}

/// Gives each commit so many branches.
fn branches(repo: &Path, folder: &str, commits: &[String], each: usize) {
    let file = repo.join(".git/packed-refs");
    let old = fs::read_to_string(&file).unwrap_or_default();
    // The old refs, without the promise that they are sorted.
    let mut text: String =
        old.lines().filter(|l| !l.starts_with('#')).flat_map(|l| [l, "\n"]).collect();
    for (n, commit) in commits.iter().enumerate() {
        for m in 0..each {
            let _ = writeln!(text, "{commit} refs/heads/{folder}/b{n:06}-{m}");
        }
    }
    fs::write(file, text).unwrap();
}

/// The commits that the remote's refs do not reach.
fn missing(origin: &Origin, commits: &[String]) -> usize {
    let all = git(&origin.path(), &["rev-list", "--all"]);
    let there: BTreeSet<&str> = all.lines().collect();
    commits.iter().filter(|c| !there.contains(c.as_str())).count()
}

#[test]
fn what_a_hundred_thousand_branches_hold_is_saved() {
    let (origin, pod) = ready();
    let work = commit(&pod, "work");
    push(&pod);
    let ours = commits(&pod.repo(), 8_000, Some(&work));
    let foreign = commits(&pod.repo(), 2_000, None);
    branches(&pod.repo(), "ours", &ours, 10);
    branches(&pod.repo(), "foreign", &foreign, 10);
    fs::write(pod.repo().join("dirty"), "d").unwrap();
    let sync = pod.sync();
    let memory = Memory::of(&sync);
    let record = pod.end_sync(sync);
    memory.check();
    assert_eq!(record.result, SyncResult::Pushed, "{record:?}");
    assert_eq!(origin.at("polecat/toast"), Some(work));
    let named = record.saved.len() + record.saved_more as usize;
    // Each commit once, and the uncommitted file.
    assert_eq!((named, record.unsaved), (10_001, vec![]));
    assert_eq!((missing(&origin, &ours), missing(&origin, &foreign)), (0, 0));
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:dirty")]), "d");
}

/// The bytes of the objects that the remote holds.
fn stored(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|e| if e.path().is_dir() { stored(&e.path()) } else { e.metadata().unwrap().len() })
        .sum()
}

/// Prints what the end of a pod costs: `cargo test -p gastown-agent --test process
/// the_end_of_many_branches -- --nocapture`.
#[test]
fn the_end_of_many_branches_is_saved_at_a_price_that_is_printed() {
    println!("REFS    SAVED  BYTES AT THE REMOTE  SECONDS");
    for refs in [1, 100, 10_000, 98_000] {
        let (origin, pod) = ready();
        let work = commit(&pod, "work");
        push(&pod);
        let sync = pod.sync();
        until("the work is pushed", || origin.at("polecat/toast").as_ref() == Some(&work));
        let ours = commits(&pod.repo(), refs, Some(&work));
        branches(&pod.repo(), "ours", &ours, 1);
        let (before, start) = (stored(&origin.path().join("objects")), Instant::now());
        let record = pod.end_sync(sync);
        let seconds = start.elapsed().as_secs_f64();
        let bytes = stored(&origin.path().join("objects")) - before;
        let saved = record.saved.len() + record.saved_more as usize;
        println!("{refs:<7} {saved:<6} {bytes:<20} {seconds:.1}");
        assert_eq!(record.result, SyncResult::Pushed, "{record:?}");
        assert_eq!((missing(&origin, &ours), record.unsaved), (0, vec![]));
    }
}

#[test]
fn a_sparse_pack_of_4_gib_takes_no_room_from_the_work() {
    let (origin, pod) = ready();
    commit(&pod, "work");
    // The work is in a pack too, whose name comes later.
    git(&pod.repo(), &["repack", "-q", "-a", "-d"]);
    for repo in ["workspace/repo/.git", "workspace/origin.git"] {
        let folder = pod.path(repo).join("objects/pack");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("pack-{}.pack", "0".repeat(40)));
        let mut pack = fs::File::create(file).unwrap();
        pack.write_all(b"PACK\0\0\0\x02\0\0\0\x01").unwrap();
        pack.set_len(4 << 30).unwrap();
    }
    fs::write(pod.repo().join("dirty"), "d").unwrap();
    let sync = pod.sync();
    let memory = Memory::of(&sync);
    let record = pod.end_sync(sync);
    memory.check();
    assert_eq!(record.result, SyncResult::Pushed, "{record:?}\n{}", pod.log("sync"));
    assert!(git_ok(&origin.path(), &["show", "polecat/toast:work"]));
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:dirty")]), "d");
}

#[test]
fn fifos_in_place_of_git_s_own_files_do_not_block_the_sidecar() {
    let (origin, pod) = ready();
    // The clone does not have this one.
    let local = pod.path("workspace/origin.git");
    let side = git(&local, &["commit-tree", "-p", "main", "-m", "side", "main^{tree}"]);
    git(&local, &["update-ref", "refs/heads/side", &side]);
    let work = commit(&pod, "work");
    push(&pod);
    fs::write(pod.repo().join("dirty"), "d").unwrap();
    for repo in ["workspace/repo/.git", "workspace/origin.git"] {
        for name in [
            "config",
            "HEAD",
            "index",
            "packed-refs",
            "refs/heads/fifo",
            "logs/HEAD",
            "commondir",
            "info/exclude",
            "objects/info/alternates",
            "shallow",
            "ORIG_HEAD",
        ] {
            let at = pod.path(repo).join(name);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            let _ = fs::remove_file(&at);
            fifo(&at);
        }
    }
    let sync = pod.sync();
    assert!(pod.checkpoint(), "{}", pod.log("sync"));
    let record = pod.end_sync(sync);
    assert_eq!(record.result, SyncResult::Pushed, "{record:?}\n{}", pod.log("sync"));
    assert_eq!(origin.at("polecat/toast"), Some(work));
    assert_eq!(missing(&origin, &[side]), 0, "only origin.git had it: {record:?}");
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:dirty")]), "d");
    let of = |name: &str| record.unsaved.iter().any(|u| u.starts_with(name));
    assert!(of("packed-refs") && record.saved.iter().any(|s| s.of == "branch side"), "{record:?}");
}

#[test]
fn a_folder_that_is_exchanged_for_a_link_again_and_again_leads_nowhere() {
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("token"), "s3cret-token").unwrap();
    let other = Origin::new();
    let hidden = other.another_writer("secret");
    let origin = Origin::new();
    let mut pod = Pod::new(&origin.url());
    pod.set("GASTOWN_SNAPSHOT_SECONDS", "1");
    pod.ready();
    // Each of them is a folder of the agent in one moment, and a link to another one in the next.
    let repo = pod.repo();
    git(&pod.path("workspace"), &["init", "-q", "nested"]);
    for folder in ["folder/deep", ".git/refs/heads/swapped"] {
        fs::create_dir_all(repo.join(folder)).unwrap();
    }
    let pairs = [
        (repo.join("folder/deep"), secret.path().to_owned()),
        (repo.join(".git/refs/heads/swapped"), other.path().join("refs/heads")),
        (repo.join(".git/objects/pack"), other.path().join("objects/pack")),
        (pod.path("workspace/nested/.git"), other.path()),
    ];
    for (at, to) in &pairs {
        symlink(to, at.with_extension("link")).unwrap();
    }
    fs::write(repo.join("folder/deep/mine"), "mine").unwrap();
    git(&other.path(), &["repack", "-q", "-a", "-d"]);
    let stop = AtomicBool::new(false);
    let record = std::thread::scope(|scope| {
        for (at, _) in &pairs {
            let (here, stop) = (rustix::fs::CWD, &stop);
            scope.spawn(move || {
                let how = rustix::fs::RenameFlags::EXCHANGE;
                while !stop.load(Ordering::SeqCst) {
                    rustix::fs::renameat_with(here, at, here, at.with_extension("link"), how)
                        .unwrap();
                }
            });
        }
        let sync = pod.sync();
        for n in 0..8 {
            let saved = || pod.log("sync").matches("the workspace is saved").count();
            let before = saved();
            fs::write(repo.join("changed"), n.to_string()).unwrap();
            until("the workspace is saved once more", || saved() > before);
        }
        let record = pod.end_sync(sync);
        stop.store(true, Ordering::SeqCst);
        record
    });
    assert!(record.wip.is_some(), "{record:?}");
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:changed")]), "7");
    assert_nowhere(&origin, "s3cret-token");
    assert!(!git_ok(&origin.path(), &["cat-file", "-e", &hidden]), "{record:?}");
}

#[test]
fn a_folder_in_the_sockets_place_does_not_outlive_a_restart_of_the_sidecar() {
    let (origin, pod) = ready();
    let mut sync = pod.sync();
    sync.signal(rustix::process::Signal::KILL);
    sync.wait();
    let socket = pod.path("gastown/run/sync.sock");
    fs::remove_file(&socket).unwrap();
    fs::create_dir_all(socket.join("full/of")).unwrap();
    fs::write(pod.repo().join("dirty"), "d").unwrap();
    let sync = pod.start("sync", &["sync"]);
    until("the socket is there", || UnixStream::connect(&socket).is_ok());
    assert!(pod.checkpoint(), "{}", pod.log("sync"));
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:dirty")]), "d");
    // While it runs a folder takes the place of the socket: the work is saved without it.
    fs::remove_file(&socket).unwrap();
    fs::create_dir_all(socket.join("again")).unwrap();
    commit(&pod, "work");
    push(&pod);
    until("the work is pushed", || origin.at("polecat/toast").is_some());
    assert_eq!(pod.end_sync(sync).result, SyncResult::Pushed);
}

/// Counts the pushes of a ref that the remote accepts.
fn count_pushes(origin: &Origin) -> impl Fn(&str) -> usize + use<> {
    let file = origin.path().join("pushes");
    let hook = origin.path().join("hooks/post-receive");
    fs::write(&hook, format!("#!/bin/sh\ncat >> {}\n", file.display())).unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    move |name| {
        let all = fs::read_to_string(&file).unwrap_or_default();
        all.lines().filter(|line| line.ends_with(name)).count()
    }
}

/// How many pushes are allowed: so many at once, and one in so many seconds.
fn allowed(burst: u64, every: u64, began: Instant) -> usize {
    usize::try_from(burst + began.elapsed().as_secs() / every + 1).unwrap()
}

#[test]
fn a_flood_of_pushes_becomes_few() {
    let (origin, pod) = ready();
    let count = count_pushes(&origin);
    let (began, sync) = (Instant::now(), pod.sync());
    let memory = Memory::of(&sync);
    let mut refused = 0;
    for n in 0..30 {
        commit(&pod, &format!("work-{n}"));
        push(&pod);
        refused += usize::from(ask(&pod, &json!({ "op": "push" }))["ok"] == false);
    }
    let (pushes, most) = (count("refs/heads/polecat/toast"), allowed(10, 3, began));
    assert!(pushes <= most && refused > 0, "{pushes} pushes, {refused} refused");
    let record = pod.end_sync(sync);
    memory.check();
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(30)));
}

#[test]
fn a_flood_of_checkpoints_and_ends_becomes_few_snapshots() {
    let (origin, pod) = ready();
    let count = count_pushes(&origin);
    let (began, sync) = (Instant::now(), pod.sync());
    let memory = Memory::of(&sync);
    let change = |n: usize| fs::write(pod.repo().join("dirty"), n.to_string()).unwrap();
    let mut refused = 0;
    for n in 0..30 {
        change(n);
        refused += usize::from(ask(&pod, &json!({ "op": "checkpoint" }))["ok"] == false);
    }
    let (saves, most) = (count(WIP), allowed(4, 20, began));
    assert!(saves <= most && refused > 0, "{saves} snapshots, {refused} refused");
    // A request for the end is never refused: it waits.
    for n in 30..34 {
        change(n);
        assert_eq!(ask(&pod, &json!({ "op": "finish" }))["ok"], true);
    }
    std::thread::scope(|scope| {
        for n in 34..40 {
            change(n);
            scope.spawn(|| assert_eq!(ask(&pod, &json!({ "op": "finish" }))["ok"], true));
        }
    });
    let (saves, most) = (count(WIP), allowed(4, 20, began) + allowed(4, 20, began));
    assert!(saves <= most, "{saves} snapshots");
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:dirty")]), "39");
    pod.end_sync(sync);
    memory.check();
}

#[test]
fn a_worktree_whose_repository_is_elsewhere_brings_only_its_own_files() {
    let elsewhere = Origin::new();
    let hidden = elsewhere.another_writer("secret");
    let outside = elsewhere.clone_at("outside");
    fs::write(outside.join("token"), "s3cret-token").unwrap();
    let (origin, pod) = ready();
    let git_dir = outside.join(".git").display().to_string();
    let (wt, linked) = (pod.path("workspace/wt"), pod.repo().join(".git/worktrees/evil"));
    fs::create_dir_all(&wt).unwrap();
    fs::write(wt.join(".git"), format!("gitdir: {git_dir}\n")).unwrap();
    fs::write(wt.join("mine"), "mine").unwrap();
    // And a worktree of the clone itself that names another repository and another folder.
    fs::create_dir_all(&linked).unwrap();
    fs::write(linked.join("gitdir"), format!("{}\n", outside.join("x/.git").display())).unwrap();
    fs::write(linked.join("commondir"), format!("{git_dir}\n")).unwrap();
    fs::write(linked.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    symlink(outside.join(".git/refs"), linked.join("refs")).unwrap();
    symlink(outside.join(".git/logs"), linked.join("logs")).unwrap();
    let sync = pod.sync();
    assert!(pod.checkpoint(), "{}", pod.log("sync"));
    let record = pod.end_sync(sync);
    assert_eq!(record.saved.len(), 1, "{record:?}");
    assert_eq!(record.saved[0].of, "uncommitted files in wt");
    let held = git(&origin.path(), &["log", "--all", "--format=%T"]);
    let files = |tree: &str| git(&origin.path(), &["ls-tree", "-r", "--name-only", tree]);
    assert!(held.lines().any(|tree| files(tree) == "mine"), "{held}");
    assert_nowhere(&origin, "s3cret-token");
    assert!(!git_ok(&origin.path(), &["cat-file", "-e", &hidden]));
}
