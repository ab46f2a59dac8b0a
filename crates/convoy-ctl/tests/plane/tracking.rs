//! Convoys that only track their beads.

use anyhow::{Result, ensure};
use gastown_api::names::{annotation, condition};
use gastown_api::{Convoy, ConvoyPhase, DesiredState, Polecat, PolecatSpec};
use gastown_cluster::install::until;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, PostParams};

use crate::{Fixture, TIMEOUT, condition_of};

#[tokio::test]
async fn a_convoy_that_only_tracks_behaves_as_in_the_go_operator() -> Result<()> {
    let rig = Fixture::new().await?;
    // Without a rig the beads of every rig count: no other test has these.
    rig.create_convoy("plain", &["solo-1", "solo-2"], |spec| {
        (spec.dispatch, spec.rig_ref) = (false, None);
    })
    .await?;
    let begun = rig
        .until("plain", "its beginning", |status| status.progress.as_deref() == Some("0/2"))
        .await?;
    ensure!(
        begun.phase == Some(ConvoyPhase::InProgress)
            && begun.started_at.is_some()
            && begun.pending_beads == ["solo-1", "solo-2"]
    );
    ensure!(
        condition_of(&begun, condition::READY).1 == "Synced"
            && condition_of(&begun, condition::COMPLETE).1 == "InProgress",
        "{begun:?}"
    );
    for bead in ["solo-1", "solo-2"] {
        let spec = PolecatSpec {
            bead_id: Some(bead.into()),
            desired_state: DesiredState::Working,
            ..PolecatSpec::of_rig("any")
        };
        rig.polecats().create(&PostParams::default(), &Polecat::new(bead, spec)).await?;
    }
    rig.set_phase("solo-1", "Done", "WorkComplete").await?;
    let half =
        rig.until("plain", "one done", |status| status.progress.as_deref() == Some("1/2")).await?;
    ensure!(
        half.completed_beads == ["solo-1"]
            && half.pending_beads == ["solo-2"]
            && half.completed_at.is_none(),
        "{half:?}"
    );
    let counted =
        |convoy: Option<&Convoy>| convoy?.annotations().get(annotation::CONVOY_COUNTED).cloned();
    ensure!(
        until(TIMEOUT, &rig.convoys(), "plain", "the count", counted).await?.contains("solo-1")
    );
    rig.polecats().delete("solo-1", &DeleteParams::default()).await?;
    rig.set_phase("solo-2", "Done", "WorkComplete").await?;
    let over =
        rig.until("plain", "the end", |status| status.phase == Some(ConvoyPhase::Complete)).await?;
    ensure!(
        over.progress.as_deref() == Some("2/2")
            && over.completed_at.is_some()
            && over.pending_beads.is_empty(),
        "{over:?}"
    );
    ensure!(condition_of(&over, condition::COMPLETE).0 == "True");
    ensure!(rig.count().await? == 1, "it creates none");
    Ok(())
}
