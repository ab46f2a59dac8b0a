//! The fixture of the tests: an API server, the controller, and for each test a namespace and the
//! name of a rig.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use gastown_api::names::condition;
use gastown_api::rbac::Controller;
use gastown_api::{Escalation, Polecat, PolecatSpec, Witness, conditions};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install::SYSTEM as NAMESPACE;
pub use gastown_cluster::install::until;
use gastown_cluster::install::{self, Hosted};
use gastown_proto::v1::witness_client::WitnessClient;
use gastown_runtime::grpc::{self, AuthChannel, Remote};
use gastown_runtime::{Runtime, RuntimeArgs};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

/// How long a test waits for anything.
pub const TIMEOUT: Duration = Duration::from_secs(60);
pub const ACCOUNT: &str = "witness-ctl";

/// Where the controller listens, and its certificates.
#[derive(Clone, Debug)]
pub struct Shared {
    pub port: u16,
    pub tls: PathBuf,
}

async fn serve() -> Result<(Shared, tempfile::TempDir)> {
    let plane = ControlPlane::shared().await?;
    install::install(plane, Controller::Witness, &["polecat-ctl", "rig-ctl"]).await?;
    let dir = tempfile::tempdir()?;
    let tls = dir.path().to_owned();
    install::certificates(&tls)?;
    let config = install::config(plane, Controller::Witness);
    let args = RuntimeArgs {
        namespace: NAMESPACE.into(),
        tls_dir: tls.clone(),
        ..RuntimeArgs::from_env()?
    };
    let runtime = Runtime::leading(ACCOUNT, config, args)?;
    let listener = grpc::listen("127.0.0.1:0".parse()?).await?;
    let port = listener.local_addr()?.port();
    let started = runtime.clone();
    tokio::spawn(async move {
        if let Err(error) = Box::pin(witness_ctl::serve(started, listener)).await {
            eprintln!("the controller failed: {error:#}");
        }
    });
    runtime.readiness.ready().await;
    Ok((Shared { port, tls }, dir))
}

static CONTROLLER: Hosted<Shared> = Hosted::new();

/// The controller of this test program.
async fn shared() -> Result<Shared> {
    install::hosted(&CONTROLLER, serve).await
}

/// A namespace of a test's own, and the name of its rig.
pub struct Fixture {
    pub client: Client,
    pub namespace: String,
    pub rig: String,
    pub shared: Shared,
    dir: tempfile::TempDir,
}

impl Fixture {
    pub async fn new() -> Result<Self> {
        let shared = shared().await?;
        Self::on(ControlPlane::shared().await?, shared).await
    }

    /// On a plane whose controllers are of the test's own.
    pub async fn on(plane: &ControlPlane, shared: Shared) -> Result<Self> {
        let (client, namespace) = (plane.client()?, plane.namespace().await?);
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some("agent".into()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        Api::namespaced(client.clone(), &namespace)
            .create(&PostParams::default(), &account)
            .await?;
        Ok(Self {
            rig: format!("rig-{namespace}"),
            client,
            namespace,
            shared,
            dir: tempfile::tempdir()?,
        })
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A Witness of the rig in this namespace, or in that of the release, where it may read
    /// Secrets.
    pub async fn witness(&self, namespace: &str, name: &str, spec: Value) -> Result<Witness> {
        let mut whole = json!({ "rigRef": self.rig, "healthCheckInterval": "1s" });
        for (key, value) in spec.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        let api = Api::namespaced(self.client.clone(), namespace);
        Ok(api
            .create(&PostParams::default(), &Witness::new(name, serde_json::from_value(whole)?))
            .await?)
    }

    pub async fn polecat(&self, name: &str) -> Result<Polecat> {
        Ok(self
            .api()
            .create(&PostParams::default(), &Polecat::new(name, PolecatSpec::of_rig(&self.rig)))
            .await?)
    }

    /// Writes a status as polecat-ctl does.
    pub async fn status(&self, name: &str, status: Value) -> Result<()> {
        let body = json!({ "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "Polecat", "metadata": { "name": name }, "status": status });
        self.api::<Polecat>()
            .patch_status(
                name,
                &PatchParams::apply("gastown-polecat-ctl").force(),
                &Patch::Apply(&body),
            )
            .await?;
        Ok(())
    }

    /// A pod that a Polecat owns, or nobody.
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

    /// A client with a projected token, as the kubelet would request it.
    pub async fn caller(
        &self,
        namespace: &str,
        account: &str,
        pod: Option<&Pod>,
    ) -> Result<WitnessClient<AuthChannel>> {
        self.caller_at(self.shared.port, namespace, account, pod).await
    }

    /// As [`Fixture::caller`], of the controller at this port.
    pub async fn caller_at(
        &self,
        port: u16,
        namespace: &str,
        account: &str,
        pod: Option<&Pod>,
    ) -> Result<WitnessClient<AuthChannel>> {
        let file = self.dir.path().join(format!("token-{}", owner_of(pod, account)));
        std::fs::write(&file, install::token(&self.client, namespace, account, pod).await?)?;
        let remote = Remote::new(
            &format!("https://localhost:{port}"),
            &self.shared.tls,
            &file,
            Duration::from_secs(20),
        );
        Ok(WitnessClient::new(remote.channel("")?))
    }

    /// A client that is polecat-ctl of the release.
    pub async fn controller(&self) -> Result<WitnessClient<AuthChannel>> {
        self.caller(NAMESPACE, "polecat-ctl", None).await
    }

    /// A client that is a Polecat's pod.
    pub async fn agent(&self, pod: &Pod) -> Result<WitnessClient<AuthChannel>> {
        self.caller(&self.namespace, "agent", Some(pod)).await
    }

    /// Waits until an Escalation is as wanted.
    pub async fn escalation(
        &self,
        name: &str,
        what: &str,
        want: impl Fn(&Escalation) -> bool,
    ) -> Result<Escalation> {
        until(TIMEOUT, &self.api::<Escalation>(), name, what, |e| e.filter(|e| want(e)).cloned())
            .await
    }
}

fn owner_of(pod: Option<&Pod>, account: &str) -> String {
    pod.and_then(kube::ResourceExt::uid).unwrap_or_else(|| account.to_owned())
}

/// Condition Healthy of a Polecat.
pub fn healthy(polecat: &Polecat) -> Option<Condition> {
    conditions::find(&polecat.status.as_ref()?.conditions, condition::HEALTHY).cloned()
}
