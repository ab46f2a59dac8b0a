//! Cleans untrusted text for display: one place decides which characters may be shown.
//!
//! Terminals interpret control characters, and bidirectional and zero-width characters make a line
//! look like another one. Line breaks become spaces in [`line()`] and stay in [`block()`];
//! every other hidden character becomes U+FFFD, so that a reader sees that there was one.

/// Replaces a hidden character.
const REPLACEMENT: char = '\u{fffd}';
/// Replaces the rest of a text that is cut.
const ELLIPSIS: char = '…';

/// Whether a character is invisible, or changes how its neighbours are displayed: controls (C0, C1, DEL),
/// line and paragraph separators, bidirectional marks and overrides, zero-width and other invisible
/// characters, variation selectors' supplement and tags. Visible white space is not hidden.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// One line of at most `max` characters: line breaks and tabs become spaces, other hidden
/// characters U+FFFD, and a text that is longer ends in `…`. White space at both ends goes.
pub fn line(text: &str, max: usize) -> String {
    let shown = text.trim().chars().map(|c| match c {
        '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        c => visible(c),
    });
    cut(shown, max)
}

/// A text of at most `max` characters that keeps its line breaks and tabs (`\r\n` becomes `\n`);
/// other hidden characters become U+FFFD, and a text that is longer ends in `…`.
pub fn block(text: &str, max: usize) -> String {
    cut(block_chars(text), max)
}

/// The last `max` characters of a text, cleaned as [`block()`] does; a text that is longer begins
/// with `…`. For logs, where the error is at the end.
pub fn block_end(text: &str, max: usize) -> String {
    let all: Vec<char> = block_chars(text).collect();
    match all.len().checked_sub(max).filter(|more| *more > 0) {
        Some(more) if max > 0 => {
            std::iter::once(ELLIPSIS).chain(all.into_iter().skip(more + 1)).collect()
        }
        Some(_) => String::new(),
        None => all.into_iter().collect(),
    }
}

/// The longest beginning of `text` of at most `max` bytes that ends between two characters.
pub fn truncate(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

fn visible(c: char) -> char {
    if is_hidden(c) { REPLACEMENT } else { c }
}

fn block_chars(text: &str) -> impl Iterator<Item = char> + '_ {
    let mut rest = text.chars().peekable();
    std::iter::from_fn(move || {
        let c = rest.next()?;
        Some(match c {
            '\r' if rest.peek() == Some(&'\n') => {
                rest.next();
                '\n'
            }
            '\n' | '\t' => c,
            c => visible(c),
        })
    })
}

fn cut(chars: impl Iterator<Item = char>, max: usize) -> String {
    let mut text = String::new();
    let mut chars = chars.peekable();
    for taken in 1..=max {
        let Some(c) = chars.next() else { break };
        text.push(if taken == max && chars.peek().is_some() { ELLIPSIS } else { c });
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_has_no_breaks_and_shows_what_was_hidden() {
        assert_eq!(line(" a\nb\tc\r", 10), "a b c");
        assert_eq!(
            line("red \u{1b}[31m and \u{202e}txt.exe", 99),
            "red \u{fffd}[31m and \u{fffd}txt.exe"
        );
        assert_eq!(line("zero\u{200b}width\u{feff}", 99), "zero\u{fffd}width\u{fffd}");
        assert_eq!(line("tag\u{e0041}", 99), "tag\u{fffd}");
        assert_eq!(line("日本語", 2), "日…");
        assert_eq!(line("日本", 2), "日本");
        assert_eq!(line("anything", 0), "");
    }

    #[test]
    fn a_block_keeps_its_lines_and_its_end_is_the_end() {
        assert_eq!(block("a\r\nb\n\tc\u{7}\rd", 99), "a\nb\n\tc\u{fffd}\u{fffd}d");
        assert_eq!(block_end("one\ntwo\nthree", 6), "…three");
        assert_eq!(block_end("three", 5), "three");
        assert_eq!(block_end("three", 0), "");
    }

    #[test]
    fn bytes_are_cut_between_characters() {
        assert_eq!(truncate("aé", 2), "a");
        assert_eq!(truncate("aé", 3), "aé");
        assert_eq!(truncate("aé", 99), "aé");
    }

    proptest! {
        #[test]
        fn nothing_hidden_passes_and_no_bound_is_exceeded(text in any::<String>(), max in 0_usize..40) {
            let one = line(&text, max);
            prop_assert!(one.chars().count() <= max && !one.chars().any(is_hidden));
            for many in [block(&text, max), block_end(&text, max)] {
                prop_assert!(many.chars().count() <= max);
                prop_assert!(!many.chars().any(|c| is_hidden(c) && c != '\n' && c != '\t'));
            }
            prop_assert!(text.starts_with(truncate(&text, max)) && truncate(&text, max).len() <= max);
        }
    }
}
