//! One reconcile of an active Refinery: what all of its steps need.

use std::sync::Arc;

use gastown_api::{GateRun, Refinery, Rig};
use gastown_git::{Committing, Mirror};
use gastown_runtime::metrics::Value;
use gastown_runtime::ours::{self, Parent};
use gastown_types::{BranchName, CommitId, GitUrl};
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt as _};

use crate::args::GateSettings;
use crate::candidates::ServedCandidate;
use crate::context::Context;
use crate::gate::OwnRun;

/// A reconcile of the Refinery that is active for one branch.
pub(crate) struct Pass<'a> {
    pub ctx: &'a Context,
    pub refinery: Arc<Refinery>,
    pub rig: Arc<Rig>,
    pub url: GitUrl,
    pub target: BranchName,
    pub committing: Committing,
    /// The settings of its gates: the same ones from its beginning to its end.
    pub gates: GateSettings,
}

impl Pass<'_> {
    pub(crate) fn client(&self) -> Client {
        self.ctx.runtime.client.clone()
    }

    pub(crate) fn mirror(&self) -> Mirror {
        self.ctx.mirror(&self.url)
    }

    pub(crate) fn rig_name(&self) -> &str {
        &self.refinery.spec.rig_ref
    }

    /// The labels of a metric by rig.
    pub(crate) fn labels(&self) -> [Value; 1] {
        [self.refinery.spec.rig_ref.clone().into()]
    }

    /// What the pod of a Job that tests `candidate` may fetch.
    pub(crate) fn served(&self, candidate: &CommitId) -> ServedCandidate {
        ServedCandidate {
            mirror: self.mirror().path().to_owned(),
            commit: candidate.clone(),
            namespace: self.refinery.namespace().unwrap_or_default(),
            rig: self.refinery.spec.rig_ref.clone(),
            target: self.target.clone(),
        }
    }

    /// The Jobs in the Refinery's namespace.
    pub(crate) fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client(), &self.refinery.namespace().unwrap_or_default())
    }

    /// The runs in the Refinery's namespace.
    pub(crate) fn runs(&self) -> Api<GateRun> {
        Api::namespaced(self.client(), &self.refinery.namespace().unwrap_or_default())
    }

    /// The Refinery's run of this name.
    pub(crate) fn run(&self, name: &str) -> Option<(Arc<GateRun>, OwnRun)> {
        self.ctx.runs_of(&self.refinery).into_iter().find(|(_, own)| own.name == name)
    }

    /// The Job of a run, if the watch cache shows it.
    pub(crate) fn job_of(&self, run: &OwnRun) -> Option<Arc<Job>> {
        let namespace = self.refinery.namespace().unwrap_or_default();
        let job = self.ctx.stores.jobs.get(&ObjectRef::new(&run.name).within(&namespace))?;
        let run = Parent { namespace: Some(&namespace), name: &run.name, uid: &run.uid };
        ours::belongs_to::<GateRun>(job.as_ref(), run).then_some(job)
    }
}
