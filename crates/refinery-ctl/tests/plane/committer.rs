//! Who commits what lands.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::fixture::{Fixture, TIMEOUT, git, until};

/// Refuses commits on `main` of anybody but one committer.
const HOOK: &str = r#"#!/bin/sh
while read -r old new ref; do
    [ "$ref" = refs/heads/main ] || continue
    if git log --format=%ce "$old..$new" | grep -qv '^bot@example.org$'; then
        echo 'committers need a badge' >&2
        exit 1
    fi
done
"#;

#[tokio::test]
async fn another_committer_makes_another_candidate_and_a_refused_landing_is_tried_at_once()
-> Result<()> {
    let fixture = Fixture::new().await?;
    let source = fixture.branch("feature/c", "a", "1\n");
    let hook = fixture.remote().join("hooks/pre-receive");
    std::fs::write(&hook, HOOK)?;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
    fixture.submit("mr-c", "feature/c", &source, None).await?;
    let first = fixture.gate(&[]).await?;
    fixture.gate_ends(&first, 0, "").await?;
    until(TIMEOUT, &fixture.requests(), "mr-c", "PushRejected", |m| {
        let reason = m?.status.as_ref()?.reason.as_deref()?;
        (reason == "PushRejected").then_some(())
    })
    .await?;

    let spec = json!({"spec": {"committer": "Acme Bot <bot@example.org>", "signOff": true}});
    let patch = Patch::Merge(spec);
    fixture.refineries().patch("refinery", &PatchParams::default(), &patch).await?;
    let second = fixture.gate(&[first.name_any()]).await?;
    fixture.gate_ends(&second, 0, "").await?;
    fixture.phase("mr-c", "Landed").await?;
    let landed = git(&fixture.remote(), &["log", "-1", "--format=%cn <%ce>%n%B", "main"]);
    let signed = landed.starts_with("Acme Bot <bot@example.org>\nwork on feature/c\n")
        && landed.contains("\nSigned-off-by: Acme Bot <bot@example.org>\nGastown-Request: ");
    ensure!(signed, "{landed}");
    Ok(())
}
