//! Git remotes and bearer tokens from the Secrets and ConfigMaps that an object names, and the
//! reasons by which conditions report a remote's errors.
//!
//! Secrets are read again for each use; nothing secret is cached. This crate knows no controller:
//! the API server decides who may read which Secret.

use gastown_api::CaConfigMapRef;
use gastown_api::names::reason;
use gastown_git::secret_keys::{self, MissingKey, non_blank};
use gastown_git::{Class, Refusal, Remote, Trust};
use gastown_types::GitUrl;
use k8s_openapi::api::core::v1::{ConfigMap, Secret as KubeSecret};
use kube::{Api, Client};

/// The key of the Secret with certificates of further authorities.
const CA: &str = "ca.crt";

/// Why the remote or the token could not be made.
#[derive(Debug)]
pub enum Error {
    /// The object's own condition reports it: (reason, message).
    Condition(&'static str, String),
    /// The API server could not be reached, or failed.
    Kube(kube::Error),
}

/// The Secret and the ConfigMap that an object names, and where they are.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The object's namespace.
    pub namespace: &'a str,
    /// The name of the Secret with the credentials.
    pub secret: Option<&'a str>,
    /// The name of the ConfigMap with further host keys.
    pub known_hosts: Option<&'a str>,
    /// The ConfigMap and its key with certificates of further authorities.
    pub ca: Option<&'a CaConfigMapRef>,
    /// The chart's value that allows further namespaces, such as `refinery.secretNamespaces`.
    pub chart_value: &'static str,
}

/// The remote at `url`, with the credentials, host keys and authorities of `named`.
pub async fn remote(client: &Client, named: Named<'_>, url: &GitUrl) -> Result<Remote, Error> {
    let mut remote = Remote::anonymous(url.clone());
    let mut authorities = Vec::new();
    if let Some(name) = named.secret {
        let value = secret(client, &named, name).await?;
        remote.credentials = secret_keys::credentials(url.scheme(), &value)
            .map_err(|MissingKey(key)| missing_key(name, key))?;
        if let Some(known) = value("known_hosts") {
            remote.known_hosts = String::from_utf8_lossy(&known).into_owned();
        }
        authorities.extend(value(CA).map(|pem| String::from_utf8_lossy(&pem).into_owned()));
    }
    if let Some(name) = named.known_hosts {
        let known = from_config_map(client, &named, name, "known_hosts").await?;
        remote.known_hosts.push('\n');
        remote.known_hosts.push_str(&known);
    }
    if let Some(ca) = named.ca {
        authorities.push(from_config_map(client, &named, &ca.name, &ca.key).await?);
    }
    if !authorities.is_empty() {
        remote.trust = Trust::With(authorities.join("\n"));
    }
    Ok(remote)
}

/// The value of a key of the ConfigMap `name`.
async fn from_config_map(
    client: &Client,
    named: &Named<'_>,
    name: &str,
    key: &str,
) -> Result<String, Error> {
    let map = Api::<ConfigMap>::namespaced(client.clone(), named.namespace).get(name).await;
    let map = map.map_err(|e| absent(e, "configmap", name, named, reason::CONFIG_MAP_NOT_FOUND))?;
    map.data.unwrap_or_default().remove(key).ok_or_else(|| {
        Error::Condition(reason::CONFIG_MAP_NOT_FOUND, format!("configmap {name} has no key {key}"))
    })
}

/// The bearer token in key `token` of the Secret that is named; `None` when no Secret is named.
pub async fn token(client: &Client, named: Named<'_>) -> Result<Option<Vec<u8>>, Error> {
    let Some(name) = named.secret else { return Ok(None) };
    let value = secret(client, &named, name).await?;
    value("token").map(Some).ok_or_else(|| missing_key(name, "token"))
}

/// The Secret `name`, as a lookup from key to value; a blank value counts as missing.
async fn secret(
    client: &Client,
    named: &Named<'_>,
    name: &str,
) -> Result<impl Fn(&str) -> Option<Vec<u8>> + use<>, Error> {
    let secret = Api::<KubeSecret>::namespaced(client.clone(), named.namespace).get(name).await;
    let secret = secret.map_err(|e| absent(e, "secret", name, named, reason::SECRET_NOT_FOUND))?;
    let data = secret.data.unwrap_or_default();
    Ok(move |key: &str| data.get(key).and_then(|value| non_blank(value.0.clone())))
}

fn missing_key(secret: &str, key: &str) -> Error {
    Error::Condition(reason::SECRET_NOT_FOUND, format!("secret {secret} has no key {key}"))
}

fn absent(
    error: kube::Error,
    what: &str,
    name: &str,
    named: &Named<'_>,
    missing: &'static str,
) -> Error {
    let namespace = named.namespace;
    match &error {
        kube::Error::Api(status) if status.code == 404 => {
            Error::Condition(missing, format!("{what} {name} is not in namespace {namespace}"))
        }
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
            let advice = format!("add {namespace} to the chart's {}", named.chart_value);
            Error::Condition(
                reason::SECRET_FORBIDDEN,
                format!("{what} {name} in namespace {namespace} may not be read: {advice}"),
            )
        }
        _ => Error::Kube(error),
    }
}

/// The condition's reason for a git error; Polecats use the same reasons.
pub fn reason_of(class: Class) -> &'static str {
    match class {
        Class::AuthFailed | Class::BadCredentials => "BadCredentials",
        Class::PermissionDenied => "PermissionDenied",
        Class::UnknownHostKey => "UnknownHostKey",
        Class::HostKeyMismatch => "HostKeyMismatch",
        Class::RepositoryNotFound => "RepositoryNotFound",
        Class::RefNotFound => "BranchNotFound",
        Class::Unreachable | Class::Timeout => "RemoteUnreachable",
        Class::Rejected(Refusal::Http(_)) => reason::REMOTE_REFUSED,
        Class::Rejected(_) => "PushRejected",
        Class::Corrupt => "MirrorBroken",
        Class::TooMuchOutput | Class::MissingProgram | Class::Local => "Internal",
    }
}

#[cfg(test)]
mod tests {
    use gastown_types::Scheme;

    use super::*;

    #[test]
    fn a_missing_key_is_named_with_its_secret() {
        let only_token = |key: &str| (key == "token").then(|| b"T".to_vec());
        let MissingKey(key) = secret_keys::credentials(Scheme::Ssh, only_token).unwrap_err();
        let Error::Condition(reason, message) = missing_key("git-creds", key) else { panic!() };
        assert_eq!(
            (reason, message.as_str()),
            ("SecretNotFound", "secret git-creds has no key ssh-privatekey")
        );
    }
}
