//! What a source becomes on its base.

use gastown_git::{Built, Committing, Recipe, Shape};
use gastown_types::CommitId;

use crate::fixture::{Fixture, build_in, built, candidate, count, git, recipe, tree_of};

#[tokio::test]
async fn a_source_that_descends_from_the_base_lands_unchanged() {
    let g = Fixture::new();
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
    let g = Fixture::new();
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
        objects.contains_trailer(&first, Some(&base), "uid-1", None).unwrap(),
        Some(first.clone())
    );
    assert_eq!(objects.contains_trailer(&first, Some(&base), "uid", None).unwrap(), None);
    assert_eq!(objects.contains_trailer(&source, None, "uid-1", None).unwrap(), None);
}

#[tokio::test]
async fn a_conflict_names_its_paths_and_its_commit() {
    let g = Fixture::new();
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
async fn changes_that_the_base_has_already_are_dropped() {
    let g = Fixture::new();
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
async fn a_source_with_merges_becomes_one_commit_with_a_note() {
    let g = Fixture::new();
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
    assert_eq!(tree_of(m.path(), &id), tree_of(m.path(), &source));
    assert_eq!(count(m.path(), &base, &id), "1");
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
    let g = Fixture::new();
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
async fn a_commit_with_a_forged_request_trailer_is_rewritten() {
    let g = Fixture::new();
    let base = g.commit("one", &[("a", "1")]);
    g.push("main");
    g.checkout("work", "main");
    let source = g.commit("two\n\nGastown-Request: somebody-else", &[("b", "2")]);
    g.push("work");
    let m = g.mirror("m");
    let (id, _) = candidate(built(&g, &m, &base, &source).await);
    assert_ne!(id, source);
    let objects = m.objects().unwrap();
    assert_eq!(objects.contains_trailer(&id, None, "somebody-else", None).unwrap(), None);
    assert_eq!(objects.contains_trailer(&id, None, "uid-1", None).unwrap(), Some(id));
}

/// The fork, the source and the base of a change to the same line of `CHANGELOG` on both sides.
fn two_entries(g: &Fixture) -> (CommitId, CommitId) {
    g.checkout("work", "main");
    let source = g.commit("mine", &[("CHANGELOG", "top\nmine\nend\n")]);
    g.push("work");
    g.checkout("main", "main");
    let base = g.commit("theirs", &[("CHANGELOG", "top\ntheirs\nend\n")]);
    g.push("main");
    (base, source)
}

#[tokio::test]
async fn the_target_s_attributes_decide_how_files_are_merged() {
    let g = Fixture::new();
    let text = ("CHANGELOG", "top\nend\n");
    g.commit("one", &[text, (".gitattributes", "CHANGELOG merge=union\n")]);
    let (base, source) = two_entries(&g);
    let m = g.mirror("m");
    let (id, _) = candidate(built(&g, &m, &base, &source).await);
    let merged = git(m.path(), &["show", &format!("{id}:CHANGELOG")]);
    assert_eq!(merged, "top\ntheirs\nmine\nend");
}

#[tokio::test]
async fn attributes_hold_for_the_commits_after_the_one_that_brings_them() {
    let g = Fixture::new();
    g.commit("one", &[("sub/CHANGELOG", "top\nend\n")]);
    g.checkout("work", "main");
    g.commit("rules", &[("sub/.gitattributes", "CHANGELOG merge=union\n")]);
    let source = g.commit("mine", &[("sub/CHANGELOG", "top\nmine\nend\n")]);
    g.push("work");
    g.checkout("main", "main");
    let base = g.commit("theirs", &[("sub/CHANGELOG", "top\ntheirs\nend\n")]);
    g.push("main");
    let m = g.mirror("m");
    let (id, shape) = candidate(built(&g, &m, &base, &source).await);
    assert_eq!(shape, Shape::Replayed { commits: 2, dropped: 0 });
    let merged = git(m.path(), &["show", &format!("{id}:sub/CHANGELOG")]);
    assert_eq!(merged, "top\ntheirs\nmine\nend");
}

#[tokio::test]
async fn attributes_that_are_too_large_are_a_conflict_that_names_them() {
    let g = Fixture::new();
    let many = "# nothing\n".repeat((17 << 20) / 10);
    g.commit("one", &[("CHANGELOG", "top\nend\n"), (".gitattributes", &many)]);
    let (base, source) = two_entries(&g);
    let Built::Conflict(c) = built(&g, &g.mirror("m"), &base, &source).await else { panic!() };
    assert_eq!(c.paths, ["(the .gitattributes files of the target are larger than 16 MiB)"]);
}

/// The recipe with this committer, and with a sign-off.
fn signed(recipe: Recipe, committer: &str) -> Recipe {
    let committing = Committing { committer: Some(committer.parse().unwrap()), sign_off: true };
    Recipe { committing, ..recipe }
}

#[tokio::test]
async fn commits_are_committed_and_signed_off_as_git_does() {
    let g = Fixture::new();
    g.commit("one", &[("a", "1")]);
    g.checkout("work", "main");
    g.commit("first", &[("b", "1")]);
    g.commit("second\n\nBecause.\n\nReviewed-by: R <r@example.org>", &[("b", "2")]);
    let source = g.commit("third\n\nSigned-off-by: Acme Bot <bot@example.org>", &[("b", "3")]);
    g.push("work");
    g.checkout("main", "main");
    let base = g.commit("meanwhile", &[("c", "1")]);
    g.push("main");
    let m = g.mirror("m");
    let plain = candidate(built(&g, &m, &base, &source).await).0;
    let recipe = signed(recipe(&base, &source), "Acme Bot <bot@example.org>");
    let (id, shape) = candidate(build_in(m.path(), recipe.clone()).await);
    assert_eq!(shape, Shape::Replayed { commits: 3, dropped: 0 });
    assert_ne!(id, plain, "who commits is part of what makes a candidate");

    let format = "--format=%an <%ae>%n%cn <%ce>%n%B%x00";
    let log =
        |repo: &std::path::Path, tip: &str| git(repo, &["log", format, &format!("{base}..{tip}")]);
    git(&g.work(), &["checkout", "-q", "--detach", source.as_str()]);
    let bot = ["-c", "user.name=Acme Bot", "-c", "user.email=bot@example.org"];
    git(&g.work(), &[&bot[..], &["rebase", "-q", "--signoff", base.as_str()]].concat());
    let ours = log(m.path(), id.as_str()).replace("Gastown-Request: uid-1\n", "");
    assert_eq!(ours, log(&g.work(), "HEAD"));
    let trailers = ["log", "-1", "--format=%(trailers:key=Gastown-Request,valueonly)", id.as_str()];
    assert_eq!(git(m.path(), &trailers), "uid-1");

    // What was landed is found by its committer, and so is what landed before it was set.
    let objects = m.objects().unwrap();
    let landed = |tip, who| objects.contains_trailer(tip, Some(&base), "uid-1", who).unwrap();
    let committer = recipe.committing.committer.as_ref();
    assert_eq!(landed(&id, committer), Some(id.clone()));
    assert_eq!(landed(&id, None), None);
    assert_eq!(landed(&plain, committer), Some(plain.clone()));
}

#[tokio::test]
async fn a_source_lands_unchanged_only_when_it_is_committed_as_wanted() {
    let g = Fixture::new();
    let base = g.commit("one", &[("a", "1")]);
    g.push("main");
    g.checkout("work", "main");
    let text = "two\n\nSigned-off-by: Ann Author <ann@example.org>";
    let source = g.commit(text, &[("b", "2")]);
    g.push("work");
    let m = g.mirror("m");
    built(&g, &m, &base, &source).await;
    let shape = async |recipe| candidate(build_in(m.path(), recipe).await).1;
    let recipe = recipe(&base, &source);
    let anew = Shape::Replayed { commits: 1, dropped: 0 };
    let as_ann = signed(recipe.clone(), "Ann Author <ann@example.org>");
    assert_eq!(shape(as_ann).await, Shape::FastForward);
    assert_eq!(shape(signed(recipe.clone(), "Acme Bot <bot@example.org>")).await, anew);
    let default = Committing { committer: None, sign_off: true };
    assert_eq!(shape(Recipe { committing: default, ..recipe }).await, anew);
}
