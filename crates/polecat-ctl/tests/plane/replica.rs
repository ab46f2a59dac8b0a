//! One process of polecat-ctl, as the chart's own service account.

use std::path::PathBuf;
use std::sync::Arc;

use gastown_api::rbac::Controller;
use gastown_cluster::control_plane::ControlPlane;
use gastown_runtime::lease::{self, Phases};
use gastown_runtime::metrics::Metrics;
use gastown_runtime::network::NetworkArgs;
use gastown_runtime::shards::{SHARDS, Shards};
use gastown_runtime::{Runtime, RuntimeArgs, client};
use kube::Config;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fixture::IMAGE;
use crate::wire::{self, Wire};

/// The lease that candidates hold one after another.
pub const LEASE: &str = "handed-over";

/// What a process is started with.
#[derive(Clone)]
pub struct Settings {
    pub plane: &'static ControlPlane,
    /// The namespace of the installation, with its account and its leases.
    pub namespace: String,
    /// The folder with the certificates and the token.
    pub folder: PathBuf,
    /// The port of the other controllers.
    pub port: u16,
    /// How long a pod that does not obey may take.
    pub margin_seconds: u32,
    /// Whether the installation has network policies.
    pub network_policies: bool,
    pub metrics: Metrics,
}

impl Settings {
    /// The configuration of the account's client.
    pub fn config(&self) -> Config {
        let account = Controller::Polecat.name();
        self.plane.config_as(&format!("system:serviceaccount:{}:{account}", self.namespace))
    }
}

/// A running process.
pub struct Replica {
    runtime: Runtime,
    work: JoinHandle<()>,
    lease: CancellationToken,
    /// Its name among the replicas; it takes part when the token is cancelled.
    candidate: Option<(String, CancellationToken)>,
}

impl Replica {
    /// Starts one whose requests pass over the wire. With `candidate` it is one of several replicas, and
    /// takes part when [`Replica::take_part`] is called.
    pub fn start(settings: &Settings, wire: Arc<Wire>, candidate: Option<&str>) -> Self {
        Self::start_with(settings, settings.config(), wire, candidate)
    }

    /// As [`Replica::start`], with another way to the API server.
    pub fn start_with(
        settings: &Settings,
        config: Config,
        wire: Arc<Wire>,
        candidate: Option<&str>,
    ) -> Self {
        let account = Controller::Polecat.name();
        let mut args = RuntimeArgs::from_env().unwrap();
        args.namespace.clone_from(&settings.namespace);
        args.tls_dir.clone_from(&settings.folder);
        args.token_file = settings.folder.join("token");
        let client = client::with_config(config, account, &settings.metrics);
        let client = wire::client(client.unwrap(), wire);
        let lease = CancellationToken::new();
        let takes_part = CancellationToken::new();
        let shards = match candidate {
            None => Shards::all(),
            Some(identity) => {
                let config = lease::Config {
                    namespace: settings.namespace.clone(),
                    controller: LEASE.to_owned(),
                    identity: identity.to_owned(),
                    address: None,
                };
                let ready = takes_part.clone();
                let phases = Phases { ready, drain: lease.clone(), ended: lease.clone() };
                let admin = settings.plane.client().unwrap();
                lease::spawn(admin, &config, &Metrics::default(), phases).0
            }
        };
        let metrics = settings.metrics.clone();
        let runtime = Runtime::new(account, client, args, metrics, shards);
        let endpoint = || Some(format!("https://localhost:{}", settings.port));
        let own = polecat_ctl::PolecatArgs {
            agent_image: IMAGE.into(),
            agent_image_file: None,
            git_image: None,
            claude_image: None,
            agent_pull_policy: None,
            refinery_endpoint: endpoint(),
            beadstore_endpoint: endpoint(),
            witness_endpoint: endpoint(),
            deadline_margin_seconds: settings.margin_seconds,
            drain_margin_seconds: settings.margin_seconds,
            platform_ids: false,
            proxy: gastown_runtime::proxy::ProxyArgs::default(),
            network: polecat_ctl::AgentNetworkArgs {
                common: NetworkArgs {
                    network_policies: settings.network_policies,
                    ..NetworkArgs::default()
                },
                ..polecat_ctl::AgentNetworkArgs::default()
            },
            room: polecat_ctl::RoomArgs::default(),
        };
        let started = runtime.clone();
        let work = tokio::spawn(async move { polecat_ctl::start(started, own).await.unwrap() });
        let candidate = candidate.map(|name| (name.to_owned(), takes_part));
        Self { runtime, work, lease, candidate }
    }

    /// Takes part from now on, if it has this name.
    pub fn take_part(&self, name: &str) {
        if let Some((_, takes_part)) = self.candidate.as_ref().filter(|(own, _)| own == name) {
            takes_part.cancel();
        }
    }

    /// On how many shards of rigs it works.
    pub fn shards(&self) -> usize {
        (0..SHARDS).filter(|shard| self.runtime.shards.term(*shard).is_some()).count()
    }

    /// Drains; what it remembered is lost. It holds its lease until the token is cancelled.
    pub async fn drain(self) -> CancellationToken {
        self.runtime.shutdown();
        self.work.await.unwrap();
        self.lease
    }
}
