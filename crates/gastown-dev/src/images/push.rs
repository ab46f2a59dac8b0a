//! `cargo xtask images --push`: images to a registry.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use gastown_cluster::oci::{Digest, Layout};

use super::built::Built;
use super::names::Names;
use super::registry::Repository;

/// Pushes images and prints how to install them.
pub async fn push(built: &[Built], names: &Names) -> Result<()> {
    // Which repository has a blob, so that the registry need not be sent it again.
    let mut repositories: BTreeMap<Digest, String> = BTreeMap::new();
    for image in built {
        let begun = Instant::now();
        let reference = names.reference(&image.name);
        let path = image.path.clone();
        let layout = tokio::task::spawn_blocking(move || Layout::open(&path)).await??;
        let mut repository = Repository::of(&reference)?;
        println!("images: pushing {reference}");
        let pushed = repository
            .push(&layout, names.tag(), |digest| repositories.get(digest).cloned())
            .await
            .with_context(|| format!("pushing {reference}"))?;
        for blob in &layout.blobs {
            repositories.entry(blob.digest.clone()).or_insert_with(|| repository.name().to_owned());
        }
        println!(
            "images: pushed {reference}@{} in {:.1} s ({} blobs uploaded, {} present)",
            layout.digest,
            begun.elapsed().as_secs_f32(),
            pushed.uploaded,
            pushed.present
        );
    }
    println!("\ninstall with:\n  {}", names.helm_command());
    Ok(())
}
