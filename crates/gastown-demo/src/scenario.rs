//! The scenario on a cluster: a namespace with the servers, the repository with its beads, and a Rig.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gastown_api::{Convoy, Escalation, KubernetesSpec, MergeRequest, Polecat, Rig};
use http::Method;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
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
use crate::pods;
use crate::settings::{Login, Settings};
use crate::snapshot::Snapshot;
use gastown_cluster::http_client;
use gastown_cluster::install::SYSTEM;
use gastown_fakes::hooks::Delivery;
use gastown_fakes::messages::{Entry, Script};

/// How often an object is looked at.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a single object may take to appear or to go.
const OBJECT_DEADLINE: Duration = Duration::from_mins(5);

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
    /// When the Rig was created: the first object that the controllers see.
    pub started: Instant,
}

impl Scenario {
    /// Creates everything but the Polecats and the Convoys. What an earlier run left under the same
    /// names is deleted first.
    pub async fn set_up(
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
        put_git_secrets(client, &settings).await?;
        apply(&Api::<Service>::namespaced(client.clone(), name), &objects::service(&settings)?)
            .await?;
        let policies = Api::<NetworkPolicy>::namespaced(client.clone(), name);
        apply(&policies, &objects::network_policy(&settings)?).await?;
        let pods = Api::<Pod>::namespaced(client.clone(), name);
        apply(&pods, &objects::servers(&settings)?).await?;
        pods::await_ready(&pods, SERVERS, OBJECT_DEADLINE).await?;
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
        scenario.fill_servers(plan, scripts).await?;
        scenario.started = Instant::now();
        let rig = objects::rig(&scenario.settings, plan);
        Api::<Rig>::all(client.clone())
            .create(&PostParams::default(), &rig)
            .await
            .context("creating the Rig")?;
        Ok(scenario)
    }

    /// Pushes the repository and its beads, and gives the model its scripts.
    async fn fill_servers(&self, plan: &Plan, scripts: &[Script]) -> Result<()> {
        self.put_login().await?;
        self.create_repository(REPOSITORY).await?;
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
        self.url_here(&format!("{REPOSITORY}.git"))
    }

    /// The URL of a path of the git server on this machine, through the tunnel.
    pub fn url_here(&self, path: &str) -> String {
        let user = match &self.settings.login {
            Some(login) => format!("{}:{}@", login.username, login.password),
            None => String::new(),
        };
        format!("http://{user}127.0.0.1:{}/{path}", self.git.port)
    }

    /// Creates an empty repository beside that of the plan.
    pub async fn create_repository(&self, name: &str) -> Result<()> {
        let admin = format!("http://127.0.0.1:{}/admin/repos/{name}", self.git.port);
        http_client::send(Method::PUT, &admin, Vec::new()).await.map(drop)
    }

    /// Changes the login of the git server, and not the Secrets.
    pub async fn change_login(&mut self, login: Login) -> Result<()> {
        self.settings.login = Some(login);
        self.put_login().await
    }

    /// Writes the present login of the git server into the Secrets.
    pub async fn renew_git_secrets(&self) -> Result<()> {
        put_git_secrets(&self.polecats.clone().into_client(), &self.settings).await
    }

    async fn put_login(&self) -> Result<()> {
        let login = self.settings.login.as_ref().map(|l| (&l.username, &l.password));
        let admin = format!("http://127.0.0.1:{}/admin/login", self.git.port);
        http_client::send(Method::PUT, &admin, serde_json::to_vec(&login)?).await.map(drop)
    }

    /// Creates the Convoy of all changes, and a second one of what is hopeless.
    pub(crate) async fn start_convoys(&self, plan: &Plan) -> Result<()> {
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

    /// Whether the webhook got an escalation for everything that is hopeless.
    pub(crate) async fn has_delivered(&self, plan: &Plan, snapshot: &Snapshot) -> Result<bool> {
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
        self.start_with(name, task, |_| {}).await
    }

    /// Starts a Polecat whose pod a person has specified further.
    pub async fn start_with(
        &self,
        name: &str,
        task: &str,
        specify: impl FnOnce(&mut KubernetesSpec),
    ) -> Result<Polecat> {
        let mut polecat = objects::polecat(&self.settings, name, task);
        if let Some(kubernetes) = &mut polecat.spec.kubernetes {
            specify(kubernetes);
        }
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
}

/// Writes the login of the git server into the namespaces of the Polecats and of the Refinery.
async fn put_git_secrets(client: &Client, settings: &Settings) -> Result<()> {
    for namespace in [settings.namespace.as_str(), SYSTEM] {
        if let Some(secret) = objects::git_secret(settings, namespace)? {
            apply(&Api::<Secret>::namespaced(client.clone(), namespace), &secret).await?;
        }
    }
    Ok(())
}

/// Deletes the objects with the scenario's names and waits until they are gone.
pub async fn clear(client: &Client, settings: &Settings) -> Result<()> {
    // The convoys first: they would start again what is deleted.
    let convoys = Api::<Convoy>::namespaced(client.clone(), &settings.namespace);
    for convoy in [CONVOY, HOPELESS] {
        delete(&convoys, convoy).await?;
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), SYSTEM);
    delete(&secrets, &objects::hook_name(settings)).await?;
    let polecats = Api::<Polecat>::namespaced(client.clone(), &settings.namespace);
    for polecat in polecats.list(&ListParams::default()).await.map(|l| l.items).unwrap_or_default()
    {
        delete(&polecats, &polecat.name_any()).await?;
    }
    delete(&Api::<Rig>::all(client.clone()), &settings.rig).await?;
    // The Refinery, which goes with the Rig, uses it.
    delete(&secrets, &objects::git_secret_name(settings)).await?;
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
            "{name} of an earlier run is still there; its finalizers may wait for a controller"
        );
        tokio::time::sleep(INTERVAL).await;
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
