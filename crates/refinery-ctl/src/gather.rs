//! From caches and memory to the facts of one decision. Judges nothing.

use std::collections::HashSet;
use std::sync::Arc;

use gastown_api::{MergeRequest, Polecat, Refinery, Rig};
use gastown_core::train::{Build, Built, Facts, Request, RequestId, Run};
use gastown_types::{BranchName, GitUrl};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use crate::conditions::says_merged;
use crate::context::{Context, Served};
use crate::gate::{self, JobRecipe};
use crate::memory::{Entry, Train};
use gastown_runtime::own_writes::resource_version;

/// What one pass is about.
pub(crate) struct Pass<'a> {
    pub ctx: &'a Context,
    pub refinery: Arc<Refinery>,
    pub rig: Arc<Rig>,
    pub url: GitUrl,
    pub target: BranchName,
}

/// A Job of ours that the cache shows.
pub(crate) struct SeenJob {
    pub job: Arc<Job>,
    pub run: Run,
}

/// The requests that name this rig and branch.
pub(crate) fn requests_of(ctx: &Context, refinery: &Refinery) -> Vec<Arc<MergeRequest>> {
    let fits = |r: &MergeRequest| {
        r.spec.rig_ref == refinery.spec.rig_ref
            && r.spec.target_branch == refinery.spec.target_branch
    };
    ctx.requests.state().into_iter().filter(|r| fits(r.as_ref())).collect()
}

/// Whether a rig admits requests of a namespace.
pub(crate) fn allows(rig: &Rig, namespace: &str) -> bool {
    rig.spec.allowed_namespaces.as_ref().is_none_or(|all| all.iter().any(|n| n == namespace))
}

/// The pod that a Job controls; the newest, should there be several.
pub(crate) fn pod_of(ctx: &Context, job: &Job) -> Option<Arc<Pod>> {
    let uid = job.uid()?;
    let owned = |p: &&Arc<Pod>| {
        p.owner_references().iter().any(|o| o.controller == Some(true) && o.uid == uid)
    };
    let pods = ctx.pods.state();
    pods.iter().filter(owned).max_by_key(|p| p.creation_timestamp().map(|t| t.0)).cloned()
}

impl Pass<'_> {
    /// Brings the memory up to what the caches show. Requests of namespaces that the rig does not
    /// admit are left out.
    pub(crate) fn refresh(&self, train: &mut Train) {
        let mut present = HashSet::new();
        for object in requests_of(self.ctx, &self.refinery) {
            let (Some(uid), Some(namespace)) = (object.uid(), object.namespace()) else { continue };
            if !allows(&self.rig, &namespace) || object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let id = RequestId(uid);
            present.insert(id.clone());
            if let Some(entry) = train.entries.get_mut(&id) {
                entry.update(&object);
            } else if let Some(entry) = Entry::new(object.clone()) {
                train.entries.insert(id, entry);
            } else {
                tracing::warn!(
                    request = object.name_any(),
                    "a request whose branch or commit cannot be read is left alone"
                );
            }
        }
        train.entries.retain(|id, _| present.contains(id));
    }

    /// The Jobs that are ours and that nobody has released.
    pub(crate) fn jobs(&self, train: &Train) -> Vec<SeenJob> {
        let now = Timestamp::now();
        let mut seen = Vec::new();
        for job in self.ctx.jobs.state() {
            let gone = job.metadata.deletion_timestamp.is_some()
                || job.uid().is_some_and(|uid| train.released.contains(&uid));
            let Some(recipe) = JobRecipe::of(&job, &self.refinery).filter(|_| !gone) else {
                continue;
            };
            let pod = pod_of(self.ctx, &job);
            let run = recipe.run(&self.refinery, gate::state(&job, pod.as_deref(), now));
            seen.push(SeenJob { job, run });
        }
        seen.sort_by(|a, b| a.run.job.cmp(&b.run.job));
        seen
    }

    /// The facts, and nothing but them.
    pub(crate) fn facts(&self, train: &mut Train) -> Facts {
        self.refresh(train);
        let now = Timestamp::now();
        let jobs = self.jobs(train);
        let uids: HashSet<String> = self.ctx.jobs.state().iter().filter_map(|j| j.uid()).collect();
        train.released.retain(|uid| uids.contains(uid));
        let shown = |name: &str| jobs.iter().any(|j| j.run.job == name);
        // One that the cache does not show after ten seconds is gone: somebody deleted it.
        train.started.retain(|name, s| !shown(name) && s.at + SignedDuration::from_secs(10) > now);
        let mut runs: Vec<Run> = jobs.iter().map(|j| j.run.clone()).collect();
        runs.extend(train.started.values().map(|s| s.run.clone()));
        self.serve(train, &jobs);
        Facts {
            now,
            target: train.target(),
            gate: gate::gate_id(&self.refinery, &self.ctx.args),
            delete_branches: self.refinery.spec.delete_merged_branches,
            requests: train.entries.iter().map(|(id, e)| self.request(id, e)).collect(),
            runs,
        }
    }

    /// Lets the pods of Jobs whose candidates we built have them, also Jobs of a predecessor.
    fn serve(&self, train: &Train, jobs: &[SeenJob]) {
        let mut served = self.ctx.served.lock();
        for seen in jobs {
            let built = train.entries.get(&seen.run.request).and_then(|e| e.build.as_ref());
            let known = |b: &Build| {
                b.base == seen.run.candidate
                    || b.built == Built::Candidate(seen.run.candidate.clone())
            };
            let same = built.is_some_and(known);
            if let (true, Some(uid)) = (same, seen.job.uid()) {
                served.entry(uid).or_insert_with(|| self.served(&seen.run));
            }
        }
    }

    pub(crate) fn served(&self, run: &Run) -> Served {
        Served {
            mirror: self.ctx.mirror(&self.url).path().to_owned(),
            candidate: run.candidate.clone(),
            rig: self.refinery.spec.rig_ref.clone(),
            target: self.target.to_string(),
        }
    }

    /// Whether the request's Polecat says that it has landed, as far as the cache can tell; one
    /// that is gone says enough.
    fn told(&self, e: &Entry) -> bool {
        let Some(author) = &e.object.spec.polecat_ref else { return true };
        let key = ObjectRef::<Polecat>::new(&author.name)
            .within(&e.object.namespace().unwrap_or_default());
        let Some(polecat) =
            self.ctx.polecats.get(&key).filter(|p| p.uid().as_deref() == Some(author.uid.as_str()))
        else {
            return true;
        };
        resource_version(polecat.as_ref()) <= e.told || says_merged(&polecat)
    }

    fn request(&self, id: &RequestId, e: &Entry) -> Request {
        let spec = &e.object.spec;
        let named = spec.rejected.as_ref().map(|r| format!("{}: {}", r.by, r.reason));
        let same =
            (e.branch == self.target).then(|| "the source branch is the target branch".to_owned());
        Request {
            id: id.clone(),
            name: format!("{}/{}", e.object.namespace().unwrap_or_default(), e.object.name_any()),
            branch: e.branch.clone(),
            commit: e.commit.clone(),
            polecat: spec.polecat_ref.as_ref().map(|p| p.uid.clone()),
            previous: spec.previous.clone(),
            attempt: u32::try_from(spec.attempt).unwrap_or(1),
            priority: u8::try_from(spec.priority).unwrap_or(4),
            created: e.object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            hold: spec.hold,
            rejected: named.or(same),
            retry: spec.retry,
            retried: e.ledger.retried,
            end: e.ledger.end.clone(),
            verdicts: e.ledger.verdicts.clone(),
            faults: e.ledger.faults,
            runs_done: e.ledger.runs,
            not_before: e.not_before,
            doubts: e.ledger.doubts,
            retest_at: e.retest_at,
            source: e.source,
            build: e.build.clone(),
            landing: e.landing.clone(),
            author: e.author,
            told: self.told(e),
            cleaned: e.ledger.cleaned,
        }
    }
}
