use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::shared::{CaConfigMapRef, ObjectName};

/// Where a rig's beads are kept.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gastown.gastown.io",
    version = "v1alpha1",
    kind = "BeadStore",
    plural = "beadstores",
    shortname = "bs",
    category = "gastown",
    namespaced,
    status = "BeadStoreStatus",
    derive = "PartialEq",
    doc = "BeadStore is where a rig's beads are kept.",
    printcolumn(name = "Rig", type_ = "string", json_path = ".spec.rigRef"),
    printcolumn(name = "Prefix", type_ = "string", json_path = ".spec.prefix"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Issues", type_ = "integer", json_path = ".status.issueCount"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyCount"),
    printcolumn(
        name = "Writable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Writable')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = backend_rules()))]
pub struct BeadStoreSpec {
    /// Name of the rig whose beads the store contains. The oldest BeadStore of a rig is the active
    /// one.
    #[schemars(length(min = 1, max = 253))]
    pub rig_ref: String,
    /// What the ids of the store's beads begin with, with or without the hyphen that follows, such
    /// as `gt-`.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^[a-z][a-z0-9_.-]*-?$')",
        "prefix must begin with a lowercase letter and hold lowercase letters, digits, `_`, `.` and `-`, such as gt-",
    )])))]
    pub prefix: String,
    /// Further prefixes of beads that may be written. All beads are read, whatever their prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_prefixes: Vec<String>,
    /// Where the beads are stored. Defaults to `GitJsonl`.
    #[serde(default)]
    pub backend: BeadBackend,
    /// The repository and branch, for the backend `GitJsonl`.
    #[serde(default)]
    pub git: BeadGit,
    /// The server, for the backend `HttpV0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<BeadHttp>,
    /// What the operator may write into the store. Defaults to `Write`.
    #[serde(default)]
    pub write_policy: WritePolicy,
    /// Whether the store is suspended: it is neither read again nor written, and requests are
    /// answered from the last read. Defaults to false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// A ConfigMap in the BeadStore's namespace whose key `known_hosts` holds ssh host keys, beside
    /// the built-in ones of github.com, gitlab.com and bitbucket.org.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_known_hosts_config_map_ref: Option<ObjectName>,
    /// A ConfigMap in the BeadStore's namespace with the certificates of further authorities
    /// that are accepted when the repository is reached over https, beside those of the image. The
    /// key `ca.crt` of the Secret with the git credentials serves as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    /// A Secret in the BeadStore's namespace with the credentials for the repository. For ssh the
    /// key `ssh-privatekey` (or `id_rsa`, `id_ed25519`, `identity`), and optionally `known_hosts`;
    /// for http(s) the keys `username` and `password` or `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_secret_ref: Option<ObjectName>,
    /// Time between two reads of the store, as a duration; at least 5s are used. A write reads the
    /// store too. Defaults to `5m`.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub sync_interval: String,
}

fn default_interval() -> String {
    "5m".to_owned()
}

/// Where beads are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BeadBackend {
    /// In a file of JSON lines in a git repository.
    #[default]
    GitJsonl,
    /// In a server: `bd serve`, API v0, of bd 1.3 or later.
    HttpV0,
    /// A value of a later version. Nothing is begun because of it, and a condition names it.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What belongs to one backend alone. A store whose backend is absent is in git, which a template
/// may leave out.
fn backend_rules() -> serde_json::Value {
    let served = "(has(self.backend) && self.backend == 'HttpV0')";
    let rule = |rule: String, message: &str| (rule, message.to_owned());
    let list = [
        rule(
            format!("{served} == has(self.http)"),
            "http names the server of backend HttpV0: give http with that backend, and only with it",
        ),
        rule(
            format!(
                "!{served} || !has(self.git) || !(has(self.git.url) || has(self.git.branch) || has(self.git.commitAuthor) || \
                 (has(self.git.path) && self.git.path != '.beads'))"
            ),
            "git is for backend GitJsonl: remove it, or the backend",
        ),
        rule(
            format!(
                "!{served} || !(has(self.gitSecretRef) || has(self.sshKnownHostsConfigMapRef) || \
                 has(self.caConfigMapRef))"
            ),
            "gitSecretRef, sshKnownHostsConfigMapRef and caConfigMapRef are for backend GitJsonl: name the server's token in http.tokenSecretRef",
        ),
    ];
    let list: Vec<(&str, &str)> =
        list.iter().map(|(rule, message)| (rule.as_str(), message.as_str())).collect();
    schema::rules(&list)
}

/// What the operator may write into a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum WritePolicy {
    /// Nothing is written.
    ReadOnly,
    /// Claims, closes and comments are written when the file is the source of truth. A file that is
    /// an export of a database is left alone.
    #[default]
    Write,
    /// Exports are written too. Whoever owns the database must import the file, or its next export
    /// undoes the writes.
    AllowExportOnly,
    /// A value of a later version. Nothing is begun because of it, and a condition names it.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Where beads are in git.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeadGit {
    /// URL of the repository. By default the rig's `gitURL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = schema::git_url()))]
    pub url: Option<String>,
    /// Branch that is written. By default the `sync-branch` of the repository's config.yaml, or
    /// `beads-sync`. It is created from the branch that work lands on, which is read too and never
    /// written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub branch: Option<String>,
    /// Directory of the beads in the repository. Defaults to `.beads`.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^[A-Za-z0-9_.@+-]+(/[A-Za-z0-9_.@+-]+)*$') && !self.matches('(^|/)([.]|[.][.]|(?i:[.]git))(/|$)')",
        "path must be a folder in the repository such as .beads, without a leading or last slash, `.` or `..`",
    )])))]
    pub path: String,
    /// Author of the operator's commits, as `Name <mail>`. By default `Gastown BeadStore
    /// <beads@gastown.io>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 256), extend("x-kubernetes-validations" = schema::identity(
        "commitAuthor",
        "Gastown Beads <beads@example.org>"
    )))]
    pub commit_author: Option<String>,
}

impl Default for BeadGit {
    fn default() -> Self {
        Self { url: None, branch: None, path: default_path(), commit_author: None }
    }
}

fn default_path() -> String {
    ".beads".to_owned()
}

/// A server that stores beads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeadHttp {
    /// URL of the server, such as `http://beads.example.svc:8080`, or `https://` with a proxy that
    /// terminates TLS. It may have a path.
    #[schemars(length(min = 8, max = 2048), extend("x-kubernetes-validations" = schema::http_url()))]
    pub url: String,
    /// A Secret in the BeadStore's namespace whose key `token` holds the server's bearer token. By
    /// default no token is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<ObjectName>,
    /// Id of the project that the server must have. Nothing is read or written in another project.
    /// By default the project of the first contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub project_id: Option<String>,
}

/// A [`BeadStoreSpec`] without its rig and without defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = backend_rules()))]
pub struct BeadStoreTemplate {
    /// Further prefixes of beads that may be written, beside the rig's `beadsPrefix`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_prefixes: Vec<String>,
    /// Where the beads are stored. By default `GitJsonl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BeadBackend>,
    /// The repository and branch, for the backend `GitJsonl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<BeadGit>,
    /// The server, for the backend `HttpV0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<BeadHttp>,
    /// What the operator may write into the store. By default `Write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_policy: Option<WritePolicy>,
    /// Whether the store is suspended: it is neither read again nor written, and requests are
    /// answered from the last read. By default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// A ConfigMap in the release's namespace whose key `known_hosts` holds ssh host keys, beside
    /// the built-in ones of github.com, gitlab.com and bitbucket.org.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_known_hosts_config_map_ref: Option<ObjectName>,
    /// A ConfigMap in the release's namespace with the certificates of further authorities
    /// that are accepted when the repository is reached over https, beside those of the image. The
    /// key `ca.crt` of the Secret with the git credentials serves as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    /// A Secret in the release's namespace with the credentials for the repository. For ssh the key
    /// `ssh-privatekey` (or `id_rsa`, `id_ed25519`, `identity`), and optionally `known_hosts`; for
    /// http(s) the keys `username` and `password` or `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_secret_ref: Option<ObjectName>,
    /// Time between two reads of the store, as a duration; at least 5s are used. By default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub sync_interval: Option<String>,
}

impl BeadStoreSpec {
    /// The store of a rig with the schema's defaults.
    pub fn of_rig(rig: impl Into<String>, prefix: impl Into<String>) -> Self {
        BeadStoreTemplate::default().for_rig(rig, prefix)
    }
}

impl BeadStoreTemplate {
    /// The spec of a rig's BeadStore, the schema's defaults filled in.
    pub fn for_rig(&self, rig: impl Into<String>, prefix: impl Into<String>) -> BeadStoreSpec {
        BeadStoreSpec {
            rig_ref: rig.into(),
            prefix: prefix.into(),
            allowed_prefixes: self.allowed_prefixes.clone(),
            backend: self.backend.unwrap_or_default(),
            git: self.git.clone().unwrap_or_default(),
            http: self.http.clone(),
            write_policy: self.write_policy.unwrap_or_default(),
            suspend: self.suspend.unwrap_or_default(),
            ssh_known_hosts_config_map_ref: self.ssh_known_hosts_config_map_ref.clone(),
            ca_config_map_ref: self.ca_config_map_ref.clone(),
            git_secret_ref: self.git_secret_ref.clone(),
            sync_interval: self.sync_interval.clone().unwrap_or_else(default_interval),
        }
    }
}

/// The observed state of a BeadStore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeadStoreStatus {
    /// The store as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BeadStorePhase>,
    /// Time of the last read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_sync_time: Option<Time>,
    /// Number of beads in the store.
    #[serde(default)]
    pub issue_count: i32,
    /// Number of beads that could be started now: open, not blocked and not deferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_count: Option<i32>,
    /// Number of beads by their status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub by_status: BTreeMap<String, i32>,
    /// Format of the file: `Classic`, `Br` or `Export`. Absent for a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub dialect: Option<String>,
    /// Whether the store is the source of truth, and not an export of a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authoritative: Option<bool>,
    /// The newest commit that was read: of the branch that is written, or of the branch that work
    /// lands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub commit: Option<String>,
    /// The branch that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 244))]
    pub branch: Option<String>,
    /// Id that the beads tool gave the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub project_id: Option<String>,
    /// Number of lines, or of rows of a server, that cannot be read as beads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed_lines: Option<i32>,
    /// Number of claims and closes that are not in the store yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_writes: Option<i32>,
    /// Conditions, keyed by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A store as a whole.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum BeadStorePhase {
    /// The store has not been read yet.
    Pending,
    /// The last read succeeded.
    Synced,
    /// The last read failed. The condition `Ready` has the reason.
    Error,
    /// A value of a later version. It is read, and never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}
