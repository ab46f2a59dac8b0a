use gastown_types::{BranchName, CommitId};
use sha2::{Digest, Sha256};

/// The first `hex` hexadecimal digits (at most 64) of the SHA-256 over the parts, each ended by a
/// zero byte.
pub fn short_digest(parts: &[&str], hex: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digits: Vec<String> = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let mut text = digits.concat();
    text.truncate(hex);
    text
}

/// A MergeRequest's name: the branch made DNS-safe and cut, and 12 digits that make it unique.
pub fn request_name(rig: &str, branch: &BranchName, commit: &CommitId, attempt: u32) -> String {
    let digits = short_digest(&[rig, branch.as_str(), commit.as_str(), &attempt.to_string()], 12);
    let mut safe = String::new();
    for c in branch.as_str().chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            safe.push(c);
        } else if !safe.is_empty() && !safe.ends_with('-') {
            safe.push('-');
        }
        if safe.len() >= 50 {
            break;
        }
    }
    let safe = safe.trim_matches('-');
    if safe.is_empty() { format!("mr-{digits}") } else { format!("{safe}-{digits}") }
}

/// A gate Job's name.
pub fn gate_job_name(
    refinery_uid: &str,
    candidate: &CommitId,
    gate: &str,
    spec: &str,
    run: u32,
) -> String {
    format!(
        "gate-{}",
        short_digest(&[refinery_uid, candidate.as_str(), gate, spec, &run.to_string()], 16)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_safe_and_tell_attempts_apart() {
        let (commit, name) = ("a".repeat(40).parse().unwrap(), |b: &str, n| {
            request_name("rig", &b.parse().unwrap(), &"a".repeat(40).parse().unwrap(), n)
        });
        assert!(name("feature/BL_01.x", 1).starts_with("feature-bl-01-x-"));
        assert_ne!(name("feature/x", 1), name("feature/x", 2));
        assert!(name("日本", 1).starts_with("mr-"));
        assert!(name(&"y".repeat(244), 1).len() <= 63);
        assert_eq!(gate_job_name("u", &commit, "test", "h", 1).len(), 21);
    }
}
