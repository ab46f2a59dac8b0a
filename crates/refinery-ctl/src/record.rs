//! The durable record of a request: its annotation `gastown.io/verdicts`.

use std::collections::BTreeMap;

use gastown_api::names::annotation;
use gastown_api::{MergePhase, MergeRequest};
use gastown_core::train::{End, Verdict, is_final};
use gastown_types::CommitId;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

/// The format's version.
const VERSION: u32 = 1;
/// How many verdicts are kept: a request that is rebuilt often must not grow without end.
const MAX_VERDICTS: usize = 16;

/// What must not be forgotten about a request, whatever happens to its status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RequestRecord {
    #[serde(rename = "v")]
    version: u32,
    /// The verdicts on its candidates, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Verdict>,
    /// How many of its latest runs in a row were broken by infrastructure.
    #[serde(rename = "faults", skip_serializing_if = "is_zero")]
    pub broken_runs: u32,
    /// How many of its runs are over without a verdict that counts.
    #[serde(rename = "runs", skip_serializing_if = "is_zero")]
    pub runs_done: u32,
    /// How often its gate was run again after a failure.
    #[serde(rename = "doubts", skip_serializing_if = "is_zero")]
    pub reruns: u32,
    /// How many of the retries that people asked for were started.
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub retried: i32,
    /// How it ended, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// Whether the branch of a landed request was deleted, or stays for good.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cleaned: bool,
    /// The refs that hold what its author saved beside the landed work, and their commits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub saved: BTreeMap<String, CommitId>,
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
    /// rather than believed done.
    pub(crate) fn of(request: &MergeRequest) -> Self {
        let text = request.annotations().get(annotation::VERDICTS);
        let read = text.and_then(|t| serde_json::from_str::<Self>(t).ok());
        let is_valid =
            |r: &Self| r.version == VERSION && r.end.as_ref().is_none_or(|end| is_final(end.phase));
        read.filter(is_valid).unwrap_or(Self { version: VERSION, ..Self::default() })
    }

    /// The annotation's value.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether the request has landed.
    pub(crate) fn has_landed(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.phase == MergePhase::Landed)
    }

    /// Adds a verdict, and drops the oldest one when there are too many.
    pub(crate) fn add_verdict(&mut self, verdict: Verdict) {
        if self.verdicts.len() >= MAX_VERDICTS {
            self.verdicts.remove(0);
        }
        self.verdicts.push(verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(record: Option<&str>) -> MergeRequest {
        let spec = serde_json::json!({"rigRef": "r", "sourceBranch": "b", "commit": "a".repeat(40), "targetBranch": "main"});
        let mut request = MergeRequest::new("mr", serde_json::from_value(spec).unwrap());
        if let Some(text) = record {
            request.annotations_mut().insert(annotation::VERDICTS.into(), text.into());
        }
        request
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let empty = RequestRecord { version: 1, ..RequestRecord::default() };
        assert_eq!(RequestRecord::of(&request(None)), empty);
        let commit: CommitId = "a".repeat(40).parse().unwrap();
        let saved = BTreeMap::from([("refs/gastown/wip/team/toast/1".to_owned(), commit)]);
        let record = RequestRecord { broken_runs: 2, retried: 1, cleaned: true, saved, ..empty };
        assert_eq!(
            record.text(),
            format!(
                r#"{{"v":1,"faults":2,"retried":1,"cleaned":true,"saved":{{"refs/gastown/wip/team/toast/1":"{}"}}}}"#,
                "a".repeat(40)
            )
        );
        assert_eq!(RequestRecord::of(&request(Some(&record.text()))), record);
    }

    #[test]
    fn a_record_that_cannot_be_read_counts_as_empty() {
        let newer = r#"{"v":2,"faults":7}"#;
        assert_eq!(RequestRecord::of(&request(Some(newer))).broken_runs, 0);
        let not_final =
            r#"{"v":1,"end":{"phase":"Queued","reason":"R","at":"2026-01-01T00:00:00Z"}}"#;
        assert_eq!(RequestRecord::of(&request(Some(not_final))).end, None);
        let not_json = "faults: 7";
        assert_eq!(RequestRecord::of(&request(Some(not_json))).broken_runs, 0);
    }
}
