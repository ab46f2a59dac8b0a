//! The git credentials and host keys that the pod was given, read again for each use: a Secret may
//! be rotated.

use std::path::Path;

use gastown_core::report::InitResult;
use gastown_git::secret_keys::{self, MissingKey, non_blank};
use gastown_git::{Credentials, Remote, Trust};
use gastown_types::Scheme;

use crate::paths::Paths;
use crate::settings::SyncSettings;

/// A Secret, a ConfigMap or one of their keys is missing; the message names it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Missing {
    /// How `gt init` ends because of it.
    pub result: InitResult,
    /// One sentence with the name and the key.
    pub message: String,
}

/// The file with certificates of further authorities, in either folder.
const CA: &str = "ca.crt";

/// The value of a key, which is a file of the mounted folder `dir`.
fn read(dir: &Path, key: &str) -> Option<Vec<u8>> {
    std::fs::read(dir.join(key)).ok().and_then(non_blank)
}

fn missing_in_secret(settings: &SyncSettings, dir: &Path, keys: &str) -> Missing {
    let message = match &settings.secret {
        None => format!(
            "{} needs credentials, but spec.kubernetes.gitSecretRef names no secret; name one with key {keys}",
            settings.url
        ),
        Some(name) if dir_is_empty(dir) => {
            format!("secret {name} not found (it should hold {keys})")
        }
        Some(name) => format!("secret {name} has no key {keys}"),
    };
    Missing { result: InitResult::SecretNotFound, message }
}

/// An optional Secret that does not exist is mounted as an empty folder.
fn dir_is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut d| d.next().is_none())
}

fn credentials(settings: &SyncSettings, dir: &Path) -> Result<Credentials, Missing> {
    let scheme = settings.url.scheme();
    match secret_keys::credentials(scheme, |key| read(dir, key)) {
        Ok(found) => Ok(found),
        // No Secret is named: an http repository may be open to everybody.
        Err(_) if settings.secret.is_none() && scheme != Scheme::Ssh => Ok(Credentials::None),
        Err(MissingKey(keys)) => Err(missing_in_secret(settings, dir, keys)),
    }
}

fn known_hosts(settings: &SyncSettings, paths: &Paths) -> Result<String, Missing> {
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
        return Err(Missing { result: InitResult::ConfigMapNotFound, message });
    }
    add(read(&dir, "known_hosts"));
    add(read(&paths.git_creds(), "known_hosts"));
    Ok(text)
}

/// Whose certificates are accepted: those of the image, and of the authorities that the Secret or
/// the ConfigMap name.
fn trust(settings: &SyncSettings, paths: &Paths) -> Result<Trust, Missing> {
    let dir = paths.git_ca_dir();
    let from_map = read(&dir, CA);
    let named = settings.ca.as_ref().filter(|_| settings.url.scheme() == Scheme::Https);
    if let Some(name) = named.filter(|_| from_map.is_none()) {
        let message = format!(
            "configmap {name} not found, or without the key of spec.kubernetes.caConfigMapRef"
        );
        return Err(Missing { result: InitResult::ConfigMapNotFound, message });
    }
    let found = [from_map, read(&paths.git_creds(), CA)];
    let texts = found.iter().flatten().map(|pem| String::from_utf8_lossy(pem).into_owned());
    let pem = texts.collect::<Vec<_>>().join("\n");
    Ok(if pem.is_empty() { Trust::System } else { Trust::With(pem) })
}

/// The remote, with the credentials, host keys and authorities that the pod holds at this moment.
pub fn remote(settings: &SyncSettings, paths: &Paths) -> Result<Remote, Missing> {
    let credentials = credentials(settings, &paths.git_creds())?;
    Ok(Remote {
        url: settings.url.clone(),
        credentials,
        known_hosts: known_hosts(settings, paths)?,
        trust: trust(settings, paths)?,
        depth: None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gastown_git::Secret;
    use gastown_git::secret_keys::SSH_KEYS;

    use super::*;

    fn settings(url: &str, secret: Option<&str>) -> SyncSettings {
        SyncSettings {
            url: url.parse().unwrap(),
            target: "main".parse().unwrap(),
            work: "polecat/a".parse().unwrap(),
            resume: false,
            wip_ref: "refs/gastown/wip/ns/a/1".into(),
            wip_folder: "refs/gastown/wip/ns/a".into(),
            restore: false,
            pod_uid: None,
            deadline: None,
            secret: secret.map(str::to_owned),
            known_hosts: None,
            ca: None,
            copy_agent: false,
            snapshot_every: Duration::from_mins(5),
            refresh_every: Duration::from_mins(1),
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
    fn what_is_missing_is_named() {
        let (dir, paths) = pod();
        let missing = |s: &SyncSettings| remote(s, &paths).unwrap_err();
        let ssh = settings("git@h:r", Some("git-creds"));
        assert_eq!(
            missing(&ssh).message,
            "secret git-creds not found (it should hold ssh-privatekey)"
        );
        std::fs::write(dir.path().join("git-creds/other"), "x").unwrap();
        let e = missing(&ssh);
        assert_eq!(
            (e.result, e.message.as_str()),
            (InitResult::SecretNotFound, "secret git-creds has no key ssh-privatekey")
        );
        assert!(missing(&settings("git@h:r", None)).message.contains("gitSecretRef"));
        assert!(
            missing(&settings("https://h/r", Some("s")))
                .message
                .contains("secret s has no key password or token")
        );
        std::fs::write(dir.path().join("git-creds/id_rsa"), "KEY").unwrap();
        let mut hosts = ssh.clone();
        hosts.known_hosts = Some("hosts".into());
        let e = missing(&hosts);
        assert_eq!(
            (e.result, e.message.contains("configmap hosts not found")),
            (InitResult::ConfigMapNotFound, true)
        );
    }

    #[test]
    fn every_ssh_key_of_a_secret_is_accepted() {
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

    #[test]
    fn the_key_order_is_the_controllers_and_a_blank_file_counts_as_missing() {
        let (dir, paths) = pod();
        let put = |key: &str, text: &str| {
            std::fs::write(dir.path().join("git-creds").join(key), text).unwrap();
        };
        put("ssh-privatekey", " \n");
        put("id_ed25519", "ED25519");
        put("id_rsa", "RSA");
        let r = remote(&settings("git@h:r", Some("s")), &paths).unwrap();
        assert_eq!(r.credentials, Credentials::SshKeyData { key: Secret::new("RSA") });
        put("password", "\n");
        let e = remote(&settings("https://h/r", Some("s")), &paths).unwrap_err();
        assert_eq!(e.message, "secret s has no key password or token");
    }
}
