//! Convoys that create Polecats.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use gastown_api::names::{annotation, condition, label};
use gastown_api::{
    Convoy, ConvoyBeadPhase, ConvoyPhase, ConvoyStatus, DesiredState, MergeRequest, Polecat,
};
use gastown_cluster::install::until;
use gastown_proto::v1;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tonic::Status;

use crate::stores::{STORES, bead};
use crate::{Fixture, TIMEOUT, condition_of, phase_of};

#[tokio::test]
async fn the_landing_that_unblocks_a_bead_starts_it_and_the_end_is_announced_once() -> Result<()> {
    let rig = Fixture::new().await?;
    rig.create_rig(8).await?;
    STORES.put(&rig.namespace, Ok(vec![bead("gt-1", &[]), bead("gt-2", &["gt-1"])]));
    rig.create_store().await?;
    rig.create_convoy("chain", &["gt-1", "gt-2"], |_| {}).await?;
    let first = rig.created("gt-1").await?;
    let spec = &first.spec;
    ensure!(
        spec.bead_id.as_deref() == Some("gt-1")
            && spec.task_description.as_deref() == Some("Do gt-1\n\nWell."),
        "{spec:?}"
    );
    ensure!(
        spec.priority == Some(1)
            && spec.ttl_seconds_after_finished == Some(60)
            && spec.desired_state == DesiredState::Working
    );
    let kubernetes = spec.kubernetes.as_ref().context("no kubernetes")?;
    ensure!(
        kubernetes.git_repository == "https://example.com/a/b"
            && kubernetes.pod.git_secret_ref.is_some(),
        "{kubernetes:?}"
    );
    ensure!(
        first.owner_references().is_empty()
            && first.labels().get(label::CONVOY).is_some_and(|convoy| convoy == "chain")
    );
    let waits = rig
        .until("chain", "the wait", |status| {
            phase_of(status, "gt-1") == Some(ConvoyBeadPhase::Working)
        })
        .await?;
    ensure!(
        phase_of(&waits, "gt-2") == Some(ConvoyBeadPhase::Blocked)
            && condition_of(&waits, condition::VALID).0 == "True",
        "{waits:?}"
    );

    rig.set_phase(&first.name_any(), "Done", "WorkComplete").await?;
    rig.until("chain", "the submission", |status| {
        phase_of(status, "gt-1") == Some(ConvoyBeadPhase::Submitted)
    })
    .await?;
    ensure!(rig.count().await? == 1, "done is not landed");
    rig.land("gt-1").await?;
    rig.created("gt-2").await?;
    rig.land("gt-2").await?;
    let over =
        rig.until("chain", "the end", |status| status.phase == Some(ConvoyPhase::Complete)).await?;
    ensure!(over.progress.as_deref() == Some("2/2"), "{over:?}");

    // All that is known is derived again, and nothing is started or announced twice.
    rig.convoys()
        .patch_status("chain", &PatchParams::default(), &Patch::Merge(json!({"status": null})))
        .await?;
    rig.until("chain", "the end again", |status| status.phase == Some(ConvoyPhase::Complete))
        .await?;
    ensure!(rig.count().await? == 2);
    let events: Api<Event> = Api::namespaced(rig.client.clone(), &rig.namespace);
    let complete = || async {
        let all = events.list(&ListParams::default()).await?.items;
        anyhow::Ok(
            all.into_iter()
                .filter(|event| event.reason.as_deref() == Some("Complete"))
                .collect::<Vec<_>>(),
        )
    };
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while complete().await?.is_empty() {
        ensure!(tokio::time::Instant::now() < deadline, "no Event was published");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let published = complete().await?;
    ensure!(published.len() == 1 && published[0].series.is_none(), "{published:?}");

    // Another bead opens it again.
    STORES.put(
        &rig.namespace,
        Ok(vec![bead("gt-1", &[]), bead("gt-2", &["gt-1"]), bead("gt-3", &["gt-2"])]),
    );
    let patch = json!({"spec": {"trackedBeads": ["gt-1", "gt-2", "gt-3"]}});
    rig.convoys().patch("chain", &PatchParams::default(), &Patch::Merge(patch)).await?;
    rig.created("gt-3").await?;
    rig.until("chain", "more work", |status| {
        status.phase == Some(ConvoyPhase::InProgress) && status.completed_at.is_none()
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn two_convoys_of_a_rig_do_not_exceed_its_capacity_and_share_a_bead() -> Result<()> {
    let rig = Fixture::new().await?;
    rig.create_rig(2).await?;
    STORES.put(&rig.namespace, Ok((1..=6).map(|n| bead(&format!("gt-{n}"), &[])).collect()));
    rig.create_store().await?;
    rig.create_convoy("one", &["gt-1", "gt-2", "gt-3", "gt-4"], |_| {}).await?;
    rig.create_convoy("two", &["gt-1", "gt-5", "gt-6"], |_| {}).await?;
    for convoy in ["one", "two"] {
        let full =
            |status: &ConvoyStatus| condition_of(status, condition::PROGRESSING).1 == "AtCapacity";
        rig.until(convoy, "the rig to be full", full).await?;
    }
    ensure!(rig.count().await? == 2);
    // Each Polecat that ends frees one slot, and one only.
    for made in 3..=6 {
        let all = rig.polecats().list(&ListParams::default()).await?.items;
        let is_done = |polecat: &&Polecat| {
            polecat.status.as_ref().is_some_and(|status| status.phase.is_some())
        };
        let active = all.iter().find(|polecat| !is_done(polecat)).context("nobody works")?;
        rig.set_phase(&active.name_any(), "Done", "WorkComplete").await?;
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        while rig.count().await? < made {
            ensure!(
                tokio::time::Instant::now() < deadline,
                "the slot of {} stays free",
                active.name_any()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ensure!(rig.count().await? == made);
    }
    Ok(())
}

#[tokio::test]
async fn a_store_that_cannot_be_read_delays_the_convoy_and_is_named() -> Result<()> {
    let rig = Fixture::new().await?;
    rig.create_rig(8).await?;
    rig.create_convoy("waiting", &["gt-1"], |_| {}).await?;
    let ready = |reason: &'static str| {
        move |status: &ConvoyStatus| condition_of(status, condition::READY).1 == reason
    };
    rig.until("waiting", "the missing store", ready("NoBeadStore")).await?;
    STORES.put(
        &rig.namespace,
        Err(Status::failed_precondition("NotSynced: the repository was not read yet")),
    );
    rig.create_store().await?;
    let waits =
        rig.until("waiting", "the failure of the store", ready("BeadStoreUnavailable")).await?;
    let progressing = condition_of(&waits, condition::PROGRESSING);
    ensure!(
        progressing.1 == "BeadStoreUnavailable" && progressing.2.contains("NotSynced"),
        "{waits:?}"
    );
    ensure!(
        condition_of(&waits, condition::VALID).0 == "Unknown"
            && phase_of(&waits, "gt-1") == Some(ConvoyBeadPhase::Unknown),
        "{waits:?}"
    );
    ensure!(rig.count().await? == 0);
    STORES.put(&rig.namespace, Ok(vec![bead("gt-1", &[])]));
    rig.created("gt-1").await?;
    rig.until("waiting", "the work", |status| {
        phase_of(status, "gt-1") == Some(ConvoyBeadPhase::Working)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_cycle_is_named_and_a_polecat_without_attempts_left_fails_its_bead() -> Result<()> {
    let rig = Fixture::new().await?;
    rig.create_rig(8).await?;
    STORES.put(
        &rig.namespace,
        Ok(vec![bead("gt-1", &["gt-2"]), bead("gt-2", &["gt-1"]), bead("gt-3", &[])]),
    );
    rig.create_store().await?;
    rig.create_convoy("cycle", &["gt-1", "gt-2", "gt-3"], |_| {}).await?;
    let cyclic = rig
        .until("cycle", "the cycle", |status| {
            condition_of(status, condition::VALID).1 == "DependencyCycle"
        })
        .await?;
    ensure!(condition_of(&cyclic, condition::VALID).2.contains("gt-1 → gt-2 → gt-1"), "{cyclic:?}");
    ensure!(rig.count().await? == 0, "nothing is started");
    STORES.put(
        &rig.namespace,
        Ok(vec![bead("gt-1", &[]), bead("gt-2", &["gt-1"]), bead("gt-3", &[])]),
    );
    let first = rig.created("gt-1").await?;
    rig.created("gt-3").await?;
    rig.set_phase(&first.name_any(), "Stuck", "AttemptsSpent").await?;
    let failed =
        rig.until("cycle", "the failure", |status| status.failed_beads == ["gt-1"]).await?;
    ensure!(failed.phase == Some(ConvoyPhase::InProgress), "gt-3 goes on: {failed:?}");
    rig.land("gt-3").await?;
    let over =
        rig.until("cycle", "the end", |status| status.phase == Some(ConvoyPhase::Failed)).await?;
    ensure!(
        condition_of(&over, condition::DEGRADED).2.contains("gt-1 (AttemptsSpent)"),
        "{over:?}"
    );
    ensure!(phase_of(&over, "gt-2") == Some(ConvoyBeadPhase::Blocked) && rig.count().await? == 2);
    Ok(())
}

#[tokio::test]
async fn a_bead_that_a_person_reopens_is_worked_on_again_and_counts_when_that_lands() -> Result<()>
{
    let rig = Fixture::new().await?;
    rig.create_rig(8).await?;
    STORES.put(&rig.namespace, Ok(vec![bead("gt-1", &[])]));
    rig.create_store().await?;
    rig.create_convoy("again", &["gt-1"], |_| {}).await?;
    let first = rig.created("gt-1").await?;
    let merged = json!({"status": {"phase": "Done", "conditions": [{
        "type": condition::MERGED, "status": "True", "reason": "MergeComplete", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    rig.polecats()
        .patch_status(&first.name_any(), &PatchParams::default(), &Patch::Merge(merged))
        .await?;
    rig.land("gt-1").await?;
    rig.until("again", "the end", |status| status.phase == Some(ConvoyPhase::Complete)).await?;
    let requests: Api<MergeRequest> = Api::namespaced(rig.client.clone(), &rig.namespace);
    let uid = requests.get("mr-gt-1").await?.uid().context("a uid")?;
    let closed = v1::Bead { closed_for: vec![uid], ..bead("gt-1", &[]) };
    let done = v1::Bead { status: "closed".into(), ready: false, ..closed.clone() };
    STORES.put(&rig.namespace, Ok(vec![done]));
    let counted = |convoy: Option<&Convoy>| {
        convoy?.annotations().get(annotation::CONVOY_COUNTED)?.contains("closed").then_some(())
    };
    until(TIMEOUT, &rig.convoys(), "again", "the close", counted).await?;
    ensure!(rig.count().await? == 1, "a closed bead is not started");

    // The first Polecat and its landed MergeRequest are still there.
    STORES.put(&rig.namespace, Ok(vec![closed]));
    let status = rig
        .until("again", "the work", |status| {
            phase_of(status, "gt-1") == Some(ConvoyBeadPhase::Working)
        })
        .await?;
    ensure!(
        status.phase == Some(ConvoyPhase::InProgress) && status.completed_at.is_none(),
        "{status:?}"
    );
    let all = rig.polecats().list(&ListParams::default()).await?.items;
    let [second] = &all.iter().filter(|p| p.name_any() != first.name_any()).collect::<Vec<_>>()[..]
    else {
        bail!("{} Polecats", all.len())
    };
    ensure!(second.spec.bead_id.as_deref() == Some("gt-1"), "{second:?}");
    Ok(())
}
