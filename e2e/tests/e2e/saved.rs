//! A polecat that is stopped while its agent works loses nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::ground::Ground;
use e2e::refs::Remote;
use gastown_api::{Polecat, PolecatPhase};
use gastown_demo::{Plan, Scenario, clear};
use gastown_fakes::messages::{Attempt, Script, Step};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(300);

/// Setting Terminated, and deleting.
pub async fn work_is_saved(ground: &Ground) -> Result<()> {
    let settings = ground.settings("saved", LIMIT);
    let mut plan = Plan::default_project().await?;
    "true".clone_into(&mut plan.test);
    let scripts = [half_done("ended"), half_done("deleted")];
    let scenario = Scenario::set(&ground.client, settings.clone(), &plan, &scripts).await?;
    for name in ["ended", "deleted"] {
        scenario.start(name, &format!("Do a long thing.\n\nChange: {name}\n")).await?;
    }
    for name in ["ended", "deleted"] {
        await_at_work(&scenario, name, 1).await?;
    }
    let polecats = Api::<Polecat>::namespaced(ground.client.clone(), &settings.namespace);
    let wish = Patch::Merge(json!({"spec": {"desiredState": "Terminated"}}));
    polecats.patch("ended", &PatchParams::default(), &wish).await?;
    polecats.delete("deleted", &DeleteParams::default()).await?;
    let phase = |p: &Polecat| p.status.as_ref().and_then(|s| s.phase);
    scenario
        .until("Terminated", LIMIT, |s| {
            s.polecat("ended").filter(|p| phase(p) == Some(PolecatPhase::Terminated)).map(|_| ())
        })
        .await?;
    scenario.until("deletion", LIMIT, |s| s.polecat("deleted").is_none().then_some(())).await?;
    let remote = Remote::read(&scenario).await?;
    for name in ["ended", "deleted"] {
        check(&remote, &settings.namespace, name)
            .await
            .with_context(|| format!("{name}: {:#?}", remote.refs))?;
    }
    let pods = ground.pods(&settings.namespace).await?;
    ensure!(!pods.iter().any(|p| p.starts_with("polecat-")), "pods are left: {pods:?}");
    drop(scenario);
    clear(&ground.client, &settings).await
}

/// Commits a part, leaves another uncommitted, and then works on for as long as it may.
fn half_done(name: &str) -> Script {
    let step =
        |bash: &str, timeout_ms| Step { bash: bash.to_owned(), timeout_ms, ..Step::default() };
    let part = "echo one >committed && git add committed && git commit -qm 'The first part' && echo two >uncommitted";
    let steps = vec![step(part, None), step("tail -f /dev/null", Some(600_000))];
    Script {
        key: format!("Change: {name}"),
        attempts: vec![Attempt { prompt_contains: None, steps, text: "Done.".to_owned() }],
    }
}

/// Waits until the agent was told to run this command of its script, so that those before it have
/// ended.
pub async fn await_at_work(scenario: &Scenario, name: &str, step: usize) -> Result<()> {
    let key = format!("Change: {name}");
    let end = std::time::Instant::now() + LIMIT;
    loop {
        let log = scenario.messages_log().await?;
        if log.iter().any(|e| e.key.as_ref() == Some(&key) && e.step == step && e.called) {
            return Ok(());
        }
        if std::time::Instant::now() > end {
            // Says what the cluster shows.
            return scenario
                .until(&format!("agent {name} at work"), Duration::ZERO, |_| None)
                .await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn check(remote: &Remote, namespace: &str, name: &str) -> Result<()> {
    let branch = format!("refs/heads/feature/{name}");
    ensure!(remote.refs.contains_key(&branch), "no branch {branch}");
    ensure!(
        remote.subjects("refs/heads/main", &branch).await? == ["The first part"],
        "the branch lacks the commit"
    );
    let wip =
        remote.find(&format!("refs/gastown/wip/{namespace}/{name}/")).context("no snapshot")?;
    ensure!(
        remote.file(wip, "uncommitted").await? == "two\n",
        "the snapshot lacks the uncommitted file"
    );
    ensure!(
        remote.file(wip, "committed").await? == "one\n",
        "the snapshot lacks the committed file"
    );
    Ok(())
}
