//! The condition `Saved` of a Polecat: whether the work of its pod is on the remote, as its sidecar
//! states. It appears when work is not saved, and stays True afterwards while the pod is at work.

use gastown_api::conditions::Draft;
use gastown_api::names::{condition, reason};
use jiff::{SignedDuration, Timestamp};

/// A message that changes alone is written at most this often: it counts commits and tries.
const MESSAGE_EVERY: SignedDuration = SignedDuration::from_secs(30);

/// What the object shows of the condition now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// Whether it is True.
    pub saved: bool,
    /// Its message.
    pub message: &'a str,
}

/// The condition that is wanted; none where there is none to be. `saving` is what the pod states, or
/// none where no pod is heard, `shown` what the object shows, `written` when this process wrote it
/// last.
pub fn saved(
    now: Timestamp,
    saving: Option<&str>,
    shown: Option<Shown<'_>>,
    written: Option<Timestamp>,
) -> Option<Draft> {
    let draft = |saved: bool, message: &str| {
        let reason = if saved { reason::SAVED } else { reason::SAVING };
        Draft::new(condition::SAVED, saved, reason, message)
    };
    let keep = shown.map(|s| draft(s.saved, s.message));
    match (saving, shown) {
        (None, _) | (Some(""), None | Some(Shown { saved: true, .. })) => keep,
        (Some(""), Some(_)) => Some(draft(true, "")),
        (Some(text), Some(Shown { saved: false, message })) if message != text => {
            let early = written.is_some_and(|t| now.duration_since(t) < MESSAGE_EVERY);
            if early { keep } else { Some(draft(false, text)) }
        }
        (Some(text), _) => Some(draft(false, text)),
    }
}

#[cfg(test)]
mod tests {
    use gastown_api::conditions::Status;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn it_appears_when_work_is_not_saved_and_is_true_afterwards() {
        assert_eq!(saved(at(0), Some(""), None, None), None, "it was never False");
        assert_eq!(saved(at(0), None, None, None), None);
        let first = saved(at(0), Some("401"), None, None).unwrap();
        assert_eq!((first.status, first.reason.as_ref()), (Status::False, "Saving"));
        let shown = Some(Shown { saved: false, message: "401" });
        assert_eq!(saved(at(1), None, shown, Some(at(0))), Some(first), "nothing is heard");
        let after = saved(at(1), Some(""), shown, Some(at(0))).unwrap();
        assert_eq!((after.status, after.reason.as_ref()), (Status::True, "Saved"));
        let shown = Some(Shown { saved: true, message: "" });
        assert_eq!(saved(at(2), Some(""), shown, Some(at(1))), Some(after));
        let again = saved(at(3), Some("401"), shown, Some(at(1))).unwrap();
        assert_eq!(again.status, Status::False, "a change of status does not wait");
    }

    #[test]
    fn a_message_alone_is_written_at_most_every_thirty_seconds() {
        let shown = Some(Shown { saved: false, message: "1 commit" });
        let message = |second, written: Option<i64>| {
            saved(at(second), Some("2 commits"), shown, written.map(at)).unwrap().message
        };
        assert_eq!(message(29, Some(0)), "1 commit");
        assert_eq!(message(30, Some(0)), "2 commits");
        assert_eq!(message(0, None), "2 commits", "this process wrote none");
    }
}
