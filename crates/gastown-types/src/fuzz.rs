//! Checked texts from changed examples: what is accepted is accepted again, and written as it was.

use proptest::prelude::*;

use crate::{CommitId, GitUrl, Identity, text};

const IDENTITIES: &[&str] = &["Acme Bot <bot@example.org>", "Jürgen, Dr. (x) <j@h>", "b <b@h>"];
const COMMITS: &[&str] = &["a5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24"];
const URLS: &[&str] = &[
    "https://user@host.example:8443/org/repo.git",
    "git@host:org/repo.git",
    "ssh://git@[::1]:22/~x/repo",
    "file:///srv/git/repo",
];

proptest! {
    #[test]
    fn an_identity_is_one_line_with_one_address(input in gastown_fuzz::text(IDENTITIES)) {
        if let Ok(identity) = input.parse::<Identity>() {
            prop_assert_eq!(identity.as_str(), &input);
            prop_assert!(!input.contains(['\n', '\r', '\0']) && input.matches('<').count() == 1);
        }
    }

    #[test]
    fn a_commit_is_hexadecimal(input in gastown_fuzz::text(COMMITS)) {
        if let Ok(commit) = input.parse::<CommitId>() {
            prop_assert!(commit.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn a_url_is_no_option_and_has_no_control_characters(input in gastown_fuzz::text(URLS)) {
        if let Ok(url) = input.parse::<GitUrl>() {
            prop_assert!(!url.as_str().starts_with('-') && !url.host().starts_with('-'));
            prop_assert!(!url.as_str().contains(char::is_control));
            prop_assert_eq!(url.as_str().parse::<GitUrl>().unwrap().normalised(), url.normalised());
        }
    }

    #[test]
    fn a_line_is_one_line_of_bounded_length(input in gastown_fuzz::text(URLS), max in 0..300_usize) {
        let line = text::line(&input, max);
        prop_assert!(line.chars().count() <= max && !line.contains(char::is_control));
    }
}
