//! Observes pods that start and end and requests that land, as it happens: the times in objects are
//! whole seconds.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use anyhow::Result;
use futures::StreamExt as _;
use gastown_api::names::label;
use gastown_api::{MergePhase, MergeRequest, Polecat, PolecatPhase};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event as Watched};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::freed::{Event, What};

/// Watches a namespace until [`Observer::finish`].
#[derive(Debug)]
pub struct Observer {
    stop: watch::Sender<()>,
    watches: JoinSet<Vec<Event>>,
}

impl Observer {
    /// Begins. Objects that exist already are ignored.
    pub fn start(client: &Client, namespace: &str) -> Self {
        let (stop, stopped) = watch::channel(());
        let start = Instant::now();
        let mut watches = JoinSet::new();
        let pods = Api::namespaced(client.clone(), namespace);
        let polecats = Api::namespaced(client.clone(), namespace);
        let requests = Api::namespaced(client.clone(), namespace);
        watches.spawn(follow(pods, start, stopped.clone(), Pods::default()));
        watches.spawn(follow(polecats, start, stopped.clone(), Dones::default()));
        watches.spawn(follow(requests, start, stopped, Landings::default()));
        Self { stop, watches }
    }

    /// All that was seen.
    pub async fn finish(mut self) -> Result<Vec<Event>> {
        drop(self.stop);
        let mut all = Vec::new();
        while let Some(seen) = self.watches.join_next().await {
            all.extend(seen?);
        }
        Ok(all)
    }
}

/// Derives from the states of objects what happened to them.
trait Notes<K> {
    /// The object has this state now.
    fn is(&mut self, object: &K) -> Vec<What>;

    /// The object was deleted.
    fn gone(&mut self, object: &K) -> Vec<What>;
}

async fn follow<K, N>(
    api: Api<K>,
    start: Instant,
    mut stopped: watch::Receiver<()>,
    mut notes: N,
) -> Vec<Event>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    N: Notes<K>,
{
    // Dropping the sender ends the watch.
    let stop = Box::pin(async move { drop(stopped.changed().await) });
    let mut events = watcher::watcher(api, watcher::Config::default())
        .default_backoff()
        .take_until(stop)
        .boxed();
    let (mut seen, mut listed) = (Vec::new(), false);
    while let Some(event) = events.next().await {
        let what = match event {
            Ok(Watched::Apply(object) | Watched::InitApply(object)) => notes.is(&object),
            Ok(Watched::Delete(object)) => notes.gone(&object),
            Ok(Watched::InitDone) => {
                listed = true;
                Vec::new()
            }
            // The watch starts again by itself.
            Ok(Watched::Init) | Err(_) => Vec::new(),
        };
        let at = start.elapsed();
        seen.extend(what.into_iter().filter(|_| listed).map(|what| Event { at, what }));
    }
    seen
}

/// The pods of Polecats, by uid.
#[derive(Default)]
struct Pods(HashMap<String, Seen>);

/// What was seen of a pod.
#[derive(Default)]
struct Seen {
    exited: bool,
    ended: bool,
}

impl Pods {
    fn end(&mut self, uid: String) -> Option<What> {
        let seen = self.0.entry(uid).or_insert(Seen { exited: true, ended: true });
        (!std::mem::replace(&mut seen.ended, true)).then_some(What::Ended)
    }
}

/// The bead and the attempt of a pod.
fn attempt(pod: &Pod) -> (String, u32) {
    let text = |key: &str| pod.labels().get(key).cloned().unwrap_or_default();
    (text(label::BEAD), text(label::ATTEMPT).parse().unwrap_or_default())
}

fn agent_has_ended(pod: &Pod) -> bool {
    let all = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let mut agents = all.filter(|c| c.name == "claude");
    agents.any(|c| c.state.as_ref().is_some_and(|s| s.terminated.is_some()))
}

fn is_polecats(pod: &Pod) -> bool {
    pod.owner_references().iter().any(|o| o.kind == "Polecat" && o.controller == Some(true))
}

impl Notes<Pod> for Pods {
    fn is(&mut self, pod: &Pod) -> Vec<What> {
        if !is_polecats(pod) {
            return Vec::new();
        }
        let uid = pod.uid().unwrap_or_default();
        let mut what = Vec::new();
        if !self.0.contains_key(&uid) {
            let (bead, attempt) = attempt(pod);
            what.push(What::Started { bead, attempt });
            self.0.insert(uid.clone(), Seen::default());
        }
        if let Some(seen) = self.0.get_mut(&uid).filter(|seen| !seen.exited && agent_has_ended(pod))
        {
            seen.exited = true;
            let (bead, attempt) = attempt(pod);
            what.push(What::Exited { bead, attempt });
        }
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            what.extend(self.end(uid));
        }
        what
    }

    fn gone(&mut self, pod: &Pod) -> Vec<What> {
        let ended = is_polecats(pod).then(|| self.end(pod.uid().unwrap_or_default()));
        ended.flatten().into_iter().collect()
    }
}

/// The last attempt of each Polecat that is done, by uid.
#[derive(Default)]
struct Dones(HashMap<String, u32>);

impl Notes<Polecat> for Dones {
    fn is(&mut self, polecat: &Polecat) -> Vec<What> {
        let status = polecat.status.as_ref();
        let done = status.filter(|s| s.phase == Some(PolecatPhase::Done));
        let attempt = done.and_then(|s| u32::try_from(s.attempts?).ok());
        let (Some(attempt), Some(bead)) = (attempt, polecat.spec.bead_id.clone()) else {
            return Vec::new();
        };
        let before = self.0.insert(polecat.uid().unwrap_or_default(), attempt);
        if before == Some(attempt) { Vec::new() } else { vec![What::Done { bead, attempt }] }
    }

    fn gone(&mut self, _: &Polecat) -> Vec<What> {
        Vec::new()
    }
}

/// Requests that have landed, by uid.
#[derive(Default)]
struct Landings(HashSet<String>);

impl Notes<MergeRequest> for Landings {
    fn is(&mut self, request: &MergeRequest) -> Vec<What> {
        let landed = request.status.as_ref().and_then(|s| s.phase) == Some(MergePhase::Landed);
        let fresh = landed && self.0.insert(request.uid().unwrap_or_default());
        let bead = request.spec.bead_id.clone().filter(|_| fresh);
        bead.map(|bead| What::Landed { bead }).into_iter().collect()
    }

    fn gone(&mut self, _: &MergeRequest) -> Vec<What> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, phase: &str) -> Pod {
        let owner = json!({"apiVersion": "gastown.gastown.io/v1alpha1", "kind": "Polecat", "name": "p", "uid": "u", "controller": true});
        let labels = json!({label::BEAD: "gt-1", label::ATTEMPT: "2"});
        let metadata =
            json!({"name": uid, "uid": uid, "labels": labels, "ownerReferences": [owner]});
        serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}})).unwrap()
    }

    #[test]
    fn a_pod_starts_once_and_ends_once_however_often_it_changes() {
        let mut pods = Pods::default();
        let started = What::Started { bead: "gt-1".into(), attempt: 2 };
        assert_eq!(pods.is(&pod("a", "Pending")), std::slice::from_ref(&started));
        assert_eq!(pods.is(&pod("a", "Running")), []);
        assert_eq!(pods.is(&pod("a", "Succeeded")), [What::Ended]);
        assert_eq!(pods.is(&pod("a", "Succeeded")), []);
        assert_eq!(pods.gone(&pod("a", "Succeeded")), []);
        assert_eq!(pods.is(&pod("b", "Running")), [started]);
        assert_eq!(pods.gone(&pod("b", "Running")), [What::Ended]);
        let stranger = Pod { status: pod("c", "Running").status, ..Pod::default() };
        assert_eq!(pods.is(&stranger), []);
    }

    #[test]
    fn a_request_lands_once() {
        let request = |phase: &str| -> MergeRequest {
            let spec = json!({"rigRef": "web", "sourceBranch": "b", "commit": "a".repeat(40), "targetBranch": "main", "beadID": "gt-1"});
            let object = json!({"apiVersion": "x", "kind": "y", "metadata": {"name": "mr", "uid": "u"}, "spec": spec, "status": {"phase": phase}});
            serde_json::from_value(object).unwrap()
        };
        let mut landings = Landings::default();
        assert_eq!(landings.is(&request("Testing")), []);
        assert_eq!(landings.is(&request("Landed")), [What::Landed { bead: "gt-1".into() }]);
        assert_eq!(landings.is(&request("Landed")), []);
    }
}
