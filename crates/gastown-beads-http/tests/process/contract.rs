//! The client against a server that follows the published rules.

use gastown_beads::{Change, Status};
use gastown_beads_http::{Class, Client, Endpoint, Error, Options, Revision, Token};
use gastown_fakes::bd_serve::{Fault, PROJECT, Server, TOKEN};
use serde_json::json;

use crate::fixture::{client, session, session_with};

const NUX: &str = "web/polecats/nux";

#[tokio::test]
async fn a_session_is_bound_to_the_project_that_is_wanted() {
    let server = Server::with_issues(1).await;
    let client = client(&server, Options::default());
    let wrong = client.connect(Some("proj-api")).await.err().unwrap();
    assert_eq!(wrong, Error::WrongProject { expected: "proj-api".into(), found: PROJECT.into() });
    assert_eq!((wrong.class(), wrong.reason()), (Class::Terminal, Some("ProjectMismatch")));
    assert_eq!(client.connect(None).await.unwrap().project(), PROJECT);
    server.store(|store| store.project.clear());
    assert_eq!(client.connect(None).await.err(), Some(Error::NoProject));
    for odd in ["a b".to_owned(), "a\nb".to_owned(), "a".repeat(256)] {
        server.store(|store| store.project = odd);
        assert_eq!(client.connect(None).await.err().unwrap().reason(), Some("NotBeads"));
    }
}

#[tokio::test]
async fn a_server_that_becomes_another_store_is_neither_read_nor_written() {
    let server = Server::with_issues(1).await;
    let session = session(&server).await;
    server.store(|store| store.project = "proj-api".into());
    let wrong = Error::WrongProject { expected: PROJECT.into(), found: "proj-api".into() };
    assert_eq!(session.snapshot().await.err(), Some(wrong.clone()));
    assert_eq!(session.claim("gt-1", NUX).await.err(), Some(wrong.clone()));
    assert_eq!(session.changes(0).await.err(), Some(wrong));
    assert_eq!(server.row("gt-1")["status"], "open");
}

#[tokio::test]
async fn an_error_names_the_capabilities_that_a_server_does_not_offer() {
    let server = Server::start().await;
    let client = client(&server, Options::default());
    server.store(|store| store.capabilities.remove("project.enforce"));
    let error = client.connect(None).await.err().unwrap();
    assert_eq!(error.to_string(), "the server (bd 1.3.0) does not offer project.enforce");
    server.store(|store| store.api_version = "v1".into());
    assert_eq!(client.connect(None).await.err(), Some(Error::UnknownVersion("v1".into())));
}

#[tokio::test]
async fn a_write_that_the_server_does_not_offer_is_not_tried() {
    let server = Server::with_issues(1).await;
    server.store(|store| store.capabilities.remove("issues.claim"));
    let error = session(&server).await.claim("gt-1", NUX).await.unwrap_err();
    assert_eq!(error.reason(), Some("SchemaUnsupported"));
    assert!(server.asked("claim").is_empty());
}

#[tokio::test]
async fn a_snapshot_has_every_issue_of_every_page() {
    let server = Server::with_issues(25).await;
    server.store(|store| {
        store.change("gt-3", |row| drop(row.insert("status".into(), "closed".into())));
    });
    let session = session_with(&server, Options { page: 10, ..Options::default() }).await;
    let snapshot = session.snapshot().await.unwrap();
    assert_eq!((snapshot.issues.len(), snapshot.problems.total()), (25, 0));
    assert_eq!(snapshot.issues.get("gt-3").unwrap().status, Status::Closed);
    assert_eq!(server.asked("/issues?").len(), 3);
}

#[tokio::test]
async fn a_blocked_bead_is_not_ready_although_the_list_hides_its_edges() {
    let server = Server::with_issues(2).await;
    server.store(|store| {
        store.add(&json!({"id": "gt-9", "dependencies": [{"issue_id": "gt-9", "depends_on_id": "gt-1", "type": "blocks"}]}));
        store.shows_edges = false;
    });
    let snapshot = session(&server).await.snapshot().await.unwrap();
    let now = "2026-11-25T12:00:00Z".parse().unwrap();
    let ready = gastown_beads::ready(&snapshot.issues, now);
    let mut ready: Vec<&str> = ready.iter().map(|issue| issue.id.as_str()).collect();
    ready.sort_unstable();
    assert_eq!(ready, ["gt-1", "gt-2"]);
    assert_eq!(server.asked("/dependencies?").len(), 1);
}

#[tokio::test]
async fn a_store_above_the_limits_is_refused_and_not_read_in_part() {
    let server = Server::with_issues(25).await;
    let session =
        session_with(&server, Options { page: 10, max_issues: 24, ..Options::default() }).await;
    assert_eq!(session.snapshot().await.err(), Some(Error::TooMany(24)));
    let session =
        session_with(&server, Options { page: 10, max_store: 4000, ..Options::default() }).await;
    assert_eq!(
        session.snapshot().await.err(),
        Some(Error::TooLarge { operation: "list", limit: 4000 })
    );
}

#[tokio::test]
async fn one_issue_is_read_with_its_comments_and_its_edges_to_other_stores() {
    let server = Server::start().await;
    server.store(|store| {
        store.add(&json!({"id": "gt-1", "comments": [{"id": "c1", "author": "ada", "text": "hello"}],
            "dependencies": [{"issue_id": "gt-1", "depends_on_id": "external:api:x", "type": "blocks"}]}));
    });
    let session = session(&server).await;
    let (issue, _) = session.get("gt-1").await.unwrap();
    assert_eq!(
        (issue.comments[0].text.as_str(), issue.dependencies[0].depends_on_id.as_str()),
        ("hello", "external:api:x")
    );
    assert_eq!(session.get("gt-2").await.err(), Some(Error::NotFound("gt-2".into())));
    assert_eq!(session.get("../context").await.err(), Some(Error::NotFound("../context".into())));
}

#[tokio::test]
async fn one_of_two_claims_wins_and_the_other_s_error_names_the_winner() {
    let server = Server::with_issues(1).await;
    let (one, other) = (session(&server).await, session(&server).await);
    let (a, b) = tokio::join!(one.claim("gt-1", NUX), other.claim("gt-1", "maya"));
    let (won, lost) = if a.is_ok() { (NUX, b) } else { ("maya", a) };
    assert_eq!(
        lost.unwrap_err(),
        Error::AlreadyClaimed { id: "gt-1".into(), by: Some(won.into()) }
    );
    assert_eq!(server.row("gt-1")["assignee"], won);
    assert_eq!(one.claim("gt-1", won).await, Ok(Change::NotNeeded));
}

#[tokio::test]
async fn a_refused_claim_gives_the_reason() {
    let server = Server::with_issues(1).await;
    server.store(|store| {
        store.add(&json!({"id": "gt-2", "status": "closed"}));
        store.add(&json!({"id": "gt-3", "ephemeral": true}));
    });
    let session = session(&server).await;
    let closed = session.claim("gt-2", NUX).await.unwrap_err();
    assert_eq!(
        (closed.to_string().as_str(), closed.class()),
        ("gt-2 is closed, not open", Class::Replan)
    );
    for id in ["gt-3", "gt-404", "../x"] {
        assert_eq!(session.claim(id, NUX).await.err(), Some(Error::NotFound(id.into())));
    }
    assert!(matches!(session.claim("gt-1", "a\nb").await, Err(Error::Unwritable { .. })));
}

#[tokio::test]
async fn a_release_changes_only_beads_of_its_assignee() {
    let server = Server::with_issues(0).await;
    server.store(|store| {
        store.add(&json!({"id": "gt-1", "status": "in_progress", "assignee": NUX}));
        store.add(&json!({"id": "gt-2", "status": "in_progress", "assignee": "web/polecats/n-x"}));
        store.add(&json!({"id": "gt-3", "status": "hooked", "assignee": NUX}));
        store.add(&json!({"id": "gt-4", "status": "closed", "assignee": NUX}));
    });
    let session = session(&server).await;
    assert_eq!(session.release("gt-1", NUX, "operator").await, Ok(Change::Made));
    assert_eq!(session.release("gt-1", NUX, "operator").await, Ok(Change::NotNeeded));
    // One assignee to the server, which folds separators; two to us.
    assert_eq!(
        session.release("gt-2", "web/polecats/n_x", "operator").await,
        Ok(Change::NotNeeded)
    );
    assert_eq!(server.row("gt-2")["assignee"], "web/polecats/n-x");
    let hooked = session.release("gt-3", NUX, "operator").await.unwrap_err();
    assert_eq!(hooked, Error::NotReleasable { id: "gt-3".into(), status: "hooked".into() });
    assert_eq!(session.release("gt-4", NUX, "operator").await, Ok(Change::NotNeeded));
}

#[tokio::test]
async fn a_bead_that_is_reassigned_during_a_release_keeps_its_new_assignee() {
    let server = Server::start().await;
    server
        .store(|store| store.add(&json!({"id": "gt-1", "status": "in_progress", "assignee": NUX})));
    let session = session(&server).await;
    server.meanwhile(":release", |store| {
        store.change("gt-1", |row| drop(row.insert("assignee".into(), "maya".into())));
    });
    assert_eq!(session.release("gt-1", NUX, "operator").await, Ok(Change::NotNeeded));
    assert_eq!(server.row("gt-1")["assignee"], "maya");
}

#[tokio::test]
async fn the_first_close_wins() {
    let server = Server::with_issues(1).await;
    let session = session(&server).await;
    let (_, version) = session.get("gt-1").await.unwrap();
    assert_eq!(session.close("gt-1", "operator", "merged\nabc", &version).await, Ok(Change::Made));
    let (_, version) = session.get("gt-1").await.unwrap();
    assert_eq!(
        session.close("gt-1", "operator", "merged def", &version).await,
        Ok(Change::NotNeeded)
    );
    assert_eq!(server.row("gt-1")["close_reason"], "merged abc");
}

#[tokio::test]
async fn a_close_goes_over_open_children_and_blockers() {
    let server = Server::with_issues(1).await;
    server.store(|store| {
        store.add(&json!({"id": "gt-2", "dependencies": [{"issue_id": "gt-2", "depends_on_id": "gt-1", "type": "blocks"}]}));
        store.add(&json!({"id": "gt-3", "dependencies": [{"issue_id": "gt-3", "depends_on_id": "gt-1", "type": "parent-child"}]}));
    });
    let session = session(&server).await;
    for id in ["gt-2", "gt-1"] {
        let (_, version) = session.get(id).await.unwrap();
        assert_eq!(session.close(id, "operator", "", &version).await, Ok(Change::Made));
        assert_eq!(server.row(id)["close_reason"], "Closed");
    }
}

#[tokio::test]
async fn a_comment_is_added_once() {
    let server = Server::with_issues(1).await;
    let session = session(&server).await;
    let text = " three\nlines\n";
    assert_eq!(session.comment("gt-1", NUX, text).await, Ok(Change::Made));
    assert_eq!(session.comment("gt-1", NUX, text).await, Ok(Change::NotNeeded));
    assert_eq!(server.row("gt-1")["comments"].as_array().unwrap().len(), 1);
    assert_eq!(server.row("gt-1")["comments"][0]["text"], text);
    assert!(matches!(session.comment("gt-1", NUX, " \n").await, Err(Error::Unwritable { .. })));
    assert_eq!(session.comment("gt-404", NUX, "x").await, Err(Error::NotFound("gt-404".into())));
}

#[tokio::test]
async fn changes_name_the_beads_to_read_and_errors_ask_for_a_whole_read() {
    let server = Server::with_issues(3).await;
    let session = session(&server).await;
    let changes = session.changes(1).await.unwrap();
    assert_eq!(
        (changes.issues.into_iter().collect::<Vec<_>>(), changes.upto, changes.more),
        (vec!["gt-2".into(), "gt-3".into()], 3, false)
    );
    let none = session.changes(3).await.unwrap();
    assert_eq!((none.issues.len(), none.upto, none.more), (0, 3, false));
    server.store(|store| store.floor = 3);
    let gone = session.changes(1).await.unwrap_err();
    assert_eq!(
        (gone.class(), gone),
        (Class::Reread, Error::Gone { floor: Some(3), head: Some(3) })
    );
    // A journal whose head went back is another journal.
    assert_eq!(session.changes(9).await, Err(Error::Gone { floor: None, head: Some(3) }));
    server.store(|store| store.journal_is_kept = false);
    assert_eq!(session.changes(3).await, Err(Error::JournalDisabled));
}

#[tokio::test]
async fn changes_that_do_not_fit_one_answer_are_announced() {
    let server = Server::with_issues(1005).await;
    let session = session(&server).await;
    let changes = session.changes(0).await.unwrap();
    assert_eq!((changes.issues.len(), changes.upto, changes.more), (1000, 1000, true));
    assert!(!session.changes(1000).await.unwrap().more);
}

#[tokio::test]
async fn a_wrong_token_is_reported_and_no_token_is_ever_shown() {
    let server = Server::with_issues(1).await;
    let endpoint = Endpoint::parse(&server.url()).unwrap();
    let other = Token::parse(b"another").unwrap();
    let client = Client::new(endpoint, Some(other), Options::default()).unwrap();
    let error = client.connect(None).await.err().unwrap();
    assert_eq!((error.reason(), error.class()), (Some("AuthFailed"), Class::Terminal));
    // This server sends the token back in each refusal.
    server.fault(
        "/issues?",
        Fault::Answer(
            400,
            vec![],
            json!({"code": "invalid_argument", "detail": TOKEN}).to_string(),
        ),
    );
    let error = session(&server).await.snapshot().await.unwrap_err();
    assert!(matches!(&error, Error::Refused { detail, .. } if detail == "[token]"), "{error:?}");
    assert!(!format!("{error} {error:?}").contains(TOKEN));
}

#[tokio::test]
async fn the_end_of_the_journal_is_read_even_when_the_journal_was_cut_short() {
    let server = Server::with_issues(3).await;
    let session = session(&server).await;
    assert_eq!(session.position().await, Ok(Some(3)));
    server.store(|store| store.floor = 3);
    assert_eq!(session.position().await, Ok(Some(3)));
    server.store(|store| store.journal_is_kept = false);
    assert_eq!(session.position().await, Ok(None));
}

#[tokio::test]
async fn a_close_is_sent_once_and_never_closes_another_version() {
    let server = Server::with_issues(1).await;
    let session = session(&server).await;
    let (_, before) = session.get("gt-1").await.unwrap();
    // Stored as text over a restart of the caller.
    let before: Revision = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
    server.store(|store| {
        store.change("gt-1", |row| drop(row.insert("title".into(), "edited".into())));
    });
    let moved = session.close("gt-1", "operator", "merged abc", &before).await;
    assert_eq!(
        (moved, server.row("gt-1")["status"].as_str()),
        (Err(Error::Moved { id: "gt-1".into() }), Some("open"))
    );
    let (_, now) = session.get("gt-1").await.unwrap();
    server.fault(":close", Fault::CutAfter);
    let lost = session.close("gt-1", "operator", "merged abc", &now).await.unwrap_err();
    assert!(lost.is_outcome_unknown(), "{lost:?}");
    assert_eq!(
        (server.row("gt-1")["status"].as_str(), server.asked(":close").len()),
        (Some("closed"), 2)
    );
}
