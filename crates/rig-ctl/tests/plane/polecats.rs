//! What the Polecats of a Rig mean for its status and its deletion.

use anyhow::{Result, ensure};
use gastown_api::names::{condition, finalizer};
use gastown_api::{Polecat, PolecatPhase, Rig, RigSpec, RigStatus, conditions};
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install::SYSTEM as NAMESPACE;
use gastown_cluster::install::until;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::{
    TIMEOUT, create_polecat, create_rig, fixture, ready, refineries, report_witness, rigs,
    set_ready, spec,
};

#[tokio::test]
async fn an_erased_status_comes_back() -> Result<()> {
    let (client, namespace) = fixture().await?;
    let name = format!("erased-{namespace}");
    create_rig(&client, &name, spec()).await?;
    create_polecat(&client, &namespace, "a", &name, Some(PolecatPhase::Working)).await?;
    let counted = |rig: Option<&Rig>| {
        rig?.status
            .clone()
            .filter(|status| status.polecats.is_some_and(|polecats| polecats.working == 1))
    };
    let before = until(TIMEOUT, &rigs(&client), &name, "the count", counted).await?;
    rigs(&client)
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": null})))
        .await?;
    let after = until(TIMEOUT, &rigs(&client), &name, "the count again", counted).await?;
    ensure!(
        (after.phase, after.polecat_count, after.refinery_created) == (before.phase, 1, true),
        "{after:?}"
    );
    Ok(())
}

#[tokio::test]
async fn polecats_are_counted_by_phase_in_all_namespaces() -> Result<()> {
    let (client, namespace) = fixture().await?;
    let name = format!("counting-{namespace}");
    create_rig(&client, &name, RigSpec { suspend: true, ..spec() }).await?;
    let phases = [
        None,
        Some(PolecatPhase::Working),
        Some(PolecatPhase::Done),
        Some(PolecatPhase::Stuck),
        Some(PolecatPhase::Terminated),
    ];
    for (index, phase) in phases.into_iter().enumerate() {
        create_polecat(&client, &namespace, &format!("p{index}"), &name, phase).await?;
    }
    let plane = ControlPlane::shared().await?;
    create_polecat(
        &client,
        &plane.namespace().await?,
        "elsewhere",
        &name,
        Some(PolecatPhase::Done),
    )
    .await?;
    let counted = |rig: Option<&Rig>| {
        let status = rig?.status.clone()?;
        let counts = status.polecats?;
        let seen = [
            status.polecat_count,
            counts.idle,
            counts.queued,
            counts.working,
            counts.done,
            counts.stuck,
        ];
        (seen == [6, 0, 1, 1, 2, 1]).then_some(status)
    };
    let status = until(TIMEOUT, &rigs(&client), &name, "the counts", counted).await?;
    let available =
        |status: &RigStatus| conditions::find(&status.conditions, condition::AVAILABLE).cloned();
    ensure!(
        available(&status).is_some_and(|available| available.status == "False"),
        "not ready yet"
    );
    set_ready(&refineries(&client, NAMESPACE), &format!("{name}-refinery"), true, "Idle", "")
        .await?;
    report_witness(&client, &name).await?;
    let suspended = |rig: Option<&Rig>| {
        available(rig?.status.as_ref()?).filter(|available| available.reason == "RigSuspended")
    };
    until(TIMEOUT, &rigs(&client), &name, "the suspension", suspended).await?;
    ensure!(
        ready(Some(&rigs(&client).get(&name).await?)).is_some_and(|ready| ready.status == "True"),
        "a suspended rig is ready"
    );
    Ok(())
}

#[tokio::test]
async fn deletion_waits_for_polecats_at_work_and_deletes_the_children() -> Result<()> {
    let (client, namespace) = fixture().await?;
    let name = format!("ending-{namespace}");
    create_rig(&client, &name, spec()).await?;
    let (own, api) = (format!("{name}-refinery"), refineries(&client, NAMESPACE));
    until(TIMEOUT, &api, &own, "the Refinery", |refinery| refinery.map(|_| ())).await?;
    create_polecat(&client, &namespace, "busy", &name, Some(PolecatPhase::Working)).await?;
    let counted =
        |rig: Option<&Rig>| rig?.status.as_ref()?.polecats.filter(|polecats| polecats.working == 1);
    until(TIMEOUT, &rigs(&client), &name, "the count", counted).await?;

    rigs(&client).delete(&name, &DeleteParams::default()).await?;
    let waits = until(TIMEOUT, &rigs(&client), &name, "the wait", |rig| {
        ready(rig).filter(|ready| ready.reason == "WaitingForPolecats")
    })
    .await?;
    ensure!(
        waits.message == format!("deletion waits for 1 polecat: {namespace}/busy"),
        "{waits:?}"
    );
    let held = rigs(&client).get(&name).await?;
    ensure!(held.finalizers() == [finalizer::RIG] && api.get_opt(&own).await?.is_some());

    let polecats: Api<Polecat> = Api::namespaced(client.clone(), &namespace);
    polecats
        .patch_status(
            "busy",
            &PatchParams::default(),
            &Patch::Merge(json!({"status": {"phase": "Done"}})),
        )
        .await?;
    until(TIMEOUT, &rigs(&client), &name, "the Rig's end", |rig| rig.is_none().then_some(()))
        .await?;
    ensure!(api.get_opt(&own).await?.is_none(), "the Refinery went before the Rig");
    ensure!(polecats.get_opt("busy").await?.is_some(), "a rig's end deletes no polecat");
    Ok(())
}
