//! The program as a process: its admin pages, its metrics, its lease.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gastown_cluster::control_plane::{ControlPlane, Options};
use gastown_cluster::install::until;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt as _};

use crate::{TIMEOUT, create_rig, fixture, refineries, rigs, spec};

/// The body of an admin page and whether its status is 200; none while nothing listens.
async fn page(port: u16, path: &str) -> Option<(bool, String)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .await
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.starts_with("HTTP/1.1 200"), body.to_owned()))
}

async fn until_page(port: u16, path: &str, want: impl Fn(bool, &str) -> bool) -> Result<String> {
    let look = async {
        loop {
            match page(port, path).await {
                Some((ok, body)) if want(ok, &body) => return body,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(TIMEOUT, look)
        .await
        .with_context(|| format!("{path} never answered as expected"))
}

#[tokio::test]
async fn the_program_waits_for_its_kinds_serves_its_pages_and_releases_its_lease() -> Result<()> {
    // A plane of its own: two rig controllers would work on the same rigs.
    let plane = ControlPlane::start(Options::default()).await?;
    let namespace = plane.namespace().await?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_rig-ctl"))
        .env("KUBECONFIG", plane.kubeconfig())
        .env("GASTOWN_NAMESPACE", &namespace)
        .env("GASTOWN_ADMIN_ADDR", format!("127.0.0.1:{port}"))
        .env("GASTOWN_POD_NAME", "rig-ctl-0")
        .kill_on_drop(true)
        .spawn()?;
    until_page(port, "/readyz", |ok, body| {
        !ok && body.contains("Rig: its CustomResourceDefinition is not installed")
            && body.contains("rigs.gastown.gastown.io does not exist: apply deploy/crds")
    })
    .await?;
    ensure!(page(port, "/livez").await.is_some_and(|(ok, _)| ok), "alive while it waits");

    plane.install_crds().await?;
    until_page(port, "/readyz", |ok, _| ok).await?;
    let client = plane.client()?;
    create_rig(&client, "web", spec()).await?;
    until(TIMEOUT, &refineries(&client, &namespace), "web-refinery", "the Refinery", |refinery| {
        refinery.map(|_| ())
    })
    .await?;
    let metrics = until_page(port, "/metrics", |_, body| {
        body.contains("gastown_reconcile_total{controller=\"rig\"")
    })
    .await?;
    ensure!(
        metrics.contains(
            "gastown_kube_requests_total{verb=\"apply\",resource=\"refineries\",code=\"201\"} 1"
        ),
        "{metrics}"
    );
    let read = gastown_metrics::page::read(&metrics).map_err(anyhow::Error::msg)?;
    let differences = read.differences("rig-ctl");
    ensure!(differences.is_empty(), "{differences:?}");
    let build = [("controller", "rig-ctl"), ("version", env!("CARGO_PKG_VERSION"))];
    ensure!(read.value("gastown_build_info", &build) == Some(1.0), "{metrics}");
    ensure!(read.value("gastown_shards_held", &[]) == Some(16.0), "{metrics}");
    ensure!(page(port, "/version").await.is_some_and(|(_, body)| body.contains("rig-ctl")));

    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let holder = |lease: Option<&Lease>| lease?.spec.as_ref()?.holder_identity.clone();
    let holder = until(TIMEOUT, &leases, "gastown-rig-ctl", "the holder", holder).await?;
    ensure!(holder.starts_with("rig-ctl-0_"), "{holder}");
    let pid = program.id().context("it runs")?;
    let memory = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    println!(
        "rig-ctl: {}",
        memory.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default()
    );
    ensure!(std::process::Command::new("kill").arg(pid.to_string()).status()?.success());
    let ended = tokio::time::timeout(TIMEOUT, program.wait()).await??;
    ensure!(ended.success(), "{ended}");
    let free =
        |lease: Option<&Lease>| lease?.spec.as_ref()?.holder_identity.is_none().then_some(());
    until(TIMEOUT, &leases, "gastown-rig-ctl", "the release", free).await
}

#[tokio::test]
async fn an_installation_is_checked_with_a_rig_that_does_not_stay() -> Result<()> {
    let (client, _) = fixture().await?;
    let found = rig_ctl::install_check::run(client.clone()).await?;
    ensure!(found.contains("rig-ctl reported about Rig install-check-"), "{found}");
    let left = rigs(&client).list(&kube::api::ListParams::default()).await?;
    let is_ours = |rig: &gastown_api::Rig| rig.name_any().starts_with("install-check-");
    ensure!(!left.iter().any(is_ours), "{left:?}");
    Ok(())
}
