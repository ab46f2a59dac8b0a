//! The test kubelet: pods of a plane without nodes run, end and get lost as a test orders.
//!
//! It writes what the real kubelet writes and nothing else: a binding to a node, the containers'
//! states with their termination messages where they really appear (native sidecars among the init
//! containers), the phase that follows from them, and a Node that disappears. It decides nothing by
//! itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// How long a test waits for a pod that should come.
const POD_LIMIT: Duration = Duration::from_mins(1);

/// How one container ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to its termination log.
    pub message: String,
    /// The kubelet's reason, such as `OOMKilled`; when empty it follows from the code.
    pub reason: String,
}

impl Exit {
    /// An end with a termination message.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), reason: String::new() }
    }

    /// Killed by the kernel for its memory.
    pub fn out_of_memory() -> Self {
        Self { code: 137, message: String::new(), reason: "OOMKilled".into() }
    }

    fn state(&self) -> Value {
        let reason = match (self.reason.as_str(), self.code) {
            ("", 0) => "Completed",
            ("", _) => "Error",
            (given, _) => given,
        };
        let mut state = json!({"exitCode": self.code, "reason": reason, "startedAt": now(), "finishedAt": now()});
        if !self.message.is_empty() {
            state["message"] = self.message.clone().into();
        }
        json!({"terminated": state})
    }
}

/// How a pod ends: the exit of each container by its name. A container that is not named here never
/// started, or, when the pod ends well, ended with code 0 and no message.
#[derive(Clone, Debug, Default)]
pub struct Outcome(BTreeMap<String, Exit>);

impl Outcome {
    /// No container has an exit of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The outcome of a polecat's pod whose three containers ended: `git-init`, `git-sync`,
    /// `claude`.
    pub fn polecat(init: Exit, sync: Exit, run: Exit) -> Self {
        Self::new().with("git-init", init).with("git-sync", sync).with("claude", run)
    }

    /// The outcome of a polecat's pod that never got further than `git-init`.
    pub fn init_failed(init: Exit) -> Self {
        Self::new().with("git-init", init)
    }

    /// Adds the exit of one container.
    #[must_use]
    pub fn with(mut self, container: &str, exit: Exit) -> Self {
        self.0.insert(container.to_owned(), exit);
        self
    }
}

/// Acts as the kubelet of a node of its own.
pub struct TestKubelet {
    client: Client,
    node: OnceCell<String>,
}

impl TestKubelet {
    /// A kubelet whose Node is created when the first pod is bound to it.
    pub fn new(client: Client) -> Self {
        Self { client, node: OnceCell::new() }
    }

    /// Waits for a pod that matches the predicate.
    pub async fn wait_pod(&self, namespace: &str, wanted: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let events = watcher(self.pods(namespace), watcher::Config::default())
            .default_backoff()
            .applied_objects();
        let search = async {
            let mut found =
                std::pin::pin!(events.try_filter(|pod| std::future::ready(wanted(pod))));
            found.try_next().await?.context("the watch ended")
        };
        tokio::time::timeout(POD_LIMIT, search)
            .await
            .with_context(|| format!("no such pod in {namespace} after {POD_LIMIT:?}"))?
    }

    /// Waits until a pod of this uid is deleted.
    pub async fn wait_gone(&self, pod: &Pod) -> Result<()> {
        let (api, name, uid) =
            (self.api_of(pod)?, pod.name_any(), pod.uid().context("the pod has no uid")?);
        let gone = kube::runtime::wait::await_condition(
            api,
            &name,
            kube::runtime::wait::conditions::is_deleted(&uid),
        );
        tokio::time::timeout(POD_LIMIT, gone)
            .await
            .with_context(|| format!("pod {name} was still there after {POD_LIMIT:?}"))??;
        Ok(())
    }

    /// Binds the pod and lets it run: ordinary init containers are done, sidecars and containers
    /// run and are ready.
    pub async fn running(&self, pod: &Pod) -> Result<Pod> {
        self.running_after(pod, &Outcome::new()).await
    }

    /// As [`Self::running`]; the init containers that are done end as in the outcome.
    pub async fn running_after(&self, pod: &Pod, init: &Outcome) -> Result<Pod> {
        self.bind(pod).await?;
        let done = Exit::default();
        let spec = pod.spec.as_ref().context("the pod has no spec")?;
        let inits = spec.init_containers.iter().flatten().map(|c| {
            let state = if is_sidecar(c) {
                running()
            } else {
                init.0.get(&c.name).unwrap_or(&done).state()
            };
            status_of(c, &state)
        });
        let containers = spec.containers.iter().map(|c| status_of(c, &running()));
        let status = json!({
            "phase": "Running", "startTime": now(), "hostIP": "198.18.0.1", "podIP": "198.18.0.9",
            "conditions": [condition("Ready", "True", "")],
            "initContainerStatuses": inits.collect::<Vec<_>>(),
            "containerStatuses": containers.collect::<Vec<_>>(),
        });
        self.patch_status(pod, &status).await
    }

    /// Ends the pod: each container ends as in the outcome, and the phase follows as the kubelet derives
    /// it.
    pub async fn finish(&self, pod: &Pod, outcome: &Outcome) -> Result<Pod> {
        self.bind(pod).await?;
        self.patch_status(pod, &ended(pod, outcome)?).await
    }

    /// Ends the pod as the kubelet ends a deleted one: its containers end as in the outcome, then the
    /// pod is removed, unless a finalizer holds it.
    pub async fn terminate(&self, pod: &Pod, outcome: &Outcome) -> Result<()> {
        self.finish(pod, outcome).await?;
        let conditions = Preconditions { uid: pod.uid(), resource_version: None };
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(conditions),
            ..DeleteParams::default()
        };
        match self.api_of(pod)?.delete(&pod.name_any(), &now).await {
            Err(kube::Error::Api(error)) if error.is_not_found() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// A running container becomes ready, or is not ready any more.
    pub async fn readiness(&self, pod: &Pod, container: &str, ready: bool) -> Result<Pod> {
        self.change_container(pod, container, &json!({ "ready": ready })).await
    }

    /// One container ends; the pod's phase stays as it is.
    pub async fn end_container(&self, pod: &Pod, container: &str, exit: &Exit) -> Result<Pod> {
        let change = json!({ "ready": false, "started": false, "state": exit.state() });
        self.change_container(pod, container, &change).await
    }

    /// A container of others, which a webhook injected, runs in the pod.
    pub async fn inject(&self, pod: &Pod, container: &str) -> Result<Pod> {
        let status = json!({
            "name": container, "image": "stranger", "imageID": "", "ready": true, "restartCount": 0,
            "state": running(),
        });
        let mut all = self.statuses(pod, "containerStatuses").await?;
        all.push(status);
        self.patch_status(pod, &json!({ "containerStatuses": all })).await
    }

    /// The pod is on the node, and a container cannot be started for this reason.
    pub async fn blocked(&self, pod: &Pod, container: &str, reason: &str) -> Result<Pod> {
        self.bind(pod).await?;
        let waiting = json!({ "waiting": { "reason": reason, "message": "as the test wants it" } });
        let status = json!({
            "name": container, "image": "img:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": waiting,
        });
        let status =
            json!({ "phase": "Pending", "startTime": now(), "containerStatuses": [status] });
        self.patch_status(pod, &status).await
    }

    async fn statuses(&self, pod: &Pod, list: &str) -> Result<Vec<Value>> {
        let now = serde_json::to_value(self.api_of(pod)?.get(&pod.name_any()).await?)?;
        Ok(now["status"][list].as_array().cloned().unwrap_or_default())
    }

    async fn change_container(&self, pod: &Pod, container: &str, change: &Value) -> Result<Pod> {
        let mut status = json!({});
        for list in ["initContainerStatuses", "containerStatuses"] {
            let mut all = self.statuses(pod, list).await?;
            for one in all.iter_mut().filter(|c| c["name"] == container) {
                for (key, value) in change.as_object().into_iter().flatten() {
                    one[key] = value.clone();
                }
            }
            status[list] = all.into();
        }
        self.patch_status(pod, &status).await
    }

    /// Evicts the pod as a kubelet under pressure does: Failed with reason `Evicted`; what ran was
    /// killed.
    pub async fn evict(&self, pod: &Pod) -> Result<Pod> {
        self.bind(pod).await?;
        let killed = Exit { code: 137, message: String::new(), reason: "Error".into() };
        let names = pod.spec.iter().flat_map(|s| {
            s.init_containers.iter().flatten().filter(|c| is_sidecar(c)).chain(&s.containers)
        });
        let outcome =
            names.fold(Outcome::new(), |outcome, c| outcome.with(&c.name, killed.clone()));
        let mut status = ended(pod, &outcome)?;
        status["phase"] = "Failed".into();
        status["reason"] = "Evicted".into();
        status["message"] = "The node was low on resource: memory.".into();
        status["conditions"] = json!([
            condition("DisruptionTarget", "True", "TerminationByKubelet"),
            condition("Ready", "False", "")
        ]);
        self.patch_status(pod, &status).await
    }

    /// The node becomes unreachable: it is Ready=Unknown and tainted, the pod's Ready is False, its phase
    /// stays as it was.
    pub async fn node_unreachable(&self, pod: &Pod) -> Result<Pod> {
        self.bind(pod).await?;
        let node = self.node().await?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let taint = json!({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": now()});
        let tainted = json!({"spec": {"taints": [taint]}});
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(&tainted)).await?;
        let unknown =
            json!({"status": {"conditions": [condition("Ready", "Unknown", "NodeStatusUnknown")]}});
        nodes.patch_status(node, &PatchParams::default(), &Patch::Merge(&unknown)).await?;
        let lost =
            json!({"reason": "NodeLost", "conditions": [condition("Ready", "False", "NodeLost")]});
        self.patch_status(pod, &lost).await
    }

    /// The node is lost: its Node is deleted while the pod is still bound to it and Running.
    pub async fn node_lost(&self, pod: &Pod) -> Result<()> {
        self.bind(pod).await?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.delete(self.node().await?, &DeleteParams::default()).await?;
        Ok(())
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn api_of(&self, pod: &Pod) -> Result<Api<Pod>> {
        Ok(self.pods(&pod.namespace().context("the pod has no namespace")?))
    }

    async fn patch_status(&self, pod: &Pod, status: &Value) -> Result<Pod> {
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
        let done = self
            .api_of(pod)?
            .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        done.with_context(|| format!("writing the status of pod {}", pod.name_any()))
    }

    /// Binds the pod to the node as the scheduler would, once.
    async fn bind(&self, pod: &Pod) -> Result<()> {
        let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
        let api = self.api_of(pod)?;
        if is_bound(pod) || is_bound(&api.get(&pod.name_any()).await?) {
            return Ok(());
        }
        let target = json!({"apiVersion": "v1", "kind": "Node", "name": self.node().await?});
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod.name_any()}, "target": target});
        let _: Value = api
            .create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding)
            .await?;
        Ok(())
    }

    /// The name of this kubelet's Node, which is created on first use.
    async fn node(&self) -> Result<&str> {
        let make = || async {
            let nodes: Api<Node> = Api::all(self.client.clone());
            let wanted: Node =
                serde_json::from_value(json!({"metadata": {"generateName": "test-kubelet-"}}))?;
            let name = nodes
                .create(&PostParams::default(), &wanted)
                .await
                .context("creating a Node")?
                .name_any();
            let ready =
                json!({"status": {"conditions": [condition("Ready", "True", "KubeletReady")]}});
            nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(&ready)).await?;
            anyhow::Ok(name)
        };
        Ok(self.node.get_or_try_init(make).await?.as_str())
    }

    /// How many pods the namespace holds now; for tests that count.
    pub async fn count(&self, namespace: &str) -> Result<usize> {
        Ok(self.pods(namespace).list(&ListParams::default()).await?.items.len())
    }
}

/// The status of a pod whose containers ended, as the kubelet derives it. Pure.
fn ended(pod: &Pod, outcome: &Outcome) -> Result<Value> {
    let spec = pod.spec.as_ref().context("the pod has no spec")?;
    let inits: Vec<&Container> = spec.init_containers.iter().flatten().collect();
    let ended_well = Exit::default();
    let failed_at = inits
        .iter()
        .position(|c| !is_sidecar(c) && outcome.0.get(&c.name).is_some_and(|e| e.code != 0));
    let waiting = json!({"waiting": {"reason": "PodInitializing"}});
    let state = |container: &Container, reached: bool| {
        let exit = outcome.0.get(&container.name).or(reached.then_some(&ended_well));
        exit.map_or_else(|| waiting.clone(), Exit::state)
    };
    let init_statuses: Vec<Value> = inits
        .iter()
        .enumerate()
        .map(|(at, c)| status_of(c, &state(c, failed_at.is_none_or(|failed| at < failed))))
        .collect();
    let statuses: Vec<Value> =
        spec.containers.iter().map(|c| ended_status(c, &state(c, failed_at.is_none()))).collect();
    // A sidecar's own exit code does not count.
    let container_failed =
        spec.containers.iter().any(|c| outcome.0.get(&c.name).is_some_and(|e| e.code != 0));
    let phase = if failed_at.is_some() || container_failed { "Failed" } else { "Succeeded" };
    let why = if phase == "Succeeded" { "PodCompleted" } else { "PodFailed" };
    Ok(json!({
        "phase": phase,
        "conditions": [condition("Ready", "False", why)],
        "initContainerStatuses": init_statuses,
        "containerStatuses": statuses,
    }))
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn running() -> Value {
    json!({"running": {"startedAt": now()}})
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": now()})
}

/// A container's status. An ordinary init container that ended well counts as ready, what ended
/// otherwise never does.
fn status_of(container: &Container, state: &Value) -> Value {
    let started = state.get("running").is_some();
    let done = state["terminated"]["reason"] == "Completed" && container.restart_policy.is_none();
    json!({
        "name": container.name, "image": container.image, "imageID": "sha256:0", "ready": started || done,
        "restartCount": 0, "started": started, "state": state,
    })
}

/// As [`status_of`], of an ordinary container whose pod has ended: never ready.
fn ended_status(container: &Container, state: &Value) -> Value {
    let mut status = status_of(container, state);
    status["ready"] = false.into();
    status
}

/// The API server's format of this moment.
fn now() -> String {
    k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "git-init", "image": "i"}, {"name": "git-sync", "image": "i", "restartPolicy": "Always"}],
            "containers": [{"name": "claude", "image": "i"}],
        }}))
        .unwrap()
    }

    fn message<'a>(status: &'a Value, list: &str, at: usize) -> &'a Value {
        &status[list][at]["state"]["terminated"]["message"]
    }

    #[test]
    fn messages_of_init_and_sidecar_are_among_the_init_containers() {
        let outcome =
            Outcome::polecat(Exit::new(0, "init"), Exit::new(0, "sync"), Exit::new(0, "run"));
        let status = ended(&pod(), &outcome).unwrap();
        assert_eq!(status["phase"], "Succeeded");
        assert_eq!(message(&status, "initContainerStatuses", 0), "init");
        assert_eq!(message(&status, "initContainerStatuses", 1), "sync");
        assert_eq!(message(&status, "containerStatuses", 0), "run");
        let ready = |list: &str, at: usize| status[list][at]["ready"].as_bool();
        assert_eq!(ready("initContainerStatuses", 0), Some(true));
        assert_eq!(ready("initContainerStatuses", 1), Some(false));
        assert_eq!(ready("containerStatuses", 0), Some(false));
    }

    #[test]
    fn after_a_failed_init_no_other_container_started() {
        let status = ended(&pod(), &Outcome::init_failed(Exit::new(1, "no secret"))).unwrap();
        assert_eq!(status["phase"], "Failed");
        assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 1);
        assert_eq!(
            status["initContainerStatuses"][1]["state"]["waiting"]["reason"],
            "PodInitializing"
        );
        assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    }

    #[test]
    fn a_failed_sidecar_does_not_fail_the_pod_and_a_failed_container_does() {
        let sidecar = Outcome::polecat(Exit::default(), Exit::new(1, ""), Exit::default());
        assert_eq!(ended(&pod(), &sidecar).unwrap()["phase"], "Succeeded");
        let container = Outcome::polecat(Exit::default(), Exit::default(), Exit::out_of_memory());
        let status = ended(&pod(), &container).unwrap();
        assert_eq!(status["phase"], "Failed");
        assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "OOMKilled");
    }
}
