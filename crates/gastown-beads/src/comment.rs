//! Ids of new comments.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::{dialect::Dialect, set::IssueSet};

/// The id of a new comment on `id`, as JSON text: the next number of the file in classic and `br`
/// files, a version 7 UUID in exports. It depends on the arguments only, so the same comment has the
/// same id wherever it is made. `None` where the numbers are used up.
pub(crate) fn new_id(
    issues: &IssueSet,
    id: &str,
    author: &str,
    text: &str,
    now: Timestamp,
) -> Option<String> {
    match issues.dialect() {
        Dialect::Export => Some(format!("\"{}\"", uuid(id, author, text, now))),
        Dialect::Classic | Dialect::Br => {
            let numbers = issues
                .iter_any()
                .flat_map(|issue| &issue.comments)
                .filter_map(|comment| comment.id.parse::<u64>().ok());
            Some(numbers.max().unwrap_or(0).checked_add(1)?.to_string())
        }
    }
}

/// A version 7 UUID (RFC 9562 §5.7) with a digest in the place of the random bits.
fn uuid(id: &str, author: &str, text: &str, now: Timestamp) -> String {
    let mut digest = Sha256::new();
    for part in [id, author, text] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.update(now.as_nanosecond().to_be_bytes());
    let digest = digest.finalize();
    let mut bytes = [0_u8; 16];
    bytes[..6].copy_from_slice(&now.as_millisecond().to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&digest[..10]);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_version_7_and_its_millisecond() {
        let now: Timestamp = "2026-11-23T00:16:26.292Z".parse().unwrap();
        let uuid = uuid("web-1", "ada", "hello", now);
        assert_eq!(&uuid[..15], "01a205c2-dcb4-7");
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
        assert_eq!(uuid.len(), 36);
    }

    #[test]
    fn a_uuid_depends_on_each_part_and_on_nothing_else() {
        let now: Timestamp = "2026-11-23T00:16:26Z".parse().unwrap();
        assert_eq!(uuid("a", "b", "c", now), uuid("a", "b", "c", now));
        for other in [
            uuid("ab", "", "c", now),
            uuid("a", "bc", "", now),
            uuid("a", "b", "d", now),
            uuid("a", "b", "c", Timestamp::UNIX_EPOCH),
        ] {
            assert_ne!(uuid("a", "b", "c", now), other);
        }
    }
}
