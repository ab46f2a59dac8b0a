use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::shared::ObjectName;

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
    /// The rig whose beads it keeps.
    #[schemars(length(min = 1, max = 253))]
    pub rig_ref: String,
    /// What its ids begin with, with or without the hyphen that follows.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^[a-z][a-z0-9_.-]*-?$')",
        "prefix must begin with a lowercase letter and hold lowercase letters, digits, `_`, `.` and `-`, such as gt-",
    )])))]
    pub prefix: String,
    /// Further prefixes whose beads may be written; all beads are read, whatever their prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_prefixes: Vec<String>,
    /// How beads are kept.
    #[serde(default)]
    pub backend: BeadBackend,
    /// Where in git they are, with backend GitJsonl.
    #[serde(default)]
    pub git: BeadGit,
    /// The server that has them, with backend HttpV0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<BeadHttp>,
    /// What may be written.
    #[serde(default)]
    pub write_policy: WritePolicy,
    /// Neither read again nor written; what was read last still serves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// A ConfigMap whose key `known_hosts` holds further host keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_known_hosts_config_map_ref: Option<ObjectName>,
    /// Credentials for the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_secret_ref: Option<ObjectName>,
    /// How often it is read again, at most every 5 s. A write reads it too.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub sync_interval: String,
}

fn default_interval() -> String {
    "5m".to_owned()
}

/// How beads are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BeadBackend {
    /// A file of JSON lines in a git repository.
    #[default]
    GitJsonl,
    /// A server: `bd serve`, API v0, of bd 1.3 or later.
    HttpV0,
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
                "!{served} || !(has(self.gitSecretRef) || has(self.sshKnownHostsConfigMapRef))"
            ),
            "gitSecretRef and sshKnownHostsConfigMapRef are for backend GitJsonl: name the server's token in http.tokenSecretRef",
        ),
    ];
    let list: Vec<(&str, &str)> =
        list.iter().map(|(rule, message)| (rule.as_str(), message.as_str())).collect();
    schema::rules(&list)
}

/// What may be written into a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum WritePolicy {
    /// Nothing.
    ReadOnly,
    /// Claims, closes and comments, where the file is the truth. A file that is only an export of a
    /// database is left alone.
    #[default]
    Write,
    /// Exports too: whoever owns the database must import the file, or its next export undoes the
    /// writes.
    AllowExportOnly,
}

/// Where in git beads are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeadGit {
    /// Another repository than the rig's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = schema::git_url()))]
    pub url: Option<String>,
    /// The branch that is written. By default the `sync-branch` of the repository's config.yaml,
    /// else `beads-sync`. It is begun from the branch that work lands on, which is read too and
    /// never written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub branch: Option<String>,
    /// The folder in the repository.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^[A-Za-z0-9_.@+-]+(/[A-Za-z0-9_.@+-]+)*$') && !self.matches('(^|/)([.]|[.][.]|(?i:[.]git))(/|$)')",
        "path must be a folder in the repository such as .beads, without a leading or last slash, `.` or `..`",
    )])))]
    pub path: String,
    /// The author of our commits, as `Name <mail>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 256), extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^[^<>\\\\x00-\\\\x1f]*[^<>\\\\x00-\\\\x20] <[^<>\\\\x00-\\\\x20]+>$')",
        "commitAuthor must be a name and an address, such as Gastown Beads <beads@example.org>",
    )])))]
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

/// A server that has beads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeadHttp {
    /// Where it is: `http://beads.town.svc:8080`, or `https://` where a proxy gives it TLS; with a
    /// path where the proxy wants one.
    #[schemars(length(min = 8, max = 2048), extend("x-kubernetes-validations" = schema::http_url()))]
    pub url: String,
    /// A Secret of this namespace whose key `token` holds the server's bearer token; without one no
    /// token is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<ObjectName>,
    /// The project that the server must have; nothing is read or written of another one. By default
    /// the one that it has when it is first asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub project_id: Option<String>,
}

/// A [`BeadStoreSpec`] without its rig and without defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = backend_rules()))]
pub struct BeadStoreTemplate {
    /// Further prefixes whose beads may be written, beside the rig's `beadsPrefix`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_prefixes: Vec<String>,
    /// How beads are kept; in git when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BeadBackend>,
    /// Where in git they are, with backend GitJsonl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<BeadGit>,
    /// The server that has them, with backend HttpV0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<BeadHttp>,
    /// What may be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_policy: Option<WritePolicy>,
    /// Neither read again nor written; what was read last still serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// A ConfigMap whose key `known_hosts` holds further host keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_known_hosts_config_map_ref: Option<ObjectName>,
    /// Credentials for the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_secret_ref: Option<ObjectName>,
    /// How often it is read again, at most every 5 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub sync_interval: Option<String>,
}

impl BeadStoreSpec {
    /// The store of a rig that asks for nothing special.
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
            git_secret_ref: self.git_secret_ref.clone(),
            sync_interval: self.sync_interval.clone().unwrap_or_else(default_interval),
        }
    }
}

/// What was read last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeadStoreStatus {
    /// The store as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BeadStorePhase>,
    /// When it was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_sync_time: Option<Time>,
    /// How many beads it holds.
    #[serde(default)]
    pub issue_count: i32,
    /// How many of them could be begun now: open, not blocked, not deferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_count: Option<i32>,
    /// How many there are of each status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub by_status: BTreeMap<String, i32>,
    /// Which tool's format the file has: Classic, Br or Export. A server has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub dialect: Option<String>,
    /// Whether what is read is the truth, and not an export of a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authoritative: Option<bool>,
    /// The newest commit that was read: of the branch that is written, else of the branch that work
    /// lands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub commit: Option<String>,
    /// The branch that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 244))]
    pub branch: Option<String>,
    /// The tool's own id of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub project_id: Option<String>,
    /// Lines, or rows of a server, that cannot be read as beads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed_lines: Option<i32>,
    /// Claims and closes that the store does not show yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_writes: Option<i32>,
    /// Details, one of a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A store as a whole.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum BeadStorePhase {
    /// Not read yet.
    Pending,
    /// Read.
    Synced,
    /// Reading failed.
    Error,
}
