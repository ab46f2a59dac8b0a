//! A control plane for one test binary or bench: etcd, the API server and the controller manager,
//! without a node or with fake ones.
//!
//! Its processes die with the process that started them, also when that is killed. Tests share one
//! plane and take a namespace each.

pub mod audit;
pub(crate) mod crds;
pub(crate) mod flags;
pub(crate) mod identity;
pub(crate) mod kubeconfig;
pub mod mortal;
pub(crate) mod pki;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::{kwok, proc, toolchain};
use flags::{Kind, Layout};
use identity::Identity;
use pki::Authority;

/// How long each part may take to be ready on a slow machine.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// How often a condition is checked.
const INTERVAL: Duration = Duration::from_millis(50);

const FOLDER_PREFIX: &str = "gastown-plane-";

/// The name of the record of requests.
const AUDIT: &str = "audit";

/// The options of a plane.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Further flags of the API server, such as `--feature-gates=…`.
    pub apiserver_flags: Vec<String>,
    /// How many fake nodes there are; with one or more there are the scheduler, kwok and all
    /// controllers of the controller manager too.
    pub fake_nodes: u16,
    /// Whether the API server leaves its record of requests in [`ControlPlane::audit_log`].
    pub audit: bool,
}

/// A running control plane; dropping it ends it and removes its data.
pub struct ControlPlane {
    children: Vec<(&'static str, Child)>,
    kubeconfig: PathBuf,
    config: Config,
    folder: PathBuf,
}

static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();

impl ControlPlane {
    /// The plane of this process, started by the first call.
    pub async fn shared() -> Result<&'static Self> {
        SHARED.get_or_try_init(|| Self::start(Options::default())).await
    }

    /// Starts a separate plane. It is ready when this returns.
    pub async fn start(options: Options) -> Result<Self> {
        toolchain::need_debian(&[("setpriv", "util-linux")]).await?;
        let binaries = match options.fake_nodes {
            0 => toolchain::control_plane_binaries().await?,
            _ => toolchain::fake_node_binaries().await?,
        };
        sweep();
        // A free port may be taken by another process before the server binds it.
        let mut last = None;
        for _ in 0..3 {
            match Self::try_start(&binaries, &options).await {
                Ok(plane) => return Ok(plane),
                Err(error) if format!("{error:#}").contains("address already in use") => {
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.context("no attempt was made")?)
    }

    async fn try_start(binaries: &Path, options: &Options) -> Result<Self> {
        let folder = new_folder()?;
        let layout = Layout {
            pki: folder.join("pki"),
            data: folder.join("etcd"),
            address: "127.0.0.1".into(),
            port: free_port()?,
            etcd_port: free_port()?,
            services: "198.19.0.0/24".into(),
            kind: if options.fake_nodes == 0 { Kind::Plane } else { Kind::FakeNodes },
        };
        let kubeconfig = write_credentials(&layout, &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?;
        let mut plane =
            Self { children: Vec::new(), config: load(&kubeconfig).await?, kubeconfig, folder };
        plane.spawn(binaries, "etcd", flags::etcd(&layout))?;
        plane.wait(async || listens(layout.etcd_port).await).await?;
        let name = plane.folder.file_name().unwrap_or_default().to_string_lossy();
        let apiserver = flags::apiserver(&layout)
            .into_iter()
            .chain(if options.audit {
                audit::flags_of(&plane.folder, AUDIT, &plane.folder)?
            } else {
                audit::flags(&name, &plane.folder)?
            })
            .chain(options.apiserver_flags.iter().cloned())
            .collect();
        plane.spawn(binaries, "kube-apiserver", apiserver)?;
        let client = plane.client()?;
        plane.wait(async || ready(&client).await).await?;
        plane.spawn(binaries, "kube-controller-manager", flags::controller_manager(&layout))?;
        if options.fake_nodes > 0 {
            plane.fake_nodes(binaries, options.fake_nodes).await?;
        }
        Ok(plane)
    }

    async fn fake_nodes(&mut self, binaries: &Path, count: u16) -> Result<()> {
        self.spawn(binaries, "kube-scheduler", flags::scheduler(&self.kubeconfig))?;
        self.spawn(binaries, kwok::NAME, kwok::flags(&self.kubeconfig, &self.folder)?)?;
        let client = self.client()?;
        let mut ready =
            std::pin::pin!(tokio::time::timeout(READY_LIMIT, kwok::nodes(&client, count)));
        let what = format!("waiting for {count} fake nodes");
        loop {
            tokio::select! {
                ready = &mut ready => match ready {
                    Ok(ready) => return ready.context(what),
                    Err(_) => bail!("{what}: not ready after {READY_LIMIT:?}:\n{}", self.log_tail(kwok::NAME)),
                },
                () = sleep(INTERVAL) => if let Some((name, why)) = self.ended() {
                    bail!("{what}: {why}:\n{}", self.log_tail(name));
                }
            }
        }
    }

    /// A part that has ended, and how.
    fn ended(&mut self) -> Option<(&'static str, String)> {
        self.children.iter_mut().find_map(|(name, child)| {
            let status = child.try_wait().ok()??;
            Some((*name, format!("{name} ended with {status}")))
        })
    }

    /// The folder is removed with this plane, so errors hold the end of the log.
    fn log_tail(&self, name: &str) -> String {
        toolchain::tail(&std::fs::read_to_string(self.log(name)).unwrap_or_default(), 15)
    }

    fn spawn(&mut self, binaries: &Path, name: &'static str, flags: Vec<String>) -> Result<()> {
        let log =
            File::create(self.log(name)).with_context(|| format!("creating the log of {name}"))?;
        let mut command = mortal::command(&binaries.join(name));
        command.args(flags).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push((name, mortal::spawn(command)?));
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Waits until `done` is true. A part that ends meanwhile is an error with the end of its log.
    async fn wait(&mut self, done: impl AsyncFn() -> bool) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            if done().await {
                return Ok(());
            }
            let last = self.children.last().map(|(name, _)| *name).unwrap_or_default();
            let late = (Instant::now() > deadline)
                .then(|| format!("{last} was not ready after {READY_LIMIT:?}"));
            if let Some((name, why)) = self.ended().or(late.map(|why| (last, why))) {
                bail!("{why}:\n{}", self.log_tail(name));
            }
            sleep(INTERVAL).await;
        }
    }

    /// A client with all permissions. Create one in each test: it lives on the test's own runtime.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config.clone())?)
    }

    /// A client that the API server treats as this user, such as
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub fn client_as(&self, user: &str) -> Result<Client> {
        Ok(Client::try_from(self.config_as(user))?)
    }

    /// The configuration of [`ControlPlane::client_as`].
    pub fn config_as(&self, user: &str) -> Config {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user.to_owned());
        config
    }

    /// A kubeconfig file with all permissions.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubeconfig file whose bearer the API server treats as this user; for a process of its own.
    pub fn kubeconfig_as(&self, user: &str) -> Result<PathBuf> {
        static WRITTEN: AtomicU32 = AtomicU32::new(0);
        let text = std::fs::read_to_string(&self.kubeconfig).context("reading the kubeconfig")?;
        let path = self.folder.join(format!("{}.kubeconfig", user.replace([':', '/'], "-")));
        // Whole at once: a process of the same user may be reading it.
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{}.{}.{number}", path.display(), std::process::id());
        pki::write_private(unique.as_ref(), &kubeconfig::impersonating(&text, user)?)?;
        std::fs::rename(&unique, &path).context("writing a kubeconfig")?;
        Ok(path)
    }

    /// Applies the project's CRDs and waits until they are served.
    pub async fn install_crds(&self) -> Result<()> {
        crds::install(&self.client()?).await
    }

    /// Applies the CRDs of a folder, such as those of a baseline, and waits until they are served.
    pub async fn install_crds_of(&self, folder: &Path) -> Result<()> {
        crds::install_of(&self.client()?, folder).await
    }

    /// Creates a namespace that nobody else uses.
    pub async fn namespace(&self) -> Result<String> {
        let metadata = ObjectMeta { generate_name: Some("test-".into()), ..ObjectMeta::default() };
        let wanted = Namespace { metadata, ..Namespace::default() };
        let made = Api::all(self.client()?)
            .create(&PostParams::default(), &wanted)
            .await
            .context("creating a namespace")?;
        made.metadata.name.context("the API server named no namespace")
    }

    /// The processes of this plane.
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().map(|(_, child)| child.id()).collect()
    }

    /// The CPU time that each part has used so far, by its name.
    pub fn cpu(&self) -> Result<Vec<(&'static str, Duration)>> {
        self.children.iter().map(|(name, child)| Ok((*name, proc::cpu(child.id())?))).collect()
    }

    /// The API server's record of requests, when the options ask for it.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.join(format!("{AUDIT}.log"))
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for (_, child) in self.children.iter_mut().rev() {
            drop(child.kill());
            drop(child.wait());
        }
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Whether the API server is ready.
pub(crate) async fn ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok_and(|text| text == "ok")
}

/// Whether a process listens on this port of loopback. The API server is started only when etcd does:
/// after a first connection that fails it would back off.
pub(crate) async fn listens(port: u16) -> bool {
    tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
}

/// Writes the certificates and keys of a control plane and returns the path of the administrator's
/// kubeconfig.
pub(crate) fn write_credentials(layout: &Layout, addresses: &[IpAddr]) -> Result<PathBuf> {
    let authority = Authority::new()?;
    write_credentials_of(&authority, layout, addresses)
}

/// As [`write_credentials`], with an authority that signs for others too.
pub(crate) fn write_credentials_of(
    authority: &Authority,
    layout: &Layout,
    addresses: &[IpAddr],
) -> Result<PathBuf> {
    let pki = &layout.pki;
    std::fs::create_dir_all(pki).with_context(|| format!("creating {}", pki.display()))?;
    pki::write_private(&pki.join("ca.crt"), &authority.pem())?;
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    authority.server("kube-apiserver", &names, addresses)?.write(pki, "apiserver")?;
    let (private, public) = pki::signing_key()?;
    pki::write_private(&pki.join("service-accounts.key"), &private)?;
    pki::write_private(&pki.join("service-accounts.pub"), &public)?;
    let admin = authority.client("gastown-admin", Some("system:masters"))?;
    admin.write(pki, "admin")?;
    let path = pki.join("admin.kubeconfig");
    pki::write_private(&path, &kubeconfig::render(&layout.server(), &authority.pem(), &admin))?;
    Ok(path)
}

/// Reads a kubeconfig file.
pub(crate) async fn load(path: &Path) -> Result<Config> {
    let file =
        Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)
}

/// A port of loopback that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// A folder whose name holds the pid and the start time of this process.
fn new_folder() -> Result<PathBuf> {
    let me = Identity::of(std::process::id()).context("reading /proc of this process")?;
    let prefix = format!("{FOLDER_PREFIX}{}-{}-", me.pid, me.started);
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir().context("creating a folder")?.keep())
}

/// Removes the folders of processes that are gone: a killed test cannot remove its own.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if let Some(owner) = name.to_str().and_then(owner)
            && !owner.is_alive()
        {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// The process that a folder belongs to, from the folder's name.
fn owner(folder: &str) -> Option<Identity> {
    let mut words = folder.strip_prefix(FOLDER_PREFIX)?.split('-');
    Some(Identity { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_after_its_process() {
        assert_eq!(owner("gastown-plane-12-345-abc"), Some(Identity { pid: 12, started: 345 }));
        assert_eq!(owner("gastown-plane-x"), None);
        assert_eq!(owner("something-else"), None);
    }

    #[test]
    fn folders_of_dead_processes_are_removed_and_those_of_living_ones_are_kept() {
        let mine = new_folder().unwrap();
        // No process starts at tick 1.
        let dead = std::env::temp_dir().join(format!("{FOLDER_PREFIX}{}-1-x", std::process::id()));
        std::fs::create_dir_all(&dead).unwrap();
        sweep();
        assert!(mine.is_dir());
        assert!(!dead.exists());
        std::fs::remove_dir_all(mine).unwrap();
    }
}
