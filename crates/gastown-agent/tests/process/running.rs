//! `gt run`, and the commands that the agent calls.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use gastown_core::report::AgentExit;

use crate::pod::{Origin, Pod, Running, WIP, git, git_ok, until};

fn working() -> (Origin, Pod, Running) {
    let origin = Origin::new();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let sync = pod.sync();
    (origin, pod, sync)
}

const FOREVER: &str = "touch started; while [ -e \"$PWD\" ]; do sleep 0.1; done\n";

#[test]
fn an_agent_that_called_gt_done_has_time_to_end() {
    for (exit, want, code) in
        [("completed", AgentExit::Completed, 0), ("failed", AgentExit::GaveUp, 1)]
    {
        let (origin, mut pod, sync) = working();
        pod.set("GASTOWN_SOFT_SECONDS", "1");
        let script = format!(
            "echo w > w; git add w; git commit -q -m w; gt done --exit {exit} --message 'as asked'\n{FOREVER}"
        );
        let (got, report) = Pod::end_run(pod.agent(&script));
        assert_eq!((got, report.exit, report.message.as_str()), (Some(code), want, "as asked"));
        assert!(git_ok(&origin.path(), &["show", "polecat/toast:w"]));
        if want == AgentExit::GaveUp {
            pod.golden("run-gave-up", &report);
        }
        pod.end_sync(sync);
    }
}

#[test]
fn the_deadline_stops_the_agent_early_enough_to_save() {
    let (origin, mut pod, sync) = working();
    pod.set("GASTOWN_DEADLINE_SECONDS", "3");
    let (code, report) = Pod::end_run(pod.agent(&format!("echo half > half\n{FOREVER}")));
    assert_eq!((code, report.exit), (Some(3), AgentExit::Deadline));
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:half")]), "half");
    pod.end_sync(sync);
}

#[test]
fn sigterm_saves_the_work_as_a_drain_does() {
    let (origin, pod, sync) = working();
    let run = pod.agent(&format!("echo half > half\n{FOREVER}"));
    until("the agent works", || pod.repo().join("started").exists());
    run.signal(rustix::process::Signal::TERM);
    let (code, report) = Pod::end_run(run);
    assert_eq!((code, report.exit), (Some(3), AgentExit::Drained));
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:half")]), "half");
    pod.end_sync(sync);
}

#[test]
fn an_agent_that_ignores_sigterm_is_ended_all_the_same() {
    let (origin, pod, sync) = working();
    let run = pod.agent(&format!("trap '' TERM; echo half > half\n{FOREVER}"));
    until("the agent works", || pod.repo().join("started").exists());
    pod.put("gastown/pod/drain", "Idle");
    let (code, report) = Pod::end_run(run);
    assert_eq!((code, report.exit, report.code), (Some(3), AgentExit::Drained, None));
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:half")]), "half");
    pod.end_sync(sync);
}

#[test]
fn a_budget_holds_for_any_agent_that_prints_its_usage() {
    let (_origin, mut pod, sync) = working();
    pod.set("GASTOWN_MAX_TOKENS", "100");
    let usage = r#"echo 'gastown-usage: {"turns":3,"inputTokens":90,"outputTokens":20}'"#;
    let (code, report) = Pod::end_run(pod.agent(&format!("{usage}\n{FOREVER}")));
    assert_eq!((code, report.exit), (Some(3), AgentExit::BudgetExceeded), "{report:?}");
    assert_eq!((report.usage.turns, report.usage.input_tokens), (3, 90));

    let (code, report) = Pod::end_run(pod.agent("true\n"));
    assert_eq!((code, report.exit), (Some(0), AgentExit::Completed));
    assert!(report.message.contains("spec.budget had no effect"), "{report:?}");
    pod.end_sync(sync);
}

#[test]
fn an_exit_code_of_the_agent_is_reported() {
    let (_origin, pod, sync) = working();
    let (code, report) = Pod::end_run(pod.agent("exit 7\n"));
    assert_eq!((code, report.exit, report.code), (Some(1), AgentExit::Failed, Some(7)));
    let (code, report) = Pod::end_run(pod.agent("kill -9 $$\n"));
    assert_eq!((code, report.exit, report.code), (Some(1), AgentExit::Crashed, None));
    pod.golden("run-crashed", &report);
    pod.end_sync(sync);
}

#[test]
fn a_program_that_is_missing_in_the_image_is_named() {
    let (_origin, mut pod, sync) = working();
    let mut run = pod.start("run", &["run", "--", "no-such-agent"]);
    assert_eq!(run.wait(), Some(1));
    let report: gastown_core::report::RunReport = run.termination_message();
    assert_eq!((report.exit, report.message.as_str()), (AgentExit::ImageLacks, "no-such-agent"));
    pod.set("GASTOWN_AGENT", "claude-code");
    let bare = pod.path("bare");
    fs::create_dir_all(&bare).unwrap();
    std::os::unix::fs::symlink("/bin/sh", bare.join("sh")).unwrap();
    pod.set("PATH", bare.to_str().unwrap());
    let mut run = pod.start("run", &["run"]);
    assert_eq!(run.wait(), Some(1));
    let report: gastown_core::report::RunReport = run.termination_message();
    assert_eq!((report.exit, report.message.as_str()), (AgentExit::ImageLacks, "git"));
    pod.golden("run-image-lacks", &report);
    drop(sync);
}

/// Has the pod run an agent that prints the output of a captured run of Claude Code.
pub fn claude(pod: &mut Pod, stream: &str, first: &str) {
    let captured = format!("{}/src/run/captured/{stream}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let bin = pod.path("bin");
    fs::create_dir_all(&bin).unwrap();
    let args = pod.path("args");
    let text = format!(
        "#!/bin/sh\necho \"$@\" > {}\nread -r prompt\n{first}\ncat {captured}\ncat > {}\n",
        args.display(),
        pod.path("rest").display()
    );
    fs::write(bin.join("claude"), text).unwrap();
    fs::set_permissions(bin.join("claude"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    pod.set("PATH", &path).set("GASTOWN_AGENT", "claude-code").set("GASTOWN_MODEL", "m-1");
}

#[test]
fn a_claude_that_ends_its_turn_is_completed_with_its_usage() {
    let (origin, mut pod, sync) = working();
    claude(
        &mut pod,
        "completed",
        "printf '%s' \"$prompt\" > prompt.json; git add -A; git commit -q -m prompt",
    );
    let mut run = pod.start("run", &["run"]);
    assert_eq!(run.wait(), Some(0), "{}", pod.log("run"));
    let report: gastown_core::report::RunReport = run.termination_message();
    pod.golden("run-claude-completed", &report);
    assert_eq!(
        (report.exit, report.usage.turns, report.model.as_deref()),
        (AgentExit::Completed, 3, Some("claude-opus-5-5"))
    );
    let prompt: serde_json::Value =
        serde_json::from_str(&git(&origin.path(), &["show", "polecat/toast:prompt.json"])).unwrap();
    assert_eq!(prompt["message"]["content"][0]["text"], "Do the task.\n");
    let args = fs::read_to_string(pod.path("args")).unwrap();
    assert!(
        args.contains("--input-format stream-json")
            && args.contains("--model m-1")
            && !args.contains("Do the task"),
        "{args}"
    );
    pod.end_sync(sync);
}

#[test]
fn a_limit_of_the_budget_stops_the_agent_and_its_work_is_saved() {
    let (origin, mut pod, sync) = working();
    pod.set("GASTOWN_MAX_TOKENS", "150");
    claude(&mut pod, "completed", "echo half > half");
    let mut run = pod.start("run", &["run"]);
    assert_eq!(run.wait(), Some(3));
    let report: gastown_core::report::RunReport = run.termination_message();
    assert_eq!(
        (report.exit, report.message.as_str()),
        (AgentExit::BudgetExceeded, "more than 150 tokens")
    );
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:half")]), "half");
    pod.end_sync(sync);
}

#[test]
fn a_refused_key_of_the_model_is_not_a_failure_of_the_agent() {
    let (_origin, mut pod, sync) = working();
    for (stream, want) in
        [("status-401", AgentExit::BadCredentials), ("status-429", AgentExit::RateLimited)]
    {
        claude(&mut pod, stream, ":");
        let mut run = pod.start("run", &["run"]);
        assert_eq!(run.wait(), Some(1));
        let report: gastown_core::report::RunReport = run.termination_message();
        assert_eq!(report.exit, want, "{report:?}");
        pod.golden(&format!("run-{stream}"), &report);
    }
    pod.end_sync(sync);
}

#[test]
fn the_agents_credentials_are_a_private_copy_in_its_home() {
    let (_origin, pod, sync) = working();
    pod.put("claude-creds/.credentials.json", "{\"k\":1}");
    let (code, _) = Pod::end_run(pod.agent(
        "stat -c %a ~/.claude/.credentials.json > mode; cat ~/.claude/.credentials.json > copy\n",
    ));
    assert_eq!(code, Some(0));
    assert_eq!(fs::read_to_string(pod.repo().join("mode")).unwrap().trim(), "600");
    assert_eq!(fs::read_to_string(pod.repo().join("copy")).unwrap(), "{\"k\":1}");
    pod.end_sync(sync);
}

#[test]
fn the_agents_credentials_are_in_memory_where_the_pod_has_a_volume_for_them() {
    let (_origin, pod, sync) = working();
    pod.put("claude-creds/.credentials.json", "{\"k\":1}");
    pod.put("gastown/login/.credentials.json", "of an earlier start");
    let (code, _) = Pod::end_run(pod.agent(
        "readlink ~/.claude/.credentials.json > link; stat -L -c %a ~/.claude/.credentials.json > mode\n\
         cat ~/.claude/.credentials.json > copy\n",
    ));
    assert_eq!(code, Some(0));
    let read = |name: &str| fs::read_to_string(pod.repo().join(name)).unwrap();
    assert!(read("link").trim().ends_with("/gastown/login/.credentials.json"), "{}", read("link"));
    assert_eq!((read("mode").trim(), read("copy").as_str()), ("600", "{\"k\":1}"));
    pod.end_sync(sync);
}

#[test]
fn orphans_of_the_agent_are_reaped() {
    let (_origin, pod, sync) = working();
    // The child of a child that ended at once belongs to the first process; as a zombie it would
    // stay in the table.
    let script = "sh -c 'sh -c \"echo \\$\\$ > orphan\" & '; while [ ! -s orphan ]; do sleep 0.05; done\n\
                  while [ -e /proc/$(cat orphan) ]; do sleep 0.05; done; touch reaped\n";
    let (code, _) = Pod::end_run(pod.agent(script));
    assert_eq!(code, Some(0));
    assert!(pod.repo().join("reaped").exists());
    pod.end_sync(sync);
}

#[test]
fn checking_out_an_old_commit_loses_nothing_and_another_branch_that_continues_the_work_is_pushed() {
    let (origin, pod, sync) = working();
    let look = "echo 1 > a; git add a; git commit -q -m 1; git checkout -q --detach origin/main\n";
    Pod::end_run(pod.agent(look));
    assert!(git_ok(&origin.path(), &["show", "polecat/toast:a"]), "{}", pod.log("run"));
    let other =
        "git checkout -q -b mine polecat/toast; echo 2 > b; git add b; git commit -q -m 2\n";
    Pod::end_run(pod.agent(other));
    assert!(git_ok(&origin.path(), &["show", "polecat/toast:b"]));
    let aside = "git checkout -q -b aside origin/main; echo 3 > c; git add c; git commit -q -m 3\n";
    Pod::end_run(pod.agent(aside));
    assert!(git_ok(&origin.path(), &["show", "polecat/toast:b"]));
    // Work that does not continue the branch is at least in the snapshot.
    assert!(git_ok(&origin.path(), &["show", &format!("{WIP}:c")]));
    pod.end_sync(sync);
}

#[test]
fn prime_prints_the_prompt_and_checkpoint_saves_on_the_spot() {
    let (origin, pod, sync) = working();
    let (code, _) = Pod::end_run(
        pod.agent("gt prime > primed; gt checkpoint > saved; test $(cat primed | wc -l) = 1\n"),
    );
    assert_eq!(code, Some(0), "{}", pod.log("run"));
    assert_eq!(fs::read_to_string(pod.repo().join("primed")).unwrap(), "Do the task.\n");
    assert!(fs::read_to_string(pod.repo().join("saved")).unwrap().contains(WIP));
    assert_eq!(git(&origin.path(), &["show", &format!("{WIP}:primed")]), "Do the task.");
    pod.end_sync(sync);
}
