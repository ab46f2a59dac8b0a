//! Security contexts: what the pod security standard "restricted" requires, and a little more.

use k8s_openapi::api::core::v1::{
    Capabilities, PodSecurityContext, SeccompProfile, SecurityContext,
};

use super::defaults::PodDefaults;

const ID: i64 = 65_532;

fn seccomp() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

pub(super) fn pod(defaults: &PodDefaults) -> PodSecurityContext {
    let id = defaults.fixed_ids.then_some(ID);
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: id,
        run_as_group: id,
        fs_group: id,
        seccomp_profile: Some(seccomp()),
        ..PodSecurityContext::default()
    }
}

pub(super) fn container(defaults: &PodDefaults) -> SecurityContext {
    let id = defaults.fixed_ids.then_some(ID);
    SecurityContext {
        run_as_non_root: Some(true),
        run_as_user: id,
        run_as_group: id,
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        seccomp_profile: Some(seccomp()),
        ..SecurityContext::default()
    }
}
