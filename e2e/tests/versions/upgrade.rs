//! The chart is upgraded and rolled back while agents work and a gate runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::environment::Environment;
use e2e::polecats::{LIMIT, await_at_work, command, condition, first, in_agent, pod, script, task};
use e2e::refs::Remote;
use gastown_api::names::{condition, label};
use gastown_cluster::install::SYSTEM;
use gastown_demo::{Plan, Scenario, Snapshot, clear, until};
use gastown_fakes::messages::Script;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};

use crate::version::{Version, remove, revision, roll_back, upgrade, upgrade_with};

/// Works under the version before, and goes on under the next one.
const STAYS: &str = "stays";
/// Its gate runs while the chart is upgraded.
const TESTED: &str = "tested";
/// Works under the version before, under the next one, and goes on after the rollback.
const RETURNS: &str = "returns";
/// Begins under the next version, and goes on after the rollback.
const NEWER: &str = "newer";
/// Its gate, of the next version, runs while the chart is rolled back.
const NEWLY_TESTED: &str = "newly-tested";
const ALL: [&str; 5] = [STAYS, TESTED, RETURNS, NEWER, NEWLY_TESTED];

/// The release in which another image of agents makes another gate: a run that is under way when the chart is
/// upgraded from it, or rolled back to it, begins again.
const GATES_BEGIN_AGAIN: &str = "0.1.0-";

/// Selects the pods of gates.
const GATES: &str = "app.kubernetes.io/component=gate";

/// What waits in a pod until a person lets it go on.
const WAIT: &str = "until test -e /tmp/go; do sleep 0.2; done";
const GO: &str = "touch /tmp/go";

/// From the chart of the version before to today's and back.
pub async fn upgraded_and_back(env: &Environment) -> Result<()> {
    let (before, today) = (Version::before()?, Version::today());
    remove(env).await?;
    before.apply_crds(env).await?;
    upgrade(env, &before, &before).await?;
    let settings = env.settings("upgrade", LIMIT);
    let mut plan = Plan::default_project().await?;
    // Once the file has landed, all further gates wait for us as well.
    plan.test = format!("if test -e held; then {WAIT}; fi");
    let scenario = Scenario::set_up(&env.client, settings.clone(), &plan, &scripts()).await?;
    be_patient(env, &settings.rig).await?;

    for name in [STAYS, RETURNS, TESTED] {
        scenario.start(name, &task(name)).await?;
    }
    let old = revision(env).await?;
    await_at_work(&scenario, STAYS, 1).await?;
    await_at_work(&scenario, RETURNS, 1).await?;
    await_gate(env).await?;
    let gates_stay = !before.tag.starts_with(GATES_BEGIN_AGAIN);
    let working = Pods::read(env, &scenario, &[STAYS, RETURNS], gates_stay).await?;
    today.apply_crds(env).await?;
    let begun = Instant::now();
    upgrade(env, &today, &today).await?;
    println!("  upgraded in {:.0?} with {}", begun.elapsed(), working.names());
    working.check(env, &scenario).await?;
    let_agent_go(env, &scenario, STAYS).await?;
    await_landed(env, &scenario, &[STAYS, TESTED]).await?;

    for name in [NEWER, NEWLY_TESTED] {
        scenario.start(name, &task(name)).await?;
    }
    await_at_work(&scenario, NEWER, 1).await?;
    await_gate(env).await?;
    let working = Pods::read(env, &scenario, &[RETURNS, NEWER], true).await?;
    upgrade_with(env, &today, &today, &before).await?;
    println!("  another image of agents with {}", working.names());
    working.check(env, &scenario).await?;
    let working = Pods::read(env, &scenario, &[RETURNS, NEWER], gates_stay).await?;
    let begun = Instant::now();
    roll_back(env, old).await?;
    println!("  rolled back in {:.0?} with {}", begun.elapsed(), working.names());
    working.check(env, &scenario).await?;
    for name in [RETURNS, NEWER] {
        let_agent_go(env, &scenario, name).await?;
    }
    await_landed(env, &scenario, &[NEWER, NEWLY_TESTED, RETURNS]).await?;
    check(env, &scenario, &plan).await?;
    drop(scenario);
    clear(&env.client, &settings).await?;
    upgrade(env, &today, &today).await
}

fn scripts() -> Vec<Script> {
    let commit = |name: &str, part: &str| {
        format!("echo {part} >{name}-{part} && git add -A && git commit -qm '{name}: {part}'")
    };
    let waiting = [STAYS, RETURNS, NEWER].map(|name| {
        let second = format!("{WAIT}; {}", commit(name, "two"));
        script(name, vec![first(vec![command(&commit(name, "one")), command(&second)])])
    });
    let both = |name: &str| format!("{} && {}", commit(name, "one"), commit(name, "two"));
    let held = format!("touch held && {}", both(TESTED));
    let others = [
        script(TESTED, vec![first(vec![command(&held)])]),
        script(NEWLY_TESTED, vec![first(vec![command(&both(NEWLY_TESTED))])]),
    ];
    waiting.into_iter().chain(others).collect()
}

/// Agents are silent while they wait for us, however slow the machine is.
async fn be_patient(env: &Environment, rig: &str) -> Result<()> {
    let patch = r#"{"spec": {"witness": {"quietThreshold": "1h", "stuckThreshold": "1h"}}}"#;
    env.kubectl.output(&["patch", "rig", rig, "--type", "merge", "--patch", patch]).await?;
    Ok(())
}

async fn let_agent_go(env: &Environment, scenario: &Scenario, name: &str) -> Result<()> {
    let pod = pod(env, scenario, name).await?;
    in_agent(scenario, &pod.name_any(), GO).await.map(drop)
}

/// The running pods of gates, which are where their Refinery is.
async fn gates(env: &Environment) -> Result<Vec<Pod>> {
    let pods = Api::<Pod>::namespaced(env.client.clone(), SYSTEM);
    let selected = pods.list(&ListParams::default().labels(GATES)).await?.items.into_iter();
    let is_running = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
    };
    Ok(selected.filter(is_running).collect())
}

/// Waits until a gate runs.
async fn await_gate(env: &Environment) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while gates(env).await?.is_empty() {
        ensure!(Instant::now() < deadline, "no gate runs after {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

/// Lets all gates go on until the work of these Polecats has landed.
async fn await_landed(env: &Environment, scenario: &Scenario, names: &[&str]) -> Result<()> {
    let opening = async {
        loop {
            for gate in gates(env).await? {
                let name = gate.name_any();
                let exec = ["exec", "-n", SYSTEM, &name, "-c", "gate", "--", "sh", "-c", GO];
                // It may have ended meanwhile.
                drop(scenario.kubectl.output(&exec).await);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        landed = e2e::polecats::await_landed(scenario, names) => landed,
        failed = opening => failed,
    }
}

/// The pods of some agents, and of all gates if wanted, at one moment.
struct Pods<'a> {
    agents: &'a [&'a str],
    with_gates: bool,
    seen: BTreeMap<String, Seen>,
}

/// What does not change while a pod runs undisturbed.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    uid: Option<String>,
    restarts: i32,
    phase: Option<String>,
}

impl<'a> Pods<'a> {
    async fn read(
        env: &Environment,
        scenario: &Scenario,
        agents: &'a [&'a str],
        with_gates: bool,
    ) -> Result<Self> {
        let pods = Api::<Pod>::namespaced(env.client.clone(), &scenario.settings.namespace);
        let of_agents = format!("{} in ({})", label::POLECAT, agents.join(","));
        let of_agents = pods.list(&ListParams::default().labels(&of_agents)).await?.items;
        let gates = if with_gates { gates(env).await? } else { Vec::new() };
        let all = of_agents.into_iter().chain(gates);
        let seen: BTreeMap<String, Seen> =
            all.map(|pod| (pod.name_any(), Seen::of(&pod))).collect();
        Ok(Self { agents, with_gates, seen })
    }

    fn names(&self) -> String {
        self.seen.keys().cloned().collect::<Vec<_>>().join(", ")
    }

    /// Fails unless each of them runs still, and none is beside them.
    async fn check(&self, env: &Environment, scenario: &Scenario) -> Result<()> {
        let now = Self::read(env, scenario, self.agents, self.with_gates).await?;
        let escalations = scenario.snapshot().await?.escalations;
        let shown = || escalations.iter().map(|e| &e.spec.summary).collect::<Vec<_>>();
        ensure!(
            now.seen == self.seen,
            "pods were {:#?} and are {:#?}; escalations: {:#?}",
            self.seen,
            now.seen,
            shown()
        );
        Ok(())
    }
}

impl Seen {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let containers = status.container_statuses.into_iter().flatten();
        let all = containers.chain(status.init_container_statuses.into_iter().flatten());
        let restarts = all.map(|container| container.restart_count).sum();
        Self { uid: pod.uid(), restarts, phase: status.phase }
    }
}

async fn check(env: &Environment, scenario: &Scenario, plan: &Plan) -> Result<()> {
    let remote = Remote::read(scenario).await?;
    let subjects = remote.subjects(&plan.base, "refs/heads/main").await?;
    for subject in ALL.iter().flat_map(|name| [format!("{name}: one"), format!("{name}: two")]) {
        let times = subjects.iter().filter(|s| **s == subject).count();
        ensure!(times == 1, "{subject:?} landed {times} times: {subjects:?}");
    }
    let attempts = |s: &Snapshot| {
        let of = |name: &str| s.polecat(name)?.status.as_ref()?.attempts;
        Some(ALL.map(of))
    };
    let attempts = until(scenario, "the attempts", LIMIT, attempts).await?;
    ensure!(attempts == [Some(1); 5], "attempts of {ALL:?}: {attempts:?}");
    let snapshot = scenario.snapshot().await?;
    ensure!(snapshot.escalations.is_empty(), "a person is asked: {:#?}", snapshot.escalations);
    let requests = ALL.map(|name| snapshot.requests_for(name).len());
    ensure!(requests == [1; 5], "requests of {ALL:?}: {requests:?}");
    for name in ALL {
        let merged = condition(&snapshot, name, condition::MERGED).context("no condition")?;
        ensure!(merged.status == "True", "{name}: {merged:?}");
    }
    let blamed = env.events(&scenario.settings.namespace, "Polecat").await?;
    let blamed: Vec<&String> = blamed.iter().filter(|reason| *reason == "BackOff").collect();
    ensure!(blamed.is_empty(), "an attempt is blamed: {blamed:?}");
    Ok(())
}
