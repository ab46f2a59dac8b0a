//! What reconciles and calls read and write through.

use std::collections::HashMap;
use std::sync::Arc;

use gastown_api::{Escalation, Polecat, Witness};
use gastown_runtime::Runtime;
use gastown_runtime::apply;
use gastown_runtime::controller::{Class, Classify};
use gastown_runtime::watch::Trigger;
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;

use crate::channels::Channels;
use crate::hub::Hub;

pub(crate) struct Context {
    pub runtime: Runtime,
    pub witnesses: Store<Witness>,
    pub polecats: Store<Polecat>,
    pub escalations: Store<Escalation>,
    pub hub: Hub,
    pub channels: Channels,
    pub trigger: Trigger<Witness>,
    /// When routes carried something lately, by Witness and route.
    pub carried: Mutex<HashMap<(String, String), Vec<Timestamp>>>,
    /// When each Witness looked last, and since when this process judges for it.
    pub passes: Mutex<HashMap<String, Pass>>,
}

/// See [`Context::passes`].
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    pub first: Timestamp,
    pub last: Timestamp,
}

impl Context {
    /// The Witness that serves a rig: the oldest.
    pub fn serving(&self, rig: &str) -> Option<Arc<Witness>> {
        let all = self
            .witnesses
            .state_filter(|w| w.spec.rig_ref == rig && w.metadata.deletion_timestamp.is_none());
        all.into_iter()
            .min_by_key(|w| (w.creation_timestamp().map(|t| t.0), w.namespace(), w.name_any()))
    }

    /// Something of this rig's is to be judged now. When the queue is full, the next pass sees it.
    pub fn wake(&self, rig: &str) {
        if let Some(witness) = self.serving(rig) {
            self.trigger.try_send(ObjectRef::from_obj(witness.as_ref()));
        }
    }
}

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("writing the status of {0}")]
    Report(String, #[source] apply::Error),
    #[error("recording what happened to {0}")]
    Record(String, #[source] apply::Error),
    #[error("deleting {0}, which ended long ago")]
    Delete(String, #[source] apply::Error),
    #[error("telling of {0}")]
    Alarm(String, #[source] crate::alarms::Error),
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Report(_, source) | Self::Record(_, source) | Self::Delete(_, source) => {
                source.class()
            }
            Self::Alarm(_, source) => source.class(),
        }
    }
}
