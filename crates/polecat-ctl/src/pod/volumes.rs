//! Volumes and mounts: those of `docs/contracts/pod.md`, and the user's.

use gastown_api::{CaConfigMapRef, names};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource,
    KeyToPath, ObjectFieldSelector, ProjectedVolumeSource, SecretVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt as _;

use super::parts::{Build, KEYS_DIR};
use super::prompt_place::Prompt;

/// The directory of the sidecar's token.
pub(super) const TOKEN_DIR: &str = "/var/run/gastown/token";
/// How long a token is valid, in seconds; the kubelet renews it well before.
const TOKEN_SECONDS: i64 = 3600;

fn empty(name: &str, limit: &str) -> Volume {
    let source =
        EmptyDirVolumeSource { size_limit: Some(Quantity(limit.to_owned())), medium: None };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}

/// A folder that is never on the node's disk, for copies of keys.
fn in_memory(name: &str) -> Volume {
    let source = EmptyDirVolumeSource {
        size_limit: Some(Quantity("16Mi".to_owned())),
        medium: Some("Memory".to_owned()),
    };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}

/// Optional: `gt init` reports what is missing, instead of a pod that never starts.
fn secret(name: &str, secret: &str, key: Option<&str>) -> Volume {
    let items = key.map(|k| vec![KeyToPath { key: k.to_owned(), path: k.to_owned(), mode: None }]);
    let source = SecretVolumeSource {
        secret_name: Some(secret.to_owned()),
        optional: Some(true),
        default_mode: Some(0o400),
        items,
    };
    Volume { name: name.to_owned(), secret: Some(source), ..Volume::default() }
}

fn config_map(name: &str, map: &str, key: &str, optional: bool) -> Volume {
    let items = Some(vec![KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None }]);
    let source = ConfigMapVolumeSource {
        name: map.to_owned(),
        optional: Some(optional),
        items,
        default_mode: None,
    };
    Volume { name: name.to_owned(), config_map: Some(source), ..Volume::default() }
}

/// An annotation of the pod as a file.
fn annotation(name: &str, key: &str, path: &str) -> Volume {
    let field = ObjectFieldSelector {
        field_path: format!("metadata.annotations['{key}']"),
        api_version: None,
    };
    let file = DownwardAPIVolumeFile {
        path: path.to_owned(),
        field_ref: Some(field),
        ..DownwardAPIVolumeFile::default()
    };
    let source = DownwardAPIVolumeSource { items: Some(vec![file]), default_mode: None };
    Volume { name: name.to_owned(), downward_api: Some(source), ..Volume::default() }
}

fn prompt(b: &Build) -> Volume {
    const FILE: &str = "prompt.md";
    match b.prompt {
        Prompt::InPod(_) => annotation("prompt", names::annotation::PROMPT, FILE),
        Prompt::InConfigMap(map) => config_map("prompt", &map.name_any(), FILE, false),
    }
}

/// The token by which witness-ctl knows the pod; no other service accepts it.
fn token() -> Volume {
    let audience = Some(gastown_runtime::AUDIENCE.to_owned());
    let token = ServiceAccountTokenProjection {
        audience,
        expiration_seconds: Some(TOKEN_SECONDS),
        path: "token".to_owned(),
    };
    let source =
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() };
    let projected = ProjectedVolumeSource { sources: Some(vec![source]), default_mode: None };
    Volume { name: "token".to_owned(), projected: Some(projected), ..Volume::default() }
}

/// The ConfigMap's key as the file `ca.crt`.
fn authorities(reference: &CaConfigMapRef) -> Volume {
    let items =
        vec![KeyToPath { key: reference.key.clone(), path: "ca.crt".to_owned(), mode: None }];
    let source = ConfigMapVolumeSource {
        name: reference.name.clone(),
        optional: Some(true),
        items: Some(items),
        default_mode: None,
    };
    Volume { name: "git-ca".to_owned(), config_map: Some(source), ..Volume::default() }
}

/// All volumes of the pod.
pub(super) fn all(b: &Build) -> Vec<Volume> {
    let (settings, room) = (&b.inputs.spec.pod, &b.defaults.room);
    let mut volumes = vec![
        empty("private", &room.private_size),
        empty("upstream", &room.upstream_size),
        empty("workspace", settings.workspace_size.as_ref().unwrap_or(&room.workspace_size)),
        in_memory("git-keys"),
        empty("run", "16Mi"),
        empty("tools", "2Gi"),
        empty("home", "10Gi"),
        empty("tmp", "10Gi"),
        annotation("podinfo", names::annotation::DRAIN, "drain"),
        prompt(b),
    ];
    if let Some(name) = &settings.git_secret {
        volumes.push(secret("git-creds", name, None));
    }
    if let Some(name) = &settings.known_hosts {
        volumes.push(config_map("ssh-known-hosts", name, "known_hosts", true));
    }
    volumes.extend(settings.ca.as_ref().map(authorities));
    if let Some(name) = &settings.claude_creds {
        volumes.push(secret("claude-creds", name, Some(".credentials.json")));
        volumes.push(in_memory("claude-login"));
    }
    if b.defaults.witness.is_some() {
        volumes.push(token());
    }
    volumes.extend(settings.volumes.iter().cloned());
    volumes
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// The mounts of git credentials, for the two containers that may hold them.
fn credentials(b: &Build) -> Vec<VolumeMount> {
    let settings = &b.inputs.spec.pod;
    let git = settings.git_secret.as_ref().map(|_| mount("git-creds", "/git-creds", true));
    let hosts =
        settings.known_hosts.as_ref().map(|_| mount("ssh-known-hosts", "/ssh-known-hosts", true));
    let ca = settings.ca.as_ref().map(|_| mount("git-ca", "/git-ca", true));
    let keys = mount("git-keys", KEYS_DIR, false);
    git.into_iter().chain(hosts).chain(ca).chain([keys]).collect()
}

/// The mounts of `git-init`.
pub(super) fn of_init(b: &Build) -> Vec<VolumeMount> {
    let mut mounts = vec![
        mount("private", "/gastown/private", false),
        mount("upstream", "/gastown/upstream", false),
        mount("workspace", "/workspace", false),
        mount("tools", "/gastown/tools", false),
    ];
    mounts.extend(credentials(b));
    mounts
}

/// The mounts of `git-sync`.
pub(super) fn of_sync(b: &Build) -> Vec<VolumeMount> {
    let mut mounts = vec![
        mount("private", "/gastown/private", false),
        mount("upstream", "/gastown/upstream", false),
        mount("workspace", "/workspace", true),
        mount("run", "/gastown/run", false),
        mount("podinfo", "/gastown/pod", true),
    ];
    mounts.extend(credentials(b));
    if b.defaults.witness.is_some() {
        mounts.push(mount("token", TOKEN_DIR, true));
    }
    mounts
}

/// The mounts of `claude`: no private repository, no git credentials.
pub(super) fn of_claude(b: &Build) -> Vec<VolumeMount> {
    let settings = &b.inputs.spec.pod;
    let mut mounts = vec![
        mount("upstream", "/gastown/upstream", true),
        mount("workspace", "/workspace", false),
        mount("run", "/gastown/run", false),
        mount("tools", "/gastown/tools", true),
        mount("podinfo", "/gastown/pod", true),
        mount("prompt", "/gastown/prompt", true),
        mount("home", "/home/nonroot", false),
        mount("tmp", "/tmp", false),
    ];
    if settings.claude_creds.is_some() {
        mounts.push(mount("claude-creds", "/claude-creds", true));
        mounts.push(mount("claude-login", "/gastown/login", false));
    }
    mounts.extend(settings.mounts.iter().cloned());
    mounts
}
