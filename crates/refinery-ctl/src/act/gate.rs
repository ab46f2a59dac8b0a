//! Jobs of gates: creating and deleting them, and recording their results.

use gastown_api::MergeAttempt;
use gastown_api::conditions::time;
use gastown_api::names::manager;
use gastown_core::train::{
    Build, Built, Car, GateId, GateResult, RequestId, RunState, Snapshot, Verdict,
};
use gastown_git::Remote;
use gastown_runtime::apply;
use gastown_runtime::events::Note;
use gastown_types::CommitId;
use gastown_types::digest::short_digest;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{LogParams, PostParams};
use kube::{Api, ResourceExt as _};

use super::record::save;
use crate::error::Error;
use crate::gate::{self, JobRecipe};
use crate::pass::Pass;
use crate::train::{CreatedJob, Train};

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

/// Creates the Job of a run, unless it exists.
pub(super) async fn ensure_job(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &Remote,
    car: &Car,
    gate: &GateId,
    run: u32,
) -> Result<(), Error> {
    fetch_contents(pass, remote, &car.commit).await?;
    // The end of an earlier run has deleted the candidate's ref, and the target alone never had
    // one: without it the pod cannot fetch anything.
    pass.mirror().keep_candidate(&car.commit).await?;
    let Some(e) = train.entry(&car.request) else { return Ok(()) };
    let recipe = JobRecipe::new(car, &e.durable.commit, gate, run);
    let ca = std::fs::read_to_string(pass.ctx.runtime.args.tls_dir.join("ca.crt"))
        .map_err(|e| Error::Internal(format!("reading the CA certificate: {e}")))?;
    let job = gate::job(&pass.refinery, &pass.ctx.gates, &recipe, &ca)
        .map_err(|e| Error::Internal(format!("building the Job of a gate: {e}")))?;
    let job = create(pass, &job, &recipe).await?;
    let name = job.name_any();
    if let Some(uid) = job.uid() {
        pass.ctx.candidates.offer(uid, || pass.served(&recipe.candidate));
    }
    let now = Timestamp::now();
    e.scratch.history.started_testing_at = Some(time(now));
    let attempt = e.attempt(car.base.as_str(), Some(car.commit.as_str()));
    attempt.gate = Some(gate::GATE.to_owned());
    attempt.job = Some(name.clone());
    let run = recipe.run(&pass.refinery, RunState::Running(gate::STARTING.to_owned()));
    train.created_jobs.insert(name, CreatedJob { run, at: now });
    Ok(())
}

async fn create(pass: &Pass<'_>, job: &Job, recipe: &JobRecipe) -> Result<Job, Error> {
    let (api, name) = (pass.jobs(), job.name_any());
    let params =
        PostParams { field_manager: Some(manager::REFINERY.into()), ..PostParams::default() };
    match api.create(&params, job).await {
        Ok(created) => Ok(created),
        // Created before a crash, or by a request whose response was lost.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let found = api.get(&name).await.map_err(Error::kube(format!("reading Job {name}")))?;
            if JobRecipe::of(&found, &pass.refinery).as_ref() == Some(recipe)
                && found.metadata.deletion_timestamp.is_none()
            {
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
        let job = pass.cached_job(&run.job).filter(|_| build.is_some_and(is_built));
        if let Some(uid) = job.and_then(|job| job.uid()) {
            pass.ctx.candidates.offer(uid, || pass.served(&run.candidate));
        }
    }
}

/// Records the verdict of a Job's gate, with the end of its log as evidence of a failure. `until`
/// is when the request may be tested again on this tip, where that is limited.
pub(super) async fn record_verdict(
    pass: &Pass<'_>,
    train: &mut Train,
    job_name: &str,
    id: &RequestId,
    mut verdict: Verdict,
    until: Option<Timestamp>,
) -> Result<(), Error> {
    let job = pass.cached_job(job_name);
    let pod = job.as_ref().and_then(|j| pass.ctx.pod_of(j));
    let evidence = match verdict.result {
        GateResult::Pass => None,
        GateResult::Fail => Some(failure_evidence(pass, pod.as_deref()).await),
    };
    verdict.evidence = evidence.as_deref().map(|e| short_digest(&[e], 16)).unwrap_or_default();
    let recipe = job.as_ref().and_then(|j| JobRecipe::of(j, &pass.refinery));
    let base = recipe.map(|r| r.base.to_string()).unwrap_or_default();
    if let Some(created) = job.as_ref().and_then(|j| j.creation_timestamp()) {
        let seconds = Timestamp::now().duration_since(created.0).as_secs_f64();
        pass.ctx.metrics.gate_seconds.get_or_create(&pass.labels()).observe(seconds);
    }
    let Some(e) = train.entry(id) else { return Ok(()) };
    let failed = verdict.result == GateResult::Fail;
    let attempt = e.attempt(&base, Some(verdict.candidate.as_str()));
    attempt.gate = Some(gate::GATE.to_owned());
    attempt.job = Some(job_name.to_owned());
    attempt.finished_at = Some(time(Timestamp::now()));
    attempt.result = Some(if failed { "Failed" } else { "Passed" }.to_owned());
    attempt.reason = failed.then(|| "GateFailed".to_owned());
    attempt.evidence = evidence;
    e.durable.record.broken_runs = 0;
    e.durable.record.add_verdict(verdict);
    let saved = save(pass, train, id).await;
    if let Some(e) = train.entry(id) {
        match &saved {
            Ok(()) => e.scratch.retest_at = until.or(e.scratch.retest_at),
            // A verdict that is not recorded does not count.
            Err(_) => drop(e.durable.record.verdicts.pop()),
        }
    }
    saved
}

/// The end of a failed gate's log, or of its termination message when there is no log.
async fn failure_evidence(pass: &Pass<'_>, pod: Option<&Pod>) -> String {
    let Some(pod) = pod else {
        return "The gate's pod is gone, and its log with it.".to_owned();
    };
    let api = Api::<Pod>::namespaced(pass.client(), &pod.namespace().unwrap_or_default());
    let params = LogParams {
        container: Some(gate::CONTAINER.to_owned()),
        tail_lines: Some(200),
        limit_bytes: Some(256 << 10),
        ..LogParams::default()
    };
    let log = api.logs(&pod.name_any(), &params).await.unwrap_or_default();
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let terminated =
        statuses.filter(|c| c.name == gate::CONTAINER).find_map(|c| c.state.clone()?.terminated);
    let message = terminated.as_ref().and_then(|t| t.message.clone()).unwrap_or_default();
    let late = pod.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("DeadlineExceeded");
    let last = match (&terminated, late) {
        (_, true) => format!("The gate took longer than {} s.", pass.ctx.gates.seconds),
        (Some(t), false) => format!("The gate ended with exit code {}.", t.exit_code),
        (None, false) => String::new(),
    };
    let output = if log.trim().is_empty() { &message } else { &log };
    let output = gate::evidence(output, MergeAttempt::MAX_EVIDENCE - 100);
    format!("{output}\n{last}").trim().to_owned()
}

/// Records that infrastructure broke a run, and deletes its Job.
pub(super) async fn record_broken_run(
    pass: &Pass<'_>,
    train: &mut Train,
    job: &str,
    id: &RequestId,
    why: &str,
    until: Timestamp,
) -> Result<(), Error> {
    let recipe = pass.cached_job(job).and_then(|j| JobRecipe::of(&j, &pass.refinery));
    if let Some(e) = train.entry(id) {
        let (base, candidate) =
            recipe.map(|r| (r.base.to_string(), r.candidate.to_string())).unwrap_or_default();
        let attempt = e.attempt(&base, Some(&candidate));
        attempt.job = Some(job.to_owned());
        attempt.finished_at = Some(time(Timestamp::now()));
        attempt.result = Some("Broken".to_owned());
        attempt.reason = Some("Infrastructure".to_owned());
        attempt.evidence = Some(gate::evidence(why, MergeAttempt::MAX_EVIDENCE));
        e.durable.record.broken_runs += 1;
        e.durable.record.runs_done += 1;
        e.wait_until(until, "GateBroken", format!("Job {job}: {why}; it will be tried again"));
        let note = Note::warning("gate", "GateBroken", format!("Job {job}: {why}"));
        pass.ctx.runtime.events.publish(e.object(), note);
    }
    pass.ctx.metrics.broken_runs.get_or_create(&pass.labels()).inc();
    save(pass, train, id).await?;
    release_job(pass, train, job).await
}

/// Deletes a Job, if it is ours, and the ref of its candidate.
pub(super) async fn release_job(
    pass: &Pass<'_>,
    train: &mut Train,
    name: &str,
) -> Result<(), Error> {
    train.created_jobs.remove(name);
    let api = pass.jobs();
    let job = match pass.cached_job(name) {
        Some(job) => Some(job.as_ref().clone()),
        None => api.get_opt(name).await.map_err(Error::kube(format!("reading Job {name}")))?,
    };
    let is_ours = |job: &Job| apply::is_owned_by(job, pass.refinery.as_ref());
    let Some(job) = job.filter(is_ours) else { return Ok(()) };
    if let Some(uid) = job.uid() {
        apply::delete(&api, &job)
            .await
            .map_err(|source| Error::Apply { doing: format!("deleting Job {name}"), source })?;
        pass.ctx.candidates.withdraw(&uid);
        train.released_jobs.insert(uid);
    }
    if let Some(recipe) = JobRecipe::of(&job, &pass.refinery) {
        // Its objects stay as long as the mirror does.
        if let Err(error) = pass.mirror().drop_candidate(&recipe.candidate).await {
            tracing::debug!(%error, "the ref of a candidate stays in the mirror");
        }
    }
    Ok(())
}
