//! convoy-ctl as the chart runs it: its own service account, its own roles, a real API server. The
//! beads are served from memory; what other controllers would write is written by the tests.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use convoy_ctl::{BeadSource, Revisions};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use gastown_api::names::{annotation, condition, label};
use gastown_api::rbac::Controller;
use gastown_api::{
    BeadStore, Convoy, ConvoyBeadPhase, ConvoyPhase, ConvoySpec, ConvoyStatus, DesiredState,
    MergeRequest,
};
use gastown_api::{Polecat, PolecatSpec, PolecatTemplate, Rig, RigSettings, RigSpec, conditions};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install::SYSTEM as NAMESPACE;
use gastown_cluster::install::{self, Hosted, until};
use gastown_core::convoy::polecat_name;
use gastown_proto::v1;
use gastown_runtime::lease::Leadership;
use gastown_runtime::metrics::Metrics;
use gastown_runtime::{Runtime, RuntimeArgs, client};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tonic::Status;

/// Nothing here takes longer on a machine that works. It is shorter than the resync: what arrives
/// came by a watch.
const PATIENCE: Duration = Duration::from_secs(25);
const ACCOUNT: &str = "convoy-ctl";

/// One rig's store: its beads, or why it cannot be read, and the number of its revision.
struct Shelf {
    beads: std::result::Result<BTreeMap<String, v1::Bead>, Status>,
    revision: watch::Sender<u64>,
}

/// What beadstore-ctl would serve.
#[derive(Default)]
struct Town(Mutex<HashMap<String, Shelf>>);

static TOWN: LazyLock<Arc<Town>> = LazyLock::new(Arc::default);

impl Town {
    fn put(&self, rig: &str, beads: std::result::Result<Vec<v1::Bead>, Status>) {
        let mut shelves = self.0.lock();
        let beads =
            beads.map(|beads| beads.into_iter().map(|bead| (bead.id.clone(), bead)).collect());
        match shelves.get_mut(rig) {
            Some(store) => {
                store.beads = beads;
                store.revision.send_modify(|number| *number += 1);
            }
            None => {
                drop(shelves.insert(rig.to_owned(), Shelf { beads, revision: watch::channel(1).0 }))
            }
        }
    }
}

impl BeadSource for Town {
    fn get(
        &self,
        rig: String,
        ids: Vec<String>,
    ) -> BoxFuture<'_, std::result::Result<Vec<v1::Bead>, Status>> {
        let answer = match self.0.lock().get(&rig) {
            None => Err(Status::failed_precondition("NoStore: nothing serves this rig")),
            Some(store) => store
                .beads
                .clone()
                .map(|beads| ids.iter().filter_map(|id| beads.get(id).cloned()).collect()),
        };
        Box::pin(async move { answer })
    }

    fn watch(&self, rig: String) -> BoxFuture<'_, std::result::Result<Revisions, Status>> {
        let answer = match self.0.lock().get(&rig) {
            None => Err(Status::failed_precondition("NoStore: nothing serves this rig")),
            Some(store) => {
                let mut revisions = store.revision.subscribe();
                revisions.mark_changed();
                let next = |mut revisions: watch::Receiver<u64>| async move {
                    revisions.changed().await.ok()?;
                    let number = *revisions.borrow_and_update();
                    Some((number, revisions))
                };
                let revision = move |number| {
                    Ok(v1::StoreRevision {
                        rig: rig.clone(),
                        number,
                        ..v1::StoreRevision::default()
                    })
                };
                Ok(futures::stream::unfold(revisions, next).map(revision).boxed())
            }
        };
        Box::pin(async move { answer })
    }
}

/// A bead that is open, and ready unless it waits for others.
fn bead(id: &str, blockers: &[&str]) -> v1::Bead {
    let edge =
        |on: &&str| v1::BeadDependency { depends_on: (*on).to_owned(), kind: "blocks".into() };
    v1::Bead {
        id: id.into(),
        title: format!("Do {id}"),
        description: "Well.".into(),
        status: "open".into(),
        priority: 1,
        issue_type: "task".into(),
        created_at: "2026-01-02T03:04:05Z".into(),
        ready: blockers.is_empty(),
        blocked: !blockers.is_empty(),
        dependencies: blockers.iter().map(edge).collect(),
        ..v1::Bead::default()
    }
}

/// Runs the controller for the whole of this test program, on a thread that outlives each test's
/// own runtime.
async fn serve() -> Result<((), ())> {
    let plane = ControlPlane::shared().await?;
    install::install(plane, Controller::Convoy, &[]).await?;
    let metrics = Metrics::default();
    let client =
        client::with_config(install::config(plane, Controller::Convoy), ACCOUNT, &metrics)?;
    let args = RuntimeArgs { namespace: NAMESPACE.into(), ..RuntimeArgs::from_env()? };
    let runtime = Runtime::new(ACCOUNT, client, args, metrics, Leadership::always(ACCOUNT));
    let started = runtime.clone();
    tokio::spawn(convoy_ctl::serve(runtime, TOWN.clone()));
    started.readiness.ready().await;
    Ok(((), ()))
}

static CONTROLLER: Hosted<()> = Hosted::new();

/// A client with all permissions, the controller at work, and a namespace for this test.
async fn ground() -> Result<(Client, String)> {
    install::hosted(&CONTROLLER, serve).await?;
    let plane = ControlPlane::shared().await?;
    Ok((plane.client()?, plane.namespace().await?))
}

/// A namespace, and a rig of its name.
struct Ground {
    client: Client,
    namespace: String,
}

impl Ground {
    async fn new() -> Result<Self> {
        let (client, namespace) = ground().await?;
        Ok(Self { client, namespace })
    }

    async fn rig(&self, most: i32) -> Result<()> {
        let template: PolecatTemplate = serde_json::from_value(json!({
            "ttlSecondsAfterFinished": 60, "budget": {"maxTurns": 9}, "kubernetes": {"gitSecretRef": {"name": "git-creds"}},
        }))?;
        let settings = RigSettings { max_polecats: most, ..RigSettings::default() };
        let spec = RigSpec {
            git_url: "https://example.com/a/b".into(),
            beads_prefix: "gt".into(),
            settings,
            polecat_template: Some(template),
            ..RigSpec::default()
        };
        Api::<Rig>::all(self.client.clone())
            .create(&PostParams::default(), &Rig::new(&self.namespace, spec))
            .await?;
        Ok(())
    }

    async fn store(&self) -> Result<()> {
        let store: BeadStore = serde_json::from_value(json!({
            "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "BeadStore", "metadata": {"name": "beads"},
            "spec": {"rigRef": self.namespace, "prefix": "gt-"},
        }))?;
        Api::namespaced(self.client.clone(), &self.namespace)
            .create(&PostParams::default(), &store)
            .await?;
        Ok(())
    }

    fn convoys(&self) -> Api<Convoy> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn polecats(&self) -> Api<Polecat> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn convoy(
        &self,
        name: &str,
        beads: &[&str],
        change: impl FnOnce(&mut ConvoySpec),
    ) -> Result<()> {
        let mut spec = ConvoySpec {
            description: "for a test".into(),
            tracked_beads: beads.iter().map(|id| (*id).to_owned()).collect(),
            rig_ref: Some(self.namespace.clone()),
            dispatch: true,
            ..ConvoySpec::default()
        };
        change(&mut spec);
        self.convoys().create(&PostParams::default(), &Convoy::new(name, spec)).await?;
        Ok(())
    }

    async fn until(
        &self,
        convoy: &str,
        what: &str,
        want: impl Fn(&ConvoyStatus) -> bool,
    ) -> Result<ConvoyStatus> {
        let look = |convoy: Option<&Convoy>| convoy?.status.clone().filter(|status| want(status));
        until(PATIENCE, &self.convoys(), convoy, what, look).await
    }

    /// The Polecat that the controller makes for a bead.
    async fn made(&self, bead: &str) -> Result<Polecat> {
        until(
            PATIENCE,
            &self.polecats(),
            &polecat_name(&self.namespace, bead),
            "its Polecat",
            |polecat| Some(polecat?.clone()),
        )
        .await
    }

    async fn count(&self) -> Result<usize> {
        Ok(self.polecats().list(&ListParams::default()).await?.items.len())
    }

    async fn phase(&self, polecat: &str, phase: &str, reason: &str) -> Result<()> {
        let degraded = json!({
            "type": "Degraded", "status": if phase == "Stuck" { "True" } else { "False" }, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let patch = json!({"status": {"phase": phase, "conditions": [degraded]}});
        self.polecats()
            .patch_status(polecat, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// As refinery-ctl does it: a request of the bead that has landed.
    async fn land(&self, bead: &str) -> Result<()> {
        let api: Api<MergeRequest> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = format!("mr-{}", bead.replace('.', "-"));
        let request: MergeRequest = serde_json::from_value(json!({
            "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "MergeRequest", "metadata": {"name": name},
            "spec": {
                "rigRef": self.namespace, "sourceBranch": format!("feature/{bead}"), "commit": "a".repeat(40), "targetBranch": "main",
                "beadID": bead,
            },
        }))?;
        api.create(&PostParams::default(), &request).await?;
        api.patch_status(
            &name,
            &PatchParams::default(),
            &Patch::Merge(json!({"status": {"phase": "Landed"}})),
        )
        .await?;
        Ok(())
    }
}

fn said(status: &ConvoyStatus, kind: &str) -> (String, String, String) {
    conditions::find(&status.conditions, kind)
        .map(|said| (said.status.clone(), said.reason.clone(), said.message.clone()))
        .unwrap_or_default()
}

fn phase_of(status: &ConvoyStatus, bead: &str) -> Option<ConvoyBeadPhase> {
    status.beads.iter().find(|line| line.id == bead).map(|line| line.phase)
}

#[tokio::test]
async fn a_convoy_that_only_follows_is_as_the_go_operator_had_it() -> Result<()> {
    let ground = Ground::new().await?;
    ground
        .convoy("plain", &["gt-1", "gt-2"], |spec| (spec.dispatch, spec.rig_ref) = (false, None))
        .await?;
    let begun = ground
        .until("plain", "its beginning", |status| status.progress.as_deref() == Some("0/2"))
        .await?;
    ensure!(
        begun.phase == Some(ConvoyPhase::InProgress)
            && begun.started_at.is_some()
            && begun.pending_beads == ["gt-1", "gt-2"]
    );
    ensure!(
        said(&begun, condition::READY).1 == "Synced"
            && said(&begun, condition::COMPLETE).1 == "InProgress",
        "{begun:?}"
    );
    for bead in ["gt-1", "gt-2"] {
        let spec = PolecatSpec {
            bead_id: Some(bead.into()),
            desired_state: DesiredState::Working,
            ..PolecatSpec::of_rig("any")
        };
        ground.polecats().create(&PostParams::default(), &Polecat::new(bead, spec)).await?;
    }
    ground.phase("gt-1", "Done", "WorkComplete").await?;
    let half = ground
        .until("plain", "one done", |status| status.progress.as_deref() == Some("1/2"))
        .await?;
    ensure!(
        half.completed_beads == ["gt-1"]
            && half.pending_beads == ["gt-2"]
            && half.completed_at.is_none(),
        "{half:?}"
    );
    let counted =
        |convoy: Option<&Convoy>| convoy?.annotations().get(annotation::CONVOY_COUNTED).cloned();
    ensure!(
        until(PATIENCE, &ground.convoys(), "plain", "the count", counted).await?.contains("gt-1")
    );
    ground.polecats().delete("gt-1", &DeleteParams::default()).await?;
    ground.phase("gt-2", "Done", "WorkComplete").await?;
    let over = ground
        .until("plain", "the end", |status| status.phase == Some(ConvoyPhase::Complete))
        .await?;
    ensure!(
        over.progress.as_deref() == Some("2/2")
            && over.completed_at.is_some()
            && over.pending_beads.is_empty(),
        "{over:?}"
    );
    ensure!(said(&over, condition::COMPLETE).0 == "True");
    ensure!(ground.count().await? == 1, "it makes none");
    Ok(())
}

#[tokio::test]
async fn the_landing_that_frees_a_bead_starts_it_and_the_end_is_told_once() -> Result<()> {
    let ground = Ground::new().await?;
    ground.rig(8).await?;
    TOWN.put(&ground.namespace, Ok(vec![bead("gt-1", &[]), bead("gt-2", &["gt-1"])]));
    ground.store().await?;
    ground.convoy("chain", &["gt-1", "gt-2"], |_| {}).await?;
    let first = ground.made("gt-1").await?;
    let spec = &first.spec;
    ensure!(
        spec.bead_id.as_deref() == Some("gt-1")
            && spec.task_description.as_deref() == Some("Do gt-1\n\nWell."),
        "{spec:?}"
    );
    ensure!(
        spec.priority == Some(1)
            && spec.ttl_seconds_after_finished == Some(60)
            && spec.desired_state == DesiredState::Working
    );
    let kubernetes = spec.kubernetes.as_ref().context("no kubernetes")?;
    ensure!(
        kubernetes.git_repository == "https://example.com/a/b"
            && kubernetes.git_secret_ref.is_some(),
        "{kubernetes:?}"
    );
    ensure!(
        first.owner_references().is_empty()
            && first.labels().get(label::CONVOY).is_some_and(|convoy| convoy == "chain")
    );
    let waits = ground
        .until("chain", "the wait", |status| {
            phase_of(status, "gt-1") == Some(ConvoyBeadPhase::Working)
        })
        .await?;
    ensure!(
        phase_of(&waits, "gt-2") == Some(ConvoyBeadPhase::Blocked)
            && said(&waits, condition::VALID).0 == "True",
        "{waits:?}"
    );

    ground.phase(&first.name_any(), "Done", "WorkComplete").await?;
    ground
        .until("chain", "the submission", |status| {
            phase_of(status, "gt-1") == Some(ConvoyBeadPhase::Submitted)
        })
        .await?;
    ensure!(ground.count().await? == 1, "done is not landed");
    ground.land("gt-1").await?;
    ground.made("gt-2").await?;
    ground.land("gt-2").await?;
    let over = ground
        .until("chain", "the end", |status| status.phase == Some(ConvoyPhase::Complete))
        .await?;
    ensure!(over.progress.as_deref() == Some("2/2"), "{over:?}");

    // All that is known is derived again, and nothing is started or told twice.
    ground
        .convoys()
        .patch_status("chain", &PatchParams::default(), &Patch::Merge(json!({"status": null})))
        .await?;
    ground
        .until("chain", "the end again", |status| status.phase == Some(ConvoyPhase::Complete))
        .await?;
    ensure!(ground.count().await? == 2);
    let events: Api<Event> = Api::namespaced(ground.client.clone(), &ground.namespace);
    let complete = || async {
        let all = events.list(&ListParams::default()).await?.items;
        anyhow::Ok(
            all.into_iter()
                .filter(|event| event.reason.as_deref() == Some("Complete"))
                .collect::<Vec<_>>(),
        )
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while complete().await?.is_empty() {
        ensure!(tokio::time::Instant::now() < deadline, "nobody was told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = complete().await?;
    ensure!(told.len() == 1 && told[0].series.is_none(), "{told:?}");

    // Another bead opens it again.
    TOWN.put(
        &ground.namespace,
        Ok(vec![bead("gt-1", &[]), bead("gt-2", &["gt-1"]), bead("gt-3", &["gt-2"])]),
    );
    let patch = json!({"spec": {"trackedBeads": ["gt-1", "gt-2", "gt-3"]}});
    ground.convoys().patch("chain", &PatchParams::default(), &Patch::Merge(patch)).await?;
    ground.made("gt-3").await?;
    ground
        .until("chain", "its going on", |status| {
            status.phase == Some(ConvoyPhase::InProgress) && status.completed_at.is_none()
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn two_convoys_of_a_rig_do_not_exceed_its_capacity_and_share_a_bead() -> Result<()> {
    let ground = Ground::new().await?;
    ground.rig(2).await?;
    TOWN.put(&ground.namespace, Ok((1..=6).map(|n| bead(&format!("gt-{n}"), &[])).collect()));
    ground.store().await?;
    ground.convoy("one", &["gt-1", "gt-2", "gt-3", "gt-4"], |_| {}).await?;
    ground.convoy("two", &["gt-1", "gt-5", "gt-6"], |_| {}).await?;
    for convoy in ["one", "two"] {
        let full = |status: &ConvoyStatus| said(status, condition::PROGRESSING).1 == "AtCapacity";
        ground.until(convoy, "the rig to be full", full).await?;
    }
    ensure!(ground.count().await? == 2);
    // Each end of a Polecat makes one place, and one place only.
    for made in 3..=6 {
        let all = ground.polecats().list(&ListParams::default()).await?.items;
        let is_done = |polecat: &&Polecat| {
            polecat.status.as_ref().is_some_and(|status| status.phase.is_some())
        };
        let active = all.iter().find(|polecat| !is_done(polecat)).context("nobody works")?;
        ground.phase(&active.name_any(), "Done", "WorkComplete").await?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while ground.count().await? < made {
            ensure!(
                tokio::time::Instant::now() < deadline,
                "the place of {} stays empty",
                active.name_any()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ensure!(ground.count().await? == made);
    }
    Ok(())
}

#[tokio::test]
async fn a_store_that_cannot_be_asked_delays_and_says_so() -> Result<()> {
    let ground = Ground::new().await?;
    ground.rig(8).await?;
    ground.convoy("waiting", &["gt-1"], |_| {}).await?;
    let ready = |reason: &'static str| {
        move |status: &ConvoyStatus| said(status, condition::READY).1 == reason
    };
    ground.until("waiting", "the lack of a store", ready("NoBeadStore")).await?;
    TOWN.put(
        &ground.namespace,
        Err(Status::failed_precondition("NotSynced: the repository was not read yet")),
    );
    ground.store().await?;
    let waits =
        ground.until("waiting", "the store's trouble", ready("BeadStoreUnavailable")).await?;
    let progressing = said(&waits, condition::PROGRESSING);
    ensure!(
        progressing.1 == "BeadStoreUnavailable" && progressing.2.contains("NotSynced"),
        "{waits:?}"
    );
    ensure!(
        said(&waits, condition::VALID).0 == "Unknown"
            && phase_of(&waits, "gt-1") == Some(ConvoyBeadPhase::Unknown),
        "{waits:?}"
    );
    ensure!(ground.count().await? == 0);
    TOWN.put(&ground.namespace, Ok(vec![bead("gt-1", &[])]));
    ground.made("gt-1").await?;
    ground
        .until("waiting", "the work", |status| {
            phase_of(status, "gt-1") == Some(ConvoyBeadPhase::Working)
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_cycle_is_named_and_a_spent_polecat_sets_its_bead_aside() -> Result<()> {
    let ground = Ground::new().await?;
    ground.rig(8).await?;
    TOWN.put(
        &ground.namespace,
        Ok(vec![bead("gt-1", &["gt-2"]), bead("gt-2", &["gt-1"]), bead("gt-3", &[])]),
    );
    ground.store().await?;
    ground.convoy("knot", &["gt-1", "gt-2", "gt-3"], |_| {}).await?;
    let knot = ground
        .until("knot", "the cycle", |status| said(status, condition::VALID).1 == "DependencyCycle")
        .await?;
    ensure!(said(&knot, condition::VALID).2.contains("gt-1 → gt-2 → gt-1"), "{knot:?}");
    ensure!(ground.count().await? == 0, "nothing is started");
    TOWN.put(
        &ground.namespace,
        Ok(vec![bead("gt-1", &[]), bead("gt-2", &["gt-1"]), bead("gt-3", &[])]),
    );
    let first = ground.made("gt-1").await?;
    ground.made("gt-3").await?;
    ground.phase(&first.name_any(), "Stuck", "AttemptsSpent").await?;
    let aside =
        ground.until("knot", "the failure", |status| status.failed_beads == ["gt-1"]).await?;
    ensure!(aside.phase == Some(ConvoyPhase::InProgress), "gt-3 goes on: {aside:?}");
    ground.land("gt-3").await?;
    let over =
        ground.until("knot", "the end", |status| status.phase == Some(ConvoyPhase::Failed)).await?;
    ensure!(said(&over, condition::DEGRADED).2.contains("gt-1 (AttemptsSpent)"), "{over:?}");
    ensure!(
        phase_of(&over, "gt-2") == Some(ConvoyBeadPhase::Blocked) && ground.count().await? == 2
    );
    Ok(())
}
