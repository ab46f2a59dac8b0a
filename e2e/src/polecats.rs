//! What scenarios see of Polecats, and what they do in their pods.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gastown_api::names::condition;
use gastown_api::{Polecat, PolecatPhase, conditions};
use gastown_demo::{Scenario, Snapshot, until};
use gastown_fakes::messages::{Attempt, Script, Step};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use serde_json::Value;

use crate::environment::Environment;

/// How long one thing may take to happen.
pub const LIMIT: Duration = Duration::from_mins(5);

/// The line of a task by which the model finds its script.
fn key(name: &str) -> String {
    format!("Change: {name}")
}

/// The text of the task.
pub fn task(name: &str) -> String {
    format!("Do what is to be done.\n\n{}\n", key(name))
}

/// A command that may last as long as the agent allows.
pub fn command(bash: &str) -> Step {
    Step { bash: bash.to_owned(), timeout_ms: Some(600_000), ..Step::default() }
}

/// What the model does in the first attempt.
pub fn first(steps: Vec<Step>) -> Attempt {
    Attempt { prompt_contains: None, steps, text: "Done.".to_owned() }
}

/// What the model does when its prompt describes the attempt before.
pub fn restarted(steps: Vec<Step>) -> Attempt {
    Attempt { prompt_contains: Some(gastown_demo::RESTARTED.to_owned()), ..first(steps) }
}

/// What the model does for a Polecat.
pub fn script(name: &str, attempts: Vec<Attempt>) -> Script {
    Script { key: key(name), attempts }
}

/// Waits until the model ordered this command of the script: the commands before it have ended.
pub async fn await_at_work(scenario: &Scenario, name: &str, step: usize) -> Result<()> {
    let what = format!("step {step} of agent {name}");
    await_model(scenario, name, &what, |e| e.step == step && e.called).await
}

/// Waits until the model has ended its turn: the agent has nothing left to do.
pub async fn await_last_text(scenario: &Scenario, name: &str) -> Result<()> {
    let what = format!("the last text of agent {name}");
    await_model(scenario, name, &what, |e| !e.called).await
}

async fn await_model(
    scenario: &Scenario,
    name: &str,
    what: &str,
    is_meant: impl Fn(&gastown_fakes::messages::Entry) -> bool,
) -> Result<()> {
    let key = key(name);
    let end = Instant::now() + LIMIT;
    loop {
        let log = scenario.messages_log().await?;
        if log.iter().any(|e| e.key.as_ref() == Some(&key) && is_meant(e)) {
            return Ok(());
        }
        if Instant::now() > end {
            // Fails with a diagnosis.
            return until(scenario, what, Duration::ZERO, |_| None).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// A condition of a Polecat.
pub fn condition<'a>(s: &'a Snapshot, name: &str, type_: &str) -> Option<&'a Condition> {
    conditions::find(&s.polecat(name)?.status.as_ref()?.conditions, type_)
}

/// Waits until a condition of a Polecat is False with this reason, and its message has this text.
/// Returns the message.
pub async fn await_reason(
    scenario: &Scenario,
    name: &str,
    type_: &str,
    reason: &str,
    text: &str,
) -> Result<String> {
    let what = format!("condition {type_}=False of {name} with {reason}: {text}");
    let shown =
        |c: &&Condition| c.status == "False" && c.reason == reason && c.message.contains(text);
    let message =
        until(scenario, &what, LIMIT, |s| condition(s, name, type_).filter(shown).cloned())
            .await?
            .message;
    println!("  {name}: {type_}=False {reason}: {message}");
    Ok(message)
}

/// Waits until a Polecat has this phase.
pub async fn await_phase(scenario: &Scenario, name: &str, phase: PolecatPhase) -> Result<()> {
    let what = format!("phase {phase:?} of {name}");
    let reached = |p: &&Polecat| p.status.as_ref().and_then(|s| s.phase) == Some(phase);
    until(scenario, &what, LIMIT, |s| s.polecat(name).filter(reached).map(|_| ())).await
}

/// Waits until the work of these Polecats has landed.
pub async fn await_landed(scenario: &Scenario, names: &[&str]) -> Result<()> {
    let landed = |s: &Snapshot, name: &str| {
        condition(s, name, condition::MERGED).is_some_and(|c| c.status == "True")
    };
    let what = format!("the landing of {}", names.join(", "));
    until(scenario, &what, LIMIT, |s| names.iter().all(|n| landed(s, n)).then_some(())).await
}

/// The pod of a Polecat's newest attempt.
pub async fn pod(env: &Environment, scenario: &Scenario, name: &str) -> Result<Pod> {
    let has_pod = |p: &Polecat| p.status.as_ref().and_then(|s| s.pod_name.clone());
    let what = format!("a pod of {name}");
    let pod = until(scenario, &what, LIMIT, |s| s.polecat(name).and_then(has_pod)).await?;
    let pods = Api::<Pod>::namespaced(env.client.clone(), &scenario.settings.namespace);
    pods.get(&pod).await.with_context(|| what)
}

/// Runs a shell command in the agent's container, as a person does with `kubectl exec`.
pub async fn in_agent(scenario: &Scenario, pod: &str, command: &str) -> Result<String> {
    let namespace = scenario.settings.namespace.as_str();
    let exec = ["exec", "-n", namespace, pod, "-c", "claude", "--", "sh", "-c", command];
    scenario.kubectl.output(&exec).await
}

/// Changes the spec of a Polecat.
pub async fn specify(
    env: &Environment,
    scenario: &Scenario,
    name: &str,
    spec: &Value,
) -> Result<()> {
    let polecats = Api::<Polecat>::namespaced(env.client.clone(), &scenario.settings.namespace);
    let patch = Patch::Merge(serde_json::json!({"spec": spec}));
    polecats
        .patch(name, &PatchParams::default(), &patch)
        .await
        .with_context(|| format!("changing Polecat {name}"))?;
    Ok(())
}

/// Fails unless `kubectl describe` shows this text to a person.
pub async fn check_described(scenario: &Scenario, name: &str, text: &str) -> Result<()> {
    let namespace = scenario.settings.namespace.as_str();
    let shown = scenario.kubectl.output(&["describe", "polecat", name, "-n", namespace]).await?;
    // It wraps nothing, but indents what has line breaks.
    let first = text.lines().next().unwrap_or_default();
    ensure!(shown.contains(first), "kubectl describe does not show {first:?}:\n{shown}");
    Ok(())
}
