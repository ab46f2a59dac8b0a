//! Installs one controller on a control plane as the chart does: its account and roles, its
//! certificates, tokens for its clients, and a thread that outlives each test's own runtime.

use std::fmt::Debug;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gastown_api::rbac::{self, Controller};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject,
};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use crate::control_plane::{ControlPlane, Options};

/// The namespace in which the chart installs the controllers.
pub const SYSTEM: &str = "gastown-system";

/// The audience of tokens for our servers.
const AUDIENCE: &str = "gastown";

/// Creates what the chart creates for a controller: the CRDs, the release's namespace, its cluster-wide
/// and namespaced roles; and the accounts of its clients.
pub async fn install(plane: &ControlPlane, controller: Controller, callers: &[&str]) -> Result<()> {
    plane.install_crds().await?;
    install_roles(plane, controller, callers).await
}

/// As [`install`], without the CRDs.
pub async fn install_roles(
    plane: &ControlPlane,
    controller: Controller,
    callers: &[&str],
) -> Result<()> {
    let (client, account) = (plane.client()?, controller.name());
    let name = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let params = PostParams::default();
    // Another controller's installation may have created it.
    match Api::all(client.clone())
        .create(&params, &Namespace { metadata: name(SYSTEM), ..Namespace::default() })
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        made => drop(made?),
    }
    for caller in callers {
        let account = ServiceAccount { metadata: name(caller), ..ServiceAccount::default() };
        Api::namespaced(client.clone(), SYSTEM).create(&params, &account).await?;
    }
    let rules = Some(rbac::cluster_rules(controller));
    Api::all(client.clone())
        .create(&params, &ClusterRole { metadata: name(account), rules, aggregation_rule: None })
        .await?;
    let binding = ClusterRoleBinding {
        metadata: name(account),
        role_ref: role_ref(controller, "ClusterRole"),
        subjects: Some(vec![subject(controller)]),
    };
    Api::all(client.clone()).create(&params, &binding).await?;
    install_in(plane, controller, SYSTEM).await
}

/// Lets a controller of the release do in this namespace what it may do in the release's own.
pub async fn install_in(
    plane: &ControlPlane,
    controller: Controller,
    namespace: &str,
) -> Result<()> {
    let (client, params) = (plane.client()?, PostParams::default());
    let metadata = ObjectMeta { name: Some(controller.name().to_owned()), ..ObjectMeta::default() };
    let rules = Some(rbac::namespace_rules(controller));
    let role = Role { metadata: metadata.clone(), rules };
    Api::namespaced(client.clone(), namespace).create(&params, &role).await?;
    let role_ref = role_ref(controller, "Role");
    let binding = RoleBinding { metadata, role_ref, subjects: Some(vec![subject(controller)]) };
    Api::namespaced(client, namespace).create(&params, &binding).await?;
    Ok(())
}

fn role_ref(controller: Controller, kind: &str) -> RoleRef {
    RoleRef {
        api_group: "rbac.authorization.k8s.io".into(),
        kind: kind.into(),
        name: controller.name().into(),
    }
}

fn subject(controller: Controller) -> Subject {
    Subject {
        kind: "ServiceAccount".into(),
        name: controller.name().into(),
        namespace: Some(SYSTEM.into()),
        api_group: None,
    }
}

/// A control plane of its own with this controller's installation, beside the shared one: for tests
/// whose objects the controllers of other tests must not see. The first call starts it.
pub async fn apart(
    slot: &'static OnceCell<ControlPlane>,
    controller: Controller,
    callers: &[&str],
) -> Result<&'static ControlPlane> {
    let start = async || {
        let plane = ControlPlane::start(Options::default()).await?;
        install(&plane, controller, callers).await?;
        anyhow::Ok(plane)
    };
    slot.get_or_try_init(start).await
}

/// The client configuration of a controller of the release, with its own service account.
pub fn config(plane: &ControlPlane, controller: Controller) -> Config {
    plane.config_as(&user(controller))
}

/// The user name of a controller of the release.
pub fn user(controller: Controller) -> String {
    format!("system:serviceaccount:{SYSTEM}:{}", controller.name())
}

/// Writes a CA (`ca.crt`) and a server's certificate for `localhost` (`tls.crt`, `tls.key`) into a
/// folder.
pub fn certificates(folder: &Path) -> Result<()> {
    let ca_key = rcgen::KeyPair::generate()?;
    let mut ca = rcgen::CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test ca");
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate()?;
    let cert =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &issuer)?;
    std::fs::write(folder.join("ca.crt"), ca_pem)?;
    std::fs::write(folder.join("tls.crt"), cert.pem())?;
    std::fs::write(folder.join("tls.key"), key.serialize_pem())?;
    Ok(())
}

/// A projected token, as the kubelet would request it; bound to the pod, if one is given.
pub async fn token(
    client: &Client,
    namespace: &str,
    account: &str,
    pod: Option<&Pod>,
) -> Result<String> {
    let bound = pod.map(|p| BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: p.metadata.name.clone(),
        uid: p.metadata.uid.clone(),
    });
    let spec = TokenRequestSpec {
        audiences: vec![AUDIENCE.into()],
        bound_object_ref: bound,
        expiration_seconds: None,
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let made = api.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(made.status.context("a token")?.token)
}

/// Reads an object until `want` returns something; after `limit` the error holds the last object.
pub async fn until<K, T>(
    limit: Duration,
    api: &Api<K>,
    name: &str,
    what: &str,
    want: impl Fn(Option<&K>) -> Option<T>,
) -> Result<T>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let present = api.get_opt(name).await?;
        if let Some(seen) = want(present.as_ref()) {
            return Ok(seen);
        }
        if tokio::time::Instant::now() > deadline {
            bail!(
                "{name}: {what} did not happen within {} s; the object is {present:#?}",
                limit.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What [`hosted`] has started, or why it could not.
pub type Hosted<T> = OnceLock<std::result::Result<T, String>>;

/// Starts a controller for the whole test program, on a thread that outlives each test's own runtime;
/// the first call starts it. `start` returns what tests need to know of it, and what must live as
/// long.
pub async fn hosted<T, G, F>(
    slot: &'static Hosted<T>,
    start: impl FnOnce() -> F + Send + 'static,
) -> Result<T>
where
    T: Clone + Send + Sync + 'static,
    F: Future<Output = Result<(T, G)>>,
{
    let run = move || {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // Without a runtime the sender is dropped, which is an error below.
            let Ok(runtime) =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
            else {
                return;
            };
            runtime.block_on(async move {
                let (known, guard) = match start().await {
                    Ok((known, guard)) => (Ok(known), Some(guard)),
                    Err(error) => (Err(format!("{error:#}")), None),
                };
                drop(sender.send(known));
                std::future::pending::<()>().await;
                drop(guard);
            });
        });
        receiver.recv().unwrap_or_else(|_| Err("the controller's thread ended".to_owned()))
    };
    let started = tokio::task::spawn_blocking(move || slot.get_or_init(run).clone()).await?;
    started.map_err(|error| anyhow::anyhow!("the controller did not start: {error}"))
}
