//! The fixture of the tests: a control plane, and a namespace for each test.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result};
use gastown_cluster::control_plane::ControlPlane;
use gastown_runtime::metrics::Metrics;
use gastown_runtime::shards::Shards;
use gastown_runtime::{Runtime, RuntimeArgs, client};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long a test waits for anything.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for a future.
pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(TIMEOUT, wait).await.with_context(|| format!("{what} did not happen"))
}

/// Polls until there is a value.
pub async fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> Result<T> {
    within(what, async {
        loop {
            if let Some(value) = poll() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// The control plane, a client as controllers have it, and a namespace.
pub async fn fixture() -> Result<(&'static ControlPlane, Client, String)> {
    let plane = ControlPlane::shared().await?;
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = client::with_config(config, "runtime-test", &Metrics::default())?;
    Ok((plane, client, plane.namespace().await?))
}

/// A runtime that works for all rigs.
pub fn runtime(client: Client) -> Result<Runtime> {
    Ok(Runtime::new(
        "runtime-test",
        client,
        RuntimeArgs::from_env()?,
        Metrics::default(),
        Shards::all(),
    ))
}

/// A ConfigMap with this data.
pub fn config_map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(data),
        ..ConfigMap::default()
    }
}
