//! Runs of gates: creating and deleting them with their Jobs, and recording how they ended.

use gastown_api::conditions::{self, Draft, time};
use gastown_api::names::{annotation, condition, manager, reason};
use gastown_api::{
    GateRun, GateRunPhase, GateRunPurpose, GateRunStatus, MergeAttempt, MergeRequest,
};
use gastown_core::train::{Build, Built, Car, GateId, GateResult, RequestId, Snapshot};
use gastown_git::Remote;
use gastown_runtime::apply::{self, StatusOwner};
use gastown_runtime::events::Note;
use gastown_runtime::ours;
use gastown_trace::TraceId;
use gastown_types::CommitId;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};

use crate::error::Error;
use crate::gate::{self, OwnRun};
use crate::log;
use crate::pass::Pass;
use crate::trace;
use crate::train::Train;

/// The status of a run.
const OWNER: StatusOwner = StatusOwner {
    manager: manager::REFINERY,
    fields: &[
        "phase",
        "exitCode",
        "evidence",
        "job",
        "pod",
        "startedAt",
        "finishedAt",
        "pendingSeconds",
        "runningSeconds",
    ],
    conditions: &[condition::COMPLETE],
};

/// Brings the candidate's submodules and LFS files into the mirror.
async fn fetch_contents(
    pass: &Pass<'_>,
    remote: &Remote,
    candidate: &CommitId,
) -> Result<(), Error> {
    let lock = pass.ctx.mirror_lock(&pass.url);
    let _guard = lock.lock().await;
    Ok(pass.mirror().fetch_contents(remote, candidate).await?)
}

/// What a run is begun with.
pub(super) struct Begin<'a> {
    pub car: &'a Car,
    pub gate: &'a GateId,
    pub number: u32,
    pub purpose: GateRunPurpose,
}

/// Creates a run and its Job, as far as they do not exist.
pub(super) async fn ensure_run(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &Remote,
    begin: Begin<'_>,
) -> Result<(), Error> {
    let car = begin.car;
    fetch_contents(pass, remote, &car.commit).await?;
    // The end of an earlier run has deleted the candidate's ref, and the target alone never had
    // one: without it the pod cannot fetch anything.
    pass.mirror().keep_candidate(&car.commit).await?;
    let Some(e) = train.entry(&car.request) else { return Ok(()) };
    let run = create_run(pass, e.object(), &begin, e.scratch.building).await?;
    e.scratch.building = None;
    let ca = std::fs::read_to_string(pass.ctx.runtime.args.tls_dir.join("ca.crt"))
        .map_err(|e| Error::Internal(format!("reading the CA certificate: {e}")))?;
    let parent = trace::place(e.object()).gate(&run.name_any()).to_string();
    let job = gate::job(&pass.refinery, &pass.gates, &run, &ca, &parent)
        .map_err(|e| Error::Internal(format!("building the Job of a gate: {e}")))?;
    let job = create_job(pass, &job, &run).await?;
    if let Some(uid) = job.uid() {
        pass.ctx.candidates.offer(uid, || pass.served(&car.commit));
    }
    let now = Timestamp::now();
    e.scratch.history.started_testing_at = Some(time(now));
    let attempt = e.attempt(car.base.as_str(), Some(car.commit.as_str()));
    attempt.gate = Some(gate::GATE.to_owned());
    attempt.job = Some(job.name_any());
    train.created_jobs.insert(job.name_any(), now);
    Ok(())
}

async fn create_run(
    pass: &Pass<'_>,
    request: &MergeRequest,
    begin: &Begin<'_>,
    building: Option<Timestamp>,
) -> Result<GateRun, Error> {
    let Begin { car, gate, number, purpose } = begin;
    let mut wanted = gate::run(&pass.refinery, request, car, gate, *number, *purpose);
    if let Some(began) = building {
        wanted.annotations_mut().insert(annotation::BUILD_BEGAN.to_owned(), began.to_string());
    }
    let name = wanted.name_any();
    let runs = pass.ctx.runs_of(&pass.refinery);
    if let Some((run, _)) = runs.into_iter().find(|(_, own)| own.name == name) {
        return Ok(run.as_ref().clone());
    }
    let api = pass.runs();
    let run = match api.create(&params(), &wanted).await {
        Ok(created) => created,
        // Created before a crash, or by a request whose response was lost.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let doing = format!("creating GateRun {name}, whose name another object has");
            let found =
                api.get(&name).await.map_err(Error::kube(format!("reading GateRun {name}")))?;
            let is_it = |own: OwnRun| own.past.end.is_none() && found.spec == wanted.spec;
            if !OwnRun::of(&found, &pass.refinery).is_some_and(is_it) {
                return Err(Error::kube(doing)(kube::Error::Api(status)));
            }
            found
        }
        Err(error) => return Err(Error::kube(format!("creating GateRun {name}"))(error)),
    };
    pass.ctx.stores.own_runs.record(run.clone());
    Ok(run)
}

fn params() -> PostParams {
    PostParams { field_manager: Some(manager::REFINERY.into()), ..PostParams::default() }
}

async fn create_job(pass: &Pass<'_>, job: &Job, run: &GateRun) -> Result<Job, Error> {
    let (api, name) = (pass.jobs(), job.name_any());
    match api.create(&params(), job).await {
        Ok(created) => Ok(created),
        // Created before a crash, or by a request whose response was lost.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let found = api.get(&name).await.map_err(Error::kube(format!("reading Job {name}")))?;
            if ours::controls(run, &found) && found.metadata.deletion_timestamp.is_none() {
                return Ok(found);
            }
            let doing = format!("creating Job {name}, whose name another Job has");
            Err(Error::kube(doing)(kube::Error::Api(status)))
        }
        Err(error) => Err(Error::kube(format!("creating Job {name}"))(error)),
    }
}

/// Lets the pods of all Jobs fetch their candidates, as far as these are built: those of Jobs of a
/// former process too.
pub(crate) fn offer_candidates(pass: &Pass<'_>, train: &Train, snapshot: &Snapshot) {
    for run in &snapshot.runs {
        let build = train.entries.get(&run.request).and_then(|e| e.cached.build.as_ref());
        let is_built = |b: &Build| {
            b.base == run.candidate || b.built == Built::Candidate(run.candidate.clone())
        };
        if !build.is_some_and(is_built) {
            continue;
        }
        let own = pass.run(&run.name);
        let job = own.and_then(|(_, own)| pass.job_of(&own));
        if let Some(uid) = job.and_then(|job| job.uid()) {
            pass.ctx.candidates.offer(uid, || pass.served(&run.candidate));
        }
    }
}

/// Records the verdict of a run, with the end of its log as evidence of a failure. `until` is when
/// the request may be tested again on this tip, where that is limited.
pub(super) async fn record_verdict(
    pass: &Pass<'_>,
    train: &mut Train,
    name: &str,
    id: &RequestId,
    result: GateResult,
    until: Option<Timestamp>,
) -> Result<(), Error> {
    let Some((run, own)) = pass.run(name) else { return Ok(()) };
    let job = pass.job_of(&own);
    let pod = job.as_ref().and_then(|job| pass.ctx.pod_of(job));
    let (phase, evidence) = match result {
        GateResult::Pass => (GateRunPhase::Passed, None),
        GateResult::Fail => {
            (GateRunPhase::Failed, Some(failure_evidence(pass, pod.as_deref()).await))
        }
    };
    let trace = trace_of(train, id);
    record(pass, &run, phase, evidence, pod.as_deref(), trace).await?;
    trace::export(pass, train, id);
    if let Some(created) = run.creation_timestamp() {
        let seconds = Timestamp::now().duration_since(created.0).as_secs_f64();
        pass.ctx.metrics.gate_seconds.observe(pass.labels(), seconds, trace);
    }
    if let Some(e) = train.entry(id) {
        e.scratch.retest_at = until.or(e.scratch.retest_at);
    }
    Ok(())
}

/// Writes how a run ended. What follows from it may be done only after this has returned.
async fn record(
    pass: &Pass<'_>,
    run: &GateRun,
    phase: GateRunPhase,
    evidence: Option<String>,
    pod: Option<&Pod>,
    trace: Option<TraceId>,
) -> Result<(), Error> {
    let now = Timestamp::now();
    let gate = pod.and_then(gate::terminated);
    let started = gate.as_ref().and_then(|t| t.started_at.clone());
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs().max(0);
    let created = run.creation_timestamp();
    let ended = gate.as_ref().and_then(|t| t.finished_at.clone()).map_or(now, |t| t.0);
    let (why, message) = match phase {
        GateRunPhase::Passed => ("GatePassed", "the gate passed".to_owned()),
        GateRunPhase::Failed => {
            ("GateFailed", "status.evidence has the end of the output".to_owned())
        }
        GateRunPhase::Broken | GateRunPhase::Running | GateRunPhase::Unknown => {
            (reason::GATE_BROKEN, evidence.clone().unwrap_or_default())
        }
    };
    let mut all = run.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let complete = phase != GateRunPhase::Broken;
    let draft = Draft::new(condition::COMPLETE, complete, why, message);
    conditions::merge(&mut all, [draft], run.metadata.generation, now);
    let status = GateRunStatus {
        phase: Some(phase),
        exit_code: gate.as_ref().map(|t| t.exit_code),
        evidence,
        job: run.metadata.name.clone(),
        pod: pod.map(kube::ResourceExt::name_any),
        pending_seconds: started.as_ref().zip(created).map(|(s, c)| seconds(c.0, s.0)),
        running_seconds: started.as_ref().map(|s| seconds(s.0, ended)),
        started_at: started,
        finished_at: Some(time(now)),
        conditions: all,
    };
    let written = OWNER.applied(&pass.runs(), run, &status).await;
    let written = written.map_err(|source| Error::Apply {
        doing: format!("recording the end of GateRun {}", run.name_any()),
        source,
    })?;
    if let Some(written) = written {
        pass.ctx.stores.own_runs.record(written);
        let result = match phase {
            GateRunPhase::Passed => "success",
            GateRunPhase::Failed => "failure",
            GateRunPhase::Broken | GateRunPhase::Running | GateRunPhase::Unknown => "error",
        };
        let times = (status.pending_seconds, status.running_seconds);
        pass.ctx.metrics.gate_ran(pass.rig_name(), result, times, trace);
    }
    Ok(())
}

fn trace_of(train: &mut Train, id: &RequestId) -> Option<TraceId> {
    train.entry(id).map(|e| trace::place(e.object()).trace())
}

/// The end of a failed gate's log, or of its termination message when there is no log.
async fn failure_evidence(pass: &Pass<'_>, pod: Option<&Pod>) -> String {
    let Some(pod) = pod else {
        return "The gate's pod is gone, and its log with it.".to_owned();
    };
    let api = Api::<Pod>::namespaced(pass.client(), &pod.namespace().unwrap_or_default());
    let log = log::end(&api, &pod.name_any(), gate::CONTAINER).await;
    let terminated = gate::terminated(pod);
    let message = terminated.as_ref().and_then(|t| t.message.clone()).unwrap_or_default();
    let late = pod.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("DeadlineExceeded");
    let last = match (&terminated, late) {
        (_, true) => format!("The gate took longer than {} s.", pass.gates.seconds),
        (Some(t), false) => format!("The gate ended with exit code {}.", t.exit_code),
        (None, false) => String::new(),
    };
    let output = if log.trim().is_empty() { &message } else { &log };
    // In bytes, of which a character may have four.
    let output = gate::evidence(output, MergeAttempt::MAX_EVIDENCE - 100);
    let text = format!("{output}\n{last}").trim().to_owned();
    gate::last_bytes(&text, GateRunStatus::MAX_EVIDENCE).to_owned()
}

/// Records that infrastructure broke a run, and deletes its Job.
pub(super) async fn record_broken_run(
    pass: &Pass<'_>,
    train: &mut Train,
    name: &str,
    id: &RequestId,
    why: &str,
    until: Timestamp,
) -> Result<(), Error> {
    let Some((run, own)) = pass.run(name) else { return Ok(()) };
    let pod = pass.job_of(&own).and_then(|job| pass.ctx.pod_of(&job));
    let evidence = gate::evidence(why, MergeAttempt::MAX_EVIDENCE / 2);
    let trace = trace_of(train, id);
    record(pass, &run, GateRunPhase::Broken, Some(evidence), pod.as_deref(), trace).await?;
    trace::export(pass, train, id);
    if let Some(e) = train.entry(id) {
        e.wait_until(
            until,
            reason::GATE_BROKEN,
            format!("Job {name}: {why}; it will be tried again"),
        );
        let note = Note::warning("gate", reason::GATE_BROKEN, format!("Job {name}: {why}"));
        pass.ctx.runtime.events.publish(e.object(), note);
    }
    pass.ctx.metrics.broken_runs.inc(pass.labels());
    release_job(pass, train, name).await
}

/// Deletes a run's Job and the ref of its candidate, and the run itself when nothing was learnt from
/// it.
pub(super) async fn release_job(
    pass: &Pass<'_>,
    train: &mut Train,
    name: &str,
) -> Result<(), Error> {
    train.created_jobs.remove(name);
    let Some((run, own)) = pass.run(name) else { return Ok(()) };
    let api = pass.jobs();
    let job = match pass.job_of(&own) {
        Some(job) => Some(job.as_ref().clone()),
        None => api.get_opt(name).await.map_err(Error::kube(format!("reading Job {name}")))?,
    };
    if let Some(job) = job.filter(|job| ours::controls(run.as_ref(), job)) {
        apply::delete(&api, &job)
            .await
            .map_err(|source| Error::Apply { doing: format!("deleting Job {name}"), source })?;
        if let Some(uid) = job.uid() {
            pass.ctx.candidates.withdraw(&uid);
            train.released_jobs.insert(uid);
        }
    }
    // Its objects stay as long as the mirror does.
    if let Err(error) = pass.mirror().drop_candidate(&own.past.candidate).await {
        tracing::debug!(%error, "the ref of a candidate stays in the mirror");
    }
    if own.past.end.is_none() { delete_run(pass, name).await } else { Ok(()) }
}

/// Deletes a run.
pub(super) async fn delete_run(pass: &Pass<'_>, name: &str) -> Result<(), Error> {
    let Some((run, own)) = pass.run(name) else { return Ok(()) };
    apply::delete(&pass.runs(), run.as_ref())
        .await
        .map_err(|source| Error::Apply { doing: format!("deleting GateRun {name}"), source })?;
    pass.ctx.stores.own_runs.record_deleted(&own.uid);
    Ok(())
}
