//! What one process holds: clients, stores, indices, own writes, slots, and what became of
//! requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gastown_api::{BeadStore, MergeRequest, Polecat, Refinery, Rig};
use gastown_core::polecat::{Deliveries, Margins, NetworkProblem};
use gastown_runtime::Runtime;
use gastown_runtime::index::Index;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::pace::Pace;
use gastown_runtime::telemetry::Lives;
use gastown_runtime::watch::Trigger;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;

use crate::admission::Admission;
use crate::args::{Images, PolecatArgs, Settings};
use crate::busy::BusyServices;
use crate::metrics::{self, PolecatMetrics};
use crate::pod::{AgentNetworkArgs, AgentPod, PodDefaults, Witness, owner_uid};
use crate::service::Services;
use crate::sightings::Sightings;
use crate::task_hashes::TaskHashes;

/// That a pod starts is written to the status only when it has not run for this long: the status of
/// the running pod shows all of it.
const STARTING: Duration = Duration::from_secs(3);

/// The stores of watched objects.
pub(crate) struct Watched {
    pub polecats: Store<Polecat>,
    pub rigs: Store<Rig>,
    /// Without their status.
    pub refineries: Store<Refinery>,
    /// Agents' pods.
    pub pods: Store<AgentPod>,
    pub bead_stores: Store<BeadStore>,
    /// Claims on beads.
    pub claims: Store<Lease>,
    /// Network policies of agents' pods.
    pub network_policies: Store<NetworkPolicy>,
}

/// What both watches and reconciles use. Clones share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Has Polecats reconciled.
    pub trigger: Trigger<Polecat>,
    /// Pods by the uid of their Polecat.
    pub pods_by_polecat: Index<AgentPod>,
    /// MergeRequests by the uid of their Polecat.
    pub requests_by_polecat: Index<MergeRequest>,
    /// MergeRequests by the name of the claim on their bead.
    pub requests_by_claim: Index<MergeRequest>,
    /// Polecats by the name of the claim that they need.
    pub polecats_by_claim: Index<Polecat>,
    /// Polecats by their rig.
    pub polecats_by_rig: Index<Polecat>,
    /// Polecats by their uid.
    pub polecats_by_uid: Index<Polecat>,
    /// Claims by the uid of their holder.
    pub claims_by_holder: Index<Lease>,
    /// This process's writes of Polecats.
    pub own_polecats: Arc<OwnWrites<Polecat>>,
    /// This process's writes of pods.
    pub own_pods: Arc<OwnWrites<AgentPod>>,
    /// This process's writes of claims, and claims as the API server returned them.
    pub own_claims: Arc<OwnWrites<Lease>>,
    /// The rigs' slots.
    pub admission: Arc<Admission>,
    /// What became of requests, by the Polecat's uid.
    pub deliveries: Arc<Mutex<HashMap<String, Deliveries>>>,
    /// When this process first saw pods in a state.
    pub sightings: Arc<Sightings>,
    /// The hashes of the Polecats' tasks.
    pub hashes: Arc<TaskHashes>,
    /// What the models' services have asked for.
    pub busy: Arc<BusyServices>,
    /// Why the network policy of a namespace and a rig cannot be written.
    pub network_problems: Arc<Mutex<HashMap<(String, String), NetworkProblem>>>,
    /// The spans that were exported.
    pub lives: Arc<Lives>,
    /// What is counted.
    pub metrics: PolecatMetrics,
}

impl Shared {
    /// Empty.
    pub(crate) fn new(trigger: Trigger<Polecat>, metrics: PolecatMetrics) -> Self {
        Self {
            trigger,
            pods_by_polecat: Index::default(),
            requests_by_polecat: Index::default(),
            requests_by_claim: Index::default(),
            polecats_by_claim: Index::default(),
            polecats_by_rig: Index::default(),
            polecats_by_uid: Index::default(),
            claims_by_holder: Index::default(),
            own_polecats: Arc::default(),
            own_pods: Arc::default(),
            own_claims: Arc::default(),
            admission: Arc::default(),
            deliveries: Arc::default(),
            sightings: Arc::default(),
            hashes: Arc::default(),
            busy: Arc::default(),
            network_problems: Arc::default(),
            lives: Arc::default(),
            metrics,
        }
    }
}

/// The Polecat of a key, `namespace/name`.
pub(crate) fn polecat_ref(key: &str) -> Option<ObjectRef<Polecat>> {
    let (namespace, name) = key.split_once('/')?;
    Some(ObjectRef::new(name).within(namespace))
}

/// What all reconciles share.
pub(crate) struct Context {
    pub runtime: Runtime,
    pub stores: Watched,
    pub shared: Shared,
    /// The gRPC services that this controller calls.
    pub services: Services,
    /// When statuses of starting pods are written.
    pub pace: Pace,
    /// The term of the lease for which the caches are known to be complete, and the slots in use
    /// are counted.
    pub counted_terms: tokio::sync::Mutex<HashMap<usize, u64>>,
    /// How long a pod that does not obey may take.
    pub margins: Margins,
    /// The network policies of pods.
    pub network: AgentNetworkArgs,
    /// What pods are made of where their Polecat does not decide it.
    pod_defaults: PodDefaults,
    /// The images of pods.
    images: Images,
    /// The URL of witness-ctl, if there is one.
    witness: Option<String>,
}

impl Context {
    pub(crate) fn new(
        runtime: &Runtime,
        args: PolecatArgs,
        stores: Watched,
        shared: Shared,
    ) -> anyhow::Result<Self> {
        let settings = args.settings(&runtime.args.namespace)?;
        let services = Services::new(runtime, &settings);
        let to = (&runtime.metrics, &runtime.shards);
        metrics::register_views(&shared.metrics, to, &stores.rigs, &shared.admission);
        let Settings { pods, images, network, witness, margins, refinery: _, beadstore: _ } =
            settings;
        Ok(Self {
            runtime: runtime.clone(),
            stores,
            shared,
            services,
            pace: Pace::new(STARTING, Duration::ZERO),
            counted_terms: tokio::sync::Mutex::default(),
            margins,
            network,
            pod_defaults: pods,
            images,
            witness,
        })
    }

    /// The Polecat as it is now, by the cache or this process's newest write; none when it is gone.
    pub(crate) fn newest(&self, polecat: &Polecat) -> Option<Arc<Polecat>> {
        let cached = self.stores.polecats.get(&ObjectRef::from_obj(polecat));
        let cached = cached.filter(|cached| cached.metadata.uid == polecat.metadata.uid)?;
        self.shared.own_polecats.newest(cached)
    }

    /// The Polecat's pods, this process's newest writes included.
    pub(crate) fn pods(&self, polecat_uid: &str) -> Vec<Arc<AgentPod>> {
        let own = &self.shared.own_pods;
        let cached = self.shared.pods_by_polecat.of(polecat_uid);
        let seen: Vec<String> = cached.iter().filter_map(|p| p.uid()).collect();
        let mut pods: Vec<Arc<AgentPod>> =
            cached.into_iter().filter_map(|p| own.newest(p)).collect();
        let ours = |p: &AgentPod| owner_uid(p) == Some(polecat_uid);
        pods.extend(own.unseen(ours, |uid| seen.iter().any(|s| s == uid)));
        pods
    }

    /// The Polecat's pod of this uid.
    pub(crate) fn pod(&self, polecat_uid: &str, pod_uid: &str) -> Option<Arc<AgentPod>> {
        self.pods(polecat_uid).into_iter().find(|p| p.uid().as_deref() == Some(pod_uid))
    }

    /// The rig of this name.
    pub(crate) fn rig(&self, name: &str) -> Option<Arc<Rig>> {
        self.stores.rigs.get(&ObjectRef::new(name))
    }

    /// The branches that a rig's Refineries land on, in order.
    pub(crate) fn targets(&self, rig: &str) -> Vec<String> {
        let all = self.stores.refineries.state();
        let of_rig = all.iter().filter(|r| r.spec.rig_ref == rig);
        let mut targets: Vec<String> = of_rig.map(|r| r.spec.target_branch.clone()).collect();
        targets.sort();
        targets.dedup();
        targets
    }

    /// Whether a rig has a BeadStore.
    pub(crate) fn has_bead_store(&self, rig: &str) -> bool {
        self.stores
            .bead_stores
            .state()
            .iter()
            .any(|store| store.spec.rig_ref == rig && store.metadata.deletion_timestamp.is_none())
    }

    /// Whether the installation has a witness-ctl.
    pub(crate) fn has_witness(&self) -> bool {
        self.witness.is_some()
    }

    /// The claim of this name, this process's newest write included.
    pub(crate) fn claim(&self, name: &str) -> Option<Arc<Lease>> {
        let own = &self.shared.own_claims;
        let at = ObjectRef::new(name).within(&self.runtime.args.namespace);
        let cached = self.stores.claims.get(&at);
        let seen = cached.as_ref().and_then(|lease| lease.uid());
        let newest = cached.and_then(|lease| own.newest(lease));
        newest.or_else(|| {
            own.unseen(|lease| lease.name_any() == name, |uid| seen.as_deref() == Some(uid)).pop()
        })
    }

    /// Whether a Polecat of this uid exists, or a pod of it that may still work.
    pub(crate) fn is_active(&self, uid: &str) -> bool {
        self.shared.polecats_by_uid.count(uid) > 0
            || self.pods(uid).iter().any(|pod| !pod.has_ended())
    }

    /// Why the network policy of a rig's agents in a namespace cannot be written.
    pub(crate) fn network_problem(&self, namespace: &str, rig: &str) -> Option<NetworkProblem> {
        let key = (namespace.to_owned(), rig.to_owned());
        self.shared.network_problems.lock().get(&key).cloned()
    }

    /// What became of a Polecat's requests.
    pub(crate) fn deliveries(&self, uid: &str) -> Deliveries {
        self.shared.deliveries.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Records what became of a Polecat's request.
    pub(crate) fn update_deliveries(&self, uid: &str, change: impl FnOnce(&mut Deliveries)) {
        change(self.shared.deliveries.lock().entry(uid.to_owned()).or_default());
    }

    /// No action on a Polecat has failed this time.
    pub(crate) fn actions_succeeded(&self, uid: &str) {
        if let Some(known) = self.shared.deliveries.lock().get_mut(uid) {
            known.actions_succeeded();
        }
    }

    /// Has the Polecats of these keys (`namespace/name`) reconciled. A full queue drops them: the
    /// next resync comes anyway.
    pub(crate) fn trigger(&self, keys: &[String]) {
        for polecat in keys.iter().filter_map(|key| polecat_ref(key)) {
            self.shared.trigger.try_send(polecat);
        }
    }

    /// The image of agents whose Polecat names none.
    pub(crate) fn agent_image(&self) -> String {
        self.images.agent()
    }

    /// What a pod is made of now. A certificate of witness-ctl that cannot be read delays no pod:
    /// the work comes first.
    pub(crate) fn pod_defaults(&self) -> PodDefaults {
        let file = self.runtime.args.tls_dir.join("ca.crt");
        let witness = self.witness.as_ref().and_then(|endpoint| match std::fs::read_to_string(&file) {
            Ok(ca) => Some(Witness { endpoint: endpoint.clone(), ca }),
            Err(error) => {
                tracing::warn!(%error, file = %file.display(), "the certificate of witness-ctl's authority cannot be read: the pod sends no heartbeats");
                None
            }
        });
        let (git_image, agent_image) = (self.images.git(), self.images.agent());
        PodDefaults { git_image, agent_image, witness, ..self.pod_defaults.clone() }
    }
}
