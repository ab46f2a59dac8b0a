//! The spans of requests, exported when their ends are recorded.

use gastown_api::names::annotation;
use gastown_api::{GateRun, MergeRequest};
use gastown_core::train::RequestId;
use gastown_runtime::telemetry;
use gastown_trace::{Request, RequestFacts, Run};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::pass::Pass;
use crate::train::{Entry, Train};

/// Where the spans of a request belong.
pub(crate) fn place(request: &MergeRequest) -> Request {
    let polecat = request.spec.polecat_ref.as_ref().map(|author| author.uid.as_str());
    let parent = request.annotations().get(annotation::TRACEPARENT).map(String::as_str);
    Request::of(&request.uid().unwrap_or_default(), parent, polecat)
}

/// Exports the finished spans of a request. Must be called after the end of a run, or its own, was
/// recorded.
pub(crate) fn export(pass: &Pass<'_>, train: &Train, id: &RequestId) {
    let Some(e) = train.entries.get(id).filter(|_| telemetry::is_exported()) else { return };
    let runs = pass.ctx.runs_of(&pass.refinery);
    export_entry(
        pass,
        id,
        e,
        runs.iter().filter(|(_, own)| own.request == *id).map(|(run, _)| run.as_ref()),
    );
}

/// Exports those of requests that this process sees for the first time: its predecessor may have ended
/// between a write and its export.
pub(crate) fn export_again(pass: &Pass<'_>, train: &mut Train, ids: &[RequestId]) {
    if !telemetry::is_exported() {
        return;
    }
    let is_new = |id: &&RequestId| train.entries.get(*id).is_some_and(|e| !e.scratch.exported);
    let new_ones: Vec<&RequestId> = ids.iter().filter(is_new).collect();
    if new_ones.is_empty() {
        return;
    }
    let runs = pass.ctx.runs_of(&pass.refinery);
    for id in new_ones {
        let Some(e) = train.entry(id) else { continue };
        e.scratch.exported = true;
        let own = runs.iter().filter(|(_, own)| own.request == *id).map(|(run, _)| run.as_ref());
        export_entry(pass, id, e, own);
    }
}

fn export_entry<'a>(
    pass: &Pass<'_>,
    id: &RequestId,
    e: &Entry,
    runs: impl Iterator<Item = &'a GateRun>,
) {
    pass.ctx.lives.export(&id.0, Timestamp::now(), || place(e.object()).spans(&facts(e, runs)));
}

/// What is known of a request. Pure.
fn facts<'a>(e: &Entry, runs: impl Iterator<Item = &'a GateRun>) -> RequestFacts {
    let object = e.object();
    let spec = &object.spec;
    let end = e.durable.record.end.as_ref();
    RequestFacts {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        rig: spec.rig_ref.clone(),
        branch: spec.source_branch.clone(),
        commit: spec.commit.clone(),
        target: spec.target_branch.clone(),
        created: object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        runs: runs.filter_map(run).collect(),
        ended: end.map(|end| (end.at, format!("{:?}", end.phase), end.reason.clone())),
    }
}

/// A run that has ended.
fn run(run: &GateRun) -> Option<Run> {
    let (spec, status) = (&run.spec, run.status.as_ref()?);
    let building = run.annotations().get(annotation::BUILD_BEGAN);
    Some(Run {
        name: run.name_any(),
        number: u32::try_from(spec.run).ok()?,
        gate: spec.gate.clone(),
        candidate: spec.candidate.clone(),
        purpose: format!("{:?}", spec.purpose),
        building: building.and_then(|text| text.parse().ok()),
        created: run.creation_timestamp()?.0,
        started: status.started_at.as_ref().map(|t| t.0),
        finished: status.finished_at.as_ref()?.0,
        result: format!("{:?}", run.end()?),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn request(annotations: &serde_json::Value) -> MergeRequest {
        serde_json::from_value(json!({
            "apiVersion": "gastown.gastown.io/v1alpha1",
            "kind": "MergeRequest",
            "metadata": {
                "name": "mr", "namespace": "web", "uid": "request",
                "creationTimestamp": "2026-01-02T03:00:00Z", "annotations": annotations,
            },
            "spec": {
                "rigRef": "web", "sourceBranch": "feature/x", "commit": "a".repeat(40),
                "targetBranch": "main", "polecatRef": {"name": "toast", "uid": "author"},
            },
        }))
        .unwrap()
    }

    fn gate_run(status: &serde_json::Value) -> GateRun {
        serde_json::from_value(json!({
            "apiVersion": "gastown.gastown.io/v1alpha1",
            "kind": "GateRun",
            "metadata": {
                "name": "gate-1", "creationTimestamp": "2026-01-02T03:01:00Z",
                "annotations": {"gastown.io/build-began": "2026-01-02T03:00:58.25Z"},
            },
            "spec": {
                "refineryRef": "main", "candidate": "b".repeat(40), "base": "c".repeat(40),
                "gate": "test", "gateDigest": "d", "purpose": "Test", "run": 1,
                "members": [{"namespace": "web", "name": "mr", "uid": "request", "commit": "a".repeat(40)}],
            },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_request_belongs_to_the_life_of_its_author_or_to_the_trace_of_its_annotation() {
        let own = place(&request(&json!({})));
        assert_eq!(own.trace(), gastown_trace::TraceId::of("author"));
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let given = place(&request(&json!({"gastown.io/traceparent": parent})));
        assert_eq!(given.trace().to_string(), "0af7651916cd43dd8448eb211c80319c");
        let forged = place(&request(&json!({"gastown.io/traceparent": "00-00-00-00"})));
        assert_eq!(forged, own);
    }

    #[test]
    fn a_run_counts_when_its_end_is_recorded() {
        assert_eq!(run(&gate_run(&json!({"phase": "Running"}))), None);
        let ended = gate_run(&json!({
            "phase": "Failed",
            "startedAt": "2026-01-02T03:01:05Z", "finishedAt": "2026-01-02T03:02:00Z",
        }));
        let entry = Entry::new(Arc::new(request(&json!({})))).unwrap();
        let spans = place(entry.object()).spans(&facts(&entry, std::iter::once(&ended)));
        let shown: Vec<(&str, i64)> =
            spans.iter().map(|s| (&*s.name, s.end.duration_since(s.begin).as_secs())).collect();
        let expected = [
            ("queue", 58),
            ("build", 2),
            ("gate run", 60),
            ("gate pending", 5),
            ("gate running", 55),
        ];
        assert_eq!(shown, expected);
    }
}
