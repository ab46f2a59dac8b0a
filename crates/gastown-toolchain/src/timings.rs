//! How long things took on this machine the last time: `timings.json` in the cache folder.
//!
//! They are for estimates only, so a file that cannot be read or written is not an error.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::cache;

/// Seconds by the name of what took them.
type All = BTreeMap<String, f64>;

/// How long this took the last time.
pub fn last(name: &str) -> Option<Duration> {
    let all = read(&cache::dir().ok()?.join("timings.json"));
    Duration::try_from_secs_f64(*all.get(name)?).ok()
}

/// Remembers how long this took.
pub fn record(name: &str, took: Duration) {
    drop(cache::dir().and_then(|dir| write(&dir, name, took)));
}

fn read(path: &Path) -> All {
    std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn write(dir: &Path, name: &str, took: Duration) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let _lock = cache::lock(&dir.join("timings.lock"))?;
    let path = dir.join("timings.json");
    let mut all = read(&path);
    all.insert(name.to_owned(), (took.as_secs_f64() * 10.0).round() / 10.0);
    let new = dir.join("timings.json.new");
    std::fs::write(&new, serde_json::to_vec_pretty(&all)?)?;
    Ok(std::fs::rename(&new, &path)?)
}

/// A duration for people: `45 s`, `3 min`, `3 min 5 s`.
pub fn shown(took: Duration) -> String {
    match (took.as_secs() / 60, took.as_secs() % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timings.json");
        std::fs::write(&path, "not JSON").unwrap();
        write(dir.path(), "a", Duration::from_millis(1234)).unwrap();
        write(dir.path(), "b", Duration::from_mins(1)).unwrap();
        write(dir.path(), "a", Duration::from_secs(2)).unwrap();
        assert_eq!(read(&path), All::from([("a".to_owned(), 2.0), ("b".to_owned(), 60.0)]));
    }

    #[test]
    fn durations_are_short_text() {
        let of = |seconds| shown(Duration::from_secs(seconds));
        assert_eq!([of(0), of(59), of(120), of(185)], ["0 s", "59 s", "2 min", "3 min 5 s"]);
    }
}
