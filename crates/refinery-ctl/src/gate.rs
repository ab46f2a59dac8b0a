//! Gates: what a gate is, and how its Job is recognised. Pure.

mod job;
mod state;

use gastown_api::Refinery;
use gastown_api::names::annotation;
use gastown_core::train::{Car, GateId, RequestId, Run, RunState, gate_job_name};
use gastown_git::Strategy;
use gastown_runtime::apply;
use gastown_types::CommitId;
use gastown_types::digest::short_digest;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

use crate::args::GateSettings;

pub(crate) use job::job;
pub(crate) use state::{STARTING, evidence, state};

/// The labels of gate Jobs and their pods, so that only they are watched. They prove nothing.
pub(crate) const SELECTOR: &str =
    "app.kubernetes.io/component=gate,app.kubernetes.io/managed-by=refinery-ctl";
/// The name of a Refinery's only gate.
pub(crate) const GATE: &str = "test";
/// The container that fetches the candidate.
const FETCH: &str = "fetch";
/// The container that runs the gate's command.
pub(crate) const CONTAINER: &str = "gate";
/// The version of [`JobRecipe`]'s format.
const VERSION: u32 = 1;

/// How a Job's candidate is built: the Job's annotation, from which any process can build it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobRecipe {
    #[serde(rename = "v")]
    version: u32,
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
            version: VERSION,
            request: car.request.0.clone(),
            base: car.base.clone(),
            source: source.clone(),
            strategy: Strategy::Rebase,
            candidate: car.commit.clone(),
            gate: gate.clone(),
            run,
        }
    }

    /// The recipe of a Job that this Refinery owns and that has the recipe's name; `None` for any
    /// other Job.
    pub(crate) fn of(job: &Job, refinery: &Refinery) -> Option<Self> {
        let text = job.annotations().get(annotation::RECIPE)?;
        let recipe: Self =
            serde_json::from_str(text).ok().filter(|r: &Self| r.version == VERSION)?;
        let ours = apply::is_owned_by(job, refinery) && job.name_any() == recipe.job_name(refinery);
        ours.then_some(recipe)
    }

    pub(crate) fn job_name(&self, refinery: &Refinery) -> String {
        let uid = refinery.uid().unwrap_or_default();
        // The target alone is tested for each request anew.
        let spec = if self.candidate == self.base {
            format!("{}/{}", self.gate.0, self.request)
        } else {
            self.gate.0.clone()
        };
        gate_job_name(&uid, &self.candidate, GATE, &spec, self.run)
    }

    /// The Job as a run in this state.
    pub(crate) fn run(&self, refinery: &Refinery, state: RunState) -> Run {
        Run {
            job: self.job_name(refinery),
            request: RequestId(self.request.clone()),
            candidate: self.candidate.clone(),
            gate: self.gate.clone(),
            state,
        }
    }
}

/// A digest of everything that decides the outcome of the gate; `None` without a command.
pub(crate) fn gate_id(refinery: &Refinery, settings: &GateSettings) -> Option<GateId> {
    let command = refinery.spec.test_command.as_deref().filter(|c| !c.trim().is_empty())?;
    let template = serde_json::to_string(&refinery.spec.gate_template).unwrap_or_default();
    let seconds = settings.seconds.to_string();
    Some(GateId(short_digest(&["1", command, &template, &settings.image, &seconds], 12)))
}

#[cfg(test)]
mod tests;
