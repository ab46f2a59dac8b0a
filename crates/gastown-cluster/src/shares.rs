//! How the replicas of a controller have divided the rigs among them, as their Lease shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use gastown_api::names::annotation;
use gastown_api::rbac::Controller;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};

use crate::install::{SYSTEM, until};

/// The shards of each replica, by its name in its Lease.
pub type Shares = BTreeMap<String, Vec<usize>>;

/// Whether so many replicas have about as much as each other.
pub fn is_even(shares: &Shares, replicas: u8) -> bool {
    let least = shares.values().map(Vec::len).min().unwrap_or_default();
    let most = shares.values().map(Vec::len).max().unwrap_or_default();
    shares.len() == usize::from(replicas) && most - least <= 1
}

/// How a controller's shards are divided, once none is without a replica and it is a `wanted` way. An error
/// after `limit`.
pub async fn of(
    client: Client,
    controller: Controller,
    limit: Duration,
    wanted: impl Fn(&Shares) -> bool,
) -> Result<Shares> {
    let leases = Api::<Lease>::namespaced(client, SYSTEM);
    let name = format!("gastown-{}-shards", controller.name());
    until(limit, &leases, &name, "the wanted shares", |lease: Option<&Lease>| {
        let text = lease?.metadata.annotations.as_ref()?.get(annotation::SHARDS)?;
        let shares: Shares = serde_json::from_str(text).ok()?;
        (!shares.contains_key("") && wanted(&shares)).then_some(shares)
    })
    .await
}
