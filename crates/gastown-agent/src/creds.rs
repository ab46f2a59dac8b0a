//! The git credentials and host keys that the pod was given, read again for each use: a Secret may
//! be rotated.

use std::path::Path;

use gastown_core::report::InitResult;
use gastown_git::{Credentials, Remote, Secret};
use gastown_types::Scheme;

use crate::paths::Paths;
use crate::settings::Carry;

/// Keys of the Secret that may hold a private ssh key, in the order of preference.
pub const SSH_KEYS: [&str; 4] = ["ssh-privatekey", "id_ed25519", "id_rsa", "identity"];
/// Keys that may hold an http password.
const PASSWORD_KEYS: [&str; 2] = ["password", "token"];

/// What lacks, typed, with a sentence that names the Secret or ConfigMap and the key.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Lacking {
    /// As which record's result it is told.
    pub result: InitResult,
    /// The sentence.
    pub message: String,
}

fn read(dir: &Path, key: &str) -> Option<Vec<u8>> {
    std::fs::read(dir.join(key)).ok().filter(|b| !b.trim_ascii().is_empty())
}

fn secret_lacks(settings: &Carry, dir: &Path, keys: &str) -> Lacking {
    let message = match &settings.secret {
        None => format!(
            "{} needs credentials, and spec.kubernetes.gitSecretRef names no secret (it would hold {keys})",
            settings.url
        ),
        Some(name) if dir_is_empty(dir) => {
            format!("secret {name} not found (it should hold {keys})")
        }
        Some(name) => format!("secret {name} has no key {keys}"),
    };
    Lacking { result: InitResult::SecretNotFound, message }
}

/// An optional Secret that does not exist is mounted as an empty folder.
fn dir_is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut d| d.next().is_none())
}

fn credentials(settings: &Carry, dir: &Path) -> Result<Credentials, Lacking> {
    match settings.url.scheme() {
        Scheme::File => Ok(Credentials::None),
        Scheme::Ssh => match SSH_KEYS.iter().find_map(|k| read(dir, k)) {
            Some(key) => Ok(Credentials::SshKeyData { key: Secret::new(key) }),
            None => Err(secret_lacks(settings, dir, "ssh-privatekey")),
        },
        Scheme::Http | Scheme::Https => match PASSWORD_KEYS.iter().find_map(|k| read(dir, k)) {
            Some(password) => {
                let user = read(dir, "username").and_then(|u| String::from_utf8(u).ok());
                let username = user.map_or_else(|| "git".to_owned(), |u| u.trim().to_owned());
                Ok(Credentials::Basic { username, password: Secret::new(password) })
            }
            // Nobody named a Secret: the repository is open to all.
            None if settings.secret.is_none() => Ok(Credentials::None),
            None => Err(secret_lacks(settings, dir, "password or token")),
        },
    }
}

fn known_hosts(settings: &Carry, paths: &Paths) -> Result<String, Lacking> {
    let mut text = String::new();
    let mut add = |bytes: Option<Vec<u8>>| {
        if let Some(bytes) = bytes {
            text.push_str(&String::from_utf8_lossy(&bytes));
            text.push('\n');
        }
    };
    let dir = paths.known_hosts_dir();
    let named = settings.known_hosts.as_ref().filter(|_| settings.url.scheme() == Scheme::Ssh);
    if let Some(name) = named.filter(|_| read(&dir, "known_hosts").is_none()) {
        let message = if dir_is_empty(&dir) {
            format!("configmap {name} not found (it should hold known_hosts)")
        } else {
            format!("configmap {name} has no key known_hosts")
        };
        return Err(Lacking { result: InitResult::ConfigMapNotFound, message });
    }
    add(read(&dir, "known_hosts"));
    add(read(&paths.git_creds(), "known_hosts"));
    Ok(text)
}

/// The remote with what the pod holds at this moment.
pub fn remote(settings: &Carry, paths: &Paths) -> Result<Remote, Lacking> {
    let credentials = credentials(settings, &paths.git_creds())?;
    Ok(Remote {
        url: settings.url.clone(),
        credentials,
        known_hosts: known_hosts(settings, paths)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn settings(url: &str, secret: Option<&str>) -> Carry {
        Carry {
            url: url.parse().unwrap(),
            target: "main".parse().unwrap(),
            work: "polecat/a".parse().unwrap(),
            resume: false,
            wip_ref: "refs/gastown/wip/ns/a/1".into(),
            secret: secret.map(str::to_owned),
            known_hosts: None,
            copy_agent: false,
            snapshot_every: Duration::from_secs(300),
            refresh_every: Duration::from_secs(60),
            grace: Duration::from_secs(1),
            who: crate::sync::witness::Who::default(),
            witness: None,
        }
    }

    fn pod() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("git-creds")).unwrap();
        std::fs::create_dir_all(dir.path().join("ssh-known-hosts")).unwrap();
        let paths = Paths::under(dir.path(), &dir.path().join("log"));
        (dir, paths)
    }

    #[test]
    fn what_lacks_is_told_by_name() {
        let (dir, paths) = pod();
        let lacks = |s: &Carry| remote(s, &paths).unwrap_err();
        let ssh = settings("git@h:r", Some("git-creds"));
        assert_eq!(
            lacks(&ssh).message,
            "secret git-creds not found (it should hold ssh-privatekey)"
        );
        std::fs::write(dir.path().join("git-creds/other"), "x").unwrap();
        let e = lacks(&ssh);
        assert_eq!(
            (e.result, e.message.as_str()),
            (InitResult::SecretNotFound, "secret git-creds has no key ssh-privatekey")
        );
        assert!(lacks(&settings("git@h:r", None)).message.contains("gitSecretRef"));
        assert!(
            lacks(&settings("https://h/r", Some("s")))
                .message
                .contains("secret s has no key password or token")
        );
        std::fs::write(dir.path().join("git-creds/id_rsa"), "KEY").unwrap();
        let mut hosts = ssh.clone();
        hosts.known_hosts = Some("hosts".into());
        let e = lacks(&hosts);
        assert_eq!(
            (e.result, e.message.contains("configmap hosts not found")),
            (InitResult::ConfigMapNotFound, true)
        );
    }

    #[test]
    fn every_spelling_of_a_secret_is_taken() {
        for key in SSH_KEYS {
            let (dir, paths) = pod();
            std::fs::write(dir.path().join("git-creds").join(key), "KEY").unwrap();
            std::fs::write(dir.path().join("git-creds/known_hosts"), "h ssh-ed25519 A").unwrap();
            let r = remote(&settings("git@h:r", Some("s")), &paths).unwrap();
            assert_eq!(r.credentials, Credentials::SshKeyData { key: Secret::new("KEY") });
            assert!(r.known_hosts.contains("h ssh-ed25519 A"));
        }
        let (dir, paths) = pod();
        assert_eq!(
            remote(&settings("http://h/r", None), &paths).unwrap().credentials,
            Credentials::None
        );
        std::fs::write(dir.path().join("git-creds/token"), "t").unwrap();
        let r = remote(&settings("http://h/r", Some("s")), &paths).unwrap();
        assert_eq!(
            r.credentials,
            Credentials::Basic { username: "git".into(), password: Secret::new("t") }
        );
    }
}
