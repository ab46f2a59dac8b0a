//! Prometheus, which scrapes the controllers' `/metrics`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use gastown_cluster::control_plane::free_port;
use gastown_cluster::{http_client, toolchain};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use crate::server::Server;

/// How often the controllers are scraped.
const INTERVAL: &str = "2s";
/// How often their pods are looked for.
const FOLLOW: Duration = Duration::from_secs(1);

/// A running Prometheus. It ends when it is dropped, and its metrics with it.
#[derive(Debug)]
pub struct Prometheus {
    _server: Server,
    _following: AbortOnDropHandle<()>,
    _folder: TempDir,
    address: String,
}

impl Prometheus {
    /// Starts it. It scrapes the controllers' pods in `namespace`, and must run where their addresses are
    /// reached: on their node, which network policies let in.
    pub async fn start(client: Client, namespace: &str) -> Result<Self> {
        let program = toolchain::prometheus().await?.join("prometheus");
        let address = format!("127.0.0.1:{}", free_port()?);
        let folder = TempDir::new().context("a folder for the targets")?;
        // Debian's Prometheus cannot ask the API server for them itself.
        let file = folder.path().join("targets.json");
        let configuration = configuration(&file);
        let flags = |file: &Path, folder: &Path| {
            vec![
                format!("--config.file={}", file.display()),
                format!("--storage.tsdb.path={}", folder.join("data").display()),
                format!("--web.listen-address={address}"),
                "--enable-feature=exemplar-storage".to_owned(),
            ]
        };
        let ready = format!("http://{address}/-/ready");
        let server =
            Server::start("prometheus", &program, &configuration.to_string(), flags, &ready)
                .await?;
        let pods = Api::<Pod>::namespaced(client, namespace);
        let following = AbortOnDropHandle::new(tokio::spawn(follow(pods, file)));
        let address = format!("http://{address}");
        Ok(Self { _server: server, _following: following, _folder: folder, address })
    }

    /// Its address, which has a page.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What a query returns now: the labels of each series, and its value.
    pub async fn query(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let url = format!("{}/api/v1/query?query={query}", self.address);
        let mut answer: Value = http_client::get_json(&url).await?;
        let series: Vec<Value> = serde_json::from_value(answer["data"]["result"].take())
            .with_context(|| format!("{url} is not what is expected"))?;
        let value = |mut series: Value| {
            let value = series["value"][1].as_str().and_then(|value| value.parse().ok());
            Some((series["metric"].take(), value?))
        };
        Ok(series.into_iter().filter_map(value).collect())
    }
}

/// Keeps the file of targets as the pods are.
async fn follow(pods: Api<Pod>, file: PathBuf) {
    let ours = ListParams::default().labels("app.kubernetes.io/part-of=gastown-operator");
    let mut before = String::new();
    loop {
        // The API server may be away for a moment; the targets stay as they are then.
        if let Ok(pods) = pods.list(&ours).await {
            let text = targets(&pods.items).to_string();
            let new = file.with_extension("new");
            if text != before
                && std::fs::write(&new, &text).and_then(|()| std::fs::rename(&new, &file)).is_ok()
            {
                before = text;
            }
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

/// The admin servers of these pods. `job` is the controller.
fn targets(pods: &[Pod]) -> Value {
    let target = |pod: &Pod| {
        let containers = &pod.spec.as_ref()?.containers;
        let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
        let port = ports.find(|port| port.name.as_deref() == Some("admin"))?.container_port;
        let address = pod.status.as_ref()?.pod_ip.as_ref()?;
        let job = pod.labels().get("app.kubernetes.io/component")?;
        let labels = json!({"job": job, "pod": pod.name_any(), "namespace": pod.namespace()});
        Some(json!({"targets": [format!("{address}:{port}")], "labels": labels}))
    };
    pods.iter().filter_map(target).collect()
}

fn configuration(targets: &Path) -> Value {
    json!({
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "scrape_configs": [{
            "job_name": "gastown",
            "file_sd_configs": [{"files": [targets], "refresh_interval": INTERVAL}],
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_with_an_admin_server_and_an_address_are_targets() {
        let pod = |address: Value, port: &str| -> Pod {
            let labels = json!({"app.kubernetes.io/component": "rig-ctl"});
            let ports = json!([{"name": port, "containerPort": 8080}]);
            serde_json::from_value(json!({
                "metadata": {"name": "rig-ctl-1", "namespace": "system", "labels": labels},
                "spec": {"containers": [{"name": "rig-ctl", "ports": ports}]},
                "status": {"podIP": address},
            }))
            .unwrap()
        };
        let ready = pod(json!("198.18.0.7"), "admin");
        let others = [pod(json!(null), "admin"), pod(json!("198.18.0.8"), "grpc")];
        let labels = json!({"job": "rig-ctl", "pod": "rig-ctl-1", "namespace": "system"});
        let expected = json!([{"targets": ["198.18.0.7:8080"], "labels": labels}]);
        assert_eq!(targets(&[&others[..], &[ready]].concat()), expected);
    }
}
