//! Grafana's own types of dashboards, with the compiler that checks against them.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{cache, npm, parts};

const MODULE: &str = "grafana-types";
const MANIFEST: &str = include_str!("../modules/grafana-types/package.json");
const LOCK: &str = include_str!("../modules/grafana-types/package-lock.json");

/// The folder whose `node_modules` have `@grafana/grafana-foundation-sdk` and `typescript`. It is fetched
/// with npm when it is not in the cache.
pub fn grafana_types() -> Result<PathBuf> {
    let parent = cache::dir()?;
    let folder = parent.join(format!("{MODULE}-{}", parts::key([MANIFEST, LOCK])));
    if folder.is_dir() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&parent).with_context(|| format!("creating {}", parent.display()))?;
    // One fetch serves all that want it at the same time.
    let _lock = cache::lock(&parent.join(format!("{MODULE}.lock")))?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let new = folder.with_extension("new");
    if new.exists() {
        std::fs::remove_dir_all(&new).with_context(|| format!("removing {}", new.display()))?;
    }
    eprintln!("toolchain: fetching Grafana's types with npm (about 10 MB)");
    npm::ci(&new, MODULE, MANIFEST, LOCK)?;
    std::fs::rename(&new, &folder)
        .with_context(|| format!("moving Grafana's types to {}", folder.display()))?;
    Ok(folder)
}
