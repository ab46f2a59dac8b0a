//! What is saved beside the work branch, how it is found again, and that an attempt which was
//! replaced cannot push any more.

use std::fs;

use gastown_core::report::{AgentExit, SyncResult};

use crate::pod::{Origin, Pod, Running, WIP, git, git_ok, until};

const COMMIT: &str = "c() { echo $1 > $1; git add $1; git commit -q -m $1; }\n";

/// The pod of another attempt of the same Polecat.
fn attempt(origin: &Origin, number: u32) -> Pod {
    let mut pod = Pod::new(&origin.url());
    pod.set("GASTOWN_ATTEMPT", &number.to_string());
    pod.set("GASTOWN_RESUME", "true").set("GASTOWN_RESTORE", "true");
    pod
}

fn started(origin: &Origin) -> (Pod, Running) {
    let pod = Pod::new(&origin.url());
    pod.ready();
    let sync = pod.sync();
    (pod, sync)
}

#[test]
fn an_untouched_tree_with_attributes_leaves_no_snapshot() {
    let origin = Origin::new();
    let clone = origin.clone_at("seed-attributes");
    fs::write(clone.join(".gitattributes"), "*.bat text eol=crlf\n*.id ident\n").unwrap();
    fs::write(clone.join("run.bat"), "a\r\nb\r\n").unwrap();
    fs::write(clone.join("x.id"), "$Id$\n").unwrap();
    git(&clone, &["add", "-A"]);
    git(&clone, &["commit", "-q", "-m", "attributes"]);
    git(&clone, &["push", "-q", "origin", "HEAD:main"]);
    let (pod, sync) = started(&origin);
    assert!(fs::read(pod.repo().join("run.bat")).unwrap().ends_with(b"b\r\n"));
    Pod::end_run(pod.agent("true\n"));
    let record = pod.end_sync(sync);
    assert_eq!((record.result, record.wip, record.saved), (SyncResult::NoChanges, None, vec![]));
    assert_eq!(origin.refs(), ["refs/heads/main"]);
}

#[test]
fn the_files_of_a_drained_attempt_are_back_in_the_next_one() {
    let origin = Origin::new();
    let (pod, sync) = started(&origin);
    let run = pod.agent(&format!(
        "{COMMIT}c one; echo half > half; echo more >> README; rm .gitignore; touch ../ready\n\
         while [ -e \"$PWD\" ]; do sleep 0.1; done\n"
    ));
    until("the agent has worked", || pod.path("workspace/ready").exists());
    pod.put("gastown/pod/drain", "Idle");
    let (_, report) = Pod::end_run(run);
    assert_eq!(report.exit, AgentExit::Drained);
    let record = pod.end_sync(sync);
    assert_eq!(record.saved[0].of, "uncommitted files");

    let next = attempt(&origin, 2);
    next.ready();
    let status = git(&next.repo(), &["status", "--porcelain"]);
    assert_eq!(status.lines().collect::<Vec<_>>(), ["D .gitignore", " M README", "?? half"]);
    let sync = next.sync();
    // Once they are gone, they do not come back.
    Pod::end_run(next.agent("git checkout -q .; rm half\n"));
    let record = next.end_sync(sync);
    assert_eq!((record.wip, record.saved), (None, vec![]));
    let third = attempt(&origin, 3);
    third.ready();
    // The second attempt had nothing to save, and the snapshot of the first is the newest one left.
    assert!(git_ok(&third.repo(), &["cat-file", "-e", &origin.at(WIP).unwrap()]));
}

#[test]
fn files_that_conflict_with_a_moved_branch_are_on_a_local_branch() {
    let origin = Origin::new();
    let (pod, sync) = started(&origin);
    Pod::end_run(pod.agent(&format!("{COMMIT}c one; echo mine > one\n")));
    pod.end_sync(sync);
    let clone = origin.clone_at("person");
    git(&clone, &["switch", "-q", "polecat/toast"]);
    fs::write(clone.join("one"), "theirs\n").unwrap();
    git(&clone, &["commit", "-q", "-am", "theirs"]);
    git(&clone, &["push", "-q", "origin", "HEAD:polecat/toast"]);
    let next = attempt(&origin, 2);
    next.ready();
    assert_eq!(git(&next.repo(), &["status", "--porcelain"]), "");
    assert_eq!(git(&next.repo(), &["show", "saved/attempt-1:one"]), "mine");
    // It is known to be saved, and is not the agent's work.
    let sync = next.sync();
    Pod::end_run(next.agent("true\n"));
    let record = next.end_sync(sync);
    assert_eq!(record.result, SyncResult::Pushed, "{record:?}");
    assert!(git_ok(&origin.path(), &["show", "polecat/toast:one"]));
}

#[test]
fn each_snapshot_holds_the_one_before() {
    let origin = Origin::new();
    let (pod, sync) = started(&origin);
    for (text, file) in [("1", "a"), ("2", "b")] {
        fs::write(pod.repo().join(file), text).unwrap();
        assert!(pod.checkpoint());
    }
    let first = git(&origin.path(), &["rev-parse", &format!("{WIP}^2")]);
    assert!(!git_ok(&origin.path(), &["show", &format!("{first}:b")]));
    assert_eq!(git(&origin.path(), &["show", &format!("{first}:a")]), "1");
    pod.end_sync(sync);
    // The same attempt again, as after a wait: its ref is continued.
    let again = Pod::new(&origin.url());
    again.ready();
    let sync = again.sync();
    fs::write(again.repo().join("c"), "3").unwrap();
    assert!(again.checkpoint(), "{}", again.log("sync"));
    assert!(git_ok(&origin.path(), &["merge-base", "--is-ancestor", &first, WIP]));
    again.end_sync(sync);
}

#[test]
fn a_workspace_that_did_not_change_is_not_saved_again() {
    let origin = Origin::new();
    let (pod, sync) = started(&origin);
    let side = git(&pod.repo(), &["commit-tree", "-p", "HEAD", "-m", "side", "HEAD^{tree}"]);
    git(&pod.repo(), &["branch", "side", &side]);
    assert!(pod.checkpoint());
    let saved = origin.at(WIP);
    assert!(saved.is_some() && pod.checkpoint());
    assert_eq!(origin.at(WIP), saved);
    pod.end_sync(sync);
}

#[test]
fn a_pod_that_was_given_up_cannot_push_once_another_has_begun() {
    let origin = Origin::new();
    let (old, sync) = started(&origin);
    fs::write(old.repo().join("w0"), "0").unwrap();
    git(&old.repo(), &["add", "w0"]);
    git(&old.repo(), &["-c", "user.name=a", "-c", "user.email=a@e", "commit", "-q", "-m", "0"]);
    git(&old.repo(), &["push", "-q", "origin", "HEAD:polecat/toast"]);
    until("the first commit is pushed", || origin.at("polecat/toast").is_some());
    let before = origin.at("polecat/toast");

    let new = attempt(&origin, 2);
    new.ready();
    let new_sync = new.sync();
    // The old one does not know, and commits once more.
    Pod::end_run(old.agent(&format!("{COMMIT}c zombie; echo z > z\n")));
    let record = old.end_sync(sync);
    assert_eq!(record.result, SyncResult::PushRace, "{record:?}");
    assert!(record.message.contains("taken over"), "{record:?}");
    assert_eq!(origin.at("polecat/toast"), before);
    assert!(
        git_ok(&origin.path(), &["show", &format!("{WIP}:z")]),
        "its work is saved all the same"
    );

    let (code, _) = Pod::end_run(new.agent(&format!("{COMMIT}c mine\n")));
    assert_eq!(code, Some(0), "{}", new.log("sync"));
    let record = new.end_sync(new_sync);
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(2)), "{record:?}");
}

#[test]
fn a_refusal_of_the_remote_reaches_the_agent_while_it_works() {
    let origin = Origin::new();
    let (mut pod, sync) = started(&origin);
    let hook = origin.path().join("hooks/update");
    fs::write(&hook, "#!/bin/sh\ncase $1 in refs/heads/*) echo no secrets >&2; exit 1;; esac\n")
        .unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Claude Code reads nudges; this one writes what it reads into a file.
    let first = format!("{COMMIT}c one; read -r reported; printf %s \"$reported\" > reported");
    crate::running::claude(&mut pod, "completed", &first);
    Pod::end_run(pod.start("run", &["run"]));
    let reported = fs::read_to_string(pod.repo().join("reported")).unwrap();
    assert!(
        reported.contains("no secrets") && reported.contains("does not accept"),
        "{reported:?}"
    );
    pod.end_sync(sync);
}

#[test]
fn the_probe_fails_until_the_end_is_saved() {
    let origin = Origin::new();
    let (pod, sync) = started(&origin);
    assert_eq!(pod.start("saved", &["saved"]).wait(), Some(0));
    fs::write(pod.repo().join("dirty"), "d").unwrap();
    pod.put("gastown/pod/drain", "Terminated");
    // Nobody asks for it: the sidecar alone saves after a drain, whatever `gt run` does.
    until("the end is saved", || git_ok(&origin.path(), &["show", &format!("{WIP}:dirty")]));
    until("the probe succeeds", || pod.start("saved", &["saved"]).wait() == Some(0));
    pod.end_sync(sync);
}
