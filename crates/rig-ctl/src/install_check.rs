//! `rig-ctl check-install`, which `helm test` runs: creates a Rig, waits until rig-ctl has reported about
//! it, and deletes it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use gastown_api::names::condition;
use gastown_api::{Rig, RigSpec, conditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt as _};

/// The argument that starts it.
pub const ARGUMENT: &str = "check-install";
/// How long rig-ctl may take to report about the Rig, and again to let it go.
const LIMIT: Duration = Duration::from_secs(60);

/// Checks the installation and returns what was found, for people.
pub async fn run(client: Client) -> Result<String> {
    let rigs: Api<Rig> = Api::all(client);
    let created = rigs.create(&PostParams::default(), &rig()).await;
    let created = created
        .context("creating a Rig: are the CRDs installed, and may this account create Rigs?")?;
    let name = created.name_any();
    let seen = reported(&rigs, &name).await;
    // Also when nothing was reported: the check leaves nothing behind.
    let deleted = delete(&rigs, &created).await;
    let ready = seen?;
    deleted?;
    Ok(format!(
        "rig-ctl reported about Rig {name} (Ready is {}, {}: {}) and let it go",
        ready.status, ready.reason, ready.message
    ))
}

/// A suspended Rig, for which nothing starts; its repository is at a name that does not exist.
fn rig() -> Rig {
    let mut rig = Rig::new(
        "",
        RigSpec {
            git_url: "https://install-check.invalid/none".to_owned(),
            beads_prefix: "check".to_owned(),
            suspend: true,
            ..RigSpec::default()
        },
    );
    rig.metadata.name = None;
    rig.metadata.generate_name = Some("install-check-".to_owned());
    rig
}

/// The condition `Ready` of this generation.
fn ready(rig: Option<&Rig>) -> Option<&Condition> {
    let rig = rig?;
    let ready = conditions::find(&rig.status.as_ref()?.conditions, condition::READY)?;
    (ready.observed_generation == rig.metadata.generation).then_some(ready)
}

async fn reported(rigs: &Api<Rig>, name: &str) -> Result<Condition> {
    let waits = await_condition(rigs.clone(), name, |rig: Option<&Rig>| ready(rig).is_some());
    let seen = tokio::time::timeout(LIMIT, waits).await.with_context(|| {
        format!(
            "rig-ctl reported nothing about Rig {name} within {} s: look at its Deployment and its log",
            LIMIT.as_secs()
        )
    })?;
    let seen = seen.with_context(|| format!("watching Rig {name}"))?;
    ready(seen.as_ref())
        .cloned()
        .with_context(|| format!("Rig {name} was deleted by somebody else"))
}

async fn delete(rigs: &Api<Rig>, rig: &Rig) -> Result<()> {
    let (name, uid) = (rig.name_any(), rig.uid());
    let deleted = rigs.delete(&name, &DeleteParams::default()).await;
    deleted.with_context(|| format!("deleting Rig {name}"))?;
    let is_gone = move |rig: Option<&Rig>| rig.is_none_or(|rig| rig.uid() != uid);
    let waits = await_condition(rigs.clone(), &name, is_gone);
    let gone = tokio::time::timeout(LIMIT, waits).await.with_context(|| {
        format!(
            "rig-ctl did not let Rig {name} go within {} s: its finalizer is there still",
            LIMIT.as_secs()
        )
    })?;
    gone.with_context(|| format!("watching Rig {name}"))?;
    Ok(())
}
