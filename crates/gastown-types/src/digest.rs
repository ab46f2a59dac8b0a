//! Digests as lowercase hexadecimal text: for names made from content, and for detecting changes.

use sha2::{Digest as _, Sha256};

/// The SHA-256 of `bytes`, 64 digits.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The first `digits` digits (at most 64) of the SHA-256 over `parts`, each ended by a zero byte,
/// so that `["ab", "c"]` and `["a", "bc"]` differ. Where a part may hold a zero byte, it has to be
/// the last one.
pub fn short_digest(parts: &[&str], digits: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut text = hex::encode(hash.finalize());
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_sha256sum() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
        assert_eq!(short_digest(&[], 16), empty[..16]);
        assert_eq!(short_digest(&[], 99).len(), 64);
    }

    #[test]
    fn the_borders_of_parts_change_the_digest() {
        assert_ne!(short_digest(&["ab", "c"], 16), short_digest(&["a", "bc"], 16));
        assert_ne!(short_digest(&["a", ""], 16), short_digest(&["a"], 16));
    }
}
