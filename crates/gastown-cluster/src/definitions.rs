//! Whether a controller's program runs on the CRDs of earlier releases, or names those that are too old.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gastown_api::names::annotation;
use gastown_api::rbac::Controller;
use gastown_api::schema_number;
use kube::ResourceExt;
use tempfile::TempDir;

use crate::baselines::Baseline;
use crate::control_plane::{ControlPlane, Options, crds, free_port};
use crate::install;
use crate::process::{Place, Process};

/// How long `/readyz` may take to show something: definitions are read again within a minute.
const LIMIT: Duration = Duration::from_mins(2);
/// How often it is read.
const INTERVAL: Duration = Duration::from_millis(100);

/// Starts `program` for each baseline on a plane of its own, gives it the baseline's CRDs, and fails unless
/// `/readyz` names exactly those that are too old for it, or it works. It works with today's in any case.
pub async fn check(controller: Controller, program: &str) -> Result<()> {
    for baseline in Baseline::all()? {
        let checked = Box::pin(check_on(&baseline, controller, program)).await;
        checked.with_context(|| {
            format!("{} on the CRDs of {}", controller.name(), baseline.version)
        })?;
    }
    Ok(())
}

async fn check_on(baseline: &Baseline, controller: Controller, program: &str) -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    install::install_roles(&plane, controller, &[]).await?;
    let folder = TempDir::new().context("a folder for a controller")?;
    let flags = flags(controller, folder.path())?;
    let address = Place::new(None)?;
    let mut process = Process::spawn(&plane, controller, Path::new(program), &flags, address)?;
    let needed = schema_number::needed(controller);

    let missing: Vec<String> = needed.iter().map(|n| missing(&n.definition)).collect();
    until(&process, &format!("/readyz has {missing:?}"), |why| {
        why.is_some_and(|why| missing.iter().all(|text| why.contains(text)))
    })
    .await?;

    plane.install_crds_of(&baseline.crds()).await?;
    let schemas = schemas(baseline)?;
    let is_too_old = |n: &&schema_number::Needed| {
        schemas.get(&n.definition).copied().unwrap_or_default() < n.minimum
    };
    let expected: Vec<String> =
        needed.iter().filter(is_too_old).map(|n| too_old(&n.definition)).collect();
    if !expected.is_empty() {
        let all: Vec<String> = needed.iter().map(|n| too_old(&n.definition)).collect();
        until(&process, &format!("/readyz has {expected:?} alone"), |why| {
            let named = all.iter().filter(|text| why.is_some_and(|why| why.contains(*text)));
            named.eq(&expected)
        })
        .await?;
        plane.install_crds().await?;
    }
    process.ready().await
}

fn missing(definition: &str) -> String {
    format!("{definition} does not exist")
}

fn too_old(definition: &str) -> String {
    format!("{definition} has schema")
}

/// The number of each definition's schema.
fn schemas(baseline: &Baseline) -> Result<BTreeMap<String, u32>> {
    let number = |text: Option<&String>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    let of = crds::read(&baseline.crds())?.into_iter();
    Ok(of.map(|crd| (crd.name_any(), number(crd.annotations().get(annotation::SCHEMA)))).collect())
}

async fn until(process: &Process, what: &str, holds: impl Fn(Option<&str>) -> bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let why = process.unready().await;
        if holds(why.as_deref()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {LIMIT:?}, but {why:?}:\n{}", process.log(15));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The flags of a controller that nobody calls, and that has nobody to call.
fn flags(controller: Controller, folder: &Path) -> Result<Vec<String>> {
    std::fs::write(folder.join("token"), "none").context("writing a token")?;
    let path = |name: &str| folder.join(name).display().to_string();
    let nobody = || "https://localhost:1".to_owned();
    let mut flags = vec![("token-file", path("token"))];
    flags.extend(match controller {
        Controller::Rig | Controller::Witness => Vec::new(),
        Controller::Convoy => vec![("beadstore-endpoint", nobody())],
        Controller::BeadStore => {
            vec![("data-dir", path("beads")), ("witness-endpoint", nobody())]
        }
        Controller::Polecat => vec![
            ("agent-image", "agent:none".to_owned()),
            ("refinery-endpoint", nobody()),
            ("beadstore-endpoint", nobody()),
            ("witness-endpoint", nobody()),
        ],
        Controller::Refinery => vec![
            ("agent-image", "agent:none".to_owned()),
            ("data-dir", path("mirrors")),
            ("git-addr", format!("127.0.0.1:{}", free_port()?)),
            ("git-endpoint", nobody()),
            ("witness-endpoint", nobody()),
        ],
    });
    Ok(flags.into_iter().flat_map(|(flag, value)| [format!("--{flag}"), value]).collect())
}
