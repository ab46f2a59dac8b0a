//! A running controller, and a rig with a store of beads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use beadstore_ctl::BeadStoreArgs;
use gastown_api::names::{annotation, label};
use gastown_api::rbac::Controller;
use gastown_api::{
    BeadBackend, BeadHttp, BeadStore, BeadStoreSpec, MergeRequest, ObjectName, Rig, conditions,
};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install::SYSTEM as NAMESPACE;
use gastown_cluster::install::{self, Hosted};
use gastown_fakes::bd_serve;
use gastown_fakes::repository::{self, git};
use gastown_proto::v1::beads_client::BeadsClient;
use gastown_runtime::grpc::{AuthChannel, Remote};
use gastown_runtime::{Runtime, RuntimeArgs, grpc};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

/// The longest wait; nothing here takes that long.
pub const TIMEOUT: Duration = Duration::from_secs(90);
pub const ACCOUNT: &str = "beadstore-ctl";

/// The address and the certificates of the controller.
#[derive(Clone, Debug)]
pub struct Server {
    pub port: u16,
    pub tls: PathBuf,
}

/// Runs the controller for this whole test program, on a thread that outlives each test's runtime.
async fn serve() -> Result<(Server, ())> {
    let plane = ControlPlane::shared().await?;
    install::install(plane, Controller::BeadStore, &["polecat-ctl", "convoy-ctl", "rig-ctl"])
        .await?;
    let dir = tempfile::tempdir()?.keep();
    let tls = dir.join("tls");
    std::fs::create_dir(&tls)?;
    install::certificates(&tls)?;
    let config = install::config(plane, Controller::BeadStore);
    let args = RuntimeArgs {
        namespace: NAMESPACE.into(),
        tls_dir: tls.clone(),
        ..RuntimeArgs::from_env()?
    };
    let runtime = Runtime::leading(ACCOUNT, config, args)?;
    let listener = grpc::listen("127.0.0.1:0".parse()?).await?;
    let port = listener.local_addr()?.port();
    let started = runtime.clone();
    let own =
        BeadStoreArgs { data_dir: dir.join("data"), git_memory_mib: 512, witness_endpoint: None };
    tokio::spawn(async move {
        if let Err(error) = Box::pin(beadstore_ctl::serve(runtime, own, listener)).await {
            eprintln!("the controller ended: {error:#}");
        }
    });
    started.readiness.ready().await;
    Ok((Server { port, tls }, ()))
}

static CONTROLLER: Hosted<Server> = Hosted::new();

async fn shared() -> Result<(&'static ControlPlane, Server)> {
    let server = install::hosted(&CONTROLLER, serve).await?;
    Ok((ControlPlane::shared().await?, server))
}

static RIGS: AtomicU32 = AtomicU32::new(0);

/// A rig with a repository of beads and a namespace of its own.
pub struct Fixture {
    pub client: Client,
    pub server: Server,
    pub namespace: String,
    /// The namespace of the installation.
    pub release: String,
    pub rig: String,
    pub dir: tempfile::TempDir,
}

pub fn bead(id: &str, title: &str) -> String {
    let time = "2026-01-02T03:04:05.123456789+01:00";
    format!(
        r#"{{"id":"{id}","title":"{title}","status":"open","priority":1,"issue_type":"task","created_at":"{time}","updated_at":"{time}"}}"#
    )
}

impl Fixture {
    pub async fn new() -> Result<Self> {
        let (plane, server) = shared().await?;
        Self::on(plane, server).await
    }

    /// On a plane whose controllers are of the test's own.
    pub async fn on(plane: &ControlPlane, server: Server) -> Result<Self> {
        let (client, namespace) = (plane.client()?, plane.namespace().await?);
        let rig = format!("rig-{}", RIGS.fetch_add(1, Ordering::Relaxed));
        let (release, dir) = (NAMESPACE.to_owned(), tempfile::tempdir()?);
        let fixture = Self { client, server, namespace, release, rig, dir };
        repository::make(&fixture.remote(), &fixture.work())?;
        fixture.push(&[&bead("gt-1", "First"), &bead("gt-2", "Second")])?;
        Ok(fixture)
    }

    pub fn remote(&self) -> PathBuf {
        self.dir.path().join("remote.git")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Commits these beads to main, as a user.
    pub fn push(&self, lines: &[&str]) -> Result<()> {
        self.push_file((lines.join("\n") + "\n").as_bytes())
    }

    /// Commits this file of beads to main, as a user.
    pub fn push_file(&self, bytes: &[u8]) -> Result<()> {
        std::fs::create_dir_all(self.work().join(".beads"))?;
        std::fs::write(self.work().join(".beads/issues.jsonl"), bytes)?;
        git(&self.work(), &["add", "-A"])?;
        git(&self.work(), &["commit", "-q", "-m", "beads"])?;
        git(&self.work(), &["push", "-q", "origin", "HEAD:refs/heads/main"])?;
        Ok(())
    }

    pub async fn make_rig(&self) -> Result<()> {
        self.make_rig_at(&format!("file://{}", self.remote().display())).await
    }

    pub async fn make_rig_at(&self, url: &str) -> Result<()> {
        let spec = json!({"gitURL": url, "beadsPrefix": "gt"});
        Api::all(self.client.clone())
            .create(&PostParams::default(), &Rig::new(&self.rig, serde_json::from_value(spec)?))
            .await?;
        Ok(())
    }

    pub fn stores(&self) -> Api<BeadStore> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn make_store(&self, name: &str) -> Result<BeadStore> {
        self.make_store_every(name, "5s").await
    }

    /// A store that is read so often.
    pub async fn make_store_every(&self, name: &str, interval: &str) -> Result<BeadStore> {
        self.make_store_with(name, |spec| spec.sync_interval = interval.into()).await
    }

    /// A store in the repository at `url`.
    pub async fn make_store_at(&self, name: &str, url: String) -> Result<BeadStore> {
        self.make_store_with(name, |spec| spec.git.url = Some(url)).await
    }

    async fn make_store_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut BeadStoreSpec),
    ) -> Result<BeadStore> {
        let mut spec = BeadStoreSpec::of_rig(&self.rig, "gt-");
        change(&mut spec);
        Ok(self.stores().create(&PostParams::default(), &BeadStore::new(name, spec)).await?)
    }

    /// A store behind this server, with its token in Secret `beads-token`.
    pub async fn make_http_store(
        &self,
        name: &str,
        server: &bd_serve::Server,
    ) -> Result<BeadStore> {
        let token_secret_ref = Some(ObjectName::new("beads-token"));
        let http = Some(BeadHttp { url: server.url(), token_secret_ref, project_id: None });
        let of_rig = BeadStoreSpec::of_rig(&self.rig, "gt-");
        let spec = BeadStoreSpec {
            backend: BeadBackend::HttpV0,
            http,
            sync_interval: "5s".into(),
            ..of_rig
        };
        Ok(self.stores().create(&PostParams::default(), &BeadStore::new(name, spec)).await?)
    }

    pub async fn make_token(&self, token: &str) -> Result<()> {
        let name = ObjectMeta { name: Some("beads-token".into()), ..ObjectMeta::default() };
        let data = Some(BTreeMap::from([("token".to_owned(), token.to_owned())]));
        let secret = Secret { metadata: name, string_data: data, ..Secret::default() };
        Api::namespaced(self.client.clone(), &self.namespace)
            .create(&PostParams::default(), &secret)
            .await?;
        Ok(())
    }

    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.release)
    }

    /// Claims a bead, like polecat-ctl.
    pub async fn claim(&self, bead: &str, polecat: &str) -> Result<String> {
        let name = format!("claim-{}-{bead}", self.rig);
        let annotations = BTreeMap::from([
            (annotation::CLAIM_RIG.to_owned(), self.rig.clone()),
            (annotation::CLAIM_BEAD.to_owned(), bead.to_owned()),
            (annotation::CLAIM_POLECAT.to_owned(), format!("{}/{polecat}", self.namespace)),
        ]);
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(BTreeMap::from([(label::CLAIM.to_owned(), "true".to_owned())])),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(format!("uid-of-{polecat}")),
                ..LeaseSpec::default()
            }),
        };
        self.leases().create(&PostParams::default(), &lease).await?;
        Ok(name)
    }

    /// Creates a landed MergeRequest, like refinery-ctl.
    pub async fn land(&self, bead: &str) -> Result<()> {
        let api = Api::<MergeRequest>::namespaced(self.client.clone(), &self.namespace);
        let spec = json!({"rigRef": self.rig, "sourceBranch": "b", "commit": "a".repeat(40), "targetBranch": "main", "beadID": bead});
        api.create(
            &PostParams::default(),
            &MergeRequest::new("landed", serde_json::from_value(spec)?),
        )
        .await?;
        let status = json!({"status": {"phase": "Landed", "landedCommit": "c".repeat(40), "landedAt": "2026-01-05T00:00:00Z"}});
        api.patch_status("landed", &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    /// Waits until the bead's line on the write branch contains this text.
    pub async fn written(&self, bead: &str, text: &str) -> Result<String> {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let file = git(&self.remote(), &["show", "beads-sync:.beads/issues.jsonl"])
                .unwrap_or_default();
            let line = file
                .lines()
                .find(|line| line.contains(&format!("\"id\":\"{bead}\"")))
                .unwrap_or_default();
            if line.contains(text) {
                return Ok(line.to_owned());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("{bead}: {text} did not appear in {file}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a server's row of a bead has this value.
    pub async fn row_has(
        &self,
        server: &bd_serve::Server,
        bead: &str,
        key: &str,
        value: &str,
    ) -> Result<()> {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        while server.row(bead)[key] != value {
            if tokio::time::Instant::now() > deadline {
                bail!("{bead}: {key} is not {value} in {}", server.row(bead));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits for counts of open and closed beads, and of pending writes.
    pub async fn counts(&self, name: &str, counts: (i32, i32, i32)) -> Result<()> {
        self.until(name, &format!("counts {counts:?}"), |store| {
            let status = store?.status.as_ref()?;
            let of = |word: &str| status.by_status.get(word).copied().unwrap_or_default();
            ((of("open"), of("closed"), status.pending_writes?) == counts).then_some(())
        })
        .await
    }

    pub async fn until<T>(
        &self,
        name: &str,
        what: &str,
        want: impl Fn(Option<&BeadStore>) -> Option<T>,
    ) -> Result<T> {
        install::until(TIMEOUT, &self.stores(), name, what, want).await
    }

    /// Waits for a condition with this status and reason; returns its message.
    pub async fn condition(
        &self,
        name: &str,
        kind: &str,
        status: &str,
        reason: &str,
    ) -> Result<String> {
        let what = format!("{kind}={status}/{reason}");
        self.until(name, &what, |store| {
            let status_of = store?.status.as_ref()?;
            let found = conditions::find(&status_of.conditions, kind)?;
            (found.status == status && found.reason == reason).then(|| found.message.clone())
        })
        .await
    }

    pub async fn caller(&self, account: &str) -> Result<BeadsClient<AuthChannel>> {
        self.caller_at(self.server.port, account).await
    }

    pub async fn caller_at(&self, port: u16, account: &str) -> Result<BeadsClient<AuthChannel>> {
        let file = self.dir.path().join(account);
        std::fs::write(&file, install::token(&self.client, &self.release, account, None).await?)?;
        let remote = Remote::new(
            &format!("https://localhost:{port}"),
            &self.server.tls,
            &file,
            Duration::from_secs(20),
        );
        Ok(BeadsClient::new(remote.channel("")?))
    }
}
