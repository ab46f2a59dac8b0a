//! One attempt from the clone to the push record.

use std::fs;

use gastown_core::report::{AgentExit, InitResult, SyncResult};

use crate::pod::{Origin, Pod, WIP, git, git_ok, until};

const COMMIT: &str = "echo work > work.txt; git add work.txt; git commit -q -m work\n";

#[test]
fn a_commit_of_the_agent_is_on_the_remote_and_in_the_record() {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    let ready = pod.ready();
    pod.golden("init-ready", &ready);
    let base = ready.base.unwrap();
    let sync = pod.sync();
    let (code, run) = Pod::end_run(pod.agent(COMMIT));
    assert_eq!((code, run.exit), (Some(0), AgentExit::Completed), "{run:?}\n{}", pod.log("run"));
    pod.golden("run-completed", &run);
    // The agent's side waited until the remote held it.
    let head = git(&pod.repo(), &["rev-parse", "HEAD"]);
    assert_eq!(origin.at("polecat/toast").as_deref(), Some(head.as_str()), "{}", pod.log("sync"));
    let record = pod.end_sync(sync);
    assert_eq!(record.result, SyncResult::Pushed, "{record:?}");
    pod.golden("sync-pushed", &record);
    assert_eq!(record.commit.unwrap().as_str(), head);
    assert_eq!((record.ahead, record.base.unwrap(), record.wip), (Some(1), base, None));
    let author = git(&pod.repo(), &["log", "-1", "--format=%an <%ae>"]);
    assert_eq!(author, "Gas Town Polecat <polecat@gastown.io>");
}

#[test]
fn an_agent_without_commits_changes_nothing() {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let sync = pod.sync();
    let (code, _) = Pod::end_run(pod.agent("true\n"));
    assert_eq!(code, Some(0));
    let record = pod.end_sync(sync);
    pod.golden("sync-no-changes", &record);
    assert_eq!((record.result, record.commit, record.wip), (SyncResult::NoChanges, None, None));
    assert_eq!(origin.refs(), ["refs/heads/main"]);
}

#[test]
fn uncommitted_changes_are_saved_beside_the_branch_and_not_committed_for_the_agent() {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let sync = pod.sync();
    let dirty = "echo changed >> README; echo new > new.txt; echo noise > x.log; mkdir build; echo b > build/b; ln -s /etc/passwd link\n";
    Pod::end_run(pod.agent(&format!("{COMMIT}{dirty}")));
    let record = pod.end_sync(sync);
    assert_eq!(
        (record.result, record.wip.as_deref()),
        (SyncResult::Pushed, Some(WIP)),
        "{}",
        pod.log("sync")
    );
    let files = git(&origin.path(), &["ls-tree", "-r", "--name-only", WIP]);
    assert_eq!(
        files.lines().collect::<Vec<_>>(),
        [".gitignore", "README", "link", "new.txt", "work.txt"]
    );
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:link")]), "/etc/passwd");
    assert_eq!(git(&origin.path(), &["ls-tree", WIP, "link"]).split(' ').next(), Some("120000"));
    assert_eq!(origin.at(&format!("{WIP}^")), origin.at("polecat/toast"));
    assert!(
        !git(&origin.path(), &["ls-tree", "-r", "--name-only", "polecat/toast"])
            .contains("new.txt")
    );
}

#[test]
fn every_container_of_ours_has_a_home() {
    // A static glibc asked for the home of a user without a passwd entry crashes.
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let sync = pod.sync();
    let environ = fs::read_to_string(format!("/proc/{}/environ", sync.child.id())).unwrap();
    assert!(environ.split('\0').any(|v| v.starts_with("HOME=/")), "{environ}");
    pod.end_sync(sync);
}

#[test]
fn every_commit_is_pushed_while_the_agent_works() {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let sync = pod.sync();
    let run =
        pod.agent(&format!("{COMMIT}while [ ! -e go ]; do sleep 0.05; done; rm go; echo 2 > two; git add two; git commit -q -m two\n"));
    until("the first commit is on the remote", || origin.at("polecat/toast").is_some());
    fs::write(pod.repo().join("go"), "").unwrap();
    let (code, _) = Pod::end_run(run);
    assert_eq!(code, Some(0));
    let record = pod.end_sync(sync);
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(2)));
}

#[test]
fn a_drain_saves_commits_and_the_dirty_tree() {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let sync = pod.sync();
    let run = pod.agent(&format!("{COMMIT}echo half > half.txt; touch started; while [ -d . ] && [ -e \"$PWD\" ]; do sleep 0.1; done\n"));
    until("the agent has started", || pod.repo().join("started").exists());
    pod.put("gastown/pod/drain", "Terminated");
    let (code, report) = Pod::end_run(run);
    assert_eq!(
        (code, report.exit, report.message.as_str()),
        (Some(3), AgentExit::Drained, "Terminated")
    );
    pod.golden("run-drained", &report);
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:half.txt")]), "half");
    assert!(git_ok(&origin.path(), &["show", "polecat/toast:work.txt"]));
    let record = pod.end_sync(sync);
    pod.golden("sync-pushed-with-snapshot", &record);
    assert_eq!(record.wip.as_deref(), Some(WIP));
}

#[test]
fn the_work_of_a_run_that_was_killed_is_pushed_at_the_sidecars_end() {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let sync = pod.sync();
    // The agent itself pushes to its origin; no `gt run` is left to ask the sidecar for a push.
    let mut run = pod.agent(&format!(
        "{COMMIT}git push -q origin HEAD; echo dirty > dirty.txt; touch started; while [ -d . ] && [ -e \"$PWD\" ]; do sleep 0.1; done\n"
    ));
    until("the agent has started", || pod.repo().join("started").exists());
    run.signal(rustix::process::Signal::KILL);
    run.wait();
    let record = pod.end_sync(sync);
    assert_eq!(
        (record.result, record.ahead),
        (SyncResult::Pushed, Some(1)),
        "{record:?}\n{}",
        pod.log("sync")
    );
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:dirty.txt")]), "dirty");
}

#[test]
fn a_branch_that_exists_is_continued_only_when_it_is_ours() {
    let origin = Origin::new();
    let theirs = origin.another_writer("polecat/toast");
    let mut pod = Pod::new(&origin.url());
    let report = pod.init();
    assert_eq!(report.result, InitResult::BranchExists, "{report:?}");
    pod.golden("init-branch-exists", &report);
    pod.set("GASTOWN_RESUME", "true");
    let report = pod.ready();
    assert_eq!(report.head.unwrap().as_str(), theirs);
    assert_eq!(git(&pod.repo(), &["rev-parse", "HEAD"]), theirs);
    assert_eq!(git(&pod.repo(), &["status", "--porcelain"]), "");
    // A rework rewrites its branch: its own, by compare-and-swap.
    let sync = pod.sync();
    let (code, _) = Pod::end_run(pod.agent("git reset -q --hard origin/main; echo again > again; git add again; git commit -q -m again\n"));
    assert_eq!(code, Some(0));
    let record = pod.end_sync(sync);
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(1)), "{}", pod.log("sync"));
    assert!(git_ok(&origin.path(), &["show", "polecat/toast:again"]));
    assert!(!git_ok(&origin.path(), &["merge-base", "--is-ancestor", &theirs, "polecat/toast"]));
}

#[test]
fn the_digest_of_changes_is_of_what_can_land_alone() {
    let origin = Origin::new();
    let attempt = |script: &str| {
        let mut pod = Pod::new(&origin.url());
        pod.set("GASTOWN_RESUME", "true");
        pod.ready();
        let sync = pod.sync();
        let (code, report) = Pod::end_run(pod.agent(&format!("set -e\n{script}\n")));
        assert_eq!(code, Some(0), "{report:?}");
        let record = pod.end_sync(sync);
        (record.commit.unwrap(), record.changes.unwrap())
    };
    let commit =
        |file: &str| format!("echo {file} > {file}; git add -f {file}; git commit -q -m {file}");
    let first = attempt(&format!("{}; {}", commit("a"), commit("b")));
    for same in [
        "git commit -q --amend -m 'another message'",
        "git commit -q --allow-empty -m again",
        &format!("mkdir -p .beads; {}", commit(".beads/issues.jsonl")),
    ] {
        let again = attempt(same);
        assert_ne!(again.0, first.0, "{same}");
        assert_eq!(again.1, first.1, "{same}");
    }
    let squashed = attempt("git reset -q --soft origin/main; git commit -q -m all");
    assert_ne!(squashed.1, first.1, "the commits are others");
    let more = attempt(&commit("c"));
    assert_ne!(more.1, squashed.1);
    origin.another_writer("main");
    let rebased = attempt("git fetch -q origin; git rebase -q origin/main");
    assert_ne!(rebased.1, more.1, "the base is another");
}

#[test]
fn the_agents_fetch_gets_the_newest_target_branch() {
    let origin = Origin::new();
    let mut pod = Pod::new(&origin.url());
    pod.set("GASTOWN_REFRESH_SECONDS", "1");
    pod.ready();
    let sync = pod.sync();
    let run = pod.agent("while ! git cat-file -e origin/main:other 2>/dev/null; do git fetch -q origin; sleep 0.1; done\n");
    origin.another_writer("main");
    let (code, report) = Pod::end_run(run);
    assert_eq!(code, Some(0), "{report:?}");
    pod.end_sync(sync);
}
