//! Stores behind a server that follows the published rules of `bd serve`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use beadstore_ctl::connection::Connection;
use beadstore_ctl::error::StoreError;
use beadstore_ctl::http::intent_store::{IntentError, IntentStore};
use beadstore_ctl::http::intents::{CloseIntent, Intents};
use beadstore_ctl::http::read::HttpConnection;
use beadstore_ctl::snapshot::StoreSnapshot;
use beadstore_ctl::store::{Stores, Written};
use beadstore_ctl::validate::{self, Source, ValidBeadStore};
use gastown_api::WritePolicy;
use gastown_beads::{Change, EditError};
use gastown_beads_http::{Client, Endpoint, Options, Token};
use gastown_core::beads::{Claim, Edit, Prefixes, Record, Wanted, plan};
use gastown_fakes::bd_serve::{Fault, PROJECT, Server, TOKEN, problem};
use gastown_git::Git;
use parking_lot::Mutex;
use serde_json::json;

use crate::{claimed, landed, status_of};

const NUX: &str = "web/polecats/nux";

/// Records that outlive a controller process, like annotations.
#[derive(Default)]
struct Records {
    intents: Mutex<Intents>,
    closes: Mutex<HashMap<String, CloseIntent>>,
    held: Mutex<Vec<Claim>>,
}

#[tonic::async_trait]
impl IntentStore for Records {
    fn held_claims(&self) -> Vec<Claim> {
        self.held.lock().clone()
    }

    fn done_closes(&self) -> Vec<Record> {
        let closes = self.closes.lock();
        let done = closes.iter().filter(|(_, intent)| intent.is_done());
        done.map(|(request, intent)| {
            let (bead, request) = (intent.bead.clone(), request.clone());
            if intent.left_open {
                Record::LeftOpen { bead, request }
            } else {
                Record::Closed { bead, request }
            }
        })
        .collect()
    }

    async fn intents(&self) -> Result<Intents, IntentError> {
        Ok(self.intents.lock().clone())
    }

    async fn update_intents(
        &self,
        change: &(dyn for<'b> Fn(&'b mut Intents) + Sync),
    ) -> Result<Intents, IntentError> {
        let mut intents = self.intents.lock();
        change(&mut intents);
        Ok(intents.clone())
    }

    async fn close_intent(&self, request: &str) -> Result<Option<CloseIntent>, IntentError> {
        Ok(self.closes.lock().get(request).cloned())
    }

    async fn replace_close_intent(
        &self,
        request: &str,
        before: Option<&CloseIntent>,
        after: Option<&CloseIntent>,
    ) -> Result<(), IntentError> {
        let mut closes = self.closes.lock();
        assert_eq!(closes.get(request), before);
        closes.remove(request);
        closes.extend(after.map(|intent| (request.to_owned(), intent.clone())));
        Ok(())
    }
}

/// A server, and the records of edits there.
struct Fixture {
    server: Server,
    records: Arc<Records>,
}

impl Fixture {
    /// A server with beads `gt-1`, `gt-2`, …, all open.
    async fn with_issues(count: usize) -> Self {
        Self { server: Server::with_issues(count).await, records: Arc::default() }
    }

    /// A new controller process, which remembers nothing.
    fn process(&self) -> Process {
        let endpoint = Endpoint::parse(&self.server.url()).unwrap();
        let server = validate::Server { url: self.server.url(), endpoint, project: None };
        let valid = ValidBeadStore {
            rig: "web".into(),
            source: Source::Http(server.clone()),
            prefixes: Prefixes::new(["gt"]),
            policy: WritePolicy::Write,
            interval: Duration::from_secs(300),
        };
        Process {
            stores: Stores::new(Git::from_env(), std::env::temp_dir()),
            valid,
            server,
            records: self.records.clone(),
        }
    }

    fn row(&self, bead: &str) -> (String, Option<String>) {
        let row = self.server.row(bead);
        (row["status"].as_str().unwrap().to_owned(), row["assignee"].as_str().map(str::to_owned))
    }

    fn edit(&self, bead: &str, key: &str, value: &str) {
        self.server.store(|store| {
            store.change(bead, |row| drop(row.insert(key.to_owned(), value.into())));
        });
    }
}

struct Process {
    stores: Stores,
    valid: ValidBeadStore,
    server: validate::Server,
    records: Arc<Records>,
}

impl Process {
    fn connection(&self) -> Connection {
        let token = Token::parse(TOKEN.as_bytes()).unwrap();
        let client =
            Client::new(self.server.endpoint.clone(), Some(token), Options::default()).unwrap();
        Connection::Http(HttpConnection {
            server: self.server.clone(),
            client,
            intents: self.records.clone(),
        })
    }

    async fn read(&self) -> Result<StoreSnapshot, StoreError> {
        let reading = self
            .stores
            .handle("uid", None)
            .read(&self.valid, &self.connection(), Duration::ZERO)
            .await?;
        Ok(reading.snapshot)
    }

    async fn write(
        &self,
        edits: impl Fn(&StoreSnapshot) -> Vec<Edit>,
    ) -> Result<Written, StoreError> {
        self.stores.handle("uid", None).write(&self.valid, &self.connection(), edits).await
    }

    /// Makes the wanted edits, as a reconcile does.
    async fn sync(&self, wanted: &Wanted) -> Result<Written, StoreError> {
        self.records.held.lock().clone_from(&wanted.claims);
        let valid = &self.valid;
        self.write(|snapshot| {
            plan(&valid.rig, wanted, snapshot.issues(), snapshot.history(), &valid.prefixes).edits
        })
        .await
    }
}

fn open() -> (String, Option<String>) {
    ("open".to_owned(), None)
}

fn taken() -> (String, Option<String>) {
    ("in_progress".to_owned(), Some(NUX.to_owned()))
}

#[tokio::test]
async fn a_claim_and_a_close_reach_the_server_and_the_snapshot() {
    let fixture = Fixture::with_issues(2).await;
    let process = fixture.process();
    let snapshot = process.sync(&claimed("gt-1", "u1", "nux")).await.unwrap().snapshot;
    assert_eq!(
        (fixture.row("gt-1"), status_of(&snapshot, "gt-1").as_str()),
        (taken(), "in_progress")
    );
    assert_eq!((snapshot.is_authoritative(), snapshot.project_id()), (true, Some(PROJECT)));
    let closed = process.sync(&landed("gt-1", "mr1")).await.unwrap().snapshot;
    assert_eq!(
        (fixture.row("gt-1").0.as_str(), status_of(&closed, "gt-1").as_str()),
        ("closed", "closed")
    );
    assert_eq!(fixture.server.row("gt-1")["close_reason"], "merged abc123");
    assert!(closed.number() > snapshot.number());
    assert_eq!(fixture.row("gt-2"), open());
}

#[tokio::test]
async fn edits_are_not_repeated_after_a_restart() {
    let fixture = Fixture::with_issues(2).await;
    let wanted = Wanted {
        claims: claimed("gt-2", "u1", "nux").claims,
        landed: landed("gt-1", "mr1").landed,
        ..Wanted::default()
    };
    assert_eq!(fixture.process().sync(&wanted).await.unwrap().applied.done.len(), 2);
    let asked = fixture.server.asked("POST").len();
    assert!(fixture.process().sync(&wanted).await.unwrap().applied.done.is_empty());
    assert_eq!(fixture.server.asked("POST").len(), asked);
}

#[tokio::test]
async fn a_person_s_reopening_stays_after_a_restart() {
    let fixture = Fixture::with_issues(1).await;
    let wanted = landed("gt-1", "mr1");
    fixture.process().sync(&wanted).await.unwrap();
    fixture.edit("gt-1", "status", "open");
    assert!(fixture.process().sync(&wanted).await.unwrap().applied.done.is_empty());
    assert_eq!(fixture.row("gt-1"), open());
    // The next request that lands on the same bead closes it again.
    fixture.process().sync(&landed("gt-1", "mr2")).await.unwrap();
    assert_eq!(fixture.row("gt-1").0, "closed");
}

#[tokio::test]
async fn a_close_is_recorded_even_where_somebody_closed_first() {
    let fixture = Fixture::with_issues(1).await;
    fixture.edit("gt-1", "status", "closed");
    let written = fixture.process().sync(&landed("gt-1", "mr1")).await.unwrap();
    assert_eq!(
        (written.applied.done[0].1, fixture.server.asked(":close").len()),
        (Change::NotNeeded, 0)
    );
    fixture.edit("gt-1", "status", "open");
    fixture.process().sync(&landed("gt-1", "mr1")).await.unwrap();
    assert_eq!(fixture.row("gt-1"), open());
}

#[tokio::test]
async fn a_person_who_takes_a_claim_back_wins_after_a_restart() {
    let fixture = Fixture::with_issues(1).await;
    let wanted = claimed("gt-1", "u1", "nux");
    fixture.process().sync(&wanted).await.unwrap();
    fixture.server.store(|store| {
        store.change("gt-1", |row| {
            row.insert("status".into(), "open".into());
            row.remove("assignee");
        });
    });
    fixture.process().sync(&wanted).await.unwrap();
    assert_eq!(fixture.row("gt-1"), open());
}

#[tokio::test]
async fn a_claim_that_ended_is_released_after_a_restart() {
    let fixture = Fixture::with_issues(1).await;
    fixture.process().sync(&claimed("gt-1", "u1", "nux")).await.unwrap();
    fixture.process().sync(&Wanted::default()).await.unwrap();
    assert_eq!(fixture.row("gt-1"), open());
    assert!(fixture.records.intents.lock().claims.is_empty());
    // The same assignee, set by a person, is not a copied claim.
    fixture.edit("gt-1", "status", "in_progress");
    fixture.edit("gt-1", "assignee", NUX);
    fixture.process().sync(&Wanted::default()).await.unwrap();
    assert_eq!(fixture.row("gt-1"), taken());
}

#[tokio::test]
async fn a_claim_whose_answers_are_lost_is_made_or_released_after_a_restart() {
    for fault in [Fault::CutBefore, Fault::CutAfter] {
        for still_wanted in [true, false] {
            let fixture = Fixture::with_issues(1).await;
            // The client sends a claim a second time by itself.
            fixture.server.fault(":claim", fault.clone());
            fixture.server.fault(":claim", fault.clone());
            let lost = fixture.process().sync(&claimed("gt-1", "u1", "nux")).await.unwrap_err();
            assert_eq!((lost.reason(), lost.is_write_error()), ("RemoteUnreachable", true));
            let wanted =
                if still_wanted { claimed("gt-1", "u1", "nux") } else { Wanted::default() };
            fixture.process().sync(&wanted).await.unwrap();
            assert_eq!(
                fixture.row("gt-1"),
                if still_wanted { taken() } else { open() },
                "{fault:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_close_whose_answer_is_lost_is_finished_after_a_restart() {
    for (fault, asked) in [(Fault::CutAfter, 1), (Fault::CutMidway, 1), (Fault::CutBefore, 2)] {
        let fixture = Fixture::with_issues(1).await;
        fixture.server.fault(":close", fault.clone());
        fixture.process().sync(&landed("gt-1", "mr1")).await.unwrap_err();
        assert!(!fixture.records.closes.lock()["mr1"].is_done());
        fixture.process().sync(&landed("gt-1", "mr1")).await.unwrap();
        assert_eq!(
            (fixture.row("gt-1").0.as_str(), fixture.server.asked(":close").len()),
            ("closed", asked),
            "{fault:?}"
        );
        assert!(fixture.records.closes.lock()["mr1"].is_done());
    }
}

#[tokio::test]
async fn a_bead_that_is_reopened_while_the_answer_is_lost_stays_open_and_that_is_reported_once() {
    let fixture = Fixture::with_issues(1).await;
    fixture.server.fault(":close", Fault::CutAfter);
    fixture.process().sync(&landed("gt-1", "mr1")).await.unwrap_err();
    fixture.edit("gt-1", "status", "open");
    let written = fixture.process().sync(&landed("gt-1", "mr1")).await.unwrap();
    let [(_, EditError::NotEditable { why, .. })] = &written.applied.refused[..] else {
        panic!("{written:?}")
    };
    assert!(why.contains("close it by hand") && why.contains("merged abc123"), "{why}");
    let again = fixture.process().sync(&landed("gt-1", "mr1")).await.unwrap();
    assert!(again.applied.refused.is_empty() && again.applied.done.is_empty());
    assert_eq!((fixture.row("gt-1"), fixture.server.asked(":close").len()), (open(), 1));
}

#[tokio::test]
async fn a_busy_server_is_not_called_before_the_time_that_it_names_and_no_edit_is_lost() {
    let fixture = Fixture::with_issues(1).await;
    let process = fixture.process();
    fixture.server.fault(
        ":close",
        Fault::Answer(503, vec![("retry-after", "600".to_owned())], problem("busy")),
    );
    let busy = process.sync(&landed("gt-1", "mr1")).await.unwrap_err();
    assert_eq!((busy.reason(), busy.retry_after()), ("RemoteBusy", Some(Duration::from_secs(600))));
    assert!(busy.is_write_error() && !busy.is_permanent());
    let asked = fixture.server.asked("").len();
    let again = process.sync(&landed("gt-1", "mr1")).await.unwrap_err();
    assert!(again.retry_after().is_some_and(|left| left <= Duration::from_secs(600)), "{again}");
    assert_eq!(fixture.server.asked("").len(), asked, "it was called before its time");
    assert_eq!(
        status_of(
            &process.stores.handle("uid", None).reading(&process.valid).unwrap().snapshot,
            "gt-1"
        ),
        "open",
        "reads go on"
    );
    // The refused close is known not to be done, so an edit in between is not taken for a
    // reopening.
    fixture.edit("gt-1", "title", "edited");
    fixture.process().sync(&landed("gt-1", "mr1")).await.unwrap();
    assert_eq!(fixture.row("gt-1").0, "closed");
}

#[tokio::test]
async fn a_bead_that_others_edit_meanwhile_is_closed_all_the_same() {
    let fixture = Fixture::with_issues(1).await;
    fixture.server.meanwhile(":close", |store| {
        store.change("gt-1", |row| drop(row.insert("title".into(), "edited".into())));
    });
    fixture.process().sync(&landed("gt-1", "mr1")).await.unwrap();
    let row = fixture.server.row("gt-1");
    assert_eq!((row["status"].as_str(), row["title"].as_str()), (Some("closed"), Some("edited")));
}

#[tokio::test]
async fn a_landing_closes_a_bead_whatever_still_blocks_it() {
    let fixture = Fixture::with_issues(1).await;
    fixture.server.store(|store| {
        store.add(&json!({"id": "gt-9", "dependencies": [{"issue_id": "gt-9", "depends_on_id": "gt-1", "type": "blocks"}]}));
    });
    fixture.process().sync(&landed("gt-9", "mr1")).await.unwrap();
    assert_eq!(fixture.row("gt-9").0, "closed");
}

#[tokio::test]
async fn a_race_for_one_bead_has_one_winner_and_the_error_names_them() {
    let fixture = Fixture::with_issues(1).await;
    fixture.server.meanwhile(":claim", |store| {
        store.change("gt-1", |row| {
            row.insert("status".into(), "in_progress".into());
            row.insert("assignee".into(), "maya".into());
        });
    });
    let written = fixture.process().sync(&claimed("gt-1", "u1", "nux")).await.unwrap();
    let [(edit, error)] = &written.applied.refused[..] else { panic!("{written:?}") };
    assert_eq!(*error, EditError::AlreadyClaimed { id: "gt-1".into(), by: "maya".into() });
    assert_eq!(fixture.row("gt-1").1.as_deref(), Some("maya"));
    let process = fixture.process();
    assert!(
        !process.stores.handle("uid", None).is_refused(edit, process.valid.interval),
        "another process has not been refused"
    );
}

#[tokio::test]
async fn a_server_of_another_project_is_neither_read_nor_written() {
    let fixture = Fixture::with_issues(1).await;
    fixture.process().read().await.unwrap();
    // Where the spec names no project, the one of the first connection counts, after a restart
    // too.
    fixture.server.store(|store| store.project = "proj-api".into());
    let error = fixture.process().sync(&landed("gt-1", "mr1")).await.unwrap_err();
    assert_eq!((error.reason(), error.is_permanent()), ("ProjectMismatch", true));
    for text in ["proj-api", PROJECT, "spec.http.projectId", &fixture.server.url()] {
        assert!(error.message().contains(text), "{}", error.message());
    }
    assert_eq!(fixture.row("gt-1"), open());
    let mut other = fixture.process();
    other.server.project = Some("proj-api".into());
    assert_eq!(other.read().await.unwrap().project_id(), Some("proj-api"));
    assert_eq!(fixture.records.intents.lock().project, "proj-api");
}

#[tokio::test]
async fn while_a_server_is_down_the_last_reading_is_served_and_edits_wait() {
    let mut fixture = Fixture::with_issues(1).await;
    let process = fixture.process();
    process.read().await.unwrap();
    fixture.server.down().await;
    let error = process.sync(&landed("gt-1", "mr1")).await.unwrap_err();
    assert_eq!((error.reason(), error.is_permanent()), ("RemoteUnreachable", false));
    assert!(
        error.message().contains("writes wait") && error.message().contains(&fixture.server.url()),
        "{}",
        error.message()
    );
    assert_eq!(
        status_of(
            &process.stores.handle("uid", None).reading(&process.valid).unwrap().snapshot,
            "gt-1"
        ),
        "open"
    );
    fixture.server.up().await;
    process.sync(&landed("gt-1", "mr1")).await.unwrap();
    assert_eq!(fixture.row("gt-1").0, "closed");
}

#[tokio::test]
async fn changes_are_followed_bead_by_bead_and_without_a_journal_the_whole_store_is_read() {
    let fixture = Fixture::with_issues(3).await;
    let process = fixture.process();
    let first = process.read().await.unwrap().number();
    assert_eq!(process.read().await.unwrap().number(), first, "nothing changed");
    fixture.edit("gt-2", "title", "renamed");
    let snapshot = process.read().await.unwrap();
    assert_eq!(
        (snapshot.issues().get("gt-2").unwrap().title.as_str(), snapshot.number()),
        ("renamed", first + 1)
    );
    assert_eq!(
        (fixture.server.asked("/issues?").len(), fixture.server.asked("/issues/gt-2").len()),
        (1, 1)
    );
    fixture.server.store(|store| store.journal_is_kept = false);
    fixture.edit("gt-3", "title", "renamed");
    let snapshot = process.read().await.unwrap();
    assert_eq!(
        (snapshot.issues().get("gt-3").unwrap().title.as_str(), snapshot.number()),
        ("renamed", first + 2)
    );
    assert_eq!(process.read().await.unwrap().number(), first + 2);
    assert_eq!(fixture.server.asked("/issues?").len(), 3);
}

#[tokio::test]
async fn a_comment_is_added_once_and_shown() {
    let fixture = Fixture::with_issues(1).await;
    let process = fixture.process();
    let comment = |_: &StoreSnapshot| {
        vec![Edit::Comment {
            bead: "gt-1".into(),
            author: "witness".into(),
            text: "gave up:\nno changes".into(),
        }]
    };
    let written = process.write(comment).await.unwrap();
    assert_eq!(written.applied.done[0].1, Change::Made);
    let again = process.write(comment).await.unwrap();
    assert_eq!(again.applied.done[0].1, Change::NotNeeded);
    assert_eq!(again.snapshot.issues().get("gt-1").unwrap().comments.len(), 1);
}

#[tokio::test]
async fn a_bead_of_another_prefix_and_a_read_only_store_are_not_written() {
    let fixture = Fixture::with_issues(1).await;
    fixture.server.store(|store| store.add(&json!({"id": "hq-1"})));
    let close = |bead: &'static str| {
        move |_: &StoreSnapshot| {
            vec![Edit::Close { bead: bead.into(), request: "mr9".into(), reason: "x".into() }]
        }
    };
    let mut process = fixture.process();
    let written = process.write(close("hq-1")).await.unwrap();
    assert!(matches!(written.applied.refused[..], [(_, EditError::NotEditable { .. })]));
    assert_eq!(status_of(&written.snapshot, "hq-1"), "open");
    process.valid.policy = WritePolicy::ReadOnly;
    assert_eq!(process.write(close("gt-1")).await.unwrap_err().reason(), "ReadOnly");
    assert!(fixture.server.asked("POST").is_empty());
}
