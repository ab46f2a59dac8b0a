//! Whose certificates git accepts over https.

use std::path::{Path, PathBuf};

use crate::error::{Class, GitError};

/// Where systems keep the certificates of public authorities, in one file.
const SYSTEM_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whose certificates are accepted over https.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those of the machine's certificate authorities.
    #[default]
    System,
    /// Those of the machine's certificate authorities, and of these, as PEM.
    With(String),
    /// Those of these authorities alone, as PEM.
    Only(String),
}

impl Trust {
    /// The certificates that git is given as a file; `None`: its own default is right.
    pub(crate) fn file(&self) -> Result<Option<String>, GitError> {
        let pem = match self {
            Self::System => return Ok(None),
            Self::With(pem) | Self::Only(pem) => pem,
        };
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            let detail = "it has no line -----BEGIN CERTIFICATE-----";
            return Err(GitError::new(
                Class::BadCredentials,
                "use the certificate of the authority",
                detail,
            ));
        }
        // curl reads one file: a further authority is added to a copy of the system's.
        let system = match self {
            Self::With(_) => system_file().map(std::fs::read_to_string).transpose(),
            _ => Ok(None),
        };
        let system =
            system.map_err(|e| GitError::local("read the certificates of this machine", e))?;
        Ok(Some(format!("{}\n{pem}\n", system.unwrap_or_default())))
    }
}

/// The machine's file of certificates: the one that a variable names, or a usual one.
fn system_file() -> Option<PathBuf> {
    let named =
        ["GIT_SSL_CAINFO", "SSL_CERT_FILE"].iter().filter_map(std::env::var_os).map(PathBuf::from);
    named.chain(SYSTEM_FILES.iter().map(PathBuf::from)).find(|path| Path::is_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----";

    #[test]
    fn a_further_authority_is_added_to_those_of_the_machine() {
        assert_eq!(Trust::System.file().unwrap(), None);
        assert_eq!(Trust::Only(PEM.into()).file().unwrap().unwrap().trim(), PEM);
        let with = Trust::With(PEM.into()).file().unwrap().unwrap();
        assert!(with.trim_end().ends_with(PEM));
        if let Some(system) = system_file() {
            assert!(with.starts_with(&std::fs::read_to_string(system).unwrap()));
        }
        let e = Trust::With("AA".into()).file().unwrap_err();
        assert_eq!(e.class, Class::BadCredentials, "{e}");
    }
}
