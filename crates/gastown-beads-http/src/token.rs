//! A bearer token that shows itself to nobody but the server.

use std::fmt;

/// The longest token that is taken, in bytes.
const MAX_TOKEN: usize = 4096;

/// A bearer token. Neither `Debug` nor any error of this crate shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why bytes are no token. It does not say which bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing but space.
    #[error("the token is empty")]
    Empty,
    /// Longer than any token.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Not one run of visible ASCII. A file of several tokens belongs to the server, not to its
    /// clients.
    #[error("the token is not one word of visible ASCII characters")]
    NotAWord,
}

impl Token {
    /// The token in a Secret's value; space around it is cut off.
    pub fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        let bytes = bytes.trim_ascii();
        match bytes {
            [] => Err(TokenError::Empty),
            _ if bytes.len() > MAX_TOKEN => Err(TokenError::TooLong),
            _ if !bytes.iter().all(u8::is_ascii_graphic) => Err(TokenError::NotAWord),
            _ => String::from_utf8(bytes.to_vec()).map(Self).map_err(|_| TokenError::NotAWord),
        }
    }

    /// The value of the `Authorization` header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// `text` without the token: a server may say back what it was sent.
    pub(crate) fn scrub(&self, text: &str) -> String {
        text.replace(&self.0, "[token]")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([token])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_is_never_shown() {
        let token = Token::parse(b" s3cret\n").unwrap();
        assert_eq!(token.header(), "Bearer s3cret");
        assert_eq!(format!("{token:?}"), "Token([token])");
        assert_eq!(token.scrub("you sent s3cret!"), "you sent [token]!");
    }

    #[test]
    fn what_could_split_a_header_is_no_token() {
        for (bytes, why) in [
            (&b" \n"[..], TokenError::Empty),
            (b"a\nb", TokenError::NotAWord),
            (b"a b", TokenError::NotAWord),
            (b"\xff", TokenError::NotAWord),
            (&[b'a'; 4097], TokenError::TooLong),
        ] {
            assert_eq!(Token::parse(bytes), Err(why));
        }
    }
}
