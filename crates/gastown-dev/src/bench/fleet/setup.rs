//! What a fleet runs on: a control plane with fake nodes, six controllers, a git server and rigs.

use std::time::Duration;

use anyhow::{Context, Result};
use gastown_api::{Rig, RigPhase};
use gastown_cluster::control_plane::{ControlPlane, Options};
use gastown_fakes::git_http::GitHttp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::json;
use tempfile::TempDir;
use xtask::cli::FleetArgs;

use super::super::store;
use super::controllers::Controllers;
use super::lives::{Rigs, beads};
use crate::images::Build;

/// Where the polecats live.
pub const NAMESPACE: &str = "fleet";
/// How long a rig may take to be ready.
const RIG_LIMIT: Duration = Duration::from_mins(3);

/// All that runs.
pub struct Setup {
    pub plane: ControlPlane,
    pub client: Client,
    pub controllers: Controllers,
    pub rigs: Rigs,
    /// How many polecats of a rig may run at a time.
    pub cap: usize,
    _git: GitHttp,
    _repositories: TempDir,
}

impl Setup {
    /// Starts everything and waits until all rigs are ready.
    pub async fn start(args: &FleetArgs) -> Result<Self> {
        let build = if args.release { Build::Release } else { Build::Dev };
        println!("fleet: a control plane with {} fake nodes", args.nodes);
        let options = Options { fake_nodes: args.nodes, audit: true, ..Options::default() };
        let plane = ControlPlane::start(options).await?;
        let client = plane.client()?;
        let mut controllers = Controllers::install(&plane, build, args.replicas).await?;
        let metadata = ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() };
        Api::all(client.clone())
            .create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() })
            .await?;
        println!("fleet: six controllers and {} rigs", args.rigs);
        controllers.start(&plane).await?;
        let repositories = TempDir::new().context("a folder for repositories")?;
        let git = GitHttp::start(repositories.path()).await?;
        let per_rig = args.polecats.div_ceil(args.rigs);
        let cap = args.cap.unwrap_or(per_rig).min(100);
        let mut rigs = Rigs::new();
        for n in 0..args.rigs {
            let name = format!("rig-{n}");
            let repository = git.create(&name).await?;
            store::fill(&repository, beads(usize::try_from(per_rig)?), 0).await?;
            rigs.push((name.clone(), git.repository(&name)));
        }
        for (name, url) in &rigs {
            rig(&client, name, url, cap, args.convoys).await?;
        }
        for (name, _) in &rigs {
            ready(&client, name).await.with_context(|| controllers.logs(5))?;
        }
        let cap = usize::try_from(cap)?;
        Ok(Self { plane, client, controllers, rigs, cap, _git: git, _repositories: repositories })
    }
}

async fn rig(client: &Client, name: &str, url: &str, cap: u32, beads: bool) -> Result<()> {
    let mut spec =
        json!({"gitURL": url, "beadsPrefix": store::PREFIX, "settings": {"maxPolecats": cap}});
    if beads {
        spec["beads"] = json!({});
    }
    let rig = Rig::new(name, serde_json::from_value(spec)?);
    Api::all(client.clone()).create(&PostParams::default(), &rig).await?;
    Ok(())
}

async fn ready(client: &Client, name: &str) -> Result<()> {
    let is_ready = |rig: Option<&Rig>| {
        rig.and_then(|rig| rig.status.as_ref()).is_some_and(|s| s.phase == Some(RigPhase::Ready))
    };
    let api: Api<Rig> = Api::all(client.clone());
    let ready = await_condition(api.clone(), name, is_ready);
    if let Ok(ready) = tokio::time::timeout(RIG_LIMIT, ready).await {
        return Ok(ready.map(drop)?);
    }
    let status = api.get(name).await?.status;
    anyhow::bail!("rig {name} is not ready after {RIG_LIMIT:?}: {status:?}")
}
