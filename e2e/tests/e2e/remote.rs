//! A remote that refuses the credentials or is down: the work waits in its pod, the Polecat shows
//! why, and the work arrives afterwards.

use anyhow::{Result, ensure};
use e2e::environment::Environment;
use e2e::polecats::{
    LIMIT, await_at_work, await_landed, await_last_text, await_phase, await_reason,
    check_described, command, first, in_agent, pod, script, specify, task,
};
use e2e::refs::Remote;
use gastown_api::PolecatPhase;
use gastown_api::names::{condition, reason};
use gastown_demo::{Login, Plan, Scenario, clear};
use gastown_fakes::messages::Script;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// The password changes before its agent ends.
const LOCKED: &str = "locked";
/// It is terminated while the remote is down.
const SEVERED: &str = "severed";

/// What the messages of conditions have of the two faults.
const REFUSED: &str = "the remote refused the credentials";
const DOWN: &str = "the remote could not be reached";

/// The Service in front of the git server.
const SERVICE: &str = "demo-servers";
const GIT: &str = "git";

/// The server's password is changed and its port closed, while one agent ends and another one is
/// terminated.
pub async fn work_waits(env: &Environment) -> Result<()> {
    let mut settings = env.settings("remote", LIMIT);
    settings.login = Some(login("first"));
    let mut plan = Plan::default_project().await?;
    "true".clone_into(&mut plan.test);
    let mut scenario = Scenario::set_up(&env.client, settings.clone(), &plan, &scripts()).await?;
    for name in [LOCKED, SEVERED] {
        scenario.start(name, &task(name)).await?;
    }
    for name in [LOCKED, SEVERED] {
        await_at_work(&scenario, name, 1).await?;
    }
    scenario.change_login(login("second")).await?;
    let waiting = pod(env, &scenario, LOCKED).await?;
    in_agent(&scenario, &waiting.name_any(), "touch /tmp/go").await?;
    await_last_text(&scenario, LOCKED).await?;
    let message =
        await_reason(&scenario, LOCKED, condition::SAVED, reason::SAVING, REFUSED).await?;
    check_described(&scenario, LOCKED, &message).await?;

    close_port(env, &scenario).await?;
    scenario.renew_git_secrets().await?;
    specify(env, &scenario, SEVERED, &json!({"desiredState": "Terminated"})).await?;
    await_reason(&scenario, SEVERED, condition::SAVED, reason::SAVING, DOWN).await?;
    let message =
        await_reason(&scenario, SEVERED, condition::READY, reason::DRAINING, DOWN).await?;
    check_described(&scenario, SEVERED, &message).await?;
    for name in [LOCKED, SEVERED] {
        let pod = pod(env, &scenario, name).await?;
        ensure!(pod.metadata.deletion_timestamp.is_none(), "the pod of {name} is being deleted");
    }
    open_port(env, &scenario).await?;
    await_phase(&scenario, SEVERED, PolecatPhase::Terminated).await?;
    await_landed(&scenario, &[LOCKED]).await?;
    check(&scenario, &plan).await?;
    let left = env.pods(&settings.namespace).await?;
    ensure!(!left.iter().any(|p| p.contains(SEVERED)), "the pod of {SEVERED} is left: {left:?}");
    drop(scenario);
    clear(&env.client, &settings).await
}

fn login(password: &str) -> Login {
    Login { username: "agents".to_owned(), password: password.to_owned() }
}

fn scripts() -> Vec<Script> {
    let commit = |file: &str| {
        format!("echo {file} >{file} && git add {file} && git commit -qm 'Add {file}'")
    };
    let ended = vec![
        command(&commit("one")),
        command("until [ -e /tmp/go ]; do sleep 0.2; done"),
        command(&commit("two")),
    ];
    let terminated = vec![
        command(&format!("{} && echo dirty >dirty", commit("three"))),
        command("tail -f /dev/null"),
    ];
    vec![script(LOCKED, vec![first(ended)]), script(SEVERED, vec![first(terminated)])]
}

/// Takes the port of git from the Service: connections are refused.
async fn close_port(env: &Environment, scenario: &Scenario) -> Result<()> {
    let services = Api::<Service>::namespaced(env.client.clone(), &scenario.settings.namespace);
    let mut ports = ports(&services).await?;
    ports.retain(|p| p["name"] != GIT);
    set_ports(&services, &ports).await
}

async fn open_port(env: &Environment, scenario: &Scenario) -> Result<()> {
    let services = Api::<Service>::namespaced(env.client.clone(), &scenario.settings.namespace);
    let mut ports = ports(&services).await?;
    ports.push(json!({"name": GIT, "port": 8080, "targetPort": GIT}));
    set_ports(&services, &ports).await
}

async fn ports(services: &Api<Service>) -> Result<Vec<serde_json::Value>> {
    let spec = services.get(SERVICE).await?.spec.unwrap_or_default();
    Ok(spec.ports.iter().flatten().map(serde_json::to_value).collect::<Result<_, _>>()?)
}

async fn set_ports(services: &Api<Service>, ports: &[serde_json::Value]) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"ports": ports}}));
    services.patch(SERVICE, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn check(scenario: &Scenario, plan: &Plan) -> Result<()> {
    let remote = Remote::read(scenario).await?;
    let landed = remote.subjects(&plan.base, "refs/heads/main").await?;
    ensure!(landed == ["Add two", "Add one"], "landed: {landed:?}");
    let branch = format!("refs/heads/feature/{SEVERED}");
    let pushed = remote.subjects(&plan.base, &branch).await?;
    ensure!(pushed == ["Add three"], "{branch} has {pushed:?}");
    let wip = format!("refs/gastown/wip/{}/{SEVERED}/1", scenario.settings.namespace);
    ensure!(remote.refs.contains_key(&wip), "no {wip}: {:#?}", remote.refs);
    ensure!(remote.file(&wip, "dirty").await? == "dirty\n", "{wip} does not have the dirty file");
    Ok(())
}
