//! Every controller crate has the same files, so that a reader who knows one knows all.

use std::path::Path;

use anyhow::{Result, ensure};
use gastown_api::rbac::Controller;

/// What each controller's `src/` holds beside files of its own; `docs/architecture.md` has what is
/// in each.
const FILES: [&str; 13] = [
    "main.rs",
    "lib.rs",
    "args.rs",
    "context.rs",
    "error.rs",
    "watches.rs",
    "gather.rs",
    "reconcile.rs",
    "act.rs",
    "report.rs",
    "service.rs",
    "escalations.rs",
    "metrics.rs",
];

/// Fails with each file that a controller is missing.
pub fn check(root: &Path) -> Result<()> {
    let files = Controller::ALL.into_iter().flat_map(|controller| {
        FILES.map(|file| format!("crates/{}/src/{file}", controller.name()))
    });
    let missing: Vec<String> = files.filter(|file| !root.join(file).is_file()).collect();
    ensure!(
        missing.is_empty(),
        "missing files, which every controller has (docs/architecture.md):\n{}",
        missing.join("\n")
    );
    Ok(())
}
