//! One pass over a Refinery: facts, step, facts, step, … until there is only waiting.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::names::reason;
use gastown_api::{MergeRequest, Refinery, Rig};
use gastown_core::train::{Facts, Step, decide};
use gastown_credentials::{Named, reason_of};
use gastown_git::{Class, GitError, Remote};
use gastown_runtime::controller::resync;
use gastown_runtime::events::Note;
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use crate::act::Fault;
use crate::context::{Context, Error, doing};
use crate::gather::{Pass, allows, requests_of};
use crate::memory::Train;
use crate::place::{Place, place};
use crate::{escalations, report, write};

/// No pass takes more steps; what is left comes at once in the next one.
const STEPS: usize = 200;

pub(crate) async fn reconcile(refinery: Arc<Refinery>, ctx: Arc<Context>) -> Result<Action, Error> {
    if refinery.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let rig = |name: &str| ctx.rigs.get(&ObjectRef::<Rig>::new(name));
    match place(&refinery, &ctx.refineries.state(), rig) {
        Place::Stands { reason, message } => stand(&ctx, &refinery, reason, &message).await,
        Place::Serves { rig, url, target } => {
            let pass = Pass { ctx: &ctx, refinery, rig, url, target };
            pass.run().await
        }
    }
}

/// Says why a Refinery does nothing, to its requests too.
async fn stand(
    ctx: &Context,
    refinery: &Refinery,
    why: &'static str,
    message: &str,
) -> Result<Action, Error> {
    let (now, client) = (Timestamp::now(), &ctx.runtime.client);
    let mut pending = 0;
    let open = |r: &MergeRequest| crate::memory::Ledger::of(r).end.is_none();
    // Requests for a Duplicate are the other Refinery's, which is at work on them.
    if why != reason::DUPLICATE {
        for request in requests_of(ctx, refinery).iter().filter(|r| open(r)) {
            pending += 1;
            let status = report::waiting_status(
                request.status.as_ref(),
                why,
                message,
                request.metadata.generation,
                now,
            );
            write::request_status(client, request, &status).await?;
        }
    }
    let status = report::standing_status(
        refinery.status.as_ref(),
        pending,
        why,
        message,
        refinery.metadata.generation,
        now,
    );
    if refinery.status.as_ref() != Some(&status) {
        write::refinery_status(client, refinery, &status).await?;
    }
    ctx.runtime.events.publish(refinery, Note::warning("place", why, message));
    Ok(resync())
}

impl Pass<'_> {
    async fn run(&self) -> Result<Action, Error> {
        let train = self.ctx.train(&(self.url.normalised(), self.target.clone()));
        let mut train = train.lock().await;
        let term = self.ctx.runtime.leadership.held().ok_or(Error::NotHolder)?;
        let uid = self.refinery.uid().unwrap_or_default();
        // What was learnt in another term, or for another Refinery, may be wrong by now.
        if train.term != Some(term) || train.refinery != uid {
            *train = Train { term: Some(term), refinery: uid, ..Train::default() };
        }
        self.tell_strangers().await?;
        let namespace = self.refinery.namespace().unwrap_or_default();
        let named = Named {
            namespace: &namespace,
            secret: self.refinery.spec.git_secret_ref.as_ref().map(|r| r.name.as_str()),
            known_hosts: self
                .refinery
                .spec
                .ssh_known_hosts_config_map_ref
                .as_ref()
                .map(|r| r.name.as_str()),
            chart_value: "refinery.secretNamespaces",
        };
        let remote =
            match gastown_credentials::remote(&self.ctx.runtime.client, named, &self.url).await {
                Ok(remote) => remote,
                Err(gastown_credentials::Error::Kube(error)) => {
                    return Err(doing("reading credentials")(error));
                }
                Err(gastown_credentials::Error::Condition(reason, message)) => {
                    return self.troubled(&mut train, reason, message).await;
                }
            };
        match self.steps(&mut train, &remote).await {
            Ok(until) => {
                let facts = self.facts(&mut train);
                self.report(&mut train, &facts).await?;
                escalations::keep(&self.ctx.escalations, &facts, &train, &self.refinery);
                Ok(until.map_or_else(resync, |t| Action::requeue(wait_until(t))))
            }
            Err(Fault::Kube(error)) => Err(error),
            Err(Fault::Git(error)) => self.git_failed(&mut train, &error).await,
        }
    }

    /// Steps until there is only waiting; when to look again.
    async fn steps(&self, train: &mut Train, remote: &Remote) -> Result<Option<Timestamp>, Fault> {
        for _ in 0..STEPS {
            if self.ctx.runtime.leadership.held().is_none() {
                return Err(Error::NotHolder.into());
            }
            let facts: Facts = self.facts(train);
            let step = decide(&facts);
            if let Step::Wait { until, .. } = &step {
                return Ok(*until);
            }
            if self.ctx.runtime.drain.is_cancelled() {
                return Ok(None);
            }
            tracing::debug!(?step, "step");
            let (remote_step, told) = (asks_remote(&step), is_told(&step));
            self.act(train, remote, step).await?;
            if remote_step {
                (train.problem, train.troubled, train.discarded) = (None, 0, false);
            }
            if told {
                let facts = self.facts(train);
                self.report(train, &facts).await?;
            }
        }
        Ok(Some(Timestamp::now()))
    }

    /// Requests of namespaces that the rig does not admit hear why they wait.
    async fn tell_strangers(&self) -> Result<(), Error> {
        let (name, now) = (self.rig.name_any(), Timestamp::now());
        for request in requests_of(self.ctx, &self.refinery) {
            let namespace = request.namespace().unwrap_or_default();
            if allows(&self.rig, &namespace) || crate::memory::Ledger::of(&request).end.is_some() {
                continue;
            }
            let message =
                format!("Rig {name} does not admit namespace {namespace} (spec.allowedNamespaces)");
            let generation = request.metadata.generation;
            let status = report::waiting_status(
                request.status.as_ref(),
                reason::NAMESPACE_NOT_ALLOWED,
                &message,
                generation,
                now,
            );
            write::request_status(&self.ctx.runtime.client, &request, &status).await?;
        }
        Ok(())
    }

    /// The remote or the mirror failed: said in conditions, tried again with back-off.
    async fn git_failed(&self, train: &mut Train, error: &GitError) -> Result<Action, Error> {
        if matches!(error.class, Class::Corrupt | Class::RefNotFound) && !train.discarded {
            tracing::warn!(%error, "the mirror is thrown away and made again");
            train.discarded = true;
            train.target = None;
            train.entries.values_mut().for_each(|e| e.build = None);
            let lock = self.ctx.mirror_lock(&self.url);
            let _one = lock.lock().await;
            if let Err(error) = self.ctx.mirror(&self.url).discard() {
                tracing::warn!(%error, "a broken mirror stays");
            }
            return Ok(Action::requeue(Duration::from_millis(100)));
        }
        // A target that we are not sure of is asked for again.
        train.target = None;
        self.troubled(train, reason_of(error.class), error.to_string()).await
    }

    async fn troubled(
        &self,
        train: &mut Train,
        reason: &'static str,
        message: String,
    ) -> Result<Action, Error> {
        tracing::warn!(reason, message, "the refinery cannot reach its remote");
        self.ctx
            .runtime
            .events
            .publish(self.refinery.as_ref(), Note::warning("remote", reason, message.clone()));
        train.problem = Some((reason.to_owned(), message));
        train.troubled = train.troubled.saturating_add(1);
        let facts = self.facts(train);
        self.report(train, &facts).await?;
        let seconds = 1_u64 << train.troubled.min(5);
        Ok(Action::requeue(gastown_runtime::jittered(Duration::from_secs(seconds.min(30)))))
    }
}

fn wait_until(t: Timestamp) -> Duration {
    let wait = t.duration_since(Timestamp::now());
    Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(50)
}

fn asks_remote(step: &Step) -> bool {
    matches!(step, Step::Fetch | Step::Land(_) | Step::ReadBack { .. })
}

/// Whether a step changes what people see; statuses are written before its Job goes or the next
/// step comes.
fn is_told(step: &Step) -> bool {
    use Step::{
        Doubt, EnsureGate, Land, MarkLanded, RecordFault, RecordVerdict, Reject, Reopen, Retest,
        Rework, Supersede,
    };
    matches!(
        step,
        EnsureGate { .. }
            | RecordVerdict { .. }
            | RecordFault { .. }
            | Land(_)
            | MarkLanded { .. }
            | Rework { .. }
            | Reject { .. }
            | Supersede { .. }
            | Reopen(_)
            | Retest(_)
            | Doubt(_)
    )
}
