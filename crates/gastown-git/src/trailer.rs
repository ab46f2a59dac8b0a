//! The trailers of candidates: the one that ties a commit on the target to its request, and who may
//! write it; and `Signed-off-by`.

use gastown_types::Identity;

use crate::commit;

/// The trailer that proves which request a commit on the target belongs to.
pub(crate) const TRAILER: &str = "Gastown-Request";
/// The committer of candidates where none is given, as `Name <mail>`.
pub(crate) const COMMITTER: &str = "Gastown Refinery <refinery@gastown.io>";

/// Whether a commit object was made by us for the request `uid`: it has the request's trailer, and
/// as committer [`COMMITTER`] or the given one.
pub(crate) fn is_of_request(data: &[u8], uid: &str, committer: Option<&Identity>) -> bool {
    let names_it = |line: &str| {
        let value = line.trim_end().strip_prefix(TRAILER).and_then(|rest| rest.strip_prefix(": "));
        value == Some(uid)
    };
    let committers = [Some(COMMITTER), committer.map(Identity::as_str)];
    committers.into_iter().flatten().any(|c| commit::is_by(data, c.as_bytes()))
        && commit::message(data).lines().any(names_it)
}

/// The trailer with which a committer signs off a commit.
fn sign_off(committer: &str) -> String {
    format!("Signed-off-by: {committer}")
}

/// Whether a message has the sign-off of a committer.
pub(crate) fn is_signed_off(message: &[u8], committer: &str) -> bool {
    let line = sign_off(committer);
    message.split(|b| *b == b'\n').any(|l| l.trim_ascii_end() == line.as_bytes())
}

/// The message with the sign-off of a committer, unless it has it already.
pub(crate) fn signed_off(message: Vec<u8>, committer: &str) -> Vec<u8> {
    if is_signed_off(&message, committer) { message } else { append(message, &sign_off(committer)) }
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
    let text: Vec<u8> = if names_a_request(message) {
        let kept: Vec<&[u8]> =
            message.split(|b| *b == b'\n').filter(|l| !names_a_request(l)).collect();
        kept.join(&b'\n')
    } else {
        message.to_vec()
    };
    match request {
        Some(uid) => append(text, &format!("{TRAILER}: {uid}")),
        None => text,
    }
}

/// The message with one more trailer, in its block of trailers or in a new one.
fn append(mut text: Vec<u8>, trailer: &str) -> Vec<u8> {
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
    text.extend_from_slice(format!("{trailer}\n").as_bytes());
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
    fn a_candidate_s_message_is_that_of_earlier_versions() {
        let uid = "1a2b3c4d-0000-0000-0000-000000000002";
        for sample in gastown_compat::samples("candidate-message.txt") {
            let today = with_trailer(b"Add a pump\n\nIt moves water.\n", Some(uid));
            assert_eq!(String::from_utf8(today).unwrap().trim_end(), sample.text);
            let commit = format!(
                "tree {}\nauthor A <a@b> 1 +0000\ncommitter {COMMITTER} 1 +0000\n\n{}\n",
                "0".repeat(40),
                sample.text
            );
            assert!(is_of_request(commit.as_bytes(), uid, None), "{}", sample.version);
        }
    }

    #[test]
    fn a_forged_trailer_is_removed() {
        let text = with_trailer(b"Fix\n\ngastown-request: other\nrest\n", None);
        assert_eq!(text, b"Fix\n\nrest\n");
        assert!(!names_a_request(&text));
    }

    #[test]
    fn a_commit_is_signed_off_once() {
        let text = |m: &str| String::from_utf8(signed_off(m.into(), "A <a@b>")).unwrap();
        assert_eq!(text("fix: it\n"), "fix: it\n\nSigned-off-by: A <a@b>\n");
        assert_eq!(
            text("Fix\n\nSigned-off-by: B <a@b>\n"),
            "Fix\n\nSigned-off-by: B <a@b>\nSigned-off-by: A <a@b>\n"
        );
        let signed = "Fix\n\nSigned-off-by: A <a@b>\nReviewed-by: C <c@d>\n";
        assert_eq!(text(signed), signed);
    }
}
