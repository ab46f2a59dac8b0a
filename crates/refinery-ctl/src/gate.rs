//! Gates: what a gate is, and how its runs are recognised. Pure.

mod job;
mod network;
mod state;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use gastown_api::names::label;
use gastown_api::{GateRun, GateRunMember, GateRunPurpose, GateRunSpec, MergeRequest, Refinery};
use gastown_core::train::{Car, GateId, PastRun, RequestId, Run, RunState, gate_job_name};
use gastown_runtime::{apply, ours};
use gastown_types::digest::short_digest;
use gastown_types::{CommitId, is_label_value};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use crate::args::GateSettings;

pub(crate) use job::job;
pub(crate) use network::{policy, policy_name};
pub(crate) use state::{STARTING, evidence, last_bytes, state, terminated};

/// The labels of gate Jobs, their pods and network policies, so that only they are watched. They prove
/// nothing.
pub(crate) const SELECTOR: &str =
    "app.kubernetes.io/component=gate,app.kubernetes.io/managed-by=refinery-ctl";
/// The name of a Refinery's only gate.
pub(crate) const GATE: &str = "test";
/// The container that fetches the candidate.
const FETCH: &str = "fetch";
/// The container that runs the gate's command.
pub(crate) const CONTAINER: &str = "gate";

/// The run of a car of one request, as refinery-ctl creates it.
pub(crate) fn run(
    refinery: &Refinery,
    request: &MergeRequest,
    car: &Car,
    gate: &GateId,
    number: u32,
    purpose: GateRunPurpose,
) -> GateRun {
    let spec = GateRunSpec {
        refinery_ref: refinery.name_any(),
        candidate: car.commit.to_string(),
        base: car.base.to_string(),
        gate: GATE.to_owned(),
        gate_digest: gate.0.clone(),
        purpose,
        run: i32::try_from(number).unwrap_or(i32::MAX),
        members: vec![GateRunMember {
            namespace: request.namespace().unwrap_or_default(),
            name: request.name_any(),
            uid: car.request.0.clone(),
            commit: request.spec.commit.clone(),
        }],
    };
    let mut run = GateRun::new("", spec);
    run.metadata = ObjectMeta {
        name: name(refinery, &run.spec),
        namespace: refinery.namespace(),
        labels: Some(labels(refinery)),
        owner_references: Some(apply::owner(refinery).into_iter().collect()),
        ..ObjectMeta::default()
    };
    run
}

/// The labels of runs, their Jobs, pods and network policies. They prove nothing.
fn labels(refinery: &Refinery) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("app.kubernetes.io/component".to_owned(), "gate".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "refinery-ctl".to_owned()),
    ]);
    let rig = &refinery.spec.rig_ref;
    labels.extend(is_label_value(rig).then(|| (label::RIG.to_owned(), rig.clone())));
    labels.extend(refinery.uid().map(|uid| (label::REFINERY_UID.to_owned(), uid)));
    labels
}

/// The name of a run, which follows from its spec. `None` for a spec that no run of ours has.
fn name(refinery: &Refinery, spec: &GateRunSpec) -> Option<String> {
    let uid = refinery.uid()?;
    let member = spec.members.first()?;
    let candidate: CommitId = spec.candidate.parse().ok()?;
    let gate = format!("{}/{}", spec.gate_digest, member.uid);
    Some(gate_job_name(&uid, &candidate, &spec.gate, &gate, u32::try_from(spec.run).ok()?))
}

/// A run of ours, read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OwnRun {
    pub name: String,
    pub uid: String,
    /// Its first member, for which it was begun.
    pub request: RequestId,
    pub base: CommitId,
    pub past: PastRun,
    /// When its end was recorded.
    pub finished: Option<Timestamp>,
    pub evidence: Option<String>,
}

impl OwnRun {
    /// A run of this Refinery: it is where the Refinery is, the Refinery controls it, and its name
    /// follows from its spec. `None` for any other object.
    pub(crate) fn of(run: &GateRun, refinery: &Refinery) -> Option<Self> {
        let (spec, status) = (&run.spec, run.status.as_ref());
        let is_ours = ours::controls(refinery, run)
            && run.metadata.deletion_timestamp.is_none()
            && spec.refinery_ref == refinery.name_any()
            && name(refinery, spec).as_deref() == run.metadata.name.as_deref();
        let member = spec.members.first().filter(|_| is_ours)?;
        Some(Self {
            name: run.name_any(),
            uid: run.uid()?,
            request: RequestId(member.uid.clone()),
            base: spec.base.parse().ok()?,
            past: PastRun {
                number: u32::try_from(spec.run).ok()?,
                candidate: spec.candidate.parse().ok()?,
                gate: GateId(spec.gate_digest.clone()),
                purpose: spec.purpose,
                end: run.end(),
            },
            finished: status.and_then(|s| s.finished_at.as_ref()).map(|t| t.0),
            evidence: status.and_then(|s| s.evidence.clone()),
        })
    }

    /// Orders runs by their ends, those that have not ended first. Ends are recorded in whole seconds:
    /// of runs of one request that ended in the same one, the later has the higher number.
    pub(crate) fn by_end(&self, other: &Self) -> Ordering {
        let key = |run: &Self| (run.finished, run.past.number);
        key(self).cmp(&key(other)).then_with(|| self.name.cmp(&other.name))
    }

    /// The run as the train sees it.
    pub(crate) fn in_state(&self, state: RunState) -> Run {
        Run {
            name: self.name.clone(),
            number: self.past.number,
            request: self.request.clone(),
            candidate: self.past.candidate.clone(),
            gate: self.past.gate.clone(),
            purpose: self.past.purpose,
            state,
            recorded: self.past.end.is_some(),
        }
    }
}

/// A digest of everything that decides the outcome of the gate; `None` without a command. The image of agents
/// is a part of it only where the gate runs in that: each release has another one, and what was tested before
/// an upgrade stays tested.
pub(crate) fn gate_id(refinery: &Refinery, settings: &GateSettings) -> Option<GateId> {
    let command = refinery.spec.test_command.as_deref().filter(|c| !c.trim().is_empty())?;
    let template = serde_json::to_string(&refinery.spec.gate_template).unwrap_or_default();
    let own_image = refinery.spec.gate_template.as_ref().is_some_and(|t| t.image.is_some());
    let image = if own_image { "" } else { settings.image.as_str() };
    let seconds = settings.seconds.to_string();
    Some(GateId(short_digest(&["1", command, &template, image, &seconds], 12)))
}

#[cfg(test)]
mod tests;
