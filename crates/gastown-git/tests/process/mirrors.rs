//! What a mirror fetches, and how it recovers.

use std::time::Duration;

use gastown_git::remote::init_bare;
use gastown_git::{Class, Git, Remote};
use gastown_types::GitUrl;

use crate::fixture::{Fixture, branch, count, git};

#[tokio::test]
async fn a_mirror_follows_branches_and_leaves_out_missing_ones() {
    let g = Fixture::new();
    let first = g.commit("one", &[("a", "1")]);
    g.push("main");
    let mirror = g.mirror("m");
    let at = mirror.refresh(&g.as_remote(), &[branch("main"), branch("absent")]).await.unwrap();
    assert_eq!(at.get(&branch("main")), Some(&first));
    assert!(!at.contains_key(&branch("absent")));
    let second = g.commit("two", &[("a", "2")]);
    g.push("main");
    let at = mirror.refresh(&g.as_remote(), &[branch("main")]).await.unwrap();
    assert_eq!(at[&branch("main")], second);
    assert_eq!(count(mirror.path(), &first, &second), "1");
    let objects = mirror.objects().unwrap();
    assert!(
        objects.is_ancestor(&first, &second).unwrap()
            && !objects.is_ancestor(&second, &first).unwrap()
    );
}

#[tokio::test]
async fn a_branch_may_become_a_folder_of_branches() {
    let g = Fixture::new();
    g.commit("one", &[("a", "1")]);
    git(&g.work(), &["push", "-q", "origin", "HEAD:refs/heads/x"]);
    let mirror = g.mirror("m");
    mirror.refresh(&g.as_remote(), &[branch("x")]).await.unwrap();
    git(&g.work(), &["push", "-q", "origin", ":refs/heads/x", "HEAD:refs/heads/x/y"]);
    let at = mirror.refresh(&g.as_remote(), &[branch("x"), branch("x/y")]).await.unwrap();
    assert_eq!(at.keys().cloned().collect::<Vec<_>>(), [branch("x/y")]);
}

#[tokio::test]
async fn a_mirror_recovers_from_stale_locks_and_from_damage() {
    let g = Fixture::new();
    let first = g.commit("one", &[("a", "1")]);
    g.push("main");
    let mirror = g.mirror("m");
    mirror.refresh(&g.as_remote(), &[branch("main")]).await.unwrap();
    let lock = mirror.path().join("refs/gastown/upstream/heads/main.lock");
    std::fs::write(&lock, "").unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&lock).unwrap().set_modified(old).unwrap();
    let second = g.commit("two", &[("a", "2")]);
    g.push("main");
    assert_eq!(
        mirror.refresh(&g.as_remote(), &[branch("main")]).await.unwrap()[&branch("main")],
        second
    );
    for pack in ["objects", "HEAD"] {
        let path = mirror.path().join(pack);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
        let at = mirror.refresh(&g.as_remote(), &[branch("main")]).await.unwrap();
        assert_eq!(at[&branch("main")], second);
        assert!(mirror.objects().unwrap().has(&first));
    }
}

#[tokio::test]
async fn missing_repositories_and_branches_have_classes_of_their_own() {
    let g = Fixture::new();
    let absent: GitUrl = format!("file://{}/absent.git", g.dir.path().display()).parse().unwrap();
    let e = Remote::anonymous(absent).ls_remote(&Git::from_env(), &[]).await.unwrap_err();
    assert_eq!(e.class, Class::RepositoryNotFound, "{e}");
    g.commit("one", &[("a", "1")]);
    g.push("main");
    let spec = ["refs/heads/absent:refs/x".to_owned()];
    let copy = g.dir.path().join("c.git");
    init_bare(&Git::from_env(), &copy, false).await.unwrap();
    let e = g.as_remote().fetch(&Git::from_env(), &copy, &spec).await.unwrap_err();
    assert_eq!(e.class, Class::RefNotFound, "{e}");
    let nobody = Remote::anonymous("http://127.0.0.1:1/r.git".parse().unwrap());
    let e = nobody.ls_remote(&Git::from_env(), &[]).await.unwrap_err();
    assert_eq!(e.class, Class::Unreachable, "{e}");
}
