//! The trailer that ties a commit on the target to its request, and who may write it.

use crate::commit;

/// The trailer that proves which request a commit on the target belongs to.
pub(crate) const TRAILER: &str = "Gastown-Request";
/// The committer of candidates, as `Name <mail>`.
pub(crate) const COMMITTER: &[u8] = b"Gastown Refinery <refinery@gastown.io>";

/// Whether a commit object was made by us for the request `uid`: it has the request's trailer and
/// our committer.
pub(crate) fn is_of_request(data: &[u8], uid: &str) -> bool {
    let names_it = |line: &str| {
        let value = line.trim_end().strip_prefix(TRAILER).and_then(|rest| rest.strip_prefix(": "));
        value == Some(uid)
    };
    commit::is_by(data, COMMITTER) && commit::message(data).lines().any(names_it)
}

/// Whether a message or a line of it has the trailer of any request.
pub(crate) fn names_a_request(message: &[u8]) -> bool {
    let prefix = format!("{TRAILER}:");
    message.split(|b| *b == b'\n').any(|l| {
        l.trim_ascii()
            .get(..prefix.len())
            .is_some_and(|p| p.eq_ignore_ascii_case(prefix.as_bytes()))
    })
}

/// The message without trailers that claim to be ours (an author could have forged one), and with
/// the right one when `request` is given.
pub(crate) fn with_trailer(message: &[u8], request: Option<&str>) -> Vec<u8> {
    let mut text: Vec<u8> = if names_a_request(message) {
        let kept: Vec<&[u8]> =
            message.split(|b| *b == b'\n').filter(|l| !names_a_request(l)).collect();
        kept.join(&b'\n')
    } else {
        message.to_vec()
    };
    let Some(uid) = request else { return text };
    while text.last().is_some_and(u8::is_ascii_whitespace) {
        text.pop();
    }
    let last = text.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let is_trailer = |line: &[u8]| {
        let token = line.split(|b| *b == b':').next().unwrap_or_default();
        token.len() < line.len()
            && !token.is_empty()
            && token.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    // A subject such as `fix: this` alone is not a block of trailers.
    let has_body = text.windows(2).any(|w| w == b"\n\n");
    text.extend_from_slice(if has_body && is_trailer(last) { b"\n" } else { b"\n\n" });
    text.extend_from_slice(format!("{TRAILER}: {uid}\n").as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trailer_joins_a_block_of_trailers_or_starts_one() {
        let text = |m: &str| String::from_utf8(with_trailer(m.as_bytes(), Some("u1"))).unwrap();
        assert_eq!(text("fix: it\n"), "fix: it\n\nGastown-Request: u1\n");
        assert_eq!(text("Fix\n\nBecause.\n"), "Fix\n\nBecause.\n\nGastown-Request: u1\n");
        assert_eq!(
            text("Fix\n\nSigned-off-by: A <a@b>\n"),
            "Fix\n\nSigned-off-by: A <a@b>\nGastown-Request: u1\n"
        );
        assert_eq!(text(""), "\n\nGastown-Request: u1\n");
    }

    #[test]
    fn a_forged_trailer_is_removed() {
        let text = with_trailer(b"Fix\n\ngastown-request: other\nrest\n", None);
        assert_eq!(text, b"Fix\n\nrest\n");
        assert!(!names_a_request(&text));
    }
}
