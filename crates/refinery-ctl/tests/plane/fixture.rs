//! What every test needs: a control plane, the controller, and a rig with a repository of its own.

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
use gastown_runtime::network::NetworkArgs;
use gastown_runtime::{Runtime, RuntimeArgs, grpc};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use refinery_ctl::RefineryArgs;
use serde_json::json;

/// The timeout of every wait; far longer than any of them takes.
pub const TIMEOUT: Duration = Duration::from_secs(90);
pub const ACCOUNT: &str = "refinery-ctl";

/// A running controller.
pub struct Controller {
    pub runtime: Runtime,
    pub grpc: u16,
    pub git: u16,
    pub tls: PathBuf,
    work: tokio::task::JoinHandle<anyhow::Result<()>>,
    _dir: tempfile::TempDir,
}

impl Controller {
    /// Stops it as a rollout does.
    pub async fn stop(self) {
        self.runtime.shutdown();
        let _ = self.work.await;
    }

    pub async fn start(plane: &ControlPlane) -> Result<Self> {
        Self::start_with(plane, false).await
    }

    /// Starts it, and witness-ctl before it when `witness` is set.
    pub async fn start_with(plane: &ControlPlane, witness: bool) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let tls = dir.path().join("tls");
        std::fs::create_dir(&tls)?;
        install::certificates(&tls)?;
        let config = install::config(plane, rbac::Controller::Refinery);
        let token_file = dir.path().join("token");
        let args = RuntimeArgs {
            namespace: NAMESPACE.into(),
            tls_dir: tls.clone(),
            token_file,
            ..RuntimeArgs::from_env()?
        };
        let witness = if witness { Some(start_witness(plane, &args).await?) } else { None };
        let runtime = Runtime::leading(ACCOUNT, config, args)?;
        let grpc_listener = grpc::listen("127.0.0.1:0".parse()?).await?;
        let git_listener = grpc::listen("127.0.0.1:0".parse()?).await?;
        let (grpc_port, git_port) =
            (grpc_listener.local_addr()?.port(), git_listener.local_addr()?.port());
        let own = RefineryArgs {
            witness_endpoint: witness,
            ..own_args(&dir.path().join("data"), git_port)
        };
        let started = runtime.clone();
        let work = tokio::spawn(async move {
            let ended =
                Box::pin(refinery_ctl::serve(started, own, grpc_listener, git_listener)).await;
            if let Err(error) = &ended {
                eprintln!("the controller ended: {error:#}");
            }
            ended
        });
        runtime.readiness.ready().await;
        Ok(Self { runtime, grpc: grpc_port, git: git_port, tls, work, _dir: dir })
    }
}

/// The arguments of a controller whose git server has this port.
pub fn own_args(data_dir: &Path, git_port: u16) -> RefineryArgs {
    RefineryArgs {
        agent_image: "agent:test".into(),
        agent_image_file: None,
        agent_pull_policy: "IfNotPresent".into(),
        git_endpoint: format!("https://localhost:{git_port}"),
        git_addr: ([127, 0, 0, 1], 0).into(),
        witness_endpoint: None,
        data_dir: data_dir.to_owned(),
        gate_seconds: 600,
        git_memory_mib: 512,
        build_memory_mib: 512,
        build_seconds: 600,
        platform_ids: false,
        builder: Some(env!("CARGO_BIN_EXE_refinery-ctl").into()),
        proxy: gastown_runtime::proxy::ProxyArgs::default(),
        network: NetworkArgs { network_policies: true, ..NetworkArgs::default() },
    }
}

/// Starts the real witness-ctl with the same certificates and returns its URL.
async fn start_witness(plane: &ControlPlane, args: &RuntimeArgs) -> Result<String> {
    install::install(plane, rbac::Controller::Witness, &[]).await?;
    std::fs::write(
        &args.token_file,
        install::token(&plane.client()?, NAMESPACE, ACCOUNT, None).await?,
    )?;
    let config = install::config(plane, rbac::Controller::Witness);
    let runtime = Runtime::leading("witness-ctl", config, args.clone())?;
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

/// The ports and the certificates of the shared controller.
#[derive(Clone, Debug)]
pub struct Shared {
    pub grpc: u16,
    pub git: u16,
    pub tls: PathBuf,
}

static CONTROLLER: Hosted<Shared> = Hosted::new();

/// Installs what the chart creates for refinery-ctl.
pub async fn install(plane: &ControlPlane) -> Result<()> {
    install::install(plane, rbac::Controller::Refinery, &["polecat-ctl", "rig-ctl", ACCOUNT]).await
}

/// The control plane and the controller that the tests of this program share.
pub async fn shared() -> Result<(&'static ControlPlane, Shared)> {
    let serve = async || {
        let plane = ControlPlane::shared().await?;
        install(plane).await?;
        let started = Controller::start_with(plane, true).await?;
        let shared = Shared { grpc: started.grpc, git: started.git, tls: started.tls.clone() };
        Ok((shared, started))
    };
    let shared = install::hosted(&CONTROLLER, serve).await?;
    Ok((ControlPlane::shared().await?, shared))
}

/// A rig with a repository, a Refinery and a namespace of its own.
pub struct Fixture {
    pub client: Client,
    pub namespace: String,
    pub rig: String,
    pub kubelet: TestKubelet,
    pub dir: tempfile::TempDir,
}

static FIXTURES: AtomicU32 = AtomicU32::new(0);

impl Fixture {
    /// A rig whose Refinery has a gate, on the shared controller.
    pub async fn new() -> Result<Self> {
        let (plane, _) = shared().await?;
        let fixture = Self::on(plane).await?;
        fixture.refinery(Some("run the tests")).await?;
        Ok(fixture)
    }

    /// A rig without a Refinery.
    pub async fn on(plane: &ControlPlane) -> Result<Self> {
        let fixture = Self::without_rig(plane).await?;
        fixture.make_rig(&format!("file://{}", fixture.remote().display())).await?;
        Ok(fixture)
    }

    /// A namespace and a repository; the rig is not there yet.
    pub async fn without_rig(plane: &ControlPlane) -> Result<Self> {
        let (client, namespace) = (plane.client()?, plane.namespace().await?);
        let rig = format!("rig-{}", FIXTURES.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::tempdir()?;
        let fixture =
            Self { kubelet: TestKubelet::new(client.clone()), client, namespace, rig, dir };
        repository::make(&fixture.remote(), &fixture.work())?;
        fixture.commit("root", &[("file", "1\n2\n3\n")]);
        fixture.push("main");
        Ok(fixture)
    }

    /// Creates the rig, with the URL of its repository.
    pub async fn make_rig(&self, url: &str) -> Result<()> {
        let spec = json!({"gitURL": url, "beadsPrefix": "bl"});
        let rig = Rig::new(&self.rig, serde_json::from_value(spec)?);
        Api::all(self.client.clone()).create(&PostParams::default(), &rig).await?;
        Ok(())
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

    /// Creates a branch from main that changes one file, pushes it and returns its commit.
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

    /// Creates a request for `commit` of `branch`, with a Polecat as its author when one is given.
    pub async fn submit(
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

    /// Waits for a pending pod of a gate whose name is not in `but`.
    pub async fn gate(&self, but: &[String]) -> Result<Pod> {
        let fresh = |p: &Pod| {
            p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Pending")
                && !but.contains(&p.name_any())
        };
        self.kubelet.wait_pod(&self.namespace, fresh).await
    }

    /// Ends the gate in `pod` with an exit code and some output.
    pub async fn gate_ends(&self, pod: &Pod, code: i32, output: &str) -> Result<()> {
        let pod = self.kubelet.running(pod).await?;
        self.kubelet
            .finish(
                &pod,
                &Outcome::new()
                    .with("fetch", Exit::new(0, ""))
                    .with("gate", Exit::new(code, output)),
            )
            .await?;
        Ok(())
    }

    /// Fails the gate on a request twice, and ends it with exit code `alone` on the target alone.
    pub async fn fail_gate(&self, pod: &Pod, output: &str, alone: i32) -> Result<Pod> {
        self.gate_ends(pod, 1, output).await?;
        let again = self.gate(&[pod.name_any()]).await?;
        self.gate_ends(&again, 1, output).await?;
        let target = self.gate(&[pod.name_any(), again.name_any()]).await?;
        self.gate_ends(&target, alone, "the output on the target alone").await?;
        Ok(target)
    }

    /// Waits for the Escalation of a cause for which `want` holds.
    pub async fn escalation(
        &self,
        cause: &str,
        want: impl Fn(&Escalation) -> bool,
    ) -> Result<Escalation> {
        let api = Api::<Escalation>::namespaced(self.client.clone(), &self.namespace);
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let all = api.list(&ListParams::default()).await?.items;
            if let Some(found) = all.iter().find(|e| e.spec.cause == cause && want(e)) {
                return Ok(found.clone());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("the Escalation of {cause} did not appear; there are {all:#?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a request is in a phase.
    pub async fn phase(&self, name: &str, phase: &str) -> Result<MergeRequest> {
        until(TIMEOUT, &self.requests(), name, phase, |m| {
            let now = format!("{:?}", m?.status.as_ref()?.phase?);
            (now == phase).then(|| m.cloned()).flatten()
        })
        .await
    }

    /// Waits until all Jobs of gates are deleted.
    pub async fn no_jobs(&self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let jobs = self.jobs().list(&ListParams::default()).await?;
            if jobs.items.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!(
                    "Jobs were not deleted: {:?}",
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
