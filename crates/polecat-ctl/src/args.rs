//! The flags, and what they mean.

use std::path::PathBuf;

use anyhow::Result;
use gastown_core::polecat::Margins;
use gastown_runtime::image::Image;
use gastown_runtime::proxy::ProxyArgs;

use crate::pod::{AgentNetworkArgs, PodDefaults, RoomArgs};

/// Controller-specific flags.
#[derive(clap::Args, Clone, Debug)]
pub struct PolecatArgs {
    /// Image of agents, git-init and git-sync
    #[arg(long, env = "GASTOWN_AGENT_IMAGE")]
    pub agent_image: String,
    /// A file that names that image in its place, and may name another one later
    #[arg(long, env = "GASTOWN_AGENT_IMAGE_FILE")]
    pub agent_image_file: Option<PathBuf>,
    /// Image of git-init and git-sync, if it is another one
    #[arg(long, env = "GASTOWN_GIT_IMAGE")]
    pub git_image: Option<String>,
    /// Image of agents whose Polecat names none, if it is another one
    #[arg(long, env = "GASTOWN_CLAUDE_IMAGE")]
    pub claude_image: Option<String>,
    /// Pull policy of these images (Always, IfNotPresent or Never); the API server's default when
    /// empty
    #[arg(long, env = "GASTOWN_AGENT_PULL_POLICY")]
    pub agent_pull_policy: Option<String>,
    /// URL of refinery-ctl; by default its Service in the installation's namespace
    #[arg(long, env = "GASTOWN_REFINERY_ENDPOINT")]
    pub refinery_endpoint: Option<String>,
    /// URL of beadstore-ctl; by default its Service in the installation's namespace
    #[arg(long, env = "GASTOWN_BEADSTORE_ENDPOINT")]
    pub beadstore_endpoint: Option<String>,
    /// URL of witness-ctl, for this controller and for agents' pods, such as
    /// https://witness-ctl.gastown-system.svc:9443; without it no heartbeat is sent and no
    /// Escalation is raised
    #[arg(long, env = "GASTOWN_WITNESS_ENDPOINT")]
    pub witness_endpoint: Option<String>,
    /// Seconds beyond its own deadline after which a pod that still runs is drained
    #[arg(long, env = "GASTOWN_DEADLINE_MARGIN_SECONDS", default_value_t = 300)]
    pub deadline_margin_seconds: u32,
    /// Seconds after its drain after which a pod that still runs is deleted, if its work is saved
    #[arg(long, env = "GASTOWN_DRAIN_MARGIN_SECONDS", default_value_t = 300)]
    pub drain_margin_seconds: u32,
    /// Leave user and group ids of pods to the platform (OpenShift)
    #[arg(long, env = "GASTOWN_PLATFORM_IDS")]
    pub platform_ids: bool,
    /// The proxy of pods.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// The network policies of pods.
    #[command(flatten)]
    pub network: AgentNetworkArgs,
    /// Memory and sizes of pods.
    #[command(flatten)]
    pub room: RoomArgs,
}

/// The flags with their defaults.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What pods are made of where their Polecat does not decide it.
    pub pods: PodDefaults,
    /// The images of pods.
    pub images: Images,
    /// The network policies of pods.
    pub network: AgentNetworkArgs,
    /// The URL of refinery-ctl.
    pub refinery: String,
    /// The URL of beadstore-ctl.
    pub beadstore: String,
    /// The URL of witness-ctl, if there is one.
    pub witness: Option<String>,
    /// How long a pod that does not obey may take.
    pub margins: Margins,
}

/// The images of pods where their Polecat names none.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    image: Image,
    git: Option<String>,
    claude: Option<String>,
}

impl Images {
    /// The image of `git-init` and `git-sync` now.
    pub(crate) fn git(&self) -> String {
        self.git.clone().unwrap_or_else(|| self.image.now())
    }

    /// The image of agents now.
    pub(crate) fn agent(&self) -> String {
        self.claude.clone().unwrap_or_else(|| self.image.now())
    }
}

impl PolecatArgs {
    /// The settings of an installation in `namespace`.
    pub(crate) fn settings(self, namespace: &str) -> Result<Settings> {
        let Self {
            agent_image,
            agent_image_file,
            git_image,
            claude_image,
            agent_pull_policy,
            refinery_endpoint,
            beadstore_endpoint,
            witness_endpoint,
            deadline_margin_seconds,
            drain_margin_seconds,
            platform_ids,
            proxy,
            network,
            room,
        } = self;
        let set = |value: Option<String>| value.filter(|text| !text.is_empty());
        let service = |name: &str| format!("https://{name}.{namespace}.svc:9443");
        let images = Images {
            image: Image::new(agent_image, agent_image_file)?,
            git: set(git_image),
            claude: set(claude_image),
        };
        Ok(Settings {
            pods: PodDefaults {
                git_image: images.git(),
                agent_image: images.agent(),
                pull_policy: set(agent_pull_policy),
                fixed_ids: !platform_ids,
                witness: None,
                proxy,
                room,
            },
            images,
            network,
            refinery: set(refinery_endpoint).unwrap_or_else(|| service("refinery-ctl")),
            beadstore: set(beadstore_endpoint).unwrap_or_else(|| service("beadstore-ctl")),
            witness: set(witness_endpoint),
            margins: Margins {
                deadline_seconds: i64::from(deadline_margin_seconds),
                drain_seconds: i64::from(drain_margin_seconds),
            },
        })
    }
}
