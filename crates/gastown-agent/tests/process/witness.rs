//! `gt sync` and `gt run` with a witness, and with the real agent and a scripted model.

use std::fs;

use gastown_core::report::{AgentExit, RunReport, SyncResult};
use gastown_fakes::messages::{Attempt, MessagesApi, Script, Step};
use gastown_proto::v1::command::What;
use gastown_proto::v1::{self, CommandResult, Heartbeat};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::fixture::{FakeWitness, claude};
use crate::pod::{Origin, Pod, Running, WIP, git, git_ok, until};
use crate::running;

fn watched(witness: &FakeWitness) -> (Origin, Pod, Running) {
    let origin = Origin::new();
    let mut pod = Pod::new(&origin.url());
    witness.configure(&mut pod);
    pod.ready();
    let sync = pod.sync();
    (origin, pod, sync)
}

/// A model with this script, for the task with the line `Change: watched`.
pub fn scripted(attempts: Vec<Attempt>) -> (Runtime, MessagesApi) {
    let runtime = Runtime::new().unwrap();
    let script = Script { key: "Change: watched".to_owned(), attempts };
    let api = runtime.block_on(MessagesApi::start(vec![script], None)).unwrap();
    (runtime, api)
}

/// Compares a heartbeat with its golden file, which witness-ctl's tests replay. Of times it has only
/// whether there is one.
fn golden(pod: &Pod, name: &str, heartbeat: &Heartbeat) {
    let Heartbeat {
        namespace,
        polecat,
        rig,
        attempt,
        now_ms,
        last_event_ms,
        in_tool_since_ms,
        tool,
        waiting_for_human,
        cpu_seconds,
        pushed_commit,
        results,
        saving,
        ended,
        // Which heartbeat has a step depends on its time, and the witness decides nothing by it.
        steps: _,
    } = heartbeat;
    let result = |CommandResult { number, ok, message }: &CommandResult| json!({ "number": number, "ok": ok, "message": message });
    let record = json!({
        "namespace": namespace, "polecat": polecat, "rig": rig, "attempt": attempt,
        "now": *now_ms > 0, "lastEvent": *last_event_ms > 0, "inToolSince": *in_tool_since_ms > 0,
        "tool": tool, "waitingForHuman": waiting_for_human, "cpu": *cpu_seconds > 0.0,
        "pushedCommit": pushed_commit, "results": results.iter().map(result).collect::<Vec<_>>(),
        "saving": saving, "ended": ended,
    });
    pod.golden(name, &record);
}

/// Waits for a step of this kind.
fn step(witness: &FakeWitness, kind: &str, is_meant: impl Fn(&v1::Step) -> bool) -> v1::Step {
    let is_it = |step: &&v1::Step| step.kind == kind && is_meant(step);
    let heartbeat = witness.heartbeat("a step has ended", |b| b.steps.iter().any(|s| is_it(&s)));
    let step = heartbeat.steps.iter().find(is_it).unwrap().clone();
    assert!(0 < step.begin_ms && step.begin_ms <= step.end_ms, "{step:?}");
    assert!(step.end_ms <= heartbeat.now_ms, "{step:?}");
    step
}

#[test]
fn heartbeats_are_as_the_witness_is_tested_with() {
    let witness = FakeWitness::new();
    let (origin, pod, sync) = watched(&witness);
    golden(&pod, "heartbeat-first", &witness.heartbeat("it attaches", |b| !b.polecat.is_empty()));
    fs::write(pod.repo().join("dirty"), "1").unwrap();
    witness.command(1, What::Checkpoint("now".to_owned()));
    let saved = witness.heartbeat("it is saved", |b| !b.results.is_empty());
    golden(&pod, "heartbeat-checkpoint", &saved);
    let snapshot = step(&witness, "save", |step| step.failure.is_empty());
    assert_eq!(snapshot.name.len(), 40, "its commit: {snapshot:?}");
    let away = origin.path().with_extension("away");
    fs::rename(origin.path(), &away).unwrap();
    fs::write(pod.repo().join("dirty"), "2").unwrap();
    witness.command(2, What::Checkpoint("again".to_owned()));
    let mut saving = witness.heartbeat("it is not saved", |b| !b.saving.is_empty());
    // The command's result may be in the same heartbeat, or in the next.
    saving.results.clear();
    golden(&pod, "heartbeat-saving", &saving);
    step(&witness, "save", |step| !step.failure.is_empty());
    fs::rename(&away, origin.path()).unwrap();
    pod.end_sync(sync);
}

const AWAIT_GO: &str = "while [ ! -e go ]; do sleep 0.1; done; rm go";

#[test]
fn the_witness_sees_the_tool_and_its_nudge_reaches_the_model() {
    let witness = FakeWitness::new();
    let (origin, mut pod, sync) = watched(&witness);
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

    let heartbeat = witness.heartbeat("it is in its tool", |b| b.in_tool_since_ms > 0);
    assert_eq!(heartbeat.tool, "Bash: The next step of the task");
    assert!(
        heartbeat.last_event_ms >= heartbeat.in_tool_since_ms
            && heartbeat.now_ms >= heartbeat.last_event_ms
            && !heartbeat.waiting_for_human,
        "{heartbeat:?}"
    );
    witness.command(1, What::Nudge("Look at \"the clock\".".to_owned()));
    let result = witness.result(1);
    assert!(result.ok, "{result:?}");
    fs::write(pod.repo().join("go"), "").unwrap();

    assert_eq!(run.wait(), Some(0), "{}", pod.log("run"));
    let report: RunReport = run.termination_message();
    assert_eq!(report.exit, AgentExit::Completed, "{report:?}");
    assert!(git_ok(&origin.path(), &["show", "polecat/toast:moved"]), "{:#?}", api.log());
    assert!(!git_ok(&origin.path(), &["show", "polecat/toast:unmoved"]));
    let pushed = origin.at("polecat/toast").unwrap();
    let heartbeat =
        witness.heartbeat("the heartbeat has the pushed commit", |b| b.pushed_commit == pushed);
    assert!(heartbeat.cpu_seconds > 0.0, "{heartbeat:?}");
    step(&witness, "tool", |step| step.name == "Bash");
    step(&witness, "push", |step| step.name == pushed && step.failure.is_empty());
    {
        let received = witness.received();
        let first = &received.streams[0][0];
        assert_eq!(
            (first.namespace.as_str(), first.polecat.as_str(), first.rig.as_str(), first.attempt),
            ("work", "toast", "rig", 1)
        );
        assert!(
            received.streams[0].iter().skip(1).all(|b| b.polecat.is_empty()),
            "only the first message names the polecat"
        );
    }
    pod.end_sync(sync);
}

#[test]
fn an_agent_whose_model_hangs_is_nudged_without_effect_saved_and_ended() {
    let witness = FakeWitness::new();
    let (origin, mut pod, sync) = watched(&witness);
    let steps = vec![Step::bash("echo half > half"), Step::hang()];
    let (_model, api) =
        scripted(vec![Attempt { steps, text: "Never.".to_owned(), ..Attempt::default() }]);
    claude(&mut pod, &api.url());
    pod.put("gastown/prompt/prompt.md", "Fall silent.\n\nChange: watched\n");
    let run = pod.start("run", &["run"]);
    until("the model hangs", || api.log().iter().any(|e| e.step == 1));
    witness.command(1, What::Checkpoint("silent".to_owned()));
    let saved = witness.result(1);
    assert!(saved.ok && saved.message.contains(WIP), "{saved:?}");
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:half")]), "half");

    let nudged = jiff::Timestamp::now().as_millisecond();
    witness.command(2, What::Nudge("Are you there?".to_owned()));
    assert!(witness.result(2).ok, "it was written to the agent's input");
    let read = r#""command_uuid":"00000000-0000-4000-8000-000000000001","state":"queued""#;
    until("the agent has queued it", || {
        fs::read_to_string(pod.path("logs/run.out")).unwrap().contains(read)
    });
    witness.command(3, What::Checkpoint("still silent".to_owned()));
    let last = witness.heartbeat("it is saved again", |b| b.results.iter().any(|r| r.number == 3));
    assert!(
        last.last_event_ms < nudged,
        "a queued nudge does not show that the agent is alive: {last:?}"
    );
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
fn the_witness_may_stop_and_start_again_and_no_work_waits_for_it() {
    let mut witness = FakeWitness::new();
    let (origin, pod, sync) = watched(&witness);
    let commit = |n: u8| format!("echo {n} > {n}; git add {n}; git commit -qm {n}\n");
    let wait = |n: u8| format!("while [ ! -e go{n} ]; do sleep 0.05; done; rm go{n}\n");
    let script =
        [commit(1), "echo dirty > dirty\n".to_owned(), wait(1), commit(2), wait(2)].concat();
    let run = pod.agent(&script);
    until("the first commit is pushed", || origin.at("polecat/toast").is_some());
    let first = origin.at("polecat/toast").unwrap();
    witness.heartbeat("the witness knows the commit", |b| b.pushed_commit == first);
    witness.command(1, What::Checkpoint("now".to_owned()));
    let saved = witness.result(1);
    assert!(saved.ok && saved.message.contains(&first) && saved.message.contains(WIP), "{saved:?}");
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:dirty")]), "dirty");
    witness.command(2, What::Nudge("hello".to_owned()));
    let refused = witness.result(2);
    assert!(!refused.ok && refused.message.contains("takes no nudges"), "{refused:?}");

    witness.stop();
    pod.put("token/token", "t-2\n");
    fs::write(pod.repo().join("go1"), "").unwrap();
    until("the second commit is pushed without a witness", || {
        origin.at("polecat/toast").is_some_and(|at| at != first)
    });
    let second = origin.at("polecat/toast").unwrap();
    witness.start();
    until("it attaches again", || witness.received().streams.len() > 1);
    let heartbeat =
        witness.heartbeat("the first heartbeat has the commit", |b| b.pushed_commit == second);
    assert_eq!((heartbeat.polecat.as_str(), heartbeat.results.len()), ("toast", 0));
    let tokens = witness.received().tokens.clone();
    assert_eq!(
        (tokens.first().unwrap().as_str(), tokens.last().unwrap().as_str()),
        ("Bearer t-1", "Bearer t-2")
    );
    witness.command(1, What::Checkpoint("again".to_owned()));
    assert!(witness.result(1).message.contains(&second));

    fs::write(pod.repo().join("go2"), "").unwrap();
    let (code, _) = Pod::end_run(run);
    assert_eq!(code, Some(0));
    let record = pod.end_sync(sync);
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(2)));
}

#[test]
fn an_agent_without_events_for_nudges_ends_all_the_same() {
    let witness = FakeWitness::new();
    let (origin, mut pod, sync) = watched(&witness);
    // An older version: its turn ends, and no event shows that it read the nudge within it.
    running::claude(
        &mut pod,
        "completed",
        "touch ready; read -r nudge; printf '%s' \"$nudge\" > nudge; git add nudge; git commit -qm nudge",
    );
    let mut run = pod.start("run", &["run"]);
    until("it has its prompt", || pod.repo().join("ready").exists());
    until("it is attached", || !witness.received().streams.is_empty());
    witness.command(1, What::Nudge("Print \"hi\".".to_owned()));
    assert_eq!(run.wait(), Some(0), "{}", pod.log("run"));
    let report: RunReport = run.termination_message();
    assert_eq!((report.exit, report.usage.turns), (AgentExit::Completed, 3));
    let nudge: serde_json::Value =
        serde_json::from_str(&git(&origin.path(), &["show", "polecat/toast:nudge"])).unwrap();
    assert_eq!(
        (&nudge["type"], &nudge["message"]["content"][0]["text"]),
        (&"user".into(), &"Print \"hi\".".into())
    );
    pod.end_sync(sync);
}

#[test]
fn output_without_a_lines_end_shows_that_the_agent_is_alive() {
    let witness = FakeWitness::new();
    let (_origin, pod, sync) = watched(&witness);
    let run = pod.agent("while [ ! -e go ]; do sleep 0.1; done; rm go; printf working; while [ ! -e go ]; do sleep 0.1; done\n");
    let before = witness.heartbeat("the agent has started", |b| b.last_event_ms > 0).last_event_ms;
    fs::write(pod.repo().join("go"), "").unwrap();
    witness.heartbeat("the output counts", |b| b.last_event_ms > before);
    until("it deleted the first file", || !pod.repo().join("go").exists());
    fs::write(pod.repo().join("go"), "").unwrap();
    assert_eq!(Pod::end_run(run).0, Some(0));
    pod.end_sync(sync);
}

#[test]
fn an_escalation_is_kept_without_a_connection_and_is_raised_when_there_is_one() {
    let mut witness = FakeWitness::new();
    let (_origin, pod, sync) = watched(&witness);
    witness.stop();
    let raise = "gt escalate -s high 'The forge is down' --details 'since noon'";
    let script = format!(
        "{raise} > kept; touch escalated; while [ ! -e go ]; do sleep 0.05; done; {raise} > raised; {raise} > again; gt escalate ' ' 2> refused || touch no\n"
    );
    let run = pod.agent(&script);
    until("the agent was answered", || pod.repo().join("escalated").exists());
    assert!(fs::read_to_string(pod.repo().join("kept")).unwrap().contains("is kept"));
    assert!(witness.received().raised.is_empty());
    witness.start();
    until("it is raised", || !witness.received().raised.is_empty());
    fs::write(pod.repo().join("go"), "").unwrap();
    let (code, _) = Pod::end_run(run);
    assert_eq!(code, Some(0), "{}", pod.log("run"));
    let raised = fs::read_to_string(pod.repo().join("raised")).unwrap();
    assert!(raised.contains("work/esc-1"), "{raised}");
    let again = fs::read_to_string(pod.repo().join("again")).unwrap();
    assert!(again.contains("raised before") && again.contains("work/esc-1"), "{again}");
    assert!(
        pod.repo().join("no").exists()
            && fs::read_to_string(pod.repo().join("refused")).unwrap().contains("in a sentence")
    );
    {
        let received = witness.received();
        let escalation = &received.raised[0];
        assert!(
            escalation.cause.starts_with("polecat/work/toast/agent/the-forge-is-down-"),
            "{}",
            escalation.cause
        );
        assert_eq!(
            (escalation.severity.as_str(), escalation.details.as_str(), escalation.source.as_str()),
            ("high", "since noon", "agent")
        );
        assert_eq!(
            (
                escalation.related_kind.as_str(),
                escalation.related_name.as_str(),
                escalation.rig.as_str()
            ),
            ("Polecat", "toast", "rig")
        );
        assert!(received.raised.iter().all(|r| r.cause == escalation.cause));
    }
    pod.end_sync(sync);
}

#[test]
fn an_escalation_that_was_not_sent_is_in_the_push_record() {
    let mut witness = FakeWitness::new();
    witness.stop();
    let (_origin, pod, sync) = watched(&witness);
    let (code, _) = Pod::end_run(pod.agent("gt escalate 'The forge is down'\n"));
    assert_eq!(code, Some(0));
    let record = pod.end_sync(sync);
    assert_eq!(record.result, SyncResult::NoChanges);
    assert!(record.message.contains("escalations not sent: 1"), "{record:?}");
}

#[test]
fn a_server_of_another_ca_gets_no_token_and_blocks_nothing() {
    let (real, other) = (FakeWitness::new(), FakeWitness::new());
    let origin = Origin::new();
    let mut pod = Pod::new(&origin.url());
    real.configure(&mut pod);
    // The address of one, the CA of the other.
    let endpoint_of_other = {
        let mut at_other = Pod::new(&origin.url());
        other.configure(&mut at_other);
        at_other.env["GASTOWN_WITNESS_ENDPOINT"].clone()
    };
    pod.set("GASTOWN_WITNESS_ENDPOINT", &endpoint_of_other);
    pod.ready();
    let sync = pod.sync();
    let (code, _) = Pod::end_run(pod.agent("echo w > w; git add w; git commit -qm w\n"));
    assert_eq!(code, Some(0));
    until("it tried", || pod.log("sync").contains("the witness cannot be reached"));
    assert!(other.received().tokens.is_empty());
    assert_eq!(pod.end_sync(sync).result, SyncResult::Pushed);
}
