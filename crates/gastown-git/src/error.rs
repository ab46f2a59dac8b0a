//! Failures of git operations, classified so that callers decide without reading text.

use std::fmt;

use gastown_types::text;

/// Why a git operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The remote refused the credentials, or requires some and got none.
    AuthFailed,
    /// The remote accepts the credentials and does not allow the operation.
    PermissionDenied,
    /// ssh: the host's key is not in `known_hosts`.
    UnknownHostKey,
    /// ssh: the host's key differs from the one in `known_hosts`.
    HostKeyMismatch,
    /// The repository does not exist, or these credentials may not see it.
    RepositoryNotFound,
    /// The repository does not have the branch, or the local one the object.
    RefNotFound,
    /// No connection, a name that does not resolve, a server error, or a broken transfer.
    Unreachable,
    /// The deadline passed.
    Timeout,
    /// The remote refused to update a ref.
    Rejected(Refusal),
    /// Objects are corrupt or refused by fsck; a mirror has to be created again.
    Corrupt,
    /// The output is larger than the caller's limit.
    TooMuchOutput,
    /// A key or password that cannot be used: it is empty or has a line break.
    BadCredentials,
    /// A program that git needs, such as git-lfs, is not installed.
    MissingProgram,
    /// Another failure on this machine: git is missing, the disk is full, a bug.
    Local,
}

/// Why a remote refused to move a ref.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The ref is not at the expected commit: somebody else moved it.
    Stale,
    /// The remote could not lock or write the ref: another write of it is under way, or the remote
    /// has a fault. It may work later.
    Locked,
    /// A hook of the remote refused it.
    Hook,
    /// The branch is protected.
    Protected,
    /// The server, or a proxy before it, refuses the HTTP request with this status. Sent again, it
    /// is refused again.
    Http(u16),
    /// Any other refusal.
    Other,
}

impl Class {
    /// Whether the same operation may succeed later.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout)
    }
}

/// A failed git operation.
#[derive(Clone, Debug, thiserror::Error)]
pub struct GitError {
    /// The kind of failure.
    pub class: Class,
    /// What was attempted, such as `fetch from git@host:org/repo`.
    pub doing: String,
    /// The end of git's error output, without secrets; may be empty.
    pub detail: String,
}

impl GitError {
    /// An error of `class` while `doing`, with the end of git's output.
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
        let what = match self.class {
            Class::AuthFailed => "the remote refused the credentials",
            Class::PermissionDenied => "the remote does not allow this to these credentials",
            Class::UnknownHostKey => "the host key is not in known_hosts",
            Class::HostKeyMismatch => "the host key differs from the one in known_hosts",
            Class::RepositoryNotFound => {
                "the repository does not exist, or these credentials may not see it"
            }
            Class::RefNotFound => "the branch or commit does not exist",
            Class::Unreachable => "the remote could not be reached, or the connection broke",
            Class::Timeout => "it took longer than its deadline",
            Class::Rejected(Refusal::Stale) => "somebody else moved the branch",
            Class::Rejected(Refusal::Locked) => "the remote could not lock or write the ref",
            Class::Rejected(Refusal::Hook) => "a hook of the remote refused it",
            Class::Rejected(Refusal::Protected) => "the branch is protected",
            Class::Rejected(Refusal::Http(_)) => {
                "the server, or a proxy before it, refused the request"
            }
            Class::Rejected(Refusal::Other) => "the remote refused it",
            Class::Corrupt => "objects are corrupt",
            Class::TooMuchOutput => "there is more data than the limit allows",
            Class::BadCredentials => "the credentials cannot be used",
            Class::MissingProgram => "a program is missing on this machine",
            Class::Local => "it failed on this machine",
        };
        write!(f, "{}: {what}", self.doing)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

/// Parts of git's and ssh's error output in the C locale, in lower case, and the class of failure
/// that they mean; the first rule that matches counts. `*` separates parts that must all be there.
const RULES: &[(Class, &[&str])] = &[
    // The order matters: every ssh failure ends in "could not read from remote repository".
    (Class::HostKeyMismatch, &["remote host identification has changed"]),
    (Class::UnknownHostKey, &["host key verification failed", "host key is known for"]),
    (
        Class::RefNotFound,
        &[
            "couldn't find remote ref",
            "remote ref does not exist",
            "not our ref",
            "no such ref",
            "unadvertised object",
        ],
    ),
    (
        Class::AuthFailed,
        &[
            "permission denied (",
            "authentication failed",
            "could not read username",
            "could not read password",
            "too many authentication failures",
            "load key",
            "error in libcrypto",
        ],
    ),
    (
        Class::PermissionDenied,
        &[
            "access denied",
            "not allowed to",
            "permission to ",
            "write access to repository not granted",
            "is read only",
        ],
    ),
    (
        Class::RepositoryNotFound,
        &[
            "does not appear to be a git repository",
            "repository not found",
            "could not be found",
            "project not found",
            "repository '*not found",
        ],
    ),
    (
        Class::Unreachable,
        &[
            "could not resolve",
            "connection refused",
            "failed to connect",
            "couldn't connect",
            "connection timed out",
            "no route to host",
        ],
    ),
    // fsck or index-pack reports a bad pack, and "remote end hung up" follows it.
    (
        Class::Corrupt,
        &[
            "fsck error",
            "error in object",
            "loose object",
            "bad object",
            "object file",
            "packfile",
            "unable to read tree",
            "bad tree object",
        ],
    ),
    (Class::Local, &["no space left on device"]),
    (
        Class::Unreachable,
        &[
            "connection reset",
            "connection closed",
            "early eof",
            "hung up unexpectedly",
            "unexpected disconnect",
            "network is unreachable",
            "rpc failed",
            "empty reply",
            "timed out",
            "unable to access",
            "tls",
            "ssl",
            "could not read from remote repository",
        ],
    ),
];

/// What stands before an HTTP status in the error output of git and curl: of the server's own
/// answer, and of a proxy that opens no tunnel.
const HTTP_STATUS: [&str; 4] = [
    "the requested url returned error: ",
    "rpc failed; http ",
    "received http code ",
    "connect tunnel failed, response ",
];

/// The HTTP status of a failed request, in error output in lower case.
pub(crate) fn http_status(text: &str) -> Option<u16> {
    HTTP_STATUS.iter().find_map(|before| {
        let (_, after) = text.split_once(before)?;
        after.get(..3)?.parse().ok().filter(|status| (300..600).contains(status))
    })
}

/// The class of a failure by the HTTP status.
fn by_status(status: u16) -> Class {
    match status {
        401 => Class::AuthFailed,
        403 => Class::PermissionDenied,
        404 => Class::RepositoryNotFound,
        // A time-out, "too early", too many requests, and faults of the server.
        408 | 425 | 429 | 500.. => Class::Unreachable,
        _ => Class::Rejected(Refusal::Http(status)),
    }
}

/// The class of a failure from git's and ssh's error output.
pub(crate) fn classify(stderr: &str) -> Class {
    let text = stderr.to_ascii_lowercase();
    if let Some(status) = http_status(&text) {
        return by_status(status);
    }
    let matches = |pattern: &&str| pattern.split('*').all(|part| text.contains(part));
    let rule = RULES.iter().find(|(_, patterns)| patterns.iter().any(&matches));
    rule.map_or(Class::Local, |(class, _)| *class)
}

/// The last six lines of git's error output as one line of at most `max` characters.
pub(crate) fn tail(stderr: &[u8], max: usize) -> String {
    let output = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let joined = lines[lines.len().saturating_sub(6)..].join("; ");
    text::line(&text::block_end(&joined, max), max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_output_of_git_and_ssh_is_classified() {
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
                "error: RPC failed; HTTP 413 curl 22 The requested URL returned error: 413\nsend-pack: unexpected disconnect while reading sideband packet\nfatal: the remote end hung up unexpectedly",
                Class::Rejected(Refusal::Http(413)),
            ),
            (
                "fatal: unable to access 'https://h/r/': Received HTTP code 407 from proxy after CONNECT",
                Class::Rejected(Refusal::Http(407)),
            ),
            (
                "fatal: unable to access 'https://h/r/': CONNECT tunnel failed, response 502",
                Class::Unreachable,
            ),
            (
                "fatal: unable to access 'http://h/r/': The requested URL returned error: 429",
                Class::Unreachable,
            ),
            (
                "fatal: unable to access 'http://h/r/': The requested URL returned error: 401",
                Class::AuthFailed,
            ),
            (
                "error: RPC failed; HTTP 404 curl 22 The requested URL returned error: 404",
                Class::RepositoryNotFound,
            ),
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
    fn a_tail_is_one_short_line() {
        assert_eq!(tail(b"a\n\nb\x1b[31m\n", 100), "a; b\u{fffd}[31m");
        assert_eq!(tail("xyz".as_bytes(), 2), "…z");
    }
}
