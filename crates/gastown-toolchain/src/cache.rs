//! The user's cache folder for this project, and locks in it.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The user's cache folder for this project: `gastown` in `$XDG_CACHE_HOME` or `~/.cache`.
pub fn dir() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    Ok(cache
        .context("neither XDG_CACHE_HOME nor HOME names the cache folder; set one of them")?
        .join("gastown"))
}

/// Takes an exclusive lock that ends with the returned file, or with the process.
pub fn lock(path: &Path) -> Result<File> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another process, which holds {}", path.display());
        file.lock().with_context(|| format!("locking {}", path.display()))?;
    }
    Ok(file)
}
