//! Pods that end before their agents: the next attempt has the work of the one before.

use anyhow::{Context, Result, ensure};
use e2e::environment::Environment;
use e2e::polecats::{
    LIMIT, await_at_work, await_landed, await_reason, check_described, command, first, in_agent,
    pod, restarted, script, specify, task,
};
use e2e::refs::Remote;
use gastown_api::names::{condition, reason};
use gastown_cluster::install::SYSTEM;
use gastown_demo::{Plan, Scenario, clear, until};
use gastown_fakes::messages::{Script, Step};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, EvictParams};
use serde_json::json;

/// `gt run` is frozen, and its deadline passes.
const FROZEN: &str = "frozen";
/// The agent falls silent.
const WEDGED: &str = "wedged";
/// The pod is evicted.
const EVICTED: &str = "evicted";
const ALL: [&str; 3] = [FROZEN, WEDGED, EVICTED];

/// How many files the evicted agent has not committed.
const FILES: usize = 5000;

/// Seconds: long enough for an agent to start, and shorter than the Witness waits for one that is
/// inside a tool call.
const DEADLINE: i64 = 60;

/// How long polecat-ctl waits for a pod that does not obey: its own defaults are minutes.
const MARGINS: [&str; 2] = ["GASTOWN_DEADLINE_MARGIN_SECONDS", "GASTOWN_DRAIN_MARGIN_SECONDS"];

/// Three agents commit one part and leave another one uncommitted. Their pods end in three ways.
pub async fn next_attempt_goes_on(env: &Environment) -> Result<()> {
    let settings = env.settings("ends", LIMIT);
    let mut plan = Plan::default_project().await?;
    "true".clone_into(&mut plan.test);
    set_margins(env, "=5").await?;
    let played = async {
        let scenario = Scenario::set_up(&env.client, settings.clone(), &plan, &scripts()).await?;
        play(env, &scenario, &plan).await
    };
    let played = played.await;
    // The other scenarios need the defaults, whatever became of this one.
    set_margins(env, "-").await?;
    played?;
    clear(&env.client, &settings).await
}

/// Sets the variables of both margins (`=5`), or takes them back (`-`).
async fn set_margins(env: &Environment, to: &str) -> Result<()> {
    let variables = MARGINS.map(|name| format!("{name}{to}"));
    let [one, other] = variables.each_ref().map(String::as_str);
    let deployment = "deployment/polecat-ctl";
    env.kubectl.output(&["set", "env", "-n", SYSTEM, deployment, one, other]).await?;
    env.kubectl.output(&["rollout", "status", "-n", SYSTEM, deployment, "--timeout=2m"]).await?;
    Ok(())
}

fn scripts() -> Vec<Script> {
    let part = |name: &str| {
        command(&format!(
            "echo one >{name}-1 && git add {name}-1 && git commit -qm 'Begin {name}' \
             && echo two >{name}-2"
        ))
    };
    // It fails, and with it the script, unless everything is there.
    let rest = |name: &str, more: &str| {
        restarted(vec![command(&format!(
            "set -e; test \"$(cat {name}-1)\" = one; test \"$(cat {name}-2)\" = two; {more}; \
             git add -A; git commit -qm 'Finish {name}'"
        ))])
    };
    let stay = || command("tail -f /dev/null");
    let many = format!("mkdir many && for i in $(seq {FILES}); do echo $i >many/$i; done");
    let all_there = format!("test $(ls many | wc -l) = {FILES}");
    vec![
        script(
            FROZEN,
            vec![first(vec![part(FROZEN), stay()]), rest(FROZEN, "test -e later && test -e dirty")],
        ),
        script(WEDGED, vec![first(vec![part(WEDGED), Step::hang()]), rest(WEDGED, "true")]),
        script(
            EVICTED,
            vec![first(vec![part(EVICTED), command(&many), stay()]), rest(EVICTED, &all_there)],
        ),
    ]
}

async fn play(env: &Environment, scenario: &Scenario, plan: &Plan) -> Result<()> {
    scenario.start_with(FROZEN, &task(FROZEN), |k| k.active_deadline_seconds = DEADLINE).await?;
    for name in [WEDGED, EVICTED] {
        scenario.start(name, &task(name)).await?;
    }
    await_at_work(scenario, FROZEN, 1).await?;
    freeze(env, scenario).await?;
    await_at_work(scenario, EVICTED, 2).await?;
    evict(env, scenario).await?;
    await_reason(scenario, EVICTED, condition::READY, "BackOff", "EvictionByEvictionAPI").await?;
    let message =
        await_reason(scenario, FROZEN, condition::READY, reason::DEADLINE, "saved").await?;
    check_described(scenario, FROZEN, &message).await?;
    // As the reason's meaning has it: a person raises the limit, and it goes on.
    let raised = json!({"kubernetes": {"activeDeadlineSeconds": 3600}});
    specify(env, scenario, FROZEN, &raised).await?;
    await_landed(scenario, &ALL).await?;
    check(scenario, plan).await
}

/// Stops `gt run`, and then commits more: it cannot carry that to the sidecar.
async fn freeze(env: &Environment, scenario: &Scenario) -> Result<()> {
    let pod = pod(env, scenario, FROZEN).await?;
    env.signal(&pod, "claude", "SIGSTOP").await?;
    let later = "cd /workspace/repo && echo three >later && git add later \
                 && git commit -qm 'Commit while frozen' && echo four >dirty";
    in_agent(scenario, &pod.name_any(), later).await?;
    Ok(())
}

/// Evicts the pod as a drain of its node does, and waits until it is gone.
async fn evict(env: &Environment, scenario: &Scenario) -> Result<()> {
    let pod = pod(env, scenario, EVICTED).await?;
    let (name, uid) = (pod.name_any(), pod.uid());
    let pods = Api::<Pod>::namespaced(env.client.clone(), &scenario.settings.namespace);
    pods.evict(&name, &EvictParams::default()).await.context("evicting the pod")?;
    let end = std::time::Instant::now() + LIMIT;
    while pods.get_opt(&name).await?.is_some_and(|p| p.uid() == uid) {
        ensure!(std::time::Instant::now() < end, "the evicted pod {name} does not end");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    Ok(())
}

async fn check(scenario: &Scenario, plan: &Plan) -> Result<()> {
    let remote = Remote::read(scenario).await?;
    let main = "refs/heads/main";
    let subjects = remote.subjects(&plan.base, main).await?;
    for name in ALL {
        for subject in [format!("Begin {name}"), format!("Finish {name}")] {
            let times = subjects.iter().filter(|s| **s == subject).count();
            ensure!(times == 1, "{subject:?} landed {times} times: {subjects:?}");
        }
        let wip = format!("refs/gastown/wip/{}/{name}/1", scenario.settings.namespace);
        ensure!(remote.refs.contains_key(&wip), "no {wip}: {:#?}", remote.refs);
        let uncommitted = remote.file(&wip, &format!("{name}-2")).await?;
        ensure!(uncommitted == "two\n", "{wip} has {uncommitted:?}");
    }
    let frozen = subjects.iter().filter(|s| *s == "Commit while frozen").count();
    ensure!(frozen == 1, "the commit of the frozen pod landed {frozen} times: {subjects:?}");
    let evicted = format!("refs/gastown/wip/{}/{EVICTED}/1", scenario.settings.namespace);
    let many = remote.tree(&evicted).await?;
    let many = many.iter().filter(|(_, path)| path.starts_with("many/")).count();
    ensure!(many == FILES, "{evicted} has {many} of {FILES} files");
    let attempts = |s: &gastown_demo::Snapshot| {
        let of = |name: &str| s.polecat(name)?.status.as_ref()?.attempts;
        Some(ALL.map(of))
    };
    let attempts = until(scenario, "the attempts", LIMIT, attempts).await?;
    ensure!(attempts == [Some(2); 3], "attempts of {ALL:?}: {attempts:?}");
    Ok(())
}
