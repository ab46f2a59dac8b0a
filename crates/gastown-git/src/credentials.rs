//! Credentials for a remote, and the private files in which git and ssh read them.

use std::fmt;
use std::path::Path;

use gastown_types::{GitUrl, Scheme};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use tempfile::TempDir;

use crate::authorities::Trust;
use crate::error::{Class, GitError};
use crate::known_hosts;
use crate::spawn::{Call, Git};

/// What is percent-encoded in the user and the password of a URL: all but RFC 3986's unreserved
/// characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Bytes that no log and no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How we authenticate to a remote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Without credentials.
    #[default]
    None,
    /// For ssh: a private key.
    SshKeyData {
        /// The key's text.
        key: Secret,
    },
    /// For http and https: a user and a password.
    Basic {
        /// The user; many forges take any name beside a token.
        username: String,
        /// The password or token.
        password: Secret,
    },
    /// For http and https: a token in the header `Authorization`.
    Bearer {
        /// The token.
        token: Secret,
    },
}

/// The files that one run of git needs: the key, known hosts, the credential store. Deleted when
/// dropped.
pub(crate) struct CredentialFiles {
    dir: TempDir,
    ssh_command: Option<String>,
    helper: Option<String>,
    header: Option<String>,
    authorities: Option<String>,
}

impl CredentialFiles {
    /// Writes the files for the remote at `url`; `hosts` is the text of a `known_hosts` file, and
    /// `trust` is whose certificates are accepted.
    pub(crate) fn write(
        git: &Git,
        url: &GitUrl,
        credentials: &Credentials,
        hosts: &str,
        trust: &Trust,
    ) -> Result<Self, GitError> {
        let keys = git.keys();
        let dir = tempfile::Builder::new().prefix("gastown-git-").tempdir_in(&keys);
        let dir = dir.map_err(|e| {
            GitError::local("make a folder for credentials", format!("{}: {e}", keys.display()))
        })?;
        let mut files =
            Self { ssh_command: None, helper: None, header: None, authorities: None, dir };
        match url.scheme() {
            Scheme::Ssh => files.write_ssh(git, credentials, hosts)?,
            Scheme::Http | Scheme::Https => {
                files.write_http(url, credentials)?;
                files.write_authorities(trust)?;
            }
            Scheme::File => {}
        }
        Ok(files)
    }

    /// `call` with these credentials, and with the transport of `url` allowed.
    pub(crate) fn apply(&self, call: Call, url: &GitUrl) -> Call {
        let mut call = call.allow(url);
        if let Some(command) = &self.ssh_command {
            call = call.env("GIT_SSH_COMMAND", command).env("GIT_SSH_VARIANT", "ssh");
        }
        if let Some(helper) = &self.helper {
            call = call.config("credential.helper", helper);
        }
        if let Some(header) = &self.header {
            // The environment, through which configuration goes, is as private as a file.
            call = call.config(format!("http.{url}.extraHeader"), header);
        }
        if let Some(file) = &self.authorities {
            call = call.config("http.sslCAInfo", file).config("http.proxySSLCAInfo", file);
        }
        call
    }

    fn write_ssh(
        &mut self,
        git: &Git,
        credentials: &Credentials,
        hosts: &str,
    ) -> Result<(), GitError> {
        let known = self.dir.path().join("known_hosts");
        write_private(&known, known_hosts::with(hosts).as_bytes())?;
        let mut options = String::new();
        if let Credentials::SshKeyData { key } = credentials {
            let mut key = key.expose().to_vec();
            if key.trim_ascii().is_empty() {
                return Err(GitError::new(Class::BadCredentials, "use the ssh key", "it is empty"));
            }
            // ssh refuses a key whose last line has no line break, which is often missing in Secrets
            // made by hand.
            key.retain(|b| *b != b'\r');
            if key.last() != Some(&b'\n') {
                key.push(b'\n');
            }
            let path = self.dir.path().join("key");
            write_private(&path, &key)?;
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

    fn write_authorities(&mut self, trust: &Trust) -> Result<(), GitError> {
        if let Some(pem) = trust.file()? {
            let path = self.dir.path().join("authorities");
            write_private(&path, pem.as_bytes())?;
            self.authorities = Some(path.display().to_string());
        }
        Ok(())
    }

    fn write_http(&mut self, url: &GitUrl, credentials: &Credentials) -> Result<(), GitError> {
        if let Credentials::Bearer { token } = credentials {
            let token = String::from_utf8_lossy(token.expose().trim_ascii()).into_owned();
            if token.is_empty() || token.contains(char::is_control) {
                return Err(GitError::new(
                    Class::BadCredentials,
                    "use the token",
                    "it is empty or has a control character",
                ));
            }
            self.header = Some(format!("Authorization: Bearer {token}"));
            return Ok(());
        }
        let Credentials::Basic { username, password } = credentials else { return Ok(()) };
        let breaks = |b: &u8| *b == b'\n' || *b == b'\0' || *b == b'\r';
        let password = password.expose().trim_ascii_end();
        if password.is_empty()
            || password.iter().any(breaks)
            || username.bytes().any(|b| breaks(&b))
        {
            return Err(GitError::new(
                Class::BadCredentials,
                "use the password",
                "it is empty or has a line break",
            ));
        }
        let scheme = if url.scheme() == Scheme::Https { "https" } else { "http" };
        let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
        let line = format!(
            "{scheme}://{}:{}@{}{port}\n",
            percent_encode(username.as_bytes(), ENCODED),
            percent_encode(password, ENCODED),
            url.host()
        );
        let path = self.dir.path().join("credentials");
        write_private(&path, line.as_bytes())?;
        self.helper = Some(format!("store --file={}", quoted(&path)?));
        Ok(())
    }
}

/// A path in single quotes for `sh`.
fn quoted(path: &Path) -> Result<String, GitError> {
    let text = path.to_str().filter(|t| !t.contains(['\'', '\n', '\0']));
    text.map(|t| format!("'{t}'"))
        .ok_or_else(|| GitError::local("use a temporary folder", "its path cannot be quoted"))
}

/// A path without characters that ssh's option parser interprets.
fn plain(path: &Path) -> Result<&str, GitError> {
    let ok = |t: &&str| t.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    path.to_str().filter(ok).ok_or_else(|| {
        GitError::local(
            "use a temporary folder",
            "its path has characters that ssh would interpret",
        )
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

#[cfg(test)]
mod tests {
    use super::*;

    fn write(url: &str, credentials: &Credentials) -> Result<CredentialFiles, GitError> {
        let url = url.parse().unwrap();
        CredentialFiles::write(&Git::from_env(), &url, credentials, "", &Trust::System)
    }

    #[test]
    fn a_key_is_a_private_copy_that_ends_with_a_line_break() {
        use std::os::unix::fs::PermissionsExt as _;
        let key = Credentials::SshKeyData { key: Secret::new("KEY\r\nEND") };
        let files = write("git@h:r", &key).unwrap();
        let key = files.dir.path().join("key");
        assert_eq!(std::fs::read(&key).unwrap(), b"KEY\nEND\n");
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let command = files.ssh_command.unwrap();
        assert!(
            command.contains("-oStrictHostKeyChecking=yes") && command.contains("-oBatchMode=yes"),
            "{command}"
        );
    }

    #[test]
    fn every_copy_is_in_the_folder_for_keys_and_goes_with_its_use() {
        let (keys, url) = (tempfile::tempdir().unwrap(), "git@h:r".parse().unwrap());
        let git = Git::from_env().with_keys(keys.path());
        let key = Credentials::SshKeyData { key: Secret::new("KEY") };
        let files = CredentialFiles::write(&git, &url, &key, "", &Trust::System).unwrap();
        assert_eq!(files.dir.path().parent(), Some(keys.path()));
        drop(files);
        assert_eq!(std::fs::read_dir(keys.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_its_folder_no_copy_is_written_anywhere() {
        let (keys, url) = (tempfile::tempdir().unwrap(), "git@h:r".parse().unwrap());
        let git = Git::from_env().with_keys(keys.path().join("none"));
        let key = Credentials::SshKeyData { key: Secret::new("KEY") };
        let error = CredentialFiles::write(&git, &url, &key, "", &Trust::System).err().unwrap();
        assert!(error.to_string().contains("none"), "{error}");
    }

    #[test]
    fn an_empty_key_or_a_password_of_two_lines_is_refused() {
        let class = |url, credentials| write(url, &credentials).err().unwrap().class;
        let key = Credentials::SshKeyData { key: Secret::new(" \n") };
        assert_eq!(class("git@h:r", key), Class::BadCredentials);
        let basic =
            Credentials::Basic { username: "u".into(), password: Secret::new("a\nhost=evil") };
        assert_eq!(class("https://h/r", basic), Class::BadCredentials);
    }

    #[test]
    fn a_password_is_percent_encoded_in_a_file_and_nowhere_else() {
        let basic = Credentials::Basic { username: "u@x".into(), password: Secret::new("p:/@%\n") };
        let files = write("https://h:8443/r", &basic).unwrap();
        let text = std::fs::read_to_string(files.dir.path().join("credentials")).unwrap();
        assert_eq!(text, "https://u%40x:p%3A%2F%40%25@h:8443\n");
        assert!(!files.helper.unwrap().contains("p%3A"));
        assert!(!format!("{basic:?}").contains("p:/@"));
    }
}
