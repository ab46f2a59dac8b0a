//! Prometheus, which scrapes the controllers' `/metrics`.

use std::path::Path;

use anyhow::{Context, Result};
use gastown_cluster::control_plane::free_port;
use gastown_cluster::{http_client, toolchain};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::server::Server;

/// How often the controllers are scraped.
const INTERVAL: &str = "2s";

/// A running Prometheus. It ends when it is dropped, and its metrics with it.
#[derive(Debug)]
pub struct Prometheus {
    _server: Server,
    address: String,
}

impl Prometheus {
    /// Starts it. It finds the controllers' pods in `namespace` of the cluster of this kubeconfig, and must
    /// run where their addresses are reached: on their node, which network policies let in.
    pub async fn start(kubeconfig: &Path, namespace: &str) -> Result<Self> {
        let program = toolchain::prometheus().await?.join("prometheus");
        let address = format!("127.0.0.1:{}", free_port()?);
        let configuration = configuration(kubeconfig, namespace);
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
        Ok(Self { _server: server, address: format!("http://{address}") })
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

/// One job: each pod of ours with the port of the admin server. `job` is the controller.
fn configuration(kubeconfig: &Path, namespace: &str) -> Value {
    let (component, part_of, port) = (
        "__meta_kubernetes_pod_label_app_kubernetes_io_component",
        "__meta_kubernetes_pod_label_app_kubernetes_io_part_of",
        "__meta_kubernetes_pod_container_port_name",
    );
    json!({
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "scrape_configs": [{
            "job_name": "gastown",
            "kubernetes_sd_configs": [{
                "role": "pod",
                "kubeconfig_file": kubeconfig,
                "namespaces": {"names": [namespace]},
            }],
            "relabel_configs": [
                {"source_labels": [part_of], "regex": "gastown-operator", "action": "keep"},
                {"source_labels": [port], "regex": "admin", "action": "keep"},
                {"source_labels": [component], "target_label": "job"},
                {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
                {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            ],
        }],
    })
}
