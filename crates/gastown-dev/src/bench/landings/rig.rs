//! A rig of the bench: its repository, its Refinery, and landings in it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gastown_api::{MergePhase, MergeRequest, MergeRequestSpec, Refinery, RefinerySpec, Rig};
use gastown_cluster::control_plane::ControlPlane;
use gastown_fakes::kubelet::{Exit, Outcome, TestKubelet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::repository;

/// How long one landing may take.
const LIMIT: Duration = Duration::from_mins(15);

/// A rig in a namespace of its own.
pub struct BenchRig {
    pub name: String,
    pub namespace: String,
    pub client: Client,
    pub repository: PathBuf,
    kubelet: TestKubelet,
    ended: RefCell<BTreeSet<String>>,
}

/// How a request ended.
#[derive(Debug)]
pub struct Ended {
    pub phase: MergePhase,
    pub reason: String,
    pub after: Duration,
}

impl BenchRig {
    /// Creates a rig of this name and its Refinery with a gate.
    pub async fn create(
        plane: &ControlPlane,
        name: &str,
        url: &str,
        repository: PathBuf,
    ) -> Result<Self> {
        let (client, namespace) = (plane.client()?, plane.namespace().await?);
        let spec = json!({"gitURL": url, "beadsPrefix": "gt"});
        Api::all(client.clone())
            .create(&PostParams::default(), &Rig::new(name, serde_json::from_value(spec)?))
            .await?;
        let spec = RefinerySpec {
            test_command: Some("make test".to_owned()),
            ..RefinerySpec::of_rig(name)
        };
        Api::namespaced(client.clone(), &namespace)
            .create(&PostParams::default(), &Refinery::new("refinery", spec))
            .await?;
        let kubelet = TestKubelet::new(client.clone());
        let ended = RefCell::default();
        Ok(Self { name: name.to_owned(), namespace, client, repository, kubelet, ended })
    }

    fn requests(&self) -> Api<MergeRequest> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a request for a branch of the repository.
    pub async fn submit(&self, branch: &str) -> Result<()> {
        let commit = repository::commit_of(&self.repository, branch)?;
        self.submit_commit(branch, &commit).await
    }

    /// Creates a request for a commit.
    pub async fn submit_commit(&self, branch: &str, commit: &str) -> Result<()> {
        let spec: MergeRequestSpec = serde_json::from_value(json!({
            "rigRef": self.name, "sourceBranch": branch, "commit": commit, "targetBranch": "main",
        }))?;
        let request = MergeRequest::new(branch, spec);
        self.requests().create(&PostParams::default(), &request).await?;
        Ok(())
    }

    /// The pod of the next gate, as soon as it is there.
    pub async fn gate(&self) -> Result<Pod> {
        let ended = self.ended.borrow().clone();
        let is_new = |pod: &Pod| !ended.contains(&pod.name_any());
        let pod = self.kubelet.wait_pod(&self.namespace, is_new).await?;
        self.ended.borrow_mut().insert(pod.name_any());
        Ok(pod)
    }

    /// The gate in this pod passes.
    pub async fn pass(&self, pod: &Pod) -> Result<()> {
        let pod = self.kubelet.running(pod).await?;
        let passed =
            Outcome::new().with("fetch", Exit::new(0, "")).with("gate", Exit::new(0, "passed"));
        self.kubelet.finish(&pod, &passed).await?;
        Ok(())
    }

    /// Creates a request for a branch and waits until it has landed; its gates pass at once.
    pub async fn land(&self, branch: &str) -> Result<Duration> {
        match self.run(branch).await? {
            Ended { phase: MergePhase::Landed, after, .. } => Ok(after),
            ended => bail!("{}/{branch} did not land: {ended:?}", self.name),
        }
    }

    /// Creates a request for a branch and waits until it has ended; its gates pass at once.
    pub async fn run(&self, branch: &str) -> Result<Ended> {
        let begun = Instant::now();
        self.submit(branch).await?;
        let ended = tokio::time::timeout(
            LIMIT,
            Box::pin(async {
                let mut end = Box::pin(self.end(branch));
                loop {
                    tokio::select! {
                        end = &mut end => return end,
                        // A large candidate is built for longer than a pod is waited for.
                        pod = Box::pin(self.gate()) => if let Ok(pod) = pod { self.pass(&pod).await? },
                    }
                }
            }),
        );
        let ended = ended.await.with_context(|| format!("{}/{branch} has not ended", self.name))?;
        let (phase, reason) = ended?;
        Ok(Ended { phase, reason, after: begun.elapsed() })
    }

    /// Waits until a request waits for nothing any more.
    async fn end(&self, name: &str) -> Result<(MergePhase, String)> {
        let end = |request: Option<&MergeRequest>| {
            let status = request?.status.clone()?;
            let phase = status.phase?;
            let is_over = phase != MergePhase::Queued && phase != MergePhase::Testing;
            let evidence = status.attempts.last().and_then(|attempt| attempt.evidence.as_deref());
            let why = [status.reason.as_deref(), evidence].into_iter().flatten();
            is_over.then(|| (phase, why.collect::<Vec<_>>().join(": ")))
        };
        let request =
            await_condition(self.requests(), name, |r: Option<&MergeRequest>| end(r).is_some());
        end(request.await?.as_ref()).context("the request has gone")
    }
}
