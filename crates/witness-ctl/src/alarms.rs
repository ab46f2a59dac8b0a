//! Raising and settling: the write is made before anybody is told that it is.

use gastown_api::names::{annotation, manager};
use gastown_api::{Escalation, EscalationSpec};
use gastown_core::escalation::{self, Ledger};
use gastown_runtime::apply;
use gastown_runtime::controller::{Class, Classify};
use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};

use crate::context::Context;

/// So many writes of others, or closed ones of the same cause, are passed before it is given up for now.
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
    escalation.spec.closed.is_none() && escalation.metadata.deletion_timestamp.is_none() && ledger(escalation).settled.is_none()
}

/// The open Escalation of a cause, as the cache shows it.
pub(crate) fn open(ctx: &Context, namespace: &str, cause: &str) -> Option<String> {
    let fits = |e: &Escalation| e.namespace().as_deref() == Some(namespace) && e.spec.cause == cause && is_open(e);
    ctx.escalations.find(fits).map(|e| e.name_any())
}

/// Names to look under: that of the open one if the cache shows it, else the one that comes after the last closed one.
struct Names<'a> {
    cause: &'a str,
    open: Option<String>,
    previous: Option<String>,
}

impl<'a> Names<'a> {
    fn new(ctx: &Context, namespace: &str, cause: &'a str) -> Self {
        let fits = |e: &Escalation| e.namespace().as_deref() == Some(namespace) && e.spec.cause == cause;
        let closed = ctx.escalations.state_filter(|e| fits(e) && !is_open(e));
        let last = closed.iter().max_by_key(|e| (e.creation_timestamp().map(|t| t.0), e.name_any()));
        Self { cause, open: open(ctx, namespace, cause), previous: last.and_then(|e| e.uid()) }
    }

    fn next(&self) -> String {
        self.open.clone().unwrap_or_else(|| escalation::name(self.cause, self.previous.as_deref()))
    }

    /// That one is over.
    fn after(&mut self, closed: &Escalation) {
        self.open = None;
        self.previous = closed.uid();
    }
}

fn conflict(error: &apply::Error) -> bool {
    error.class() == Class::Conflict || error.is_not_found()
}

/// Makes an Escalation, or counts one more raise of the open one of the same cause. Returns its name, and whether it is new.
pub(crate) async fn raise(ctx: &Context, namespace: &str, spec: EscalationSpec) -> Result<(String, bool), Error> {
    let api = Api::<Escalation>::namespaced(ctx.runtime.client.clone(), namespace);
    let mut names = Names::new(ctx, namespace, &spec.cause);
    for _ in 0..TRIES {
        let name = names.next();
        let now = Timestamp::now();
        let Some(found) = api.get_opt(&name).await.map_err(|e| Error::Kube("reading", e))? else {
            let mut wanted = Escalation::new(&name, spec.clone());
            let text = Ledger::default().raise(now).write();
            wanted.metadata.annotations = Some([(annotation::ALARM.to_owned(), text)].into());
            let params = PostParams { field_manager: Some(manager::WITNESS.to_owned()), ..PostParams::default() };
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
            names.after(&found);
            continue;
        }
        let text = ledger(&found).raise(now).write();
        match apply::annotate(&api, manager::WITNESS, &found, &[(annotation::ALARM, Some(&text))]).await {
            Ok(_) => return Ok((name, false)),
            Err(error) if conflict(&error) => {}
            Err(error) => return Err(Error::Apply(error)),
        }
    }
    Err(Error::Busy)
}

/// Closes the open Escalation of a cause; returns its name, or nothing when none was open.
pub(crate) async fn settle(ctx: &Context, namespace: &str, cause: &str, why: &str) -> Result<Option<String>, Error> {
    let api = Api::<Escalation>::namespaced(ctx.runtime.client.clone(), namespace);
    let mut names = Names::new(ctx, namespace, cause);
    for _ in 0..TRIES {
        let name = names.next();
        let Some(found) = api.get_opt(&name).await.map_err(|e| Error::Kube("reading", e))? else { return Ok(None) };
        if !is_open(&found) || found.spec.cause != cause {
            names.after(&found);
            continue;
        }
        let text = ledger(&found).settle(Timestamp::now(), why).write();
        match apply::annotate(&api, manager::WITNESS, &found, &[(annotation::ALARM, Some(&text))]).await {
            Ok(_) => return Ok(Some(name)),
            Err(error) if conflict(&error) => {}
            Err(error) => return Err(Error::Apply(error)),
        }
    }
    Err(Error::Busy)
}
