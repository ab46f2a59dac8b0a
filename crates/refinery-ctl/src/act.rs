//! Carries out one step. Judges nothing: what comes out of a step is remembered, and decided about
//! next time.

use gastown_api::conditions::time;
use gastown_api::names::{manager, reason};
use gastown_api::{MergeAttempt, MergeRequest};
use gastown_core::train::{
    Author, Car, End, EndPhase, GateId, Judgement, Landing, RequestId, RunState, Step, Target,
    Tested, Verdict, short_digest,
};
use gastown_git::{GitError, PushOutcome, RefUpdate, Refusal, Remote};
use gastown_runtime::apply;
use gastown_runtime::events::Note;
use gastown_types::CommitId;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{LogParams, PostParams};
use kube::{Api, ResourceExt as _};

use crate::context::{Error, doing};
use crate::gate::{self, JobRecipe};
use crate::gather::{Pass, pod_of};
use crate::memory::{Started, Train};
use crate::metrics::RigLabels;
use crate::write::attempt;

/// What went wrong with a step.
#[derive(Debug)]
pub(crate) enum Fault {
    /// With the remote or the mirror.
    Git(GitError),
    /// With the API server.
    Kube(Error),
}

impl From<GitError> for Fault {
    fn from(e: GitError) -> Self {
        Self::Git(e)
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Self::Kube(e)
    }
}

pub(crate) fn in_seconds(seconds: i64) -> Timestamp {
    let now = Timestamp::now();
    now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now)
}

impl Pass<'_> {
    /// Carries out a step; [`Step::Wait`] is nobody's to carry out.
    pub(crate) async fn act(
        &self,
        train: &mut Train,
        remote: &Remote,
        step: Step,
    ) -> Result<(), Fault> {
        match step {
            Step::Wait { .. } => {}
            Step::Fetch => self.fetch(train, remote).await?,
            Step::Build { request, base } => self.build(train, &request, &base).await?,
            Step::EnsureGate { car, gate, run } => {
                self.ensure_gate(train, &car, &gate, run).await?
            }
            Step::RecordVerdict { job, request, candidate, gate, result, until } => {
                self.record_verdict(
                    train,
                    &job,
                    &request,
                    Verdict { candidate, gate, result, evidence: String::new() },
                )
                .await?;
                if let Some(e) = train.entry(&request) {
                    e.retest_at = until.or(e.retest_at);
                }
            }
            Step::Doubt(request) => {
                if let Some(e) = train.entry(&request) {
                    e.ledger.doubts += 1;
                }
                self.retest(train, &request).await?;
            }
            Step::Retest(request) => self.retest(train, &request).await?,
            Step::RecordFault { job, request, why, until } => {
                self.record_fault(train, &job, &request, &why, until).await?
            }
            Step::ReleaseJob { job } => self.release(train, &job).await?,
            Step::Land(car) => self.land(train, remote, &car).await?,
            Step::ReadBack { request, commit } => {
                self.read_back(train, remote, &request, commit).await?
            }
            Step::MarkLanded { request, commit, tested, reason } => {
                self.mark_landed(train, &request, commit, tested, reason).await?
            }
            Step::TellAuthor(request) => self.tell_author(train, &request).await?,
            Step::DeleteSource(request) => self.delete_source(train, remote, &request).await?,
            Step::AskAuthor(request) => self.ask_author(train, &request).await?,
            Step::Rework { request, reason, evidence } => {
                self.rework(train, &request, reason, evidence).await?
            }
            Step::Reject { request, reason, message } => {
                self.reject(train, &request, reason, message).await?
            }
            Step::Supersede { request, by } => {
                let message = format!("{by} takes its place");
                self.end(train, &request, ended(EndPhase::Superseded, "Superseded", message))
                    .await?;
            }
            Step::Reopen(request) => self.reopen(train, &request).await?,
            Step::Forget(request) => self.forget(train, &request).await?,
        }
        Ok(())
    }

    fn jobs_api(&self) -> Api<Job> {
        Api::namespaced(
            self.ctx.runtime.client.clone(),
            &self.refinery.namespace().unwrap_or_default(),
        )
    }

    fn labels(&self) -> RigLabels {
        RigLabels { rig: self.refinery.spec.rig_ref.clone() }
    }

    async fn ensure_gate(
        &self,
        train: &mut Train,
        car: &Car,
        gate: &GateId,
        run: u32,
    ) -> Result<(), Fault> {
        // A former run's end has dropped its name, and the target alone never had one: without it
        // the pod can fetch nothing.
        self.ctx.mirror(&self.url).keep_candidate(&car.commit).await?;
        let Some(e) = train.entry(&car.request) else { return Ok(()) };
        let recipe = JobRecipe::new(car, &e.commit, gate, run);
        let ca = std::fs::read_to_string(self.ctx.runtime.args.tls_dir.join("ca.crt"))
            .map_err(|e| Error::Defect(format!("reading the CA's certificate: {e}")))?;
        let job = gate::job(&self.refinery, &self.ctx.args, &recipe, &ca);
        let job = job.map_err(|e| Error::Defect(format!("making a gate's Job: {e}")))?;
        let (api, name) = (self.jobs_api(), job.name_any());
        let params =
            PostParams { field_manager: Some(manager::REFINERY.into()), ..PostParams::default() };
        let made = match api.create(&params, &job).await {
            Ok(made) => made,
            // Made before a crash, or by a write whose answer was lost.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = api.get(&name).await.map_err(doing(format!("reading Job {name}")))?;
                if JobRecipe::of(&found, &self.refinery).as_ref() != Some(&recipe)
                    || found.metadata.deletion_timestamp.is_some()
                {
                    return Err(doing(format!("making Job {name}, whose name is taken"))(
                        kube::Error::Api(status),
                    )
                    .into());
                }
                found
            }
            Err(error) => return Err(doing(format!("making Job {name}"))(error).into()),
        };
        let seen = recipe.run(&self.refinery, RunState::Running("its pod is not there yet".into()));
        if let Some(uid) = made.uid() {
            self.ctx.served.lock().insert(uid, self.served(&seen));
        }
        let now = Timestamp::now();
        e.history.started_testing_at = Some(time(now));
        let a = attempt(e, car.base.as_str(), Some(car.commit.as_str()));
        a.gate = Some(gate::GATE.to_owned());
        a.job = Some(name.clone());
        train.started.insert(name, Started { run: seen, at: now });
        Ok(())
    }

    fn seen_job(&self, name: &str) -> Option<std::sync::Arc<Job>> {
        let namespace = self.refinery.namespace();
        self.ctx.jobs.find(|j| j.name_any() == name && j.namespace() == namespace)
    }

    async fn record_verdict(
        &self,
        train: &mut Train,
        job: &str,
        id: &RequestId,
        mut verdict: Verdict,
    ) -> Result<(), Error> {
        let seen = self.seen_job(job);
        let pod = seen.as_ref().and_then(|j| pod_of(self.ctx, j));
        let evidence = match verdict.result {
            Judgement::Pass => None,
            Judgement::Fail => Some(self.evidence(pod.as_deref()).await),
        };
        verdict.evidence = evidence.as_deref().map(|e| short_digest(&[e], 16)).unwrap_or_default();
        let base = seen
            .as_ref()
            .and_then(|j| JobRecipe::of(j, &self.refinery))
            .map(|r| r.base.to_string())
            .unwrap_or_default();
        if let Some(begun) = seen.as_ref().and_then(|j| j.creation_timestamp()) {
            let seconds = Timestamp::now().duration_since(begun.0).as_secs_f64();
            self.ctx.metrics.gate_seconds.get_or_create(&self.labels()).observe(seconds);
        }
        let Some(e) = train.entry(id) else { return Ok(()) };
        let a = attempt(e, &base, Some(verdict.candidate.as_str()));
        a.gate = Some(gate::GATE.to_owned());
        a.job = Some(job.to_owned());
        a.finished_at = Some(time(Timestamp::now()));
        let red = verdict.result == Judgement::Fail;
        a.result = Some(if red { "Failed" } else { "Passed" }.to_owned());
        a.reason = red.then(|| "GateFailed".to_owned());
        a.evidence = evidence;
        e.ledger.faults = 0;
        // At most the last sixteen: a request that is rebuilt often must not grow without end.
        if e.ledger.verdicts.len() >= 16 {
            e.ledger.verdicts.remove(0);
        }
        e.ledger.verdicts.push(verdict);
        if let Err(error) = self.ledger(train, id).await {
            if let Some(e) = train.entry(id) {
                e.ledger.verdicts.pop();
            }
            return Err(error);
        }
        Ok(())
    }

    /// The end of the gate's log, or what its termination message holds of it.
    async fn evidence(&self, pod: Option<&Pod>) -> String {
        let Some(pod) = pod else {
            return "The gate's pod is gone, and its log with it.".to_owned();
        };
        let api = Api::<Pod>::namespaced(
            self.ctx.runtime.client.clone(),
            &pod.namespace().unwrap_or_default(),
        );
        let params = LogParams {
            container: Some(gate::CONTAINER.to_owned()),
            tail_lines: Some(200),
            limit_bytes: Some(256 << 10),
            ..LogParams::default()
        };
        let log = api.logs(&pod.name_any(), &params).await.unwrap_or_default();
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let ended = statuses
            .filter(|c| c.name == gate::CONTAINER)
            .find_map(|c| c.state.clone()?.terminated);
        let said = ended.as_ref().and_then(|t| t.message.clone()).unwrap_or_default();
        let late =
            pod.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("DeadlineExceeded");
        let last = match (&ended, late) {
            (_, true) => format!("The gate took longer than {} s.", self.ctx.args.gate_seconds),
            (Some(t), _) => format!("The gate ended with exit code {}.", t.exit_code),
            (None, _) => String::new(),
        };
        let text = gate::evidence(
            if log.trim().is_empty() { &said } else { &log },
            MergeAttempt::MAX_EVIDENCE - 100,
        );
        format!("{text}\n{last}").trim().to_owned()
    }

    async fn record_fault(
        &self,
        train: &mut Train,
        job: &str,
        id: &RequestId,
        why: &str,
        until: Timestamp,
    ) -> Result<(), Error> {
        let base = self.seen_job(job).and_then(|j| JobRecipe::of(&j, &self.refinery));
        if let Some(e) = train.entry(id) {
            let (base, candidate) =
                base.map(|r| (r.base.to_string(), r.candidate.to_string())).unwrap_or_default();
            let a = attempt(e, &base, Some(&candidate));
            a.job = Some(job.to_owned());
            a.finished_at = Some(time(Timestamp::now()));
            a.result = Some("Broken".to_owned());
            a.reason = Some("Infrastructure".to_owned());
            a.evidence = Some(gate::evidence(why, MergeAttempt::MAX_EVIDENCE));
            e.ledger.faults += 1;
            e.ledger.runs += 1;
            e.not_before = Some(until);
            e.note =
                Some(("GateBroken".to_owned(), format!("Job {job}: {why}; it is tried again")));
            self.ctx.runtime.events.publish(
                e.object.as_ref(),
                Note::warning("gate", "GateBroken", format!("Job {job}: {why}")),
            );
        }
        self.ctx.metrics.faults.get_or_create(&self.labels()).inc();
        self.ledger(train, id).await?;
        self.release(train, job).await
    }

    async fn release(&self, train: &mut Train, name: &str) -> Result<(), Error> {
        train.started.remove(name);
        let api = self.jobs_api();
        let job = match self.seen_job(name) {
            Some(job) => Some(job.as_ref().clone()),
            None => api.get_opt(name).await.map_err(doing(format!("reading Job {name}")))?,
        };
        let Some(job) = job.filter(|j| apply::is_owned_by(j, self.refinery.as_ref())) else {
            return Ok(());
        };
        if let Some(uid) = job.uid() {
            apply::delete(&api, &job)
                .await
                .map_err(|source| Error::Apply { doing: format!("deleting Job {name}"), source })?;
            self.ctx.served.lock().remove(&uid);
            train.released.insert(uid);
        }
        if let Some(recipe) = JobRecipe::of(&job, &self.refinery) {
            // Its objects stay as long as the mirror; only its name goes.
            if let Err(error) = self.ctx.mirror(&self.url).drop_candidate(&recipe.candidate).await {
                tracing::debug!(%error, "a candidate's name stays in the mirror");
            }
        }
        Ok(())
    }

    /// Moves the target. Only what was tested can get here.
    async fn land(
        &self,
        train: &mut Train,
        remote: &Remote,
        tested: &Tested<Car>,
    ) -> Result<(), Fault> {
        let car = tested.what();
        if !self.is_fast_forward(&car.base, &car.commit).await? {
            return Err(Error::Defect(format!(
                "candidate {} does not descend from {}",
                car.commit, car.base
            ))
            .into());
        }
        if self.ctx.runtime.leadership.held().is_none() {
            return Err(Error::NotHolder.into());
        }
        let update = RefUpdate {
            name: self.target.full(),
            expected: Some(car.base.clone()),
            new: Some(car.commit.clone()),
        };
        let mirror = self.ctx.mirror(&self.url);
        let pushed = remote.push(&self.ctx.git, mirror.path(), &[update]).await;
        let outcome = match pushed {
            Ok(outcomes) => outcomes
                .into_iter()
                .next()
                .unwrap_or(PushOutcome::Rejected(Refusal::Other, "no answer".into())),
            Err(error) => {
                // It may have arrived all the same: the target is looked at before anything else.
                train.target = None;
                return Err(error.into());
            }
        };
        let Some(e) = train.entry(&car.request) else { return Ok(()) };
        match outcome {
            PushOutcome::Done | PushOutcome::UpToDate => {
                e.landing = Landing::Pushed(car.commit.clone());
                train.target = Some(Target::At { tip: car.commit.clone(), seen: Timestamp::now() });
            }
            PushOutcome::Rejected(Refusal::Stale, said) => {
                tracing::info!(
                    request = e.object.name_any(),
                    said,
                    "the target moved: the request is built and tested again"
                );
                train.target = None;
            }
            PushOutcome::Rejected(why, said) => {
                e.not_before = Some(in_seconds(60));
                e.note = Some((
                    "PushRejected".to_owned(),
                    format!("the remote refused the push ({why:?}): {said}"),
                ));
                let (object, said) =
                    (e.object.clone(), format!("Merge failed for {}: {said}", author(&e.object)));
                self.tell(&object, Note::warning("landing", reason::MERGE_FAILED, said));
            }
        }
        Ok(())
    }

    async fn read_back(
        &self,
        train: &mut Train,
        remote: &Remote,
        id: &RequestId,
        commit: CommitId,
    ) -> Result<(), Fault> {
        for wait in [0, 200, 1000] {
            // A forge's replicas may be behind the one that took the push.
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
            if self.holds(train, remote, &commit).await? {
                if let Some(e) = train.entry(id) {
                    e.landing = Landing::Confirmed(commit);
                }
                return Ok(());
            }
        }
        self.ctx.metrics.mismatches.get_or_create(&self.labels()).inc();
        let message = format!("the remote took {commit} and its {} does not hold it", self.target);
        self.ctx
            .runtime
            .events
            .publish(self.refinery.as_ref(), Note::warning("landing", "ReadBackFailed", &message));
        train.target = None;
        if let Some(e) = train.entry(id) {
            e.landing = Landing::No;
            e.build = None;
            e.not_before = Some(in_seconds(30));
            e.note = Some(("ReadBackFailed".to_owned(), message));
        }
        Ok(())
    }

    async fn mark_landed(
        &self,
        train: &mut Train,
        id: &RequestId,
        commit: Option<CommitId>,
        tested: Option<CommitId>,
        why: &'static str,
    ) -> Result<(), Error> {
        let tip = match train.target() {
            Target::At { tip, .. } => Some(tip),
            Target::Unknown | Target::Absent { .. } => None,
        };
        let Some(e) = train.entries.get(id) else { return Ok(()) };
        let shown = commit.as_ref().or(tip.as_ref()).map(ToString::to_string).unwrap_or_default();
        // The author hears first: a crash in between finds the request landed and tells it again.
        let message = format!("Branch {} merged to {} (commit: {shown})", e.branch, self.target);
        let told = self.merged(e, &message).await?;
        let end = End {
            phase: EndPhase::Landed,
            reason: why.to_owned(),
            message,
            at: Timestamp::now(),
            tested,
            landed: commit,
        };
        let (object, queued) = (e.object.clone(), e.object.creation_timestamp());
        if let Some(e) = train.entry(id) {
            e.told = told;
        }
        self.end(train, id, end).await?;
        if let Some(t) = queued {
            let seconds = Timestamp::now().duration_since(t.0).as_secs_f64();
            self.ctx.metrics.merge_seconds.get_or_create(&self.labels()).observe(seconds);
        }
        self.tell(
            &object,
            Note::normal(
                "landing",
                reason::MERGE_SUCCEEDED,
                format!("Successfully merged {}", author(&object)),
            ),
        );
        Ok(())
    }

    async fn tell_author(&self, train: &mut Train, id: &RequestId) -> Result<(), Error> {
        let Some(e) = train.entries.get(id) else { return Ok(()) };
        let Some(end) = &e.ledger.end else { return Ok(()) };
        let told = self.merged(e, &end.message).await?;
        if let Some(e) = train.entry(id) {
            e.told = told;
        }
        Ok(())
    }

    /// Says it of the request, and of the Refinery about the request.
    fn tell(&self, request: &MergeRequest, note: Note) {
        self.ctx.runtime.events.publish(self.refinery.as_ref(), note.clone().about(request));
        self.ctx.runtime.events.publish(request, note);
    }

    /// Deletes a landed branch that nobody has moved since. What cannot be deleted stays, and is no
    /// fault.
    async fn delete_source(
        &self,
        train: &mut Train,
        remote: &Remote,
        id: &RequestId,
    ) -> Result<(), Fault> {
        let Some(e) = train.entries.get(id) else { return Ok(()) };
        // Another open request of the same branch still needs it.
        let needed = train
            .entries
            .iter()
            .any(|(o, x)| o != id && x.branch == e.branch && x.ledger.end.is_none());
        if e.branch != self.target && !needed {
            let update =
                RefUpdate { name: e.branch.full(), expected: Some(e.commit.clone()), new: None };
            if !self.ctx.mirror(&self.url).path().exists() {
                // A push needs a repository, even one that only deletes.
                self.fetch(train, remote).await?;
            }
            let Some(e) = train.entries.get(id) else { return Ok(()) };
            match remote.push(&self.ctx.git, self.ctx.mirror(&self.url).path(), &[update]).await {
                Ok(outcomes) => {
                    tracing::debug!(branch = %e.branch, ?outcomes, "a landed branch is deleted")
                }
                Err(error) if error.class.is_transient() => {
                    if let Some(e) = train.entry(id) {
                        e.not_before = Some(in_seconds(60));
                    }
                    return Ok(());
                }
                Err(error) => tracing::info!(branch = %e.branch, %error, "a landed branch stays"),
            }
        }
        if let Some(e) = train.entry(id) {
            e.ledger.cleaned = true;
        }
        Ok(self.ledger(train, id).await?)
    }

    async fn ask_author(&self, train: &mut Train, id: &RequestId) -> Result<(), Error> {
        let Some(e) = train.entries.get(id) else { return Ok(()) };
        let nobody = e.object.spec.polecat_ref.is_none();
        let there = nobody
            || self.polecat(e).await?.is_some_and(|p| p.metadata.deletion_timestamp.is_none());
        if let Some(e) = train.entry(id) {
            e.author = if there { Author::Present } else { Author::Gone };
        }
        Ok(())
    }

    async fn rework(
        &self,
        train: &mut Train,
        id: &RequestId,
        why: &'static str,
        evidence: String,
    ) -> Result<(), Error> {
        let base = match train.target() {
            Target::At { tip, .. } => tip.to_string(),
            Target::Unknown | Target::Absent { .. } => String::new(),
        };
        let Some(e) = train.entry(id) else { return Ok(()) };
        let message = match why {
            "Conflict" => format!("it does not apply to {}", self.target),
            "GateFailed" => {
                "its gate failed; status.attempts holds the end of the output".to_owned()
            }
            _ => evidence.clone(),
        };
        // A gate's evidence is in the attempt already; here is only its digest.
        if why != "GateFailed" {
            let a = attempt(e, &base, None);
            a.result = Some(why.to_owned());
            a.reason = Some(why.to_owned());
            a.finished_at = Some(time(Timestamp::now()));
            a.evidence = Some(gate::evidence(&evidence, MergeAttempt::MAX_EVIDENCE));
        }
        let object = e.object.clone();
        self.end(train, id, ended(EndPhase::Rework, why, message.clone())).await?;
        if why == "Conflict" {
            self.ctx.metrics.conflicts.get_or_create(&self.labels()).inc();
        }
        self.tell(
            &object,
            Note::warning(
                "landing",
                reason::MERGE_FAILED,
                format!("Merge failed for {}: {why}: {message}", author(&object)),
            ),
        );
        Ok(())
    }

    async fn reject(
        &self,
        train: &mut Train,
        id: &RequestId,
        why: &'static str,
        message: String,
    ) -> Result<(), Error> {
        let Some(object) = train.entries.get(id).map(|e| e.object.clone()) else { return Ok(()) };
        self.end(train, id, ended(EndPhase::Rejected, why, message.clone())).await?;
        self.ctx.runtime.events.publish(object.as_ref(), Note::warning("landing", why, message));
        Ok(())
    }

    async fn reopen(&self, train: &mut Train, id: &RequestId) -> Result<(), Error> {
        let Some(e) = train.entry(id) else { return Ok(()) };
        e.ledger.end = None;
        e.ledger.verdicts.clear();
        e.ledger.faults = 0;
        // Another run of the same candidate is another Job.
        e.ledger.runs += 1;
        e.ledger.retried = e.object.spec.retry;
        (e.not_before, e.retest_at, e.build, e.landing) = (None, None, None, Landing::No);
        self.ledger(train, id).await
    }

    async fn retest(&self, train: &mut Train, id: &RequestId) -> Result<(), Error> {
        let Some(e) = train.entry(id) else { return Ok(()) };
        e.ledger.verdicts.clear();
        // Another run of the same commits is another Job.
        e.ledger.runs += 1;
        e.retest_at = None;
        self.ledger(train, id).await
    }

    async fn forget(&self, train: &mut Train, id: &RequestId) -> Result<(), Error> {
        if let Some(e) = train.entries.remove(id) {
            let api = Api::<MergeRequest>::namespaced(
                self.ctx.runtime.client.clone(),
                &e.object.namespace().unwrap_or_default(),
            );
            let name = e.object.name_any();
            apply::delete(&api, e.object.as_ref()).await.map_err(|source| Error::Apply {
                doing: format!("deleting request {name}"),
                source,
            })?;
        }
        Ok(())
    }
}

/// Whose work a request is: the Go operator's events name the polecat.
fn author(object: &MergeRequest) -> String {
    object.spec.polecat_ref.as_ref().map_or_else(|| object.name_any(), |p| p.name.clone())
}

fn ended(phase: EndPhase, reason: &str, message: String) -> End {
    End {
        phase,
        reason: reason.to_owned(),
        message,
        at: Timestamp::now(),
        tested: None,
        landed: None,
    }
}
