//! Ids of issues.

/// The longest id that `bd` can store, in bytes.
const MAX_ID: usize = 255;

/// Whether an id is valid: letters and digits of any script, `.`, `_`, `-`, `:`, `+` and `@`,
/// beginning with a letter or digit, without `..`, at most 255 bytes. Any other character could be
/// misread in a path, a ref, a terminal or a log.
pub fn is_valid_id(id: &str) -> bool {
    id.len() <= MAX_ID
        && id.starts_with(char::is_alphanumeric)
        && !id.contains("..")
        && id.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '+' | '@'))
}

/// The prefix of an id, without its hyphen: `gt-mq` of `gt-mq-a3f`, `bd-main` of `bd-main-idj.2`;
/// the whole id where it has no hyphen.
///
/// The rule of `bd`: cut at the last hyphen where what follows looks like a number or a hash of 3
/// to 8 base-36 characters (from 4 on it needs a digit, since it could be a word), else at the
/// first.
pub fn prefix_of(id: &str) -> &str {
    let root = id.split('.').next().unwrap_or(id);
    match root.rsplit_once('-') {
        Some((prefix, rest)) if looks_like_a_hash(rest) && !prefix.is_empty() => prefix,
        _ => root.split_once('-').map_or(root, |(prefix, _)| prefix),
    }
}

fn looks_like_a_hash(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let number = !text.is_empty() && digits == text.len();
    let base36 = text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    number || (base36 && (text.len() == 3 || ((4..=8).contains(&text.len()) && digits > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyphenated_prefixes_are_cut_at_the_hash() {
        for (id, prefix) in [
            ("web-k3f", "web"),
            ("web-k3f.1.2", "web"),
            ("gt-mq-a3f", "gt-mq"),
            ("bd-main-idj", "bd-main"),
            ("bd-17", "bd"),
            ("web-wisp-abc", "web-wisp"),
            ("web-some-words", "web"),
            ("web-a1b2c3d4e", "web"),
            ("alone", "alone"),
            ("-a3f", ""),
            ("", ""),
        ] {
            assert_eq!(prefix_of(id), prefix, "{id}");
        }
    }

    #[test]
    fn ids_that_could_be_misread_are_not_valid() {
        for id in [
            "",
            "../x",
            "a/../b",
            "a/b",
            "a\\b",
            "a..b",
            ".a",
            "-a",
            "a b",
            "a\u{1b}[2J",
            "a\n",
            "a\0",
            "\u{202e}a",
            &"a".repeat(256),
        ] {
            assert!(!is_valid_id(id), "{id:?}");
        }
        for id in ["web-1", "web-k3f.1", "Web_2-x", "größe-1", "bd-main-idj"] {
            assert!(is_valid_id(id), "{id:?}");
        }
    }
}
