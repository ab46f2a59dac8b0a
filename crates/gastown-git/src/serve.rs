//! Serving a mirror read-only over git's smart HTTP, one commit for each client.
//!
//! The server is git's own `upload-pack` with every ref hidden but the candidate's and those of the
//! tags in the history of the target branch. Protocol version 2 is not
//! offered: with it a client may ask for any object by its id, while versions 0 and 1 give only
//! what is advertised.

use std::io::Read as _;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gastown_types::{BranchName, CommitId};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::ChildStdout;
use tokio::time::Sleep;

use crate::error::{Class, GitError};
use crate::mirror::{CANDIDATES, MODULES};
use crate::spawn::{Call, Git, Running};
use crate::tags;

/// The content type of [`advertise`]'s body.
pub const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
/// The content type of [`answer`]'s body.
pub const RESULT: &str = "application/x-git-upload-pack-result";
/// The longest request body that is read, in bytes after decompression.
pub const MAX_REQUEST: usize = 4 << 20;

/// What one client may fetch.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The folder of the mirror.
    pub mirror: &'a Path,
    /// The candidate.
    pub candidate: &'a CommitId,
    /// The target branch: the tags in its history are offered too.
    pub target: &'a BranchName,
    /// The commit of a submodule of the candidate, which is offered instead of it.
    pub module: Option<&'a CommitId>,
}

impl Offer<'_> {
    /// The refs that are shown, or folders of them.
    fn shown(&self) -> Vec<String> {
        match self.module {
            Some(module) => vec![format!("{MODULES}{}/{module}", self.candidate)],
            None => vec![format!("{CANDIDATES}{}", self.candidate), tags::folder(self.target)],
        }
    }
}

fn upload_pack(git: &Git, offer: &Offer<'_>, args: &[&str]) -> Call {
    let mut all = vec!["upload-pack", "--strict", "--stateless-rpc"];
    all.extend(args);
    all.push(".");
    // These lines decide what is shown, not the repository's: the last matching one wins.
    let call = git.call(all).repo(offer.mirror).config("uploadpack.hideRefs", "refs/");
    let shown = offer.shown().into_iter();
    shown
        .fold(call, |call, name| call.config("uploadpack.hideRefs", format!("!{name}")))
        .config("uploadpack.allowTipSHA1InWant", "false")
        .config("uploadpack.allowReachableSHA1InWant", "false")
        .config("uploadpack.allowAnySHA1InWant", "false")
        .config("uploadpack.allowFilter", "false")
        .config("safe.directory", "*")
        .doing("serve a candidate")
}

/// Whether what is offered is in the mirror.
pub async fn is_there(git: &Git, offer: &Offer<'_>) -> bool {
    let Some(module) = offer.module else { return true };
    let name = format!("{MODULES}{}/{module}", offer.candidate);
    let call = git.call(["rev-parse", "--verify", "--quiet", &name]).repo(offer.mirror);
    call.any_exit().output().await.is_ok_and(|out| out.status.success())
}

/// The body of `GET info/refs?service=git-upload-pack`: the candidate's ref, and the tags.
pub async fn advertise(git: &Git, offer: &Offer<'_>) -> Result<Vec<u8>, GitError> {
    let call = upload_pack(git, offer, &["--http-backend-info-refs"]);
    let out = call.deadline(Duration::from_secs(30)).output().await?;
    let mut body = b"001e# service=git-upload-pack\n0000".to_vec();
    body.extend(out.stdout);
    Ok(body)
}

/// A request's body as git reads it; decompressed when `gzip` is set.
pub fn decode(body: &[u8], gzip: bool) -> Result<Vec<u8>, GitError> {
    let too_long = || {
        GitError::new(
            Class::TooMuchOutput,
            "read a fetch request",
            format!("more than {MAX_REQUEST} bytes"),
        )
    };
    if !gzip {
        return if body.len() > MAX_REQUEST { Err(too_long()) } else { Ok(body.to_vec()) };
    }
    let mut plain = Vec::new();
    let limit = u64::try_from(MAX_REQUEST).unwrap_or(u64::MAX) + 1;
    let read = flate2::read::MultiGzDecoder::new(body).take(limit).read_to_end(&mut plain);
    read.map_err(|e| GitError::new(Class::Corrupt, "decompress a fetch request", e.to_string()))?;
    if plain.len() > MAX_REQUEST { Err(too_long()) } else { Ok(plain) }
}

/// Answers `POST git-upload-pack`; `request` is the decoded body. The answer is streamed from git
/// and ends with an error when nothing was sent for as long as `quiet`.
pub fn answer(
    git: &Git,
    offer: &Offer<'_>,
    request: Vec<u8>,
    quiet: Duration,
) -> Result<Pack, GitError> {
    let mut call = upload_pack(git, offer, &[]).stdin(request);
    let mut running = call.start()?;
    let input = call.stdin_bytes();
    let stdin = running.child.stdin.take();
    let stdout = running
        .child
        .stdout
        .take()
        .ok_or_else(|| GitError::local("serve a candidate", "no pipe"))?;
    let stderr = running.child.stderr.take();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        if let (Some(mut pipe), Some(bytes)) = (stdin, input) {
            let _ = pipe.write_all(&bytes).await;
            let _ = pipe.shutdown().await;
        }
        // Read to the end, so that git does not block on a full pipe; its progress is not used.
        if let Some(mut err) = stderr {
            let mut start = Vec::new();
            let _ = (&mut err).take(4096).read_to_end(&mut start).await;
            let _ = tokio::io::copy(&mut err, &mut tokio::io::sink()).await;
            if !start.is_empty() {
                tracing::debug!(stderr = %String::from_utf8_lossy(&start), "upload-pack");
            }
        }
    });
    Ok(Pack { running, stdout, quiet, deadline: Box::pin(tokio::time::sleep(quiet)) })
}

/// The answer of `upload-pack`, as a stream of bytes. When it is dropped before its end, git is
/// killed.
pub struct Pack {
    running: Running,
    stdout: ChildStdout,
    quiet: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl AsyncRead for Pack {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "nothing could be sent in time",
            )));
        }
        let before = buf.filled().len();
        let done = Pin::new(&mut this.stdout).poll_read(cx, buf);
        if done.is_ready() {
            this.deadline.as_mut().reset(tokio::time::Instant::now() + this.quiet);
        }
        if matches!(done, Poll::Ready(Ok(()))) && buf.filled().len() == before {
            // Its output is closed; the child exits by itself and tokio reaps it.
            this.running.ended = true;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_request_is_read_up_to_its_limit() {
        use std::io::Write as _;
        let pack = |bytes: &[u8]| {
            let mut z = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            z.write_all(bytes).unwrap();
            z.finish().unwrap()
        };
        assert_eq!(decode(&pack(b"0000"), true).unwrap(), b"0000");
        assert_eq!(
            decode(&pack(&vec![0; MAX_REQUEST + 1]), true).unwrap_err().class,
            Class::TooMuchOutput
        );
        assert_eq!(decode(b"junk", true).unwrap_err().class, Class::Corrupt);
    }
}
