//! The image that an installation names, which may change while a controller runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;

/// How long what was read is believed.
const BELIEVED: Duration = Duration::from_secs(10);

/// An image by its name. Clones share.
#[derive(Clone, Debug)]
pub struct Image(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Option<PathBuf>,
    believed: Duration,
    last: Mutex<(String, Instant)>,
}

impl Image {
    /// The image that `file` names, whatever it names later; `given` where there is no file. An error when
    /// the file cannot be read or names nothing.
    pub fn new(given: String, file: Option<PathBuf>) -> Result<Self> {
        Self::believed_for(BELIEVED, given, file)
    }

    fn believed_for(believed: Duration, given: String, file: Option<PathBuf>) -> Result<Self> {
        let now = file.as_deref().map_or(Ok(given), read)?;
        Ok(Self(Arc::new(Inner { file, believed, last: Mutex::new((now, Instant::now())) })))
    }

    /// The image now: no older than ten seconds. What the file named last where it cannot be read any more,
    /// which is logged.
    pub fn now(&self) -> String {
        let Inner { file, believed, last } = &*self.0;
        let Some(file) = file else { return last.lock().0.clone() };
        let mut last = last.lock();
        if last.1.elapsed() >= *believed {
            match read(file) {
                Ok(image) if image != last.0 => {
                    tracing::info!(image, before = last.0, "the image of agents is another one");
                    last.0 = image;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        image = last.0,
                        "the image of agents stays as it was"
                    );
                }
            }
            last.1 = Instant::now();
        }
        last.0.clone()
    }
}

fn read(file: &Path) -> Result<String> {
    let what = || format!("reading the image of agents from {}", file.display());
    let text = std::fs::read_to_string(file).with_context(what)?;
    let image = text.trim();
    ensure!(!image.is_empty(), "{} is empty: it must name the image of agents", file.display());
    Ok(image.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_is_followed_and_one_that_goes_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        let image = |file: &Path| {
            Image::believed_for(Duration::ZERO, "given".into(), Some(file.to_owned()))
        };
        let error = format!("{:#}", image(&file).unwrap_err());
        assert!(error.contains("reading the image of agents from"), "{error}");
        std::fs::write(&file, " \n").unwrap();
        assert!(image(&file).unwrap_err().to_string().contains("is empty"));
        std::fs::write(&file, "agent:1\n").unwrap();
        let image = image(&file).unwrap();
        assert_eq!(image.now(), "agent:1");
        std::fs::write(&file, "agent:2").unwrap();
        assert_eq!(image.clone().now(), "agent:2");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(image.now(), "agent:2");
    }

    #[test]
    fn what_was_read_is_believed_for_a_while_and_what_was_given_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        std::fs::write(&file, "agent:1").unwrap();
        let image = Image::new("given".into(), Some(file.clone())).unwrap();
        std::fs::write(&file, "agent:2").unwrap();
        assert_eq!(image.now(), "agent:1");
        assert_eq!(Image::new("given".into(), None).unwrap().now(), "given");
    }
}
