use gastown_types::digest::short_digest;
use gastown_types::{BranchName, CommitId, slug};

/// A MergeRequest's name: the branch as a slug, and 12 digits that make it unique.
pub fn request_name(rig: &str, branch: &BranchName, commit: &CommitId, attempt: u32) -> String {
    let digits = short_digest(&[rig, branch.as_str(), commit.as_str(), &attempt.to_string()], 12);
    let slug = slug(branch.as_str(), 50);
    if slug.is_empty() { format!("mr-{digits}") } else { format!("{slug}-{digits}") }
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

    fn name(branch: &str, attempt: u32) -> String {
        request_name("rig", &branch.parse().unwrap(), &"a".repeat(40).parse().unwrap(), attempt)
    }

    #[test]
    fn names_are_dns_safe_and_differ_by_attempt() {
        let commit = "a".repeat(40).parse().unwrap();
        assert!(name("feature/BL_01.x", 1).starts_with("feature-bl-01-x-"));
        assert_ne!(name("feature/x", 1), name("feature/x", 2));
        assert!(name("日本", 1).starts_with("mr-"));
        assert!(name(&"y".repeat(244), 1).len() <= 63);
        assert_eq!(gate_job_name("u", &commit, "test", "h", 1).len(), 21);
    }

    #[test]
    fn names_of_live_objects_do_not_change() {
        let commit: CommitId = "a".repeat(40).parse().unwrap();
        assert_eq!(name("feature/BL_01.x", 1), "feature-bl-01-x-a4b2f6e55718");
        assert_eq!(
            name(&format!("{}-b", "y".repeat(49)), 1),
            "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy-9aec11440940"
        );
        assert_eq!(name("日本", 1), "mr-0548ade1da80");
        assert_eq!(gate_job_name("u", &commit, "test", "h", 1), "gate-24146c893e0b1a8b");
    }
}
