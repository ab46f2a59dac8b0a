//! Starting the parts of a cluster, each detached from the terminal and recorded before the next one
//! starts.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::Client;
use kube::api::Api;
use kube::runtime::wait::await_condition;
use tokio::time::{Instant, sleep};

use super::config::{self, API_ADDRESS, NODE, NODE_ADDRESS, Paths, SERVICE_RANGE};
use super::options::{Nodes, Progress};
use super::state::{Process, State};
use super::{dns, enforcer, host, images};
use crate::control_plane::flags::{self, Kind, Layout};
use crate::control_plane::identity::Identity;
use crate::control_plane::pki::{Authority, write_private};
use crate::control_plane::{audit, kubeconfig, listens, load, ready, write_credentials_of};
use crate::{kwok, toolchain};

/// How long each part may take to be ready.
const PART_LIMIT: Duration = Duration::from_mins(3);
/// How often a condition is checked.
const INTERVAL: Duration = Duration::from_millis(50);

/// A cluster while it is being started.
pub struct Launch<'a> {
    pub paths: Paths,
    pub state: State,
    pub progress: Progress<'a>,
}

impl Launch<'_> {
    /// Starts everything, in order. What was started is in the record, also after an error.
    pub async fn run(&mut self, layout: &Layout) -> Result<()> {
        let authority = Authority::new()?;
        let addresses = [Ipv4Addr::LOCALHOST, API_ADDRESS, NODE_ADDRESS].map(IpAddr::V4);
        let admin = write_credentials_of(&authority, layout, &addresses)?;
        std::fs::copy(&admin, self.paths.dir.join("kubeconfig"))
            .context("writing the kubeconfig")?;
        if self.state.nodes == Nodes::Kubelet {
            self.node_credentials(&authority, layout)?;
            host::add_bridge(&self.paths.dir).await?;
        }
        (self.progress)("starting etcd, kube-apiserver and kube-controller-manager");
        let client = self.control_plane(layout, &admin).await?;
        match self.state.nodes {
            Nodes::Kubelet => self.node(&client).await?,
            Nodes::Kwok(count) => self.fake_nodes(&client, &admin, count).await?,
            Nodes::None => {}
        }
        self.state.complete = true;
        self.state.write(&self.paths.dir)
    }

    async fn control_plane(&mut self, layout: &Layout, admin: &Path) -> Result<Client> {
        self.spawn("etcd", &flags::etcd(layout))?;
        self.wait("etcd", async || listens(layout.etcd_port).await).await?;
        let mut apiserver = flags::apiserver(layout);
        let name = format!("cluster-{}", std::process::id());
        apiserver.extend(audit::flags(&name, &self.paths.dir)?);
        self.spawn("kube-apiserver", &apiserver)?;
        let client = Client::try_from(load(admin).await?)?;
        self.wait("the API server", async || ready(&client).await).await?;
        self.spawn("kube-controller-manager", &flags::controller_manager(layout))?;
        // Without it a pod of the default namespace would be refused.
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        self.wait_for(
            "the default service account",
            Box::pin(await_condition(accounts, "default", is_there)),
        )
        .await?;
        Ok(client)
    }

    fn node_credentials(&self, authority: &Authority, layout: &Layout) -> Result<()> {
        let pki = self.paths.pki();
        let users = [
            ("kubelet", format!("system:node:{NODE}"), Some("system:nodes")),
            ("kube-proxy", "system:kube-proxy".to_owned(), None),
            ("kube-scheduler", "system:kube-scheduler".to_owned(), None),
            (enforcer::NAME, enforcer::USER.to_owned(), None),
        ];
        for (file, user, group) in users {
            let text = kubeconfig::render(
                &layout.server(),
                &authority.pem(),
                &authority.client(&user, group)?,
            );
            write_private(&pki.join(format!("{file}.kubeconfig")), &text)?;
        }
        authority
            .server(NODE, &[NODE, "localhost"], &[IpAddr::V4(NODE_ADDRESS)])?
            .write(&pki, "kubelet-serving")
    }

    async fn fake_nodes(&mut self, client: &Client, admin: &Path, count: u16) -> Result<()> {
        (self.progress)(&format!("starting kube-scheduler and kwok with {count} nodes"));
        self.spawn("kube-scheduler", &flags::scheduler(admin))?;
        self.spawn(kwok::NAME, &kwok::flags(admin, &self.paths.dir)?)?;
        self.wait_for("the nodes", Box::pin(kwok::nodes(client, count))).await
    }

    async fn node(&mut self, client: &Client) -> Result<()> {
        let resolv_conf = config::resolv_conf(|path| std::fs::read_to_string(path).ok());
        self.write_node_configuration(&resolv_conf)?;
        (self.progress)("starting containerd and loading the cluster's own images");
        self.spawn("containerd", &[format!("--config={}", self.file("containerd.toml"))])?;
        let paths = self.paths.clone();
        self.wait("containerd", async || images::ctr(&paths, &["version"]).await.is_ok()).await?;
        images::load_own(&self.paths, snapshotter(&self.paths.dir)).await?;
        (self.progress)("starting kube-scheduler, kube-proxy and kubelet");
        let scheduler = self.paths.pki().join("kube-scheduler.kubeconfig");
        self.spawn("kube-scheduler", &flags::scheduler(&scheduler))?;
        self.spawn("kube-proxy", &[format!("--config={}", self.file("kube-proxy.json"))])?;
        self.spawn("kubelet", &self.kubelet_flags())?;
        dns::apply(client, &resolv_conf).await?;
        self.wait_for(
            "the node",
            Box::pin(await_condition(Api::<Node>::all(client.clone()), NODE, is_ready)),
        )
        .await?;
        self.enforcer(client).await?;
        (self.progress)("node is Ready; waiting for cluster DNS");
        self.wait_for("cluster DNS", Box::pin(dns::wait(client))).await
    }

    /// Starts what enforces network policies. It looks for the node, so that comes first.
    async fn enforcer(&mut self, client: &Client) -> Result<()> {
        if let Some(what) = enforcer::lacking().await {
            (self.progress)(&format!(
                "NETWORK POLICIES ARE NOT ENFORCED on this cluster: the kernel lacks {what}"
            ));
            return Ok(());
        }
        enforcer::see_bridged()?;
        enforcer::grant(client).await?;
        let kubeconfig = self.file(&format!("pki/{}.kubeconfig", enforcer::NAME));
        self.spawn(enforcer::NAME, &enforcer::flags(&kubeconfig))?;
        self.wait("the enforcer of network policies", enforcer::is_at_work).await
    }

    fn write_node_configuration(&self, resolv_conf: &Path) -> Result<()> {
        let (health, metrics) =
            (crate::control_plane::free_port()?, crate::control_plane::free_port()?);
        let runc = gastown_toolchain::host::find("runc").context("runc is not installed")?;
        let containerd = config::containerd(&self.paths, snapshotter(&self.paths.dir), &runc);
        let files = [
            ("containerd.toml", containerd),
            ("cni/10-gastown.conflist", config::network(&self.paths)),
            ("kubelet.json", config::kubelet(&self.paths, resolv_conf)),
            ("kube-proxy.json", config::proxy(&self.paths, health, metrics)),
        ];
        std::fs::create_dir_all(self.paths.dir.join("cni"))?;
        for (name, text) in files {
            std::fs::write(self.paths.dir.join(name), text)
                .with_context(|| format!("writing {name}"))?;
        }
        Ok(())
    }

    fn kubelet_flags(&self) -> Vec<String> {
        vec![
            format!("--config={}", self.file("kubelet.json")),
            format!("--kubeconfig={}", self.file("pki/kubelet.kubeconfig")),
            format!("--root-dir={}", self.file("kubelet")),
            format!("--cert-dir={}", self.file("pki")),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={NODE_ADDRESS}"),
        ]
    }

    fn file(&self, name: &str) -> String {
        self.paths.dir.join(name).display().to_string()
    }

    /// Starts a part in a session of its own, so that neither Ctrl-C nor the terminal's end reaches
    /// it.
    fn spawn(&mut self, name: &str, flags: &[String]) -> Result<()> {
        let log = log_of(&self.paths.dir, name);
        let out = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut command = Command::new("setsid");
        command.arg(self.paths.bin.join(name)).args(flags).current_dir("/");
        // containerd looks for its shim, and the shim for runc, on the search path.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = [self.paths.bin.clone()].into_iter().chain(std::env::split_paths(&path));
        let all = own.chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
        command.env("PATH", std::env::join_paths(all)?).env_remove("NOTIFY_SOCKET");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("starting setsid")?;
        let identity = Identity::of(child.id())
            .with_context(|| format!("{name} ended at once; see {}", log.display()))?;
        self.state.processes.push(Process { name: name.to_owned(), identity });
        self.state.write(&self.paths.dir)?;
        // It outlives this process. While this one lives, it has to be waited for after its end.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// Waits until `done` is true. A part that ends meanwhile is an error with the end of its log.
    async fn wait(&self, what: &str, done: impl AsyncFn() -> bool) -> Result<()> {
        let until = async {
            while !done().await {
                sleep(INTERVAL).await;
            }
            anyhow::Ok(())
        };
        self.wait_for(what, until).await
    }

    async fn wait_for<E>(
        &self,
        what: &str,
        done: impl Future<Output = Result<impl Sized, E>>,
    ) -> Result<()>
    where
        anyhow::Error: From<E>,
    {
        let deadline = Instant::now() + PART_LIMIT;
        let problem = async {
            loop {
                if let Some(name) = self.state.missing().first() {
                    return format!("{name} ended:\n{}", log_tail(&self.paths.dir, name));
                }
                if Instant::now() > deadline {
                    return format!(
                        "waited {PART_LIMIT:?} for {what}; the logs are in {}",
                        self.paths.dir.join("logs").display()
                    );
                }
                sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            result = done => result.map(drop).map_err(anyhow::Error::from).with_context(|| format!("waiting for {what}")),
            text = problem => bail!(text),
        }
    }
}

/// The control plane's folders and addresses, for either kind of nodes.
pub fn layout(paths: &Paths, nodes: Nodes) -> Result<Layout> {
    let address = match nodes {
        Nodes::Kubelet => NODE_ADDRESS,
        Nodes::Kwok(_) | Nodes::None => Ipv4Addr::LOCALHOST,
    };
    Ok(Layout {
        pki: paths.pki(),
        data: paths.dir.join("etcd"),
        address: address.to_string(),
        port: crate::control_plane::free_port()?,
        etcd_port: crate::control_plane::free_port()?,
        services: SERVICE_RANGE.into(),
        kind: match nodes {
            Nodes::Kubelet => Kind::Cluster,
            Nodes::Kwok(_) => Kind::FakeNodes,
            Nodes::None => Kind::Plane,
        },
    })
}

/// The snapshotter of containerd for this folder.
pub fn snapshotter(dir: &Path) -> &'static str {
    if host::is_on_overlay(dir) { "native" } else { "overlayfs" }
}

/// The log of a part.
pub fn log_of(dir: &Path, name: &str) -> PathBuf {
    dir.join("logs").join(format!("{name}.log"))
}

fn log_tail(dir: &Path, name: &str) -> String {
    toolchain::tail(&std::fs::read_to_string(log_of(dir, name)).unwrap_or_default(), 15)
}

fn is_there(account: Option<&ServiceAccount>) -> bool {
    account.is_some()
}

fn is_ready(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
