//! Stores behind a server that follows the published rules of `bd serve`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use beadstore_ctl::desk::{Desks, Fault, Way, Written};
use beadstore_ctl::keeper::{Keeper, Unkept};
use beadstore_ctl::ledger::Record;
use beadstore_ctl::place::{self, Setting, Source};
use beadstore_ctl::plan::{Claim, Deed, Prefixes, Wanted, plan};
use beadstore_ctl::records::{Book, Closing};
use beadstore_ctl::served::Line;
use beadstore_ctl::view::View;
use gastown_api::WritePolicy;
use gastown_beads::{Change, EditError};
use gastown_beads_http::{Client, Endpoint, Options, Token};
use gastown_fakes::bd_serve::{Fault as Bad, PROJECT, Server, TOKEN, problem};
use gastown_git::Git;
use parking_lot::Mutex;
use serde_json::json;

use crate::{claimed, landed, status_of};

const NUX: &str = "web/polecats/nux";

/// Records that outlive a controller, as annotations do.
#[derive(Default)]
struct Kept {
    book: Mutex<Book>,
    closings: Mutex<HashMap<String, Closing>>,
    held: Mutex<Vec<Claim>>,
}

#[tonic::async_trait]
impl Keeper for Kept {
    fn held(&self) -> Vec<Claim> {
        self.held.lock().clone()
    }

    fn closed(&self) -> Vec<Record> {
        let closings = self.closings.lock();
        let done = closings.iter().filter(|(_, closing)| closing.is_done());
        done.map(|(request, closing)| Record::Closed {
            bead: closing.bead.clone(),
            request: request.clone(),
        })
        .collect()
    }

    async fn book(&self) -> Result<Book, Unkept> {
        Ok(self.book.lock().clone())
    }

    async fn keep_book(
        &self,
        change: &(dyn for<'b> Fn(&'b mut Book) + Sync),
    ) -> Result<Book, Unkept> {
        let mut book = self.book.lock();
        change(&mut book);
        Ok(book.clone())
    }

    async fn closing(&self, request: &str) -> Result<Option<Closing>, Unkept> {
        Ok(self.closings.lock().get(request).cloned())
    }

    async fn keep_closing(
        &self,
        request: &str,
        before: Option<&Closing>,
        after: Option<&Closing>,
    ) -> Result<(), Unkept> {
        let mut closings = self.closings.lock();
        assert_eq!(closings.get(request), before);
        closings.remove(request);
        closings.extend(after.map(|closing| (request.to_owned(), closing.clone())));
        Ok(())
    }
}

/// A server, and the records that the town keeps of it.
struct Ground {
    server: Server,
    kept: Arc<Kept>,
}

impl Ground {
    /// With beads `gt-1`, `gt-2`, …, all open.
    async fn with_issues(count: usize) -> Self {
        Self { server: Server::with_issues(count).await, kept: Arc::default() }
    }

    /// A controller that remembers nothing; a server that never answers is given up soon.
    fn desks(&self) -> Fresh {
        let endpoint = Endpoint::parse(&self.server.url()).unwrap();
        let server = place::Server { url: self.server.url(), endpoint, project: None };
        let setting = Setting {
            rig: "web".into(),
            source: Source::Served(server.clone()),
            prefixes: Prefixes::new(["gt"]),
            policy: WritePolicy::Write,
            interval: Duration::from_secs(300),
        };
        Fresh {
            desks: Desks::new(Git::from_env(), std::env::temp_dir()),
            setting,
            server,
            kept: self.kept.clone(),
        }
    }

    fn row(&self, bead: &str) -> (String, Option<String>) {
        let row = self.server.row(bead);
        (row["status"].as_str().unwrap().to_owned(), row["assignee"].as_str().map(str::to_owned))
    }

    fn edit(&self, bead: &str, key: &str, value: &str) {
        self.server
            .store(|town| town.change(bead, |row| drop(row.insert(key.to_owned(), value.into()))));
    }
}

struct Fresh {
    desks: Desks,
    setting: Setting,
    server: place::Server,
    kept: Arc<Kept>,
}

impl Fresh {
    fn way(&self) -> Way {
        let token = Token::parse(TOKEN.as_bytes()).unwrap();
        let client =
            Client::new(self.server.endpoint.clone(), Some(token), Options::default()).unwrap();
        Way::Served(Line { server: self.server.clone(), client, keeper: self.kept.clone() })
    }

    async fn read(&self) -> Result<View, Fault> {
        let seen = self.desks.of("uid").read(&self.setting, &self.way(), Duration::ZERO).await?;
        Ok(seen.view)
    }

    async fn write(&self, deeds: impl Fn(&View) -> Vec<Deed>) -> Result<Written, Fault> {
        self.desks.of("uid").write(&self.setting, &self.way(), deeds).await
    }

    /// Writes what the town wants, as a pass of the controller does.
    async fn settle(&self, wanted: &Wanted) -> Result<Written, Fault> {
        self.kept.held.lock().clone_from(&wanted.claims);
        let setting = &self.setting;
        self.write(|view| {
            plan(&setting.rig, wanted, view.issues(), view.ledger(), &setting.prefixes).deeds
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
async fn a_claim_and_a_close_reach_the_server_and_the_view() {
    let ground = Ground::with_issues(2).await;
    let fresh = ground.desks();
    let view = fresh.settle(&claimed("gt-1", "u1", "nux")).await.unwrap().view;
    assert_eq!((ground.row("gt-1"), status_of(&view, "gt-1").as_str()), (taken(), "in_progress"));
    assert_eq!((view.is_authoritative(), view.project_id()), (true, Some(PROJECT)));
    let closed = fresh.settle(&landed("gt-1", "mr1")).await.unwrap().view;
    assert_eq!(
        (ground.row("gt-1").0.as_str(), status_of(&closed, "gt-1").as_str()),
        ("closed", "closed")
    );
    assert_eq!(ground.server.row("gt-1")["close_reason"], "merged abc123");
    assert!(closed.number() > view.number());
    assert_eq!(ground.row("gt-2"), open());
}

#[tokio::test]
async fn what_was_written_is_not_written_again_by_one_who_remembers_nothing() {
    let ground = Ground::with_issues(2).await;
    let wanted = Wanted {
        claims: claimed("gt-2", "u1", "nux").claims,
        landed: landed("gt-1", "mr1").landed,
        ..Wanted::default()
    };
    assert_eq!(ground.desks().settle(&wanted).await.unwrap().applied.done.len(), 2);
    let asked = ground.server.asked("POST").len();
    assert!(ground.desks().settle(&wanted).await.unwrap().applied.done.is_empty());
    assert_eq!(ground.server.asked("POST").len(), asked);
}

#[tokio::test]
async fn a_person_s_reopening_stays_whoever_forgets() {
    let ground = Ground::with_issues(1).await;
    let wanted = landed("gt-1", "mr1");
    ground.desks().settle(&wanted).await.unwrap();
    ground.edit("gt-1", "status", "open");
    assert!(ground.desks().settle(&wanted).await.unwrap().applied.done.is_empty());
    assert_eq!(ground.row("gt-1"), open());
    // The next request that lands on the same bead closes it again.
    ground.desks().settle(&landed("gt-1", "mr2")).await.unwrap();
    assert_eq!(ground.row("gt-1").0, "closed");
}

#[tokio::test]
async fn a_close_is_remembered_even_where_somebody_closed_first() {
    let ground = Ground::with_issues(1).await;
    ground.edit("gt-1", "status", "closed");
    let written = ground.desks().settle(&landed("gt-1", "mr1")).await.unwrap();
    assert_eq!(
        (written.applied.done[0].1, ground.server.asked(":close").len()),
        (Change::NotNeeded, 0)
    );
    ground.edit("gt-1", "status", "open");
    ground.desks().settle(&landed("gt-1", "mr1")).await.unwrap();
    assert_eq!(ground.row("gt-1"), open());
}

#[tokio::test]
async fn a_person_who_takes_a_claim_back_is_heeded_whoever_forgets() {
    let ground = Ground::with_issues(1).await;
    let wanted = claimed("gt-1", "u1", "nux");
    ground.desks().settle(&wanted).await.unwrap();
    ground.server.store(|town| {
        town.change("gt-1", |row| {
            row.insert("status".into(), "open".into());
            row.remove("assignee");
        });
    });
    ground.desks().settle(&wanted).await.unwrap();
    assert_eq!(ground.row("gt-1"), open());
}

#[tokio::test]
async fn a_claim_that_ended_is_given_back_by_one_who_remembers_nothing() {
    let ground = Ground::with_issues(1).await;
    ground.desks().settle(&claimed("gt-1", "u1", "nux")).await.unwrap();
    ground.desks().settle(&Wanted::default()).await.unwrap();
    assert_eq!(ground.row("gt-1"), open());
    assert!(ground.kept.book.lock().claims.is_empty());
    // The same name in a person's hand is none of ours.
    ground.edit("gt-1", "status", "in_progress");
    ground.edit("gt-1", "assignee", NUX);
    ground.desks().settle(&Wanted::default()).await.unwrap();
    assert_eq!(ground.row("gt-1"), taken());
}

#[tokio::test]
async fn a_claim_whose_answers_are_lost_is_made_or_given_back_after_a_restart() {
    for fault in [Bad::CutBefore, Bad::CutAfter] {
        for still_wanted in [true, false] {
            let ground = Ground::with_issues(1).await;
            // The client asks a second time by itself.
            ground.server.fault(":claim", fault.clone());
            ground.server.fault(":claim", fault.clone());
            let lost = ground.desks().settle(&claimed("gt-1", "u1", "nux")).await.unwrap_err();
            assert_eq!((lost.reason(), lost.is_of_writing()), ("RemoteUnreachable", true));
            let wanted =
                if still_wanted { claimed("gt-1", "u1", "nux") } else { Wanted::default() };
            ground.desks().settle(&wanted).await.unwrap();
            assert_eq!(
                ground.row("gt-1"),
                if still_wanted { taken() } else { open() },
                "{fault:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_close_whose_answer_is_lost_is_finished_by_one_who_remembers_nothing() {
    for (fault, asked) in [(Bad::CutAfter, 1), (Bad::CutMidway, 1), (Bad::CutBefore, 2)] {
        let ground = Ground::with_issues(1).await;
        ground.server.fault(":close", fault.clone());
        ground.desks().settle(&landed("gt-1", "mr1")).await.unwrap_err();
        assert!(!ground.kept.closings.lock()["mr1"].is_done());
        ground.desks().settle(&landed("gt-1", "mr1")).await.unwrap();
        assert_eq!(
            (ground.row("gt-1").0.as_str(), ground.server.asked(":close").len()),
            ("closed", asked),
            "{fault:?}"
        );
        assert!(ground.kept.closings.lock()["mr1"].is_done());
    }
}

#[tokio::test]
async fn a_bead_that_is_reopened_while_the_answer_is_lost_and_we_restart_stays_open_and_that_is_told_once()
 {
    let ground = Ground::with_issues(1).await;
    ground.server.fault(":close", Bad::CutAfter);
    ground.desks().settle(&landed("gt-1", "mr1")).await.unwrap_err();
    ground.edit("gt-1", "status", "open");
    let written = ground.desks().settle(&landed("gt-1", "mr1")).await.unwrap();
    let [(_, EditError::NotEditable { why, .. })] = &written.applied.refused[..] else {
        panic!("{written:?}")
    };
    assert!(why.contains("close it by hand") && why.contains("merged abc123"), "{why}");
    let again = ground.desks().settle(&landed("gt-1", "mr1")).await.unwrap();
    assert!(again.applied.refused.is_empty() && again.applied.done.is_empty());
    assert_eq!((ground.row("gt-1"), ground.server.asked(":close").len()), (open(), 1));
}

#[tokio::test]
async fn a_busy_server_is_left_alone_for_as_long_as_it_asks_and_then_nothing_is_lost() {
    let ground = Ground::with_issues(1).await;
    let fresh = ground.desks();
    ground.server.fault(
        ":close",
        Bad::Answer(503, vec![("retry-after", "600".to_owned())], problem("busy")),
    );
    let busy = fresh.settle(&landed("gt-1", "mr1")).await.unwrap_err();
    assert_eq!((busy.reason(), busy.patience()), ("RemoteBusy", Some(Duration::from_secs(600))));
    assert!(busy.is_of_writing() && !busy.is_lasting());
    let asked = ground.server.asked("").len();
    let again = fresh.settle(&landed("gt-1", "mr1")).await.unwrap_err();
    assert!(again.patience().is_some_and(|left| left <= Duration::from_secs(600)), "{again}");
    assert_eq!(ground.server.asked("").len(), asked, "it was asked again before its time");
    assert_eq!(
        status_of(&fresh.desks.of("uid").seen(&fresh.setting).unwrap().view, "gt-1"),
        "open",
        "reads go on"
    );
    // What was refused is known not to be done, so an edit in between does not pass for a
    // reopening.
    ground.edit("gt-1", "title", "edited");
    ground.desks().settle(&landed("gt-1", "mr1")).await.unwrap();
    assert_eq!(ground.row("gt-1").0, "closed");
}

#[tokio::test]
async fn a_bead_that_others_edit_at_the_same_moment_is_closed_all_the_same() {
    let ground = Ground::with_issues(1).await;
    ground.server.meanwhile(":close", |town| {
        town.change("gt-1", |row| drop(row.insert("title".into(), "edited".into())))
    });
    ground.desks().settle(&landed("gt-1", "mr1")).await.unwrap();
    let row = ground.server.row("gt-1");
    assert_eq!((row["status"].as_str(), row["title"].as_str()), (Some("closed"), Some("edited")));
}

#[tokio::test]
async fn a_landing_closes_a_bead_whatever_still_blocks_it() {
    let ground = Ground::with_issues(1).await;
    ground.server.store(|town| {
        town.add(&json!({"id": "gt-9", "dependencies": [{"issue_id": "gt-9", "depends_on_id": "gt-1", "type": "blocks"}]}));
    });
    let by_hand =
        |_: &View| vec![Deed::Close { bead: "gt-9".into(), request: None, reason: "done".into() }];
    let written = ground.desks().write(by_hand).await.unwrap();
    assert!(
        matches!(written.applied.refused[..], [(_, EditError::NotEditable { .. })]),
        "{written:?}"
    );
    ground.desks().settle(&landed("gt-9", "mr1")).await.unwrap();
    assert_eq!(ground.row("gt-9").0, "closed");
}

#[tokio::test]
async fn a_race_for_one_bead_has_one_winner_who_is_named() {
    let ground = Ground::with_issues(1).await;
    ground.server.meanwhile(":claim", |town| {
        town.change("gt-1", |row| {
            row.insert("status".into(), "in_progress".into());
            row.insert("assignee".into(), "maya".into());
        });
    });
    let written = ground.desks().settle(&claimed("gt-1", "u1", "nux")).await.unwrap();
    let [(deed, error)] = &written.applied.refused[..] else { panic!("{written:?}") };
    assert_eq!(*error, EditError::AlreadyClaimed { id: "gt-1".into(), by: "maya".into() });
    assert_eq!(ground.row("gt-1").1.as_deref(), Some("maya"));
    let fresh = ground.desks();
    assert!(
        !fresh.desks.of("uid").is_refused(deed, fresh.setting.interval),
        "another process has its own patience"
    );
}

#[tokio::test]
async fn a_server_of_another_project_is_neither_read_nor_written() {
    let ground = Ground::with_issues(1).await;
    ground.desks().read().await.unwrap();
    // The server of the first contact counts where the spec names none, for one who remembers
    // nothing too.
    ground.server.store(|town| town.project = "proj-api".into());
    let fault = ground.desks().settle(&landed("gt-1", "mr1")).await.unwrap_err();
    assert_eq!((fault.reason(), fault.is_lasting()), ("ProjectMismatch", true));
    for word in ["proj-api", PROJECT, "spec.http.projectId", &ground.server.url()] {
        assert!(fault.message().contains(word), "{}", fault.message());
    }
    assert_eq!(ground.row("gt-1"), open());
    let mut meant = ground.desks();
    meant.server.project = Some("proj-api".into());
    assert_eq!(meant.read().await.unwrap().project_id(), Some("proj-api"));
    assert_eq!(ground.kept.book.lock().project, "proj-api");
}

#[tokio::test]
async fn a_server_that_goes_away_leaves_what_was_read_and_what_waits_is_written_when_it_is_back() {
    let mut ground = Ground::with_issues(1).await;
    let fresh = ground.desks();
    fresh.read().await.unwrap();
    ground.server.down().await;
    let fault = fresh.settle(&landed("gt-1", "mr1")).await.unwrap_err();
    assert_eq!((fault.reason(), fault.is_lasting()), ("RemoteUnreachable", false));
    assert!(
        fault.message().contains("writes wait") && fault.message().contains(&ground.server.url()),
        "{}",
        fault.message()
    );
    assert_eq!(
        status_of(&fresh.desks.of("uid").seen(&fresh.setting).unwrap().view, "gt-1"),
        "open"
    );
    ground.server.up().await;
    fresh.settle(&landed("gt-1", "mr1")).await.unwrap();
    assert_eq!(ground.row("gt-1").0, "closed");
}

#[tokio::test]
async fn changes_are_followed_bead_by_bead_and_without_a_journal_everything_is_read() {
    let ground = Ground::with_issues(3).await;
    let fresh = ground.desks();
    let first = fresh.read().await.unwrap().number();
    assert_eq!(fresh.read().await.unwrap().number(), first, "nothing changed");
    ground.edit("gt-2", "title", "renamed");
    let view = fresh.read().await.unwrap();
    assert_eq!(
        (view.issues().get("gt-2").unwrap().title.as_str(), view.number()),
        ("renamed", first + 1)
    );
    assert_eq!(
        (ground.server.asked("/issues?").len(), ground.server.asked("/issues/gt-2").len()),
        (1, 1)
    );
    ground.server.store(|town| town.journal_is_kept = false);
    ground.edit("gt-3", "title", "renamed");
    let view = fresh.read().await.unwrap();
    assert_eq!(
        (view.issues().get("gt-3").unwrap().title.as_str(), view.number()),
        ("renamed", first + 2)
    );
    assert_eq!(fresh.read().await.unwrap().number(), first + 2);
    assert_eq!(ground.server.asked("/issues?").len(), 3);
}

#[tokio::test]
async fn a_comment_is_made_once_and_shown() {
    let ground = Ground::with_issues(1).await;
    let fresh = ground.desks();
    let say = |_: &View| {
        vec![Deed::Comment {
            bead: "gt-1".into(),
            author: "witness".into(),
            text: "gave up:\nno changes".into(),
        }]
    };
    let written = fresh.write(say).await.unwrap();
    assert_eq!(written.applied.done[0].1, Change::Made);
    let again = fresh.write(say).await.unwrap();
    assert_eq!(again.applied.done[0].1, Change::NotNeeded);
    assert_eq!(again.view.issues().get("gt-1").unwrap().comments.len(), 1);
}

#[tokio::test]
async fn a_bead_of_another_prefix_is_read_and_not_written_and_a_store_for_reading_is_not_either() {
    let ground = Ground::with_issues(1).await;
    ground.server.store(|town| town.add(&json!({"id": "hq-1"})));
    let close = |bead: &'static str| {
        move |_: &View| vec![Deed::Close { bead: bead.into(), request: None, reason: "x".into() }]
    };
    let mut fresh = ground.desks();
    let written = fresh.write(close("hq-1")).await.unwrap();
    assert!(matches!(written.applied.refused[..], [(_, EditError::NotEditable { .. })]));
    assert_eq!(status_of(&written.view, "hq-1"), "open");
    fresh.setting.policy = WritePolicy::ReadOnly;
    assert_eq!(fresh.write(close("gt-1")).await.unwrap_err().reason(), "ReadOnly");
    assert!(ground.server.asked("POST").is_empty());
}
