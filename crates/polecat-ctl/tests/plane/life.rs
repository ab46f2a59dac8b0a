//! One life of a Polecat with a rework, a drain and a deletion, beside another one that waits for
//! the rig's only slot; and all that was seen of both. polecat-ctl may be another process at any
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt as _;
use gastown_api::names::{annotation, condition};
use gastown_api::{MergeRequest, Polecat, conditions};
use gastown_cluster::control_plane::ControlPlane;
use gastown_core::report::AgentExit;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::fixture::{Fixture, grant, make_rig, working};
use crate::is_terminal;
use crate::outcomes::{commit, done, ended};
use crate::replica::Settings;

/// What a life comes to. Names and times that differ from life to life are left out.
#[derive(Debug, PartialEq)]
pub struct End {
    /// The pods that were ever created.
    started: Vec<String>,
    /// The most pods that worked at one time.
    pub most_live: usize,
    /// The last ledger of the Polecat that was deleted.
    ledger: Value,
    /// The commits that were submitted, with their attempts.
    submitted: BTreeSet<(String, i32)>,
    /// What the other Polecat shows.
    other: Value,
    /// Finalizers and claims that nobody needs any more.
    left: Vec<String>,
}

/// What watches have shown.
#[derive(Default)]
struct Seen {
    pods: BTreeMap<String, Pod>,
    started: Vec<String>,
    most_live: usize,
    /// The last version of each Polecat.
    polecats: BTreeMap<String, Polecat>,
}

impl Seen {
    fn pod(&mut self, event: Event<Pod>) {
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                if self.pods.insert(pod.uid().unwrap(), pod.clone()).is_none() {
                    self.started.push(pod.name_any());
                }
            }
            Event::Delete(pod) => drop(self.pods.remove(&pod.uid().unwrap())),
            Event::Init | Event::InitDone => {}
        }
        let live = self.pods.values().filter(|p| !is_terminal(p)).count();
        self.most_live = self.most_live.max(live);
    }

    fn polecat(&mut self, event: Event<Polecat>) {
        if let Event::Apply(p) | Event::InitApply(p) | Event::Delete(p) = event {
            self.polecats.insert(p.name_any(), p);
        }
    }
}

pub struct Life<'a> {
    fixture: &'a Fixture,
    pub namespace: String,
    pub rig: String,
    seen: Arc<Mutex<Seen>>,
    _watches: [AbortOnDropHandle<()>; 2],
}

impl<'a> Life<'a> {
    /// A namespace and a rig of its own.
    pub async fn new(fixture: &'a Fixture) -> Self {
        let plane = ControlPlane::shared().await.unwrap();
        let namespace = plane.namespace().await.unwrap();
        grant(&fixture.admin, &namespace).await;
        let rig = format!("rig-{namespace}");
        make_rig(&fixture.admin, &rig, 1).await;
        let seen = Arc::<Mutex<Seen>>::default();
        let pods = Api::<Pod>::namespaced(fixture.admin.clone(), &namespace);
        let polecats = Api::<Polecat>::namespaced(fixture.admin.clone(), &namespace);
        let (first, second) = (seen.clone(), seen.clone());
        let watches = [
            watch(pods, move |event| first.lock().pod(event)),
            watch(polecats, move |event| second.lock().polecat(event)),
        ];
        Self { fixture, namespace, rig, seen, _watches: watches }
    }

    /// What polecat-ctl is started with.
    pub fn settings(&self) -> Settings {
        Settings { namespace: self.namespace.clone(), ..self.fixture.settings() }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.fixture.admin.clone(), &self.namespace)
    }

    async fn sling(&self, name: &str, bead: Option<&str>) -> Polecat {
        let mut spec = working(&self.rig);
        spec.bead_id = bead.map(str::to_owned);
        self.api().create(&PostParams::default(), &Polecat::new(name, spec)).await.unwrap()
    }

    async fn wait_reason(&self, name: &str, kind: &str, reason: &str) {
        let shown = |p: Polecat| {
            let status = p.status?;
            conditions::find(&status.conditions, kind).filter(|c| c.reason == reason).map(|_| ())
        };
        let what = format!("{reason} of {}/{name}", self.namespace);
        let look = || async { self.api().get_opt(name).await.unwrap().and_then(shown) };
        self.fixture.poll(&what, look).await;
    }

    /// Waits for a pod of the name that has not ended, and has it work.
    async fn at_work(&self, name: &str) -> Pod {
        let wanted = |p: &Pod| p.name_any() == name && !is_terminal(p);
        let pod = self.fixture.kubelet.wait_pod(&self.namespace, wanted).await.unwrap();
        self.fixture.kubelet.running(&pod).await.unwrap()
    }

    /// Waits until the pod is drained, and ends it with commit `n` on the remote.
    async fn end_drained(&self, pod: &Pod, n: u32) {
        let uid = pod.uid();
        let drained = |p: &Pod| p.uid() == uid && p.annotations().contains_key(annotation::DRAIN);
        let kubelet = &self.fixture.kubelet;
        let pod = kubelet.wait_pod(&self.namespace, drained).await.unwrap();
        assert!(pod.metadata.deletion_timestamp.is_none(), "its work is not saved yet");
        kubelet.finish(&pod, &ended(AgentExit::Drained, Some(n))).await.unwrap();
        kubelet.wait_gone(&pod).await.unwrap();
    }

    async fn want(&self, name: &str, state: &str) {
        let patch = Patch::Merge(json!({ "spec": { "desiredState": state } }));
        let api = self.api::<Polecat>();
        api.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits for the request of the commit, and sends it back.
    async fn send_back(&self, commit: &str) {
        let api = self.api::<MergeRequest>();
        let look = || async {
            let all = api.list(&ListParams::default()).await.unwrap();
            all.into_iter().find(|r| r.spec.commit == commit)
        };
        let request = self.fixture.poll("MergeRequest", look).await;
        let status = json!({ "status": { "phase": "Rework", "reason": "GateFailed" } });
        let params = PatchParams::default();
        api.patch_status(&request.name_any(), &params, &Patch::Merge(&status)).await.unwrap();
    }

    /// What people, the kubelet and the refinery do.
    pub async fn live(&self) -> End {
        let kubelet = &self.fixture.kubelet;
        let toast = self.sling("toast", Some("web-1")).await;
        let first = self.at_work("polecat-toast").await;
        self.sling("other", None).await;
        self.wait_reason("other", condition::ADMITTED, "AtCapacity").await;
        kubelet.finish(&first, &done(1)).await.unwrap();
        let others = self.at_work("polecat-other").await;
        self.send_back(&commit(1)).await;
        self.wait_reason("toast", condition::ADMITTED, "AtCapacity").await;
        kubelet.finish(&others, &done(9)).await.unwrap();

        let rework = format!("polecat-toast-{}-2", &toast.uid().unwrap()[..5]);
        let second = self.at_work(&rework).await;
        self.want("toast", "Idle").await;
        self.end_drained(&second, 2).await;
        self.wait_reason("toast", condition::READY, "Idle").await;
        self.want("toast", "Working").await;
        let third = self.at_work(&rework).await;
        self.api::<Polecat>().delete("toast", &DeleteParams::default()).await.unwrap();
        self.end_drained(&third, 3).await;
        let gone = || async {
            self.api::<Polecat>().get_opt("toast").await.unwrap().is_none().then_some(())
        };
        self.fixture.poll("deletion", gone).await;
        self.wait_reason("other", condition::SUBMITTED, "Submitted").await;
        self.end(&toast).await
    }

    async fn end(&self, toast: &Polecat) -> End {
        let uid = toast.uid().unwrap();
        let unneeded = || async {
            let left = self.left().await;
            left.is_empty().then_some(left)
        };
        let left = self.fixture.poll("end without finalizers and claims", unneeded).await;
        let all = self.api::<MergeRequest>().list(&ListParams::default()).await.unwrap();
        let submitted = all.into_iter().map(|r| (r.spec.commit, r.spec.attempt)).collect();
        let other = self.api::<Polecat>().get("other").await.unwrap().status.unwrap();
        let other = json!({
            "phase": other.phase, "commit": other.commit, "attempts": other.attempts,
            "request": other.merge_request, "pod": other.pod_name,
        });
        let seen = self.seen.lock();
        let mut started: Vec<String> =
            seen.started.iter().map(|name| name.replace(&uid[..5], "UID")).collect();
        started.sort();
        let ledger = &seen.polecats["toast"].annotations()[annotation::LEDGER];
        let ledger = comparable(serde_json::from_str(ledger).unwrap());
        End { started, most_live: seen.most_live, ledger, submitted, other, left }
    }

    /// Finalizers and claims that are left.
    async fn left(&self) -> Vec<String> {
        let all = ListParams::default();
        let pods = self.api::<Pod>().list(&all).await.unwrap();
        let polecats = self.api::<Polecat>().list(&all).await.unwrap();
        let claims = self.api::<Lease>().list(&all).await.unwrap();
        let held = pods.iter().filter(|p| !p.finalizers().is_empty()).map(ResourceExt::name_any);
        let kept =
            polecats.iter().filter(|p| !p.finalizers().is_empty()).map(ResourceExt::name_any);
        held.chain(kept).chain(claims.iter().map(ResourceExt::name_any)).collect()
    }

    /// Deletes what it made, so that the next test's controller has nothing to do with it.
    pub async fn close(self) {
        let (now, all) = (DeleteParams::default().grace_period(0), ListParams::default());
        self.api::<Polecat>().delete_collection(&now, &all).await.unwrap();
        self.api::<Pod>().delete_collection(&now, &all).await.unwrap();
    }
}

fn watch<K>(api: Api<K>, mut seen: impl FnMut(Event<K>) + Send + 'static) -> AbortOnDropHandle<()>
where
    K: Resource
        + Clone
        + k8s_openapi::serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        while let Some(event) = events.next().await {
            seen(event.unwrap());
        }
    }))
}

/// A ledger without what differs from life to life: times, and what names the rig.
fn comparable(mut ledger: Value) -> Value {
    ledger["pods"] = json!(ledger["pods"].as_array().map(Vec::len));
    for differs in ["spec", "started", "marks"] {
        ledger[differs] = Value::Null;
    }
    ledger["last"]["at"] = Value::Null;
    ledger
}
