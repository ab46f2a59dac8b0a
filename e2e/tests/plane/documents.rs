//! Every command of the README and of the installation's page works as it stands, in the order in
//! which a reader meets it.

use anyhow::{Context as _, Result, ensure};

use crate::blocks::{self, Block, Place};
use crate::shell::{Shell, root};

/// Runs the blocks of a page on a plane of its own: shell blocks as they are, YAML through a dry run
/// on the server.
async fn follow(page: &str) -> Result<()> {
    let text = std::fs::read_to_string(root().join(page))?;
    let blocks = blocks::read(&text).with_context(|| format!("reading the blocks of {page}"))?;
    let shell = Shell::new().await?;
    let mut ran = 0;
    for block in &blocks {
        let runs = run(&shell, block).await;
        ran += usize::from(runs.with_context(|| format!("{page}:{}", block.line))?);
    }
    ensure!(ran > 0, "{page} has no block that runs here");
    Ok(())
}

async fn run(shell: &Shell, block: &Block) -> Result<bool> {
    let on_server = "kubectl apply --server-side --dry-run=server --validate=strict -f -";
    match (&block.runs, block.language.as_str()) {
        (Place::Plane, "sh") => shell.run(&block.text).await.map(|_| true),
        (Place::Plane, "yaml") => shell.run_on(on_server, &block.text).await.map(|_| true),
        // Fragments and output name another language, or none.
        (Place::Cluster | Place::Nowhere(_), _)
        | (Place::Plane, "json" | "text" | "console" | "") => Ok(false),
        (Place::Plane, other) => anyhow::bail!("a block of {other:?}: nothing here runs it"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_can_be_followed() -> Result<()> {
    follow("README.md").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_installation_can_be_followed() -> Result<()> {
    follow("docs/install.md").await
}
