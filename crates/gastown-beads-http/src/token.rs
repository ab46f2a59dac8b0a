//! A bearer token that is shown to nobody but the server.

use std::fmt;

/// The longest token that is taken, in bytes.
const MAX_TOKEN: usize = 4096;

/// A bearer token. Neither `Debug` nor any error of this crate shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why bytes are not a token. No variant holds the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is empty, or white space only.
    #[error("the token is empty")]
    Empty,
    /// It is longer than [`MAX_TOKEN`] bytes.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// It is not one run of visible ASCII. A file of several tokens is the server's, not a client's.
    #[error("the token is not one word of visible ASCII characters")]
    NotAWord,
}

impl Token {
    /// Reads the token in a Secret's value; white space around it is cut off.
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

    /// `text` with the token replaced: a server may send back what it received.
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
    fn bytes_that_could_split_a_header_are_not_a_token() {
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
