//! What can go wrong with a remote, named so that a caller can decide without reading text.

use std::fmt;

/// Why a git operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The remote refused the credentials, or wants some and got none.
    AuthFailed,
    /// The remote knows who asks and says no.
    PermissionDenied,
    /// ssh: the host's key is not among the known ones.
    UnknownHostKey,
    /// ssh: the host showed another key than the known one.
    HostKeyMismatch,
    /// No such repository, or it is not shown to us.
    RepositoryNotFound,
    /// The repository has no such branch, or the local one no such object.
    RefNotFound,
    /// No connection, a name that does not resolve, a server's fault, or a broken transfer.
    Unreachable,
    /// The deadline passed.
    Timeout,
    /// The remote took the connection and refused the update of a ref.
    Rejected(Refusal),
    /// Objects are broken or refused by fsck; a mirror is to be made again.
    Corrupt,
    /// git said more than a caller is willing to hold.
    TooMuchOutput,
    /// A key or password that cannot be used as it is (empty, or with a line break).
    BadCredentials,
    /// This machine: git is missing, the disk is full, a bug.
    Local,
}

/// Why a remote refused to move a ref.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The ref is not where we said that it was: someone else moved it.
    Stale,
    /// A hook of the remote said no.
    Hook,
    /// The branch is protected.
    Protected,
    /// Any other refusal.
    Other,
}

impl Class {
    /// Whether trying again later, with nothing changed, can help.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout)
    }
}

/// A failed git operation: its class, what was attempted, and git's own last words.
#[derive(Clone, Debug, thiserror::Error)]
pub struct GitError {
    /// What a caller decides by.
    pub class: Class,
    /// What was attempted, such as `fetch from git@host:org/repo`.
    pub doing: String,
    /// The end of git's error output, without secrets; may be empty.
    pub detail: String,
}

impl GitError {
    /// An error of `class` while `doing`, with git's words.
    pub fn new(class: Class, doing: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { class, doing: doing.into(), detail: detail.into() }
    }

    pub(crate) fn local(doing: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::new(Class::Local, doing, why.to_string())
    }
}

impl fmt::Display for GitError {
    /// One sentence for a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = match self.class {
            Class::AuthFailed => "the remote refused the credentials",
            Class::PermissionDenied => "the remote does not allow this to these credentials",
            Class::UnknownHostKey => "the host's key is not among the known hosts",
            Class::HostKeyMismatch => "the host showed another key than the known one",
            Class::RepositoryNotFound => {
                "there is no such repository, or these credentials may not see it"
            }
            Class::RefNotFound => "there is no such branch or commit",
            Class::Unreachable => "the remote could not be reached, or broke off",
            Class::Timeout => "it took longer than its deadline",
            Class::Rejected(Refusal::Stale) => "somebody else moved the branch",
            Class::Rejected(Refusal::Hook) => "a hook of the remote refused it",
            Class::Rejected(Refusal::Protected) => "the branch is protected",
            Class::Rejected(Refusal::Other) => "the remote refused it",
            Class::Corrupt => "objects are broken",
            Class::TooMuchOutput => "git answered more than is reasonable",
            Class::BadCredentials => "the credentials cannot be used as they are",
            Class::Local => "git could not be run here",
        };
        write!(f, "{}: {said}", self.doing)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

/// Reads git's and ssh's error output (in the C locale) for what kind of fault it tells of.
pub(crate) fn classify(stderr: &str) -> Class {
    let text = stderr.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    // The order matters: every ssh fault ends in "could not read from remote repository".
    if has(&["remote host identification has changed"]) {
        return Class::HostKeyMismatch;
    }
    if has(&["host key verification failed", "host key is known for"]) {
        return Class::UnknownHostKey;
    }
    if has(&["couldn't find remote ref", "remote ref does not exist", "not our ref", "no such ref"])
    {
        return Class::RefNotFound;
    }
    if has(&[
        "permission denied (",
        "authentication failed",
        "could not read username",
        "could not read password",
        "error: 401",
    ]) {
        return Class::AuthFailed;
    }
    if has(&["too many authentication failures", "load key", "error in libcrypto"]) {
        return Class::AuthFailed;
    }
    if has(&[
        "error: 403",
        "access denied",
        "not allowed to",
        "permission to ",
        "write access to repository not granted",
        "is read only",
    ]) {
        return Class::PermissionDenied;
    }
    if has(&[
        "does not appear to be a git repository",
        "repository not found",
        "could not be found",
        "error: 404",
        "project not found",
    ]) {
        return Class::RepositoryNotFound;
    }
    if text.contains("repository '") && text.contains("not found") {
        return Class::RepositoryNotFound;
    }
    if has(&[
        "could not resolve",
        "connection refused",
        "failed to connect",
        "couldn't connect",
        "connection timed out",
        "no route to host",
    ]) {
        return Class::Unreachable;
    }
    // A fault in a pack received is told by fsck or index-pack, then followed by "remote end hung
    // up".
    if has(&[
        "fsck error",
        "error in object",
        "loose object",
        "bad object",
        "object file",
        "packfile",
        "unable to read tree",
        "bad tree object",
    ]) {
        return Class::Corrupt;
    }
    if has(&["no space left on device"]) {
        return Class::Local;
    }
    if has(&[
        "connection reset",
        "connection closed",
        "early eof",
        "hung up unexpectedly",
        "unexpected disconnect",
        "network is unreachable",
    ]) {
        return Class::Unreachable;
    }
    if has(&[
        "error: 5",
        "error: 429",
        "rpc failed",
        "empty reply",
        "timed out",
        "unable to access",
        "tls",
        "ssl",
    ]) {
        return Class::Unreachable;
    }
    if has(&["could not read from remote repository"]) {
        return Class::Unreachable;
    }
    Class::Local
}

/// The last lines of git's error output, for a person; at most `max` characters.
pub(crate) fn tail(stderr: &[u8], max: usize) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let joined = lines[lines.len().saturating_sub(6)..].join("; ");
    let cut = joined.chars().count().saturating_sub(max);
    joined.chars().skip(cut).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_and_ssh_say_is_understood() {
        let cases = [
            (
                "No ED25519 host key is known for h and you have requested strict checking.\r\nHost key verification failed.\r\nfatal: Could not read from remote repository.",
                Class::UnknownHostKey,
            ),
            (
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
                Class::HostKeyMismatch,
            ),
            (
                "git@h: Permission denied (publickey).\r\nfatal: Could not read from remote repository.",
                Class::AuthFailed,
            ),
            (
                "fatal: could not read Username for 'http://h': terminal prompts disabled",
                Class::AuthFailed,
            ),
            (
                "remote: Permission to o/r denied to u.\nfatal: unable to access: The requested URL returned error: 403",
                Class::PermissionDenied,
            ),
            (
                "ERROR: Repository not found.\nfatal: Could not read from remote repository.",
                Class::RepositoryNotFound,
            ),
            (
                "fatal: '/srv/x' does not appear to be a git repository\nfatal: Could not read from remote repository.",
                Class::RepositoryNotFound,
            ),
            ("fatal: repository 'http://h/x/' not found", Class::RepositoryNotFound),
            ("fatal: couldn't find remote ref refs/heads/x", Class::RefNotFound),
            ("ssh: Could not resolve hostname h: Name or service not known", Class::Unreachable),
            (
                "fatal: unable to access 'http://h/': Failed to connect to h port 80: Connection refused",
                Class::Unreachable,
            ),
            ("fatal: the remote end hung up unexpectedly", Class::Unreachable),
            (
                "error: object 12: missingEmail: invalid author\nfatal: fsck error in packed object",
                Class::Corrupt,
            ),
        ];
        for (text, want) in cases {
            assert_eq!(classify(text), want, "{text}");
        }
    }

    #[test]
    fn a_tail_is_short_and_of_one_line() {
        assert_eq!(tail(b"a\n\nb\x1b[31m\n", 100), "a; b[31m");
        assert_eq!(tail("xyz".as_bytes(), 2), "yz");
    }
}
