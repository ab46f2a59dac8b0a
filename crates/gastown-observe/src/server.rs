//! A server as a process of its own, which ends with this one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gastown_cluster::control_plane::mortal;
use gastown_cluster::http_client;
use http::Method;
use tempfile::TempDir;

/// How long it may take until it answers.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// How often it is asked.
const INTERVAL: Duration = Duration::from_millis(100);

/// A running server; dropping it kills it and removes its folder.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    folder: TempDir,
}

impl Server {
    /// Starts a program with a configuration file of this text, and returns when the page at `url` is
    /// served. `flags` gets the configuration's path and the path of the server's folder.
    pub(crate) async fn start(
        name: &'static str,
        program: &Path,
        configuration: &str,
        flags: impl FnOnce(&Path, &Path) -> Vec<String>,
        url: &str,
    ) -> Result<Self> {
        let folder = TempDir::new().context("a folder for a server")?;
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, configuration).context("writing a configuration")?;
        let log = File::create(log_of(folder.path())).context("making a log")?;
        let mut command = mortal::command(program);
        command.args(flags(&file, folder.path())).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Self { name, child: mortal::spawn(command)?, folder };
        server.ready(url).await?;
        Ok(server)
    }

    async fn ready(&mut self, url: &str) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while http_client::send(Method::GET, url, Vec::new()).await.is_err() {
            let ended = self.child.try_wait()?.map(|status| format!("ended with {status}"));
            let late = Instant::now() > deadline;
            let late = late.then(|| format!("did not answer within {READY_LIMIT:?}"));
            if let Some(why) = ended.or(late) {
                let log = std::fs::read_to_string(log_of(self.folder.path())).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(15).collect();
                let last: Vec<&str> = lines.into_iter().rev().collect();
                bail!("{} {why}:\n{}", self.name, last.join("\n"));
            }
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(())
    }
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("log")
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
