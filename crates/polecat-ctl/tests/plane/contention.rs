//! One bead, two Polecats, two replicas of each controller that both work for its rig, and a person
//! who pushes to the store meanwhile. beadstore-ctl is the real one.

use std::path::{Path, PathBuf};

use beadstore_ctl::BeadStoreArgs;
use gastown_api::BeadStore;
use gastown_api::names::condition;
use gastown_core::report::AgentExit;
use gastown_fakes::repository::{self, git};
use gastown_runtime::metrics::Metrics;
use gastown_runtime::shards::Shards;
use gastown_runtime::{Runtime, RuntimeArgs, grpc};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::fixture::Fixture;
use crate::outcomes::ended;
use crate::{is_terminal, reason};

/// How often the person pushes.
const PUSHES: usize = 8;

fn line(id: &str) -> String {
    let time = "2026-01-02T03:04:05.123456789+01:00";
    format!(
        r#"{{"id":"{id}","title":"Of {id}","status":"open","priority":1,"issue_type":"task","created_at":"{time}","updated_at":"{time}"}}"#
    )
}

/// A repository of beads, and a person's clone of it.
#[derive(Clone)]
struct Beads(PathBuf);

impl Beads {
    fn new(dir: &Path) -> Self {
        let beads = Self(dir.to_owned());
        repository::make(&beads.remote(), &beads.work()).unwrap();
        beads.add("web-1");
        git(&beads.work(), &["push", "-q", "origin", "main"]).unwrap();
        beads
    }

    fn remote(&self) -> PathBuf {
        self.0.join("remote.git")
    }

    fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    fn add(&self, id: &str) {
        let file = self.work().join(".beads/issues.jsonl");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(&file, format!("{text}{}\n", line(id))).unwrap();
        git(&self.work(), &["add", "-A"]).unwrap();
        git(&self.work(), &["commit", "-q", "-m", &format!("add {id}")]).unwrap();
    }

    /// The person adds a bead on the branch that the controllers write, retrying until it is
    /// pushed.
    fn push(&self, id: &str) {
        loop {
            git(&self.work(), &["fetch", "-q", "origin"]).unwrap();
            let tip = if repository::head(&self.work(), "origin/beads-sync").is_some() {
                "beads-sync"
            } else {
                "main"
            };
            git(&self.work(), &["reset", "-q", "--hard", &format!("origin/{tip}")]).unwrap();
            self.add(id);
            if git(&self.work(), &["push", "-q", "origin", "HEAD:refs/heads/beads-sync"]).is_ok() {
                return;
            }
        }
    }

    /// The beads on the branch that the controllers write.
    fn written(&self) -> String {
        git(&self.remote(), &["show", "beads-sync:.beads/issues.jsonl"]).unwrap_or_default()
    }
}

/// One replica of beadstore-ctl; polecat-ctl calls the first one.
async fn bead_store(fixture: &Fixture, dir: &Path, first: bool) -> (Runtime, JoinHandle<()>) {
    let mut args = RuntimeArgs::from_env().unwrap();
    args.namespace.clone_from(&fixture.namespace);
    fixture.folder.path().clone_into(&mut args.tls_dir);
    args.token_file = fixture.folder.path().join("token");
    let runtime = Runtime::new(
        "beadstore-ctl",
        fixture.admin.clone(),
        args,
        Metrics::default(),
        Shards::all(),
    );
    let port = if first { fixture.port } else { 0 };
    let listener = grpc::listen(([127, 0, 0, 1], port).into()).await.unwrap();
    let (started, own) = (
        runtime.clone(),
        BeadStoreArgs {
            data_dir: dir.join(format!("data-{first}")),
            git_memory_mib: 512,
            witness_endpoint: None,
        },
    );
    let work = tokio::spawn(async move {
        Box::pin(beadstore_ctl::serve(started, own, listener)).await.unwrap();
    });
    runtime.readiness.ready().await;
    (runtime, work)
}

impl Fixture {
    /// Waits until the store shows the bead in progress, assigned to the Polecat of this name.
    async fn wait_assignee(&self, beads: &Beads, name: &str) -> String {
        let wanted = format!(r#""assignee":"{}/polecats/{name}""#, self.rig);
        let claimed = |text: &String| {
            text.lines().any(|l| {
                l.contains(r#""id":"web-1""#) && l.contains(&wanted) && l.contains("in_progress")
            })
        };
        self.poll(&wanted, || async { Some(beads.written()).filter(claimed) }).await
    }

    /// The one working pod, and the name of its Polecat.
    async fn winner(&self) -> (k8s_openapi::api::core::v1::Pod, String) {
        let pod = self.kubelet.wait_pod(&self.namespace, |p| !is_terminal(p)).await.unwrap();
        let name = pod.name_any().trim_start_matches("polecat-").to_owned();
        (pod, name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_polecats_gets_the_bead_and_no_bead_of_the_person_is_lost() {
    let mut fixture = Fixture::new().await;
    fixture.make_rig(8).await;
    let dir = tempfile::tempdir().unwrap();
    let beads = Beads::new(dir.path());
    let spec = json!({ "rigRef": fixture.rig, "prefix": "web", "git": { "url": format!("file://{}", beads.remote().display()) }, "syncInterval": "1s" });
    let api: Api<BeadStore> = Api::namespaced(fixture.admin.clone(), &fixture.namespace);
    api.create(
        &PostParams::default(),
        &BeadStore::new("web-beads", serde_json::from_value(spec).unwrap()),
    )
    .await
    .unwrap();
    let stores = [
        bead_store(&fixture, dir.path(), true).await,
        bead_store(&fixture, dir.path(), false).await,
    ];
    fixture.start_controller();
    fixture.start_controller();

    let person = beads.clone();
    let pushing = tokio::task::spawn_blocking(move || {
        (0..PUSHES).for_each(|n| person.push(&format!("web-1{n}")));
    });
    for name in ["ann", "bob"] {
        fixture
            .sling(name, |spec| (spec.bead_id, spec.expect_changes) = (Some("web-1".into()), false))
            .await;
    }
    let (pod, first) = fixture.winner().await;
    let second = if first == "ann" { "bob" } else { "ann" };
    let waiting = fixture.wait_reason(second, condition::CLAIMED, "AlreadyClaimed").await;
    assert!(reason(&waiting, condition::CLAIMED).1.ends_with(&format!("/{first}")), "{waiting:?}");
    assert_eq!(fixture.all_pods().await.len(), 1, "two polecats work on one bead");
    pushing.await.unwrap();
    fixture.wait_assignee(&beads, &first).await;

    fixture.kubelet.finish(&pod, &ended(AgentExit::Completed, None)).await.unwrap();
    fixture.wait_phase(&first, "Done").await;
    fixture.polecats().delete(&first, &DeleteParams::default()).await.unwrap();
    fixture.pod(&format!("polecat-{second}"), &[&pod]).await;
    let written = fixture.wait_assignee(&beads, second).await;
    for n in 0..PUSHES {
        assert!(
            written.contains(&line(&format!("web-1{n}"))),
            "the person's web-1{n} is lost: {written}"
        );
    }
    assert_eq!(written.lines().count(), PUSHES + 1, "{written}");
    for (runtime, work) in stores {
        runtime.shutdown();
        work.await.unwrap();
    }
    fixture.close().await;
}
