//! A real sshd on a loopback port that serves bare repositories, with keys of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// The server. It ends when this is dropped.
pub struct Sshd {
    dir: TempDir,
    port: u16,
    user: String,
    program: PathBuf,
    child: Option<Child>,
}

fn sh(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let out = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    if !out.status.success() {
        bail!("{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8(out.stdout)?.trim().to_owned())
}

fn keygen(at: &Path) -> anyhow::Result<()> {
    let path = at.display().to_string();
    sh("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", &path]).map(drop)
}

impl Sshd {
    /// Starts a server. The key's holder may do what `git-shell` allows.
    pub fn start() -> anyhow::Result<Self> {
        let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"]
            .map(PathBuf::from)
            .into_iter()
            .find(|p| p.is_file());
        let program = program.context("no sshd here: apt-get install openssh-server")?;
        let dir = tempfile::Builder::new().prefix("gt-sshd-").tempdir()?;
        for key in ["host", "other-host", "user", "stranger"] {
            keygen(&dir.path().join(key))?;
        }
        let shell = sh("sh", &["-c", "command -v git-shell"]).context("no git-shell here")?;
        let public = fs::read_to_string(dir.path().join("user.pub"))?;
        let forced =
            format!("restrict,command=\"{shell} -c \\\"$SSH_ORIGINAL_COMMAND\\\"\" {public}");
        fs::write(dir.path().join("authorized_keys"), forced)?;
        let user = sh("id", &["-un"])?;
        if user == "root" {
            // Where sshd as root puts the process that reads from the network.
            fs::create_dir_all("/run/sshd")?;
            fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Self { dir, port, user, program, child: None };
        server.resume()?;
        Ok(server)
    }

    fn config(&self) -> String {
        let at = self.dir.path().display();
        format!(
            "ListenAddress 127.0.0.1:{}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized_keys\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 100\nUseDNS no\n",
            self.port
        )
    }

    /// Starts it again, on the same port and with the same keys, after [`Sshd::stop`].
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let config = self.dir.path().join("sshd_config");
        fs::write(&config, self.config())?;
        let log = fs::File::create(self.dir.path().join("sshd.log"))?;
        let child = Command::new(&self.program)
            .arg("-D")
            .arg("-e")
            .arg("-f")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if Instant::now() > deadline
                || self.child.as_mut().is_some_and(|c| !matches!(c.try_wait(), Ok(None)))
            {
                bail!("sshd does not listen: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Stops it: connections are refused from now on.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("sshd.log")).unwrap_or_default()
    }

    /// The URL of the repository at this absolute path.
    pub fn url(&self, repository: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", self.user, self.port, repository.display())
    }

    fn read(&self, name: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.dir.path().join(name))?)
    }

    /// The private key that is accepted.
    pub fn user_key(&self) -> anyhow::Result<String> {
        self.read("user")
    }

    /// A private key that is refused.
    pub fn stranger_key(&self) -> anyhow::Result<String> {
        self.read("stranger")
    }

    fn line(&self, key: &str) -> anyhow::Result<String> {
        Ok(format!("[127.0.0.1]:{} {}", self.port, self.read(key)?))
    }

    /// Its `known_hosts` line.
    pub fn known_hosts(&self) -> anyhow::Result<String> {
        self.line("host.pub")
    }

    /// A `known_hosts` line with another key for its name.
    pub fn wrong_known_hosts(&self) -> anyhow::Result<String> {
        self.line("other-host.pub")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}
