//! What every part of the controller is given.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use gastown_api::{MergeRequest, Polecat, Refinery, Rig};
use gastown_escalations::Escalations;
use gastown_git::{Git, Mirror};
use gastown_runtime::Runtime;
use gastown_types::{BranchName, CommitId, GitUrl};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::Store;
use parking_lot::Mutex;

use crate::args::RefineryArgs;
use crate::memory::Train;
use crate::metrics::RefineryMetrics;

/// One repository (normalised URL) and one branch of it: what one worker at a time works on.
pub(crate) type TrainKey = (String, BranchName);

/// What the git endpoint may give to the pod of one Job.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub mirror: PathBuf,
    pub candidate: CommitId,
    pub rig: String,
    pub target: String,
}

pub(crate) struct Context {
    pub runtime: Runtime,
    pub args: RefineryArgs,
    pub git: Git,
    pub refineries: Store<Refinery>,
    pub requests: Store<MergeRequest>,
    pub polecats: Store<Polecat>,
    pub rigs: Store<Rig>,
    pub jobs: Store<Job>,
    pub pods: Store<Pod>,
    pub escalations: Arc<Escalations>,
    pub metrics: RefineryMetrics,
    pub trains: Mutex<HashMap<TrainKey, Arc<tokio::sync::Mutex<Train>>>>,
    /// One fetch at a time in each mirror.
    pub mirrors: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// By the Job's uid.
    pub served: Mutex<HashMap<String, Served>>,
}

impl Context {
    pub(crate) fn mirror(&self, url: &GitUrl) -> Mirror {
        Mirror::at(self.git.clone(), &self.args.data_dir.join("mirrors"), url)
    }

    pub(crate) fn train(&self, key: &TrainKey) -> Arc<tokio::sync::Mutex<Train>> {
        self.trains.lock().entry(key.clone()).or_default().clone()
    }

    pub(crate) fn mirror_lock(&self, url: &GitUrl) -> Arc<tokio::sync::Mutex<()>> {
        self.mirrors.lock().entry(url.normalised()).or_default().clone()
    }
}

/// Why a pass over a Refinery failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused, or could not be asked.
    #[error("{doing}")]
    Kube {
        /// What was attempted.
        doing: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// An apply failed.
    #[error("{doing}")]
    Apply {
        /// What was attempted.
        doing: String,
        /// Why not.
        #[source]
        source: gastown_runtime::apply::Error,
    },
    /// A defect of ours.
    #[error("{0}")]
    Defect(String),
    /// The lease was lost in the middle of a pass.
    #[error("the lease is not held any more")]
    NotHolder,
}

impl gastown_runtime::controller::Classify for Error {
    fn class(&self) -> gastown_runtime::controller::Class {
        use gastown_runtime::controller::Class;
        match self {
            Self::Kube { source, .. } => Class::of(source),
            Self::Apply { source, .. } => source.class(),
            Self::Defect(_) => Class::Fatal,
            Self::NotHolder => Class::Conflict,
        }
    }
}

/// Names what was attempted.
pub(crate) fn doing(text: impl Into<String>) -> impl FnOnce(kube::Error) -> Error {
    let doing = text.into();
    move |source| Error::Kube { doing, source: Box::new(source) }
}
