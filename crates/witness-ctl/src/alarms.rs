//! Raising and settling: the write is made before anybody is told that it is.

use std::sync::Arc;

use gastown_api::names::{annotation, manager};
use gastown_api::{Escalation, EscalationSpec};
use gastown_core::escalation::{self, Ledger};
use gastown_runtime::apply;
use gastown_runtime::controller::{Class, Classify};
use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};

use crate::context::Context;

/// So many writes of others, or closed ones of the same cause, are passed before it is given up for
/// now.
const TRIES: usize = 16;

/// Why an alarm was not raised or settled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0} an Escalation")]
    Kube(&'static str, #[source] kube::Error),
    #[error(transparent)]
    Apply(apply::Error),
    #[error("the Escalation of this cause changes all the time")]
    Busy,
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Kube(_, source) => Class::of(source),
            Self::Apply(source) => source.class(),
            Self::Busy => Class::Conflict,
        }
    }
}

pub(crate) fn ledger(escalation: &Escalation) -> Ledger {
    Ledger::read(escalation.annotations().get(annotation::ALARM).map(String::as_str))
}

pub(crate) fn is_open(escalation: &Escalation) -> bool {
    escalation.spec.closed.is_none()
        && escalation.metadata.deletion_timestamp.is_none()
        && ledger(escalation).settled.is_none()
}

/// Whether there is an Escalation of a cause that nobody has said is over, open or closed by a
/// person, as the cache shows it.
pub(crate) fn stands(ctx: &Context, namespace: &str, cause: &str) -> bool {
    let fits = |e: &Escalation| {
        e.namespace().as_deref() == Some(namespace)
            && e.spec.cause == cause
            && ledger(e).settled.is_none()
    };
    ctx.escalations.find(fits).is_some()
}

/// The open Escalation of a cause, as the cache shows it.
pub(crate) fn open(ctx: &Context, namespace: &str, cause: &str) -> Option<String> {
    let fits = |e: &Escalation| {
        e.namespace().as_deref() == Some(namespace) && e.spec.cause == cause && is_open(e)
    };
    ctx.escalations.find(fits).map(|e| e.name_any())
}

/// Who raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raiser {
    /// One that says how things stand, and says it again after a restart. What a person closed
    /// stays closed until it is settled, or is said in other words.
    Controller,
    /// One that says something once.
    Agent,
}

/// Names to look under: that of the open one if the cache shows it, else the one that comes after
/// the last closed one.
struct Names<'a> {
    cause: &'a str,
    open: Option<String>,
    last: Option<Arc<Escalation>>,
}

impl<'a> Names<'a> {
    fn new(ctx: &Context, namespace: &str, cause: &'a str) -> Self {
        let fits =
            |e: &Escalation| e.namespace().as_deref() == Some(namespace) && e.spec.cause == cause;
        let closed = ctx.escalations.state_filter(|e| fits(e) && !is_open(e));
        let last =
            closed.into_iter().max_by_key(|e| (e.creation_timestamp().map(|t| t.0), e.name_any()));
        Self { cause, open: open(ctx, namespace, cause), last }
    }

    /// The last one, when a person closed it, nothing is open, and nobody has said since that it is
    /// over.
    async fn closed_by_person(&self, api: &Api<Escalation>) -> Result<Option<Escalation>, Error> {
        let closed = |e: &Escalation| e.spec.closed.is_some() && ledger(e).settled.is_none();
        let Some(last) = self.last.as_ref().filter(|e| self.open.is_none() && closed(e)) else {
            return Ok(None);
        };
        // The cache may not show yet what we wrote.
        let found = api.get_opt(&last.name_any()).await.map_err(|e| Error::Kube("reading", e))?;
        Ok(found.filter(closed))
    }

    fn next(&self) -> String {
        self.open.clone().unwrap_or_else(|| {
            escalation::name(self.cause, self.last.as_ref().and_then(|e| e.uid()).as_deref())
        })
    }

    /// That one is over.
    fn after(&mut self, closed: Escalation) {
        self.open = None;
        self.last = Some(Arc::new(closed));
    }
}

fn conflict(error: &apply::Error) -> bool {
    error.class() == Class::Conflict || error.is_not_found()
}

/// Makes an Escalation, or counts one more raise of the open one of the same cause, or leaves
/// closed what a person closed. Returns its name, and whether it is new.
pub(crate) async fn raise(
    ctx: &Context,
    namespace: &str,
    spec: EscalationSpec,
    by: Raiser,
) -> Result<(String, bool), Error> {
    let api = Api::<Escalation>::namespaced(ctx.runtime.client.clone(), namespace);
    let mut names = Names::new(ctx, namespace, &spec.cause);
    for _ in 0..TRIES {
        if by == Raiser::Controller
            && let Some(closed) =
                names.closed_by_person(&api).await?.filter(|e| e.spec.summary == spec.summary)
        {
            return Ok((closed.name_any(), false));
        }
        let name = names.next();
        let now = Timestamp::now();
        let Some(found) = api.get_opt(&name).await.map_err(|e| Error::Kube("reading", e))? else {
            let mut wanted = Escalation::new(&name, spec.clone());
            let text = Ledger::default().raise(now).write();
            wanted.metadata.annotations = Some([(annotation::ALARM.to_owned(), text)].into());
            let params = PostParams {
                field_manager: Some(manager::WITNESS.to_owned()),
                ..PostParams::default()
            };
            match api.create(&params, &wanted).await {
                Ok(_) => return Ok((name, true)),
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    names.open = None;
                    continue;
                }
                Err(error) => return Err(Error::Kube("creating", error)),
            }
        };
        if !is_open(&found) || found.spec.cause != spec.cause {
            names.after(found);
            continue;
        }
        let text = ledger(&found).raise(now).write();
        match apply::annotate(&api, manager::WITNESS, &found, &[(annotation::ALARM, Some(&text))])
            .await
        {
            Ok(_) => return Ok((name, false)),
            Err(error) if conflict(&error) => {}
            Err(error) => return Err(Error::Apply(error)),
        }
    }
    Err(Error::Busy)
}

/// Closes the open Escalation of a cause; returns its name, or nothing when none was open. Of one
/// that a person closed it is written down that it is over, so that the same trouble is told of
/// when it comes again.
pub(crate) async fn settle(
    ctx: &Context,
    namespace: &str,
    cause: &str,
    why: &str,
) -> Result<Option<String>, Error> {
    let api = Api::<Escalation>::namespaced(ctx.runtime.client.clone(), namespace);
    let mut names = Names::new(ctx, namespace, cause);
    for _ in 0..TRIES {
        let name = names.next();
        let Some(found) = api.get_opt(&name).await.map_err(|e| Error::Kube("reading", e))? else {
            let Some(closed) = names.closed_by_person(&api).await? else { return Ok(None) };
            let text = ledger(&closed).settle(Timestamp::now(), why).write();
            match apply::annotate(
                &api,
                manager::WITNESS,
                &closed,
                &[(annotation::ALARM, Some(&text))],
            )
            .await
            {
                Ok(_) => return Ok(None),
                Err(error) if conflict(&error) => continue,
                Err(error) => return Err(Error::Apply(error)),
            }
        };
        if !is_open(&found) || found.spec.cause != cause {
            names.after(found);
            continue;
        }
        let text = ledger(&found).settle(Timestamp::now(), why).write();
        match apply::annotate(&api, manager::WITNESS, &found, &[(annotation::ALARM, Some(&text))])
            .await
        {
            Ok(_) => return Ok(Some(name)),
            Err(error) if conflict(&error) => {}
            Err(error) => return Err(Error::Apply(error)),
        }
    }
    Err(Error::Busy)
}
