//! The load: polecats and their convoys are created, their pods end, and they are deleted.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use gastown_api::{Convoy, ConvoySpec, DesiredState, KubernetesSpec, Polecat, PolecatSpec};
use gastown_fakes::kubelet::{Exit, Outcome, TestKubelet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};

use super::super::store;
use super::observe::{Board, LivePod, Observer};

/// How many requests the bench has under way at a time.
const PARALLEL: usize = 32;
/// What `gt init` reports when all is well.
const INIT: &str = include_str!("../../../../gastown-agent/tests/golden/init-ready.json");
/// What `gt sync` reports when nothing was committed.
const SYNC: &str = include_str!("../../../../gastown-agent/tests/golden/sync-no-changes.json");
/// What `gt run` reports when the agent has finished.
const RUN: &str = include_str!("../../../../gastown-agent/tests/golden/run-claude-completed.json");

/// Rigs by name, with the URL of the repository of each.
pub type Rigs = Vec<(String, String)>;

/// Makes lives, one crowd of them after another.
pub struct Lives<'a> {
    client: Client,
    namespace: String,
    rigs: &'a Rigs,
    convoys: bool,
    kubelet: TestKubelet,
    observer: &'a Observer,
    /// How many crowds there were: a name is used once.
    crowd: u32,
    /// The names of those that exist, the oldest first.
    present: Vec<String>,
    /// How many were created of this crowd.
    created: usize,
}

impl<'a> Lives<'a> {
    /// Makes lives of these rigs.
    pub fn new(
        client: &Client,
        namespace: &str,
        rigs: &'a Rigs,
        convoys: bool,
        observer: &'a Observer,
    ) -> Self {
        Self {
            client: client.clone(),
            namespace: namespace.to_owned(),
            rigs,
            convoys,
            kubelet: TestKubelet::new(client.clone()),
            observer,
            crowd: 0,
            present: Vec::new(),
            created: 0,
        }
    }

    /// How many exist.
    pub fn present(&self) -> usize {
        self.present.len()
    }

    /// Creates a crowd at once: as fast as one client can.
    pub async fn burst(&mut self, count: usize) -> Result<()> {
        self.begin(count);
        let this = &*self;
        let all = stream::iter(0..count).map(|n| this.create(n));
        all.buffer_unordered(PARALLEL).try_collect().await
    }

    /// Creates a crowd one after the other, `rate` a second, however long each takes.
    pub async fn paced(&mut self, count: usize, rate: f64) -> Result<()> {
        self.begin(count);
        let this = &*self;
        let every = Duration::from_secs_f64(1.0 / rate);
        let begun = tokio::time::Instant::now();
        let all = stream::iter(0..count).map(|n| async move {
            tokio::time::sleep_until(begun + every.mul_f64(n as f64)).await;
            this.create(n).await
        });
        all.buffer_unordered(count.max(1)).try_collect().await
    }

    fn begin(&mut self, count: usize) {
        self.observer.board().begin();
        self.crowd += 1;
        self.present = (0..count).map(|n| self.name(n)).collect();
        self.created = count;
    }

    /// The oldest ones that exist.
    pub fn oldest(&self, count: usize) -> Vec<String> {
        self.present.iter().take(count).cloned().collect()
    }

    /// Has as many others follow the oldest ones, which are deleted: each in the rig and for the bead of the
    /// one that it follows.
    pub async fn follow(&mut self, count: usize) -> Result<()> {
        let count = count.min(self.present.len());
        let gone: Vec<String> = self.present.drain(..count).collect();
        let numbers = self.created..self.created + count;
        self.created = numbers.end;
        let names: Vec<String> = numbers.clone().map(|n| self.name(n)).collect();
        self.present.extend(names);
        let this = &*self;
        let deleted = stream::iter(gone).map(|name| async move { this.delete_one(&name).await });
        deleted.buffer_unordered(PARALLEL).try_collect::<()>().await?;
        let all = stream::iter(numbers).map(|n| this.create(n));
        all.buffer_unordered(PARALLEL).try_collect().await
    }

    /// The name of the n-th of a crowd.
    fn name(&self, n: usize) -> String {
        format!("p{}-{n}", self.crowd)
    }

    async fn create(&self, n: usize) -> Result<()> {
        let name = &self.name(n);
        // Those that follow others have their places.
        let place = n % self.present.len().max(1);
        let (rig, url) = self.rigs.get(place % self.rigs.len()).context("no rig")?;
        let bead = bead(place / self.rigs.len());
        let polecat = Polecat::new(name, life(rig, url, &bead));
        self.observer.board().creating(name);
        let api: Api<Polecat> = Api::namespaced(self.client.clone(), &self.namespace);
        api.create(&PostParams::default(), &polecat).await.context("creating a polecat")?;
        if self.convoys {
            let spec = ConvoySpec {
                description: format!("What {name} does"),
                tracked_beads: vec![bead],
                rig_ref: Some(rig.clone()),
                ..ConvoySpec::default()
            };
            let api: Api<Convoy> = Api::namespaced(self.client.clone(), &self.namespace);
            api.create(&PostParams::default(), &Convoy::new(name, spec))
                .await
                .context("creating a convoy")?;
        }
        Ok(())
    }

    /// Ends all live pods, evenly over this time; each as if its agent had finished without a commit.
    pub async fn end(&self, spread: Duration) -> Result<()> {
        let pods = self.observer.board().live.values().cloned().collect();
        self.end_pods(pods, spread).await
    }

    /// Ends the pods of these polecats at once.
    pub async fn end_of(&self, names: &[String]) -> Result<()> {
        let live =
            |board: &Board| names.iter().filter_map(|n| board.live.get(n).cloned()).collect();
        let pods: Vec<LivePod> = live(&self.observer.board());
        self.end_pods(pods, Duration::ZERO).await
    }

    async fn end_pods(&self, pods: Vec<LivePod>, spread: Duration) -> Result<()> {
        let sample = self.observer.board().sample.clone().context("no pod was seen running")?;
        let every = spread.div_f64(pods.len().max(1) as f64);
        let parallel = if every.is_zero() { PARALLEL } else { pods.len().max(1) };
        let (begun, sample) = (tokio::time::Instant::now(), &sample);
        let all = stream::iter(pods.into_iter().enumerate()).map(|(n, pod)| async move {
            tokio::time::sleep_until(begun + every.mul_f64(n as f64)).await;
            self.kubelet.finish(&of_sample(sample, pod), &finished()).await
        });
        all.buffer_unordered(parallel).try_for_each(|_| std::future::ready(Ok(()))).await
    }

    /// Deletes all that exist, and their convoys; they are gone later.
    pub async fn delete(&mut self) -> Result<()> {
        let names = std::mem::take(&mut self.present);
        let this = &*self;
        let all = stream::iter(names).map(|name| async move { this.delete_one(&name).await });
        all.buffer_unordered(PARALLEL).try_collect().await
    }

    async fn delete_one(&self, name: &str) -> Result<()> {
        let params = DeleteParams::default();
        let api: Api<Polecat> = Api::namespaced(self.client.clone(), &self.namespace);
        api.delete(name, &params).await.context("deleting a polecat")?;
        if self.convoys {
            let api: Api<Convoy> = Api::namespaced(self.client.clone(), &self.namespace);
            api.delete(name, &params).await.context("deleting a convoy")?;
        }
        Ok(())
    }
}

/// The bead of the n-th polecat of a rig: one that is open, and that no other waits for.
fn bead(n: usize) -> String {
    store::id(n * store::FREE)
}

/// How many beads the store of a rig has for this many polecats.
pub fn beads(polecats: usize) -> usize {
    polecats * store::FREE
}

/// A life that may end without a commit, so that nothing has to land.
fn life(rig: &str, url: &str, bead: &str) -> PolecatSpec {
    PolecatSpec {
        desired_state: DesiredState::Working,
        bead_id: Some(bead.to_owned()),
        task_description: Some("Look whether the page still answers, and report.".to_owned()),
        kubernetes: Some(KubernetesSpec::of_repository(url)),
        expect_changes: false,
        ..PolecatSpec::of_rig(rig)
    }
}

fn finished() -> Outcome {
    Outcome::polecat(Exit::new(0, INIT), Exit::new(0, SYNC), Exit::new(0, RUN))
}

/// This pod, with the containers of the sample.
fn of_sample(sample: &Pod, pod: LivePod) -> Pod {
    let mut of = Pod { spec: sample.spec.clone(), ..Pod::default() };
    of.metadata.namespace.clone_from(&sample.metadata.namespace);
    (of.metadata.name, of.metadata.uid) = (Some(pod.name), Some(pod.uid));
    of
}
