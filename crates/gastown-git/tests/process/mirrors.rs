//! What a mirror fetches, and how it recovers.

use std::fmt::Write as _;
use std::time::Duration;

use gastown_git::remote::init_bare;
use gastown_git::{Class, Git, Mirror, Remote};
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

/// A file that compresses to nothing like its size, and its next version, which is stored as a
/// difference from it: to check it, git has both in memory.
fn large(g: &Fixture) {
    let mut line = 0_u64;
    let mut text = String::new();
    while text.len() < 16 << 20 {
        line = line.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let _ = writeln!(text, "{line:020}");
    }
    g.commit("large", &[("file", &text)]);
    text.push_str("more\n");
    g.commit("larger", &[("file", &text)]);
    git(&g.work(), &["repack", "-q", "-a", "-d", "-f"]);
    g.push("main");
}

#[tokio::test]
async fn a_fetch_that_needs_too_much_memory_fails_by_itself_and_names_its_limit() {
    let g = Fixture::new();
    large(&g);
    let path = g.dir.path().join("m");
    let small = Mirror::at(Git::from_env().with_memory(20 << 20), &path, &g.url());
    let error = small.refresh(&g.as_remote(), &[branch("main")]).await.unwrap_err();
    assert!(error.to_string().contains("needs more than 20 MiB of memory"), "{error}");
    let large = Mirror::at(Git::from_env().with_memory(512 << 20), &path, &g.url());
    let at = large.refresh(&g.as_remote(), &[branch("main")]).await.unwrap();
    assert_eq!(at[&branch("main")], g.head());
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
async fn a_mirror_that_is_made_again_is_another_one_and_unused_ones_go() {
    let g = Fixture::new();
    g.commit("one", &[("a", "1")]);
    g.push("main");
    let mirror = g.mirror("m");
    assert_eq!(mirror.id(), None);
    mirror.refresh(&g.as_remote(), &[branch("main")]).await.unwrap();
    let first = mirror.id().unwrap();
    mirror.refresh(&g.as_remote(), &[branch("main")]).await.unwrap();
    mirror.pack().await.unwrap();
    assert_eq!(mirror.id().as_ref(), Some(&first));
    mirror.discard().unwrap();
    mirror.refresh(&g.as_remote(), &[branch("main")]).await.unwrap();
    assert!(mirror.id().is_some_and(|second| second != first));
    let root = mirror.path().parent().unwrap();
    Mirror::sweep(root, &[mirror.path().to_owned()]);
    assert!(mirror.path().exists());
    Mirror::sweep(root, &[]);
    assert!(!mirror.path().exists());
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

#[tokio::test]
async fn the_tags_in_the_targets_history_are_followed_and_dropped_with_the_remotes() {
    let g = Fixture::new();
    g.commit("one", &[("a", "1")]);
    git(&g.work(), &["tag", "-a", "-m", "one", "v1"]);
    let tip = g.commit("two", &[("a", "2")]);
    git(&g.work(), &["tag", "dir/light"]);
    g.push("main");
    g.checkout("side", "main");
    g.commit("three", &[("a", "3")]);
    git(&g.work(), &["tag", "-a", "-m", "three", "side-tag"]);
    git(&g.work(), &["push", "-q", "origin", "side", "--tags"]);
    let mirror = g.mirror("m");
    let tags = || git(mirror.path(), &["for-each-ref", "--format=%(refname)", "refs/gastown/tags"]);
    let names = |text: &str| {
        text.lines().map(|l| l.splitn(5, '/').last().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let main = branch("main");
    mirror.refresh(&g.as_remote(), &[main.clone(), branch("side")]).await.unwrap();
    mirror.follow_tags(&g.as_remote(), &main, &tip).await.unwrap();
    assert_eq!(names(&tags()), ["dir/light", "v1"]);
    git(mirror.path(), &["fsck", "--strict"]);
    // The next commit of the branch makes them listed again.
    git(&g.work(), &["push", "-q", "origin", ":refs/tags/v1"]);
    mirror.follow_tags(&g.as_remote(), &main, &tip).await.unwrap();
    assert_eq!(names(&tags()), ["dir/light", "v1"]);
    g.checkout("main", "main");
    let tip = g.commit("four", &[("a", "4")]);
    g.push("main");
    mirror.refresh(&g.as_remote(), std::slice::from_ref(&main)).await.unwrap();
    mirror.follow_tags(&g.as_remote(), &main, &tip).await.unwrap();
    assert_eq!(names(&tags()), ["dir/light"]);
}

#[tokio::test]
async fn what_a_killed_fetch_left_is_removed_by_the_next_one() {
    let g = Fixture::new();
    g.commit("one", &[("a", "1")]);
    g.push("main");
    let mirror = g.mirror("m");
    mirror.refresh(&g.as_remote(), &[branch("main")]).await.unwrap();
    let pack = mirror.path().join("objects/pack/tmp_pack_Ab12Cd");
    let fresh = mirror.path().join("refs/gastown/candidates.lock");
    std::fs::create_dir_all(pack.parent().unwrap()).unwrap();
    std::fs::write(&pack, "half").unwrap();
    std::fs::write(&fresh, "").unwrap();
    g.commit("two", &[("a", "2")]);
    g.push("main");
    mirror.refresh(&g.as_remote(), &[branch("main")]).await.unwrap();
    assert!(!pack.exists(), "an unfinished pack stays");
    assert!(fresh.exists(), "the lock of a running git was taken");
}
