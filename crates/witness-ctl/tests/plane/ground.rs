//! What the tests stand on: a plane, the controller, and for each test a namespace and a rig's name.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use gastown_api::names::condition;
use gastown_api::{Escalation, Polecat, PolecatSpec, Witness, conditions, rbac};
use gastown_proto::v1::witness_client::WitnessClient;
use gastown_runtime::grpc::{self, AuthChannel, Remote};
use gastown_runtime::lease::Claims;
use gastown_runtime::metrics::Metrics;
use gastown_runtime::{Runtime, RuntimeArgs, client};
use gastown_testkit::control_plane::ControlPlane;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::{Value, json};

/// Nothing here takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "gastown-system";
const ACCOUNT: &str = "witness-ctl";

/// What the chart makes for witness-ctl, and the accounts of those who call it.
async fn install(plane: &ControlPlane) -> Result<()> {
    plane.install_crds().await?;
    let client = plane.client()?;
    let name = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let role = |kind: &str| RoleRef { api_group: "rbac.authorization.k8s.io".into(), kind: kind.into(), name: ACCOUNT.into() };
    let account = Subject { kind: "ServiceAccount".into(), name: ACCOUNT.into(), namespace: Some(NAMESPACE.into()), api_group: None };
    let params = PostParams::default();
    Api::all(client.clone()).create(&params, &Namespace { metadata: name(NAMESPACE), ..Namespace::default() }).await?;
    for caller in ["polecat-ctl", "rig-ctl"] {
        let account = ServiceAccount { metadata: name(caller), ..ServiceAccount::default() };
        Api::namespaced(client.clone(), NAMESPACE).create(&params, &account).await?;
    }
    let rules = Some(rbac::cluster_rules(rbac::Controller::Witness));
    Api::all(client.clone()).create(&params, &ClusterRole { metadata: name(ACCOUNT), rules, aggregation_rule: None }).await?;
    let binding = ClusterRoleBinding { metadata: name(ACCOUNT), role_ref: role("ClusterRole"), subjects: Some(vec![account.clone()]) };
    Api::all(client.clone()).create(&params, &binding).await?;
    let rules = Some(rbac::namespace_rules(rbac::Controller::Witness));
    Api::namespaced(client.clone(), NAMESPACE).create(&params, &Role { metadata: name(ACCOUNT), rules }).await?;
    let binding = RoleBinding { metadata: name(ACCOUNT), role_ref: role("Role"), subjects: Some(vec![account]) };
    Api::namespaced(client, NAMESPACE).create(&params, &binding).await?;
    Ok(())
}

/// A CA, and a server's certificate for `localhost`.
fn certificates(folder: &Path) -> Result<()> {
    let ca_key = rcgen::KeyPair::generate()?;
    let mut ca = rcgen::CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test ca");
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate()?;
    let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &issuer)?;
    std::fs::write(folder.join("ca.crt"), ca_pem)?;
    std::fs::write(folder.join("tls.crt"), cert.pem())?;
    std::fs::write(folder.join("tls.key"), key.serialize_pem())?;
    Ok(())
}

/// Where the controller listens, and its certificates.
#[derive(Clone, Debug)]
struct Shared {
    port: u16,
    tls: PathBuf,
}

async fn serve(tls: &Path) -> Result<Shared> {
    let plane = ControlPlane::shared().await?;
    install(plane).await?;
    certificates(tls)?;
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}"));
    let metrics = Metrics::default();
    let client = client::with_config(config, ACCOUNT, &metrics)?;
    let args = RuntimeArgs { namespace: NAMESPACE.into(), tls_dir: tls.to_owned(), ..RuntimeArgs::from_env()? };
    let runtime = Runtime::new(ACCOUNT, client, args, metrics, Claims::always(ACCOUNT));
    let listener = grpc::listen("127.0.0.1:0".parse()?).await?;
    let port = listener.local_addr()?.port();
    let started = runtime.clone();
    tokio::spawn(async move {
        if let Err(error) = Box::pin(witness_ctl::serve(started, listener)).await {
            eprintln!("the controller ended: {error:#}");
        }
    });
    runtime.readiness.ready().await;
    Ok(Shared { port, tls: tls.to_owned() })
}

static CONTROLLER: OnceLock<std::result::Result<Shared, String>> = OnceLock::new();

/// The controller of this test program, on a thread that outlives each test's own runtime.
async fn shared() -> Result<Shared> {
    let start = || {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async move {
                let dir = tempfile::tempdir().unwrap();
                drop(tell.send(serve(dir.path()).await.map_err(|error| format!("{error:#}"))));
                std::future::pending::<()>().await;
            });
        });
        told.recv().unwrap_or_else(|_| Err("the controller's thread ended".to_owned()))
    };
    match tokio::task::spawn_blocking(move || CONTROLLER.get_or_init(start).clone()).await? {
        Ok(shared) => Ok(shared),
        Err(error) => bail!("the controller did not start: {error}"),
    }
}

/// A namespace with a rig's name of its own.
pub struct Town {
    pub client: Client,
    pub namespace: String,
    pub rig: String,
    shared: Shared,
    dir: tempfile::TempDir,
}

impl Town {
    pub async fn new() -> Result<Self> {
        let shared = shared().await?;
        let plane = ControlPlane::shared().await?;
        let (client, namespace) = (plane.client()?, plane.namespace().await?);
        let account =
            ServiceAccount { metadata: ObjectMeta { name: Some("agent".into()), ..ObjectMeta::default() }, ..ServiceAccount::default() };
        Api::namespaced(client.clone(), &namespace).create(&PostParams::default(), &account).await?;
        Ok(Self { rig: format!("rig-{namespace}"), client, namespace, shared, dir: tempfile::tempdir()? })
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A Witness of the rig in this namespace, or in that of the release, where it may read Secrets.
    pub async fn witness(&self, namespace: &str, name: &str, spec: Value) -> Result<Witness> {
        let mut whole = json!({ "rigRef": self.rig, "healthCheckInterval": "1s" });
        for (key, value) in spec.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        let api = Api::namespaced(self.client.clone(), namespace);
        Ok(api.create(&PostParams::default(), &Witness::new(name, serde_json::from_value(whole)?)).await?)
    }

    pub async fn polecat(&self, name: &str) -> Result<Polecat> {
        Ok(self.api().create(&PostParams::default(), &Polecat::new(name, PolecatSpec::of_rig(&self.rig))).await?)
    }

    /// Writes a status as polecat-ctl does.
    pub async fn status(&self, name: &str, status: Value) -> Result<()> {
        let body =
            json!({ "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "Polecat", "metadata": { "name": name }, "status": status });
        self.api::<Polecat>().patch_status(name, &PatchParams::apply("gastown-polecat-ctl").force(), &Patch::Apply(&body)).await?;
        Ok(())
    }

    /// A pod of a Polecat, or of nobody.
    pub async fn pod(&self, name: &str, owner: Option<&Polecat>) -> Result<Pod> {
        let owners = owner.map(|p| {
            json!([{ "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "Polecat", "name": p.name_any(),
                     "uid": p.uid().unwrap(), "controller": true }])
        });
        let pod = json!({
            "metadata": { "name": name, "ownerReferences": owners.unwrap_or_else(|| json!([])) },
            "spec": { "serviceAccountName": "agent", "containers": [{ "name": "claude", "image": "none" }] },
        });
        Ok(self.api().create(&PostParams::default(), &serde_json::from_value(pod)?).await?)
    }

    /// A client with a projected token, as the kubelet would ask for it.
    pub async fn caller(&self, namespace: &str, account: &str, pod: Option<&Pod>) -> Result<WitnessClient<AuthChannel>> {
        let bound = pod.map(|p| BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: p.metadata.name.clone(),
            uid: p.metadata.uid.clone(),
        });
        let spec = TokenRequestSpec { audiences: vec!["gastown".into()], bound_object_ref: bound, expiration_seconds: None };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let made = api.create_token_request(account, &PostParams::default(), &request).await?;
        let file = self.dir.path().join(format!("token-{}", owner_of(pod, account)));
        std::fs::write(&file, made.status.context("a token")?.token)?;
        let remote = Remote::new(&format!("https://localhost:{}", self.shared.port), &self.shared.tls, &file, Duration::from_secs(20));
        Ok(WitnessClient::new(remote.channel()?))
    }

    /// polecat-ctl, of the release.
    pub async fn controller(&self) -> Result<WitnessClient<AuthChannel>> {
        self.caller(NAMESPACE, "polecat-ctl", None).await
    }

    /// The client of a Polecat's pod.
    pub async fn agent(&self, pod: &Pod) -> Result<WitnessClient<AuthChannel>> {
        self.caller(&self.namespace, "agent", Some(pod)).await
    }

    pub async fn escalation(&self, name: &str, what: &str, want: impl Fn(&Escalation) -> bool) -> Result<Escalation> {
        until(&self.api::<Escalation>(), name, what, |e| e.filter(|e| want(e)).cloned()).await
    }
}

fn owner_of(pod: Option<&Pod>, account: &str) -> String {
    pod.and_then(kube::ResourceExt::uid).unwrap_or_else(|| account.to_owned())
}

/// Looks until `want` sees what it wants; says what there was when it does not come.
pub async fn until<K, T>(api: &Api<K>, name: &str, what: &str, want: impl Fn(Option<&K>) -> Option<T>) -> Result<T>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let present = api.get_opt(name).await?;
        if let Some(seen) = want(present.as_ref()) {
            return Ok(seen);
        }
        if tokio::time::Instant::now() > deadline {
            bail!("{name}: {what} did not come; there is {present:#?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the witness says of a Polecat.
pub fn healthy(polecat: &Polecat) -> Option<Condition> {
    conditions::find(&polecat.status.as_ref()?.conditions, condition::HEALTHY).cloned()
}
