//! Annotations and records that anybody may have written: nothing panics, and what is believed is
//! bounded and reads the same again.

use proptest::prelude::*;

use crate::beads::Record;
use crate::convoy::Counted;
use crate::escalation::EscalationState;
use crate::polecat::{Ledger, MAX_BYTES};

const LEDGERS: &[&str] = &[
    r#"{"v":1,"attempt":3,"forgiven":1,"respawns":{"oom":1},"waits":2,"ours":true,"branch":"polecat/x","commit":"a5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24","last":{"end":"Retries","reason":"OOMKilled","message":"m","at":1,"until":2,"saved":false},"pods":["u"],"usage":{"turns":1,"costUSD":0.5},"saved":[{"ref":"refs/gastown/wip/a/b/1","commit":"a5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24","of":"side","skipped":1}],"lost":{"attempt":3,"text":"t"}}"#,
    r#"{"v":1}"#,
];
const STATES: &[&str] = &[
    r#"{"raises":2,"raised":"2026-01-02T03:04:05Z","stale":["2026-01-02T03:04:05Z"],"settled":{"at":"2026-01-02T03:04:05Z","why":"over"},"told":[{"route":"mayor","severity":"high","state":"Sent","attempts":1,"last":"2026-01-02T03:04:05Z"}]}"#,
];
const COUNTED: &[&str] = &[r#"{"landed":["gt-1"],"done":["gt-2"],"closed":["gt-3"]}"#, "{}"];
const RECORDS: &[&str] =
    &["claim gt-1 uid web/polecats/nux", "release gt-1 uid", "close gt-1 request", "join a5e2ca24"];

proptest! {
    #[test]
    fn a_ledger_is_refused_or_reads_the_same_again(text in gastown_fuzz::text(LEDGERS)) {
        if let Ok(ledger) = Ledger::parse(&text) {
            let written = ledger.render();
            prop_assert!(ledger.next_attempt() >= 1 && ledger.spent() <= ledger.attempt);
            if written.len() <= MAX_BYTES {
                prop_assert_eq!(Ledger::parse(&written).unwrap(), ledger);
            }
        }
    }

    #[test]
    fn the_state_of_an_escalation_reads_the_same_again(text in gastown_fuzz::text(STATES)) {
        let state = EscalationState::read(Some(&text));
        prop_assert_eq!(EscalationState::read(Some(&state.write())), state);
    }

    #[test]
    fn what_a_convoy_has_counted_reads_the_same_again(text in gastown_fuzz::text(COUNTED)) {
        let counted = Counted::read(Some(&text));
        prop_assert_eq!(Counted::read(Some(&counted.write())), counted);
    }

    #[test]
    fn a_record_of_beads_is_refused_or_is_written_as_it_was_read(text in gastown_fuzz::text(RECORDS)) {
        if let Some(written) = Record::parse(&text).and_then(|record| record.text()) {
            let more = text.strip_prefix(&written);
            prop_assert!(more.is_some_and(|m| m.is_empty() || m.starts_with(' ')), "{text:?}");
        }
    }
}
