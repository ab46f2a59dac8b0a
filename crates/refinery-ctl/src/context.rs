//! What every part of the controller shares.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gastown_api::conditions::is_true;
use gastown_api::names::condition;
use gastown_api::{GateRun, MergeRequest, Polecat, Refinery, Rig};
use gastown_escalations::Escalations;
use gastown_git::{Git, Mirror};
use gastown_runtime::image::Image;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::pace::Pace;
use gastown_runtime::places::Places;
use gastown_runtime::telemetry::Lives;
use gastown_runtime::{Runtime, ours};
use gastown_types::{BranchName, GitUrl};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;

use crate::args::GateSettings;
use crate::builder::Limits;
use crate::candidates::Candidates;
use crate::gate::OwnRun;
use crate::metrics::RefineryMetrics;
use crate::train::Train;

/// How often mirrors that nothing uses are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// One branch of one repository (its normalised URL): what one worker at a time works on.
pub(crate) type TrainKey = (String, BranchName);

/// The watch caches.
pub(crate) struct Stores {
    pub refineries: Store<Refinery>,
    pub requests: Store<MergeRequest>,
    pub polecats: Store<Polecat>,
    pub rigs: Store<Rig>,
    /// Runs of gates.
    pub gate_runs: Store<GateRun>,
    /// This process's writes of runs.
    pub own_runs: Arc<OwnWrites<GateRun>>,
    /// Jobs of gates.
    pub jobs: Store<Job>,
    /// Pods of gates.
    pub pods: Store<Pod>,
    /// Network policies of gates.
    pub policies: Store<NetworkPolicy>,
}

/// What the controller holds.
pub(crate) struct Context {
    pub runtime: Runtime,
    pub gates: GateSettings,
    /// The image that those are with, now.
    pub agent_image: Image,
    /// What building a candidate may use.
    pub build_limits: Limits,
    /// The folder for mirrors.
    pub data_dir: PathBuf,
    pub git: Git,
    /// Where requests to remotes wait, by host.
    pub remotes: Places,
    /// Where builds of candidates wait: they need memory and a processor.
    pub builds: Places,
    pub stores: Stores,
    pub escalations: Arc<Escalations>,
    pub metrics: RefineryMetrics,
    /// How often the counts of a Refinery are written.
    pub pace: Pace,
    /// How often details of a request's status are written.
    pub request_pace: Pace,
    pub candidates: Candidates,
    /// The spans that were exported.
    pub lives: Lives,
    pub trains: Mutex<HashMap<TrainKey, Arc<tokio::sync::Mutex<Train>>>>,
    /// When mirrors that nothing uses were deleted last.
    pub swept: Mutex<Option<Instant>>,
    /// One lock for each mirror, by normalised URL: one fetch at a time.
    pub mirror_locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Context {
    /// The settings of gates as they are now.
    pub(crate) fn gates(&self) -> GateSettings {
        GateSettings { image: self.agent_image.now(), ..self.gates.clone() }
    }

    pub(crate) fn mirror(&self, url: &GitUrl) -> Mirror {
        Mirror::at(self.git.clone(), &self.data_dir.join("mirrors"), url)
    }

    /// Deletes the mirrors of repositories that no Refinery is of any more, at most once an hour.
    pub(crate) async fn sweep_mirrors(&self) {
        {
            let mut swept = self.swept.lock();
            if swept.is_some_and(|at| at.elapsed() < SWEEP_EVERY) {
                return;
            }
            *swept = Some(Instant::now());
        }
        let refineries = self.stores.refineries.state();
        let urls = refineries.iter().filter_map(|refinery| {
            self.rig(&refinery.spec.rig_ref)?.spec.git_url.parse::<GitUrl>().ok()
        });
        let used: Vec<PathBuf> = urls.map(|url| self.mirror(&url).path().to_owned()).collect();
        let root = self.data_dir.join("mirrors");
        // What fails is tried again in an hour.
        let _ = tokio::task::spawn_blocking(move || Mirror::sweep(&root, &used)).await;
    }

    pub(crate) fn mirror_lock(&self, url: &GitUrl) -> Arc<tokio::sync::Mutex<()>> {
        self.mirror_locks.lock().entry(url.normalised()).or_default().clone()
    }

    pub(crate) fn train(&self, key: &TrainKey) -> Arc<tokio::sync::Mutex<Train>> {
        self.trains.lock().entry(key.clone()).or_default().clone()
    }

    pub(crate) fn rig(&self, name: &str) -> Option<Arc<Rig>> {
        self.stores.rigs.get(&ObjectRef::<Rig>::new(name))
    }

    /// Whether a rig is of this repository.
    pub(crate) fn is_of_repository(&self, rig: &str, url: &GitUrl) -> bool {
        let other = self.rig(rig).and_then(|rig| rig.spec.git_url.parse::<GitUrl>().ok());
        other.is_some_and(|other| other.normalised() == url.normalised())
    }

    /// The requests for the rig and the branch of a Refinery.
    pub(crate) fn requests_of(&self, refinery: &Refinery) -> Vec<Arc<MergeRequest>> {
        let is_for = |r: &MergeRequest| {
            r.spec.rig_ref == refinery.spec.rig_ref
                && r.spec.target_branch == refinery.spec.target_branch
        };
        self.stores.requests.state().into_iter().filter(|r| is_for(r)).collect()
    }

    /// The pods that a Job controls. There is one at most, unless somebody else made another.
    pub(crate) fn pods_of(&self, job: &Job) -> Vec<Arc<Pod>> {
        self.stores.pods.state_filter(|pod| ours::controls(job, pod))
    }

    /// The only pod that a Job controls.
    pub(crate) fn pod_of(&self, job: &Job) -> Option<Arc<Pod>> {
        match <[_; 1]>::try_from(self.pods_of(job)) {
            Ok([pod]) => Some(pod),
            Err(_) => None,
        }
    }

    /// The runs of a Refinery, this process's newest writes included.
    pub(crate) fn runs_of(&self, refinery: &Refinery) -> Vec<(Arc<GateRun>, OwnRun)> {
        let of_it = |run: &GateRun| ours::controls(refinery, run);
        let cached = self.stores.gate_runs.state_filter(of_it);
        let seen: HashSet<String> = cached.iter().filter_map(|run| run.uid()).collect();
        let unseen = self.stores.own_runs.unseen(of_it, |uid| seen.contains(uid));
        let all =
            cached.into_iter().filter_map(|run| self.stores.own_runs.newest(run)).chain(unseen);
        all.filter_map(|run| OwnRun::of(&run, refinery).map(|own| (run, own))).collect()
    }
}

/// Whether a Polecat has the condition `Merged`.
pub(crate) fn is_merged(polecat: &Polecat) -> bool {
    polecat.status.as_ref().is_some_and(|s| is_true(&s.conditions, condition::MERGED))
}
