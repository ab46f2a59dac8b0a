//! Carries out one step. Judges nothing: what comes out of a step is remembered, and the next
//! decision takes it into account.

mod build;
mod clean_up;
mod end;
mod fetch;
mod gate;
mod land;
mod network;
mod polecat;
mod record;

pub(crate) use gate::offer_candidates;
pub(crate) use network::ensure_policy;

use gastown_core::train::Step;

use crate::error::Error;
use crate::pass::Pass;
use crate::remote::PassRemote;
use crate::train::Train;

/// Carries out a step.
pub(crate) async fn act(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &PassRemote<'_>,
    step: Step,
) -> Result<(), Error> {
    match step {
        Step::Wait { .. } => Ok(()),
        Step::Fetch => fetch::fetch(pass, train, remote.get().await?).await,
        Step::Build { request, base } => build::build(pass, train, &request, &base).await,
        Step::EnsureGate { car, gate, run, purpose } => {
            let begin = gate::Begin { car: &car, gate: &gate, number: run, purpose };
            gate::ensure_run(pass, train, remote.get().await?, begin).await
        }
        Step::RecordVerdict { run, request, result, until } => {
            gate::record_verdict(pass, train, &run, &request, result, until).await
        }
        Step::RecordBrokenRun { run, request, why, until } => {
            gate::record_broken_run(pass, train, &run, &request, &why, until).await
        }
        Step::ReleaseJob { run } => gate::release_job(pass, train, &run).await,
        Step::DeleteRun(run) => gate::delete_run(pass, &run).await,
        Step::Land(tested) => land::land(pass, train, remote.get().await?, &tested).await,
        Step::ReadBack { request, commit } => {
            land::read_back(pass, train, remote.get().await?, &request, commit).await
        }
        Step::MarkLanded { request, commit, tested, reason } => {
            land::mark_landed(pass, train, &request, commit, tested, reason).await
        }
        Step::NotifyAuthor(request) => land::notify_author(pass, train, &request).await,
        Step::CleanUp(request) => {
            clean_up::branch(pass, train, remote.get().await?, &request).await
        }
        Step::DeleteSaved(request) => {
            clean_up::saved(pass, train, remote.get().await?, &request).await
        }
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
