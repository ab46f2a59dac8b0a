//! `rig-ctl check-install`, which `helm test` runs: creates a Rig, waits until rig-ctl has reported about
//! it, and deletes it.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use gastown_api::names::{condition, label};
use gastown_api::{Rig, RigSpec, conditions};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt as _};
use tokio::signal::unix::{SignalKind, signal};

/// The argument that starts it.
pub const ARGUMENT: &str = "check-install";
/// How long rig-ctl may take to report about the Rig, and again to let it go.
const LIMIT: Duration = Duration::from_secs(60);

/// A check takes no longer than this.
const LEFT: SignedDuration = SignedDuration::from_mins(5);

/// Checks the installation and returns what was found, for people.
pub async fn run(client: Client) -> Result<String> {
    let rigs: Api<Rig> = Api::all(client);
    let created = rigs.create(&PostParams::default(), &rig()).await;
    let created = created
        .context("creating a Rig: are the CRDs installed, and may this account create Rigs?")?;
    let name = created.name_any();
    let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let seen = tokio::select! {
        seen = reported(&rigs, &name) => seen,
        _ = terminated.recv() => Err(anyhow!("the check was ended before rig-ctl reported about Rig {name}")),
    };
    // Also when nothing was reported: the check leaves nothing behind.
    let deleted = delete(&rigs, &created).await;
    let left = delete_left(&rigs, &created).await;
    let ready = seen?;
    deleted?;
    left?;
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
    rig.metadata.labels = Some([(label::INSTALL_CHECK.to_owned(), "true".to_owned())].into());
    rig
}

/// Deletes the Rigs of checks that were killed.
async fn delete_left(rigs: &Api<Rig>, own: &Rig) -> Result<()> {
    let params = ListParams::default().labels(&format!("{}=true", label::INSTALL_CHECK));
    let all = rigs.list(&params).await.context("listing the Rigs of earlier checks")?;
    for rig in all.items.iter().filter(|rig| is_left(rig, own)) {
        let name = rig.name_any();
        let gone = DeleteParams::default()
            .preconditions(Preconditions { uid: rig.uid(), resource_version: None });
        match rigs.delete(&name, &gone).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            deleted => {
                deleted.with_context(|| format!("deleting Rig {name} of an earlier check"))?;
            }
        }
    }
    Ok(())
}

/// Whether a check that created this Rig is over, by the API server's clock. Pure.
fn is_left(rig: &Rig, own: &Rig) -> bool {
    let of = |rig: &Rig| rig.metadata.creation_timestamp.as_ref().map(|at| at.0);
    let ages = of(rig).zip(of(own));
    ages.is_some_and(|(rig, own)| own.duration_since(rig) > LEFT)
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

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_rig_of_a_check_that_may_still_run_is_not_left() {
        let created = |at: Option<&str>| {
            let mut rig = rig();
            rig.metadata.creation_timestamp = at.map(|at| Time(at.parse().unwrap()));
            rig
        };
        let own = created(Some("2026-01-02T03:10:00Z"));
        assert!(is_left(&created(Some("2026-01-02T03:04:59Z")), &own));
        for at in [Some("2026-01-02T03:05:00Z"), Some("2026-01-02T03:11:00Z"), None] {
            assert!(!is_left(&created(at), &own), "{at:?}");
        }
    }
}
