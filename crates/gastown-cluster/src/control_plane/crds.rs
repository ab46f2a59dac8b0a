//! Installing the project's CRDs on a server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};

/// How long a CRD may take to be served.
const SERVED_LIMIT: Duration = Duration::from_mins(1);

/// Applies every CRD of `deploy/crds` and waits until each is served.
pub(crate) async fn install(client: &Client) -> Result<()> {
    install_of(client, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds")).await
}

/// Applies every CRD of a folder and waits until each is served.
pub(crate) async fn install_of(client: &Client, folder: &Path) -> Result<()> {
    let wanted = read(folder)?;
    if wanted.is_empty() {
        bail!("{} has no CRD; `cargo xtask gen` writes them", folder.display());
    }
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in &wanted {
        let name = crd.name_any();
        let patch = PatchParams::apply("gastown-install").force();
        api.patch(&name, &patch, &Patch::Apply(crd))
            .await
            .with_context(|| format!("applying CRD {name}"))?;
    }
    for crd in &wanted {
        let name = crd.name_any();
        let served = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(SERVED_LIMIT, served)
            .await
            .with_context(|| format!("CRD {name} was not served after {SERVED_LIMIT:?}"))??;
    }
    Ok(())
}

/// The CRDs of a folder.
pub(crate) fn read(folder: &Path) -> Result<Vec<CustomResourceDefinition>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let mut crds = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}", file.display()))?;
        let documents: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(&text)
            .with_context(|| format!("{} is not a CRD", file.display()))?;
        crds.extend(documents);
    }
    Ok(crds)
}
