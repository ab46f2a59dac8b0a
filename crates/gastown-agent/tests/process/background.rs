//! Work that goes on after the agent's turn: tasks that the real agent runs in the background, and
//! processes that it leaves behind.

use std::fs;
use std::path::Path;

use gastown_core::report::{AgentExit, SyncResult};
use gastown_fakes::messages::{Attempt, Entry, MessagesApi, Step};
use tokio::runtime::Runtime;

use crate::fixture::claude;
use crate::pod::{Origin, Pod, Running, WIP, git, git_ok, until};
use crate::witness::scripted;

/// Writes a file again and again, in a session of its own that nothing of the agent ends.
const LEFT_BEHIND: &str = "setsid sh -c 'echo $$ > ../left; while [ -e \"$PWD\" ]; do date +%N > counter; done' \
                           > /dev/null 2>&1 & while [ ! -s counter ]; do sleep 0.1; done";

/// A pod whose agent is the real one, with a model that does these steps and then ends its turn.
fn working(steps: Vec<Step>) -> (Origin, Pod, Running, (Runtime, MessagesApi)) {
    let origin = Origin::new();
    let mut pod = Pod::new(&origin.url());
    let attempt = Attempt { steps, text: "Done.".to_owned(), ..Attempt::default() };
    let model = scripted(vec![attempt]);
    claude(&mut pod, &model.1.url());
    pod.put("gastown/prompt/prompt.md", "Work.\n\nChange: watched\n");
    // An agent that is taken for done has no time for anything else.
    pod.set("GASTOWN_SOFT_SECONDS", "1");
    pod.ready();
    let sync = pod.sync();
    (origin, pod, sync, model)
}

/// How many of the model's turns ended with a text.
fn ended_turns(api: &MessagesApi) -> usize {
    let is_end = |entry: &&Entry| entry.key.is_some() && !entry.called;
    api.log().iter().filter(is_end).count()
}

/// That a process which wrote its number into this file of the workspace does not exist any more.
fn assert_ended(pod: &Pod, file: &str) {
    let pid = fs::read_to_string(pod.path("workspace").join(file)).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "{file} runs on");
}

/// That the snapshot has a file as it is now: nothing has written it since.
fn assert_saved_last(origin: &Origin, pod: &Pod, file: &str) {
    let saved = git(&origin.path(), &["show", &format!("{WIP}:{file}")]);
    assert_eq!(saved, fs::read_to_string(pod.repo().join(file)).unwrap().trim());
}

#[test]
fn a_task_in_the_background_ends_before_the_agent_is_done() {
    let commit = "echo $$ > ../task; sleep 4; echo late > late; git add late; git commit -qm late";
    let (origin, pod, sync, (_runtime, api)) = working(vec![Step::background(commit)]);
    let (code, report) = Pod::end_run(pod.start("run", &["run"]));
    assert_eq!((code, report.exit), (Some(0), AgentExit::Completed), "{report:?}");
    assert_eq!(ended_turns(&api), 2, "one without the task's end, and one with it");
    assert_ended(&pod, "task");
    let record = pod.end_sync(sync);
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(1)), "{record:?}");
    assert!(git_ok(&origin.path(), &["show", "polecat/toast:late"]));
}

#[test]
fn what_a_task_in_the_background_did_after_the_last_turn_is_saved_when_the_pod_is_drained() {
    let task = "echo $$ > ../task; while [ ! -e ../go ]; do sleep 0.1; done; \
                echo late > late; git add late; git commit -qm late; echo half > half; \
                touch ../worked; while [ -e \"$PWD\" ]; do sleep 0.1; done";
    let steps = vec![Step::bash(LEFT_BEHIND), Step::background(task)];
    let (origin, pod, sync, (_runtime, api)) = working(steps);
    let run = pod.start("run", &["run"]);
    until("the last turn has ended", || {
        let log = fs::read_to_string(pod.path("logs/run.out")).unwrap_or_default();
        ended_turns(&api) == 1 && log.contains("\"type\":\"result\"")
    });
    fs::write(pod.path("workspace/go"), "").unwrap();
    until("the task has worked", || pod.path("workspace/worked").exists());
    pod.put("gastown/pod/drain", "Idle");
    let (code, report) = Pod::end_run(run);
    assert_eq!((code, report.exit), (Some(3), AgentExit::Drained), "{report:?}");
    for file in ["task", "left"] {
        assert_ended(&pod, file);
    }
    let record = pod.end_sync(sync);
    assert_eq!((record.result, record.ahead), (SyncResult::Pushed, Some(1)), "{record:?}");
    assert!(git_ok(&origin.path(), &["show", "polecat/toast:late"]));
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:half")]), "half");
    assert_saved_last(&origin, &pod, "counter");
}

#[test]
fn a_process_that_the_agent_leaves_behind_ends_before_the_work_is_saved() {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let sync = pod.sync();
    let (code, report) = Pod::end_run(pod.agent(&format!("{LEFT_BEHIND}\n")));
    assert_eq!((code, report.exit), (Some(0), AgentExit::Completed), "{report:?}");
    assert_ended(&pod, "left");
    pod.end_sync(sync);
    assert_saved_last(&origin, &pod, "counter");
}
