//! What is kept of a pod: there are thousands of them, and most of each is what polecat-ctl wrote
//! itself.

use std::borrow::Cow;

use gastown_api::Polecat;
use gastown_api::names::annotation;
use gastown_runtime::ours;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::metadata::{ASKED, DEADLINE, GIT_INIT, GIT_SYNC, WORK_BRANCH};

/// The annotations that are read.
const ANNOTATIONS: [&str; 3] = [ASKED, annotation::DRAIN, annotation::TRACE_BEGIN];

/// A pod of an agent, as far as anything is decided by it. It is read from a pod, and never written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Pod")]
pub(crate) struct AgentPod {
    /// Its metadata, without labels and with those annotations alone that are read.
    pub metadata: ObjectMeta,
    /// Whether it has a node.
    pub scheduled: bool,
    /// The branch that its work is pushed to.
    pub branch: Option<String>,
    /// The seconds that its agent may take, as the sidecar reads them.
    pub deadline: Option<String>,
    /// Whether the sidecar's readiness states whether everything is saved.
    pub has_probe: bool,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    pub phase: Option<String>,
    /// Why the kubelet or a controller ended it, as one word.
    pub reason: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// When the kubelet took it.
    pub started: Option<Timestamp>,
    /// The condition that states why no node takes it.
    pub unscheduled: Option<Box<PodCondition>>,
    /// The condition that states why the platform ends it.
    pub disrupted: Option<Box<PodCondition>>,
    /// Its init containers, and then the others.
    pub containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Whether it is one of the init containers.
    pub is_init: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// How it is.
    pub state: ContainerState,
    /// How it ended before it was started again.
    pub last: Option<Box<ContainerStateTerminated>>,
}

impl Resource for AgentPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl From<Pod> for AgentPod {
    fn from(pod: Pod) -> Self {
        let mut metadata = pod.metadata;
        metadata.labels = None;
        if let Some(annotations) = &mut metadata.annotations {
            annotations.retain(|key, _| ANNOTATIONS.contains(&key.as_str()));
        }
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let init = status.init_container_statuses.into_iter().flatten().map(|c| container(c, true));
        let others = status.container_statuses.into_iter().flatten().map(|c| container(c, false));
        let (mut unscheduled, mut disrupted) = (None, None);
        for condition in status.conditions.into_iter().flatten() {
            match (condition.type_.as_str(), condition.status.as_str()) {
                ("PodScheduled", "False") => unscheduled = Some(Box::new(condition)),
                ("DisruptionTarget", "True") => disrupted = Some(Box::new(condition)),
                _ => {}
            }
        }
        let sidecar = spec.init_containers.iter().flatten().find(|c| c.name == GIT_SYNC);
        Self {
            metadata,
            scheduled: spec.node_name.as_deref().is_some_and(|node| !node.is_empty()),
            branch: variable(&spec, GIT_INIT, WORK_BRANCH),
            deadline: variable(&spec, GIT_SYNC, DEADLINE),
            has_probe: sidecar.is_some_and(|c| c.readiness_probe.is_some()),
            phase: status.phase,
            reason: status.reason,
            message: status.message,
            started: status.start_time.map(|time| time.0),
            unscheduled,
            disrupted,
            containers: init.chain(others).collect(),
        }
    }
}

fn container(status: ContainerStatus, is_init: bool) -> Container {
    Container {
        name: status.name,
        image: status.image,
        is_init,
        ready: status.ready,
        state: status.state.unwrap_or_default(),
        last: status.last_state.and_then(|last| last.terminated).map(Box::new),
    }
}

/// The value of a variable of an init container, whose dollars our own builder doubled.
fn variable(spec: &PodSpec, container: &str, name: &str) -> Option<String> {
    let container = spec.init_containers.iter().flatten().find(|c| c.name == container)?;
    let variable = container.env.iter().flatten().find(|e| e.name == name)?;
    Some(variable.value.as_ref()?.replace("$$", "$"))
}

impl AgentPod {
    /// The container of this name.
    pub(crate) fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase.as_deref(), Some("Succeeded" | "Failed"))
    }
}

/// The uid of the Polecat that a pod belongs to, by its controller reference.
pub(crate) fn owner_uid(pod: &AgentPod) -> Option<&str> {
    ours::controller::<Polecat>(pod).map(|owner| owner.uid.as_str())
}

/// The value of `gastown.io/drain` on a pod.
pub(crate) fn drain(pod: &AgentPod) -> Option<&String> {
    pod.metadata.annotations.as_ref()?.get(annotation::DRAIN)
}
