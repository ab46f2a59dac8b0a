//! The records that the containers of a polecat's pod leave when they end: their termination
//! messages.
//!
//! Each is one line of JSON of at most [`MAX_BYTES`], with a version. The kubelet copies it into
//! the pod's status. Those of `init` and `sync` are believed; that of `run`, whose container a
//! hostile agent shares, is only a claim.

use gastown_types::CommitId;
use serde::{Deserialize, Serialize};

/// How much of a container's termination message the kubelet keeps, in bytes.
pub const MAX_BYTES: usize = 4096;

/// The version of the format that this code writes. A record of another version is read for what is
/// known of it: fields and results are only ever added, and an unknown result reads as `Unknown`.
pub const VERSION: u32 = 2;

/// The record of `gt init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitReport {
    /// [`VERSION`].
    pub v: u32,
    /// How it ended.
    pub result: InitResult,
    /// One sentence for a person: what is missing, where, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The target branch's commit that the work starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<CommitId>,
    /// The work branch's commit on the remote, if the branch existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<CommitId>,
}

/// How `gt init` ended. After any other result than [`InitResult::Ready`] no agent is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InitResult {
    /// The workspace is ready and pushing is allowed.
    Ready,
    /// A Secret, or the key in it that the URL needs, does not exist.
    SecretNotFound,
    /// The known-hosts ConfigMap or its key does not exist.
    ConfigMapNotFound,
    /// The remote refused the credentials.
    BadCredentials,
    /// The remote took the credentials for reading and refused a push.
    PushDenied,
    /// The host's key is not among the known ones.
    UnknownHostKey,
    /// The host showed another key than the known one.
    HostKeyMismatch,
    /// The remote has no such repository (or does not show it to us).
    RepositoryNotFound,
    /// The repository has no such target branch.
    BranchNotFound,
    /// The work branch already exists on the remote and is not this Polecat's.
    BranchExists,
    /// No connection, a time-out, or the remote broke off.
    RemoteUnreachable,
    /// The server, or a proxy before it, refused the request in a way that repeating does not mend.
    RemoteRefused,
    /// A submodule of the repository could not be fetched.
    SubmoduleUnavailable,
    /// The content of large files (git LFS) could not be fetched.
    LfsUnavailable,
    /// The pod's configuration is invalid (a URL or branch).
    InvalidConfig,
    /// The operator's own code failed (a full disk, a bug).
    Internal,
    /// A result that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The record of `gt sync`. Only this one is believed about what the remote holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncReport {
    /// [`VERSION`].
    pub v: u32,
    /// Whether the remote branch was read back and holds `commit`.
    pub result: SyncResult,
    /// One sentence for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The work branch's last commit that the remote was seen to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The merge base of `commit` and the target branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<CommitId>,
    /// How many commits `commit` is ahead of the target branch; absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u32>,
    /// A digest of what the commits between `base` and `commit` change, and of `base`. Messages,
    /// authors, empty commits and beads do not count. Absent when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<String>,
    /// The agent's last commit when it could not be brought to the branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpushed: Option<CommitId>,
    /// The snapshot's ref on the remote, when one was needed (dirty tree, or commits that the
    /// branch does not hold).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wip: Option<String>,
    /// What the snapshot's ref holds beside the work branch, most important first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saved: Vec<Saved>,
    /// How many entries of `saved` did not fit into the record; the snapshot's commit message has
    /// all of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub saved_more: u32,
    /// What is in the pod and not on the remote, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsaved: Vec<String>,
    /// How many entries of `unsaved` did not fit into the record.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsaved_more: u32,
}

// serde's skip_serializing_if passes a reference
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Work that is on the remote beside the work branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// The ref on the remote from which `commit` can be fetched.
    pub r#ref: String,
    /// The commit.
    pub commit: CommitId,
    /// What it was in the pod, such as `branch side` or `uncommitted files`.
    pub of: String,
    /// How many files could not be saved with it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u32,
}

/// How pushing the work to the remote ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SyncResult {
    /// Everything that the agent committed is on the remote branch.
    Pushed,
    /// The agent committed nothing and the branch did not exist.
    NoChanges,
    /// Another writer moved the branch; the agent's commits are in the snapshot ref.
    PushRace,
    /// The remote refused the push (a hook, a protected branch, permissions).
    PushRejected,
    /// The agent's objects are broken or were refused by fsck.
    BadObjects,
    /// There was no connection until the pod ended; what could not be pushed is lost with it.
    RemoteUnreachable,
    /// The remote refused the credentials until the pod ended, or showed another host key, or had no
    /// such repository; what could not be pushed is lost with the pod.
    AccessDenied,
    /// Nothing is on the work branch, and several other branches hold different work.
    AmbiguousWork,
    /// The operator's own code failed.
    Internal,
    /// A result that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The record of `gt run`. The agent could have written it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// [`VERSION`].
    pub v: u32,
    /// How the agent ended.
    pub exit: AgentExit,
    /// One sentence for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The agent's exit code, when it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// When a rate limit ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_at: Option<i64>,
    /// The model that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What the agent used.
    #[serde(default)]
    pub usage: Usage,
}

/// How the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AgentExit {
    /// It claims that the task is done.
    Completed,
    /// It claims that it cannot do the task (`gt done --exit failed`).
    GaveUp,
    /// It ended with an error of its own.
    Failed,
    /// A signal that was not ours ended it, or its output broke off.
    Crashed,
    /// Its time was up; the work was saved.
    Deadline,
    /// It was drained; the work was saved.
    Drained,
    /// A limit of `spec.budget` was reached; the work was saved.
    BudgetExceeded,
    /// The model's service limited the rate of requests.
    RateLimited,
    /// The model's service refused the credentials.
    BadCredentials,
    /// The image is missing something of the contract; the message names it.
    ImageLacks,
    /// An end that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The tokens and the cost of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Turns of the conversation.
    pub turns: u64,
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Tokens read from the prompt cache.
    pub cache_read_tokens: u64,
    /// Tokens written to the prompt cache.
    pub cache_write_tokens: u64,
    /// The cost in US dollars, as the agent estimates it.
    pub cost_usd: f64,
}

/// Parses a termination message, which may be hostile: `None` when it is not exactly one valid
/// record.
pub fn parse<T: serde::de::DeserializeOwned + Versioned>(text: &str) -> Option<T> {
    if text.len() > MAX_BYTES {
        return None;
    }
    serde_json::from_str::<T>(text.trim()).ok().filter(|r| r.version() >= 1)
}

/// Renders a record as one line of at most [`MAX_BYTES`]: what is too long is shortened.
pub fn render<T: Serialize + Versioned>(record: &mut T) -> String {
    loop {
        let text = serde_json::to_string(record).unwrap_or_default();
        if text.len() <= MAX_BYTES || !record.shorten() {
            return text;
        }
    }
}

/// More entries of a list than this never fit.
const MOST_ENTRIES: usize = 512;

/// A message shorter than this many characters is kept while a list can be shortened instead.
const KEPT_MESSAGE: usize = 800;

/// A record with a version of the format, and parts that may be cut.
pub trait Versioned {
    /// The version of its format.
    fn version(&self) -> u32;
    /// Its message.
    fn message_mut(&mut self) -> &mut String;
    /// Makes it shorter; `false` when nothing is left to cut.
    fn shorten(&mut self) -> bool {
        halve(self.message_mut())
    }
}

fn halve(text: &mut String) -> bool {
    let keep = text.chars().count() / 2;
    let shorter = !text.is_empty();
    *text = text.chars().take(keep).collect();
    shorter
}

/// Cuts a list to [`MOST_ENTRIES`], and counts what is gone.
fn cut<T>(list: &mut Vec<T>, more: &mut u32) -> bool {
    let gone = list.len().saturating_sub(MOST_ENTRIES);
    list.truncate(MOST_ENTRIES);
    *more = more.saturating_add(u32::try_from(gone).unwrap_or(u32::MAX));
    gone > 0
}

impl Versioned for InitReport {
    fn version(&self) -> u32 {
        self.v
    }
    fn message_mut(&mut self) -> &mut String {
        &mut self.message
    }
}

impl Versioned for RunReport {
    fn version(&self) -> u32 {
        self.v
    }
    fn message_mut(&mut self) -> &mut String {
        &mut self.message
    }
}

impl Versioned for SyncReport {
    fn version(&self) -> u32 {
        self.v
    }
    fn message_mut(&mut self) -> &mut String {
        &mut self.message
    }
    fn shorten(&mut self) -> bool {
        // A workspace may have a hundred thousand branches: one entry a step would never end.
        let shorter = cut(&mut self.saved, &mut self.saved_more);
        if cut(&mut self.unsaved, &mut self.unsaved_more) || shorter {
            return true;
        }
        if self.message.chars().count() > KEPT_MESSAGE {
            return halve(&mut self.message);
        }
        if self.saved.len() > 1 && self.saved.len() >= self.unsaved.len() {
            self.saved_more += u32::from(self.saved.pop().is_some());
            return true;
        }
        if self.unsaved.pop().is_some() {
            self.unsaved_more += 1;
            return true;
        }
        if self.saved.pop().is_some() {
            self.saved_more += 1;
            return true;
        }
        halve(&mut self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(message: &str) -> RunReport {
        RunReport {
            v: VERSION,
            exit: AgentExit::Completed,
            message: message.into(),
            code: Some(0),
            reset_at: None,
            model: None,
            usage: Usage::default(),
        }
    }

    #[test]
    fn a_record_is_parsed_as_it_was_rendered() {
        let mut r = run("fine");
        assert_eq!(parse::<RunReport>(&render(&mut r)), Some(r));
    }

    #[test]
    fn a_long_message_is_cut_so_that_the_kubelet_keeps_the_whole_record() {
        let text = render(&mut run(&"\u{1F980}\n".repeat(5000)));
        assert!(text.len() <= MAX_BYTES);
        assert_eq!(parse::<RunReport>(&text).map(|r| r.exit), Some(AgentExit::Completed));
    }

    #[test]
    fn a_newer_record_is_read_for_what_is_known_of_it() {
        let text = r#"{"v":9,"result":"Postponed","commit":"HEAD of mine","more":[1]}"#;
        assert_eq!(parse::<SyncReport>(text), None, "what is known must still be valid");
        let text = r#"{"v":9,"result":"Postponed","ahead":2,"more":[1]}"#;
        let read = parse::<SyncReport>(text).unwrap();
        assert_eq!((read.result, read.ahead), (SyncResult::Unknown, Some(2)));
        let text = r#"{"v":3,"exit":"Evaporated"}"#;
        assert_eq!(parse::<RunReport>(text).unwrap().exit, AgentExit::Unknown);
        let text = r#"{"v":3,"result":"LicenseMissing"}"#;
        assert_eq!(parse::<InitReport>(text).unwrap().result, InitResult::Unknown);
    }

    #[test]
    fn lists_that_are_too_long_are_cut_and_counted() {
        let commit: CommitId = "c".repeat(40).parse().unwrap();
        let entry = |n: usize| Saved {
            r#ref: "refs/gastown/wip/work/toast/1".into(),
            commit: commit.clone(),
            of: format!("branch {n}"),
            skipped: 0,
        };
        let mut r = SyncReport {
            v: VERSION,
            result: SyncResult::Pushed,
            message: "m".repeat(3000),
            commit: Some(commit.clone()),
            base: None,
            ahead: Some(1),
            changes: None,
            unpushed: None,
            wip: None,
            saved: (0..100_000).map(entry).collect(),
            saved_more: 0,
            unsaved: (0..500).map(|n| format!("branch b{n}: broken")).collect(),
            unsaved_more: 0,
        };
        let read = parse::<SyncReport>(&render(&mut r)).unwrap();
        assert!(!read.saved.is_empty() && !read.unsaved.is_empty() && !read.message.is_empty());
        assert_eq!(read.saved.len() + read.saved_more as usize, 100_000);
        assert_eq!(read.unsaved.len() + read.unsaved_more as usize, 500);
        assert_eq!(read.saved[0].of, "branch 0");
    }

    #[test]
    fn a_longer_text_is_not_a_record() {
        assert_eq!(
            parse::<RunReport>(&format!("{}{}", render(&mut run("")), " ".repeat(MAX_BYTES))),
            None
        );
        assert_eq!(parse::<SyncReport>(r#"{"v":1,"result":"Pushed","commit":"HEAD"}"#), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(s in "\\PC{0,200}") {
            let _ = (parse::<InitReport>(&s), parse::<SyncReport>(&s), parse::<RunReport>(&s));
        }

        #[test]
        fn any_message_fits(message in "\\PC{0,9000}") {
            proptest::prop_assert!(render(&mut run(&message)).len() <= MAX_BYTES);
        }
    }
}
