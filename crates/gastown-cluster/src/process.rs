//! A controller as a process of its own on a control plane, so that its memory and CPU time can be
//! measured apart from those of its load.
//!
//! It has its service account, certificates and ports, as in the chart; [`crate::install::install`]
//! creates what it needs on the plane. It dies with the process that started it, also when that is
//! killed.

use std::collections::HashMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::http::Method;
use gastown_api::rbac::Controller;
use tempfile::TempDir;

use crate::control_plane::identity::Identity;
use crate::control_plane::{ControlPlane, free_port, mortal};
use crate::install::SYSTEM;
use crate::proc::Memory;
use crate::{http_client, install, proc, toolchain};

/// How long it may take to be ready and to work for a part of the rigs.
const READY_LIMIT: Duration = Duration::from_mins(2);
/// How often its readiness is checked.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long running work may take to end.
const DRAIN: Duration = Duration::from_secs(25);

/// A running controller; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    folder: TempDir,
    address: Place,
    admin: u16,
}

/// What a controller keeps over a restart, and shares with those that call it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder of its certificates; by default it has an authority of its own.
    pub tls: Option<PathBuf>,
    /// The port on which it serves gRPC.
    pub calls: u16,
    /// Its number among the replicas of its controller, from 0.
    pub replica: u8,
}

impl Place {
    /// A free port; with the certificates of this folder, or with its own.
    pub fn new(tls: Option<&Path>) -> Result<Self> {
        Ok(Self { tls: tls.map(Path::to_owned), calls: free_port()?, replica: 0 })
    }

    /// The same for another replica, at an address of its own.
    #[must_use]
    pub fn of_replica(&self, replica: u8) -> Self {
        Self { replica, ..self.clone() }
    }

    /// Where it listens: a loopback address.
    pub fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, 1 + self.replica)
    }

    /// Where the first replica serves gRPC: `https://localhost:PORT`.
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.calls)
    }
}

impl Process {
    /// Starts `program` with further flags, and returns when it is ready and works for a part of the rigs.
    pub async fn start(
        plane: &ControlPlane,
        controller: Controller,
        program: &Path,
        flags: &[String],
    ) -> Result<Self> {
        Self::start_at(plane, controller, program, flags, Place::new(None)?).await
    }

    /// As [`Self::start`], with certificates and a port that are given.
    pub async fn start_at(
        plane: &ControlPlane,
        controller: Controller,
        program: &Path,
        flags: &[String],
        address: Place,
    ) -> Result<Self> {
        let mut process = Self::spawn(plane, controller, program, flags, address)?;
        process.ready().await?;
        Ok(process)
    }

    /// As [`Self::start_at`], and returns at once.
    pub fn spawn(
        plane: &ControlPlane,
        controller: Controller,
        program: &Path,
        flags: &[String],
        mut address: Place,
    ) -> Result<Self> {
        let name = controller.name();
        let folder = TempDir::new().context("a folder for a controller")?;
        if address.tls.is_none() {
            install::certificates(folder.path())?;
        }
        let tls = address.tls.get_or_insert_with(|| folder.path().to_owned()).clone();
        let admin = free_port()?;
        let log = File::create(folder.path().join("log")).context("making a log")?;
        let mut command = mortal::command(program);
        let (replica, ip) = (address.replica, address.ip());
        let pod = format!("{name}-{replica}");
        command.args(["--namespace", SYSTEM, "--pod-name", &pod, "--pod-ip", &ip.to_string()]);
        command.args([
            "--admin-addr",
            &format!("127.0.0.1:{admin}"),
            "--grpc-addr",
            &format!("{ip}:{}", address.calls),
        ]);
        command.arg("--tls-dir").arg(tls).args(flags);
        command.env("KUBECONFIG", plane.kubeconfig_as(&install::user(controller))?);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self { name, child: mortal::spawn(command)?, folder, address, admin })
    }

    /// Why it is not ready: what `/readyz` shows, or why that cannot be read. None when it is ready.
    pub async fn unready(&self) -> Option<String> {
        let page = format!("http://127.0.0.1:{}/readyz", self.admin);
        let read = http_client::send(Method::GET, &page, Vec::new()).await;
        read.err().map(|error| format!("{error:#}"))
    }

    /// Waits until it is ready and works for a part of the rigs.
    pub async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let ready = self.unready().await.is_none();
            if ready && self.shards().await? > 0 {
                return Ok(());
            }
            let ended = self.child.try_wait()?.map(|status| format!("ended with {status}"));
            if let Some(why) = ended
                .or((Instant::now() > deadline)
                    .then(|| format!("was not ready after {READY_LIMIT:?}")))
            {
                bail!("{} {why}:\n{}", self.name, self.log(15));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// On how many of the shards of rigs it works.
    pub async fn shards(&self) -> Result<usize> {
        let metrics = self.metrics().await?;
        let held = metrics.lines().find_map(|line| line.strip_prefix("gastown_shards_held "));
        Ok(held.and_then(|held| held.parse().ok()).unwrap_or_default())
    }

    /// The last lines of its log.
    pub fn log(&self, lines: usize) -> String {
        toolchain::tail(
            &std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default(),
            lines,
        )
    }

    /// Where it serves gRPC: `https://localhost:PORT`.
    pub fn endpoint(&self) -> String {
        self.address.endpoint()
    }

    /// The certificate of the authority that signed its own, PEM.
    pub fn ca(&self) -> PathBuf {
        self.address.tls.as_deref().unwrap_or(self.folder.path()).join("ca.crt")
    }

    /// Its `/metrics`.
    pub async fn metrics(&self) -> Result<String> {
        let page = format!("http://127.0.0.1:{}/metrics", self.admin);
        Ok(String::from_utf8_lossy(&http_client::send(Method::GET, &page, Vec::new()).await?)
            .into_owned())
    }

    /// Its resident memory now, in bytes; not that of its children.
    pub fn resident(&self) -> Result<u64> {
        Ok(self.memory()?.resident)
    }

    /// Its memory; not that of its children.
    pub fn memory(&self) -> Result<Memory> {
        proc::memory(self.child.id()).with_context(|| self.name)
    }

    /// The resident memory of its children and theirs now, in bytes.
    pub fn resident_children(&self) -> u64 {
        let mut parents = HashMap::new();
        let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for id in folders.filter_map(|folder| folder.file_name().to_str()?.parse::<u32>().ok()) {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            if let (Some(parent), Some(memory)) =
                (proc::parse_parent(&status), proc::parse_memory(&status))
            {
                parents.insert(id, (parent, memory.resident));
            }
        }
        let is_below = |mut id: u32| {
            // A process cannot be below itself, but what was read may be of different moments.
            for _ in 0..parents.len() {
                match parents.get(&id) {
                    Some((parent, _)) if *parent == self.child.id() => return true,
                    Some((parent, _)) => id = *parent,
                    None => return false,
                }
            }
            false
        };
        parents.iter().filter(|(id, _)| is_below(**id)).map(|(_, (_, resident))| resident).sum()
    }

    /// The CPU time that it has used so far; not that of its children.
    pub fn cpu(&self) -> Result<Duration> {
        proc::cpu(self.child.id()).with_context(|| self.name)
    }

    /// Asks it to end, as a rollout does, and waits until it has.
    pub async fn end(mut self) -> Result<()> {
        if let Some(it) = Identity::of(self.child.id()) {
            it.end(DRAIN).await;
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.name, self.log(15));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
