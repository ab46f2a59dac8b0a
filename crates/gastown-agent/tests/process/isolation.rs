//! A hostile agent: nothing that it plants runs, is read, or is pushed beyond its own branch and
//! snapshot.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use gastown_core::report::SyncResult;

use crate::pod::{Origin, Pod, Running, WIP, git, git_ok, until};

struct Scene {
    origin: Origin,
    pod: Pod,
    sync: Running,
}

/// A pod whose agent has committed `work` to its branch in the local origin, with only the sidecar
/// running.
fn scene(plant: impl FnOnce(&Pod)) -> Scene {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    plant(&pod);
    let sync = pod.sync();
    Scene { origin, pod, sync }
}

pub fn commit(pod: &Pod, name: &str) -> String {
    fs::write(pod.repo().join(name), name).unwrap();
    git(&pod.repo(), &["add", name]);
    git(&pod.repo(), &["commit", "-q", "-m", name]);
    git(&pod.repo(), &["rev-parse", "HEAD"])
}

pub fn push(pod: &Pod) {
    let origin = pod.path("workspace/origin.git");
    git(
        &pod.repo(),
        &["push", "-q", "--force", origin.to_str().unwrap(), "HEAD:refs/heads/polecat/toast"],
    );
}

fn script(path: &Path, marker: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\necho $0 >> {}\ncat\n", marker.display())).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn fifo(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
}

#[test]
fn nothing_planted_in_the_repositories_runs() {
    let marker = tempfile::tempdir().unwrap();
    let ran = marker.path().join("ran");
    let evil = marker.path().join("evil.sh");
    script(&evil, &ran);
    let s = scene(|pod| {
        // First the work, by a git that would run it all.
        commit(pod, "work");
        push(pod);
        let evil = evil.display();
        let config = format!(
            "[core]\n\tsshCommand = {evil}\n\tfsmonitor = {evil}\n\thooksPath = {0}\n\tgitProxy = {evil}\n\teditor = {evil}\n\tpager = {evil}\n\
             \taskPass = {evil}\n\talternateRefsCommand = {evil}\n[filter \"x\"]\n\tclean = {evil}\n\tsmudge = {evil}\n\tprocess = {evil}\n\
             [diff]\n\texternal = {evil}\n[credential]\n\thelper = {evil}\n[uploadpack]\n\tpackObjectsHook = {evil}\n[gpg]\n\tprogram = {evil}\n\
             [include]\n\tpath = {0}/more\n[url \"{0}/other\"]\n\tinsteadOf = file://\n[remote \"origin\"]\n\tuploadpack = {evil}\n\treceivepack = {evil}\n",
            marker.path().display()
        );
        for repo in ["workspace/repo/.git", "workspace/origin.git"] {
            let file = pod.path(repo).join("config");
            let old = fs::read_to_string(&file).unwrap();
            fs::write(&file, format!("{old}{config}")).unwrap();
            for hook in [
                "pre-push",
                "post-checkout",
                "reference-transaction",
                "update",
                "post-receive",
                "pre-auto-gc",
                "post-index-change",
            ] {
                script(&pod.path(repo).join("hooks").join(hook), &ran);
                script(&marker.path().join(hook), &ran);
            }
        }
        fs::write(pod.repo().join(".gitattributes"), "* filter=x diff=x merge=x\n").unwrap();
        fs::write(pod.repo().join("dirty"), "dirty").unwrap();
    });
    until("the work is pushed", || s.origin.at("polecat/toast").is_some());
    assert!(s.pod.checkpoint(), "{}", s.pod.log("checkpoint"));
    let record = s.pod.end_sync(s.sync);
    assert_eq!(
        (record.result, record.wip.as_deref()),
        (SyncResult::Pushed, Some(WIP)),
        "{}",
        s.pod.log("sync")
    );
    // The filter would have changed what is stored.
    assert_eq!(git(&s.origin.path(), &["show", &format!("{WIP}:dirty")]), "dirty");
    assert!(!ran.exists(), "planted code ran: {}", fs::read_to_string(&ran).unwrap());
    assert_eq!(s.origin.refs(), [WIP, "refs/heads/main", "refs/heads/polecat/toast"]);
    // The trap is a real one: any git in there runs it.
    git_ok(&s.pod.repo(), &["status"]);
    assert!(ran.exists());
}

#[test]
fn a_worktree_that_is_a_link_elsewhere_is_not_read() {
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("token"), "s3cret-token").unwrap();
    let s = scene(|pod| {
        commit(pod, "work");
        push(pod);
        fs::rename(pod.repo(), pod.path("workspace/moved")).unwrap();
        symlink(secret.path(), pod.repo()).unwrap();
    });
    until("the work is pushed", || s.origin.at("polecat/toast").is_some());
    assert!(s.pod.checkpoint());
    let record = s.pod.end_sync(s.sync);
    assert_eq!(record.result, SyncResult::Pushed, "{}", s.pod.log("sync"));
    assert_eq!(record.wip, None);
    assert_eq!(record.unsaved, ["the files of the clone: neither a plain file nor a folder"]);
    assert_nowhere(&s.origin, "s3cret-token");
}

/// No object of the remote holds the text.
pub fn assert_nowhere(origin: &Origin, text: &str) {
    let objects = git(
        &origin.path(),
        &["cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)"],
    );
    for id in objects.lines().filter_map(|l| l.strip_suffix(" blob")) {
        assert!(!git(&origin.path(), &["cat-file", "blob", id]).contains(text), "{id}");
    }
}

#[test]
fn links_within_the_worktree_are_stored_and_not_followed() {
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("token"), "s3cret-token").unwrap();
    let s = scene(|pod| {
        let repo = pod.repo();
        symlink(secret.path(), repo.join("folder")).unwrap();
        symlink(secret.path().join("token"), repo.join("file")).unwrap();
        symlink("loop", repo.join("loop")).unwrap();
        fs::remove_file(repo.join(".gitignore")).unwrap();
        symlink(secret.path().join("token"), repo.join(".gitignore")).unwrap();
        fs::create_dir_all(repo.join(".git/info")).unwrap();
        let _ = fs::remove_file(repo.join(".git/info/exclude"));
        symlink(secret.path().join("token"), repo.join(".git/info/exclude")).unwrap();
    });
    assert!(s.pod.checkpoint(), "{}", s.pod.log("sync"));
    for link in ["folder", "file", "loop", ".gitignore"] {
        assert!(git(&s.origin.path(), &["ls-tree", WIP, link]).starts_with("120000"), "{link}");
    }
    assert_nowhere(&s.origin, "s3cret-token");
    s.pod.end_sync(s.sync);
}

#[test]
fn a_file_that_cannot_be_saved_is_named_and_does_not_block_the_snapshot() {
    let s = scene(|pod| {
        let repo = pod.repo();
        fifo(&repo.join("fifo"));
        fs::File::create(repo.join("giant")).unwrap().set_len(1 << 40).unwrap();
        // A tracked file in whose place something else is keeps what HEAD has.
        fs::remove_file(repo.join("README")).unwrap();
        fifo(&repo.join("README"));
        let mut deep = repo.join("deep");
        for _ in 0..400 {
            deep = deep.join("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), "f").unwrap();
        fs::write(repo.join("kept"), "kept").unwrap();
        fs::create_dir_all(repo.join("nested/.git/hooks")).unwrap();
        fs::write(repo.join("nested/.GIT"), "x").unwrap();
        fs::write(repo.join("nested/file"), "nested").unwrap();
    });
    assert!(s.pod.checkpoint(), "{}", s.pod.log("sync"));
    let files = git(&s.origin.path(), &["ls-tree", "-r", "--name-only", WIP]);
    assert_eq!(files.lines().collect::<Vec<_>>(), [".gitignore", "README", "kept", "nested/file"]);
    assert_eq!(git(&s.origin.path(), &["show", &format!("{WIP}:README")]), "hello");
    let message = git(&s.origin.path(), &["log", "-1", "--format=%B", WIP]);
    for named in ["fifo", "giant", "README", "too deep"] {
        assert!(message.contains(named), "{named} is not in {message}");
    }
    s.pod.end_sync(s.sync);
}

#[test]
fn an_origin_that_is_a_link_is_not_read() {
    let other = Origin::new();
    let theirs = other.another_writer("polecat/toast");
    let s = scene(|pod| {
        fs::remove_dir_all(pod.path("workspace/origin.git")).unwrap();
        symlink(other.path(), pod.path("workspace/origin.git")).unwrap();
    });
    assert!(!s.pod.checkpoint());
    let record = s.pod.end_sync(s.sync);
    assert_eq!((record.result, &record.commit), (SyncResult::BadObjects, &None), "{record:?}");
    assert_eq!(s.origin.refs(), ["refs/heads/main"]);
    assert!(!git_ok(&s.origin.path(), &["cat-file", "-e", &theirs]));
}

#[test]
fn alternates_of_the_agent_are_not_followed() {
    // A repository that the sidecar could read and the agent could not.
    let hidden = Origin::new();
    let theirs = hidden.another_writer("secret");
    let s = scene(|pod| {
        let at = pod.path("workspace/origin.git");
        let lines = format!("{}\n", hidden.path().join("objects").display());
        fs::write(at.join("objects/info/alternates"), &lines).unwrap();
        fs::write(at.join("refs/heads/main"), format!("{theirs}\n")).unwrap();
        fs::create_dir_all(at.join("refs/heads/polecat")).unwrap();
        fs::write(at.join("refs/heads/polecat/toast"), format!("{theirs}\n")).unwrap();
    });
    assert!(!s.pod.checkpoint());
    let record = s.pod.end_sync(s.sync);
    assert_eq!(record.result, SyncResult::BadObjects, "{record:?}");
    assert_eq!(s.origin.refs(), ["refs/heads/main"]);
}

#[test]
fn fifos_and_huge_files_among_objects_and_refs_do_not_block_the_sidecar() {
    let s = scene(|pod| {
        commit(pod, "work");
        push(pod);
        let at = pod.path("workspace/origin.git");
        for name in ["objects/aa", "objects/pack"] {
            fs::create_dir_all(at.join(name)).unwrap();
        }
        fifo(&at.join("objects/aa").join("b".repeat(38)));
        fifo(&at.join("objects/pack").join(format!("pack-{}.pack", "c".repeat(40))));
        symlink("/", at.join("objects/ab")).unwrap();
        fifo(&at.join("packed-refs"));
        fs::write(
            at.join("objects/pack").join(format!("pack-{}.pack", "d".repeat(40))),
            "PACK garbage",
        )
        .unwrap();
    });
    until("the work is pushed in spite of them", || s.origin.at("polecat/toast").is_some());
    let at = s.pod.path("workspace/origin.git");
    fs::remove_file(at.join("packed-refs")).unwrap();
    fs::remove_file(at.join("refs/heads/polecat/toast")).unwrap();
    fs::File::create(at.join("packed-refs")).unwrap().set_len(1 << 40).unwrap();
    until("the huge file is noticed", || s.pod.log("sync").contains("larger than"));
    let record = s.pod.end_sync(s.sync);
    assert_eq!(record.result, SyncResult::BadObjects);
    assert_eq!(
        record.ahead,
        Some(1),
        "the record has the commit that the remote holds: {record:?}"
    );
}

#[test]
fn broken_objects_never_reach_the_remote() {
    let s = scene(|pod| {
        commit(pod, "work");
        // A tree with an entry named `.git`, which fsck refuses.
        let blob = git(&pod.repo(), &["hash-object", "-w", "work"]);
        let raw: Vec<u8> = [b"100644 .git\0".to_vec(), hex(&blob)].concat();
        fs::write(pod.path("tree"), raw).unwrap();
        let tree = pod.path("tree");
        let id = git(
            &pod.repo(),
            &["hash-object", "-t", "tree", "--literally", "-w", tree.to_str().unwrap()],
        );
        let bad = git(&pod.repo(), &["commit-tree", "-p", "HEAD", "-m", "bad", &id]);
        git(&pod.repo(), &["push", "-q", "origin", &format!("{bad}:refs/heads/polecat/toast")]);
    });
    assert!(!s.pod.checkpoint());
    let record = s.pod.end_sync(s.sync);
    assert_eq!(record.result, SyncResult::BadObjects, "{record:?}");
    assert_eq!(s.origin.at("polecat/toast"), None);
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn only_the_polecats_own_branch_is_pushed() {
    let s = scene(|pod| {
        let head = commit(pod, "work");
        let at = pod.path("workspace/origin.git");
        for name in ["main", "release", "polecat/other"] {
            git(
                &pod.repo(),
                &[
                    "push",
                    "-q",
                    "--force",
                    at.to_str().unwrap(),
                    &format!("{head}:refs/heads/{name}"),
                ],
            );
        }
        push(pod);
    });
    let main = s.origin.at("main");
    until("the work is pushed", || s.origin.at("polecat/toast").is_some());
    s.pod.checkpoint();
    s.pod.end_sync(s.sync);
    assert_eq!(s.origin.refs(), ["refs/heads/main", "refs/heads/polecat/toast"]);
    assert_eq!(s.origin.at("main"), main);
}
