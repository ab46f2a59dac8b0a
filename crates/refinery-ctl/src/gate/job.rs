//! The Job that tests a candidate: an init container fetches it, another runs the gate's command.

use gastown_api::{GateRun, GateTemplate, Refinery};
use gastown_runtime::apply;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{CONTAINER, FETCH};
use crate::args::GateSettings;

fn restricted(read_only: bool) -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": read_only,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// The gate's Job. `ca` is the CA certificate of the git endpoint, as PEM; `traceparent` the span of
/// the run.
pub(crate) fn job(
    refinery: &Refinery,
    settings: &GateSettings,
    run: &GateRun,
    ca: &str,
    traceparent: &str,
) -> Result<Job, serde_json::Error> {
    let template = refinery.spec.gate_template.clone().unwrap_or_default();
    let labels = super::labels(refinery);
    let body = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": run.name_any(),
            "namespace": run.namespace(),
            "labels": labels,
            "ownerReferences": apply::owner(run).ok().into_iter().collect::<Vec<_>>(),
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "template": {"metadata": {"labels": labels}, "spec": pod(refinery, settings, run, ca, traceparent, &template)},
        },
    });
    serde_json::from_value(body)
}

fn pod(
    refinery: &Refinery,
    settings: &GateSettings,
    run: &GateRun,
    ca: &str,
    traceparent: &str,
    template: &GateTemplate,
) -> Value {
    json!({
        "restartPolicy": "Never",
        // A projected token needs a service account that is named here, where the API server fills in
        // none.
        "serviceAccountName": "default",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 5,
        // The deadline is the pod's, not the Job's: a Job that exceeds its deadline deletes its pod,
        // and with it the gate's log.
        "activeDeadlineSeconds": settings.seconds,
        "securityContext": pod_security(settings.fixed_ids),
        "imagePullSecrets": template.image_pull_secrets,
        "nodeSelector": template.node_selector,
        "initContainers": [fetch_container(refinery, settings, run, ca)],
        "containers": [gate_container(refinery, settings, traceparent, template)],
        "volumes": [
            {"name": "workspace", "emptyDir": {}},
            {"name": "home", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "token", "projected": {"sources": [
                {"serviceAccountToken": {"audience": gastown_runtime::AUDIENCE, "expirationSeconds": 3600, "path": "token"}},
            ]}},
        ],
    })
}

fn pod_security(fixed_ids: bool) -> Value {
    let mut security = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    if fixed_ids {
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            security[id] = json!(65532);
        }
    }
    security
}

/// The container that fetches the candidate; it alone has a token.
fn fetch_container(refinery: &Refinery, settings: &GateSettings, run: &GateRun, ca: &str) -> Value {
    let url = format!(
        "{}/git/{}/{}",
        settings.git_endpoint.trim_end_matches('/'),
        refinery.spec.rig_ref,
        refinery.spec.target_branch
    );
    let mut env = vec![
        json!({"name": "HOME", "value": "/home/nonroot"}),
        json!({"name": "GASTOWN_GIT_URL", "value": url}),
        json!({"name": "GASTOWN_CANDIDATE", "value": run.spec.candidate}),
        json!({"name": "GASTOWN_BASE", "value": run.spec.base}),
        json!({"name": "GASTOWN_TARGET_BRANCH", "value": refinery.spec.target_branch}),
        json!({"name": "GASTOWN_CA", "value": ca}),
        json!({"name": "GASTOWN_TOKEN_FILE", "value": "/var/run/gastown/token/token"}),
    ];
    let depth = refinery.spec.gate_template.as_ref().and_then(|template| template.fetch_depth);
    env.extend(
        depth.map(|depth| json!({"name": "GASTOWN_FETCH_DEPTH", "value": depth.to_string()})),
    );
    env.extend(proxy(settings));
    json!({
        "name": FETCH,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["/usr/local/bin/gt", "fetch"],
        "env": env,
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "securityContext": restricted(true),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "workspace", "mountPath": "/workspace"},
            {"name": "home", "mountPath": "/home/nonroot"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "token", "mountPath": "/var/run/gastown/token", "readOnly": true},
        ],
    })
}

/// The variables of the proxy.
fn proxy(settings: &GateSettings) -> impl Iterator<Item = Value> {
    let variables = settings.proxy.variables().into_iter();
    variables.map(|(name, value)| json!({"name": name, "value": value}))
}

/// The container that runs the gate's command.
fn gate_container(
    refinery: &Refinery,
    settings: &GateSettings,
    traceparent: &str,
    template: &GateTemplate,
) -> Value {
    let own_image = template.image.is_none();
    let image = template.image.clone().unwrap_or_else(|| settings.image.clone());
    let resources = template.resources.as_ref().and_then(|r| serde_json::to_value(r).ok());
    let mut env = vec![
        json!({"name": "HOME", "value": "/home/nonroot"}),
        json!({"name": "TRACEPARENT", "value": traceparent}),
    ];
    let own = |name: &Value| {
        let name = name.as_str().unwrap_or_default();
        template.env.iter().any(|e| e.name.eq_ignore_ascii_case(name))
    };
    env.extend(proxy(settings).filter(|e| !own(&e["name"])));
    env.extend(template.env.iter().filter_map(|e| serde_json::to_value(e).ok()));
    json!({
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": if own_image { &settings.pull_policy } else { "IfNotPresent" },
        "command": ["/bin/sh", "-c", refinery.spec.test_command],
        "workingDir": "/workspace/repo",
        "env": env,
        "resources": resources.unwrap_or_else(|| json!({"requests": {"cpu": "100m", "memory": "128Mi"}})),
        "securityContext": restricted(false),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "workspace", "mountPath": "/workspace"},
            {"name": "home", "mountPath": "/home/nonroot"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    })
}
