//! `git-init`: checks credentials, clones, prepares the workspace.

use gastown_api::AgentKind;
use k8s_openapi::api::core::v1::Container;

use super::metadata::GIT_INIT;
use super::parts::{self, Build, git_env, resources, var};
use super::volumes;

pub(super) fn container(b: &Build) -> Container {
    let settings = &b.inputs.spec.pod;
    let mut env = git_env(b);
    // our image brings the preset agent; another one gets a copy
    let copies = settings.agent == AgentKind::ClaudeCode
        && settings.image.is_some()
        && settings.command.is_empty();
    env.extend([
        var("GASTOWN_GIT_SECRET", settings.git_secret.as_deref().unwrap_or_default()),
        var("GASTOWN_KNOWN_HOSTS_CONFIGMAP", settings.known_hosts.as_deref().unwrap_or_default()),
        var("GASTOWN_CA_CONFIGMAP", settings.ca.as_ref().map_or("", |ca| ca.name.as_str())),
        var("GASTOWN_COPY_AGENT", copies.to_string()),
        var("GASTOWN_RESTORE", b.inputs.restore.to_string()),
    ]);
    Container {
        command: Some(vec!["/usr/local/bin/gt".to_owned()]),
        args: Some(vec!["init".to_owned()]),
        env: Some(env),
        volume_mounts: Some(volumes::of_init(b)),
        resources: Some(resources(
            &[("cpu", "50m"), ("memory", "64Mi")],
            &[("cpu", "2"), ("memory", &b.defaults.room.init_memory)],
        )),
        ..parts::container(GIT_INIT, &b.defaults.git_image, b.defaults)
    }
}
