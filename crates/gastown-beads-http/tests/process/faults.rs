//! The client against faults of a server, of the network and of a proxy.

use std::time::Duration;

use gastown_beads::Change;
use gastown_beads_http::{Class, Client, Code, Endpoint, Error, Options, Token};
use gastown_fakes::bd_serve::{Fault, PROJECT, Server, TOKEN, problem};
use proptest::prelude::*;
use serde_json::json;

use crate::fixture::{client, session, session_with};

const NUX: &str = "web/polecats/nux";

/// Options for servers that never answer; no test asserts how long it took.
fn short_deadline() -> Options {
    Options { deadline: Duration::from_secs(1), ..Options::default() }
}

#[tokio::test]
async fn a_busy_server_s_wait_is_read_as_seconds_and_as_a_date() {
    let server = Server::with_issues(1).await;
    let session = session(&server).await;
    let dates = vec![
        ("retry-after", "Wed, 25 Nov 2026 12:00:40 GMT".to_owned()),
        ("date", "Wed, 25 Nov 2026 12:00:00 GMT".to_owned()),
    ];
    for (code, headers, wait) in [
        ("busy", vec![("retry-after", "7".to_owned())], Some(7)),
        ("db_unavailable", dates, Some(40)),
        ("a_code_of_next_year", vec![], None),
    ] {
        server.fault(":claim", Fault::Answer(503, headers, problem(code)));
        let error = session.claim("gt-1", NUX).await.unwrap_err();
        let retry_after = wait.map(Duration::from_secs);
        assert_eq!(
            error,
            Error::Unavailable { operation: "claim", code: Code::new(code), retry_after }
        );
        assert!(
            matches!(error.class(), Class::Wait(wait) if wait >= retry_after.unwrap_or_default())
        );
    }
    assert_eq!(server.asked(":claim").len(), 3, "a busy server was asked again");
    assert_eq!(server.row("gt-1")["status"], "open");
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_sent_again() {
    for fault in [Fault::CutAfter, Fault::CutMidway, Fault::CutBefore] {
        let server = Server::with_issues(1).await;
        let session = session(&server).await;
        server.fault(":claim", fault);
        assert_eq!(session.claim("gt-1", NUX).await, Ok(Change::Made));
        assert_eq!(
            (server.row("gt-1")["assignee"].as_str(), server.asked(":claim").len()),
            (Some(NUX), 2)
        );
    }
}

#[tokio::test]
async fn a_bead_that_another_claims_while_the_connection_is_lost_is_theirs() {
    let server = Server::with_issues(1).await;
    let session = session(&server).await;
    server.fault(":claim", Fault::CutBefore);
    server.meanwhile(":claim", |store| {
        store.change("gt-1", |row| {
            row.insert("status".into(), "in_progress".into());
            row.insert("assignee".into(), "maya".into());
        });
    });
    assert_eq!(
        session.claim("gt-1", NUX).await,
        Err(Error::AlreadyClaimed { id: "gt-1".into(), by: Some("maya".into()) })
    );
}

#[tokio::test]
async fn a_claim_fails_after_two_lost_answers() {
    let server = Server::with_issues(1).await;
    let session = session(&server).await;
    server.fault(":claim", Fault::CutBefore);
    server.fault(":claim", Fault::CutBefore);
    let error = session.claim("gt-1", NUX).await.unwrap_err();
    assert!(matches!(error, Error::AnswerLost { .. }), "{error:?}");
    assert_eq!(
        (error.class(), error.reason(), server.asked(":claim").len()),
        (Class::Retry, Some("RemoteUnreachable"), 2)
    );
}

#[tokio::test]
async fn a_release_whose_answer_is_lost_is_checked_and_not_sent_again() {
    for (fault, made) in [(Fault::CutAfter, true), (Fault::CutBefore, false)] {
        let server = Server::start().await;
        server.store(|store| {
            store.add(&json!({"id": "gt-1", "status": "in_progress", "assignee": NUX}));
        });
        let session = session(&server).await;
        server.fault(":release", fault);
        let result = session.release("gt-1", NUX, "operator").await;
        assert_eq!(result == Ok(Change::Made), made, "{result:?}");
        assert!(made || matches!(result, Err(Error::AnswerLost { .. })));
        assert_eq!(server.asked(":release").len(), 1);
    }
}

#[tokio::test]
async fn a_comment_whose_answer_is_lost_is_there_once() {
    for (fault, made) in
        [(Fault::CutAfter, true), (Fault::CutMidway, true), (Fault::CutBefore, false)]
    {
        let server = Server::with_issues(1).await;
        let session = session(&server).await;
        server.fault("/comments", fault);
        let result = session.comment("gt-1", NUX, "stuck").await;
        assert_eq!(result == Ok(Change::Made), made, "{result:?}");
        // The caller adds it again, and it is still there once.
        session.comment("gt-1", NUX, "stuck").await.unwrap();
        assert_eq!(server.row("gt-1")["comments"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn an_endless_answer_and_one_that_is_too_large_are_errors() {
    let server = Server::with_issues(1).await;
    let session = session_with(&server, short_deadline()).await;
    server.fault("/issues?", Fault::NeverEnds);
    let error = session.snapshot().await.unwrap_err();
    assert!(matches!(error, Error::AnswerLost { operation: "list", .. }), "{error:?}");
    server.fault("/issues?", Fault::Flood);
    let session =
        session_with(&server, Options { max_answer: 100_000, ..Options::default() }).await;
    assert_eq!(
        session.snapshot().await.err(),
        Some(Error::TooLarge { operation: "list", limit: 100_000 })
    );
}

#[tokio::test]
async fn a_forgotten_cursor_restarts_the_list_once() {
    let server = Server::with_issues(25).await;
    let session = session_with(&server, Options { page: 10, ..Options::default() }).await;
    server.meanwhile("cursor=", |store| store.cursors += 1);
    assert_eq!(session.snapshot().await.unwrap().issues.len(), 25);
    server.meanwhile("cursor=", |store| store.cursors += 1);
    server.meanwhile("cursor=", |store| store.cursors += 1);
    assert!(
        matches!(session.snapshot().await, Err(Error::Refused { code, .. }) if code.as_str() == "invalid_cursor")
    );
}

#[tokio::test]
async fn a_list_that_leads_in_circles_ends() {
    let server = Server::with_issues(1).await;
    let session = session_with(&server, Options { max_issues: 100, ..Options::default() }).await;
    let page = |items: &str, rest: &str| {
        Fault::Answer(200, vec![], format!(r#"{{"items":[{items}],"has_more":true{rest}}}"#))
    };
    for pages in [
        vec![page("", r#","next_cursor":"a""#)],
        vec![page(r#"{"id":"gt-1"}"#, "")],
        vec![page(r#"{"id":"gt-1"}"#, r#","next_cursor":"a""#); 2],
    ] {
        for page in pages {
            server.fault("/issues?", page);
        }
        assert!(matches!(session.snapshot().await, Err(Error::NotBeads { operation: "list", .. })));
    }
    for turn in 0..101 {
        server.fault(
            "/issues?",
            page(r#"{"id":"gt-1"}"#, &format!(r#","next_cursor":"{}""#, turn % 2)),
        );
    }
    assert_eq!(session.snapshot().await.err(), Some(Error::TooMany(100)));
}

#[tokio::test]
async fn a_token_is_never_taken_along_a_redirect() {
    let (server, elsewhere) = (Server::with_issues(1).await, Server::with_issues(1).await);
    let to = format!("{}/v0/beads/context", elsewhere.url());
    for status in [301, 302, 307, 308] {
        server.fault(
            "/context",
            Fault::Answer(status, vec![("location", to.clone())], String::new()),
        );
        let error = client(&server, Options::default()).connect(None).await.err().unwrap();
        assert_eq!(
            (error.reason(), error),
            (Some("NotBeads"), Error::Redirected { operation: "context", status })
        );
    }
    assert!(elsewhere.asked("").is_empty());
}

#[tokio::test]
async fn an_answer_that_is_not_from_bd_serve_is_reported() {
    let server = Server::with_issues(1).await;
    let client = client(&server, Options::default());
    for (status, body, reason) in [
        (200, "<html>welcome</html>", "NotBeads"),
        (200, "", "NotBeads"),
        (200, "[]", "NotBeads"),
        (200, "{}", "SchemaUnsupported"),
        (404, "no such page", "NotBeads"),
        (403, "", "AuthFailed"),
        (502, "<html>bad gateway</html>", "RemoteUnreachable"),
        (418, "{", "Refused"),
    ] {
        server.fault("/context", Fault::Answer(status, vec![], body.to_owned()));
        assert_eq!(
            client.connect(None).await.err().unwrap().reason(),
            Some(reason),
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn a_page_of_a_proxy_is_neither_a_claim_nor_a_missing_bead() {
    let server = Server::with_issues(1).await;
    let session = session(&server).await;
    for (status, body) in [(404, "404 page not found"), (200, "{}"), (200, "[true]")] {
        server.fault(":claim", Fault::Answer(status, vec![], body.into()));
        assert!(
            matches!(session.claim("gt-1", NUX).await, Err(Error::NotBeads { .. })),
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn a_conflict_with_an_unknown_code_is_a_conflict() {
    let server = Server::with_issues(1).await;
    let session = session(&server).await;
    server.fault(":claim", Fault::Answer(409, vec![], problem("a_code_of_next_year")));
    let error = session.claim("gt-1", NUX).await.unwrap_err();
    assert_eq!(
        (error.class(), error),
        (
            Class::Replan,
            Error::Conflict { operation: "claim", code: Code::new("a_code_of_next_year") }
        )
    );
}

#[tokio::test]
async fn a_server_that_does_not_listen_is_unreachable() {
    let server = Server::start().await;
    let endpoint = Endpoint::parse(&server.url()).unwrap();
    drop(server);
    let client = Client::new(endpoint, None, short_deadline()).unwrap();
    assert!(matches!(client.connect(Some(PROJECT)).await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn a_token_goes_over_tls_only_to_a_server_that_is_trusted() {
    let (server, roots) = Server::start_secure().await;
    let (plain, others) = (Server::start().await, Server::start_secure().await.1);
    let client = |address, roots: &rustls::RootCertStore| {
        let options = Options { trust: Some(roots.clone().into()), ..Options::default() };
        let token = Token::parse(TOKEN.as_bytes()).unwrap();
        Client::new(Endpoint::parse(&format!("https://{address}")).unwrap(), Some(token), options)
            .unwrap()
    };
    assert_eq!(client(server.address(), &roots).connect(None).await.unwrap().project(), PROJECT);
    for stranger in [client(server.address(), &others), client(plain.address(), &roots)] {
        assert!(matches!(stranger.connect(None).await, Err(Error::Unreachable { .. })));
    }
    assert_eq!((server.asked("").len(), plain.asked("").len()), (1, 0));
    let nobody =
        Options { trust: Some(rustls::RootCertStore::empty().into()), ..Options::default() };
    assert!(matches!(
        Client::new(Endpoint::parse("https://beads").unwrap(), None, nobody),
        Err(Error::Tls(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_answer_over_a_socket_is_read_or_refused(status in 200_u16..600, body in prop::collection::vec(any::<u8>(), 0..200), part in 0_usize..5) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::with_issues(1).await;
            let session = session(&server).await;
            let body = String::from_utf8_lossy(&body).into_owned();
            let part = ["/issues?", "/issues/gt-1", "/dependencies", "/events", ":claim"][part];
            server.fault(part, Fault::Answer(status, vec![], body));
            let result = match part {
                "/issues?" => session.snapshot().await.map(drop),
                "/events" => session.changes(0).await.map(drop),
                ":claim" => session.claim("gt-1", NUX).await.map(drop),
                _ => session.get("gt-1").await.map(drop),
            };
            // Random bytes are never a valid answer.
            assert!(result.is_err(), "{result:?}");
        });
    }
}
