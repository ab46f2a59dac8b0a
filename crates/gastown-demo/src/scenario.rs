//! Setting the scenario on a cluster, and playing a plan on it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gastown_api::{Convoy, ConvoyPhase, Escalation, MergeRequest, Polecat, Rig};
use http::Method;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::beads;
use crate::git::git;
use crate::kubectl::{Forward, Kubectl};
use crate::objects::{
    self, CONVOY, GIT_PORT, HOOKS_PORT, HOPELESS, MESSAGES_PORT, REPOSITORY, SERVERS,
};
use crate::plan::Plan;
use crate::report::Report;
use crate::watch::{self, Failure, Snapshot};
use gastown_cluster::http_client;
use gastown_cluster::install::SYSTEM;
use gastown_fakes::hooks::Delivery;
use gastown_fakes::messages::{Entry, Script};

/// How often the cluster is looked at.
const PACE: Duration = Duration::from_millis(500);
/// How long a single object may take to appear or to go.
const OBJECT_DEADLINE: Duration = Duration::from_secs(300);

/// Where and how the demo runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster.
    pub kubeconfig: PathBuf,
    /// A namespace of its own; made new.
    pub namespace: String,
    /// The Rig's name; made new.
    pub rig: String,
    /// How many polecats work at a time.
    pub max_polecats: i32,
    /// The image of the git server and the Messages API.
    pub servers_image: String,
    /// The image that gates run in.
    pub gate_image: String,
    /// How long everything may take.
    pub deadline: Duration,
}

/// A namespace with the servers and a Rig, ready for Polecats.
#[derive(Debug)]
pub struct Scenario {
    /// Where and how.
    pub settings: Settings,
    /// kubectl for the cluster.
    pub kubectl: Kubectl,
    git: Forward,
    messages: Forward,
    hooks: Forward,
    escalations: Api<Escalation>,
    convoys: Api<Convoy>,
    polecats: Api<Polecat>,
    requests: Api<MergeRequest>,
    /// When the Rig was made: the first object that the controllers see.
    pub started: Instant,
}

impl Scenario {
    /// Makes everything but the Polecats and the Convoys. What an earlier run left under the same
    /// names is deleted first.
    pub async fn set(
        client: &Client,
        settings: Settings,
        plan: &Plan,
        scripts: &[Script],
    ) -> Result<Self> {
        let kubectl = Kubectl::find(&settings.kubeconfig).await?;
        clear(client, &settings).await?;
        let name = settings.namespace.as_str();
        apply(&Api::all(client.clone()), &objects::namespace(&settings)?).await?;
        apply(&Api::<Secret>::namespaced(client.clone(), name), &objects::secret(&settings)?)
            .await?;
        apply(&Api::<Service>::namespaced(client.clone(), name), &objects::service(&settings)?)
            .await?;
        let pods = Api::<Pod>::namespaced(client.clone(), name);
        apply(&pods, &objects::servers(&settings)?).await?;
        await_ready(&pods, SERVERS).await?;
        let target = format!("pod/{SERVERS}");
        let git = kubectl.forward(name, &target, GIT_PORT).await?;
        let messages = kubectl.forward(name, &target, MESSAGES_PORT).await?;
        let hooks = kubectl.forward(name, &target, HOOKS_PORT).await?;
        let secrets = Api::<Secret>::namespaced(client.clone(), SYSTEM);
        apply(&secrets, &objects::hook_secret(&settings)?).await?;
        let convoys = Api::namespaced(client.clone(), name);
        let escalations = Api::namespaced(client.clone(), name);
        let polecats = Api::namespaced(client.clone(), name);
        let requests = Api::namespaced(client.clone(), name);
        let mut scenario = Self {
            kubectl,
            git,
            messages,
            hooks,
            escalations,
            convoys,
            polecats,
            requests,
            started: Instant::now(),
            settings,
        };
        scenario.furnish(plan, scripts).await?;
        scenario.started = Instant::now();
        let rig = objects::rig(&scenario.settings, plan);
        Api::<Rig>::all(client.clone())
            .create(&PostParams::default(), &rig)
            .await
            .context("creating the Rig")?;
        Ok(scenario)
    }

    async fn furnish(&self, plan: &Plan, scripts: &[Script]) -> Result<()> {
        let admin = format!("http://127.0.0.1:{}/admin/repos/{REPOSITORY}", self.git.port);
        http_client::send(Method::PUT, &admin, Vec::new()).await?;
        let refspec = format!("{}:refs/heads/main", plan.base);
        git(&plan.path(), &["push", "--quiet", &self.repository_here(), &refspec])
            .await
            .context("pushing the repository")?;
        beads::push(plan, &self.repository_here()).await?;
        let admin = format!("http://127.0.0.1:{}/admin/scripts", self.messages.port);
        http_client::send(Method::POST, &admin, serde_json::to_vec(scripts)?).await?;
        Ok(())
    }

    /// The repository's URL on this machine, through the tunnel.
    pub fn repository_here(&self) -> String {
        format!("http://127.0.0.1:{}/{REPOSITORY}.git", self.git.port)
    }

    /// Sends one Convoy off, and a second one of what is hopeless.
    async fn send(&self, plan: &Plan) -> Result<()> {
        let everything = plan.changes.iter().map(|c| c.bead.clone()).collect();
        let convoy = objects::convoy(&self.settings, CONVOY, "All changes of the plan", everything);
        self.convoys
            .create(&PostParams::default(), &convoy)
            .await
            .context("creating the Convoy")?;
        let hopeless: Vec<String> = plan.hopeless.iter().map(|h| h.bead.clone()).collect();
        if !hopeless.is_empty() {
            let convoy =
                objects::convoy(&self.settings, HOPELESS, "What nobody knows how to do", hopeless);
            self.convoys
                .create(&PostParams::default(), &convoy)
                .await
                .context("creating the second Convoy")?;
        }
        Ok(())
    }

    /// Whether the webhook was told of everything that is hopeless.
    async fn told_of(&self, plan: &Plan, snapshot: &Snapshot) -> Result<bool> {
        let open = plan.hopeless.iter().map(|h| snapshot.escalation(&h.bead));
        let causes: Option<Vec<&str>> = open.map(|e| e.map(|e| e.spec.cause.as_str())).collect();
        let Some(causes) = causes else { return Ok(false) };
        if causes.is_empty() {
            return Ok(true);
        }
        let deliveries = self.deliveries().await?;
        Ok(causes.iter().all(|cause| deliveries.iter().any(|d| d.body["cause"] == **cause)))
    }

    /// What the webhook got, oldest first.
    pub async fn deliveries(&self) -> Result<Vec<Delivery>> {
        http_client::get_json(&format!("http://127.0.0.1:{}/admin/deliveries", self.hooks.port))
            .await
    }

    /// What the model was asked, oldest first.
    pub async fn messages_log(&self) -> Result<Vec<Entry>> {
        http_client::get_json(&format!("http://127.0.0.1:{}/admin/log", self.messages.port)).await
    }

    /// Starts a Polecat on a task.
    pub async fn start(&self, name: &str, task: &str) -> Result<Polecat> {
        let polecat = objects::polecat(&self.settings, name, task);
        self.polecats
            .create(&PostParams::default(), &polecat)
            .await
            .with_context(|| format!("creating Polecat {name}"))
    }

    /// All Convoys, Polecats, MergeRequests and Escalations of the namespace.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let all = ListParams::default();
        let (convoys, polecats, requests, escalations) = tokio::try_join!(
            self.convoys.list(&all),
            self.polecats.list(&all),
            self.requests.list(&all),
            self.escalations.list(&all)
        )?;
        let (convoys, polecats) = (convoys.items, polecats.items);
        Ok(Snapshot { convoys, polecats, requests: requests.items, escalations: escalations.items })
    }

    /// Looks at the cluster until `done` says something, or time is up.
    pub async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&Snapshot) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            let snapshot = self.snapshot().await?;
            if let Some(found) = done(&snapshot) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                let failure = Failure { what: format!("{what}: not in {} s", limit.as_secs()) };
                return Err(failure.diagnose(self, &snapshot).await);
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

/// Plays the plan: puts its changes into the bead store, sends one Convoy off, and watches until
/// every change has landed, every bead is closed and the Convoy is complete. `tell` gets a line for
/// everything that changes.
pub async fn run(
    client: &Client,
    settings: Settings,
    plan: &Plan,
    mut tell: impl FnMut(&str),
) -> Result<(Scenario, Report)> {
    tell(&format!("setting the scenario in namespace {}", settings.namespace));
    let scenario = Scenario::set(client, settings, plan, &plan.scripts()).await?;
    scenario.send(plan).await?;
    let mut news = watch::News::default();
    let mut patience = watch::Patience::new(scenario.settings.deadline);
    loop {
        let snapshot = scenario.snapshot().await?;
        for line in news.of(&snapshot) {
            tell(&line);
            patience.renew();
        }
        let landed = plan.changes.iter().filter(|c| snapshot.is_finished(&c.bead)).count();
        let complete = snapshot.convoy(CONVOY).and_then(|c| c.status.as_ref()?.phase)
            == Some(ConvoyPhase::Complete);
        if landed == plan.changes.len() && complete && scenario.told_of(plan, &snapshot).await? {
            let beads = beads::read(&plan.path(), &scenario.repository_here()).await?;
            if plan.changes.iter().all(|c| beads.get(&c.bead).is_some_and(|b| b.status == "closed"))
            {
                let report = Report::new(&scenario, plan, &snapshot, &beads).await?;
                return Ok((scenario, report));
            }
        }
        if let Some(failure) = patience.is_over(&snapshot, landed, plan.changes.len()) {
            return Err(failure.diagnose(&scenario, &snapshot).await);
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Deletes what has the scenario's names, and waits until it is gone.
pub async fn clear(client: &Client, settings: &Settings) -> Result<()> {
    // The convoys first: they would start anew what is deleted.
    let convoys = Api::<Convoy>::namespaced(client.clone(), &settings.namespace);
    for convoy in [CONVOY, HOPELESS] {
        delete(&convoys, convoy).await?;
    }
    delete(&Api::<Secret>::namespaced(client.clone(), SYSTEM), &objects::hook_name(settings))
        .await?;
    let polecats = Api::<Polecat>::namespaced(client.clone(), &settings.namespace);
    for polecat in polecats.list(&ListParams::default()).await.map(|l| l.items).unwrap_or_default()
    {
        delete(&polecats, &polecat.name_any()).await?;
    }
    delete(&Api::<Rig>::all(client.clone()), &settings.rig).await?;
    delete(&Api::<Namespace>::all(client.clone()), &settings.namespace).await
}

async fn delete<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        other => drop(other.with_context(|| format!("deleting {name}"))?),
    }
    let deadline = Instant::now() + OBJECT_DEADLINE;
    while api.get_opt(name).await?.is_some() {
        anyhow::ensure!(
            Instant::now() < deadline,
            "{name} of an earlier run does not go; its finalizers may wait for a controller"
        );
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

async fn apply<K>(api: &Api<K>, object: &K) -> Result<()>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let name = object.name_any();
    let params = PatchParams::apply("gastown-demo").force();
    api.patch(&name, &params, &Patch::Apply(object))
        .await
        .with_context(|| format!("applying {name}"))?;
    Ok(())
}

async fn await_ready(pods: &Api<Pod>, name: &str) -> Result<()> {
    let deadline = Instant::now() + OBJECT_DEADLINE;
    loop {
        let pod = pods.get(name).await?;
        let conditions =
            pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
            return Ok(());
        }
        if Instant::now() > deadline {
            let waiting = watch::pod_says(&pod);
            anyhow::bail!("pod {name} is not ready: {waiting}");
        }
        tokio::time::sleep(PACE).await;
    }
}
