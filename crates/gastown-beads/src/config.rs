//! The settings of config.yaml that matter here.

/// The settings of config.yaml that the operator reads. They come from the repository, so they must
/// be checked like any other input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreConfig {
    /// The branch of the classic `bd sync`: `sync-branch`, or `branch` of `sync`.
    pub sync_branch: Option<String>,
    /// Whether a remote of the database is set (`sync.remote`, formerly `sync.git-remote`): then the
    /// Dolt database is authoritative.
    pub has_sync_remote: bool,
}

impl StoreConfig {
    /// Reads settings at the top level and one level below `sync`. Everything else is ignored, so no
    /// anchor, alias, tag or nesting of a hostile file is ever followed.
    pub fn parse(text: &str) -> Self {
        let mut config = Self::default();
        let mut section = "";
        for line in text.trim_start_matches('\u{feff}').lines() {
            let Some((key, value)) = setting(line) else { continue };
            let indented = line.starts_with([' ', '\t']);
            if !indented {
                section = if value.is_none() { key } else { "" };
            }
            let Some(value) = value else { continue };
            match (indented, section, key) {
                (false, _, "sync-branch" | "sync.branch") | (true, "sync", "branch") => {
                    config.sync_branch = Some(value)
                }
                (false, _, "sync.remote" | "sync.git-remote")
                | (true, "sync", "remote" | "git-remote") => config.has_sync_remote = true,
                _ => {}
            }
        }
        config
    }
}

/// The key and the scalar of a line; the scalar is absent where the line has none, or where it is
/// not a plain or quoted text.
fn setting(line: &str) -> Option<(&str, Option<String>)> {
    let content = line.trim();
    if content.starts_with('#') {
        return None;
    }
    let (key, rest) = content.split_once(':')?;
    let key = key.trim_end().trim_matches(['"', '\'']);
    if key.is_empty() || !rest.is_empty() && !rest.starts_with([' ', '\t']) {
        return None;
    }
    Some((key, scalar(rest.trim())))
}

fn scalar(text: &str) -> Option<String> {
    let value = match text.chars().next()? {
        quote @ ('"' | '\'') => {
            let (value, rest) = text[1..].split_once(quote)?;
            // A name never needs an escape, a doubled quote or text after the quotes.
            let tail = rest.trim_start();
            if value.contains('\\')
                || !(tail.is_empty() || (tail.starts_with('#') && rest.len() > tail.len()))
            {
                return None;
            }
            value
        }
        '#' | '&' | '*' | '!' | '|' | '>' | '[' | '{' | '%' | '@' | '`' => return None,
        _ => {
            let comment = text.find(" #").or_else(|| text.find("\t#"));
            text[..comment.unwrap_or(text.len())].trim_end()
        }
    };
    Some(value.to_owned()).filter(|value| {
        !value.is_empty() && value != "~" && value != "null" && !value.contains(char::is_control)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn branch(text: &str) -> Option<String> {
        StoreConfig::parse(text).sync_branch
    }

    #[test]
    fn settings_are_read_plain_quoted_and_nested() {
        for text in [
            "sync-branch: beads-sync",
            "sync-branch: \"beads-sync\"  # the branch",
            "sync-branch: 'beads-sync'\r\n",
            "\u{feff}sync-branch:\tbeads-sync # x",
            "sync.branch: beads-sync",
            "json: false\nsync:\n  branch: beads-sync\nother: x",
            "\"sync-branch\": beads-sync",
        ] {
            assert_eq!(branch(text).as_deref(), Some("beads-sync"), "{text}");
        }
    }

    #[test]
    fn comments_and_other_sections_are_not_settings() {
        for text in [
            "",
            "# sync-branch: x",
            "sync-branch:",
            "sync-branch: \"\"",
            "sync-branch: ~",
            "sync-branch: *alias",
            "sync-branch: [a]",
            "sync-branch:x",
            "dolt:\n  branch: x",
            "sync:\n  remote: y\nx: z\n  branch: x",
            "sync-branch: \"a\\nb\"",
            "sync-branch: 'a' b",
        ] {
            assert_eq!(branch(text), None, "{text}");
        }
    }

    #[test]
    fn a_remote_of_the_database_is_noticed() {
        assert!(StoreConfig::parse("sync:\n  remote: git+ssh://x/y.git").has_sync_remote);
        assert!(StoreConfig::parse("sync.git-remote: x").has_sync_remote);
        assert!(!StoreConfig::parse("# sync.remote: x").has_sync_remote);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC*|([a-z'\": #\\-\n\t]{0,80})") {
            let config = StoreConfig::parse(&text);
            prop_assert!(config.sync_branch.is_none_or(|branch| !branch.is_empty() && !branch.contains('\n')));
        }
    }
}
