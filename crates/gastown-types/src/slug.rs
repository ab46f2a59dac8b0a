//! Parts of object names, and labels, made from text that was written for people.

/// `text` as part of a DNS label: lowercase ASCII letters and digits, any run of other characters
/// as one `-`, none at either end; at most `max` bytes. Empty where the text has no such letter.
/// Different texts may have the same slug: a name that has to be unique needs a digest as well.
pub fn slug(text: &str, max: usize) -> String {
    let mut slug = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if slug.len() >= max {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// Whether Kubernetes accepts `text` as a label's value: at most 63 bytes of letters, digits, `-`, `_`
/// and `.`, a letter or digit at both ends; or empty.
pub fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        && is_edge(bytes.first())
        && is_edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slug_is_part_of_a_dns_label() {
        assert_eq!(slug("feature/BL_01.x", 50), "feature-bl-01-x");
        assert_eq!(slug("--a  b--", 50), "a-b");
        assert_eq!(slug("ab cd", 3), "ab");
        assert_eq!(slug("日本", 50), "");
    }

    #[test]
    fn a_label_value_is_what_the_api_server_accepts() {
        assert!(["", "a", "web-1.x_Y", &"a".repeat(63)].into_iter().all(is_label_value));
        assert!(!["-a", "a.", "a b", "é", &"a".repeat(64)].into_iter().any(is_label_value));
    }

    proptest! {
        #[test]
        fn any_text_gives_a_slug_within_its_bound(text in any::<String>(), max in 0_usize..64) {
            let made = slug(&text, max);
            prop_assert!(made.len() <= max);
            prop_assert!(made.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(!made.starts_with('-') && !made.ends_with('-') && !made.contains("--"));
            prop_assert_eq!(&slug(&made, max), &made);
        }
    }
}
