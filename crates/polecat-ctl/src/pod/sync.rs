//! `git-sync`: pushes the work branch to the remote. A native sidecar: it ends after the agent.

use k8s_openapi::api::core::v1::{Container, ExecAction, Probe};

use super::metadata::{DEADLINE, GIT_SYNC};
use super::parts::{self, Build, git_env, resources, var};
use super::volumes;

/// How often a dirty tree is saved, in seconds.
const SNAPSHOT_SECONDS: u32 = 300;

pub(super) fn container(b: &Build) -> Container {
    let mut env = git_env(b);
    env.extend([
        var("GASTOWN_SNAPSHOT_SECONDS", SNAPSHOT_SECONDS.to_string()),
        var(DEADLINE, b.inputs.spec.pod.deadline_seconds.to_string()),
    ]);
    if let Some(witness) = &b.defaults.witness {
        env.extend([
            var("GASTOWN_WITNESS_ENDPOINT", &witness.endpoint),
            var("GASTOWN_CA", &witness.ca),
            var("GASTOWN_TOKEN_FILE", format!("{}/token", volumes::TOKEN_DIR)),
        ]);
    }
    Container {
        command: Some(vec!["/usr/local/bin/gt".to_owned()]),
        args: Some(vec!["sync".to_owned()]),
        restart_policy: Some("Always".to_owned()),
        readiness_probe: Some(saved()),
        env: Some(env),
        volume_mounts: Some(volumes::of_sync(b)),
        resources: Some(resources(
            &[("cpu", "50m"), ("memory", "64Mi")],
            &[("cpu", "1"), ("memory", &b.defaults.room.sync_memory)],
        )),
        ..parts::container(GIT_SYNC, &b.defaults.git_image, b.defaults)
    }
}

/// Ready means that the work is saved: the last complete save is on the remote, and nothing has
/// failed since. While the pod is drained or past its deadline, that save began after that.
fn saved() -> Probe {
    let command = vec!["/usr/local/bin/gt".to_owned(), "saved".to_owned()];
    Probe {
        exec: Some(ExecAction { command: Some(command) }),
        period_seconds: Some(15),
        timeout_seconds: Some(5),
        failure_threshold: Some(1),
        ..Probe::default()
    }
}
