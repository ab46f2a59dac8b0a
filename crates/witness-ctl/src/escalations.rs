//! Escalations of a cause: raising and settling them, for callers of the gRPC service and for the
//! problems that this controller finds itself. Nobody gets an answer before the object is written.

use std::sync::Arc;

use gastown_api::names::{annotation, manager};
use gastown_api::{Escalation, EscalationSpec, Polecat, RelatedObject};
use gastown_core::escalation::{self, EscalationState};
use gastown_core::seniority::Seniority;
use gastown_core::witness::{Assessment, Problem};
use gastown_runtime::apply;
use gastown_runtime::controller::{Class, Classify as _};
use gastown_types::text;
use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};

use crate::context::{Context, escalations_key};
use crate::error::Error;

/// The reasons of all problems that this controller raises an Escalation for.
pub(crate) const REASONS: [&str; 3] = Problem::REASONS;
/// The longest summary that the schema takes, in characters.
pub(crate) const MAX_SUMMARY: usize = 1024;
/// How many conflicting writes of others, and closed Escalations of the same cause, one request
/// gets past.
const MAX_TRIES: usize = 16;

/// The Escalations that a polecat needs now, by the reason of each.
fn problems(
    polecat: &Polecat,
    assessment: Option<&Assessment>,
) -> Vec<(&'static str, EscalationSpec)> {
    let spec = |problem: &Problem| EscalationSpec {
        severity: problem.severity,
        summary: text::line(
            &format!("Polecat {}: {}", polecat.name_any(), problem.summary),
            MAX_SUMMARY,
        ),
        cause: cause(polecat, problem.reason),
        details: None,
        source: "witness-ctl".to_owned(),
        rig_ref: polecat.spec.rig.clone(),
        related_object: Some(RelatedObject {
            kind: "Polecat".to_owned(),
            namespace: polecat.namespace(),
            name: polecat.name_any(),
        }),
        acknowledged: None,
        closed: None,
    };
    let problem = assessment.and_then(|a| a.problem.as_ref());
    problem.into_iter().map(|problem| (problem.reason, spec(problem))).collect()
}

fn cause(polecat: &Polecat, reason: &str) -> String {
    format!("polecat/{}/{}/{reason}", polecat.namespace().unwrap_or_default(), polecat.name_any())
}

/// Raises the problems that a polecat has, unless their Escalations are open already, and settles
/// those of the other reasons. Without an assessment the polecat has no agent at work.
pub(crate) async fn update(
    polecat: &Polecat,
    assessment: Option<&Assessment>,
    ctx: &Context,
) -> Result<(), Error> {
    let namespace = polecat.namespace().unwrap_or_default();
    let problems = problems(polecat, assessment);
    for reason in REASONS {
        if problems.iter().any(|(present, _)| *present == reason) {
            continue;
        }
        // Between two checkpoints a wedged agent's work is still not saved.
        if reason == Problem::UNSAVED && assessment.is_some_and(|a| a.reason == "Wedged") {
            continue;
        }
        let cause = cause(polecat, reason);
        if is_unsettled(ctx, &namespace, &cause) {
            let why = assessment.map_or("its pod is not at work any more", |a| a.message.as_str());
            settle(ctx, &namespace, &cause, why).await?;
        }
    }
    for (_, spec) in problems {
        if open(ctx, &namespace, &spec.cause).is_none() {
            raise(ctx, &namespace, spec, Raiser::Controller).await?;
        }
    }
    Ok(())
}

/// What has happened to an Escalation.
pub(crate) fn state(escalation: &Escalation) -> EscalationState {
    let text = escalation.annotations().get(annotation::ESCALATION_STATE);
    EscalationState::read(text.map(String::as_str))
}

/// Whether neither a person has closed it nor its cause is settled.
pub(crate) fn is_open(escalation: &Escalation) -> bool {
    escalation.spec.closed.is_none()
        && escalation.metadata.deletion_timestamp.is_none()
        && state(escalation).settled.is_none()
}

/// Whether there is an Escalation of a cause that is not settled, open or closed by a person, as
/// the cache shows it.
fn is_unsettled(ctx: &Context, namespace: &str, cause: &str) -> bool {
    let is_unsettled = |e: &Escalation| state(e).settled.is_none();
    ctx.stores.by_cause.find(&escalations_key(namespace, cause), is_unsettled).is_some()
}

/// The open Escalation of a cause, as the cache shows it.
fn open(ctx: &Context, namespace: &str, cause: &str) -> Option<String> {
    let open = ctx.stores.by_cause.find(&escalations_key(namespace, cause), is_open);
    open.map(|e| e.name_any())
}

/// Who raises an Escalation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raiser {
    /// A controller, which reports the problems that there are, and reports them again after a
    /// restart. What a person has closed stays closed until it is settled, or is raised with
    /// another summary.
    Controller,
    /// An agent, which reports something once.
    Agent,
}

/// The Escalations of one cause, from which the name to look at next follows: the open one's if the
/// cache shows it, else the one after the last closed one's.
struct Occurrences<'a> {
    api: &'a Api<Escalation>,
    cause: &'a str,
    open: Option<String>,
    last_closed: Option<Arc<Escalation>>,
}

impl<'a> Occurrences<'a> {
    fn new(ctx: &Context, api: &'a Api<Escalation>, namespace: &str, cause: &'a str) -> Self {
        let key = escalations_key(namespace, cause);
        let closed = ctx.stores.by_cause.filter(&key, |e| !is_open(e));
        let last_closed = closed.into_iter().max_by_key(|e| Seniority::of(e.as_ref()));
        Self { api, cause, open: open(ctx, namespace, cause), last_closed }
    }

    /// The last Escalation, when a person has closed it, none is open, and the cause has not been
    /// settled since.
    async fn closed_by_person(&self) -> Result<Option<Escalation>, Error> {
        let closed = |e: &Escalation| e.spec.closed.is_some() && state(e).settled.is_none();
        let last = self.last_closed.as_ref().filter(|e| self.open.is_none() && closed(e));
        let Some(last) = last else { return Ok(None) };
        // The cache may not show our own last write yet.
        Ok(self.get(&last.name_any()).await?.filter(closed))
    }

    fn next_name(&self) -> String {
        self.open.clone().unwrap_or_else(|| {
            let last = self.last_closed.as_ref().and_then(|e| e.uid());
            escalation::name(self.cause, last.as_deref())
        })
    }

    /// This one is not open: the next name follows from it.
    fn pass(&mut self, closed: Escalation) {
        self.open = None;
        self.last_closed = Some(Arc::new(closed));
    }

    fn error(&self, verb: &'static str) -> impl FnOnce(kube::Error) -> Error {
        let cause = self.cause.to_owned();
        move |source| Error::Escalation { verb, cause, source: Box::new(source) }
    }

    async fn get(&self, name: &str) -> Result<Option<Escalation>, Error> {
        self.api.get_opt(name).await.map_err(self.error("reading"))
    }

    /// Creates an Escalation; false when there is one of that name.
    async fn create(&self, name: &str, spec: &EscalationSpec) -> Result<bool, Error> {
        let mut object = Escalation::new(name, spec.clone());
        let state = EscalationState::default().raise(Timestamp::now()).write();
        object.metadata.annotations =
            Some([(annotation::ESCALATION_STATE.to_owned(), state)].into());
        let params = PostParams {
            field_manager: Some(manager::WITNESS.to_owned()),
            ..PostParams::default()
        };
        match self.api.create(&params, &object).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(self.error("creating")(error)),
        }
    }

    /// Writes the state of an Escalation; false when somebody else has written or deleted it.
    async fn write(&self, object: &Escalation, state: &EscalationState) -> Result<bool, Error> {
        let text = state.write();
        let annotations = [(annotation::ESCALATION_STATE, Some(text.as_str()))];
        match apply::annotate(self.api, manager::WITNESS, object, &annotations).await {
            Ok(_) => Ok(true),
            Err(error) if error.class() == Class::Conflict || error.is_not_found() => Ok(false),
            Err(error) => Err(Error::Annotate(self.cause.to_owned(), error)),
        }
    }
}

fn api(ctx: &Context, namespace: &str) -> Api<Escalation> {
    Api::namespaced(ctx.runtime.client.clone(), namespace)
}

/// Creates the Escalation of a cause, or counts one more raise of the open one, or leaves closed
/// what a person has closed. Returns its name, and whether it is new.
pub(crate) async fn raise(
    ctx: &Context,
    namespace: &str,
    spec: EscalationSpec,
    by: Raiser,
) -> Result<(String, bool), Error> {
    let api = api(ctx, namespace);
    let mut occurrences = Occurrences::new(ctx, &api, namespace, &spec.cause);
    for _ in 0..MAX_TRIES {
        if by == Raiser::Controller
            && let Some(closed) = occurrences.closed_by_person().await?
            && closed.spec.summary == spec.summary
        {
            return Ok((closed.name_any(), false));
        }
        let name = occurrences.next_name();
        match occurrences.get(&name).await? {
            None => {
                if occurrences.create(&name, &spec).await? {
                    ctx.metrics.raised(&spec.rig_ref, spec.severity.as_str());
                    return Ok((name, true));
                }
                occurrences.open = None;
            }
            Some(found) if is_open(&found) && found.spec.cause == spec.cause => {
                if occurrences.write(&found, &state(&found).raise(Timestamp::now())).await? {
                    return Ok((name, false));
                }
            }
            Some(other) => occurrences.pass(other),
        }
    }
    Err(Error::Contended(spec.cause))
}

/// Closes the open Escalation of a cause. Returns its name, or none when there was no open one. An
/// Escalation that a person has closed is marked as settled, so that the same problem raises
/// another one when it comes back.
pub(crate) async fn settle(
    ctx: &Context,
    namespace: &str,
    cause: &str,
    why: &str,
) -> Result<Option<String>, Error> {
    let api = api(ctx, namespace);
    let mut occurrences = Occurrences::new(ctx, &api, namespace, cause);
    for _ in 0..MAX_TRIES {
        let name = occurrences.next_name();
        let settled = |e: &Escalation| state(e).settle(Timestamp::now(), why);
        match occurrences.get(&name).await? {
            None => {
                let Some(closed) = occurrences.closed_by_person().await? else { return Ok(None) };
                if occurrences.write(&closed, &settled(&closed)).await? {
                    return Ok(None);
                }
            }
            Some(found) if is_open(&found) && found.spec.cause == cause => {
                if occurrences.write(&found, &settled(&found)).await? {
                    return Ok(Some(name));
                }
            }
            Some(other) => occurrences.pass(other),
        }
    }
    Err(Error::Contended(cause.to_owned()))
}
