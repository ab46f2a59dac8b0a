//! Commit objects as bytes: read without decoding, so that odd authors and encodings survive.

use gix::ObjectId;

/// A commit's fields as they are written in the object.
pub(crate) struct RawCommit<'a> {
    pub tree: ObjectId,
    pub parents: Vec<ObjectId>,
    pub author: &'a [u8],
    /// Seconds and zone of the committer; `0 +0000` where they cannot be read.
    pub date: &'a [u8],
    pub encoding: Option<&'a [u8]>,
    pub message: &'a [u8],
}

/// Reads a commit object; `None` when it is malformed.
pub(crate) fn parse(data: &[u8]) -> Option<RawCommit<'_>> {
    let (head, message) = split_at_blank_line(data);
    let hex = |h: &[u8]| ObjectId::from_hex(h).ok();
    let parents = head
        .split(|b| *b == b'\n')
        .take_while(|l| !l.starts_with(b"author "))
        .filter_map(|l| l.strip_prefix(b"parent "));
    let committer = header(head, "committer")?;
    let after =
        committer.iter().rposition(|b| *b == b'>').map_or(&b""[..], |at| &committer[at + 1..]);
    let when = after.trim_ascii();
    let sound = when.split(|b| *b == b' ').count() == 2
        && when.iter().all(|b| b.is_ascii_digit() || b" +-".contains(b));
    Some(RawCommit {
        tree: hex(header(head, "tree")?)?,
        parents: parents.filter_map(hex).collect(),
        author: header(head, "author")?,
        date: if sound { when } else { b"0 +0000" },
        encoding: header(head, "encoding"),
        message,
    })
}

/// The message of a commit object as text; bytes that are not UTF-8 are replaced.
pub(crate) fn message(data: &[u8]) -> String {
    String::from_utf8_lossy(split_at_blank_line(data).1).into_owned()
}

/// Whether the committer of a commit object is `committer` (`Name <mail>`).
pub(crate) fn is_by(data: &[u8], committer: &[u8]) -> bool {
    header(split_at_blank_line(data).0, "committer").is_some_and(|c| c.starts_with(committer))
}

fn split_at_blank_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.windows(2).position(|w| w == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, b""),
    }
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(name.as_bytes())?.strip_prefix(b" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_with_an_odd_author_and_a_signature_is_read_raw() {
        let data = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor \xff <> 12 -9999\ncommitter C <c> x\nencoding latin1\ngpgsig a\n b\n\nm\n";
        let p = parse(data).unwrap();
        assert_eq!(p.author, b"\xff <> 12 -9999");
        assert_eq!(p.date, b"0 +0000");
        assert_eq!(p.encoding, Some(&b"latin1"[..]));
        assert_eq!(p.message, b"m\n");
        assert!(p.parents.is_empty());
    }
}
