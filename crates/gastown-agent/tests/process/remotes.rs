//! Failures of remotes: each has its typed result, with a sentence that names what to change.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use gastown_core::report::{InitReport, InitResult, SyncResult};
use gastown_fakes::sshd::Sshd;

use crate::fixture::FakeWitness;
use crate::http;
use crate::isolation::{commit, push};
use crate::pod::{Origin, Pod, WIP, git, git_ok, until};

/// A pod whose repository is behind ssh, with everything right.
fn over_ssh(sshd: &Sshd, origin: &Origin) -> Pod {
    let mut pod = Pod::new(&sshd.url(&origin.path()));
    pod.set("GASTOWN_GIT_SECRET", "git-creds");
    pod.put("git-creds/ssh-privatekey", &sshd.user_key().unwrap());
    pod.put("git-creds/known_hosts", &sshd.known_hosts().unwrap());
    pod
}

fn stops(pod: &Pod, want: InitResult, parts: &[&str]) -> InitReport {
    let report = pod.init();
    assert_eq!(report.result, want, "{report:?}");
    for part in parts {
        assert!(report.message.contains(part), "{part:?} is not in {:?}", report.message);
    }
    report
}

#[test]
fn a_key_in_the_secret_pushes_the_work_over_ssh() {
    let (sshd, origin) = (Sshd::start().unwrap(), Origin::new());
    let pod = over_ssh(&sshd, &origin);
    pod.ready();
    let sync = pod.sync();
    let (code, _) = Pod::end_run(pod.agent("echo work > w; git add w; git commit -q -m work\n"));
    assert_eq!(code, Some(0), "{}", pod.log("sync"));
    let record = pod.end_sync(sync);
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(1)));
    // The key stays where it was mounted: no copy outlives a git command.
    let key = sshd.user_key().unwrap();
    let body = key.lines().nth(1).unwrap();
    let found = std::process::Command::new("grep")
        .args(["-rl", body])
        .arg(pod.dir.path())
        .output()
        .unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        [pod.path("git-creds/ssh-privatekey").to_str().unwrap()]
    );
}

#[test]
fn each_fault_of_the_credentials_has_its_own_result() {
    let (sshd, origin) = (Sshd::start().unwrap(), Origin::new());
    let pod = over_ssh(&sshd, &origin);
    pod.put("git-creds/ssh-privatekey", &sshd.stranger_key().unwrap());
    pod.golden(
        "init-bad-credentials",
        &stops(&pod, InitResult::BadCredentials, &["secret git-creds"]),
    );
    pod.put("git-creds/ssh-privatekey", "no key at all\n");
    stops(&pod, InitResult::BadCredentials, &["secret git-creds"]);
    fs::remove_file(pod.path("git-creds/ssh-privatekey")).unwrap();
    let report =
        stops(&pod, InitResult::SecretNotFound, &["secret git-creds has no key ssh-privatekey"]);
    pod.golden("init-secret-not-found", &report);
    fs::remove_file(pod.path("git-creds/known_hosts")).unwrap();
    stops(&pod, InitResult::SecretNotFound, &["secret git-creds not found"]);
}

#[test]
fn a_host_with_an_unknown_or_another_key_gets_no_credentials() {
    let (sshd, origin) = (Sshd::start().unwrap(), Origin::new());
    let mut pod = over_ssh(&sshd, &origin);
    pod.put("git-creds/known_hosts", "");
    pod.golden("init-unknown-host-key", &stops(&pod, InitResult::UnknownHostKey, &["known_hosts"]));
    pod.put("git-creds/known_hosts", &sshd.wrong_known_hosts().unwrap());
    pod.golden("init-host-key-mismatch", &stops(&pod, InitResult::HostKeyMismatch, &[]));
    assert!(!sshd.log().contains("Accepted publickey"), "{}", sshd.log());
    pod.put("git-creds/known_hosts", "");
    pod.set("GASTOWN_KNOWN_HOSTS_CONFIGMAP", "hosts");
    stops(&pod, InitResult::ConfigMapNotFound, &["configmap hosts"]);
    pod.put("ssh-known-hosts/known_hosts", &sshd.known_hosts().unwrap());
    pod.ready();
}

#[test]
fn a_repository_or_branch_that_does_not_exist_is_named() {
    let (sshd, origin) = (Sshd::start().unwrap(), Origin::new());
    let mut pod = over_ssh(&sshd, &origin);
    pod.set("GASTOWN_TARGET_BRANCH", "release");
    pod.golden("init-branch-not-found", &stops(&pod, InitResult::BranchNotFound, &["release"]));
    pod.set("GASTOWN_REPOSITORY", &sshd.url(&origin.path().with_file_name("gone.git")));
    pod.golden(
        "init-repository-not-found",
        &stops(&pod, InitResult::RepositoryNotFound, &["gone.git"]),
    );
    pod.set(
        "GASTOWN_REPOSITORY",
        &format!("file://{}", origin.path().with_file_name("gone.git").display()),
    );
    stops(&pod, InitResult::RepositoryNotFound, &["gone.git"]);
}

#[test]
fn a_remote_that_does_not_answer_is_unreachable_and_a_wrong_setting_is_invalid() {
    let (mut sshd, origin) = (Sshd::start().unwrap(), Origin::new());
    let mut pod = over_ssh(&sshd, &origin);
    sshd.stop();
    pod.golden("init-remote-unreachable", &stops(&pod, InitResult::RemoteUnreachable, &[]));
    pod.set("GASTOWN_REPOSITORY", "ext::sh -c id");
    stops(&pod, InitResult::InvalidConfig, &["GASTOWN_REPOSITORY"]);
    pod.set("GASTOWN_REPOSITORY", &origin.url()).set("GASTOWN_WORK_BRANCH", "--exec=id");
    stops(&pod, InitResult::InvalidConfig, &["GASTOWN_WORK_BRANCH"]);
}

#[test]
fn another_writers_push_is_never_overwritten_and_ours_is_in_the_snapshot() {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let sync = pod.sync();
    let theirs = origin.another_writer("polecat/toast");
    let (code, run) = Pod::end_run(
        pod.agent("echo mine > mine; git add mine; git commit -q -m mine; echo half > half\n"),
    );
    assert_eq!(code, Some(0), "{run:?}");
    assert!(run.message.contains("another writer"), "{run:?}");
    let record = pod.end_sync(sync);
    assert_eq!(record.result, SyncResult::PushRace, "{record:?}");
    pod.golden("sync-push-race", &record);
    let mine = git(&pod.repo(), &["rev-parse", "HEAD"]);
    assert_eq!(record.unpushed.as_ref().map(ToString::to_string), Some(mine.clone()));
    assert_eq!((record.commit, record.wip.as_deref()), (None, Some(WIP)));
    assert_eq!(origin.at("polecat/toast"), Some(theirs));
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:half")]), "half");
    assert!(git_ok(&origin.path(), &["merge-base", "--is-ancestor", &mine, WIP]));
}

#[test]
fn a_remote_that_was_down_gets_the_work_when_it_is_up() {
    let (mut sshd, origin) = (Sshd::start().unwrap(), Origin::new());
    let pod = over_ssh(&sshd, &origin);
    pod.ready();
    let sync = pod.sync();
    sshd.stop();
    let run = pod.agent("echo w > w; git add w; git commit -q -m w; echo dirty > d\n");
    until("the sidecar has failed to connect", || pod.log("sync").contains("RemoteUnreachable"));
    sshd.resume().unwrap();
    let (code, _) = Pod::end_run(run);
    assert_eq!(code, Some(0), "{}", pod.log("sync"));
    let record = pod.end_sync(sync);
    assert_eq!(
        (record.result, record.ahead, record.wip.as_deref()),
        (SyncResult::Pushed, Some(1), Some(WIP)),
        "{}",
        pod.log("sync")
    );
}

#[test]
fn a_pod_stays_while_the_remote_is_down_and_what_is_lost_at_its_end_is_named() {
    let (mut sshd, origin) = (Sshd::start().unwrap(), Origin::new());
    let mut pod = over_ssh(&sshd, &origin);
    pod.set("GASTOWN_GRACE_SECONDS", "8");
    pod.ready();
    let sync = pod.sync();
    sshd.stop();
    let run = pod.agent("echo w > w; git add w; git commit -q -m w; echo d > d\n");
    until("the sidecar has tried to save the end", || {
        fs::read_to_string(pod.path("gastown/private/unsaved"))
            .is_ok_and(|why| why.contains("1 commit is in the pod only"))
    });
    assert_eq!(pod.start("saved", &["saved"]).wait(), Some(1), "the probe states so too");
    // Only the end of the pod ends the waiting.
    run.signal(rustix::process::Signal::TERM);
    Pod::end_run(run);
    let record = pod.end_sync(sync);
    pod.golden("sync-remote-unreachable", &record);
    let head = git(&pod.repo(), &["rev-parse", "HEAD"]);
    assert_eq!(
        (record.result, record.unpushed.unwrap().to_string(), record.commit),
        (SyncResult::RemoteUnreachable, head.clone(), None)
    );
    let branch = format!("branch polecat/toast ({})", &head[..12]);
    assert_eq!(record.unsaved, ["uncommitted files", &branch]);
}

#[test]
fn a_branch_that_the_remote_protects_is_reported_and_the_work_is_in_the_snapshot() {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let hook = origin.path().join("hooks/update");
    fs::write(&hook, "#!/bin/sh\ncase \"$1\" in refs/heads/*) echo no entry >&2; exit 1;; esac\n")
        .unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let sync = pod.sync();
    Pod::end_run(pod.agent("echo w > w; git add w; git commit -q -m w\n"));
    let record = pod.end_sync(sync);
    let head = git(&pod.repo(), &["rev-parse", "HEAD"]);
    assert_eq!(
        (record.result, record.wip.as_deref()),
        (SyncResult::PushRejected, Some(WIP)),
        "{record:?}"
    );
    assert!(record.message.contains("no entry"), "{record:?}");
    let named: Vec<&str> = record.saved.iter().map(|saved| saved.of.as_str()).collect();
    assert_eq!(named, ["branch polecat/toast"]);
    assert!(git_ok(&origin.path(), &["merge-base", "--is-ancestor", &head, WIP]));
}

#[test]
fn a_sidecar_that_was_killed_continues_where_it_was() {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let mut sync = pod.sync();
    let (code, _) =
        Pod::end_run(pod.agent("echo 1 > w; git add w; git commit -q -m 1; echo d > d\n"));
    assert_eq!(code, Some(0));
    sync.child.kill().unwrap();
    sync.wait();
    fs::remove_file(pod.path("gastown/run/sync.sock")).unwrap();
    let sync = pod.sync();
    let (code, _) = Pod::end_run(pod.agent("git commit -q --amend -m 2; echo e > d\n"));
    assert_eq!(code, Some(0), "{}", pod.log("sync"));
    let record = pod.end_sync(sync);
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(1)), "{record:?}");
    assert_eq!(git(&origin.path(), &["log", "-1", "--format=%s", "polecat/toast"]), "2");
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:d")]), "e");
}

#[test]
fn what_is_in_the_pod_only_is_counted_while_the_remote_refuses_the_credentials() {
    let (origin, witness) = (Origin::new(), FakeWitness::new());
    let (_runtime, remote) = http::server(&origin, Some(("me", "new")));
    let mut pod = Pod::new(&remote.repository("r"));
    witness.configure(&mut pod);
    pod.set("GASTOWN_GIT_SECRET", "forge");
    pod.put("git-creds/username", "me").put("git-creds/password", "new");
    pod.ready();
    // The password is not valid any more: not even the refs can be listed.
    pod.put("git-creds/password", "old");
    let sync = pod.sync();
    for (name, count) in [("one", "1 commit is in"), ("two", "2 commits are in")] {
        commit(&pod, name);
        push(&pod);
        let exactly = format!("; {count} the pod only");
        witness.heartbeat("the commits are counted", |b| b.saving.ends_with(&exactly));
    }
    let of_failures = |b: &&gastown_proto::v1::Heartbeat| !b.saving.is_empty();
    for heartbeat in witness.received().streams.iter().flatten().filter(of_failures) {
        assert!(heartbeat.saving.contains(" in the pod only"), "{heartbeat:?}");
    }
    pod.put("git-creds/password", "new");
    witness.heartbeat("the work is saved", |b| b.saving.is_empty() && !b.pushed_commit.is_empty());
    let record = pod.end_sync(sync);
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(2)), "{record:?}");
}

#[test]
fn a_push_without_an_answer_leaves_a_doubt_until_the_refs_can_be_listed() {
    let origin = Origin::new();
    let mut pod = Pod::new(&origin.url());
    pod.set("GASTOWN_GRACE_SECONDS", "4");
    pod.ready();
    // The remote takes the commit, and is gone before it answers.
    let (at, away) = (origin.path(), origin.path().with_extension("away"));
    let hook = at.join("hooks/post-receive");
    let script = format!("#!/bin/sh\nmv {} {}\nkill -9 $PPID\n", at.display(), away.display());
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let states = |text: &str| {
        let path = pod.path("gastown/private/unsaved");
        until(text, || fs::read_to_string(&path).is_ok_and(|why| why.ends_with(text)));
    };
    let sync = pod.sync();
    commit(&pod, "one");
    push(&pod);
    states("; 1 commit is in the pod only, as far as is known");
    commit(&pod, "two");
    push(&pod);
    states("; 2 commits are in the pod only, as far as is known");
    let two = git(&pod.repo(), &["rev-parse", "HEAD"]);
    let record = pod.end_sync(sync);
    assert_eq!(record.unpushed.unwrap().to_string(), two);
    fs::remove_file(away.join("hooks/post-receive")).unwrap();
    fs::rename(&away, &at).unwrap();
    assert!(origin.at("polecat/toast").is_some_and(|first| first != two));
    fs::remove_file(pod.path("gastown/run/sync.sock")).unwrap();
    let record = pod.end_sync(pod.sync());
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(2)), "{record:?}");
    assert_eq!(origin.at("polecat/toast"), Some(two));
}
