//! How replicas divide the rigs among them.

use anyhow::{Context as _, Result, ensure};
use gastown_runtime::lease::{self, Phases};
use gastown_runtime::metrics::Metrics;
use gastown_runtime::shards::{SHARDS, Shards};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use tokio::task::JoinHandle;

use crate::fixture::{fixture, until, within};

struct Replica {
    shards: Shards,
    phases: Phases,
    task: JoinHandle<Result<(), lease::Error>>,
}

impl Replica {
    fn start(client: &kube::Client, namespace: &str, identity: &str) -> Self {
        let config = lease::Config {
            namespace: namespace.to_owned(),
            controller: "test-ctl".to_owned(),
            identity: identity.to_owned(),
            address: Some([127, 0, 0, 1].into()),
        };
        let phases = Phases::default();
        phases.ready.cancel();
        let (shards, task) =
            lease::spawn(client.clone(), &config, &Metrics::default(), phases.clone());
        Self { shards, phases, task }
    }

    fn held(&self) -> usize {
        (0..SHARDS).filter(|shard| self.shards.term(*shard).is_some()).count()
    }

    async fn end(self) -> Result<()> {
        self.phases.drain.cancel();
        self.phases.ended.cancel();
        within("the replica's end", self.task).await???;
        Ok(())
    }
}

async fn shares(replicas: &[&Replica], wanted: &[usize]) -> Result<()> {
    let what = format!("shares of {wanted:?}");
    until(&what, || {
        let mut held: Vec<usize> = replicas.iter().map(|replica| replica.held()).collect();
        held.sort_unstable();
        (held == wanted).then_some(())
    })
    .await
}

#[tokio::test]
async fn shards_follow_the_replicas_that_there_are() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let a = Replica::start(&client, &namespace, "a");
    shares(&[&a], &[16]).await?;
    let b = Replica::start(&client, &namespace, "b");
    let c = Replica::start(&client, &namespace, "c");
    shares(&[&a, &b, &c], &[5, 5, 6]).await?;
    for rig in ["web", "demo", "other"] {
        let here = [&a, &b, &c].iter().filter(|r| r.shards.serves(rig)).count();
        ensure!(here == 1, "{rig}: {here}");
        let elsewhere = [&a, &b, &c].iter().filter(|r| r.shards.other(rig).1.is_some()).count();
        ensure!(elsewhere == 2, "the others know where {rig} is worked for: {elsewhere}");
    }
    // Work that runs ends before its shard is handed over.
    let work = a.shards.enter(rig_of(&a)).context("a rig of a")?;
    a.phases.drain.cancel();
    shares(&[&a, &b, &c], &[1, 7, 8]).await?;
    drop(work);
    shares(&[&a, &b, &c], &[0, 8, 8]).await?;
    a.end().await?;
    b.end().await?;
    shares(&[&c], &[16]).await?;

    // It moves to the first rank, which the others have handed over.
    let leases = Api::<Lease>::namespaced(client.clone(), &namespace);
    let params = ListParams::default().labels("gastown.io/replicas-of=test-ctl");
    let one_rank = async {
        loop {
            let holders = leases.list(&params).await?.items.into_iter().filter_map(|lease| {
                let name = lease.metadata.name?;
                Some((name, lease.spec?.holder_identity?))
            });
            let holders: Vec<_> = holders.collect();
            if let [(name, holder)] = &holders[..] {
                ensure!(name == "gastown-test-ctl" && holder.starts_with("c_"), "{holders:?}");
                return anyhow::Ok(());
            }
            tokio::task::yield_now().await;
        }
    };
    within("one rank", one_rank).await??;
    c.end().await
}

/// A rig of which this replica is the one that works for it.
fn rig_of(replica: &Replica) -> &'static str {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"];
    names.into_iter().find(|rig| replica.shards.serves(rig)).unwrap_or_default()
}

#[tokio::test]
async fn a_lease_that_is_deleted_is_made_again() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let a = Replica::start(&client, &namespace, "a");
    shares(&[&a], &[16]).await?;
    let leases = Api::<Lease>::namespaced(client.clone(), &namespace);
    for name in ["gastown-test-ctl", "gastown-test-ctl-shards"] {
        let before = leases.get(name).await?.metadata.uid;
        leases.delete(name, &kube::api::DeleteParams::default()).await?;
        let again = async {
            while leases.get_opt(name).await?.is_none_or(|lease| lease.metadata.uid == before) {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        };
        within("the Lease", again).await??;
        shares(&[&a], &[16]).await?;
    }
    a.end().await
}

#[tokio::test]
async fn a_lease_without_its_label_is_found_by_its_name() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let a = Replica::start(&client, &namespace, "a");
    shares(&[&a], &[16]).await?;
    let leases = Api::<Lease>::namespaced(client.clone(), &namespace);
    let label = "gastown.io/replicas-of";
    for name in ["gastown-test-ctl-shards", "gastown-test-ctl"] {
        let patch = serde_json::json!({"metadata": {"labels": {label: null}}});
        leases.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        let again = async {
            while !leases.get(name).await?.metadata.labels.unwrap_or_default().contains_key(label) {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        };
        within("the label", again).await??;
        shares(&[&a], &[16]).await?;
    }
    a.end().await
}

#[tokio::test]
async fn a_replica_of_an_older_version_is_waited_for() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let leases = Api::<Lease>::namespaced(client.clone(), &namespace);
    let mut old = Lease::default();
    old.metadata.name = Some("gastown-test-ctl".to_owned());
    let spec = old.spec.get_or_insert_default();
    spec.holder_identity = Some("old".to_owned());
    let mut old = leases.create(&PostParams::default(), &old).await?;
    let a = Replica::start(&client, &namespace, "a");
    let rank = "gastown-test-ctl-1";
    let waits = async {
        while leases.get_opt(rank).await?.is_none() {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    within("another rank", waits).await??;
    until("a knowing who works", || {
        (a.shards.other("web").0.as_deref() == Some("old")).then_some(())
    })
    .await?;
    ensure!(a.held() == 0);
    old.spec.get_or_insert_default().holder_identity = None;
    leases.replace("gastown-test-ctl", &PostParams::default(), &old).await?;
    shares(&[&a], &[16]).await?;
    a.end().await
}
