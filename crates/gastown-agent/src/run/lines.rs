//! Lines of an agent's output, whatever bytes it writes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, Decoder, FramedRead};

/// The lines of an agent's standard output, without their ends.
pub type Lines<R> = FramedRead<Counted<R>, LineCodec>;

/// Reads `output` as lines of at most `max` bytes. A longer line is read as an empty one: the rest
/// of it is skipped.
pub fn lines<R: AsyncRead>(output: R, max: usize) -> Lines<R> {
    let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), Vec::new(), max);
    FramedRead::new(Counted { from: output, has_grown: false }, LineCodec(codec))
}

/// Lines as bytes. `LinesCodec` would refuse bytes that are not UTF-8 and remove `\r`, but the lines
/// go to the container's log as they are. A line that is too long is not an error here, because
/// [`FramedRead`] pauses after an error and would hold back lines that it has read already.
pub struct LineCodec(AnyDelimiterCodec);

impl Decoder for LineCodec {
    type Item = Bytes;
    type Error = std::io::Error;

    fn decode(&mut self, from: &mut BytesMut) -> std::io::Result<Option<Bytes>> {
        too_long_as_empty(self.0.decode(from))
    }

    fn decode_eof(&mut self, from: &mut BytesMut) -> std::io::Result<Option<Bytes>> {
        too_long_as_empty(self.0.decode_eof(from))
    }
}

fn too_long_as_empty(
    line: Result<Option<Bytes>, AnyDelimiterCodecError>,
) -> std::io::Result<Option<Bytes>> {
    match line {
        Ok(line) => Ok(line),
        Err(AnyDelimiterCodecError::MaxChunkLengthExceeded) => Ok(Some(Bytes::new())),
        Err(AnyDelimiterCodecError::Io(e)) => Err(e),
    }
}

/// Output that knows whether bytes came, be they a whole line or not.
#[derive(Debug)]
pub struct Counted<R> {
    from: R,
    has_grown: bool,
}

impl<R> Counted<R> {
    /// Whether bytes came since this was called last.
    pub fn has_grown(&mut self) -> bool {
        std::mem::take(&mut self.has_grown)
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.from).poll_read(cx, buf);
        self.has_grown |= buf.filled().len() > before;
        read
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_stream::StreamExt as _;

    use super::*;

    async fn all(bytes: &[u8], max: usize) -> Vec<Bytes> {
        lines(bytes, max).map(Result::unwrap).collect().await
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_skipped_and_the_next_one_is_read() {
        let got = all(b"ab\nabcdef\ncd\n\nlast", 4).await;
        assert_eq!(got, ["ab", "", "cd", "", "last"]);
        assert_eq!(all(b"ab\nabcdef", 4).await, ["ab", ""]);
    }

    #[tokio::test]
    async fn bytes_of_a_line_stay_as_they_are() {
        assert_eq!(all(b"\xff\r\n", 4).await, [&b"\xff\r"[..]]);
    }

    #[tokio::test]
    async fn lines_that_were_read_with_the_end_of_a_too_long_one_are_not_held_back() {
        let (mut write, read) = tokio::io::duplex(64);
        let mut lines = lines(read, 4);
        tokio::io::AsyncWriteExt::write_all(&mut write, b"abcdef\ncd\n").await.unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap(), "");
        assert_eq!(lines.next().await.unwrap().unwrap(), "cd");
        assert!(lines.get_mut().has_grown() && !lines.get_mut().has_grown());
    }

    proptest! {
        #[test]
        fn no_line_is_longer_than_the_bound(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400), max in 1usize..20) {
            let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = rt.block_on(all(&bytes, max));
            prop_assert!(read.iter().all(|l| l.len() <= max));
        }
    }
}
