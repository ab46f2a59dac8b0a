//! Real git against real remotes: what is fetched, what may be pushed, what candidates become.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gastown_git::error::Refusal;
use gastown_git::files::{Folder, Kind, Replacement};
use gastown_git::{
    Built, Class, Git, Mirror, Objects, PushOutcome, Recipe, RefUpdate, Remote, Shape, Strategy,
    build,
};
use gastown_types::{BranchName, CommitId, GitUrl};
use proptest::prelude::*;
use tempfile::TempDir;

/// A bare remote, a clone to write with, and a folder for mirrors.
struct Ground {
    dir: TempDir,
}

impl Ground {
    fn new() -> Self {
        let ground = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(ground.remote()).unwrap();
        std::fs::create_dir(ground.work()).unwrap();
        git(&ground.remote(), &["init", "-q", "--bare", "-b", "main"]);
        git(&ground.work(), &["init", "-q", "-b", "main"]);
        git(&ground.work(), &["remote", "add", "origin", ground.remote().to_str().unwrap()]);
        ground
    }

    fn remote(&self) -> PathBuf {
        self.dir.path().join("remote.git")
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn url(&self) -> GitUrl {
        format!("file://{}", self.remote().display()).parse().unwrap()
    }

    fn to(&self) -> Remote {
        Remote::anonymous(self.url())
    }

    fn mirror(&self, name: &str) -> Mirror {
        Mirror::at(Git::from_env(), &self.dir.path().join(name), &self.url())
    }

    /// Writes files and commits them on the current branch.
    fn commit(&self, message: &str, files: &[(&str, &str)]) -> CommitId {
        for (path, text) in files {
            let full = self.work().join(path);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(full, text).unwrap();
        }
        git(&self.work(), &["add", "-A"]);
        git(&self.work(), &["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    fn head(&self) -> CommitId {
        git(&self.work(), &["rev-parse", "HEAD"]).parse().unwrap()
    }

    fn checkout(&self, branch: &str, from: &str) {
        git(&self.work(), &["checkout", "-q", "-B", branch, from]);
    }

    fn push(&self, branch: &str) {
        git(&self.work(), &["push", "-q", "-f", "origin", branch]);
    }

    fn remote_head(&self, branch: &str) -> Option<String> {
        let out = Command::new("git")
            .arg("-C")
            .arg(self.remote())
            .args(["rev-parse", "-q", "--verify", branch])
            .output()
            .unwrap();
        out.status.success().then(|| String::from_utf8(out.stdout).unwrap().trim().to_owned())
    }
}

fn try_git(dir: &Path, args: &[&str]) -> Option<String> {
    let out = Command::new("git")
        .current_dir(dir)
        .args([
            "-c",
            "user.name=Ann Author",
            "-c",
            "user.email=ann@example.org",
            "-c",
            "commit.gpgSign=false",
        ])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_EDITOR", "true")
        .output()
        .unwrap();
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn git(dir: &Path, args: &[&str]) -> String {
    try_git(dir, args).unwrap_or_else(|| panic!("git {args:?}"))
}

fn branch(name: &str) -> BranchName {
    name.parse().unwrap()
}

fn recipe(base: &CommitId, source: &CommitId) -> Recipe {
    Recipe {
        request: "uid-1".into(),
        base: base.clone(),
        source: source.clone(),
        strategy: Strategy::Rebase,
    }
}

/// Builds in a fresh mirror of the branches `main` and `work`.
async fn built(ground: &Ground, mirror: &Mirror, base: &CommitId, source: &CommitId) -> Built {
    mirror.refresh(&ground.to(), &[branch("main"), branch("work")]).await.unwrap();
    build_in(mirror.path(), recipe(base, source)).await
}

async fn build_in(path: &Path, recipe: Recipe) -> Built {
    let path = path.to_owned();
    let work = move || build(&Git::from_env(), &Objects::open(&path).unwrap(), &recipe).unwrap();
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn candidate(built: Built) -> (CommitId, Shape) {
    match built {
        Built::Candidate(c) => (c.commit, c.shape),
        other => panic!("{other:?}"),
    }
}

fn update(name: &str, expected: Option<&CommitId>, new: Option<&CommitId>) -> RefUpdate {
    RefUpdate { name: format!("refs/heads/{name}"), expected: expected.cloned(), new: new.cloned() }
}

#[tokio::test]
async fn a_mirror_follows_branches_and_says_which_are_gone() {
    let g = Ground::new();
    let first = g.commit("one", &[("a", "1")]);
    g.push("main");
    let mirror = g.mirror("m");
    let at = mirror.refresh(&g.to(), &[branch("main"), branch("absent")]).await.unwrap();
    assert_eq!(at.get(&branch("main")), Some(&first));
    assert!(!at.contains_key(&branch("absent")));
    let second = g.commit("two", &[("a", "2")]);
    g.push("main");
    let at = mirror.refresh(&g.to(), &[branch("main")]).await.unwrap();
    assert_eq!(at[&branch("main")], second);
    let objects = mirror.objects().unwrap();
    assert_eq!(objects.ahead_count(&first, &second).unwrap(), 1);
    assert!(
        objects.is_ancestor(&first, &second).unwrap()
            && !objects.is_ancestor(&second, &first).unwrap()
    );
}

#[tokio::test]
async fn a_branch_may_turn_into_a_folder_of_branches() {
    let g = Ground::new();
    g.commit("one", &[("a", "1")]);
    git(&g.work(), &["push", "-q", "origin", "HEAD:refs/heads/x"]);
    let mirror = g.mirror("m");
    mirror.refresh(&g.to(), &[branch("x")]).await.unwrap();
    git(&g.work(), &["push", "-q", "origin", ":refs/heads/x", "HEAD:refs/heads/x/y"]);
    let at = mirror.refresh(&g.to(), &[branch("x"), branch("x/y")]).await.unwrap();
    assert_eq!(at.keys().cloned().collect::<Vec<_>>(), [branch("x/y")]);
}

#[tokio::test]
async fn a_dead_process_s_locks_and_a_broken_mirror_are_no_obstacle() {
    let g = Ground::new();
    let first = g.commit("one", &[("a", "1")]);
    g.push("main");
    let mirror = g.mirror("m");
    mirror.refresh(&g.to(), &[branch("main")]).await.unwrap();
    let lock = mirror.path().join("refs/gastown/upstream/heads/main.lock");
    std::fs::write(&lock, "").unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&lock).unwrap().set_modified(old).unwrap();
    let second = g.commit("two", &[("a", "2")]);
    g.push("main");
    assert_eq!(mirror.refresh(&g.to(), &[branch("main")]).await.unwrap()[&branch("main")], second);
    for pack in ["objects", "HEAD"] {
        let path = mirror.path().join(pack);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
        let at = mirror.refresh(&g.to(), &[branch("main")]).await.unwrap();
        assert_eq!(at[&branch("main")], second);
        assert!(mirror.objects().unwrap().has(&first));
    }
}

#[tokio::test]
async fn missing_repositories_and_branches_are_typed() {
    let g = Ground::new();
    let absent: GitUrl = format!("file://{}/absent.git", g.dir.path().display()).parse().unwrap();
    let e = Remote::anonymous(absent).ls_remote(&Git::from_env(), &[]).await.unwrap_err();
    assert_eq!(e.class, Class::RepositoryNotFound, "{e}");
    g.commit("one", &[("a", "1")]);
    g.push("main");
    let spec = ["refs/heads/absent:refs/x".to_owned()];
    let e =
        g.to().clone_bare(&Git::from_env(), &g.dir.path().join("c.git"), &spec).await.unwrap_err();
    assert_eq!(e.class, Class::RefNotFound, "{e}");
    let nobody = Remote::anonymous("http://127.0.0.1:1/r.git".parse().unwrap());
    let e = nobody.ls_remote(&Git::from_env(), &[]).await.unwrap_err();
    assert_eq!(e.class, Class::Unreachable, "{e}");
}

#[tokio::test]
async fn a_push_moves_only_what_stands_where_we_said() {
    let g = Ground::new();
    let (one, two) = (g.commit("one", &[("a", "1")]), g.commit("two", &[("a", "2")]));
    let three = g.commit("three", &[("a", "3")]);
    let (git, repo) = (Git::from_env(), g.work().join(".git"));
    let push = async |u: RefUpdate| g.to().push(&git, &repo, &[u]).await.unwrap().remove(0);
    assert_eq!(push(update("main", None, Some(&one))).await, PushOutcome::Done);
    assert!(matches!(
        push(update("main", None, Some(&two))).await,
        PushOutcome::Rejected(Refusal::Stale, _)
    ));
    assert_eq!(push(update("main", Some(&one), Some(&two))).await, PushOutcome::Done);
    assert!(matches!(
        push(update("main", Some(&one), Some(&three))).await,
        PushOutcome::Rejected(Refusal::Stale, _)
    ));
    assert_eq!(push(update("main", Some(&one), Some(&two))).await, PushOutcome::UpToDate);
    assert_eq!(g.remote_head("main"), Some(two.to_string()));
    let dry = g.to().push_dry_run(&git, &repo, &[update("new", None, Some(&one))]).await.unwrap();
    assert_eq!((dry, g.remote_head("new")), (vec![PushOutcome::Done], None));
    assert!(matches!(
        push(update("main", Some(&one), None)).await,
        PushOutcome::Rejected(Refusal::Stale, _)
    ));
    assert_eq!(push(update("absent", Some(&one), None)).await, PushOutcome::UpToDate);
}

#[tokio::test]
async fn several_refs_move_together_or_not_at_all() {
    let g = Ground::new();
    let (one, two) = (g.commit("one", &[("a", "1")]), g.commit("two", &[("a", "2")]));
    g.push("main");
    let updates = [update("a", None, Some(&one)), update("main", Some(&one), Some(&two))];
    let outcomes = g.to().push(&Git::from_env(), &g.work().join(".git"), &updates).await.unwrap();
    assert!(
        !outcomes[0].is_ok()
            || !outcomes[1].is_ok()
            || g.remote_head("main") == Some(two.to_string()),
        "{outcomes:?}"
    );
    let stale = [update("b", None, Some(&one)), update("main", Some(&one), Some(&one))];
    let outcomes = g.to().push(&Git::from_env(), &g.work().join(".git"), &stale).await.unwrap();
    assert!(outcomes.iter().all(|o| !o.is_ok()), "{outcomes:?}");
    assert_eq!(g.remote_head("b"), None);
}

#[tokio::test]
async fn a_hook_of_the_remote_is_told_from_a_race() {
    use std::os::unix::fs::PermissionsExt as _;
    let g = Ground::new();
    let one = g.commit("one", &[("a", "1")]);
    let hook = g.remote().join("hooks/pre-receive");
    std::fs::write(&hook, "#!/bin/sh\necho 'no pushes on Fridays' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = g
        .to()
        .push(&Git::from_env(), &g.work().join(".git"), &[update("main", None, Some(&one))])
        .await
        .unwrap();
    let [PushOutcome::Rejected(Refusal::Hook, said)] = &outcome[..] else { panic!("{outcome:?}") };
    assert!(said.contains("no pushes on Fridays"), "{said}");
}

#[tokio::test]
async fn a_source_that_begins_at_the_base_is_taken_as_it_is() {
    let g = Ground::new();
    let base = g.commit("one", &[("a", "1")]);
    g.push("main");
    g.checkout("work", "main");
    let source = g.commit("two", &[("b", "2")]);
    g.push("work");
    let m = g.mirror("m");
    assert_eq!(
        candidate(built(&g, &m, &base, &source).await),
        (source.clone(), Shape::FastForward)
    );
    assert_eq!(build_in(m.path(), recipe(&source, &base)).await, Built::AlreadyInTarget);
}

#[tokio::test]
async fn a_candidate_is_the_same_in_every_mirror_and_keeps_its_author() {
    let g = Ground::new();
    g.commit("one", &[("a", "1\n2\n3\n4\n5\n6\n7\n8\n"), ("x", "1")]);
    g.checkout("work", "main");
    g.commit("upper", &[("a", "one\n2\n3\n4\n5\n6\n7\n8\n")]);
    let source = g.commit("new file", &[("b", "2")]);
    g.push("work");
    g.checkout("main", "main");
    let base = g.commit("lower", &[("a", "1\n2\n3\n4\n5\n6\n7\neight\n")]);
    g.push("main");
    let (m1, m2) = (g.mirror("m1"), g.mirror("m2"));
    let (first, shape) = candidate(built(&g, &m1, &base, &source).await);
    assert_eq!(shape, Shape::Replayed { commits: 2, dropped: 0 });
    assert_eq!(candidate(built(&g, &m2, &base, &source).await).0, first);
    let show = |format: &str| {
        git(m1.path(), &["log", "-1", &format!("--format={format}"), first.as_str()])
    };
    assert_eq!(show("%an <%ae>"), "Ann Author <ann@example.org>");
    assert_eq!(show("%cn <%ce>"), "Gastown Refinery <refinery@gastown.io>");
    assert_eq!(show("%ct"), git(&g.work(), &["log", "-1", "--format=%ct", source.as_str()]));
    assert_eq!(show("%B"), "new file\n\nGastown-Request: uid-1");
    assert_eq!(git(m1.path(), &["show", &format!("{first}:a")]), "one\n2\n3\n4\n5\n6\n7\neight");
    let objects = m1.objects().unwrap();
    assert_eq!(
        objects.contains_trailer(&first, Some(&base), "uid-1").unwrap(),
        Some(first.clone())
    );
    assert_eq!(objects.contains_trailer(&first, Some(&base), "uid").unwrap(), None);
    assert_eq!(objects.contains_trailer(&source, None, "uid-1").unwrap(), None);
}

#[tokio::test]
async fn a_conflict_names_its_paths_and_its_commit() {
    let g = Ground::new();
    g.commit("one", &[("a", "1"), ("ünï/b", "1")]);
    g.checkout("work", "main");
    let source = g.commit("mine", &[("a", "mine"), ("ünï/b", "mine")]);
    g.push("work");
    g.checkout("main", "main");
    let base = g.commit("theirs", &[("a", "theirs"), ("ünï/b", "theirs")]);
    g.push("main");
    let Built::Conflict(c) = built(&g, &g.mirror("m"), &base, &source).await else { panic!() };
    assert_eq!(c.paths, ["a", "ünï/b"]);
    assert_eq!(c.commit, source);
}

#[tokio::test]
async fn what_the_base_has_already_is_left_out() {
    let g = Ground::new();
    g.commit("one", &[("a", "1")]);
    g.checkout("work", "main");
    let same = g.commit("same change", &[("b", "2")]);
    g.push("work");
    g.checkout("main", "main");
    g.commit("other", &[("z", "1")]);
    let base = g.commit("picked", &[("b", "2")]);
    g.push("main");
    let m = g.mirror("m");
    assert_eq!(built(&g, &m, &base, &same).await, Built::AlreadyInTarget);
    g.checkout("work", "work");
    let source = g.commit("more", &[("c", "3")]);
    g.push("work");
    let (_, shape) = candidate(built(&g, &m, &base, &source).await);
    assert_eq!(shape, Shape::Replayed { commits: 1, dropped: 1 });
}

#[tokio::test]
async fn a_source_with_merges_becomes_one_commit_and_says_so() {
    let g = Ground::new();
    g.commit("one", &[("a", "1")]);
    g.checkout("work", "main");
    g.commit("feature", &[("b", "2")]);
    g.checkout("main", "main");
    let base = g.commit("meanwhile", &[("c", "3")]);
    g.push("main");
    g.checkout("work", "work");
    git(&g.work(), &["merge", "-q", "--no-edit", "main"]);
    let source = g.head();
    g.push("work");
    let m = g.mirror("m");
    let (id, shape) = candidate(built(&g, &m, &base, &source).await);
    assert_eq!(shape, Shape::MergedAsOne);
    let objects = m.objects().unwrap();
    assert_eq!(objects.tree_of(&id).unwrap(), objects.tree_of(&source).unwrap());
    assert_eq!(objects.ahead_count(&base, &id).unwrap(), 1);
    let message = git(m.path(), &["log", "-1", "--format=%B", id.as_str()]);
    assert!(
        message.starts_with("feature\n")
            && message.contains("holds merges")
            && message.contains("Gastown-Request: uid-1"),
        "{message}"
    );
}

#[tokio::test]
async fn the_beads_folder_is_the_target_s_own() {
    let g = Ground::new();
    g.commit("one", &[("a", "1"), (".beads/issues.jsonl", "1")]);
    g.checkout("work", "main");
    let source = g.commit("two", &[("a", "2"), (".beads/issues.jsonl", "mine")]);
    g.push("work");
    g.checkout("main", "main");
    g.push("main");
    let base: CommitId = git(&g.work(), &["rev-parse", "main"]).parse().unwrap();
    let m = g.mirror("m");
    let (id, shape) = candidate(built(&g, &m, &base, &source).await);
    assert_eq!(shape, Shape::Replayed { commits: 1, dropped: 0 });
    assert_eq!(git(m.path(), &["show", &format!("{id}:.beads/issues.jsonl")]), "1");
    assert_eq!(git(m.path(), &["show", &format!("{id}:a")]), "2");
}

#[tokio::test]
async fn a_commit_that_claims_to_be_of_a_request_is_written_anew() {
    let g = Ground::new();
    let base = g.commit("one", &[("a", "1")]);
    g.push("main");
    g.checkout("work", "main");
    let source = g.commit("two\n\nGastown-Request: somebody-else", &[("b", "2")]);
    g.push("work");
    let m = g.mirror("m");
    let (id, _) = candidate(built(&g, &m, &base, &source).await);
    assert_ne!(id, source);
    let objects = m.objects().unwrap();
    assert_eq!(objects.contains_trailer(&id, None, "somebody-else").unwrap(), None);
    assert_eq!(objects.contains_trailer(&id, None, "uid-1").unwrap(), Some(id));
}

#[tokio::test]
async fn serving_shows_one_candidate_and_nothing_else() {
    let g = Ground::new();
    let base = g.commit("one", &[("a", "1")]);
    g.push("main");
    let other = g.commit("two", &[("a", "2")]);
    git(&g.work(), &["push", "-q", "origin", "HEAD:refs/heads/secret"]);
    let m = g.mirror("m");
    m.refresh(&g.to(), &[branch("main"), branch("secret")]).await.unwrap();
    m.keep_candidate(&base).await.unwrap();
    let git = Git::from_env();
    let text =
        String::from_utf8(gastown_git::serve::advertise(&git, m.path(), &base).await.unwrap())
            .unwrap();
    assert!(text.contains(&format!("refs/gastown/candidates/{base}")), "{text}");
    assert!(!text.contains(other.as_str()), "{text}");
    let ask = async |id: &CommitId| {
        let want = format!("want {id} \n");
        let body = format!("{:04x}{want}00000009done\n", want.len() + 4);
        let mut pack = gastown_git::serve::answer(
            &git,
            m.path(),
            &base,
            body.into_bytes(),
            Duration::from_secs(60),
        )
        .unwrap();
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut pack, &mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    assert!(ask(&base).await.contains("PACK"));
    let refused = ask(&other).await;
    assert!(refused.contains("not our ref") && !refused.contains("PACK"), "{refused}");
}

/// A random edit: which file, which of its lines, what to write there; deletions and new files too.
#[derive(Clone, Debug)]
struct Edit {
    file: u8,
    line: u8,
    word: u8,
    kind: u8,
}

fn edits(n: usize) -> impl proptest::strategy::Strategy<Value = Vec<Edit>> {
    use proptest::strategy::Strategy as _;
    let edit = (0..4u8, 0..12u8, 0..4u8, 0..10u8).prop_map(|(file, line, word, kind)| Edit {
        file,
        line,
        word,
        kind,
    });
    prop::collection::vec(edit, 1..n)
}

fn apply(dir: &Path, e: &Edit) {
    let path = dir.join(format!("f{}", e.file));
    match e.kind {
        0 => drop(std::fs::remove_file(&path)),
        1 => drop(std::fs::rename(&path, dir.join(format!("moved{}", e.file)))),
        _ => {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let at = usize::from(e.line).min(lines.len());
            if at < lines.len() && e.kind < 7 {
                lines[at] = format!("w{}", e.word);
            } else {
                lines.insert(at, format!("n{}", e.word));
            }
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        }
    }
}

/// Whether the candidate of `ours` on `theirs` is what `git rebase` makes of them.
fn compare(ours: &[Edit], theirs: &[Edit]) -> Result<(), TestCaseError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let g = Ground::new();
    let lines = (0..12).map(|i| format!("line {i}")).collect::<Vec<_>>().join("\n") + "\n";
    let files: Vec<(String, String)> =
        (0..3).map(|i| (format!("f{i}"), format!("file {i}\n{lines}"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    g.commit("root", &files);
    g.checkout("work", "main");
    for (i, e) in ours.iter().enumerate() {
        apply(&g.work(), e);
        git(&g.work(), &["add", "-A"]);
        // Commits without a change are no subject here: git keeps those that began empty.
        let _ = try_git(&g.work(), &["commit", "-q", "-m", &format!("ours {i}")]);
    }
    g.push("work");
    let source = g.head();
    g.checkout("main", "main");
    for e in theirs {
        apply(&g.work(), e);
    }
    let base = g.commit("theirs", &[("z", "z")]);
    g.push("main");
    let m = g.mirror("m");
    let ours_says = runtime.block_on(built(&g, &m, &base, &source));
    git(&g.work(), &["checkout", "-q", "--detach", source.as_str()]);
    let rebased = try_git(
        &g.work(),
        &[
            "-c",
            "merge.directoryRenames=false",
            "rebase",
            "-q",
            "--no-autosquash",
            "--empty=drop",
            base.as_str(),
        ],
    );
    match (rebased, ours_says) {
        (Some(_), Built::Candidate(c)) => {
            let objects = m.objects().unwrap();
            prop_assert_eq!(
                objects.tree_of(&c.commit).unwrap(),
                git(&g.work(), &["rev-parse", "HEAD^{tree}"])
            );
            let count = git(&g.work(), &["rev-list", "--count", &format!("{base}..HEAD")]);
            prop_assert_eq!(objects.ahead_count(&base, &c.commit).unwrap().to_string(), count);
        }
        (Some(_), Built::AlreadyInTarget) => {
            prop_assert_eq!(
                git(&g.work(), &["rev-parse", "HEAD^{tree}"]),
                git(&g.work(), &["rev-parse", &format!("{base}^{{tree}}")])
            );
        }
        (None, Built::Conflict(c)) => prop_assert!(!c.paths.is_empty()),
        (rebased, built) => prop_assert!(
            false,
            "git rebase {}, we {built:?}",
            if rebased.is_some() { "went through" } else { "stopped" }
        ),
    }
    Ok(())
}

#[test]
fn a_change_that_the_other_side_made_and_moved_is_no_conflict() {
    let change = Edit { file: 0, line: 10, word: 2, kind: 7 };
    let moved = Edit { file: 0, line: 0, word: 0, kind: 1 };
    compare(std::slice::from_ref(&change), &[change.clone(), moved]).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever `git rebase` makes of a line of commits, the candidate has the same tree and as
    /// many commits; where it stops, so do we.
    #[test]
    fn a_candidate_is_what_git_rebase_makes(ours in edits(4), theirs in edits(4)) {
        compare(&ours, &theirs)?;
    }
}

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
    let g = Ground::new();
    let base = g.commit(
        "one",
        &[("a/b", "1"), (".beads/issues.jsonl", "{}\n"), (".beads/config.yaml", "x: y\n")],
    );
    g.push("main");
    let mirror = g.mirror("m");
    mirror.refresh(&g.to(), &[branch("main")]).await.unwrap();
    let objects = mirror.objects().unwrap();
    let made = replaced(&objects, &base, b"new\n").unwrap();
    assert_eq!(
        replaced(&objects, &base, b"new\n").unwrap(),
        made,
        "the same words are the same commit"
    );
    let outcome = g
        .to()
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
    let trailers = |since, who: &str| objects.trailers(&made, since, who, "Done").unwrap();
    assert_eq!(trailers(None, "Bot <bot@example.org>"), ["one two"]);
    assert!(trailers(None, "Ann <ann@example.org>").is_empty(), "an author is no committer");
    assert!(trailers(Some(&made), "Bot <bot@example.org>").is_empty());
}

#[tokio::test]
async fn a_file_is_read_only_when_it_is_one_and_not_too_big() {
    let g = Ground::new();
    g.commit("one", &[(".beads/big", "0123456789"), ("sub/x", "1")]);
    std::os::unix::fs::symlink("/etc/passwd", g.work().join(".beads/issues.jsonl")).unwrap();
    std::os::unix::fs::symlink("sub", g.work().join("link")).unwrap();
    let tip = g.commit("two", &[]);
    g.push("main");
    let mirror = g.mirror("m");
    mirror.refresh(&g.to(), &[branch("main")]).await.unwrap();
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
