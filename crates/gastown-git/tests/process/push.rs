//! Which pushes move a ref.

use gastown_git::{Git, PushOutcome, RefUpdate, Refusal};

use crate::fixture::{Fixture, update};

#[tokio::test]
async fn a_push_moves_a_ref_only_from_its_expected_commit() {
    let g = Fixture::new();
    let (one, two) = (g.commit("one", &[("a", "1")]), g.commit("two", &[("a", "2")]));
    let three = g.commit("three", &[("a", "3")]);
    let (git, repo) = (Git::from_env(), g.work().join(".git"));
    let push = async |u: RefUpdate| g.as_remote().push(&git, &repo, &[u]).await.unwrap().remove(0);
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
    let dry =
        g.as_remote().push_dry_run(&git, &repo, &[update("new", None, Some(&one))]).await.unwrap();
    assert_eq!((dry, g.remote_head("new")), (vec![PushOutcome::Done], None));
    assert!(matches!(
        push(update("main", Some(&one), None)).await,
        PushOutcome::Rejected(Refusal::Stale, _)
    ));
    assert_eq!(push(update("absent", Some(&one), None)).await, PushOutcome::UpToDate);
}

#[tokio::test]
async fn several_refs_move_together_or_not_at_all() {
    let g = Fixture::new();
    let (one, two) = (g.commit("one", &[("a", "1")]), g.commit("two", &[("a", "2")]));
    g.push("main");
    let updates = [update("a", None, Some(&one)), update("main", Some(&one), Some(&two))];
    let outcomes =
        g.as_remote().push(&Git::from_env(), &g.work().join(".git"), &updates).await.unwrap();
    assert!(
        !outcomes[0].is_ok()
            || !outcomes[1].is_ok()
            || g.remote_head("main") == Some(two.to_string()),
        "{outcomes:?}"
    );
    let stale = [update("b", None, Some(&one)), update("main", Some(&one), Some(&one))];
    let outcomes =
        g.as_remote().push(&Git::from_env(), &g.work().join(".git"), &stale).await.unwrap();
    assert!(outcomes.iter().all(|o| !o.is_ok()), "{outcomes:?}");
    assert_eq!(g.remote_head("b"), None);
}

#[tokio::test]
async fn a_refusal_by_a_hook_is_not_taken_for_a_race() {
    use std::os::unix::fs::PermissionsExt as _;
    let g = Fixture::new();
    let one = g.commit("one", &[("a", "1")]);
    let hook = g.remote().join("hooks/pre-receive");
    std::fs::write(&hook, "#!/bin/sh\necho 'no pushes on Fridays' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = g
        .as_remote()
        .push(&Git::from_env(), &g.work().join(".git"), &[update("main", None, Some(&one))])
        .await
        .unwrap();
    let [PushOutcome::Rejected(Refusal::Hook, text)] = &outcome[..] else { panic!("{outcome:?}") };
    assert!(text.contains("no pushes on Fridays"), "{text}");
}
