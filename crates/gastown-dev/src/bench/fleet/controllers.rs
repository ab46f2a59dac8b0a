//! The six controllers, each a process of its own with its account, as the chart starts them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use gastown_api::rbac::Controller;
use gastown_cluster::control_plane::{ControlPlane, free_port};
use gastown_cluster::install::{self, SYSTEM};
use gastown_cluster::proc::Memory;
use gastown_cluster::process::{Place, Process};
use gastown_cluster::shares::{self, Shares};
use tempfile::TempDir;

use super::super::figures;
use crate::images::Build;

/// All controllers, running or killed.
pub struct Controllers {
    programs: BTreeMap<String, PathBuf>,
    /// Certificates, tokens and mirrors, which outlive a process as volumes do.
    folder: TempDir,
    places: BTreeMap<Controller, Place>,
    git_port: u16,
    replicas: u8,
    running: BTreeMap<(Controller, u8), Process>,
}

/// How long shards may be without a replica.
const UNOWNED_LIMIT: Duration = Duration::from_mins(2);

impl Controllers {
    /// Builds them and creates what the chart creates for them; nothing runs yet.
    pub async fn install(plane: &ControlPlane, build: Build, replicas: u8) -> Result<Self> {
        let programs = figures::programs(&Controller::ALL.map(Controller::name), build).await?;
        let folder = TempDir::new().context("a folder for the controllers")?;
        install::certificates(folder.path())?;
        let mut places = BTreeMap::new();
        for controller in Controller::ALL {
            let name = controller.name();
            install::install(plane, controller, &[name]).await?;
            let token = install::token(&plane.client()?, SYSTEM, name, None).await?;
            std::fs::write(folder.path().join(format!("{name}.token")), token)?;
            places.insert(controller, Place::new(Some(folder.path()))?);
        }
        let (git_port, running) = (free_port()?, BTreeMap::new());
        Ok(Self { programs, folder, places, git_port, replicas, running })
    }

    /// Starts all of them side by side and returns when each works on its share.
    pub async fn start(&mut self, plane: &ControlPlane) -> Result<()> {
        let all = Controller::ALL
            .into_iter()
            .flat_map(|controller| (0..self.replicas).map(move |replica| (controller, replica)));
        let started = all.map(async |(controller, replica)| {
            let process = self.started(plane, controller, replica).await?;
            anyhow::Ok(((controller, replica), process))
        });
        self.running = try_join_all(started).await?.into_iter().collect();
        for controller in Controller::ALL {
            self.divided(plane, controller).await?;
        }
        Ok(())
    }

    async fn started(
        &self,
        plane: &ControlPlane,
        controller: Controller,
        replica: u8,
    ) -> Result<Process> {
        let name = controller.name();
        let program = self.programs.get(name).with_context(|| format!("{name} is not built"))?;
        let address = self.place(controller)?.of_replica(replica);
        let flags = self.flags(controller, &address)?;
        Process::start_at(plane, controller, program, &flags, address).await
    }

    /// Waits until the replicas of a controller have their shares.
    async fn divided(&self, plane: &ControlPlane, controller: Controller) -> Result<()> {
        let is_even = |all: &Shares| shares::is_even(all, self.replicas);
        shares::of(plane.client()?, controller, UNOWNED_LIMIT, is_even).await.map(drop)
    }

    /// Starts one again that has ended.
    pub async fn restart(
        &mut self,
        plane: &ControlPlane,
        controller: Controller,
        replica: u8,
    ) -> Result<()> {
        let process = self.started(plane, controller, replica).await?;
        self.running.insert((controller, replica), process);
        self.divided(plane, controller).await
    }

    /// Ends one replica, as a rollout does, or kills it. Returns how long it took until each of its shards
    /// had another replica.
    pub async fn stop(
        &mut self,
        plane: &ControlPlane,
        controller: Controller,
        replica: u8,
        kill: bool,
    ) -> Result<Duration> {
        let process = self.running.remove(&(controller, replica));
        let process = process.context("it does not run")?;
        let prefix = format!("{}-{replica}_", controller.name());
        let begun = Instant::now();
        let ended = async {
            if kill {
                drop(process);
                return Ok(());
            }
            process.end().await
        };
        let others = async {
            let without = |shares: &Shares| !shares.keys().any(|name| name.starts_with(&prefix));
            shares::of(plane.client()?, controller, UNOWNED_LIMIT, without).await?;
            Ok(begun.elapsed())
        };
        let ((), took) = tokio::try_join!(ended, others)?;
        Ok(took)
    }

    /// The controllers with more than one replica, each with the number of each.
    pub fn replicas(&self) -> Vec<(Controller, u8)> {
        self.running.keys().copied().collect()
    }

    /// The memory of one replica of each controller.
    pub fn memory_of(&self, replica: u8) -> Result<BTreeMap<&'static str, u64>> {
        let all = self.running.iter().filter(|((_, number), _)| *number == replica);
        all.map(|((controller, _), process)| Ok((controller.name(), process.memory()?.resident)))
            .collect()
    }

    /// The number of the last replica of each controller.
    pub fn last_replica(&self) -> u8 {
        self.replicas.saturating_sub(1)
    }

    /// Kills all of them at once.
    pub fn kill(&mut self) {
        self.running.clear();
    }

    /// The CPU time that the replicas of each have used so far.
    pub fn cpu(&self) -> Result<BTreeMap<&'static str, Duration>> {
        let mut all = BTreeMap::new();
        for ((controller, _), process) in &self.running {
            *all.entry(controller.name()).or_default() += process.cpu()?;
        }
        Ok(all)
    }

    /// The memory of each: that of the replica that has most.
    pub fn memory(&self) -> Result<BTreeMap<&'static str, Memory>> {
        let mut all: BTreeMap<&'static str, Memory> = BTreeMap::new();
        for ((controller, _), process) in &self.running {
            let memory = process.memory()?;
            let most = all.entry(controller.name()).or_insert(memory);
            if memory.resident > most.resident {
                *most = memory;
            }
        }
        Ok(all)
    }

    /// The last lines of each log.
    pub fn logs(&self, lines: usize) -> String {
        let log = |((controller, replica), process): (&(Controller, u8), &Process)| {
            format!("--- {}-{replica}\n{}", controller.name(), process.log(lines))
        };
        self.running.iter().map(log).collect::<Vec<_>>().join("\n")
    }

    fn place(&self, controller: Controller) -> Result<&Place> {
        self.places.get(&controller).with_context(|| format!("no place for {}", controller.name()))
    }

    fn flags(&self, controller: Controller, place: &Place) -> Result<Vec<String>> {
        let path = |name: &str| shown(&self.folder.path().join(name));
        let endpoint = |of: Controller| anyhow::Ok(self.place(of)?.endpoint());
        let (witness, beads) = (endpoint(Controller::Witness)?, endpoint(Controller::BeadStore)?);
        let name = controller.name();
        let mut flags = vec![("token-file", path(&format!("{name}.token")))];
        flags.extend(match controller {
            Controller::Rig | Controller::Witness => Vec::new(),
            Controller::Convoy => vec![("beadstore-endpoint", beads)],
            Controller::BeadStore => {
                vec![
                    ("data-dir", path(&format!("beads-{}", place.replica))),
                    ("witness-endpoint", witness),
                ]
            }
            Controller::Polecat => vec![
                ("agent-image", "agent:bench".to_owned()),
                ("refinery-endpoint", endpoint(Controller::Refinery)?),
                ("beadstore-endpoint", beads),
                ("witness-endpoint", witness),
            ],
            Controller::Refinery => vec![
                ("agent-image", "agent:bench".to_owned()),
                ("data-dir", path(&format!("mirrors-{}", place.replica))),
                ("git-addr", format!("{}:{}", place.ip(), self.git_port)),
                ("git-endpoint", format!("https://localhost:{}", self.git_port)),
                ("witness-endpoint", witness),
            ],
        });
        Ok(flags.into_iter().flat_map(|(flag, value)| [format!("--{flag}"), value]).collect())
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
