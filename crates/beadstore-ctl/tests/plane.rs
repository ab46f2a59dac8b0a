//! beadstore-ctl as the chart runs it: its own service account, its own roles, a real API server,
//! real git.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use beadstore_ctl::BeadStoreArgs;
use gastown_api::names::{annotation, condition, finalizer, label};
use gastown_api::rbac::Controller;
use gastown_api::{
    BeadBackend, BeadHttp, BeadStore, BeadStorePhase, BeadStoreSpec, MergeRequest, ObjectName, Rig,
    conditions,
};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install::SYSTEM as NAMESPACE;
use gastown_cluster::install::{self, Hosted};
use gastown_fakes::bd_serve;
use gastown_fakes::repository::{self, git};
use gastown_proto::v1::beads_client::BeadsClient;
use gastown_proto::v1::{
    ClaimRequest, CommentRequest, GetBeadsRequest, ReadyRequest, WatchBeadsRequest,
};
use gastown_runtime::grpc::{AuthChannel, Remote};
use gastown_runtime::lease::Leadership;
use gastown_runtime::metrics::Metrics;
use gastown_runtime::{Runtime, RuntimeArgs, client, grpc};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

/// Nothing here takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(90);
const ACCOUNT: &str = "beadstore-ctl";

/// Where the controller listens, and its certificates.
#[derive(Clone, Debug)]
struct Server {
    port: u16,
    tls: PathBuf,
}

/// Runs the controller for the whole of this test program, on a thread that outlives each test's
/// own runtime.
async fn serve() -> Result<(Server, ())> {
    let plane = ControlPlane::shared().await?;
    install::install(plane, Controller::BeadStore, &["polecat-ctl", "convoy-ctl"]).await?;
    let dir = tempfile::tempdir()?.keep();
    let tls = dir.join("tls");
    std::fs::create_dir(&tls)?;
    install::certificates(&tls)?;
    let metrics = Metrics::default();
    let client =
        client::with_config(install::config(plane, Controller::BeadStore), ACCOUNT, &metrics)?;
    let args = RuntimeArgs {
        namespace: NAMESPACE.into(),
        tls_dir: tls.clone(),
        ..RuntimeArgs::from_env()?
    };
    let runtime = Runtime::new(ACCOUNT, client, args, metrics, Leadership::always(ACCOUNT));
    let listener = grpc::listen("127.0.0.1:0".parse()?).await?;
    let port = listener.local_addr()?.port();
    let started = runtime.clone();
    let own = BeadStoreArgs { data_dir: dir.join("data"), witness_endpoint: None };
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

static TOWNS: AtomicU32 = AtomicU32::new(0);

/// A rig with a repository of beads and a namespace of its own.
struct Town {
    client: Client,
    server: Server,
    namespace: String,
    rig: String,
    dir: tempfile::TempDir,
}

fn bead(id: &str, title: &str) -> String {
    let time = "2026-01-02T03:04:05.123456789+01:00";
    format!(
        r#"{{"id":"{id}","title":"{title}","status":"open","priority":1,"issue_type":"task","created_at":"{time}","updated_at":"{time}"}}"#
    )
}

impl Town {
    async fn new() -> Result<Self> {
        let (plane, server) = shared().await?;
        let (client, namespace) = (plane.client()?, plane.namespace().await?);
        let rig = format!("rig-{}", TOWNS.fetch_add(1, Ordering::Relaxed));
        let town = Self { client, server, namespace, rig, dir: tempfile::tempdir()? };
        repository::make(&town.remote(), &town.work())?;
        town.push(&[&bead("gt-1", "First"), &bead("gt-2", "Second")])?;
        Ok(town)
    }

    fn remote(&self) -> PathBuf {
        self.dir.path().join("remote.git")
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Somebody puts these beads on main.
    fn push(&self, lines: &[&str]) -> Result<()> {
        std::fs::create_dir_all(self.work().join(".beads"))?;
        std::fs::write(self.work().join(".beads/issues.jsonl"), lines.join("\n") + "\n")?;
        git(&self.work(), &["add", "-A"])?;
        git(&self.work(), &["commit", "-q", "-m", "beads"])?;
        git(&self.work(), &["push", "-q", "origin", "HEAD:refs/heads/main"])?;
        Ok(())
    }

    async fn make_rig(&self) -> Result<()> {
        let spec =
            json!({"gitURL": format!("file://{}", self.remote().display()), "beadsPrefix": "gt"});
        Api::all(self.client.clone())
            .create(&PostParams::default(), &Rig::new(&self.rig, serde_json::from_value(spec)?))
            .await?;
        Ok(())
    }

    fn stores(&self) -> Api<BeadStore> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn make_store(&self, name: &str) -> Result<BeadStore> {
        let spec =
            BeadStoreSpec { sync_interval: "5s".into(), ..BeadStoreSpec::of_rig(&self.rig, "gt-") };
        Ok(self.stores().create(&PostParams::default(), &BeadStore::new(name, spec)).await?)
    }

    /// A store that this server has, with its token in Secret `beads-token`.
    async fn make_served_store(&self, name: &str, server: &bd_serve::Server) -> Result<BeadStore> {
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

    async fn make_token(&self, token: &str) -> Result<()> {
        let name = ObjectMeta { name: Some("beads-token".into()), ..ObjectMeta::default() };
        let data = Some(BTreeMap::from([("token".to_owned(), token.to_owned())]));
        let secret = Secret { metadata: name, string_data: data, ..Secret::default() };
        Api::namespaced(self.client.clone(), &self.namespace)
            .create(&PostParams::default(), &secret)
            .await?;
        Ok(())
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// As polecat-ctl claims.
    async fn claim(&self, bead: &str, polecat: &str) -> Result<String> {
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

    /// As refinery-ctl tells of a landing.
    async fn land(&self, bead: &str) -> Result<()> {
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

    /// Waits until the write branch says this of a bead.
    async fn written(&self, bead: &str, words: &str) -> Result<String> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let file = git(&self.remote(), &["show", "beads-sync:.beads/issues.jsonl"])
                .unwrap_or_default();
            let line = file
                .lines()
                .find(|line| line.contains(&format!("\"id\":\"{bead}\"")))
                .unwrap_or_default();
            if line.contains(words) {
                return Ok(line.to_owned());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("{bead}: {words} did not come; there is {file}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a server says this of a bead.
    async fn served(
        &self,
        server: &bd_serve::Server,
        bead: &str,
        key: &str,
        value: &str,
    ) -> Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while server.row(bead)[key] != value {
            if tokio::time::Instant::now() > deadline {
                bail!("{bead}: {key} {value} did not come; there is {}", server.row(bead));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits for counts of open and closed beads, and of writes that wait.
    async fn counts(&self, name: &str, counts: (i32, i32, i32)) -> Result<()> {
        self.until(name, &format!("counts {counts:?}"), |store| {
            let status = store?.status.as_ref()?;
            let of = |word: &str| status.by_status.get(word).copied().unwrap_or_default();
            ((of("open"), of("closed"), status.pending_writes?) == counts).then_some(())
        })
        .await
    }

    async fn until<T>(
        &self,
        name: &str,
        what: &str,
        want: impl Fn(Option<&BeadStore>) -> Option<T>,
    ) -> Result<T> {
        install::until(PATIENCE, &self.stores(), name, what, want).await
    }

    /// Waits for a condition's status and reason.
    async fn says(&self, name: &str, kind: &str, status: &str, reason: &str) -> Result<String> {
        let what = format!("{kind}={status}/{reason}");
        self.until(name, &what, |store| {
            let status_of = store?.status.as_ref()?;
            let found = conditions::find(&status_of.conditions, kind)?;
            (found.status == status && found.reason == reason).then(|| found.message.clone())
        })
        .await
    }

    async fn caller(&self, account: &str) -> Result<BeadsClient<AuthChannel>> {
        let file = self.dir.path().join(account);
        std::fs::write(&file, install::token(&self.client, NAMESPACE, account, None).await?)?;
        let remote = Remote::new(
            &format!("https://localhost:{}", self.server.port),
            &self.server.tls,
            &file,
            Duration::from_secs(20),
        );
        Ok(BeadsClient::new(remote.channel()?))
    }
}

#[tokio::test]
async fn claims_and_landings_reach_the_store_and_the_target_never_moves() -> Result<()> {
    let town = Town::new().await?;
    town.make_rig().await?;
    town.make_store("beads").await?;
    town.says("beads", condition::WRITABLE, "True", "Writable").await?;
    let main = repository::head(&town.remote(), "main");
    let lease = town.claim("gt-1", "nux").await?;
    town.written("gt-1", &format!("\"assignee\":\"{}/polecats/nux\"", town.rig)).await?;
    let other = town.claim("gt-2", "slit").await?;
    town.written("gt-2", "in_progress").await?;
    town.leases().delete(&other, &DeleteParams::default()).await?;
    let line = town.written("gt-2", "\"status\":\"open\"").await?;
    ensure!(!line.contains("assignee"), "{line}");
    town.land("gt-1").await?;
    town.written("gt-1", &format!("\"close_reason\":\"merged {}\"", "c".repeat(40))).await?;
    town.leases().delete(&lease, &DeleteParams::default()).await?;
    town.until("beads", "one closed and one ready bead", |store| {
        let status = store?.status.as_ref()?;
        let counts = (
            status.by_status.get("closed"),
            status.by_status.get("open"),
            status.ready_count,
            status.pending_writes,
        );
        (counts == (Some(&1), Some(&1), Some(1), Some(0))).then_some(())
    })
    .await?;
    ensure!(repository::head(&town.remote(), "main") == main, "main moved");
    Ok(())
}

#[tokio::test]
async fn a_store_says_what_it_waits_for_and_goes_on_by_itself() -> Result<()> {
    let town = Town::new().await?;
    town.make_store("beads").await?;
    let message = town.says("beads", condition::READY, "False", "RigNotFound").await?;
    ensure!(message.contains(&town.rig), "{message}");
    town.make_rig().await?;
    town.says("beads", condition::SYNCED, "True", "UpToDate").await?;
    town.make_store("second").await?;
    let message = town.says("second", condition::READY, "False", "Duplicate").await?;
    ensure!(message.contains("/beads"), "{message}");
    town.push(&["<<<<<<< HEAD", &bead("gt-1", "First")])?;
    let message = town.says("beads", condition::WRITABLE, "False", "ConflictMarkers").await?;
    ensure!(message.contains("line 1"), "{message}");
    town.says("beads", condition::SYNCED, "True", "UpToDate").await?;
    let secret = json!({"spec": {"gitSecretRef": {"name": "missing"}, "git": {"branch": "beads"}}});
    town.stores().patch("beads", &PatchParams::default(), &Patch::Merge(&secret)).await?;
    // Its namespace is none of the chart's beadstore.secretNamespaces.
    let message = town.says("beads", condition::READY, "False", "SecretForbidden").await?;
    ensure!(message.contains("beadstore.secretNamespaces"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_served_store_s_token_is_a_secret_as_git_s_are() -> Result<()> {
    let (town, server) = (Town::new().await?, bd_serve::Server::with_issues(1).await);
    town.make_rig().await?;
    town.make_served_store("beads", &server).await?;
    // Its namespace is none of the chart's beadstore.secretNamespaces.
    let message = town.says("beads", condition::READY, "False", "SecretForbidden").await?;
    ensure!(message.contains("beadstore.secretNamespaces"), "{message}");
    ensure!(server.asked("").is_empty(), "asked without its token");
    Ok(())
}

#[tokio::test]
async fn a_landing_closes_its_bead_in_a_server_that_goes_away_and_comes_back() -> Result<()> {
    // Secrets of the release's namespace may be read.
    let town = Town { namespace: NAMESPACE.into(), ..Town::new().await? };
    let mut server = bd_serve::Server::with_issues(2).await;
    town.make_rig().await?;
    town.make_served_store("served", &server).await?;
    let message = town.says("served", condition::READY, "False", "SecretNotFound").await?;
    ensure!(message.contains("beads-token"), "{message}");
    town.make_token(bd_serve::TOKEN).await?;
    let message = town.says("served", condition::WRITABLE, "True", "Writable").await?;
    ensure!(message.contains(bd_serve::PROJECT), "{message}");
    town.says("served", condition::AUTHORITATIVE, "True", "ServerIsTruth").await?;
    town.counts("served", (2, 0, 0)).await?;

    let lease = town.claim("gt-1", "nux").await?;
    town.served(&server, "gt-1", "assignee", &format!("{}/polecats/nux", town.rig)).await?;
    server.down().await;
    town.land("gt-1").await?;
    let message = town.says("served", condition::READY, "False", "RemoteUnreachable").await?;
    ensure!(message.contains(&server.url()) && message.contains("writes wait"), "{message}");
    town.says("served", condition::WRITABLE, "False", "RemoteUnreachable").await?;
    town.until("served", "a write that waits", |store| {
        (store?.status.as_ref()?.pending_writes == Some(1)).then_some(())
    })
    .await?;
    let mut polecat = town.caller("polecat-ctl").await?;
    let asked = GetBeadsRequest { rig: town.rig.clone(), ids: vec!["gt-1".into()] };
    let found = polecat.get(asked.clone()).await?.into_inner();
    ensure!(
        found.beads[0].status == "in_progress",
        "reads go on from what was read last: {found:?}"
    );

    server.up().await;
    town.served(&server, "gt-1", "close_reason", &format!("merged {}", "c".repeat(40))).await?;
    town.says("served", condition::READY, "True", "Ready").await?;
    town.counts("served", (1, 1, 0)).await?;
    town.leases().delete(&lease, &DeleteParams::default()).await?;
    // A person's reopening stays, though the status that told of the close is gone.
    server
        .store(|town| town.change("gt-1", |row| drop(row.insert("status".into(), "open".into()))));
    town.counts("served", (2, 0, 0)).await?;
    let status = json!({"status": null});
    town.stores().patch_status("served", &PatchParams::default(), &Patch::Merge(&status)).await?;
    town.counts("served", (2, 0, 0)).await?;
    ensure!(server.asked("gt-1:close").len() == 1, "{:?}", server.asked("POST"));

    let say = CommentRequest {
        rig: town.rig.clone(),
        id: "gt-1".into(),
        author: "polecat".into(),
        text: "gave up".into(),
    };
    ensure!(polecat.comment(say).await?.into_inner().changed, "said");
    server.store(|town| town.change("gt-1", |row| row["comments"][0]["text"] = "edited".into()));
    let found = polecat.get(asked).await?.into_inner();
    ensure!(found.beads[0].comments[0].text == "edited", "comments are asked for: {found:?}");
    Ok(())
}

#[tokio::test]
async fn a_status_that_is_erased_comes_back_and_the_go_operator_s_finalizer_goes() -> Result<()> {
    let town = Town::new().await?;
    town.make_rig().await?;
    town.make_store("beads").await?;
    town.says("beads", condition::READY, "True", "Ready").await?;
    let status = json!({"status": null});
    town.stores().patch_status("beads", &PatchParams::default(), &Patch::Merge(&status)).await?;
    town.until("beads", "the status", |store| {
        let status = store?.status.as_ref()?;
        (status.phase == Some(BeadStorePhase::Synced) && status.issue_count == 2).then_some(())
    })
    .await?;
    let held = json!({"metadata": {"finalizers": [finalizer::BEAD_STORE]}});
    town.stores().patch("beads", &PatchParams::default(), &Patch::Merge(&held)).await?;
    town.stores().delete("beads", &DeleteParams::default()).await?;
    town.until("beads", "its end", |store| store.is_none().then_some(())).await
}

#[tokio::test]
async fn callers_read_and_comment_and_hear_of_it() -> Result<()> {
    let town = Town::new().await?;
    town.make_rig().await?;
    let mut polecat = town.caller("polecat-ctl").await?;
    let rig = town.rig.clone();
    let refused = polecat.get(GetBeadsRequest { rig: rig.clone(), ids: vec![] }).await.unwrap_err();
    ensure!(refused.message().starts_with("NoBeadStore"), "{refused}");
    town.make_store("beads").await?;
    town.says("beads", condition::READY, "True", "Ready").await?;

    let found = polecat
        .get(GetBeadsRequest { rig: rig.clone(), ids: vec!["gt-2".into(), "gt-9".into()] })
        .await?
        .into_inner();
    ensure!(
        found.beads.len() == 1 && found.beads[0].title == "Second" && found.beads[0].ready,
        "{found:?}"
    );
    let ready = polecat.ready(ReadyRequest { rig: rig.clone(), limit: 1 }).await?.into_inner();
    ensure!(ready.beads.len() == 1, "{ready:?}");

    let mut news = town
        .caller("convoy-ctl")
        .await?
        .watch(WatchBeadsRequest { rig: rig.clone() })
        .await?
        .into_inner();
    let first = news.message().await?.context("a revision at once")?;
    let say = CommentRequest {
        rig: rig.clone(),
        id: "gt-1".into(),
        author: "polecat".into(),
        text: "gave up".into(),
    };
    let answer = polecat.comment(say.clone()).await?.into_inner();
    ensure!(
        answer.changed && answer.bead.is_some_and(|bead| bead.comments.len() == 1),
        "the comment is there"
    );
    let next = news.message().await?.context("the next revision")?;
    ensure!(
        next.number > first.number && next.write_commit != first.write_commit,
        "{first:?} {next:?}"
    );
    ensure!(!polecat.comment(say).await?.into_inner().changed, "said once");
    let unknown = CommentRequest {
        rig: rig.clone(),
        id: "gt-9".into(),
        author: "polecat".into(),
        text: "?".into(),
    };
    ensure!(
        polecat.comment(unknown).await.unwrap_err().code() == tonic::Code::NotFound,
        "an unknown bead"
    );

    let claim = ClaimRequest { rig: rig.clone(), id: "gt-1".into(), assignee: "someone".into() };
    let denied = town.caller("convoy-ctl").await?.claim(claim.clone()).await.unwrap_err();
    ensure!(denied.code() == tonic::Code::PermissionDenied, "{denied}");
    town.claim("gt-1", "nux").await?;
    town.written("gt-1", "in_progress").await?;
    let taken = polecat.claim(claim).await.unwrap_err();
    ensure!(taken.message().starts_with("AlreadyClaimed"), "{taken}");
    Ok(())
}
