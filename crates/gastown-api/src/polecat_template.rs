use k8s_openapi::api::core::v1::EnvVar;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::polecat::{
    AgentConfig, AgentKind, Budget, DesiredState, ModelProvider, PolecatSpec, Provider,
};
use crate::polecat_pod::{self, KubernetesSpec, PolecatPod};
use crate::schema;
use crate::shared::ObjectName;

/// What all Polecats of a rig share: a [`PolecatSpec`] without defaults of its own. It is copied
/// whole into each Polecat that is started, so a later change affects later Polecats only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!has(self.agent) || self.agent != 'generic' || (has(self.agentConfig) && has(self.agentConfig.command) && self.agentConfig.command.size() > 0)",
     "polecatTemplate.agentConfig.command is required when polecatTemplate.agent is generic: name the program to run"),
])))]
pub struct PolecatTemplate {
    /// The agent that does the task. By default `claude-code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentKind>,
    /// The agent's model, command, arguments and environment. By default the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_config: Option<AgentTemplate>,
    /// The repository, the credentials and the pod's settings. By default the rig's repository,
    /// without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesTemplate>,
    /// Seconds from the end until a Polecat is deleted. The end is the landing, or the end of the
    /// work when there is nothing to merge. By default Polecats are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Order of admission to the rig and in the merge queue, from 0 (first) to 4 (last). By default
    /// the bead's own priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4))]
    pub priority: Option<i32>,
    /// Limits of one attempt. At the first limit that is reached the agent is stopped, its work is
    /// saved and the Polecat is Stuck with reason `BudgetExceeded`. By default there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// How many times the agent is started again after a fault of the agent or of the cluster. By
    /// default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_retries: Option<i32>,
    /// How many attempts there may be in all: first start, restarts after faults and reworks. By
    /// default 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: Option<i32>,
}

impl PolecatTemplate {
    /// A Polecat of `rig` at work on a bead. Where the template has no repository and no branch,
    /// the rig's are taken.
    pub fn for_bead(
        &self,
        rig: &str,
        bead: &str,
        task: Option<String>,
        repository: &str,
        branch: Option<&str>,
    ) -> PolecatSpec {
        let plain = PolecatSpec::of_rig(rig);
        PolecatSpec {
            desired_state: DesiredState::Working,
            bead_id: Some(bead.to_owned()),
            task_description: task,
            kubernetes: Some(
                self.kubernetes.clone().unwrap_or_default().for_repository(repository, branch),
            ),
            agent: self.agent.unwrap_or(plain.agent),
            agent_config: self.agent_config.as_ref().map(AgentTemplate::config),
            ttl_seconds_after_finished: self.ttl_seconds_after_finished,
            priority: self.priority,
            budget: self.budget,
            max_retries: self.max_retries.unwrap_or(plain.max_retries),
            max_attempts: self.max_attempts.unwrap_or(plain.max_attempts),
            ..plain
        }
    }
}

/// An [`AgentConfig`] without defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentTemplate {
    /// Which API serves the model. It decides which environment variables get the endpoint and the
    /// key. `claude-code` works with `anthropic` and `litellm`. By default `litellm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Name of the model, as the provider knows it. By default the agent's own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub model: Option<String>,
    /// Endpoint and key of the model's API. By default the agent's own endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_provider: Option<ModelProvider>,
    /// Image of the agent's container. `kubernetes.image` takes precedence. By default the
    /// operator's agent image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
    /// Program and first arguments, in place of the agent's own. Required for the agent `generic`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 16_384)))]
    pub command: Vec<String>,
    /// Arguments that follow those of `command` or of the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 16_384)))]
    pub args: Vec<String>,
    /// A ConfigMap in the Polecat's namespace whose keys become environment variables of the agent.
    /// The pod does not start before it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ObjectName>,
    /// Environment variables of the agent. `kubernetes.env` takes precedence. Names that begin with
    /// `GASTOWN_` or `GT_` are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::env")]
    pub env: Vec<EnvVar>,
}

impl AgentTemplate {
    /// The config of a Polecat, the schema's defaults filled in.
    pub fn config(&self) -> AgentConfig {
        AgentConfig {
            provider: self.provider.unwrap_or_default(),
            model: self.model.clone(),
            model_provider: self.model_provider.clone(),
            image: self.image.clone(),
            command: self.command.clone(),
            args: self.args.clone(),
            config_map_ref: self.config_map_ref.clone(),
            env: self.env.clone(),
        }
    }
}

/// A [`KubernetesSpec`] without defaults, and without the work branch, which each Polecat chooses
/// for itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = polecat_pod::volume_rules()))]
pub struct KubernetesTemplate {
    /// URL of the repository to work on. By default the rig's `gitURL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = schema::git_url()))]
    pub git_repository: Option<String>,
    /// Branch that the work starts from and lands on. By default the target branch of the rig's
    /// Refinery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub git_branch: Option<String>,
    /// Longest time of one attempt, in seconds. The agent is stopped early enough to save its work,
    /// and the Polecat is Stuck with reason `Deadline`. By default 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
    /// The credentials and the pod's settings.
    #[serde(flatten)]
    pub pod: PolecatPod,
}

impl KubernetesTemplate {
    /// The spec of a Polecat, the schema's defaults filled in.
    pub fn for_repository(self, repository: &str, branch: Option<&str>) -> KubernetesSpec {
        let plain = KubernetesSpec::of_repository(
            self.git_repository.unwrap_or_else(|| repository.to_owned()),
        );
        KubernetesSpec {
            git_branch: self
                .git_branch
                .or_else(|| branch.map(ToOwned::to_owned))
                .unwrap_or_else(|| plain.git_branch.clone()),
            active_deadline_seconds: self
                .active_deadline_seconds
                .unwrap_or(plain.active_deadline_seconds),
            pod: self.pod,
            ..plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(template: serde_json::Value) -> PolecatTemplate {
        serde_json::from_value(template).unwrap()
    }

    #[test]
    fn an_empty_template_gives_a_polecat_of_the_rigs_repository() {
        let spec = read(serde_json::json!({})).for_bead(
            "web",
            "gt-1",
            Some("Do it.".into()),
            "https://host/a/b",
            Some("dev"),
        );
        let kubernetes = KubernetesSpec {
            git_branch: "dev".into(),
            ..KubernetesSpec::of_repository("https://host/a/b")
        };
        let wanted = PolecatSpec {
            desired_state: DesiredState::Working,
            bead_id: Some("gt-1".into()),
            task_description: Some("Do it.".into()),
            kubernetes: Some(kubernetes),
            ..PolecatSpec::of_rig("web")
        };
        assert_eq!(spec, wanted);
    }

    #[test]
    fn everything_in_a_template_is_in_the_polecat() {
        let template = serde_json::json!({
            "agent": "generic", "ttlSecondsAfterFinished": 7, "priority": 1, "maxRetries": 5, "maxAttempts": 6,
            "budget": {"maxTurns": 9},
            "agentConfig": {
                "provider": "anthropic", "model": "m", "modelProvider": {"endpoint": "http://m"}, "image": "i", "command": ["c"],
                "args": ["a"], "configMapRef": {"name": "cm"}, "env": [{"name": "A", "value": "1"}],
            },
            "kubernetes": {
                "gitRepository": "https://host/c/d", "gitBranch": "next", "gitSecretRef": {"name": "g"},
                "claudeCredsSecretRef": {"name": "cc"}, "apiKeySecretRef": {"name": "k", "key": "v"}, "image": "img",
                "resources": {"requests": {"cpu": "1"}}, "activeDeadlineSeconds": 60, "sshKnownHostsConfigMapRef": {"name": "kh"},
                "caConfigMapRef": {"name": "ca", "key": "root.pem"}, "workspaceSize": "80Gi",
                "serviceAccountName": "sa", "imagePullSecrets": [{"name": "p"}], "nodeSelector": {"a": "b"}, "tolerations": [{"key": "t"}],
                "affinity": {"nodeAffinity": {}}, "priorityClassName": "pc", "runtimeClassName": "rc",
                "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"}, "startTimeout": "5m",
                "volumes": [{"name": "v", "emptyDir": {}}], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "env": [{"name": "B", "value": "2"}],
            },
        });
        let spec =
            read(template.clone()).for_bead("web", "gt-1", None, "https://host/a/b", Some("dev"));
        let spec = serde_json::to_value(&spec).unwrap();
        for key in template.as_object().unwrap().keys().filter(|key| *key != "kubernetes") {
            assert_eq!(spec[key], template[key], "{key}");
        }
        for (key, wanted) in template["kubernetes"].as_object().unwrap() {
            assert_eq!(&spec["kubernetes"][key], wanted, "kubernetes.{key}");
        }
    }
}
