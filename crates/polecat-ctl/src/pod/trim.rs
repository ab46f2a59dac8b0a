//! What is kept of a pod: there are thousands of them, and most of each is what polecat-ctl wrote
//! itself.

use gastown_api::names::annotation;
use gastown_runtime::watch::Trim;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, Probe};

use super::metadata::{ASKED, DEADLINE, GIT_INIT, GIT_SYNC, WORK_BRANCH};

/// Removes what no decision about a Polecat reads.
#[derive(Clone, Debug)]
pub(crate) struct Observed;

impl Trim<Pod> for Observed {
    fn trim(pod: &mut Pod) {
        pod.metadata.labels = None;
        if let Some(annotations) = &mut pod.metadata.annotations {
            let read = [ASKED, annotation::DRAIN, annotation::TRACE_BEGIN];
            annotations.retain(|key, _| read.contains(&key.as_str()));
        }
        if let Some(spec) = pod.spec.take() {
            let ours = spec.init_containers.into_iter().flatten();
            let ours = ours.filter(|c| c.name == GIT_INIT || c.name == GIT_SYNC).map(container);
            pod.spec = Some(PodSpec {
                node_name: spec.node_name,
                init_containers: Some(ours.collect()),
                ..PodSpec::default()
            });
        }
        if let Some(status) = &mut pod.status {
            (status.host_ip, status.host_ips) = (None, None);
            (status.pod_ip, status.pod_ips) = (None, None);
            let read = ["DisruptionTarget", "PodScheduled"];
            status.conditions.iter_mut().for_each(|all| all.retain(|c| read.contains(&&*c.type_)));
            let lists = [&mut status.init_container_statuses, &mut status.container_statuses];
            lists.into_iter().flatten().flatten().for_each(container_status);
        }
    }
}

/// The variables that are read of a container, and whether it has a probe.
fn container(container: Container) -> Container {
    let mut env = container.env.unwrap_or_default();
    env.retain(|variable| variable.name == WORK_BRANCH || variable.name == DEADLINE);
    Container {
        name: container.name,
        env: Some(env),
        readiness_probe: container.readiness_probe.map(|_| Probe::default()),
        ..Container::default()
    }
}

fn container_status(status: &mut ContainerStatus) {
    *status = ContainerStatus {
        name: std::mem::take(&mut status.name),
        image: std::mem::take(&mut status.image),
        ready: status.ready,
        state: status.state.take(),
        last_state: status.last_state.take(),
        ..ContainerStatus::default()
    };
}
