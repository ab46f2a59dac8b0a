//! Reading and replacing single files.

use gastown_git::files::{Folder, Kind, Replacement};
use gastown_git::{Class, Git, Objects, PushOutcome};
use gastown_types::CommitId;

use crate::fixture::{Fixture, branch, git, update};

/// A commit on `parent` that replaces `.beads/issues.jsonl`.
fn replaced(
    objects: &Objects,
    parent: &CommitId,
    bytes: &[u8],
) -> Result<CommitId, gastown_git::GitError> {
    objects.replace(&Replacement {
        parent,
        folder: ".beads",
        name: "issues.jsonl",
        bytes,
        author: "Ann <ann@example.org>",
        committer: "Bot <bot@example.org>",
        second: 1_700_000_000,
        message: "Change it\n\nDone: one two\n",
    })
}

#[tokio::test]
async fn one_file_is_replaced_and_the_rest_of_the_tree_is_the_same() {
    let g = Fixture::new();
    let base = g.commit(
        "one",
        &[("a/b", "1"), (".beads/issues.jsonl", "{}\n"), (".beads/config.yaml", "x: y\n")],
    );
    g.push("main");
    let mirror = g.mirror("m");
    mirror.refresh(&g.as_remote(), &[branch("main")]).await.unwrap();
    let objects = mirror.objects().unwrap();
    let made = replaced(&objects, &base, b"new\n").unwrap();
    assert_eq!(
        replaced(&objects, &base, b"new\n").unwrap(),
        made,
        "the same input gives the same commit"
    );
    let outcome = g
        .as_remote()
        .push(&Git::from_env(), mirror.path(), &[update("beads", None, Some(&made))])
        .await
        .unwrap();
    assert_eq!(outcome, [PushOutcome::Done]);
    let diff = git(&g.remote(), &["diff", "--name-status", base.as_str(), made.as_str()]);
    assert_eq!(diff, "M\t.beads/issues.jsonl");
    assert_eq!(
        git(&g.remote(), &["log", "-1", "--format=%an %cn %ct %s", "beads"]),
        "Ann Bot 1700000000 Change it"
    );
    let trailers =
        |since: &[CommitId], who: &str| objects.trailers(&made, since, who, "Done").unwrap();
    assert_eq!(trailers(&[], "Bot <bot@example.org>"), [(made.clone(), "one two".to_owned())]);
    assert!(trailers(&[], "Ann <ann@example.org>").is_empty(), "an author is not the committer");
    let both = [base.clone(), made.clone()];
    assert!(trailers(&both, "Bot <bot@example.org>").is_empty());
}

#[tokio::test]
async fn a_file_is_read_only_when_it_is_one_and_not_too_big() {
    let g = Fixture::new();
    g.commit("one", &[(".beads/big", "0123456789"), ("sub/x", "1")]);
    std::os::unix::fs::symlink("/etc/passwd", g.work().join(".beads/issues.jsonl")).unwrap();
    std::os::unix::fs::symlink("sub", g.work().join("link")).unwrap();
    let tip = g.commit("two", &[]);
    g.push("main");
    let mirror = g.mirror("m");
    mirror.refresh(&g.as_remote(), &[branch("main")]).await.unwrap();
    let objects = mirror.objects().unwrap();
    let Folder::Entries(entries) = objects.folder(&tip, ".beads").unwrap() else { panic!() };
    let kinds: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.kind)).collect();
    assert_eq!(kinds, [("big", Kind::File), ("issues.jsonl", Kind::Symlink)]);
    assert_eq!(objects.read_file(&entries[0], 10).unwrap(), b"0123456789");
    assert_eq!(objects.read_file(&entries[0], 9).unwrap_err().class, Class::TooMuchOutput);
    assert!(objects.read_file(&entries[1], 99).is_err());
    assert!(replaced(&objects, &tip, b"x").unwrap_err().to_string().contains("symbolic link"));
    assert_eq!(objects.folder(&tip, "link").unwrap(), Folder::Other("link".into(), Kind::Symlink));
    for absent in ["none", "../x", "sub//x", "sub/./x", ""] {
        assert_eq!(objects.folder(&tip, absent).unwrap(), Folder::Absent, "{absent:?}");
    }
}
