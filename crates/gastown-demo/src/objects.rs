//! The objects of the demo, as a person would write them.

use std::collections::BTreeMap;

use anyhow::Result;
use gastown_api::names::label;
use gastown_api::{
    AgentConfig, AgentTemplate, BeadStoreTemplate, Channel, Convoy, ConvoySpec, DesiredState,
    GateTemplate, KubernetesSpec, KubernetesTemplate, ModelProvider, ObjectName, Polecat,
    PolecatSpec, PolecatTemplate, Provider, RefineryTemplate, Rig, RigSettings, RigSpec, Route,
    SecretKeyRef, WebhookChannel, WitnessTemplate,
};
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceRequirements, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;
use serde_json::json;

use crate::plan::Plan;
use crate::settings::Settings;
use gastown_cluster::install::SYSTEM;

/// The pod and the Service of the git server and the Messages API.
pub const SERVERS: &str = "demo-servers";
/// The git server's port.
pub const GIT_PORT: u16 = 8080;
/// The Messages API's port.
pub const MESSAGES_PORT: u16 = 8081;
/// The convoy of all changes.
pub const CONVOY: &str = "everything";
/// The convoy of the hopeless beads.
pub const HOPELESS: &str = "hopeless";
/// The key of the webhook's URL in its Secret.
const HOOK_KEY: &str = "url";
/// The port that webhooks are received on.
pub const HOOKS_PORT: u16 = 8082;
/// The repository on the git server.
pub const REPOSITORY: &str = "project";

const SECRET: &str = "model-api-key";
const SECRET_KEY: &str = "api-key";
/// The key that the scripted API requires.
const API_KEY: &str = "scripted-api-key";

/// The namespace, with the strictest pod security, under which everything of ours runs.
pub fn namespace(settings: &Settings) -> Result<Namespace> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": settings.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }))?)
}

/// The Secret with the key for the model's API.
pub fn secret(settings: &Settings) -> Result<Secret> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": SECRET, "namespace": settings.namespace}, "stringData": {SECRET_KEY: API_KEY},
    }))?)
}

/// The pod of the servers.
pub fn servers(settings: &Settings) -> Result<Pod> {
    let probe = json!({"httpGet": {"path": "/admin/healthz", "port": GIT_PORT}, "periodSeconds": 1, "failureThreshold": 60});
    Ok(serde_json::from_value(json!({
        "metadata": {"name": SERVERS, "namespace": settings.namespace, "labels": {"app": SERVERS}},
        "spec": {
            "automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 2,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "servers", "image": settings.servers_image, "imagePullPolicy": "IfNotPresent",
                "env": [{"name": "GASTOWN_DEMO_API_KEY", "value": API_KEY}],
                "ports": [{"name": "git", "containerPort": GIT_PORT}, {"name": "messages", "containerPort": MESSAGES_PORT},
                          {"name": "hooks", "containerPort": HOOKS_PORT}],
                "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}},
                "readinessProbe": probe,
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        },
    }))?)
}

/// The Service of the servers.
pub fn service(settings: &Settings) -> Result<Service> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": SERVERS, "namespace": settings.namespace},
        "spec": {"selector": {"app": SERVERS}, "ports": [
            {"name": "git", "port": GIT_PORT, "targetPort": "git"}, {"name": "messages", "port": MESSAGES_PORT, "targetPort": "messages"},
            {"name": "hooks", "port": HOOKS_PORT, "targetPort": "hooks"},
        ]},
    }))?)
}

/// Lets agents' pods of the namespace reach the servers, which are in the cluster: the operator's own
/// policy lets them out of it alone.
pub fn network_policy(settings: &Settings) -> Result<NetworkPolicy> {
    let ports = [GIT_PORT, MESSAGES_PORT].map(|port| json!({"protocol": "TCP", "port": port}));
    Ok(serde_json::from_value(json!({
        "metadata": {"name": SERVERS, "namespace": settings.namespace},
        "spec": {
            "podSelector": {"matchExpressions": [{"key": label::POLECAT, "operator": "Exists"}]},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"app": SERVERS}}}], "ports": ports}],
        },
    }))?)
}

/// The repository's URL inside the cluster.
pub fn repository(settings: &Settings) -> String {
    format!("http://{SERVERS}.{}.svc:{GIT_PORT}/{REPOSITORY}.git", settings.namespace)
}

/// The URL that the Witness posts Escalations to, in the Witness's namespace.
pub fn hook_secret(settings: &Settings) -> Result<Secret> {
    let url =
        format!("http://{SERVERS}.{}.svc:{HOOKS_PORT}/hooks/{}", settings.namespace, settings.rig);
    Ok(serde_json::from_value(json!({
        "metadata": {"name": hook_name(settings), "namespace": SYSTEM}, "stringData": {HOOK_KEY: url},
    }))?)
}

/// The name of [`hook_secret`].
pub fn hook_name(settings: &Settings) -> String {
    format!("{}-hook", settings.rig)
}

/// The Secret with the git server's login in a namespace; none where the server requires none.
pub fn git_secret(settings: &Settings, namespace: &str) -> Result<Option<Secret>> {
    let Some(login) = &settings.login else { return Ok(None) };
    let data = json!({"username": login.username, "password": login.password});
    Ok(Some(serde_json::from_value(json!({
        "metadata": {"name": git_secret_name(settings), "namespace": namespace}, "stringData": data,
    }))?))
}

/// The name of [`git_secret`].
pub fn git_secret_name(settings: &Settings) -> String {
    format!("{}-git", settings.rig)
}

fn git_secret_ref(settings: &Settings) -> Option<ObjectName> {
    settings.login.as_ref().map(|_| ObjectName::new(git_secret_name(settings)))
}

/// A Witness that posts Escalations, with short thresholds where an agent of the plan falls silent.
fn witness(settings: &Settings, plan: &Plan) -> WitnessTemplate {
    let url_secret_ref = SecretKeyRef { name: hook_name(settings), key: HOOK_KEY.to_owned() };
    let webhook = Some(WebhookChannel { url_secret_ref });
    let route = Route { channel: Channel::Webhook, webhook, ..Route::mayor() };
    let mut witness = WitnessTemplate { routes: vec![route], ..WitnessTemplate::default() };
    if plan.changes.iter().any(|c| c.mute_first) {
        witness.health_check_interval = Some("2s".to_owned());
        witness.quiet_threshold = Some("10s".to_owned());
        witness.stuck_threshold = Some("20s".to_owned());
        witness.restart_after = Some("5s".to_owned());
    }
    witness
}

/// The Rig.
pub fn rig(settings: &Settings, plan: &Plan) -> Rig {
    let gate = GateTemplate {
        image: Some(settings.gate_image.clone()),
        resources: Some(resources("100m", "128Mi", "512Mi")),
        ..GateTemplate::default()
    };
    let refinery = RefineryTemplate {
        test_command: Some(plan.test.clone()),
        gate_template: Some(gate),
        git_secret_ref: git_secret_ref(settings),
        ..RefineryTemplate::default()
    };
    let beads = BeadStoreTemplate {
        git_secret_ref: git_secret_ref(settings),
        ..BeadStoreTemplate::default()
    };
    let mut rig = Rig::new(
        &settings.rig,
        RigSpec {
            git_url: repository(settings),
            beads_prefix: plan.prefix().to_owned(),
            witness: Some(witness(settings, plan)),
            beads: Some(beads),
            polecat_template: Some(template(settings)),
            settings: RigSettings { max_polecats: settings.max_polecats, ..RigSettings::default() },
            refinery: Some(refinery),
            ..RigSpec::default()
        },
    );
    rig.metadata.labels =
        Some(BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "gastown-demo".to_owned())]));
    rig
}

/// The template of the rig's polecats.
fn template(settings: &Settings) -> PolecatTemplate {
    let AgentConfig { provider, model_provider, .. } = agent(settings);
    let agent =
        AgentTemplate { provider: Some(provider), model_provider, ..AgentTemplate::default() };
    let kubernetes =
        KubernetesTemplate { pod: kubernetes(settings).pod, ..KubernetesTemplate::default() };
    PolecatTemplate {
        agent_config: Some(agent),
        kubernetes: Some(kubernetes),
        ..PolecatTemplate::default()
    }
}

fn agent(settings: &Settings) -> AgentConfig {
    let provider = ModelProvider {
        endpoint: Some(format!("http://{SERVERS}.{}.svc:{MESSAGES_PORT}", settings.namespace)),
        api_key_secret_ref: Some(SecretKeyRef {
            name: SECRET.to_owned(),
            key: SECRET_KEY.to_owned(),
        }),
    };
    AgentConfig {
        provider: Provider::Anthropic,
        model_provider: Some(provider),
        ..AgentConfig::default()
    }
}

fn kubernetes(settings: &Settings) -> KubernetesSpec {
    let mut kubernetes = KubernetesSpec::of_repository(repository(settings));
    kubernetes.pod.resources = Some(resources("100m", "256Mi", "1Gi"));
    kubernetes.pod.git_secret_ref = git_secret_ref(settings);
    kubernetes
}

/// A Polecat that works on a task, without a bead in a store.
pub fn polecat(settings: &Settings, name: &str, task: &str) -> Polecat {
    let mut polecat = Polecat::new(
        name,
        PolecatSpec {
            desired_state: DesiredState::Working,
            bead_id: Some(name.to_owned()),
            task_description: Some(task.to_owned()),
            agent_config: Some(agent(settings)),
            kubernetes: Some(kubernetes(settings)),
            ..PolecatSpec::of_rig(&settings.rig)
        },
    );
    polecat.metadata =
        ObjectMeta { namespace: Some(settings.namespace.clone()), ..polecat.metadata };
    polecat
}

/// A convoy of some beads.
pub fn convoy(settings: &Settings, name: &str, description: &str, beads: Vec<String>) -> Convoy {
    let mut convoy = Convoy::new(
        name,
        ConvoySpec {
            description: description.to_owned(),
            tracked_beads: beads,
            rig_ref: Some(settings.rig.clone()),
            dispatch: true,
            ..ConvoySpec::default()
        },
    );
    convoy.metadata.namespace = Some(settings.namespace.clone());
    convoy
}

fn resources(cpu: &str, memory: &str, limit: &str) -> ResourceRequirements {
    let quantities = |of: &[(&str, &str)]| {
        of.iter().map(|&(k, v)| (k.to_owned(), Quantity(v.to_owned()))).collect()
    };
    ResourceRequirements {
        requests: Some(quantities(&[("cpu", cpu), ("memory", memory)])),
        limits: Some(quantities(&[("memory", limit)])),
        ..ResourceRequirements::default()
    }
}
