//! The six controllers, each a process of its own with its account, as the chart starts them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use gastown_api::rbac::Controller;
use gastown_cluster::control_plane::{ControlPlane, free_port};
use gastown_cluster::install::{self, SYSTEM};
use gastown_cluster::proc::Memory;
use gastown_cluster::process::{Place, Process};
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
    running: Vec<(Controller, Process)>,
}

impl Controllers {
    /// Builds them and creates what the chart creates for them; nothing runs yet.
    pub async fn install(plane: &ControlPlane, build: Build) -> Result<Self> {
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
        Ok(Self { programs, folder, places, git_port: free_port()?, running: Vec::new() })
    }

    /// Starts all of them side by side and returns when each is ready.
    pub async fn start(&mut self, plane: &ControlPlane) -> Result<()> {
        let start = async |controller: Controller| {
            let name = controller.name();
            let program =
                self.programs.get(name).with_context(|| format!("{name} is not built"))?;
            let address = self.place(controller)?.clone();
            let flags = self.flags(controller)?;
            let process = Process::start_at(plane, controller, program, &flags, address).await?;
            anyhow::Ok((controller, process))
        };
        self.running = try_join_all(Controller::ALL.map(start)).await?;
        Ok(())
    }

    /// Kills all of them at once.
    pub fn kill(&mut self) {
        self.running.clear();
    }

    /// The CPU time that each has used so far.
    pub fn cpu(&self) -> Result<BTreeMap<&'static str, Duration>> {
        self.running.iter().map(|(controller, p)| Ok((controller.name(), p.cpu()?))).collect()
    }

    /// The memory of each.
    pub fn memory(&self) -> Result<BTreeMap<&'static str, Memory>> {
        self.running.iter().map(|(controller, p)| Ok((controller.name(), p.memory()?))).collect()
    }

    /// The last lines of each log.
    pub fn logs(&self, lines: usize) -> String {
        let log = |(controller, process): &(Controller, Process)| {
            format!("--- {}\n{}", controller.name(), process.log(lines))
        };
        self.running.iter().map(log).collect::<Vec<_>>().join("\n")
    }

    fn place(&self, controller: Controller) -> Result<&Place> {
        self.places.get(&controller).with_context(|| format!("no place for {}", controller.name()))
    }

    fn flags(&self, controller: Controller) -> Result<Vec<String>> {
        let path = |name: &str| shown(&self.folder.path().join(name));
        let endpoint = |of: Controller| anyhow::Ok(self.place(of)?.endpoint());
        let (witness, beads) = (endpoint(Controller::Witness)?, endpoint(Controller::BeadStore)?);
        let name = controller.name();
        let mut flags = vec![("token-file", path(&format!("{name}.token")))];
        flags.extend(match controller {
            Controller::Rig | Controller::Witness => Vec::new(),
            Controller::Convoy => vec![("beadstore-endpoint", beads)],
            Controller::BeadStore => {
                vec![("data-dir", path("beads")), ("witness-endpoint", witness)]
            }
            Controller::Polecat => vec![
                ("agent-image", "agent:bench".to_owned()),
                ("refinery-endpoint", endpoint(Controller::Refinery)?),
                ("beadstore-endpoint", beads),
                ("witness-endpoint", witness),
            ],
            Controller::Refinery => vec![
                ("agent-image", "agent:bench".to_owned()),
                ("data-dir", path("mirrors")),
                ("git-addr", format!("127.0.0.1:{}", self.git_port)),
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
