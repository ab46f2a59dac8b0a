//! Submodules of a commit, and where they are fetched from.
//!
//! `.gitmodules` is the work of whoever may commit: its URLs lead to the forge of the repository
//! with the repository's own credentials, or elsewhere without any. Only ssh and https are used
//! (plain http where the repository itself is reached so), never a folder of this machine or a
//! remote helper.

use std::collections::BTreeMap;
use std::path::Path;

use gastown_types::{CommitId, GitUrl, Scheme};

use crate::credentials::Credentials;
use crate::error::GitError;
use crate::remote::Remote;
use crate::spawn::Git;

/// The longest listing of a tree, in bytes: about four million files.
const MAX_LISTING: usize = 512 << 20;

/// A submodule of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submodule {
    /// Its path in the tree.
    pub path: String,
    /// Its name in `.gitmodules`, which is also a path below `.git/modules`.
    pub name: String,
    /// Its commit.
    pub commit: CommitId,
    /// Its URL as `.gitmodules` has it; it may be relative to the repository's.
    pub url: String,
}

/// The submodules of a commit, by path. A commit in the tree that `.gitmodules` does not describe
/// is left out: nobody can fetch it.
pub async fn list(git: &Git, repo: &Path, commit: &CommitId) -> Result<Vec<Submodule>, GitError> {
    // Most repositories have none, and their whole tree need not be listed.
    let described = git.call(["cat-file", "-e", &format!("{commit}:.gitmodules")]).repo(repo);
    if !described.any_exit().output().await?.status.success() {
        return Ok(Vec::new());
    }
    let out = git
        .call(["ls-tree", "-r", "-z", "--full-tree", commit.as_str()])
        .repo(repo)
        .doing("look for submodules")
        .limit(MAX_LISTING)
        .output()
        .await?;
    let links = gitlinks(&out.stdout);
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let blob = format!("--blob={commit}:.gitmodules");
    let out = git
        .call(["config", &blob, "--null", "--list"])
        .repo(repo)
        .doing("read .gitmodules")
        .any_exit()
        .output()
        .await?;
    let described = if out.status.success() { parse(&out.stdout) } else { BTreeMap::new() };
    let found = links.into_iter().filter_map(|(path, commit)| {
        let (name, url) = described.get(&path)?.clone();
        Some(Submodule { path, name, commit, url })
    });
    Ok(found.collect())
}

/// The commits in the output of `ls-tree -r -z`, by path.
pub(crate) fn gitlinks(listing: &[u8]) -> BTreeMap<String, CommitId> {
    let rows = listing.split(|b| *b == 0).filter_map(|row| std::str::from_utf8(row).ok());
    rows.filter_map(|row| row.strip_prefix("160000 commit "))
        .filter_map(|row| row.split_once('\t'))
        .filter_map(|(id, path)| Some((path.to_owned(), id.parse().ok()?)))
        .collect()
}

/// Names and URLs by path, from `git config --null --list`. Those with an unsafe name and those
/// that are never to be updated are left out.
pub(crate) fn parse(listing: &[u8]) -> BTreeMap<String, (String, String)> {
    let mut keys: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    let rows = listing.split(|b| *b == 0).filter_map(|row| std::str::from_utf8(row).ok());
    for (key, value) in rows.filter_map(|row| row.split_once('\n')) {
        let Some((name, key)) =
            key.strip_prefix("submodule.").and_then(|rest| rest.rsplit_once('.'))
        else {
            continue;
        };
        keys.entry(name).or_default().insert(key, value);
    }
    let wanted = |(name, keys): (&str, BTreeMap<&str, &str>)| {
        let (path, url) = (keys.get("path")?, keys.get("url")?);
        let used = keys.get("update").is_none_or(|update| *update != "none");
        (used && is_safe(name)).then(|| ((*path).to_owned(), (name.to_owned(), (*url).to_owned())))
    };
    keys.into_iter().filter_map(wanted).collect()
}

/// Whether a name can be a path below `.git/modules`.
fn is_safe(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.eq_ignore_ascii_case(".git")
    };
    !name.starts_with('-')
        && name.len() <= 244
        && !name.contains(['\\', '\n', '\0', '"'])
        && name.split('/').all(plain)
}

/// A URL relative to that of the repository, as git resolves it.
pub(crate) fn resolve(base: &str, relative: &str) -> Option<String> {
    let (mut base, mut rest) = (base.trim_end_matches('/'), relative);
    let mut separator = '/';
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            rest = after;
            // `git@host:a` has the parent `git@host:`.
            separator = if base.contains('/') { '/' } else { ':' };
            base = base.rsplit_once(separator)?.0;
        } else {
            return Some(format!("{base}{separator}{rest}"));
        }
    }
}

impl Remote {
    /// The remote of a submodule of this one, or why there is none. On the host of this repository
    /// it is reached as this one is, with the same credentials, whatever scheme is written; other
    /// hosts are asked over https without credentials.
    pub fn for_submodule(&self, written: &str) -> Result<Self, String> {
        let relative = written.starts_with("./") || written.starts_with("../");
        let text = if relative { resolve(self.url.as_str(), written) } else { None };
        let text = text.unwrap_or_else(|| written.to_owned());
        let url: GitUrl = text.parse().map_err(|e| format!("{e}"))?;
        if url.scheme() == Scheme::File {
            return Err("only https and ssh URLs are fetched".to_owned());
        }
        let here = self.url.host() == url.host() && self.url.scheme() != Scheme::File;
        let same_scheme = self.url.scheme() == url.scheme();
        if here && same_scheme && self.url.port() == url.port() {
            return Ok(Self { url, ..self.clone() });
        }
        if here && !same_scheme {
            let url = self.in_our_scheme(&url).parse().map_err(|e| format!("{e}"))?;
            return Ok(Self { url, ..self.clone() });
        }
        let path = url.path().trim_start_matches('/');
        let anonymous = match (url.scheme(), url.port()) {
            (Scheme::Https, _) => url,
            (Scheme::Ssh, None) => {
                format!("https://{}/{path}", url.host()).parse().map_err(|e| format!("{e}"))?
            }
            _ => return Err("another host is asked over https only".to_owned()),
        };
        Ok(Self { credentials: Credentials::None, url: anonymous, ..self.clone() })
    }

    /// The URL of a repository on our host, reached as ours is.
    fn in_our_scheme(&self, url: &GitUrl) -> String {
        let path = url.path().trim_start_matches('/');
        let port = self.url.port().map(|p| format!(":{p}")).unwrap_or_default();
        let scheme = match self.url.scheme() {
            Scheme::Ssh => {
                let user = if self.url.user().is_empty() { "git" } else { self.url.user() };
                return format!("ssh://{user}@{}{port}/{path}", self.url.host());
            }
            Scheme::Http => "http",
            Scheme::Https | Scheme::File => "https",
        };
        format!("{scheme}://{}{port}/{path}", self.url.host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Secret;

    fn remote(url: &str) -> Remote {
        let credentials = Credentials::Basic { username: "u".into(), password: Secret::new("p") };
        Remote { credentials, ..Remote::anonymous(url.parse().unwrap()) }
    }

    /// The URL, and whether it gets the credentials.
    fn from(base: &str, written: &str) -> Result<(String, bool), String> {
        let base = remote(base);
        let found = base.for_submodule(written)?;
        Ok((found.url.to_string(), found.credentials == base.credentials))
    }

    #[test]
    fn a_submodule_of_the_same_host_is_reached_as_the_repository_is() {
        let ok = |url: &str, creds| Ok((url.to_owned(), creds));
        let https = "https://git.example/org/app.git";
        assert_eq!(from(https, "../lib.git"), ok("https://git.example/org/lib.git", true));
        assert_eq!(from(https, "../../o/lib"), ok("https://git.example/o/lib", true));
        assert_eq!(from(https, "./sub"), ok("https://git.example/org/app.git/sub", true));
        assert_eq!(
            from(https, "git@git.example:o/lib.git"),
            ok("https://git.example/o/lib.git", true)
        );
        let ssh = "git@git.example:org/app.git";
        assert_eq!(from(ssh, "../lib.git"), ok("git@git.example:org/lib.git", true));
        assert_eq!(from(ssh, "../../lib.git"), ok("git@git.example:lib.git", true));
        assert_eq!(from(ssh, "https://git.example/o/lib"), ok("ssh://git@git.example/o/lib", true));
        assert_eq!(from("http://git:8080/a/b", "../c"), ok("http://git:8080/a/c", true));
    }

    #[test]
    fn another_host_gets_no_credentials_and_a_folder_is_never_read() {
        let base = "https://git.example/org/app.git";
        let ok = |url: &str| Ok((url.to_owned(), false));
        assert_eq!(from(base, "https://else.example/x.git"), ok("https://else.example/x.git"));
        assert_eq!(from(base, "git@else.example:x.git"), ok("https://else.example/x.git"));
        assert_eq!(from(base, "https://git.example:8443/x"), ok("https://git.example:8443/x"));
        for bad in
            ["file:///etc", "/etc", "ext::sh -c id", "-u", "http://else/x", "ssh://e:7/x", ""]
        {
            assert!(from(base, bad).is_err(), "{bad}");
        }
        assert!(from("file:///srv/a.git", "../b.git").is_err());
        assert!(from(base, "../../../../../etc").is_err());
    }

    #[test]
    fn gitmodules_is_read_as_a_strangers() {
        let text = b"submodule.lib.path\nlib/x\0submodule.lib.url\n../x\0\
            submodule.../../evil.path\nevil\0submodule.../../evil.url\n../e\0\
            submodule.off.path\noff\0submodule.off.url\n../o\0submodule.off.update\nnone\0\
            submodule.a.b/c.path\nabc\0submodule.a.b/c.url\n../abc\0core.pager\nid\0";
        let found = parse(text);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["abc", "lib/x"]);
        assert_eq!(found["abc"].0, "a.b/c");
        let id = "c".repeat(40);
        let listing = format!("100644 blob {id}\ta\u{0}160000 commit {id}\tlib/x\u{0}");
        assert_eq!(gitlinks(listing.as_bytes()).into_keys().collect::<Vec<_>>(), ["lib/x"]);
    }
}
