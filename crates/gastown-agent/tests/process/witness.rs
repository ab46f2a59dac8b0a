//! `gt sync` and `gt run` before a real witness, with the real agent and a scripted model.

use std::fs;

use gastown_core::report::{AgentExit, RunReport, SyncResult};
use gastown_fakes::messages::{Attempt, MessagesApi, Script, Step};
use gastown_proto::v1::command::What;
use tokio::runtime::Runtime;

use crate::pod::{Origin, Pod, Running, WIP, git, git_ok, until};
use crate::running;
use crate::town::{Town, claude};

fn watched(town: &Town) -> (Origin, Pod, Running) {
    let origin = Origin::new();
    let mut pod = Pod::new(&origin.url());
    town.tell(&mut pod);
    pod.ready();
    let sync = pod.sync();
    (origin, pod, sync)
}

fn scripted(attempts: Vec<Attempt>) -> (Runtime, MessagesApi) {
    let runtime = Runtime::new().unwrap();
    let script = Script { key: "Change: watched".to_owned(), attempts };
    let api = runtime.block_on(MessagesApi::start(vec![script], None)).unwrap();
    (runtime, api)
}

const AWAIT_GO: &str = "while [ ! -e go ]; do sleep 0.1; done; rm go";

#[test]
fn the_witness_sees_the_tool_and_its_nudge_reaches_the_model() {
    let town = Town::new();
    let (origin, mut pod, sync) = watched(&town);
    let commit = |what: &str| {
        Step::bash(format!("echo {what} > {what} && git add {what} && git commit -qm {what}"))
    };
    let attempt = |prompt_contains: Option<&str>, what: &str| Attempt {
        prompt_contains: prompt_contains.map(str::to_owned),
        steps: vec![Step::bash(AWAIT_GO), commit(what)],
        text: "Done.".to_owned(),
    };
    let (_model, api) =
        scripted(vec![attempt(None, "unmoved"), attempt(Some("Look at \"the clock\"."), "moved")]);
    claude(&mut pod, &api.url());
    pod.put("gastown/prompt/prompt.md", "Wait.\n\nChange: watched\n");
    let mut run = pod.start("run", &["run"]);

    let beat = town.beat("it is in its tool", |b| b.in_tool_since_ms > 0);
    assert_eq!(beat.tool, "Bash: The next step of the task");
    assert!(
        beat.last_event_ms >= beat.in_tool_since_ms
            && beat.now_ms >= beat.last_event_ms
            && !beat.waiting_for_human,
        "{beat:?}"
    );
    town.command(1, What::Nudge("Look at \"the clock\".".to_owned()));
    let result = town.result(1);
    assert!(result.ok, "{result:?}");
    fs::write(pod.repo().join("go"), "").unwrap();

    assert_eq!(run.wait(), Some(0), "{}", pod.log("run"));
    let report: RunReport = run.record();
    assert_eq!(report.exit, AgentExit::Completed, "{report:?}");
    assert!(git_ok(&origin.path(), &["show", "polecat/toast:moved"]), "{:#?}", api.log());
    assert!(!git_ok(&origin.path(), &["show", "polecat/toast:unmoved"]));
    let pushed = origin.at("polecat/toast").unwrap();
    let beat = town.beat("it hears what was pushed", |b| b.pushed_commit == pushed);
    assert!(beat.cpu_seconds > 0.0, "{beat:?}");
    {
        let heard = town.heard();
        let first = &heard.streams[0][0];
        assert_eq!(
            (first.namespace.as_str(), first.polecat.as_str(), first.rig.as_str(), first.attempt),
            ("town", "toast", "rig", 1)
        );
        assert!(
            heard.streams[0].iter().skip(1).all(|b| b.polecat.is_empty()),
            "only the first message says whose it is"
        );
    }
    pod.end_sync(sync);
}

#[test]
fn a_mute_agent_is_nudged_in_vain_saved_and_ended() {
    let town = Town::new();
    let (origin, mut pod, sync) = watched(&town);
    let steps = vec![Step::bash("echo half > half"), Step::hang()];
    let (_model, api) =
        scripted(vec![Attempt { steps, text: "Never.".to_owned(), ..Attempt::default() }]);
    claude(&mut pod, &api.url());
    pod.put("gastown/prompt/prompt.md", "Fall silent.\n\nChange: watched\n");
    let run = pod.start("run", &["run"]);
    until("the model hangs", || api.log().iter().any(|e| e.step == 1));
    town.command(1, What::Checkpoint("silent".to_owned()));
    let saved = town.result(1);
    assert!(saved.ok && saved.message.contains(WIP), "{saved:?}");
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:half")]), "half");

    let nudged = jiff::Timestamp::now().as_millisecond();
    town.command(2, What::Nudge("Are you there?".to_owned()));
    assert!(town.result(2).ok, "it was said");
    let read = r#""command_uuid":"00000000-0000-4000-8000-000000000001","state":"queued""#;
    until("the agent has read it", || {
        fs::read_to_string(pod.path("logs/run.out")).unwrap().contains(read)
    });
    town.command(3, What::Checkpoint("still silent".to_owned()));
    let last = town.beat("it is saved again", |b| b.results.iter().any(|r| r.number == 3));
    assert!(last.last_event_ms < nudged, "to have read a nudge is no sign of life: {last:?}");
    assert!(last.in_tool_since_ms == 0 && !last.waiting_for_human, "{last:?}");

    pod.put("gastown/pod/drain", "Wedged");
    let (code, report) = Pod::end_run(run);
    assert_eq!(
        (code, report.exit, report.message.as_str()),
        (Some(3), AgentExit::Drained, "Wedged")
    );
    pod.end_sync(sync);
}

#[test]
fn the_witness_may_go_and_come_back_and_no_work_waits_for_it() {
    let mut town = Town::new();
    let (origin, pod, sync) = watched(&town);
    let commit = |n: u8| format!("echo {n} > {n}; git add {n}; git commit -qm {n}\n");
    let wait = |n: u8| format!("while [ ! -e go{n} ]; do sleep 0.05; done; rm go{n}\n");
    let script =
        [commit(1), "echo dirty > dirty\n".to_owned(), wait(1), commit(2), wait(2)].concat();
    let run = pod.agent(&script);
    until("the first commit is carried", || origin.at("polecat/toast").is_some());
    let first = origin.at("polecat/toast").unwrap();
    town.beat("the witness knows it", |b| b.pushed_commit == first);
    town.command(1, What::Checkpoint("now".to_owned()));
    let saved = town.result(1);
    assert!(saved.ok && saved.message.contains(&first) && saved.message.contains(WIP), "{saved:?}");
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:dirty")]), "dirty");
    town.command(2, What::Nudge("hello".to_owned()));
    let refused = town.result(2);
    assert!(!refused.ok && refused.message.contains("takes no nudges"), "{refused:?}");

    town.kill();
    pod.put("token/token", "t-2\n");
    fs::write(pod.repo().join("go1"), "").unwrap();
    until("the second commit is carried without a witness", || {
        origin.at("polecat/toast").is_some_and(|at| at != first)
    });
    let second = origin.at("polecat/toast").unwrap();
    town.back();
    until("it attaches again", || town.heard().streams.len() > 1);
    let beat = town.beat("it says all again", |b| b.pushed_commit == second);
    assert_eq!((beat.polecat.as_str(), beat.results.len()), ("toast", 0));
    let tokens = town.heard().tokens.clone();
    assert_eq!(
        (tokens.first().unwrap().as_str(), tokens.last().unwrap().as_str()),
        ("Bearer t-1", "Bearer t-2")
    );
    town.command(1, What::Checkpoint("again".to_owned()));
    assert!(town.result(1).message.contains(&second));

    fs::write(pod.repo().join("go2"), "").unwrap();
    let (code, _) = Pod::end_run(run);
    assert_eq!(code, Some(0));
    let record = pod.end_sync(sync);
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, 2));
}

#[test]
fn an_agent_that_tells_nothing_of_its_nudges_ends_all_the_same() {
    let town = Town::new();
    let (origin, mut pod, sync) = watched(&town);
    // An older one: its turn ends, and nothing says that it took the nudge within it.
    running::claude(
        &mut pod,
        "completed",
        "touch ready; read -r nudge; printf '%s' \"$nudge\" > nudge; git add nudge; git commit -qm nudge",
    );
    let mut run = pod.start("run", &["run"]);
    until("it has its prompt", || pod.repo().join("ready").exists());
    until("it is attached", || !town.heard().streams.is_empty());
    town.command(1, What::Nudge("Say \"hi\".".to_owned()));
    assert_eq!(run.wait(), Some(0), "{}", pod.log("run"));
    let report: RunReport = run.record();
    assert_eq!((report.exit, report.usage.turns), (AgentExit::Completed, 3));
    let nudge: serde_json::Value =
        serde_json::from_str(&git(&origin.path(), &["show", "polecat/toast:nudge"])).unwrap();
    assert_eq!(
        (&nudge["type"], &nudge["message"]["content"][0]["text"]),
        (&"user".into(), &"Say \"hi\".".into())
    );
    pod.end_sync(sync);
}

#[test]
fn output_without_a_lines_end_is_a_sign_of_life() {
    let town = Town::new();
    let (_origin, pod, sync) = watched(&town);
    let run = pod.agent("while [ ! -e go ]; do sleep 0.1; done; rm go; printf working; while [ ! -e go ]; do sleep 0.1; done\n");
    let before = town.beat("it has begun", |b| b.last_event_ms > 0).last_event_ms;
    fs::write(pod.repo().join("go"), "").unwrap();
    town.beat("it says something", |b| b.last_event_ms > before);
    until("it took the first file", || !pod.repo().join("go").exists());
    fs::write(pod.repo().join("go"), "").unwrap();
    assert_eq!(Pod::end_run(run).0, Some(0));
    pod.end_sync(sync);
}

#[test]
fn an_alarm_is_kept_while_the_witness_is_away_and_is_raised_once_it_is_back() {
    let mut town = Town::new();
    let (_origin, pod, sync) = watched(&town);
    town.kill();
    let raise = "gt escalate -s high 'The forge is down' --details 'since noon'";
    let script = format!(
        "{raise} > kept; touch said; while [ ! -e go ]; do sleep 0.05; done; {raise} > told; {raise} > again; gt escalate ' ' 2> refused || touch no\n"
    );
    let run = pod.agent(&script);
    until("the agent was answered", || pod.repo().join("said").exists());
    assert!(fs::read_to_string(pod.repo().join("kept")).unwrap().contains("is kept"));
    assert!(town.heard().raised.is_empty());
    town.back();
    until("it is raised", || !town.heard().raised.is_empty());
    fs::write(pod.repo().join("go"), "").unwrap();
    let (code, _) = Pod::end_run(run);
    assert_eq!(code, Some(0), "{}", pod.log("run"));
    let told = fs::read_to_string(pod.repo().join("told")).unwrap();
    assert!(told.contains("town/esc-1"), "{told}");
    let again = fs::read_to_string(pod.repo().join("again")).unwrap();
    assert!(again.contains("told before") && again.contains("town/esc-1"), "{again}");
    assert!(
        pod.repo().join("no").exists()
            && fs::read_to_string(pod.repo().join("refused")).unwrap().contains("in a sentence")
    );
    {
        let heard = town.heard();
        let alarm = &heard.raised[0];
        assert!(
            alarm.cause.starts_with("polecat/town/toast/agent/the-forge-is-down-"),
            "{}",
            alarm.cause
        );
        assert_eq!(
            (alarm.severity.as_str(), alarm.details.as_str(), alarm.source.as_str()),
            ("high", "since noon", "agent")
        );
        assert_eq!(
            (alarm.related_kind.as_str(), alarm.related_name.as_str(), alarm.rig.as_str()),
            ("Polecat", "toast", "rig")
        );
        assert!(heard.raised.iter().all(|r| r.cause == alarm.cause));
    }
    pod.end_sync(sync);
}

#[test]
fn an_alarm_that_nobody_heard_is_in_the_record() {
    let mut town = Town::new();
    town.kill();
    let (_origin, pod, sync) = watched(&town);
    let (code, _) = Pod::end_run(pod.agent("gt escalate 'Nobody is there'\n"));
    assert_eq!(code, Some(0));
    let record = pod.end_sync(sync);
    assert_eq!(record.result, SyncResult::NoChanges);
    assert!(record.message.contains("nobody heard: 1"), "{record:?}");
}

#[test]
fn a_stranger_on_the_port_gets_no_token_and_holds_up_nothing() {
    let (real, other) = (Town::new(), Town::new());
    let origin = Origin::new();
    let mut pod = Pod::new(&origin.url());
    real.tell(&mut pod);
    // The address of one, the authority of the other.
    let stranger = {
        let mut at_other = Pod::new(&origin.url());
        other.tell(&mut at_other);
        at_other.env["GASTOWN_WITNESS_ENDPOINT"].clone()
    };
    pod.set("GASTOWN_WITNESS_ENDPOINT", &stranger);
    pod.ready();
    let sync = pod.sync();
    let (code, _) = Pod::end_run(pod.agent("echo w > w; git add w; git commit -qm w\n"));
    assert_eq!(code, Some(0));
    until("it tried", || pod.log("sync").contains("the witness is away"));
    assert!(other.heard().tokens.is_empty());
    assert_eq!(pod.end_sync(sync).result, SyncResult::Pushed);
}
