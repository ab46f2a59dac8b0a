//! What unit tests of this crate share: a runtime whose API server never answers.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;

use crate::args::RuntimeArgs;
use crate::metrics::Metrics;
use crate::runtime::Runtime;
use crate::shards::Shards;

pub(crate) fn runtime(shards: Shards, metrics: Metrics) -> Runtime {
    let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
    });
    with_client(Client::new(silent, "default"), shards, metrics)
}

pub(crate) fn with_client(client: Client, shards: Shards, metrics: Metrics) -> Runtime {
    Runtime::new("test", client, args(), metrics, shards)
}

pub(crate) fn args() -> RuntimeArgs {
    RuntimeArgs::from_env().unwrap()
}

pub(crate) fn config_map(name: &str, generation: i64) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.metadata.namespace = Some("ns".to_owned());
    map.metadata.uid = Some(format!("uid-{name}"));
    map.metadata.generation = Some(generation);
    map
}
