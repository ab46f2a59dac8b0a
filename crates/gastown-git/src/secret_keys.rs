//! Git credentials from the keys of a Secret, whichever way the Secret was read.
//!
//! A key whose value is blank (empty, or white space only) counts as missing.

use gastown_types::Scheme;

use crate::{Credentials, Secret};

/// Keys that may hold a private ssh key, in the order in which they are tried (the Go operator's).
pub const SSH_KEYS: [&str; 4] = ["ssh-privatekey", "id_rsa", "id_ed25519", "identity"];
/// Keys that may hold a password for http and https, in the order in which they are tried.
pub const PASSWORD_KEYS: [&str; 2] = ["password", "token"];
/// The user for http and https when the Secret names none.
const DEFAULT_USERNAME: &str = "git";

/// The Secret has no key that the URL's scheme needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {0} is missing")]
pub struct MissingKey(
    /// The key, or the alternatives, as a message names them: `password or token`.
    pub &'static str,
);

/// The value without the blank ones: `None` for a value that is empty or white space only.
pub fn non_blank(value: Vec<u8>) -> Option<Vec<u8>> {
    (!value.trim_ascii().is_empty()).then_some(value)
}

/// The credentials for a URL of this scheme; `value` looks up a key of the Secret.
pub fn credentials(
    scheme: Scheme,
    value: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Credentials, MissingKey> {
    let value = |key: &str| value(key).and_then(non_blank);
    let first = |keys: &[&str]| keys.iter().find_map(|key| value(key));
    match scheme {
        Scheme::Ssh => {
            let key = first(&SSH_KEYS).ok_or(MissingKey(SSH_KEYS[0]))?;
            Ok(Credentials::SshKeyData { key: Secret::new(key) })
        }
        Scheme::Http | Scheme::Https => {
            let password = first(&PASSWORD_KEYS).ok_or(MissingKey("password or token"))?;
            let username = value("username").map_or_else(
                || DEFAULT_USERNAME.to_owned(),
                |user| String::from_utf8_lossy(&user).trim().to_owned(),
            );
            Ok(Credentials::Basic { username, password: Secret::new(password) })
        }
        Scheme::File => Ok(Credentials::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(scheme: Scheme, data: &[(&str, &str)]) -> Result<Credentials, MissingKey> {
        credentials(scheme, |key| {
            data.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_bytes().to_vec())
        })
    }

    fn ssh(key: &str) -> Credentials {
        Credentials::SshKeyData { key: Secret::new(key) }
    }

    fn basic(username: &str, password: &str) -> Credentials {
        Credentials::Basic { username: username.to_owned(), password: Secret::new(password) }
    }

    #[test]
    fn the_scheme_decides_which_keys_are_read() {
        let both = [("id_ed25519", "KEY"), ("token", "T")];
        assert_eq!(found(Scheme::Ssh, &both), Ok(ssh("KEY")));
        assert_eq!(found(Scheme::Https, &both), Ok(basic("git", "T")));
        assert_eq!(found(Scheme::Http, &both), Ok(basic("git", "T")));
        assert_eq!(found(Scheme::File, &[]), Ok(Credentials::None));
    }

    #[test]
    fn of_several_keys_the_first_in_the_go_operators_order_is_used() {
        let mut data: Vec<(&str, &str)> = SSH_KEYS.iter().rev().map(|key| (*key, *key)).collect();
        for key in ["ssh-privatekey", "id_rsa", "id_ed25519", "identity"] {
            assert_eq!(found(Scheme::Ssh, &data), Ok(ssh(key)));
            data.pop();
        }
        let passwords = [("token", "T"), ("password", "P"), ("username", "me\n")];
        assert_eq!(found(Scheme::Https, &passwords), Ok(basic("me", "P")));
    }

    #[test]
    fn a_blank_key_counts_as_missing() {
        let ssh_keys = [("ssh-privatekey", ""), ("id_rsa", " \n"), ("id_ed25519", "KEY")];
        assert_eq!(found(Scheme::Ssh, &ssh_keys), Ok(ssh("KEY")));
        assert_eq!(found(Scheme::Ssh, &ssh_keys[..2]), Err(MissingKey("ssh-privatekey")));
        let passwords = [("username", "\t"), ("password", "\n"), ("token", "T")];
        assert_eq!(found(Scheme::Https, &passwords), Ok(basic("git", "T")));
        assert_eq!(found(Scheme::Https, &passwords[..2]), Err(MissingKey("password or token")));
    }

    #[test]
    fn a_key_is_used_as_it_is_stored() {
        assert_eq!(found(Scheme::Ssh, &[("identity", "KEY\n")]), Ok(ssh("KEY\n")));
    }
}
