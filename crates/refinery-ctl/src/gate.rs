//! Gates: the Job that tests a candidate, and what its pod's end means. Pure.

use gastown_api::names::{annotation, label};
use gastown_api::{GateTemplate, Refinery};
use gastown_core::train::{Car, GateId, RequestId, Run, RunState, gate_job_name, short_digest};
use gastown_git::{Recipe, Strategy};
use gastown_runtime::apply;
use gastown_types::CommitId;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::RefineryArgs;

/// What gate Jobs and their pods carry, so that only they are watched. Nothing is believed by it.
pub(crate) const SELECTOR: &str =
    "app.kubernetes.io/component=gate,app.kubernetes.io/managed-by=refinery-ctl";
/// The one gate's name.
pub(crate) const GATE: &str = "test";
/// The container that fetches the candidate.
const FETCH: &str = "fetch";
/// The container that runs the gate's command.
pub(crate) const CONTAINER: &str = "gate";
/// What is said of a run that is on its way.
const STARTS: &str = "its pod starts";
/// Seconds after which a Job without a pod is told apart from one whose pod starts.
const NO_POD_WITHIN: i64 = 15;
/// Seconds after which a container that cannot start is a broken run.
const START_WITHIN: i64 = 60;

/// How a Job's candidate is built again: its annotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobRecipe {
    pub v: u32,
    pub request: String,
    pub base: CommitId,
    pub source: CommitId,
    pub strategy: Strategy,
    pub candidate: CommitId,
    pub gate: GateId,
    pub run: u32,
}

impl JobRecipe {
    pub(crate) fn new(car: &Car, source: &CommitId, gate: &GateId, run: u32) -> Self {
        Self {
            v: 1,
            request: car.request.0.clone(),
            base: car.base.clone(),
            source: source.clone(),
            strategy: Strategy::Rebase,
            candidate: car.commit.clone(),
            gate: gate.clone(),
            run,
        }
    }

    /// The recipe of a Job of this Refinery's; `None` for anything else, whatever it is called.
    pub(crate) fn of(job: &Job, refinery: &Refinery) -> Option<Self> {
        let text = job.annotations().get(annotation::RECIPE)?;
        let recipe: Self = serde_json::from_str(text).ok().filter(|r: &Self| r.v == 1)?;
        let ours = apply::is_owned_by(job, refinery) && job.name_any() == recipe.job_name(refinery);
        ours.then_some(recipe)
    }

    pub(crate) fn job_name(&self, refinery: &Refinery) -> String {
        let uid = refinery.uid().unwrap_or_default();
        // The target alone is tested for one request, and again for another.
        let spec = if self.candidate == self.base {
            format!("{}/{}", self.gate.0, self.request)
        } else {
            self.gate.0.clone()
        };
        gate_job_name(&uid, &self.candidate, GATE, &spec, self.run)
    }

    pub(crate) fn run(&self, refinery: &Refinery, state: RunState) -> Run {
        Run {
            job: self.job_name(refinery),
            request: RequestId(self.request.clone()),
            candidate: self.candidate.clone(),
            gate: self.gate.clone(),
            state,
        }
    }

    /// The recipe of the candidate itself.
    pub(crate) fn candidate(request: &RequestId, base: &CommitId, source: &CommitId) -> Recipe {
        Recipe {
            request: request.0.clone(),
            base: base.clone(),
            source: source.clone(),
            strategy: Strategy::Rebase,
        }
    }
}

/// What the gate is, as a digest of all that decides about its outcome; `None` without a command.
pub(crate) fn gate_id(refinery: &Refinery, args: &RefineryArgs) -> Option<GateId> {
    let command = refinery.spec.test_command.as_deref().filter(|c| !c.trim().is_empty())?;
    let template = serde_json::to_string(&refinery.spec.gate_template).unwrap_or_default();
    let seconds = args.gate_seconds.to_string();
    Some(GateId(short_digest(&["1", command, &template, &args.agent_image, &seconds], 12)))
}

fn restricted(read_only: bool) -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": read_only,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// The gate's Job. `ca` is the certificate of the git endpoint, as PEM.
pub(crate) fn job(
    refinery: &Refinery,
    args: &RefineryArgs,
    recipe: &JobRecipe,
    ca: &str,
) -> Result<Job, serde_json::Error> {
    let template = refinery.spec.gate_template.clone().unwrap_or_default();
    let labels = json!({
        "app.kubernetes.io/component": "gate",
        "app.kubernetes.io/managed-by": "refinery-ctl",
        label::RIG: label_value(&refinery.spec.rig_ref),
    });
    let body = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": recipe.job_name(refinery),
            "namespace": refinery.namespace(),
            "labels": labels,
            "annotations": {annotation::RECIPE: serde_json::to_string(recipe)?},
            "ownerReferences": apply::owner(refinery).ok().into_iter().collect::<Vec<_>>(),
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "template": {"metadata": {"labels": labels}, "spec": pod(refinery, args, recipe, ca, &template)},
        },
    });
    serde_json::from_value(body)
}

fn label_value(text: &str) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    (bytes.len() <= 63
        && bytes.iter().all(|b| plain(*b))
        && ends(bytes.first())
        && ends(bytes.last()))
    .then_some(text)
}

fn pod(
    refinery: &Refinery,
    args: &RefineryArgs,
    recipe: &JobRecipe,
    ca: &str,
    template: &GateTemplate,
) -> Value {
    let own_image = template.image.is_none();
    let image = template.image.clone().unwrap_or_else(|| args.agent_image.clone());
    let resources = template.resources.as_ref().and_then(|r| serde_json::to_value(r).ok());
    let mut env = vec![json!({"name": "HOME", "value": "/home/nonroot"})];
    env.extend(template.env.iter().filter_map(|e| serde_json::to_value(e).ok()));
    let url = format!(
        "{}/git/{}/{}",
        args.git_endpoint.trim_end_matches('/'),
        refinery.spec.rig_ref,
        refinery.spec.target_branch
    );
    json!({
        "restartPolicy": "Never",
        // By name: a projected token needs one that is written down, wherever the API server fills
        // none in.
        "serviceAccountName": "default",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 5,
        // Of the pod, not of the Job: a Job past its deadline takes its pod and the gate's log with
        // it.
        "activeDeadlineSeconds": args.gate_seconds,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "imagePullSecrets": template.image_pull_secrets,
        "nodeSelector": template.node_selector,
        "initContainers": [{
            "name": FETCH,
            "image": args.agent_image,
            "imagePullPolicy": args.agent_pull_policy,
            "command": ["/usr/local/bin/gt", "fetch"],
            "env": [
                {"name": "HOME", "value": "/home/nonroot"},
                {"name": "GASTOWN_GIT_URL", "value": url},
                {"name": "GASTOWN_CANDIDATE", "value": recipe.candidate},
                {"name": "GASTOWN_CA", "value": ca},
                {"name": "GASTOWN_TOKEN_FILE", "value": "/var/run/gastown/token/token"},
            ],
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
            "securityContext": restricted(true),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {"name": "workspace", "mountPath": "/workspace"},
                {"name": "home", "mountPath": "/home/nonroot"},
                {"name": "tmp", "mountPath": "/tmp"},
                {"name": "token", "mountPath": "/var/run/gastown/token", "readOnly": true},
            ],
        }],
        "containers": [{
            "name": CONTAINER,
            "image": image,
            "imagePullPolicy": if own_image { &args.agent_pull_policy } else { "IfNotPresent" },
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
        }],
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

/// How a Job stands, read from its pod (which knows first and best) and else from itself.
pub(crate) fn state(job: &Job, pod: Option<&Pod>, now: Timestamp) -> RunState {
    match pod {
        Some(pod) => of_pod(pod, now),
        None => without_pod(job, now),
    }
}

fn without_pod(job: &Job, now: Timestamp) -> RunState {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    for c in conditions.filter(|c| c.status == "True") {
        let age = c.last_transition_time.as_ref().map_or(0, |t| now.as_second() - t.0.as_second());
        match c.type_.as_str() {
            "Complete" => return RunState::Passed,
            // The pod's watch may be behind the Job's.
            "Failed" if age < 5 => {
                return RunState::Running("its pod's end is not known yet".into());
            }
            "Failed" => {
                let why = c.reason.clone().unwrap_or_default();
                return RunState::Broken(format!("the Job failed ({why}) and its pod is gone"));
            }
            _ => {}
        }
    }
    // A Job has its pod within a moment; only one that does not is worth another word (and another
    // write).
    let age = job.creation_timestamp().map_or(0, |t| now.as_second() - t.0.as_second());
    let said = if age < NO_POD_WITHIN { STARTS } else { "it has no pod yet; its events say why" };
    RunState::Running(said.to_owned())
}

fn of_pod(pod: &Pod, now: Timestamp) -> RunState {
    let Some(status) = &pod.status else { return RunState::Running(STARTS.to_owned()) };
    let container = |name: &str| {
        let all = status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten());
        all.into_iter().find(|c| c.name == name)
    };
    let (fetch, gate) = (container(FETCH), container(CONTAINER));
    match status.phase.as_deref() {
        Some("Succeeded") => RunState::Passed,
        Some("Failed") => failed(pod, fetch, gate),
        _ => {
            let stuck = [fetch, gate].into_iter().flatten().find_map(|c| cannot_start(pod, c, now));
            stuck.unwrap_or_else(|| RunState::Running(pending(pod, gate)))
        }
    }
}

/// What ended a failed pod: anything of the cluster's is read before the gate's own exit code.
fn failed(pod: &Pod, fetch: Option<&ContainerStatus>, gate: Option<&ContainerStatus>) -> RunState {
    let status = pod.status.as_ref();
    let reason = status.and_then(|s| s.reason.as_deref()).unwrap_or_default();
    let said = status.and_then(|s| s.message.as_deref()).unwrap_or_default();
    let disrupted = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    if let Some(c) =
        disrupted.into_iter().find(|c| c.type_ == "DisruptionTarget" && c.status == "True")
    {
        let why = c.message.clone().or_else(|| c.reason.clone()).unwrap_or_default();
        return RunState::Broken(format!("its pod was disrupted: {why}"));
    }
    let ended =
        |c: Option<&ContainerStatus>| c.and_then(|c| c.state.clone()).and_then(|s| s.terminated);
    let gate = ended(gate);
    if reason == "DeadlineExceeded" {
        // A gate that began has used up its time; one that did not was kept from it.
        let began = gate.as_ref().is_some_and(|g| {
            g.started_at.is_some() && g.reason.as_deref() != Some("ContainerStatusUnknown")
        });
        return if began {
            RunState::Failed
        } else {
            RunState::Broken("its pod did not start in time".into())
        };
    }
    if !reason.is_empty() {
        return RunState::Broken(format!("its pod failed: {reason} {said}").trim().to_owned());
    }
    if let Some(fetch) = ended(fetch).filter(|f| f.exit_code != 0) {
        let why = fetch.message.or(fetch.reason).unwrap_or_default();
        return RunState::Broken(format!("the candidate was not fetched: {}", why.trim()));
    }
    match gate {
        None => RunState::Broken("its pod failed before the gate began".into()),
        Some(g) => match (g.reason.as_deref(), g.exit_code) {
            (Some("OOMKilled"), _) => {
                RunState::Broken("the gate used more memory than its limit (OOMKilled)".into())
            }
            (Some(r @ ("ContainerCannotRun" | "StartError" | "ContainerStatusUnknown")), _) => {
                RunState::Broken(
                    format!(
                        "the gate's container did not run: {r} {}",
                        g.message.unwrap_or_default()
                    )
                    .trim()
                    .to_owned(),
                )
            }
            (_, 0) => RunState::Broken("its pod failed although the gate ended well".into()),
            _ => RunState::Failed,
        },
    }
}

/// A container whose image or configuration keeps it from starting.
fn cannot_start(pod: &Pod, container: &ContainerStatus, now: Timestamp) -> Option<RunState> {
    let Some(ContainerState { waiting: Some(waiting), .. }) = &container.state else { return None };
    let reason = waiting.reason.as_deref()?;
    let bad = [
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
    ];
    let age = pod.creation_timestamp().map_or(0, |t| now.as_second() - t.0.as_second());
    if !bad.contains(&reason) || age < START_WITHIN {
        return None;
    }
    let said = waiting.message.clone().unwrap_or_default();
    Some(RunState::Broken(
        format!("container {} does not start: {reason} {said}", container.name).trim().to_owned(),
    ))
}

/// What a pod waits for; empty when its gate runs, or has ended and the pod is about to.
fn pending(pod: &Pod, gate: Option<&ContainerStatus>) -> String {
    if gate
        .and_then(|g| g.state.as_ref())
        .is_some_and(|s| s.running.is_some() || s.terminated.is_some())
    {
        return String::new();
    }
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let unscheduled =
        conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    match unscheduled {
        Some(c) => format!("its pod has no node: {}", c.message.clone().unwrap_or_default()),
        None => STARTS.to_owned(),
    }
}

/// The end of a gate's log for its author: no control characters, at most `max` of the last ones.
pub(crate) fn evidence(log: &str, max: usize) -> String {
    let clean: Vec<char> =
        log.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    let from = clean.len().saturating_sub(max);
    clean[from..].iter().collect::<String>().trim().to_owned()
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
