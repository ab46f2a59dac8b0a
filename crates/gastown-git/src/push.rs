//! Moving a remote's refs, always by compare-and-swap.

use std::collections::BTreeMap;
use std::path::Path;

use gastown_types::CommitId;

use crate::error::{GitError, Refusal, tail};
use crate::remote::Remote;
use crate::spawn::{Git, failure};

/// A ref of a remote to move, create or delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefUpdate {
    /// The full ref, such as `refs/heads/main`.
    pub name: String,
    /// The commit at which it must be now; `None`: it must not exist.
    pub expected: Option<CommitId>,
    /// The commit to move it to; `None` deletes it.
    pub new: Option<CommitId>,
}

/// The outcome of one [`RefUpdate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// The ref was moved (or would be, in a dry run).
    Done,
    /// The ref was there already.
    UpToDate,
    /// The remote refused the update; the text is git's summary and the end of its error output.
    Rejected(Refusal, String),
}

impl PushOutcome {
    /// Whether the ref is now where the update wants it.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Done | Self::UpToDate)
    }
}

impl Remote {
    /// Moves the remote's refs to commits of the bare repository `repo`: each only when it is at its
    /// `expected` commit, and several together or not at all. Returns one outcome for each update,
    /// in their order.
    pub async fn push(
        &self,
        git: &Git,
        repo: &Path,
        updates: &[RefUpdate],
    ) -> Result<Vec<PushOutcome>, GitError> {
        self.push_with(git, repo, updates, false).await
    }

    /// As [`Remote::push`], but nothing moves: the outcomes are what git expects. Hooks of the
    /// remote do not run.
    pub async fn push_dry_run(
        &self,
        git: &Git,
        repo: &Path,
        updates: &[RefUpdate],
    ) -> Result<Vec<PushOutcome>, GitError> {
        self.push_with(git, repo, updates, true).await
    }

    async fn push_with(
        &self,
        git: &Git,
        repo: &Path,
        updates: &[RefUpdate],
        dry: bool,
    ) -> Result<Vec<PushOutcome>, GitError> {
        if updates.is_empty() {
            return Ok(Vec::new());
        }
        let files = self.credential_files(git)?;
        let what = format!("push to {}", self.url);
        let args = push_args(self.url.as_str(), updates, dry);
        let call = git.call(args).repo(repo).doing(&what).any_exit().patient();
        let out = files.apply(call, &self.url).output().await?;
        let rows = porcelain(&String::from_utf8_lossy(&out.stdout));
        let gone = String::from_utf8_lossy(&out.stderr).contains("remote ref does not exist");
        let mut outcomes = Vec::new();
        for u in updates {
            match rows.get(&u.name) {
                Some((flag, summary)) => outcomes.push(outcome(*flag, summary, &out.stderr)),
                None if gone && u.new.is_none() => outcomes.push(PushOutcome::UpToDate),
                None => return Err(failure(&what, &out)),
            }
        }
        // git compares the lease first, so a push repeated after a lost answer looks stale: ask
        // where the ref is.
        let stale = |o: &PushOutcome| matches!(o, PushOutcome::Rejected(Refusal::Stale, _));
        if outcomes.iter().any(stale) {
            let names: Vec<String> = updates.iter().map(|u| u.name.clone()).collect();
            let now = self.ls_remote(git, &names).await?;
            for (u, o) in updates.iter().zip(&mut outcomes) {
                if stale(o) && now.get(&u.name) == u.new.as_ref() {
                    *o = PushOutcome::UpToDate;
                }
            }
        }
        Ok(outcomes)
    }
}

fn push_args(url: &str, updates: &[RefUpdate], dry: bool) -> Vec<String> {
    let mut args: Vec<String> =
        ["push", "--porcelain", "--progress", "--no-verify", "--no-follow-tags", "--no-signed"]
            .map(str::to_owned)
            .to_vec();
    if dry {
        args.push("--dry-run".to_owned());
    }
    if updates.len() > 1 {
        args.push("--atomic".to_owned());
    }
    for u in updates {
        let expected = u.expected.as_ref().map_or("", CommitId::as_str);
        args.push(format!("--force-with-lease={}:{expected}", u.name));
    }
    args.extend(["--".to_owned(), url.to_owned()]);
    for u in updates {
        args.push(format!("{}:{}", u.new.as_ref().map_or("", CommitId::as_str), u.name));
    }
    args
}

/// The status lines of `git push --porcelain`: ref → (flag, summary).
pub(crate) fn porcelain(text: &str) -> BTreeMap<String, (char, String)> {
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, '\t');
        let (Some(flag), Some(refs), Some(summary)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (Some(flag), Some((_, to))) = (flag.chars().next(), refs.rsplit_once(':')) else {
            continue;
        };
        rows.insert(to.to_owned(), (flag, summary.to_owned()));
    }
    rows
}

fn outcome(flag: char, summary: &str, stderr: &[u8]) -> PushOutcome {
    match flag {
        '=' => PushOutcome::UpToDate,
        '!' => {
            let end = tail(stderr, 300);
            let text =
                if end.is_empty() { summary.to_owned() } else { format!("{summary}: {end}") };
            PushOutcome::Rejected(refusal(summary, stderr), text)
        }
        _ => PushOutcome::Done,
    }
}

fn refusal(summary: &str, stderr: &[u8]) -> Refusal {
    let summary = summary.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|p| summary.contains(p));
    if has(&["protected", "deletion prohibited", "gh006", "gh013"]) {
        return Refusal::Protected;
    }
    if has(&["hook declined"]) {
        // Forges refuse a push to a protected branch by a hook; only the error output beside it
        // names the cause.
        let output = String::from_utf8_lossy(stderr).to_ascii_lowercase();
        let protected = output.contains("protected branch");
        return if protected { Refusal::Protected } else { Refusal::Hook };
    }
    if has(&[
        "stale info",
        "fetch first",
        "non-fast-forward",
        "reference already exists",
        "incorrect old value",
        "remote ref updated",
    ]) {
        return Refusal::Stale;
    }
    if has(&["cannot lock ref", "failed to update ref", "failed to lock", "already exists"]) {
        // Only the error output beside it states whether the ref was elsewhere, or cannot be written.
        let output = String::from_utf8_lossy(stderr).to_ascii_lowercase();
        let elsewhere = [&summary, &output]
            .iter()
            .any(|text| text.contains("but expected") || text.contains("reference already exists"));
        return if elsewhere { Refusal::Stale } else { Refusal::Locked };
    }
    Refusal::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn porcelain_lines_are_read_by_their_flag() {
        let rows = porcelain(
            "To file:///x\n \tabc:refs/heads/a\tabc..def\n!\t(delete):refs/heads/b\t[rejected] (stale info)\nDone\n",
        );
        assert_eq!(rows["refs/heads/a"].0, ' ');
        assert_eq!(
            outcome('!', &rows["refs/heads/b"].1, b""),
            PushOutcome::Rejected(Refusal::Stale, "[rejected] (stale info)".into())
        );
        let hook = outcome(
            '!',
            "[remote rejected] (pre-receive hook declined)",
            b"remote: GL-HOOK-ERR: no",
        );
        assert!(matches!(hook, PushOutcome::Rejected(Refusal::Hook, _)));
        let protected = outcome('!', "[remote rejected] (protected branch hook declined)", b"");
        assert!(matches!(protected, PushOutcome::Rejected(Refusal::Protected, _)));
    }

    #[test]
    fn a_ref_that_cannot_be_written_has_not_moved() {
        let of = |summary: &str, stderr: &str| refusal(summary, stderr.as_bytes());
        let failed = "[remote rejected] (failed to update ref)";
        let raced = "remote: error: cannot lock ref 'refs/heads/a': is at 1111 but expected 2222";
        assert_eq!(of(failed, raced), Refusal::Stale);
        let locked = "remote: error: Unable to create '/r.git/refs/heads/a.lock': File exists.";
        assert_eq!(of(failed, locked), Refusal::Locked);
        assert_eq!(of(failed, ""), Refusal::Locked);
        let summary = "[remote rejected] (cannot lock ref 'refs/heads/a': is at 1 but expected 2)";
        assert_eq!(of(summary, ""), Refusal::Stale);
        assert_eq!(of("[rejected] (stale info)", ""), Refusal::Stale);
        assert_eq!(of("[remote rejected] (unpacker error)", ""), Refusal::Other);
    }
}
