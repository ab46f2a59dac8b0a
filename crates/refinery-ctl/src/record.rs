//! The durable record of a request: its annotation `gastown.io/request-record`.
//!
//! The annotation is on an object that others may write. What it states is believed only as far as
//! it can do no harm: what was tested is in GateRuns, and what has landed is read from git where the
//! status does not agree.

use std::collections::BTreeMap;

use gastown_api::names::annotation;
use gastown_api::{MergePhase, MergeRequest};
use gastown_core::train::{End, is_final};
use gastown_types::CommitId;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

/// The version of the format that this code writes. A record of another version is read for what is
/// known of it.
const VERSION: u32 = 1;

/// What must not be forgotten about a request, whatever happens to its status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RequestRecord {
    #[serde(rename = "v")]
    version: u32,
    /// The number of its first run that counts.
    #[serde(skip_serializing_if = "is_zero")]
    pub since: u32,
    /// How many of the retries that people asked for were started.
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub retried: i32,
    /// How it ended, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// Why it went back to its author, where no run of a gate has that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Whether the branch of a landed request was deleted, or stays for good.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cleaned: bool,
    /// The refs that hold what its author saved beside the landed work, and their commits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub saved: BTreeMap<String, CommitId>,
}

/// Why a request went back to its author: what the last attempt in its status shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// The tip of the target then, if it was known.
    pub base: Option<CommitId>,
    /// For its author, such as the paths in conflict.
    pub text: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero_signed(n: &i32) -> bool {
    *n == 0
}

impl RequestRecord {
    /// The record of a request. One that cannot be read counts as empty: the work is done again
    /// rather than believed done. A landing that the status does not show is looked for again.
    pub(crate) fn of(request: &MergeRequest) -> Self {
        let text = request.annotations().get(annotation::REQUEST_RECORD);
        let read = text.and_then(|t| serde_json::from_str::<Self>(t).ok());
        let read = read.filter(|record| record.version >= 1).unwrap_or_default();
        // An end in a phase that is not final, or that a later version added, is no end.
        let end = read.end.clone().filter(|end| is_final(end.phase));
        let mut record = Self { version: VERSION, end, ..read };
        let shown = request.status.as_ref().and_then(|status| status.phase);
        if record.has_landed() && shown != Some(MergePhase::Landed) {
            record.end = None;
        }
        record
    }

    /// The annotation's value.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether the request has landed.
    pub(crate) fn has_landed(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.phase == MergePhase::Landed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(record: Option<&str>) -> MergeRequest {
        let spec = serde_json::json!({"rigRef": "r", "sourceBranch": "b", "commit": "a".repeat(40), "targetBranch": "main"});
        let mut request = MergeRequest::new("mr", serde_json::from_value(spec).unwrap());
        if let Some(text) = record {
            request.annotations_mut().insert(annotation::REQUEST_RECORD.into(), text.into());
        }
        request
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let empty = RequestRecord { version: 1, ..RequestRecord::default() };
        assert_eq!(RequestRecord::of(&request(None)), empty);
        let commit: CommitId = "a".repeat(40).parse().unwrap();
        let saved = BTreeMap::from([("refs/gastown/wip/team/toast/1".to_owned(), commit)]);
        let record = RequestRecord { since: 2, retried: 1, cleaned: true, saved, ..empty };
        assert_eq!(
            record.text(),
            format!(
                r#"{{"v":1,"since":2,"retried":1,"cleaned":true,"saved":{{"refs/gastown/wip/team/toast/1":"{}"}}}}"#,
                "a".repeat(40)
            )
        );
        assert_eq!(RequestRecord::of(&request(Some(&record.text()))), record);
    }

    /// A record in which everything is set, as 0.1.0 had it.
    fn full() -> RequestRecord {
        let commit = |digit| -> CommitId {
            format!("{digit}5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24").parse().unwrap()
        };
        RequestRecord {
            version: 1,
            since: 2,
            retried: 1,
            end: Some(End {
                phase: MergePhase::Rework,
                reason: "Conflict".into(),
                message: "src/a.rs conflicts".into(),
                at: "2026-01-02T03:04:05Z".parse().unwrap(),
                tested: Some(commit('a')),
                landed: Some(commit('b')),
            }),
            evidence: Some(Evidence { base: Some(commit('b')), text: "src/a.rs".into() }),
            cleaned: true,
            saved: [("refs/gastown/wip/team/toast/1".to_owned(), commit('c'))].into(),
        }
    }

    #[test]
    fn records_of_earlier_versions_are_read_and_today_s_are_read_by_them() {
        for sample in gastown_compat::samples("request-record.json") {
            let read = RequestRecord::of(&request(Some(&sample.text)));
            assert_eq!(read, full(), "{}", sample.version);
        }
        let read = gastown_compat::v0_1_0::RequestRecord::parse(&full().text()).unwrap();
        let end = read.end.unwrap();
        assert_eq!((read.since, read.retried, read.cleaned), (2, 1, true));
        assert_eq!(end.phase, gastown_compat::v0_1_0::MergePhase::Rework);
        assert_eq!((end.tested.is_some(), read.saved.len()), (true, 1));
        assert!(read.evidence.is_some_and(|e| e.base.is_some()));
    }

    #[test]
    fn a_record_that_cannot_be_read_counts_as_empty() {
        for text in ["since: 7", r#"{"since":7}"#, r#"{"v":0,"since":7}"#, r#"{"v":1,"since":-7}"#]
        {
            assert_eq!(RequestRecord::of(&request(Some(text))).since, 0, "{text}");
        }
        let not_final =
            r#"{"v":1,"end":{"phase":"Queued","reason":"R","at":"2026-01-01T00:00:00Z"}}"#;
        assert_eq!(RequestRecord::of(&request(Some(not_final))).end, None);
    }

    #[test]
    fn a_record_of_a_later_version_is_read_for_what_is_known_of_it() {
        let newer = r#"{"v":2,"since":7,"retried":3,"end":{"phase":"Postponed","reason":"R","at":"2026-01-01T00:00:00Z"},"more":[1]}"#;
        let read = RequestRecord::of(&request(Some(newer)));
        assert_eq!((read.since, read.retried, read.end.clone()), (7, 3, None));
        assert_eq!(read.text(), r#"{"v":1,"since":7,"retried":3}"#, "in the form of this version");
    }

    #[test]
    fn a_landing_that_the_status_does_not_show_is_not_believed() {
        let landed = r#"{"v":1,"end":{"phase":"Landed","reason":"R","at":"2026-01-01T00:00:00Z"}}"#;
        let mut forged = request(Some(landed));
        assert_eq!(RequestRecord::of(&forged).end, None);
        forged.status = Some(gastown_api::MergeRequestStatus {
            phase: Some(MergePhase::Landed),
            ..Default::default()
        });
        assert!(RequestRecord::of(&forged).has_landed());
    }
}
