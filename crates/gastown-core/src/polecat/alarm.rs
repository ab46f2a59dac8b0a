//! What the witness is told when a Polecat needs a person, until the witness has it, and what is
//! taken back when it does not any more. Telling the same again changes nothing there.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::decide::Next;
use super::facts::{Desired, Snapshot};
use super::ledger::Ledger;

/// A deletion waits for so many tries to take an alarm back, and not longer.
pub const ALARM_TRIES: u32 = 3;

/// The longest summary, in characters.
const MAX_SUMMARY: usize = 1000;

/// What is told to the witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlarmCall {
    /// A person is needed.
    Raise {
        /// It has given up, and will not go on by itself.
        spent: bool,
        /// One sentence.
        summary: String,
        /// What a person needs besides; may be empty.
        details: String,
    },
    /// Not any more.
    Settle {
        /// Why.
        why: String,
    },
}

/// A call to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlarmInputs {
    /// The rig.
    pub rig: String,
    /// What tells this trouble from others: one of a Polecat at a time.
    pub cause: String,
    /// What is told.
    pub call: AlarmCall,
}

/// What became of telling, as far as this process remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AlarmFacts {
    /// Nothing was tried.
    #[default]
    Untried,
    /// The witness has it.
    Acknowledged(AlarmCall),
    /// It failed.
    Failed {
        /// What was told.
        call: AlarmCall,
        /// How often in a row.
        tries: u32,
        /// Not again before this time.
        until: Timestamp,
    },
}

/// Where telling stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Alarm {
    /// There is nothing to tell, or it has been told.
    Nothing,
    /// To be told now.
    Due(AlarmInputs),
    /// To be tried again then.
    Later(Timestamp),
}

/// What is due now.
pub(super) fn alarm(
    now: Timestamp,
    s: &Snapshot,
    ledger: &Ledger,
    next: &Next,
    live: bool,
) -> Alarm {
    if !s.witness || (s.deleting && s.force_delete) {
        return Alarm::Nothing;
    }
    let Some(call) = call(s, ledger, next, live) else { return Alarm::Nothing };
    match &s.alarm {
        AlarmFacts::Acknowledged(told) if *told == call => return Alarm::Nothing,
        AlarmFacts::Failed { call: tried, tries, until } if *tried == call => {
            if s.deleting && *tries >= ALARM_TRIES {
                return Alarm::Nothing;
            }
            if *until > now {
                return Alarm::Later(*until);
            }
        }
        AlarmFacts::Untried | AlarmFacts::Acknowledged(_) | AlarmFacts::Failed { .. } => {}
    }
    Alarm::Due(AlarmInputs {
        rig: s.rig.name().to_owned(),
        cause: format!("polecat/{}/stuck", s.key()),
        call,
    })
}

/// What the witness ought to know; nothing where it cannot know otherwise.
fn call(s: &Snapshot, ledger: &Ledger, next: &Next, live: bool) -> Option<AlarmCall> {
    if let Next::Stuck { reason, message, spent } = next
        && !live
        && !s.deleting
        && s.desired == Desired::Working
    {
        let summary: String = format!("Polecat {} needs a person: {reason}: {message}", s.key())
            .chars()
            .take(MAX_SUMMARY)
            .collect();
        let mut details = String::new();
        if let Some(bead) = &s.bead {
            let _ = writeln!(details, "Bead {bead}.");
        }
        if let (Some(branch), Some(commit)) = (&ledger.branch, &ledger.commit) {
            let _ = writeln!(details, "Branch {branch} holds {}.", commit.short());
        }
        details.push_str(
            "It goes on by itself when its spec or the annotation gastown.io/retry changes.",
        );
        return Some(AlarmCall::Raise { spent: *spent, summary, details });
    }
    // what an earlier process may have raised is what the status still shows
    let raised = match &s.alarm {
        AlarmFacts::Untried => s.shown_stuck,
        AlarmFacts::Acknowledged(call) | AlarmFacts::Failed { call, .. } => {
            matches!(call, AlarmCall::Raise { .. }) || matches!(&s.alarm, AlarmFacts::Failed { .. })
        }
    };
    let why = match (s.deleting, s.desired) {
        (true, _) => "it is being deleted",
        (_, Desired::Idle | Desired::Terminated) => "it is not wanted to work",
        _ => "it goes on",
    };
    raised.then(|| AlarmCall::Settle { why: why.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, snapshot};
    use super::*;

    fn stuck() -> Next {
        Next::Stuck {
            reason: "AttemptsSpent".to_owned(),
            message: "all 8 attempts are spent".to_owned(),
            spent: true,
        }
    }

    fn ask(s: &Snapshot, next: &Next) -> Alarm {
        alarm(at(10), s, &Ledger::default(), next, false)
    }

    fn due(s: &Snapshot, next: &Next) -> AlarmCall {
        match ask(s, next) {
            Alarm::Due(inputs) => inputs.call,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stuck_polecat_is_told_of_once_and_taken_back_when_it_goes_on() {
        let mut s = Snapshot { witness: true, ..snapshot() };
        assert_eq!(ask(&s, &Next::Start), Alarm::Nothing);
        let raise = due(&s, &stuck());
        assert!(
            matches!(&raise, AlarmCall::Raise { spent: true, summary, .. } if summary.contains("AttemptsSpent")),
            "{raise:?}"
        );
        s.alarm = AlarmFacts::Failed { call: raise.clone(), tries: 1, until: at(20) };
        assert_eq!(ask(&s, &stuck()), Alarm::Later(at(20)));
        s.alarm = AlarmFacts::Acknowledged(raise);
        assert_eq!(ask(&s, &stuck()), Alarm::Nothing);
        let settle = due(&s, &Next::Start);
        assert!(matches!(&settle, AlarmCall::Settle { .. }), "{settle:?}");
        s.alarm = AlarmFacts::Failed { call: settle.clone(), tries: 1, until: at(5) };
        assert_eq!(due(&s, &Next::Start), settle);
        s.alarm = AlarmFacts::Acknowledged(settle);
        assert_eq!(ask(&s, &Next::Start), Alarm::Nothing);
        due(&s, &stuck());
    }

    #[test]
    fn what_an_earlier_process_raised_is_taken_back_too() {
        let s = Snapshot { witness: true, shown_stuck: true, ..snapshot() };
        assert!(matches!(due(&s, &Next::Finished), AlarmCall::Settle { .. }));
        assert!(matches!(due(&s, &stuck()), AlarmCall::Raise { .. }));
    }

    #[test]
    fn a_witness_that_does_not_answer_holds_a_deletion_for_a_bounded_number_of_tries() {
        let mut s = Snapshot { witness: true, shown_stuck: true, deleting: true, ..snapshot() };
        let call = due(&s, &stuck());
        assert!(matches!(&call, AlarmCall::Settle { .. }), "{call:?}");
        s.alarm = AlarmFacts::Failed { call, tries: ALARM_TRIES, until: at(20) };
        assert_eq!(ask(&s, &stuck()), Alarm::Nothing);
    }

    #[test]
    fn without_a_witness_nobody_is_told() {
        assert_eq!(ask(&Snapshot { shown_stuck: true, ..snapshot() }, &stuck()), Alarm::Nothing);
    }
}
