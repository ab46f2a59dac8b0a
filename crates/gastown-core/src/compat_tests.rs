//! What earlier versions wrote is read today, and what is written today is read by them.

use gastown_compat::{samples, v0_1_0};
use gastown_types::CommitId;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::beads::Record;
use crate::convoy::Counted;
use crate::escalation::{DeliveryRecord, EscalationState, Settled};
use crate::polecat::{self, End, Landed, Last, Ledger, Lost, Respawns, SavedWork};
use crate::report::{
    AgentExit, InitReport, InitResult, RunReport, Saved, SyncReport, SyncResult, Usage, parse,
    render,
};

fn commit(digit: char) -> CommitId {
    format!("{digit}5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24").parse().unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const USAGE: Usage = Usage {
    turns: 7,
    input_tokens: 100,
    output_tokens: 20,
    cache_read_tokens: 3,
    cache_write_tokens: 4,
    cost_usd: 0.25,
};

/// A ledger in which everything is set, as 0.1.0 had it.
fn ledger() -> Ledger {
    Ledger {
        v: 1,
        attempt: 3,
        forgiven: 1,
        respawns: Respawns { infrastructure: 1, oom: 1, crashed: 2 },
        waits: 2,
        waiting_since: Some(1_767_323_000),
        ours: true,
        branch: Some("feature/ws-7k2p".parse().unwrap()),
        commit: Some(commit('a')),
        base: Some(commit('b')),
        changes: Some("d41d8cd98f00b204".into()),
        saved: vec![SavedWork {
            r#ref: "refs/gastown/wip/team/toast/1".into(),
            commit: commit('c'),
            of: "branch side".into(),
            skipped: 1,
            attempt: 1,
        }],
        // 0.1.0 did not know it.
        marks: None,
        lost: Some(Lost { attempt: 2, what: vec!["branch b: broken".into()], more: 4 }),
        last: Some(Last {
            end: End::Retries,
            reason: "OOMKilled".into(),
            message: "the agent's container ran out of memory".into(),
            at: 1_767_323_045,
            until: Some(1_767_323_105),
            saved: Some(false),
        }),
        pods: vec!["0a1b2c3d-0000-0000-0000-000000000001".into()],
        spec: "2-0123456789abcdef".into(),
        retry: Some("again".into()),
        landed: Some(Landed { request: "feature-ws-7k2p-0123456789ab".into(), at: 1_767_323_099 }),
        started: Some(1_767_320_000),
        model: Some("claude-sonnet".into()),
        usage: USAGE,
    }
}

fn init() -> InitReport {
    InitReport {
        v: 2,
        result: InitResult::BadCredentials,
        message: "the remote refused the key of Secret creds".into(),
        base: Some(commit('b')),
        head: Some(commit('a')),
    }
}

fn sync() -> SyncReport {
    SyncReport {
        v: 2,
        result: SyncResult::PushRace,
        message: "another writer moved the work branch".into(),
        commit: Some(commit('a')),
        base: Some(commit('b')),
        ahead: Some(2),
        changes: Some("d41d8cd98f00b204".into()),
        unpushed: Some(commit('c')),
        wip: Some("refs/gastown/wip/team/toast/1".into()),
        saved: vec![Saved {
            r#ref: "refs/gastown/wip/team/toast/1".into(),
            commit: commit('c'),
            of: "uncommitted files".into(),
            skipped: 1,
        }],
        saved_more: 3,
        unsaved: vec!["branch b: broken".into()],
        unsaved_more: 2,
    }
}

fn run() -> RunReport {
    RunReport {
        v: 2,
        exit: AgentExit::RateLimited,
        message: "the service asks to wait".into(),
        code: Some(1),
        reset_at: Some(1_767_323_999),
        model: Some("claude-sonnet".into()),
        usage: USAGE,
    }
}

fn escalation_state() -> EscalationState {
    EscalationState {
        raises: 2,
        raised: Some(at("2026-01-02T03:04:05Z")),
        stale: vec![at("2026-01-02T07:04:05Z")],
        settled: Some(Settled {
            at: at("2026-01-02T08:04:05Z"),
            why: "the Polecat continues".into(),
        }),
        closed: Some(at("2026-01-02T09:04:05Z")),
        deliveries: vec![DeliveryRecord {
            route: "oncall".into(),
            severity: gastown_api::Severity::High,
            state: gastown_api::DeliveryState::Pending,
            attempts: 1,
            last: at("2026-01-02T03:04:06Z"),
            next: Some(at("2026-01-02T03:05:06Z")),
            why: Some("HTTP 503".into()),
        }],
    }
}

fn counted() -> Counted {
    let one = |id: &str| [id.to_owned()].into();
    Counted { landed: one("ws-1"), done: one("ws-2"), closed: one("ws-3") }
}

#[test]
fn what_earlier_versions_wrote_is_read_as_they_meant_it() {
    for sample in samples("ledger.json") {
        assert_eq!(Ledger::parse(&sample.text), Ok(ledger()), "{}", sample.version);
    }
    for sample in samples("init-report.json") {
        assert_eq!(parse(&sample.text), Some(init()), "{}", sample.version);
    }
    for sample in samples("sync-report.json") {
        assert_eq!(parse(&sample.text), Some(sync()), "{}", sample.version);
    }
    for sample in samples("run-report.json") {
        assert_eq!(parse(&sample.text), Some(run()), "{}", sample.version);
    }
    for sample in samples("escalation-state.json") {
        assert_eq!(
            EscalationState::read(Some(&sample.text)),
            escalation_state(),
            "{}",
            sample.version
        );
    }
    for sample in samples("convoy-counted.json") {
        assert_eq!(Counted::read(Some(&sample.text)), counted(), "{}", sample.version);
    }
    for sample in samples("bead-trailers.txt") {
        let read: Vec<Record> = sample.text.lines().filter_map(Record::parse).collect();
        assert_eq!(read.len(), sample.text.lines().count(), "{}", sample.version);
        let written: Vec<String> = read.iter().filter_map(Record::text).collect();
        assert_eq!(written.join("\n"), sample.text, "{}", sample.version);
    }
}

#[test]
fn what_is_written_today_is_read_by_0_1_0() {
    let read = v0_1_0::Ledger::parse(&ledger().render()).unwrap();
    assert_eq!((read.attempt, read.forgiven, read.waits), (3, 1, 2));
    assert_eq!((read.respawns.infrastructure, read.respawns.oom, read.respawns.crashed), (1, 1, 2));
    let last = read.last.unwrap();
    assert_eq!(
        (last.end, last.until, last.saved),
        (v0_1_0::End::Retries, Some(1_767_323_105), Some(false))
    );
    assert_eq!(read.commit.unwrap().0, commit('a').to_string());
    assert_eq!((read.saved[0].skip, read.saved[0].n, read.lost.unwrap().more), (1, 1, 4));
    assert_eq!((read.usage.turns, read.landed.unwrap().at), (7, 1_767_323_099));
    assert!(v0_1_0::Ledger::parse(&Ledger::default().render()).is_ok());

    let read: v0_1_0::InitReport = v0_1_0::report(&render(&mut init())).unwrap();
    assert_eq!((read.result.as_str(), read.head.is_some()), ("BadCredentials", true));
    let read: v0_1_0::SyncReport = v0_1_0::report(&render(&mut sync())).unwrap();
    assert_eq!((read.ahead, read.saved_more, read.unsaved_more), (Some(2), 3, 2));
    assert_eq!((read.saved[0].skipped, read.unpushed.is_some()), (1, true));
    let read: v0_1_0::RunReport = v0_1_0::report(&render(&mut run())).unwrap();
    assert_eq!((read.code, read.reset_at, read.usage.turns), (Some(1), Some(1_767_323_999), 7));

    let read: v0_1_0::EscalationState = serde_json::from_str(&escalation_state().write()).unwrap();
    assert_eq!(
        (read.raises, read.deliveries[0].attempts, read.deliveries[0].next.is_some()),
        (2, 1, true)
    );
    let read: v0_1_0::Counted = serde_json::from_str(&counted().write()).unwrap();
    assert_eq!((read.landed.len(), read.done.len(), read.closed.len()), (1, 1, 1));
    let records = [
        Record::Claimed { bead: "b".into(), holder: "h".into(), assignee: "a".into() },
        Record::Released { bead: "b".into(), holder: "h".into() },
        Record::Closed { bead: "b".into(), request: "r".into() },
        Record::Joined { target: "t".into() },
    ];
    for record in records {
        assert!(v0_1_0::bead_trailer(&record.text().unwrap()), "{record:?}");
    }
    let hash = polecat::task_hash(&gastown_api::PolecatSpec::of_rig("web"));
    assert!(hash.starts_with(v0_1_0::TASK_HASH), "{hash}");
}

/// Two versions must find the same claim, and must not make a second request, gate or Polecat beside the
/// first.
#[test]
fn objects_have_the_names_that_earlier_versions_gave_them() {
    let (branch, commit) = ("feature/ws-7k2p".parse().unwrap(), commit('a'));
    let today = json!({
        "claim": polecat::claim_name("web", "ws-7k2p"),
        "convoyPolecat": crate::convoy::polecat_name("mad-max", "web", "ws-7k2p"),
        "escalation": crate::escalation::name("polecat/team/toast/stuck", None),
        "gate": crate::train::gate_job_name("0a1b2c3d", &commit, "default", "f00d", 3),
        "pod": polecat::pod_name("toast", "0a1b2c3d", 2),
        "request": crate::train::request_name("web", &branch, &commit, 2),
    });
    for sample in samples("names.json") {
        let names: Value = serde_json::from_str(&sample.text).unwrap();
        assert_eq!(today, names, "{}", sample.version);
    }
}

/// Every end, result and exit that is written must be one that 0.1.0 knew, until the version after the
/// one that first reads a new one.
#[test]
fn no_end_is_written_that_0_1_0_did_not_know() {
    use End::{Done, DoneWithoutChanges, Drained, Later, Retries, Stuck, Unknown, Waits};
    for end in [Done, DoneWithoutChanges, Waits, Drained, Retries, Later, Stuck] {
        // A new end makes this match incomplete: is it read by the version before?
        match end {
            Done | DoneWithoutChanges | Waits | Drained | Retries | Later | Stuck | Unknown => {}
        }
        assert!(serde_json::from_value::<v0_1_0::End>(json!(end)).is_ok(), "{end:?}");
    }
    let known = |known: &[&str], value: Value| known.contains(&value.as_str().unwrap());
    assert!(known(&v0_1_0::INIT_RESULTS, json!(InitResult::LfsUnavailable)));
    assert!(known(&v0_1_0::SYNC_RESULTS, json!(SyncResult::AmbiguousWork)));
    assert!(known(&v0_1_0::EXITS, json!(AgentExit::ImageLacks)));
}
