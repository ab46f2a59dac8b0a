//! An error as a sentence for a condition or an Event.

use gastown_types::text;

/// The longest sentence, in characters.
const MAX: usize = 900;

/// What was attempted and why it failed: the error and all its causes, on one line. Of an answer of
/// the API server it has the server's own message.
pub fn of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    for cause in std::iter::successors(Some(error), |cause| cause.source()) {
        let boxed = cause.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref);
        let status = match cause.downcast_ref::<kube::Error>().or(boxed) {
            Some(kube::Error::Api(status)) if !status.message.is_empty() => Some(status),
            _ => None,
        };
        let words = status.map_or_else(|| cause.to_string(), |status| status.message.clone());
        // Some errors have the words of their cause in their own, or are nothing but that cause.
        if !text.ends_with(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        if status.is_some() {
            break;
        }
    }
    text::line(&text, MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("creating pod toast")]
        Api(#[source] Box<kube::Error>),
        #[error("reading the store: {0}")]
        Store(#[source] std::io::Error),
        #[error(transparent)]
        Other(Box<Failure>),
    }

    #[test]
    fn it_has_the_attempt_and_the_servers_own_message() {
        let status = kube::core::Status::failure("pods are forbidden", "Forbidden").with_code(403);
        let error = Failure::Api(Box::new(kube::Error::Api(Box::new(status))));
        assert_eq!(of(&error), "creating pod toast: pods are forbidden");
        assert_eq!(of(&Failure::Other(Box::new(error))), "creating pod toast: pods are forbidden");
    }

    #[test]
    fn a_cause_that_is_in_the_words_already_is_not_repeated() {
        let error = Failure::Store(std::io::Error::other("the disk\nis full"));
        assert_eq!(of(&error), "reading the store: the disk is full");
    }
}
