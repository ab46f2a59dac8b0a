//! What no image of ours holds. The builder refuses to write one that does.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};
use gastown_cluster::oci::{FileEntry, Layout};

use super::recipe::Recipe;

/// The bits that make whoever runs a program its owner or a member of its group.
const SETUID: u32 = 0o6000;

/// Programs that install others.
const INSTALLERS: [&str; 4] = ["apt", "apt-get", "aptitude", "npm"];

/// Folders of programs.
const PROGRAMS: [&str; 7] =
    ["bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "usr/libexec"];

/// Refuses an image that holds what it must not.
pub fn check(layout: &Path, recipe: &Recipe) -> Result<()> {
    let found = faults(&Layout::open(layout)?.files()?, recipe);
    ensure!(found.is_empty(), "{} holds what it must not: {}", layout.display(), found.join("; "));
    Ok(())
}

fn faults(files: &BTreeMap<String, FileEntry>, recipe: &Recipe) -> Vec<String> {
    let mut found = Vec::new();
    for (path, file) in files.iter().filter(|(_, file)| !file.is_dir) {
        if file.mode & SETUID != 0 {
            found.push(format!("{path} has mode {:o}", file.mode));
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if PROGRAMS.contains(&folder) && INSTALLERS.contains(&name) {
            found.push(format!("{path} installs programs"));
        }
        // An image that starts empty holds what its recipe names, and the accounts.
        if recipe.from.is_none() && !is_named(recipe, path) {
            found.push(format!("{path} is not in its recipe"));
        }
    }
    found
}

fn is_named(recipe: &Recipe, path: &str) -> bool {
    let copies = recipe.copy.iter().map(|copy| &copy.path);
    let mut named = recipe.binaries.values().chain(recipe.agents.values()).chain(copies);
    ["etc/passwd", "etc/group"].contains(&path)
        || named.any(|named| named.trim_start_matches('/') == path)
}

#[cfg(test)]
mod tests {
    use gastown_cluster::oci::{ImageBuilder, Layer};

    use super::super::recipe;
    use super::*;

    /// An image with the files of a recipe and further ones, checked as the builder does.
    fn checked(name: &str, more: &[(&str, u32)]) -> Result<()> {
        let recipe = recipe::read_all(&crate::util::root().join("images"))?.remove(name).unwrap();
        let mut layer = Layer::new().bytes("/etc/passwd", "x", 0o644).dir("/tmp", 0o1777, (0, 0));
        for path in recipe.binaries.values().chain(recipe.copy.iter().map(|c| &c.path)) {
            layer = layer.bytes(path, "x", 0o755);
        }
        for (path, mode) in more {
            layer = layer.bytes(path, "x", *mode);
        }
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("image.tar");
        ImageBuilder::new("x/y:1").layer(layer).write(&path)?;
        check(&path, &recipe)
    }

    #[test]
    fn a_controller_s_image_without_git_holds_one_program_and_no_shell() {
        for name in ["rig-ctl", "polecat-ctl", "convoy-ctl", "witness-ctl"] {
            checked(name, &[]).unwrap();
            for extra in ["/bin/sh", "/usr/bin/dpkg", "/usr/local/bin/gt", "/etc/shadow"] {
                let error = checked(name, &[(extra, 0o755)]).unwrap_err().to_string();
                assert!(error.contains(&extra[1..]), "{error}");
            }
        }
    }

    #[test]
    fn no_image_has_a_program_that_makes_root_or_installs_others() {
        for name in ["refinery-ctl", "beadstore-ctl", "polecat-agent"] {
            checked(name, &[("/bin/sh", 0o755), ("/usr/bin/git", 0o755)]).unwrap();
            for (extra, mode) in
                [("/usr/bin/su", 0o4755), ("/usr/bin/wall", 0o2755), ("/usr/bin/apt-get", 0o755)]
            {
                let error = checked(name, &[(extra, mode)]).unwrap_err().to_string();
                assert!(error.contains(&extra[1..]), "{error}");
            }
        }
    }
}
