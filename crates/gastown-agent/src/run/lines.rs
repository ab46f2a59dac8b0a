//! Lines of an agent's output, whatever it writes.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader, ReadBuf};
use tokio::process::ChildStdout;

/// An agent's standard output.
pub type Output = BufReader<Counted>;

/// Knows whether anything came, be it a whole line or not.
#[derive(Debug)]
pub struct Counted {
    from: ChildStdout,
    grown: bool,
}

impl Counted {
    /// Nothing came yet.
    pub fn new(from: ChildStdout) -> Self {
        Self { from, grown: false }
    }

    /// Whether anything came since this was asked last.
    pub fn has_grown(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.from).poll_read(cx, buf);
        self.grown |= buf.filled().len() > before;
        read
    }
}

/// The next line without its end, or `None` at the end of the stream. Of a line longer than `max`
/// only the fact remains: it comes back empty, and the rest of it is passed over.
pub async fn next<R: AsyncBufRead + Unpin>(
    from: &mut R,
    max: usize,
    line: &mut Vec<u8>,
) -> std::io::Result<Option<()>> {
    // `line` may hold the begin of a line when an earlier call was given up in a select: it is the
    // caller's to clear.
    loop {
        let chunk = from.fill_buf().await?;
        if chunk.is_empty() {
            return Ok((!line.is_empty()).then_some(()));
        }
        let (taken, ended) = match chunk.iter().position(|b| *b == b'\n') {
            Some(at) => (at, true),
            None => (chunk.len(), false),
        };
        // One byte past the bound marks a line that is too long.
        let room = (max + 1).saturating_sub(line.len()).min(taken);
        line.extend_from_slice(&chunk[..room]);
        from.consume(taken + usize::from(ended));
        if ended {
            if line.len() > max {
                line.clear();
            }
            return Ok(Some(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn all(mut bytes: &[u8], max: usize) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while next(&mut bytes, max, &mut line).await.unwrap().is_some() {
            lines.push(std::mem::take(&mut line));
        }
        lines
    }

    #[tokio::test]
    async fn a_line_too_long_is_passed_over_and_the_next_is_read() {
        let got = all(b"ab\nabcdef\ncd\n\nlast", 4).await;
        assert_eq!(got, [b"ab".to_vec(), vec![], b"cd".to_vec(), vec![], b"last".to_vec()]);
    }

    proptest! {
        #[test]
        fn no_line_is_longer_than_the_bound(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400), max in 1usize..20) {
            let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let ended = rt.block_on(all(&bytes, max));
            prop_assert!(ended.iter().rev().skip(1).all(|l| l.len() <= max));
        }
    }
}
