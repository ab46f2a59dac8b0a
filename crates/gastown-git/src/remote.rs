//! Remotes: what they hold, taking from them, and moving their refs, always by compare-and-swap.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gastown_types::{CommitId, GitUrl, Scheme};
use tempfile::TempDir;

use crate::error::{Class, GitError, Refusal, tail};
use crate::known_hosts;
use crate::spawn::{Call, Git, failure};

/// Bytes that no log and no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes as they are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for whoever must use them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How we show a remote who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// The private key in this file. It is copied for each call, so its mode does not matter.
    SshKey {
        /// Where the key is.
        path: PathBuf,
    },
    /// This private key.
    SshKeyData {
        /// The key's text.
        key: Secret,
    },
    /// For http and https.
    Basic {
        /// The user; many forges take any name beside a token.
        username: String,
        /// The password or token.
        password: Secret,
    },
}

/// A repository somewhere else, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it is.
    pub url: GitUrl,
    /// Who we are there.
    pub credentials: Credentials,
    /// Host keys beside those of the public forges, as the text of a `known_hosts` file.
    pub known_hosts: String,
}

/// A ref of a remote that is to be moved, made or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefUpdate {
    /// The full ref, such as `refs/heads/main`.
    pub name: String,
    /// Where it must be now; `None`: it must not exist.
    pub expected: Option<CommitId>,
    /// Where it shall be; `None`: it shall not exist.
    pub new: Option<CommitId>,
}

/// What became of one [`RefUpdate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// It was moved (or would be, in a dry run).
    Done,
    /// It was so already.
    UpToDate,
    /// The remote has it elsewhere, or said no; the text is its own reason.
    Rejected(Refusal, String),
}

impl PushOutcome {
    /// Whether the ref now is as it was asked to be.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Done | Self::UpToDate)
    }
}

/// Files that one call needs: the key, known hosts, the credential store. Gone when dropped.
struct Access {
    dir: TempDir,
    ssh_command: Option<String>,
    helper: Option<String>,
}

/// A path in single quotes for `sh`.
fn quoted(path: &Path) -> Result<String, GitError> {
    let text = path.to_str().filter(|t| !t.contains(['\'', '\n', '\0']));
    text.map(|t| format!("'{t}'"))
        .ok_or_else(|| GitError::local("use a temporary folder", "its path cannot be quoted"))
}

/// A path that ssh's option parser takes as one plain word.
fn plain(path: &Path) -> Result<&str, GitError> {
    let ok = |t: &&str| t.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    path.to_str().filter(ok).ok_or_else(|| {
        GitError::local("use a temporary folder", "its path has characters that ssh would read")
    })
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), GitError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)
    };
    write().map_err(|e| GitError::local("write a credentials file", e))
}

fn percent(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(b"0123456789ABCDEF"[usize::from(n)]);
    let mut text = String::new();
    for b in bytes {
        if b.is_ascii_alphanumeric() || b"-._~".contains(b) {
            text.push(char::from(*b));
        } else {
            text.extend(['%', digit(b >> 4), digit(b & 15)]);
        }
    }
    text
}

impl Access {
    fn open(git: &Git, remote: &Remote) -> Result<Self, GitError> {
        let dir = tempfile::Builder::new().prefix("gastown-git-").tempdir();
        let dir = dir.map_err(|e| GitError::local("make a temporary folder", e))?;
        let mut access = Self { ssh_command: None, helper: None, dir };
        match remote.url.scheme() {
            Scheme::Ssh => access.ssh(git, remote)?,
            Scheme::Http | Scheme::Https => access.http(remote)?,
            Scheme::File => {}
        }
        Ok(access)
    }

    fn ssh(&mut self, git: &Git, remote: &Remote) -> Result<(), GitError> {
        let key = match &remote.credentials {
            Credentials::SshKey { path } => {
                let read = std::fs::read(path)
                    .map_err(|e| GitError::local(format!("read the key {}", path.display()), e))?;
                Some(Secret(read))
            }
            Credentials::SshKeyData { key } => Some(key.clone()),
            Credentials::None | Credentials::Basic { .. } => None,
        };
        let known = self.dir.path().join("known_hosts");
        write_private(&known, known_hosts::with(&remote.known_hosts).as_bytes())?;
        let mut options = String::new();
        if let Some(mut key) = key {
            if key.0.trim_ascii().is_empty() {
                return Err(GitError::new(Class::BadCredentials, "use the ssh key", "it is empty"));
            }
            // ssh refuses a key whose last line has no end, which Secrets made by hand often lack.
            key.0.retain(|b| *b != b'\r');
            if key.0.last() != Some(&b'\n') {
                key.0.push(b'\n');
            }
            let path = self.dir.path().join("key");
            write_private(&path, &key.0)?;
            options = format!(" -i {}", plain(&path)?);
        }
        self.ssh_command = Some(format!(
            "{}{options} -F /dev/null -oBatchMode=yes -oIdentitiesOnly=yes -oIdentityAgent=none -oStrictHostKeyChecking=yes \
             -oUserKnownHostsFile={} -oGlobalKnownHostsFile=/dev/null -oUpdateHostKeys=no -oCheckHostIP=no \
             -oPasswordAuthentication=no -oKbdInteractiveAuthentication=no -oPermitLocalCommand=no -oControlMaster=no \
             -oForwardAgent=no -oConnectTimeout=20 -oServerAliveInterval=15 -oServerAliveCountMax=4",
            quoted(git.ssh_program())?,
            plain(&known)?,
        ));
        Ok(())
    }

    fn http(&mut self, remote: &Remote) -> Result<(), GitError> {
        let Credentials::Basic { username, password } = &remote.credentials else { return Ok(()) };
        let broken = |b: &u8| *b == b'\n' || *b == b'\0' || *b == b'\r';
        let password = password.expose().trim_ascii_end();
        if password.is_empty()
            || password.iter().any(broken)
            || username.bytes().any(|b| broken(&b))
        {
            return Err(GitError::new(
                Class::BadCredentials,
                "use the password",
                "it is empty or has a line break",
            ));
        }
        let scheme = if remote.url.scheme() == Scheme::Https { "https" } else { "http" };
        let port = remote.url.port().map(|p| format!(":{p}")).unwrap_or_default();
        let line = format!(
            "{scheme}://{}:{}@{}{port}\n",
            percent(username.as_bytes()),
            percent(password),
            remote.url.host()
        );
        let path = self.dir.path().join("credentials");
        write_private(&path, line.as_bytes())?;
        self.helper = Some(format!("store --file={}", quoted(&path)?));
        Ok(())
    }

    fn apply(&self, call: Call, url: &GitUrl) -> Call {
        let mut call = call.allow(url);
        if let Some(command) = &self.ssh_command {
            call = call.env("GIT_SSH_COMMAND", command).env("GIT_SSH_VARIANT", "ssh");
        }
        if let Some(helper) = &self.helper {
            call = call.config("credential.helper", helper);
        }
        call
    }
}

impl Remote {
    /// A remote that needs no credentials.
    pub fn anonymous(url: GitUrl) -> Self {
        Self { url, credentials: Credentials::None, known_hosts: String::new() }
    }

    /// The refs among `names` (full refs) that the remote has; all of them when `names` is empty.
    pub async fn ls_remote(
        &self,
        git: &Git,
        names: &[String],
    ) -> Result<BTreeMap<String, CommitId>, GitError> {
        let access = Access::open(git, self)?;
        let mut args = vec![
            "ls-remote".to_owned(),
            "--refs".to_owned(),
            "--quiet".to_owned(),
            "--".to_owned(),
            self.url.to_string(),
        ];
        args.extend(names.iter().cloned());
        let call = git
            .call(args)
            .doing(format!("list the refs of {}", self.url))
            .deadline(Duration::from_secs(60));
        let out = access.apply(call, &self.url).output().await?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let rows = text.lines().filter_map(|line| line.split_once('\t'));
        let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
        Ok(rows
            .filter(|(_, name)| wanted(name))
            .filter_map(|(id, name)| Some((name.to_owned(), id.parse().ok()?)))
            .collect())
    }

    /// Takes what `refspecs` name into the bare repository `repo`. Tags are not followed, nothing
    /// is pruned.
    pub async fn fetch(&self, git: &Git, repo: &Path, refspecs: &[String]) -> Result<(), GitError> {
        let access = Access::open(git, self)?;
        let mut args: Vec<String> = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--refmap=",
        ]
        .map(str::to_owned)
        .to_vec();
        args.extend(["--".to_owned(), self.url.to_string()]);
        args.extend(refspecs.iter().cloned());
        let call = git.call(args).repo(repo).doing(format!("fetch from {}", self.url));
        access.apply(call, &self.url).output().await.map(drop)
    }

    /// Makes a bare repository at `path` and takes `refspecs` into it. A path that exists is
    /// refused by git only when it is no repository.
    pub async fn clone_bare(
        &self,
        git: &Git,
        path: &Path,
        refspecs: &[String],
    ) -> Result<(), GitError> {
        let probe: Vec<String> = refspecs
            .iter()
            .filter_map(|s| s.trim_start_matches('+').split(':').next())
            .map(str::to_owned)
            .collect();
        let refs = self.ls_remote(git, &probe).await?;
        let wide = refs.values().next().is_some_and(|id| id.as_str().len() == 64);
        init_bare(git, path, wide).await?;
        self.fetch(git, path, refspecs).await
    }

    /// Moves the remote's refs to commits that the bare repository `repo` holds; each only when it
    /// stands where `expected` says, all or none of them when there are several. One outcome for
    /// each update, in their order.
    pub async fn push(
        &self,
        git: &Git,
        repo: &Path,
        updates: &[RefUpdate],
    ) -> Result<Vec<PushOutcome>, GitError> {
        self.push_with(git, repo, updates, false).await
    }

    /// As [`Remote::push`], but nothing moves: whether the remote would take it, as far as it tells
    /// beforehand.
    pub async fn push_dry_run(
        &self,
        git: &Git,
        repo: &Path,
        updates: &[RefUpdate],
    ) -> Result<Vec<PushOutcome>, GitError> {
        self.push_with(git, repo, updates, true).await
    }

    async fn push_with(
        &self,
        git: &Git,
        repo: &Path,
        updates: &[RefUpdate],
        dry: bool,
    ) -> Result<Vec<PushOutcome>, GitError> {
        if updates.is_empty() {
            return Ok(Vec::new());
        }
        let access = Access::open(git, self)?;
        let mut args: Vec<String> =
            ["push", "--porcelain", "--no-verify", "--no-follow-tags", "--no-signed"]
                .map(str::to_owned)
                .to_vec();
        if dry {
            args.push("--dry-run".to_owned());
        }
        if updates.len() > 1 {
            args.push("--atomic".to_owned());
        }
        for u in updates {
            args.push(format!(
                "--force-with-lease={}:{}",
                u.name,
                u.expected.as_ref().map_or("", CommitId::as_str)
            ));
        }
        args.extend(["--".to_owned(), self.url.to_string()]);
        for u in updates {
            args.push(format!("{}:{}", u.new.as_ref().map_or("", CommitId::as_str), u.name));
        }
        let what = format!("push to {}", self.url);
        let call = git.call(args).repo(repo).doing(&what).any_exit();
        let out = access.apply(call, &self.url).output().await?;
        let rows = porcelain(&String::from_utf8_lossy(&out.stdout));
        let stderr = String::from_utf8_lossy(&out.stderr);
        let gone = stderr.contains("remote ref does not exist");
        let mut outcomes = Vec::new();
        for u in updates {
            match rows.get(&u.name) {
                Some((flag, summary)) => outcomes.push(outcome(*flag, summary, &out.stderr)),
                None if gone && u.new.is_none() => outcomes.push(PushOutcome::UpToDate),
                None => return Err(failure(&what, &out)),
            }
        }
        // git compares the lease first, so a push repeated after a lost answer looks stale: ask
        // where the ref is.
        let stale = |o: &PushOutcome| matches!(o, PushOutcome::Rejected(Refusal::Stale, _));
        if outcomes.iter().any(stale) {
            let names: Vec<String> = updates.iter().map(|u| u.name.clone()).collect();
            let now = self.ls_remote(git, &names).await?;
            for (u, o) in updates.iter().zip(&mut outcomes) {
                if stale(o) && now.get(&u.name) == u.new.as_ref() {
                    *o = PushOutcome::UpToDate;
                }
            }
        }
        Ok(outcomes)
    }
}

/// The status lines of `git push --porcelain`: ref → (flag, summary).
fn porcelain(text: &str) -> BTreeMap<String, (char, String)> {
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, '\t');
        let (Some(flag), Some(refs), Some(summary)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (Some(flag), Some((_, to))) = (flag.chars().next(), refs.rsplit_once(':')) else {
            continue;
        };
        rows.insert(to.to_owned(), (flag, summary.to_owned()));
    }
    rows
}

fn outcome(flag: char, summary: &str, stderr: &[u8]) -> PushOutcome {
    match flag {
        '=' => PushOutcome::UpToDate,
        '!' => {
            let s = summary.to_ascii_lowercase();
            let has = |words: &[&str]| words.iter().any(|w| s.contains(w));
            let why = if has(&["protected", "deletion prohibited", "gh006", "gh013"]) {
                Refusal::Protected
            } else if has(&["hook declined"]) {
                // Forges refuse a push to a protected branch by a hook, and say so in the text
                // beside it.
                let said = String::from_utf8_lossy(stderr).to_ascii_lowercase();
                if said.contains("protected branch") { Refusal::Protected } else { Refusal::Hook }
            } else if has(&[
                "stale info",
                "fetch first",
                "non-fast-forward",
                "cannot lock ref",
                "failed to update ref",
            ]) || has(&[
                "already exists",
                "incorrect old value",
                "failed to lock",
                "remote ref updated",
            ]) {
                Refusal::Stale
            } else {
                Refusal::Other
            };
            let said = tail(stderr, 300);
            PushOutcome::Rejected(
                why,
                if said.is_empty() { summary.to_owned() } else { format!("{summary}: {said}") },
            )
        }
        _ => PushOutcome::Done,
    }
}

/// Makes an empty bare repository; `sha256` chooses its object format. Making it again changes
/// nothing.
pub async fn init_bare(git: &Git, path: &Path, sha256: bool) -> Result<(), GitError> {
    std::fs::create_dir_all(path)
        .map_err(|e| GitError::local(format!("make {}", path.display()), e))?;
    let format = if sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
    let args = ["init", "--bare", "--quiet", "--template=", format, "--initial-branch=none"];
    git.call(args)
        .repo(path)
        .doing(format!("make the repository {}", path.display()))
        .output()
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str, credentials: Credentials) -> Remote {
        Remote { url: url.parse().unwrap(), credentials, known_hosts: String::new() }
    }

    #[test]
    fn a_key_is_a_private_copy_that_ends_with_a_line_break() {
        use std::os::unix::fs::PermissionsExt as _;
        let r = remote("git@h:r", Credentials::SshKeyData { key: Secret::new("KEY\r\nEND") });
        let access = Access::open(&Git::from_env(), &r).unwrap();
        let key = access.dir.path().join("key");
        assert_eq!(std::fs::read(&key).unwrap(), b"KEY\nEND\n");
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let command = access.ssh_command.unwrap();
        assert!(
            command.contains("-oStrictHostKeyChecking=yes") && command.contains("-oBatchMode=yes"),
            "{command}"
        );
    }

    #[test]
    fn an_empty_key_or_a_password_of_two_lines_is_refused() {
        let r = remote("git@h:r", Credentials::SshKeyData { key: Secret::new(" \n") });
        assert_eq!(Access::open(&Git::from_env(), &r).err().unwrap().class, Class::BadCredentials);
        let r = remote(
            "https://h/r",
            Credentials::Basic { username: "u".into(), password: Secret::new("a\nhost=evil") },
        );
        assert_eq!(Access::open(&Git::from_env(), &r).err().unwrap().class, Class::BadCredentials);
    }

    #[test]
    fn a_password_stands_percent_encoded_in_a_file_and_nowhere_else() {
        let r = remote(
            "https://h:8443/r",
            Credentials::Basic { username: "u@x".into(), password: Secret::new("p:/@%\n") },
        );
        let access = Access::open(&Git::from_env(), &r).unwrap();
        let text = std::fs::read_to_string(access.dir.path().join("credentials")).unwrap();
        assert_eq!(text, "https://u%40x:p%3A%2F%40%25@h:8443\n");
        assert!(!access.helper.unwrap().contains("p%3A"));
        assert!(!format!("{r:?}").contains("p:/@"));
    }

    #[test]
    fn porcelain_lines_are_read_by_flag_and_not_by_prose() {
        let rows = porcelain(
            "To file:///x\n \tabc:refs/heads/a\tabc..def\n!\t(delete):refs/heads/b\t[rejected] (stale info)\nDone\n",
        );
        assert_eq!(rows["refs/heads/a"].0, ' ');
        assert_eq!(
            outcome('!', &rows["refs/heads/b"].1, b""),
            PushOutcome::Rejected(Refusal::Stale, "[rejected] (stale info)".into())
        );
        let hook = outcome(
            '!',
            "[remote rejected] (pre-receive hook declined)",
            b"remote: GL-HOOK-ERR: no",
        );
        assert!(matches!(hook, PushOutcome::Rejected(Refusal::Hook, _)));
        let protected = outcome('!', "[remote rejected] (protected branch hook declined)", b"");
        assert!(matches!(protected, PushOutcome::Rejected(Refusal::Protected, _)));
    }
}
