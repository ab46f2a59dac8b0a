//! What the processes of one life log, to be shown when the life is not as it has to be.

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;

/// The newest part of a log that is shown.
const SHOWN: usize = 16 << 10;

/// A log. Clones are the same one.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// A subscriber that writes here.
    pub(crate) fn dispatch(&self) -> Dispatch {
        let log = self.clone();
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        Dispatch::new(subscriber)
    }

    /// Adds a line.
    pub(crate) fn line(&self, line: &str) {
        let mut log = self.0.lock();
        log.extend_from_slice(line.as_bytes());
        log.push(b'\n');
    }

    /// Its newest lines.
    pub(crate) fn end(&self) -> String {
        let log = self.0.lock();
        let shown = log.len().saturating_sub(SHOWN);
        String::from_utf8_lossy(&log[shown..]).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
