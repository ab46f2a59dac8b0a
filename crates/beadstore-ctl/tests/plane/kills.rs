//! The process ends at each of its writes to the API server and to git, once before the server has
//! the write and once before the answer is back, and another one begins with the same folder and no
//! memory: each edit is in the store's history exactly once. So it is when the connection has faults.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use beadstore_ctl::BeadStoreArgs;
use gastown_api::names::condition;
use gastown_api::rbac::Controller;
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install;
use gastown_fakes::connection::Connection;
use gastown_fakes::git_http::GitHttp;
use gastown_fakes::kills::{self, Lives, Process};
use gastown_fakes::repository::{self, git};
use gastown_proto::v1::CommentRequest;
use gastown_runtime::{Runtime, RuntimeArgs};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::fixture::{ACCOUNT, Fixture, Server, TIMEOUT, bead};

const LIVES: Lives = Lives { parallel: 12, step: 1 };

/// The controller of the other tests does not see this one.
static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

/// What a life comes to.
#[derive(Debug, PartialEq)]
struct End {
    /// The commits of the write branch, the oldest first.
    history: Vec<String>,
    /// The beads there, without times.
    beads: Vec<Value>,
    has_main_moved: bool,
    /// Open and closed beads and pending writes, as the BeadStore shows them.
    counts: Value,
}

struct Life {
    fixture: Fixture,
    git: GitHttp,
    /// Where the present process listens.
    port: AtomicU16,
}

impl Life {
    /// A namespace, which is that of the installation too, and a git server.
    async fn new(plane: &ControlPlane) -> Result<Self> {
        let tls = tempfile::tempdir()?.keep();
        install::certificates(&tls)?;
        let mut fixture = Fixture::on(plane, Server { port: 0, tls }).await?;
        fixture.release.clone_from(&fixture.namespace);
        install::install_in(plane, Controller::BeadStore, &fixture.release).await?;
        let name = ObjectMeta { name: Some("polecat-ctl".into()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata: name, ..ServiceAccount::default() };
        Api::namespaced(fixture.client.clone(), &fixture.release)
            .create(&PostParams::default(), &account)
            .await?;
        let git = GitHttp::start(fixture.dir.path()).await?;
        Ok(Self { fixture, git, port: 0.into() })
    }

    /// Has a bead commented on, by a caller who tries again until it is answered.
    async fn comment(&self, bead: &str) -> Result<()> {
        let comment = CommentRequest {
            rig: self.fixture.rig.clone(),
            id: bead.into(),
            author: "polecat".into(),
            text: "gave up".into(),
        };
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let port = self.port.load(Ordering::SeqCst);
            let mut caller = self.fixture.caller_at(port, "polecat-ctl").await?;
            match caller.comment(comment.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => ensure!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A person opens a closed bead again, where it is closed.
    fn reopen(&self, closed: &str) -> Result<()> {
        let work = self.fixture.work();
        loop {
            git(&work, &["fetch", "-q", "origin", "beads-sync"])?;
            git(&work, &["checkout", "-q", "FETCH_HEAD"])?;
            let file = work.join(".beads/issues.jsonl");
            let text = std::fs::read_to_string(&file)?;
            ensure!(text.contains(closed), "{text}");
            std::fs::write(&file, text.replace(closed, &bead("gt-1", "First")))?;
            git(&work, &["commit", "-q", "-am", "reopen gt-1"])?;
            if git(&work, &["push", "-q", "origin", "HEAD:refs/heads/beads-sync"]).is_ok() {
                return Ok(());
            }
        }
    }

    /// What people and the other controllers do.
    async fn live(&self) -> Result<End> {
        let fixture = &self.fixture;
        let main = repository::head(&fixture.remote(), "main");
        fixture.make_rig_at(&self.git.repository("remote")).await?;
        fixture.make_store_every("beads", "1s").await?;
        fixture.condition("beads", condition::WRITABLE, "True", "Writable").await?;
        let lease = fixture.claim("gt-1", "nux").await?;
        fixture.written("gt-1", "in_progress").await?;
        self.comment("gt-2").await?;
        fixture.land("gt-1").await?;
        let closed = fixture.written("gt-1", "\"status\":\"closed\"").await?;
        fixture.leases().delete(&lease, &DeleteParams::default()).await?;
        self.reopen(&closed)?;
        fixture.claim("gt-2", "slit").await?;
        fixture.written("gt-2", "in_progress").await?;
        fixture.counts("beads", (1, 0, 0)).await?;
        let file = git(&fixture.remote(), &["show", "beads-sync:.beads/issues.jsonl"])?;
        let log = git(&fixture.remote(), &["log", "--reverse", "--format=%s", "main..beads-sync"])?;
        let status = fixture.stores().get("beads").await?.status.context("a status")?;
        Ok(End {
            history: log.lines().map(|line| line.replace(&fixture.rig, "RIG")).collect(),
            beads: file.lines().map(|line| self.comparable(line)).collect::<Result<_>>()?,
            has_main_moved: repository::head(&fixture.remote(), "main") != main,
            counts: json!([status.by_status, status.pending_writes]),
        })
    }

    /// A bead without what differs from life to life: times, and the rig's name.
    fn comparable(&self, line: &str) -> Result<Value> {
        fn clear(value: &mut Value) {
            match value {
                Value::Object(all) => {
                    for (key, value) in all {
                        if key.ends_with("_at") {
                            *value = Value::Null;
                        }
                        clear(value);
                    }
                }
                Value::Array(all) => all.iter_mut().for_each(clear),
                _ => {}
            }
        }
        let mut bead: Value = serde_json::from_str(&line.replace(&self.fixture.rig, "RIG"))?;
        clear(&mut bead);
        let comments = bead.get_mut("comments").and_then(Value::as_array_mut);
        for comment in comments.into_iter().flatten() {
            comment["id"] = Value::Null;
        }
        Ok(bead)
    }
}

/// One life, whose first process has this connection.
async fn live(connection: Arc<Connection>) -> End {
    let plane = install::apart(&PLANE, Controller::BeadStore, &[]).await.unwrap();
    let life = Life::new(plane).await.unwrap();
    let fixture = &life.fixture;
    let start = async |connection: Arc<Connection>| {
        connection.only(&fixture.namespace, &fixture.rig);
        life.git.connect("remote", connection.clone());
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        life.port.store(listener.local_addr()?.port(), Ordering::SeqCst);
        let config = install::config(plane, Controller::BeadStore);
        let (namespace, tls) = (fixture.release.clone(), fixture.server.tls.clone());
        let data_dir = fixture.dir.path().join("data");
        let work = |config| async move {
            let args = RuntimeArgs { namespace, tls_dir: tls, ..RuntimeArgs::from_env()? };
            let runtime = Runtime::leading(ACCOUNT, config, args)?;
            let own = BeadStoreArgs { data_dir, git_memory_mib: 512, witness_endpoint: None };
            let listener = tokio::net::TcpListener::from_std(listener)?;
            Box::pin(beadstore_ctl::serve(runtime, own, listener)).await
        };
        Process::start(&connection, fixture.client.clone(), config, work).await
    };
    Box::pin(kills::live(connection, start, life.live())).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_edit_is_written_once_at_whichever_write_the_process_ends() {
    let end = kills::at_every_write(LIVES, live).await;
    assert!(end.history.len() == 5 && !end.has_main_moved, "{end:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_edit_is_written_once_whatever_the_connection_does() {
    kills::under_each_fault(live).await;
}
