use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The URL of a git repository: `git@host:path`, `ssh://[user@]host[:port]/path`,
/// `http(s)://host[:port]/path` and `file:///path`; never a remote helper (`ext::…`), an option, a
/// password in the text or a control character.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitUrl {
    text: String,
    scheme: Scheme,
    user: String,
    host: String,
    port: Option<u16>,
    path: String,
}

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// ssh, as `ssh://…` or `git@host:path`.
    Ssh,
    /// Plain HTTP, for servers inside a cluster.
    Http,
    /// HTTP over TLS.
    Https,
    /// A folder on this machine.
    File,
}

/// The text is not a repository URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not a repository URL: {why}")]
pub struct InvalidUrl {
    url: String,
    why: &'static str,
}

impl GitUrl {
    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, lowercase; empty for `file`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port where one is written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The user where one is written; empty otherwise.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The path as it is written: with a slash before it, except in `git@host:path`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// One text for every spelling of the same repository: `host[:port]/path`, lowercase host,
    /// without the user, a default port, a final slash or `.git`. ssh and http(s) of one host and
    /// path are the same repository.
    pub fn normalised(&self) -> String {
        let path = self.path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        match (self.scheme, self.port) {
            (Scheme::File, _) => format!("file:///{path}"),
            (Scheme::Ssh, None | Some(22))
            | (Scheme::Http, None | Some(80))
            | (Scheme::Https, None | Some(443)) => {
                format!("{}/{path}", self.host)
            }
            (_, Some(port)) => format!("{}:{port}/{path}", self.host),
        }
    }
}

fn plain_host(h: &str) -> bool {
    !h.is_empty()
        && h.len() <= 253
        && !h.starts_with(['-', '.'])
        && h.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn plain_user(u: &str) -> bool {
    !u.starts_with('-')
        && u.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn plain_path(p: &str) -> bool {
    let chars = p.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-~+@%".contains(&b));
    chars
        && !p.trim_matches('/').is_empty()
        && !p.split('/').any(|s| s == "..")
        && !p.trim_start_matches('/').starts_with('-')
}

/// The parts of `[user@]host[:port]`; `None` when a part has unexpected characters.
fn authority(a: &str) -> Option<(&str, &str, Option<u16>)> {
    let (user, rest) = a.split_once('@').unwrap_or(("", a));
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, Some(port.parse::<u16>().ok().filter(|p| *p != 0)?)),
        None => (rest, None),
    };
    (plain_user(user) && plain_host(host)).then_some((user, host, port))
}

impl FromStr for GitUrl {
    type Err = InvalidUrl;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let no = |why| InvalidUrl { url: s.chars().take(120).collect(), why };
        if s.len() > 2048 {
            return Err(no("it is longer than 2048 bytes"));
        }
        let build = |scheme, user: &str, host: &str, port, path: &str| Self {
            text: s.to_owned(),
            scheme,
            user: user.to_owned(),
            host: host.to_ascii_lowercase(),
            port,
            path: path.to_owned(),
        };
        let Some((scheme, rest)) = s.split_once("://") else {
            let (login, path) = s.split_once(':').ok_or_else(|| {
                no("expected git@host:path, ssh://, https://, http:// or file://")
            })?;
            let Some((user, host)) = login.split_once('@') else {
                return Err(no("expected git@host:path, ssh://, https://, http:// or file://"));
            };
            if user.is_empty() || !plain_user(user) || !plain_host(host) || !plain_path(path) {
                return Err(no("the host or path has characters that no repository needs"));
            }
            return Ok(build(Scheme::Ssh, user, host, None, path));
        };
        let scheme = match scheme {
            "ssh" => Scheme::Ssh,
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "file" => Scheme::File,
            _ => return Err(no("expected git@host:path, ssh://, https://, http:// or file://")),
        };
        let (login, path) = match rest.split_once('/') {
            Some((login, path)) => (login, format!("/{path}")),
            None => return Err(no("it names no repository path")),
        };
        if !plain_path(&path) {
            return Err(no(
                "the repository path is empty or has characters that no repository needs",
            ));
        }
        if scheme == Scheme::File {
            return if login.is_empty() {
                Ok(build(scheme, "", "", None, &path))
            } else {
                Err(no("file:// must have no host"))
            };
        }
        let (user, host, port) =
            authority(login).ok_or_else(|| no("the host is not a plain [user@]host[:port]"))?;
        if scheme != Scheme::Ssh && !user.is_empty() {
            return Err(no("credentials belong in a Secret, not in the URL"));
        }
        Ok(build(scheme, user, host, port, &path))
    }
}

crate::text_conversions!(GitUrl, text, InvalidUrl);

impl fmt::Debug for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(s: &str) -> GitUrl {
        s.parse().unwrap()
    }

    #[test]
    fn every_spelling_of_one_repository_normalises_to_one_text() {
        let want = "github.com/org/repo";
        for s in [
            "git@github.com:org/repo.git",
            "ssh://git@github.com/org/repo",
            "ssh://git@GitHub.com:22/org/repo.git",
            "https://github.com/org/repo.git/",
            "https://github.com:443/org/repo",
            "http://github.com/org/repo",
        ] {
            assert_eq!(url(s).normalised(), want, "{s}");
        }
        assert_eq!(url("ssh://git@host:2222/r.git").normalised(), "host:2222/r");
        assert_eq!(url("file:///srv/git/r.git").normalised(), "file:///srv/git/r");
    }

    #[test]
    fn options_helpers_and_passwords_are_refused() {
        for s in [
            "",
            "-u",
            "--upload-pack=touch x",
            "ext::sh -c x",
            "ftp://h/r",
            "git@-oProxyCommand=x:r",
            "ssh://-oProxyCommand=x/r",
            "git@h:-r",
            "https://user:pw@h/r",
            "https://tok@h/r",
            "https://h",
            "https://h/",
            "https:///r",
            "git@h:",
            "ssh://h:0/r",
            "ssh://h:99999/r",
            "https://h/a b",
            "https://h/a\nb",
            "file://host/r",
            "/srv/r",
            "host:r",
            "https://h/../../r",
            "https://h/$(id)",
        ] {
            assert!(s.parse::<GitUrl>().is_err(), "{s:?}");
        }
    }

    #[test]
    fn a_url_survives_its_text_form() {
        for s in [
            "git@github.com:org/repo.git",
            "ssh://git@host:2222/r.git",
            "http://git.svc:8080/a/b",
            "file:///srv/r",
        ] {
            let json = serde_json::to_string(&url(s)).unwrap();
            assert_eq!(serde_json::from_str::<GitUrl>(&json).unwrap(), url(s));
        }
        assert!(serde_json::from_str::<GitUrl>("\"ext::sh\"").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_whatever_parses_is_harmless_on_a_command_line(s in "\\PC{0,60}") {
            if let Ok(u) = s.parse::<GitUrl>() {
                proptest::prop_assert!(!u.as_str().starts_with('-'));
                proptest::prop_assert!(!u.as_str().contains("::"));
                proptest::prop_assert!(!u.host().starts_with('-'));
                proptest::prop_assert!(!u.as_str().chars().any(|c| c.is_control() || c.is_whitespace()));
            }
        }

        #[test]
        fn normalising_ignores_a_final_slash_and_git(host in "[a-z]{1,8}", path in "[a-z]{1,8}/[a-z]{1,8}") {
            let plain = url(&format!("https://{host}/{path}"));
            for s in [format!("https://{host}/{path}.git"), format!("git@{host}:{path}"), format!("ssh://u@{host}:22/{path}.git/")] {
                proptest::prop_assert_eq!(url(&s).normalised(), plain.normalised());
            }
        }
    }
}
