//! Carries out one step. Judges nothing: what comes out of a step is remembered, and the next
//! decision takes it into account.

mod build;
mod clean_up;
mod end;
mod fetch;
mod gate;
mod land;
mod polecat;
mod record;

pub(crate) use gate::offer_candidates;

use gastown_core::train::{Step, Verdict};
use gastown_git::Remote;

use crate::error::Error;
use crate::pass::Pass;
use crate::train::Train;

/// Carries out a step.
pub(crate) async fn act(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &Remote,
    step: Step,
) -> Result<(), Error> {
    match step {
        Step::Wait { .. } => Ok(()),
        Step::Fetch => fetch::fetch(pass, train, remote).await,
        Step::Build { request, base } => build::build(pass, train, &request, &base).await,
        Step::EnsureGate { car, gate, run } => {
            gate::ensure_job(pass, train, remote, &car, &gate, run).await
        }
        Step::RecordVerdict { job, request, candidate, gate, result, until } => {
            let verdict = Verdict { candidate, gate, result, evidence: String::new() };
            gate::record_verdict(pass, train, &job, &request, verdict, until).await
        }
        Step::RecordBrokenRun { job, request, why, until } => {
            gate::record_broken_run(pass, train, &job, &request, &why, until).await
        }
        Step::ReleaseJob { job } => gate::release_job(pass, train, &job).await,
        Step::Rerun(request) => end::rerun(pass, train, &request).await,
        Step::Retest(request) => end::retest(pass, train, &request).await,
        Step::Land(tested) => land::land(pass, train, remote, &tested).await,
        Step::ReadBack { request, commit } => {
            land::read_back(pass, train, remote, &request, commit).await
        }
        Step::MarkLanded { request, commit, tested, reason } => {
            land::mark_landed(pass, train, &request, commit, tested, reason).await
        }
        Step::NotifyAuthor(request) => land::notify_author(pass, train, &request).await,
        Step::CleanUp(request) => clean_up::branch(pass, train, remote, &request).await,
        Step::DeleteSaved(request) => clean_up::saved(pass, train, remote, &request).await,
        Step::LookUpAuthor(request) => end::look_up_author(pass, train, &request).await,
        Step::Rework { request, reason, evidence } => {
            end::rework(pass, train, &request, reason, evidence).await
        }
        Step::Reject { request, reason, message } => {
            end::reject(pass, train, &request, reason, message).await
        }
        Step::Supersede { request, by } => end::supersede(pass, train, &request, &by).await,
        Step::Reopen(request) => end::reopen(pass, train, &request).await,
        Step::DeleteRequest(request) => end::delete(pass, train, &request).await,
    }
}
