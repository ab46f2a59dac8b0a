//! Finding a program as a shell would.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The program `name`, on the `PATH` unless it is a path itself.
pub fn find(name: &str) -> Option<PathBuf> {
    find_in(name, &std::env::var_os("PATH").unwrap_or_default())
}

/// The program `name` in the folders of `path` (as the variable is written), unless `name` is a
/// path itself.
pub fn find_in(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    let runs =
        |p: &Path| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|p| runs(p));
    }
    std::env::split_paths(path).map(|dir| dir.join(name)).find(|p| runs(p))
}
