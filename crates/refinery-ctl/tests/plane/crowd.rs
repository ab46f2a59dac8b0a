//! Remotes that never answer hold up their own rigs, and no other.

use anyhow::{Result, ensure};
use gastown_api::{MergeRequest, MergeRequestSpec, Refinery, RefinerySpec, Rig};
use gastown_cluster::control_plane::ControlPlane;
use gastown_fakes::black_hole::BlackHole;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::fixture::{Fixture, TIMEOUT, shared};

/// How many rigs have such a remote: more than objects are reconciled at a time.
const SILENT: usize = 12;

/// A rig with a Refinery and a request, all of this name.
async fn silent_rig(plane: &ControlPlane, namespace: &str, name: &str, url: &str) -> Result<()> {
    let (client, params) = (plane.client()?, PostParams::default());
    let spec = json!({"gitURL": url, "beadsPrefix": "si"});
    let rig = Rig::new(name, serde_json::from_value(spec)?);
    Api::<Rig>::all(client.clone()).create(&params, &rig).await?;
    let refinery = Refinery::new(name, RefinerySpec::of_rig(name));
    let refineries: Api<Refinery> = Api::namespaced(client.clone(), namespace);
    refineries.create(&params, &refinery).await?;
    let spec: MergeRequestSpec = serde_json::from_value(json!({
        "rigRef": name, "sourceBranch": "feature/a", "commit": "a".repeat(40),
        "targetBranch": "main", "attempt": 1,
    }))?;
    let requests: Api<MergeRequest> = Api::namespaced(client, namespace);
    requests.create(&params, &MergeRequest::new(name, spec)).await?;
    Ok(())
}

#[tokio::test]
async fn remotes_that_never_answer_hold_up_no_other_rig() -> Result<()> {
    let (plane, _) = shared().await?;
    let hole = BlackHole::listen().await?;
    let namespace = plane.namespace().await?;
    let names: Vec<String> = (1..=SILENT).map(|n| format!("silent-{namespace}-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let url = format!("https://{}/repository.git", hole.authority(n + 1));
        silent_rig(plane, &namespace, name, &url).await?;
    }
    // All of them wait, each for its own remote.
    hole.connections(SILENT, TIMEOUT).await?;

    let fixture = Fixture::new().await?;
    let commit = fixture.branch("feature/a", "a", "1\n");
    fixture.submit("mr-a", "feature/a", &commit, None).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("mr-a", "Landed").await?;

    let requests: Api<MergeRequest> = Api::namespaced(plane.client()?, &namespace);
    for name in &names {
        let request = requests.get(name).await?;
        let landed = request.status.and_then(|status| status.landed_commit);
        ensure!(landed.is_none(), "{landed:?}");
        Api::<Rig>::all(plane.client()?).delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}
