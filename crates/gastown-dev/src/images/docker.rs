//! Credentials for registries, as docker keeps them in its `config.json`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::Value;

/// User and password for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password, or a token in its place.
    pub password: String,
}

/// Without the password.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The value of an Authorization header.
    pub fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(format!("{}:{}", self.user, self.password)))
    }
}

/// The credentials for a host, from `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
pub fn credentials(host: &str) -> Result<Option<Credentials>> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| std::env::home_dir().map(|home| home.join(".docker")));
    let Some(path) = folder.map(|folder| folder.join("config.json")).filter(|p| p.is_file()) else {
        return Ok(None);
    };
    read(&path, host).with_context(|| format!("reading {}", path.display()))
}

fn read(path: &Path, host: &str) -> Result<Option<Credentials>> {
    let config: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let entry = config["auths"].as_object().into_iter().flatten().find(|(key, _)| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        let key = key.split('/').next().unwrap_or_default();
        key == host || (host == "docker.io" && key == "index.docker.io")
    });
    if let Some(auth) = entry.and_then(|(_, entry)| entry["auth"].as_str()) {
        return decode(auth).with_context(|| format!("the credentials of {host}")).map(Some);
    }
    let helper = config["credHelpers"][host].as_str().or(config["credsStore"].as_str());
    if let (Some(helper), Some(_)) = (helper, entry) {
        bail!(
            "the credentials of {host} are kept by docker-credential-{helper}, which is not supported: log in with a config.json without a credential store (DOCKER_CONFIG names its folder)"
        );
    }
    Ok(None)
}

fn decode(auth: &str) -> Result<Credentials> {
    let text = String::from_utf8(BASE64.decode(auth).context("not base64")?).context("not text")?;
    let (user, password) = text.split_once(':').context("no colon between user and password")?;
    Ok(Credentials { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(config: &Value, host: &str) -> Result<Option<Credentials>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        read(&path, host)
    }

    #[test]
    fn credentials_are_those_of_the_host() {
        let auth = |text: &str| json!({"auth": BASE64.encode(text)});
        let config = json!({"auths": {
            "registry.example.com": auth("ann:s3cret:with:colons"),
            "https://index.docker.io/v1/": auth("bob:x"),
        }});
        let ann = of(&config, "registry.example.com").unwrap().unwrap();
        assert_eq!((ann.user.as_str(), ann.password.as_str()), ("ann", "s3cret:with:colons"));
        assert_eq!(of(&config, "docker.io").unwrap().unwrap().user, "bob");
        assert_eq!(of(&config, "other.example.com").unwrap(), None);
        assert_eq!(of(&json!({}), "registry.example.com").unwrap(), None);
        assert!(!format!("{ann:?}").contains("s3cret"));
    }

    #[test]
    fn credentials_that_cannot_be_read_are_an_error() {
        let broken = json!({"auths": {"h": {"auth": "%%%"}}});
        assert!(of(&broken, "h").is_err());
        let stored = json!({"auths": {"h": {}}, "credsStore": "desktop"});
        assert!(of(&stored, "h").unwrap_err().to_string().contains("docker-credential-desktop"));
    }
}
