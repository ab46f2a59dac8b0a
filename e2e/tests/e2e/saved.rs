//! A polecat that is stopped while its agent works loses nothing.

use anyhow::{Context, Result, ensure};
use e2e::environment::Environment;
use e2e::polecats::{LIMIT, await_at_work};
use e2e::refs::Remote;
use gastown_api::{Polecat, PolecatPhase};
use gastown_demo::{Plan, Scenario, Snapshot, clear, until};
use gastown_fakes::messages::{Attempt, Script, Step};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

/// One polecat is set to Terminated, another one is deleted.
pub async fn work_is_saved(env: &Environment) -> Result<()> {
    let settings = env.settings("saved", LIMIT);
    let mut plan = Plan::default_project().await?;
    "true".clone_into(&mut plan.test);
    let scripts = [half_done("ended"), half_done("deleted")];
    let scenario = Scenario::set_up(&env.client, settings.clone(), &plan, &scripts).await?;
    for name in ["ended", "deleted"] {
        scenario.start(name, &format!("Do a long thing.\n\nChange: {name}\n")).await?;
    }
    for name in ["ended", "deleted"] {
        await_at_work(&scenario, name, 1).await?;
    }
    let polecats = Api::<Polecat>::namespaced(env.client.clone(), &settings.namespace);
    let wish = Patch::Merge(json!({"spec": {"desiredState": "Terminated"}}));
    polecats.patch("ended", &PatchParams::default(), &wish).await?;
    polecats.delete("deleted", &DeleteParams::default()).await?;
    let phase = |p: &Polecat| p.status.as_ref().and_then(|s| s.phase);
    let is_terminated = |p: &&Polecat| phase(p) == Some(PolecatPhase::Terminated);
    until(&scenario, "the end of the terminated polecat", LIMIT, |s| {
        s.polecat("ended").filter(is_terminated).map(|_| ())
    })
    .await?;
    let is_deleted = |s: &Snapshot| s.polecat("deleted").is_none().then_some(());
    until(&scenario, "the deletion of the other one", LIMIT, is_deleted).await?;
    let remote = Remote::read(&scenario).await?;
    for name in ["ended", "deleted"] {
        check(&remote, &settings.namespace, name)
            .await
            .with_context(|| format!("{name}: {:#?}", remote.refs))?;
    }
    let pods = env.pods(&settings.namespace).await?;
    ensure!(!pods.iter().any(|p| p.starts_with("polecat-")), "pods are left: {pods:?}");
    drop(scenario);
    clear(&env.client, &settings).await
}

/// Commits one part, leaves another one uncommitted, and then works until it is stopped.
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

async fn check(remote: &Remote, namespace: &str, name: &str) -> Result<()> {
    let branch = format!("refs/heads/feature/{name}");
    ensure!(remote.refs.contains_key(&branch), "no branch {branch}");
    ensure!(
        remote.subjects("refs/heads/main", &branch).await? == ["The first part"],
        "the branch does not have the commit"
    );
    let wip =
        remote.find(&format!("refs/gastown/wip/{namespace}/{name}/")).context("no snapshot")?;
    ensure!(
        remote.file(wip, "uncommitted").await? == "two\n",
        "the snapshot does not have the uncommitted file"
    );
    ensure!(
        remote.file(wip, "committed").await? == "one\n",
        "the snapshot does not have the committed file"
    );
    Ok(())
}
