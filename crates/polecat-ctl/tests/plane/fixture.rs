//! polecat-ctl in this process, against a real control plane; the kubelet and the other controllers
//! are fakes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gastown_api::names::annotation;
use gastown_api::rbac::{Controller, cluster_rules, namespace_rules};
use gastown_api::{
    BeadStore, DesiredState, KubernetesSpec, MergeRequest, Polecat, PolecatSpec, PolecatStatus,
    Rig, RigSettings, RigSpec, conditions,
};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install;
use gastown_fakes::kubelet::TestKubelet;
use gastown_proto::v1;
use gastown_proto::v1::beads_server::BeadsServer;
use gastown_proto::v1::merge_queue_server::MergeQueueServer;
use gastown_proto::v1::witness_server::WitnessServer;
use gastown_runtime::metrics::Metrics;
use gastown_runtime::shards::{SHARDS, Shards};
use gastown_runtime::tls::Tls;
use gastown_runtime::{Runtime, RuntimeArgs, grpc};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::beads::FakeStore;
use crate::escalations::FakeWitness;
use crate::refinery::FakeRefinery;
use crate::replica::{Replica, Settings};
use crate::wire::Wire;

pub const IMAGE: &str = "polecat-agent:test";
const URL: &str = "ssh://git@forge.example:2222/org/web.git";
/// How long a slow machine may take for what should take no time.
const TIMEOUT: Duration = Duration::from_secs(90);

/// One controller at a time: it watches all namespaces.
static TURN: Mutex<()> = Mutex::const_new(());

pub struct Fixture {
    plane: &'static ControlPlane,
    pub admin: Client,
    pub namespace: String,
    pub rig: String,
    pub kubelet: TestKubelet,
    pub metrics: Metrics,
    pub beads: FakeStore,
    pub witness: FakeWitness,
    pub port: u16,
    /// How long a pod that does not obey may take.
    pub margin_seconds: u32,
    /// Whether the installation has network policies.
    pub network_policies: bool,
    pub folder: tempfile::TempDir,
    running: Vec<Replica>,
    server: Option<(Runtime, JoinHandle<()>)>,
    _turn: MutexGuard<'static, ()>,
}

impl Fixture {
    /// A namespace, the roles, a token; nothing runs yet.
    pub async fn new() -> Self {
        let turn = TURN.lock().await;
        let _ = rustls_provider();
        let plane = ControlPlane::shared().await.unwrap();
        let admin = plane.client().unwrap();
        plane.install_crds().await.unwrap();
        let namespace = plane.namespace().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        install::certificates(folder.path()).unwrap();
        grant(&admin, &namespace).await;
        std::fs::write(
            folder.path().join("token"),
            install::token(&admin, &namespace, "polecat-ctl", None).await.unwrap(),
        )
        .unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self {
            plane,
            kubelet: TestKubelet::new(admin.clone()),
            rig: format!("rig-{namespace}"),
            admin,
            namespace,
            metrics: Metrics::default(),
            port,
            margin_seconds: 300,
            network_policies: true,
            beads: FakeStore::default(),
            witness: FakeWitness::default(),
            folder,
            running: Vec::new(),
            server: None,
            _turn: turn,
        }
    }

    /// The rig exists, and the controller and the fakes of the other controllers run.
    pub async fn start(max_polecats: i32) -> Self {
        let mut fixture = Self::new().await;
        fixture.make_rig(max_polecats).await;
        fixture.start_server().await;
        fixture.start_controller();
        fixture
    }

    /// Starts one more replica, which works for all rigs.
    pub fn start_controller(&mut self) {
        self.start_replica(Arc::default(), None);
    }

    /// Starts one more replica on this wire. With `candidate` it is one of several, see
    /// [`Fixture::take_over`].
    pub fn start_replica(&mut self, wire: Arc<Wire>, candidate: Option<&str>) {
        let replica = Replica::start(&self.settings(), wire, candidate);
        self.running.push(replica);
    }

    /// What replicas are started with.
    pub fn settings(&self) -> Settings {
        Settings {
            plane: self.plane,
            namespace: self.namespace.clone(),
            folder: self.folder.path().to_owned(),
            port: self.port,
            margin_seconds: self.margin_seconds,
            network_policies: self.network_policies,
            metrics: self.metrics.clone(),
        }
    }

    /// Has the replica of this name take part, and waits until all shards are of those that do.
    pub async fn take_over(&self, name: &str) {
        self.running.iter().for_each(|replica| replica.take_part(name));
        self.shares(SHARDS).await;
    }

    /// Waits until each replica has so many shards at most, and all are taken.
    pub async fn shares(&self, most: usize) {
        self.poll("the shards", || async {
            let held: Vec<usize> = self.running.iter().map(Replica::shards).collect();
            let is_even = held.iter().all(|shards| *shards <= most);
            (is_even && held.iter().sum::<usize>() == SHARDS).then_some(())
        })
        .await;
    }

    /// Stops the replica that was started first. It holds its lease until the token is cancelled.
    pub async fn stop_first(&mut self) -> CancellationToken {
        self.running.remove(0).drain().await
    }

    /// Stops all replicas; what they remembered is lost.
    pub async fn stop_controller(&mut self) {
        for replica in self.running.drain(..) {
            replica.drain().await.cancel();
        }
    }

    pub async fn start_server(&mut self) {
        let args = RuntimeArgs::from_env().unwrap();
        let leads = Shards::all();
        let runtime = Runtime::new("test", self.admin.clone(), args, Metrics::default(), leads);
        let tls = Tls::load(self.folder.path(), runtime.stop.clone()).unwrap();
        let listener = grpc::listen(([127, 0, 0, 1], self.port).into()).await.unwrap();
        let service = MergeQueueServer::new(FakeRefinery { admin: self.admin.clone() });
        let routes = tonic::service::Routes::new(service)
            .add_service(BeadsServer::new(self.beads.clone()))
            .add_service(WitnessServer::new(self.witness.clone()));
        let caller = self.namespace.clone();
        let policy: grpc::Policy = Arc::new(move |_, who| {
            if who.namespace == caller && who.service_account == "polecat-ctl" {
                Ok(())
            } else {
                Err("not polecat-ctl".into())
            }
        });
        let serving = runtime.clone();
        let task = tokio::spawn(async move {
            grpc::serve(listener, &tls, routes, v1::DESCRIPTORS, policy, &serving).await.unwrap();
        });
        self.server = Some((runtime, task));
    }

    pub async fn stop_server(&mut self) {
        if let Some((runtime, task)) = self.server.take() {
            runtime.shutdown();
            task.await.unwrap();
        }
    }

    pub async fn make_bead_store(&self) {
        let spec = serde_json::from_value(json!({ "rigRef": self.rig, "prefix": "web" })).unwrap();
        let api: Api<BeadStore> = Api::namespaced(self.admin.clone(), &self.namespace);
        api.create(&PostParams::default(), &BeadStore::new("web-beads", spec)).await.unwrap();
    }

    /// Waits for this many comments.
    pub async fn wait_comments(&self, n: usize) -> Vec<v1::CommentRequest> {
        self.poll("comments", || async {
            Some(self.beads.0.lock().await.comments.clone()).filter(|c| c.len() >= n)
        })
        .await
    }

    /// Waits until the open Escalations have what is looked for.
    pub async fn wait_escalation<T>(&self, found: impl Fn(&[v1::RaiseRequest]) -> Option<T>) -> T {
        self.poll("Escalation", || async { found(&self.witness.0.lock().await.open) }).await
    }

    /// Waits for this many comment requests.
    pub async fn wait_comment_requests(&self, n: u32) {
        self.poll("comment requests", || async {
            (self.beads.0.lock().await.requests >= n).then_some(())
        })
        .await;
    }

    /// Waits for an Event about a Polecat.
    pub async fn wait_event(&self, name: &str, reason: &str) {
        use k8s_openapi::api::events::v1::Event;
        let api: Api<Event> = Api::namespaced(self.admin.clone(), &self.namespace);
        let about = |e: &Event| {
            e.reason.as_deref() == Some(reason)
                && e.regarding.as_ref().is_some_and(|r| r.name.as_deref() == Some(name))
        };
        self.poll(reason, || async {
            api.list(&ListParams::default()).await.unwrap().items.iter().any(about).then_some(())
        })
        .await;
    }

    pub async fn poll<T, F: Future<Output = Option<T>>>(
        &self,
        what: &str,
        mut look: impl FnMut() -> F,
    ) -> T {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "no {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn make_rig(&self, max_polecats: i32) {
        make_rig(&self.admin, &self.rig, max_polecats).await;
    }

    /// The name of one of several rigs.
    pub fn rig_of(&self, number: usize) -> String {
        format!("{}-{number}", self.rig)
    }

    pub fn polecats(&self) -> Api<Polecat> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    pub fn requests(&self) -> Api<MergeRequest> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// A Polecat that is wanted to work.
    pub async fn sling(&self, name: &str, change: impl FnOnce(&mut PolecatSpec)) -> Polecat {
        let mut spec = working(&self.rig);
        change(&mut spec);
        self.polecats().create(&PostParams::default(), &Polecat::new(name, spec)).await.unwrap()
    }

    pub async fn patch(&self, name: &str, patch: Value) {
        self.polecats().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Waits until the Polecat's status is as wanted.
    pub async fn wait(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&PolecatStatus) -> bool,
    ) -> Polecat {
        let api = self.polecats();
        let condition = |polecat: Option<&Polecat>| {
            polecat.and_then(|p| p.status.as_ref()).is_some_and(&wanted)
        };
        let waiting = kube::runtime::wait::await_condition(api.clone(), name, condition);
        if let Ok(found) = tokio::time::timeout(TIMEOUT, waiting).await {
            return found.unwrap().unwrap();
        }
        panic!(
            "{name} is not {what}: {:#?}",
            api.get_opt(name).await.unwrap().map(|p| (p.metadata.annotations, p.status))
        )
    }

    /// Waits for the reason of a condition.
    pub async fn wait_reason(&self, name: &str, kind: &str, reason: &str) -> Polecat {
        self.wait(name, reason, |status| {
            conditions::find(&status.conditions, kind).is_some_and(|c| c.reason == reason)
        })
        .await
    }

    pub async fn wait_phase(&self, name: &str, phase: &str) -> Polecat {
        self.wait(name, phase, |status| status.phase.is_some_and(|p| format!("{p:?}") == phase))
            .await
    }

    /// Waits for a pod of this name other than these.
    pub async fn pod(&self, name: &str, not: &[&Pod]) -> Pod {
        let old: BTreeSet<_> = not.iter().filter_map(|p| p.uid()).collect();
        let found =
            |pod: &Pod| pod.name_any() == name && pod.uid().is_some_and(|u| !old.contains(&u));
        match self.kubelet.wait_pod(&self.namespace, found).await {
            Ok(pod) => pod,
            Err(error) => {
                let all = self.polecats().list(&ListParams::default()).await.unwrap();
                panic!(
                    "{error:#}: {:#?}",
                    all.iter().map(|p| (p.name_any(), &p.status)).collect::<Vec<_>>()
                )
            }
        }
    }

    pub async fn all_pods(&self) -> Vec<Pod> {
        self.pods().list(&ListParams::default()).await.unwrap().items
    }

    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    pub async fn prompt(&self, pod: &Pod) -> String {
        if let Some(prompt) = pod.annotations().get(annotation::PROMPT) {
            return prompt.clone();
        }
        self.config_maps()
            .get(&pod.name_any())
            .await
            .unwrap()
            .data
            .unwrap()
            .remove("prompt.md")
            .unwrap()
    }

    /// The one MergeRequest of this commit.
    pub async fn request(&self, commit: &str) -> MergeRequest {
        let of_commit = |r: &MergeRequest| r.spec.commit == commit;
        let look = || async {
            self.requests()
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .into_iter()
                .find(of_commit)
        };
        self.poll(&format!("MergeRequest of {commit}"), look).await
    }

    pub async fn request_status(&self, name: &str, status: Value) {
        self.requests()
            .patch_status(
                name,
                &PatchParams::default(),
                &Patch::Merge(&json!({ "status": status })),
            )
            .await
            .unwrap();
    }

    /// Removes a whole status, as a restore from a backup does.
    pub async fn erase_status(&self, name: &str) {
        let patch = json!([{ "op": "remove", "path": "/status" }]);
        let patch: Patch<()> = Patch::Json(serde_json::from_value(patch).unwrap());
        self.polecats().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub async fn ledger(&self, name: &str) -> Value {
        let polecat = self.polecats().get(name).await.unwrap();
        serde_json::from_str(&polecat.annotations()[annotation::LEDGER]).unwrap()
    }

    /// Deletes what this test made, so that the next controller has nothing to do with it.
    pub async fn close(mut self) {
        self.stop_controller().await;
        let all = ListParams::default();
        let off = json!({ "metadata": { "finalizers": null } });
        self.polecats().delete_collection(&DeleteParams::default(), &all).await.unwrap();
        for polecat in self.polecats().list(&all).await.unwrap() {
            let _ = self
                .polecats()
                .patch(&polecat.name_any(), &PatchParams::default(), &Patch::Merge(&off))
                .await;
        }
        for pod in self.all_pods().await {
            let _ = self
                .pods()
                .patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&off))
                .await;
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            let _ = self.pods().delete(&pod.name_any(), &now).await;
        }
        self.stop_server().await;
    }

    /// How many writes of these resources the API server accepted from the controller.
    pub fn writes(&self, resources: &[&str]) -> u64 {
        let text = self.metrics.encode().unwrap();
        let is = |line: &str, key: &str, value: &str| line.contains(&format!("{key}=\"{value}\""));
        let write = |l: &&str| {
            ["create", "patch", "apply", "update", "delete"].iter().any(|v| is(l, "verb", v))
        };
        let lines =
            text.lines().filter(|l| l.contains("requests_total{") && l.contains("code=\"2"));
        let ours = lines.filter(write).filter(|l| resources.iter().any(|r| is(l, "resource", r)));
        ours.map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// The spec of a Polecat that is wanted to work.
pub fn working(rig: &str) -> PolecatSpec {
    PolecatSpec {
        desired_state: DesiredState::Working,
        task_description: Some("make it so".into()),
        kubernetes: Some(KubernetesSpec::of_repository(URL)),
        ..PolecatSpec::of_rig(rig)
    }
}

pub async fn make_rig(admin: &Client, name: &str, max_polecats: i32) {
    let spec = RigSpec {
        git_url: URL.into(),
        beads_prefix: "web".into(),
        settings: RigSettings { max_polecats, ..RigSettings::default() },
        ..RigSpec::default()
    };
    let api = Api::<Rig>::all(admin.clone());
    api.create(&PostParams::default(), &Rig::new(name, spec)).await.unwrap();
}

fn rustls_provider() -> Result<(), impl std::fmt::Debug> {
    rustls::crypto::aws_lc_rs::default_provider().install_default()
}

pub async fn grant(admin: &Client, namespace: &str) {
    use k8s_openapi::api::core::v1::ServiceAccount;
    use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
    let post = PostParams::default();
    let account: ServiceAccount =
        serde_json::from_value(json!({ "metadata": { "name": "polecat-ctl" } })).unwrap();
    Api::namespaced(admin.clone(), namespace).create(&post, &account).await.unwrap();
    let name = format!("polecat-ctl-{namespace}");
    let meta = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let cluster = ClusterRole {
        metadata: meta(&name),
        rules: Some(cluster_rules(Controller::Polecat)),
        ..ClusterRole::default()
    };
    Api::all(admin.clone()).create(&post, &cluster).await.unwrap();
    let role = Role { metadata: meta(&name), rules: Some(namespace_rules(Controller::Polecat)) };
    Api::namespaced(admin.clone(), namespace).create(&post, &role).await.unwrap();
    let subject =
        json!([{ "kind": "ServiceAccount", "name": "polecat-ctl", "namespace": namespace }]);
    let group = "rbac.authorization.k8s.io";
    let to = |kind: &str| json!({ "metadata": { "name": name }, "subjects": subject, "roleRef": { "apiGroup": group, "kind": kind, "name": name } });
    let all: ClusterRoleBinding = serde_json::from_value(to("ClusterRole")).unwrap();
    Api::all(admin.clone()).create(&post, &all).await.unwrap();
    let own: RoleBinding = serde_json::from_value(to("Role")).unwrap();
    Api::namespaced(admin.clone(), namespace).create(&post, &own).await.unwrap();
}
