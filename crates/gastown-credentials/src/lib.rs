//! From the Secret and the known hosts that an object names to a git remote that can be asked, or
//! to a server's token, and the words in which conditions tell of a remote's faults.
//!
//! Read anew each time: nothing secret is cached. It knows no controller; who may read which Secret
//! is the API server's to say.

use gastown_api::names::reason;
use gastown_git::{Class, Credentials, Remote, Secret};
use gastown_types::{GitUrl, Scheme};
use k8s_openapi::api::core::v1::{ConfigMap, Secret as KubeSecret};
use kube::{Api, Client};

/// The keys of a Secret that may hold an ssh key, in the Go operator's order.
const SSH_KEYS: [&str; 4] = ["ssh-privatekey", "id_rsa", "id_ed25519", "identity"];
/// The keys that may hold a password.
const PASSWORDS: [&str; 2] = ["password", "token"];

/// Why there is no remote.
#[derive(Debug)]
pub enum Error {
    /// Something that the object's condition has to say: (reason, message).
    Condition(&'static str, String),
    /// The API server could not be asked.
    Kube(kube::Error),
}

/// What an object says about the repository that it works with.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The object's namespace.
    pub namespace: &'a str,
    /// The Secret with the credentials.
    pub secret: Option<&'a str>,
    /// The ConfigMap with further host keys.
    pub known_hosts: Option<&'a str>,
    /// The chart's value that opens further namespaces, such as `refinery.secretNamespaces`.
    pub chart_value: &'static str,
}

/// The remote at `url` with what `named` gives.
pub async fn remote(client: &Client, named: Named<'_>, url: &GitUrl) -> Result<Remote, Error> {
    let mut remote = Remote::anonymous(url.clone());
    if let Some(name) = named.secret {
        let secret = Api::<KubeSecret>::namespaced(client.clone(), named.namespace).get(name).await;
        let secret =
            secret.map_err(|e| absent(e, "secret", name, &named, reason::SECRET_NOT_FOUND))?;
        let data = secret.data.unwrap_or_default();
        let value = |key: &str| data.get(key).map(|v| v.0.clone()).filter(|v| !v.is_empty());
        remote.credentials = credentials(url.scheme(), name, value)?;
        if let Some(known) = value("known_hosts") {
            remote.known_hosts = String::from_utf8_lossy(&known).into_owned();
        }
    }
    if let Some(name) = named.known_hosts {
        let map = Api::<ConfigMap>::namespaced(client.clone(), named.namespace).get(name).await;
        let map =
            map.map_err(|e| absent(e, "configmap", name, &named, reason::CONFIG_MAP_NOT_FOUND))?;
        let Some(known) = map.data.unwrap_or_default().remove("known_hosts") else {
            return Err(Error::Condition(
                reason::CONFIG_MAP_NOT_FOUND,
                format!("configmap {name} has no key known_hosts"),
            ));
        };
        remote.known_hosts.push('\n');
        remote.known_hosts.push_str(&known);
    }
    Ok(remote)
}

/// The bearer token in key `token` of the Secret that is named; none where none is.
pub async fn token(client: &Client, named: Named<'_>) -> Result<Option<Vec<u8>>, Error> {
    let Some(name) = named.secret else { return Ok(None) };
    let secret = Api::<KubeSecret>::namespaced(client.clone(), named.namespace).get(name).await;
    let secret = secret.map_err(|e| absent(e, "secret", name, &named, reason::SECRET_NOT_FOUND))?;
    let token = secret
        .data
        .unwrap_or_default()
        .remove("token")
        .map(|value| value.0)
        .filter(|value| !value.is_empty());
    token.map(Some).ok_or_else(|| {
        Error::Condition(reason::SECRET_NOT_FOUND, format!("secret {name} has no key token"))
    })
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

fn credentials(
    scheme: Scheme,
    name: &str,
    value: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Credentials, Error> {
    let lacks = |key: &str| {
        Error::Condition(reason::SECRET_NOT_FOUND, format!("secret {name} has no key {key}"))
    };
    match scheme {
        Scheme::Ssh => {
            let key = SSH_KEYS.iter().find_map(|k| value(k)).ok_or_else(|| lacks(SSH_KEYS[0]))?;
            Ok(Credentials::SshKeyData { key: Secret::new(key) })
        }
        Scheme::Http | Scheme::Https => {
            let password = PASSWORDS
                .iter()
                .find_map(|k| value(k))
                .ok_or_else(|| lacks("password or token"))?;
            let username = value("username").map_or_else(
                || "git".to_owned(),
                |u| String::from_utf8_lossy(&u).trim().to_owned(),
            );
            Ok(Credentials::Basic { username, password: Secret::new(password) })
        }
        Scheme::File => Ok(Credentials::None),
    }
}

/// The condition's reason of a fault, in the words that Polecats use for the same.
pub fn reason_of(class: Class) -> &'static str {
    match class {
        Class::AuthFailed | Class::BadCredentials => "BadCredentials",
        Class::PermissionDenied => "PermissionDenied",
        Class::UnknownHostKey => "UnknownHostKey",
        Class::HostKeyMismatch => "HostKeyMismatch",
        Class::RepositoryNotFound => "RepositoryNotFound",
        Class::RefNotFound => "BranchNotFound",
        Class::Unreachable | Class::Timeout => "RemoteUnreachable",
        Class::Rejected(_) => "PushRejected",
        Class::Corrupt => "MirrorBroken",
        Class::TooMuchOutput | Class::Local => "Internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(scheme: Scheme, data: &[(&str, &str)]) -> Result<Credentials, Error> {
        let value =
            |key: &str| data.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_bytes().to_vec());
        credentials(scheme, "git-creds", value)
    }

    #[test]
    fn keys_are_found_by_the_url_s_scheme() {
        let both = [("id_ed25519", "KEY"), ("token", "T")];
        assert_eq!(
            found(Scheme::Ssh, &both).unwrap(),
            Credentials::SshKeyData { key: Secret::new("KEY") }
        );
        let basic = Credentials::Basic { username: "git".into(), password: Secret::new("T") };
        assert_eq!(found(Scheme::Https, &both).unwrap(), basic);
    }

    #[test]
    fn a_missing_key_is_named() {
        let Error::Condition(reason, message) = found(Scheme::Ssh, &[("token", "T")]).unwrap_err()
        else {
            panic!()
        };
        assert_eq!(
            (reason, message.as_str()),
            ("SecretNotFound", "secret git-creds has no key ssh-privatekey")
        );
    }
}
