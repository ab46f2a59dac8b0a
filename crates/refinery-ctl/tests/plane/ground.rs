//! What the tests stand on: a plane, the controller, and for each test a rig with a repository of
//! its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use gastown_api::{
    Escalation, MergeRequest, MergeRequestSpec, Polecat, PolecatReference, Refinery, RefinerySpec,
    Rig, rbac,
};
use gastown_cluster::control_plane::ControlPlane;
pub use gastown_cluster::install::SYSTEM as NAMESPACE;
pub use gastown_cluster::install::until;
use gastown_cluster::install::{self, Hosted};
use gastown_fakes::kubelet::{Exit, Outcome, TestKubelet};
use gastown_fakes::repository;
use gastown_runtime::lease::Leadership;
use gastown_runtime::metrics::Metrics;
use gastown_runtime::{Runtime, RuntimeArgs, client, grpc};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use refinery_ctl::RefineryArgs;
use serde_json::json;

/// Nothing here takes longer on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const ACCOUNT: &str = "refinery-ctl";

/// A controller at work.
pub struct Controller {
    pub runtime: Runtime,
    pub grpc: u16,
    pub git: u16,
    pub tls: PathBuf,
    work: tokio::task::JoinHandle<anyhow::Result<()>>,
    _dir: tempfile::TempDir,
}

impl Controller {
    /// Ends it as a rollout does.
    pub async fn stop(self) {
        self.runtime.shutdown();
        let _ = self.work.await;
    }

    pub async fn start(plane: &ControlPlane) -> Result<Self> {
        Self::beside(plane, false).await
    }

    /// Starts it, and witness-ctl beside it if there is to be one.
    pub async fn beside(plane: &ControlPlane, witness: bool) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let tls = dir.path().join("tls");
        std::fs::create_dir(&tls)?;
        install::certificates(&tls)?;
        let metrics = Metrics::default();
        let client = client::with_config(
            install::config(plane, rbac::Controller::Refinery),
            ACCOUNT,
            &metrics,
        )?;
        let token_file = dir.path().join("token");
        let args = RuntimeArgs {
            namespace: NAMESPACE.into(),
            tls_dir: tls.clone(),
            token_file,
            ..RuntimeArgs::from_env()?
        };
        let witness = if witness { Some(start_witness(plane, &args).await?) } else { None };
        let runtime = Runtime::new(ACCOUNT, client, args, metrics, Leadership::always(ACCOUNT));
        let calls = grpc::listen("127.0.0.1:0".parse()?).await?;
        let pages = grpc::listen("127.0.0.1:0".parse()?).await?;
        let (grpc_port, git_port) = (calls.local_addr()?.port(), pages.local_addr()?.port());
        let own = RefineryArgs {
            agent_image: "agent:test".into(),
            agent_pull_policy: "IfNotPresent".into(),
            git_endpoint: format!("https://localhost:{git_port}"),
            git_addr: "127.0.0.1:0".parse()?,
            witness_endpoint: witness,
            data_dir: dir.path().join("data"),
            gate_seconds: 600,
        };
        let started = runtime.clone();
        let work = tokio::spawn(async move {
            let ended = Box::pin(refinery_ctl::serve(started, own, calls, pages)).await;
            if let Err(error) = &ended {
                eprintln!("the controller ended: {error:#}");
            }
            ended
        });
        runtime.readiness.ready().await;
        Ok(Self { runtime, grpc: grpc_port, git: git_port, tls, work, _dir: dir })
    }
}

/// Starts the real witness-ctl with the same certificates; where it is.
async fn start_witness(plane: &ControlPlane, args: &RuntimeArgs) -> Result<String> {
    install::install(plane, rbac::Controller::Witness, &[]).await?;
    std::fs::write(
        &args.token_file,
        install::token(&plane.client()?, NAMESPACE, ACCOUNT, None).await?,
    )?;
    let metrics = Metrics::default();
    let client = client::with_config(
        install::config(plane, rbac::Controller::Witness),
        "witness-ctl",
        &metrics,
    )?;
    let runtime = Runtime::new(
        "witness-ctl",
        client,
        args.clone(),
        metrics,
        Leadership::always("witness-ctl"),
    );
    let listener = grpc::listen("127.0.0.1:0".parse()?).await?;
    let port = listener.local_addr()?.port();
    let started = runtime.clone();
    tokio::spawn(async move {
        if let Err(error) = Box::pin(witness_ctl::serve(started, listener)).await {
            eprintln!("witness-ctl ended: {error:#}");
        }
    });
    runtime.readiness.ready().await;
    Ok(format!("https://localhost:{port}"))
}

/// Where the shared controller listens, and its certificates.
#[derive(Clone, Debug)]
pub struct Shared {
    pub grpc: u16,
    pub git: u16,
    pub tls: PathBuf,
}

static CONTROLLER: Hosted<Shared> = Hosted::new();

/// What the chart makes for refinery-ctl.
pub async fn install(plane: &ControlPlane) -> Result<()> {
    install::install(plane, rbac::Controller::Refinery, &["polecat-ctl", "rig-ctl", ACCOUNT]).await
}

/// The controller of this test program.
pub async fn shared() -> Result<(&'static ControlPlane, Shared)> {
    let serve = async || {
        let plane = ControlPlane::shared().await?;
        install(plane).await?;
        let started = Controller::beside(plane, true).await?;
        let shared = Shared { grpc: started.grpc, git: started.git, tls: started.tls.clone() };
        Ok((shared, started))
    };
    let shared = install::hosted(&CONTROLLER, serve).await?;
    Ok((ControlPlane::shared().await?, shared))
}

/// A rig with a repository, a Refinery and a namespace of its own.
pub struct Town {
    pub client: Client,
    pub namespace: String,
    pub rig: String,
    pub kubelet: TestKubelet,
    pub dir: tempfile::TempDir,
}

static TOWNS: AtomicU32 = AtomicU32::new(0);

impl Town {
    /// A town whose Refinery has a gate, on the shared controller.
    pub async fn new() -> Result<Self> {
        let (plane, _) = shared().await?;
        let town = Self::on(plane).await?;
        town.refinery(Some("run the tests")).await?;
        Ok(town)
    }

    /// A town without a Refinery.
    pub async fn on(plane: &ControlPlane) -> Result<Self> {
        let (client, namespace) = (plane.client()?, plane.namespace().await?);
        let rig = format!("rig-{}", TOWNS.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::tempdir()?;
        let town = Self { kubelet: TestKubelet::new(client.clone()), client, namespace, rig, dir };
        repository::make(&town.remote(), &town.work())?;
        town.commit("root", &[("file", "1\n2\n3\n")]);
        town.push("main");
        let spec =
            json!({"gitURL": format!("file://{}", town.remote().display()), "beadsPrefix": "bl"});
        let rig = Rig::new(&town.rig, serde_json::from_value(spec)?);
        Api::all(town.client.clone()).create(&PostParams::default(), &rig).await?;
        Ok(town)
    }

    pub fn remote(&self) -> PathBuf {
        self.dir.path().join("remote.git")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub async fn refinery(&self, gate: Option<&str>) -> Result<Refinery> {
        let spec = RefinerySpec {
            test_command: gate.map(str::to_owned),
            ..RefinerySpec::of_rig(&self.rig)
        };
        self.refinery_with("refinery", spec).await
    }

    pub async fn refinery_with(&self, name: &str, spec: RefinerySpec) -> Result<Refinery> {
        Ok(self.refineries().create(&PostParams::default(), &Refinery::new(name, spec)).await?)
    }

    pub fn refineries(&self) -> Api<Refinery> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn requests(&self) -> Api<MergeRequest> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn polecat(&self, name: &str) -> Result<Polecat> {
        let polecat = Polecat::new(
            name,
            serde_json::from_value(json!({"rig": self.rig, "desiredState": "Working"}))?,
        );
        let api = Api::<Polecat>::namespaced(self.client.clone(), &self.namespace);
        Ok(api.create(&PostParams::default(), &polecat).await?)
    }

    /// Writes files and commits them on the current branch.
    pub fn commit(&self, message: &str, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            std::fs::write(self.work().join(path), text).unwrap();
        }
        git(&self.work(), &["add", "-A"]);
        git(&self.work(), &["commit", "-q", "-m", message]);
        git(&self.work(), &["rev-parse", "HEAD"])
    }

    pub fn checkout(&self, branch: &str, from: &str) {
        git(&self.work(), &["checkout", "-q", "-B", branch, from]);
    }

    pub fn push(&self, branch: &str) {
        git(&self.work(), &["push", "-q", "origin", branch]);
    }

    /// A branch off the first commit that changes one file.
    pub fn branch(&self, name: &str, file: &str, text: &str) -> String {
        self.checkout(name, "main~0");
        let commit = self.commit(&format!("work on {name}"), &[(file, text)]);
        self.push(name);
        git(&self.work(), &["checkout", "-q", "main"]);
        commit
    }

    pub fn remote_head(&self, branch: &str) -> Option<String> {
        repository::head(&self.remote(), branch)
    }

    /// A request for `commit` of `branch`, of a Polecat when one is given.
    pub async fn ask(
        &self,
        name: &str,
        branch: &str,
        commit: &str,
        polecat: Option<&Polecat>,
    ) -> Result<MergeRequest> {
        let spec = MergeRequestSpec {
            rig_ref: self.rig.clone(),
            source_branch: branch.into(),
            commit: commit.into(),
            target_branch: "main".into(),
            polecat_ref: polecat
                .map(|p| PolecatReference { name: p.name_any(), uid: p.uid().unwrap_or_default() }),
            attempt: 1,
            previous: None,
            bead_id: None,
            priority: 2,
            hold: false,
            retry: 0,
            rejected: None,
        };
        Ok(self.requests().create(&PostParams::default(), &MergeRequest::new(name, spec)).await?)
    }

    /// The pod that tests this request's candidate, whose Job is not in `but`.
    pub async fn gate(&self, but: &[String]) -> Result<Pod> {
        let fresh = |p: &Pod| {
            p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Pending")
                && !but.contains(&p.name_any())
        };
        self.kubelet.wait_pod(&self.namespace, fresh).await
    }

    /// Has the gate end with a code and some output.
    pub async fn gate_ends(&self, pod: &Pod, code: i32, said: &str) -> Result<()> {
        let pod = self.kubelet.running(pod).await?;
        self.kubelet
            .finish(
                &pod,
                &Outcome::new().with("fetch", Exit::new(0, "")).with("gate", Exit::new(code, said)),
            )
            .await?;
        Ok(())
    }

    /// Has the gate be red on a request twice, and end with `alone` on the target alone.
    pub async fn red(&self, pod: &Pod, said: &str, alone: i32) -> Result<Pod> {
        self.gate_ends(pod, 1, said).await?;
        let again = self.gate(&[pod.name_any()]).await?;
        self.gate_ends(&again, 1, said).await?;
        let target = self.gate(&[pod.name_any(), again.name_any()]).await?;
        self.gate_ends(&target, alone, "the target's own words").await?;
        Ok(target)
    }

    /// The open or closed Escalation of a cause, when `want` is true of it.
    pub async fn escalation(
        &self,
        cause: &str,
        want: impl Fn(&Escalation) -> bool,
    ) -> Result<Escalation> {
        let api = Api::<Escalation>::namespaced(self.client.clone(), &self.namespace);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let all = api.list(&ListParams::default()).await?.items;
            if let Some(found) = all.iter().find(|e| e.spec.cause == cause && want(e)) {
                return Ok(found.clone());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("the Escalation of {cause} did not come; there is {all:#?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a request is in a phase.
    pub async fn phase(&self, name: &str, phase: &str) -> Result<MergeRequest> {
        until(PATIENCE, &self.requests(), name, phase, |m| {
            let now = format!("{:?}", m?.status.as_ref()?.phase?);
            (now == phase).then(|| m.cloned()).flatten()
        })
        .await
    }

    /// Waits until no gate's Job is there.
    pub async fn no_jobs(&self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let jobs = self.jobs().list(&ListParams::default()).await?;
            if jobs.items.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!(
                    "Jobs stay: {:?}",
                    jobs.items.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub fn git(dir: &Path, args: &[&str]) -> String {
    repository::git(dir, args).unwrap()
}
