//! Whether two versions can run at once: today's gRPC interface and CRDs against each baseline in
//! `compat/`. What `docs/upgrade.md` promises about them is checked here; what is written into
//! annotations, records and variables is tested where it is written, with `gastown-compat`.

mod allowed;
mod crd;
mod found;
mod freeze;
mod proto;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use gastown_cluster::baselines::Baseline;
use serde_json::Value;

use self::found::FOLDER;
pub use self::freeze::{commit, freeze};

/// Fails with every break of every baseline below `root` that `compat/allowed.yaml` does not allow,
/// and with every entry of that file that allows nothing.
pub fn check(root: &Path) -> Result<()> {
    let folder = root.join(FOLDER);
    let mut allowed = allowed::read(&folder.join(allowed::FILE))?;
    let baselines = Baseline::all_in(&folder)?;
    let today_crds = crate::generate::definitions()?;
    let today_proto = proto::today()?;
    let mut found = Vec::new();
    for baseline in &baselines {
        let version = &baseline.version;
        let proto = proto::compile(&baseline.folder.join("proto"))?;
        let mut breaks = proto::breaks(&proto, &today_proto);
        for old in crds(&baseline.crds())? {
            breaks.extend(crd::breaks(&old, today_crds.iter().map(|(_, crd)| crd)));
        }
        breaks.retain(|found| !allowed.allows(version, found));
        found.extend(breaks.iter().map(|found| format!("{version}: {found}")));
    }
    found.extend(allowed.unused());
    ensure!(
        found.is_empty(),
        "today's version cannot run beside an earlier one (docs/upgrade.md; {FOLDER}/{} allows what is meant):\n  {}",
        allowed::FILE,
        found.join("\n  ")
    );
    Ok(())
}

/// The definitions in a folder.
fn crds(folder: &Path) -> Result<Vec<Value>> {
    let listed =
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths: Vec<PathBuf> =
        listed.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path)?;
        serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))
    };
    let found: Vec<Value> = paths.iter().map(read).collect::<Result<_>>()?;
    ensure!(!found.is_empty(), "{} has no definition", folder.display());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn today_breaks_no_baseline() {
        check(&crate::util::root()).unwrap();
    }
}
