//! The readers of 0.1.0: the fields that its code read, with the types that it read them as. They are
//! copied from its sources and frozen: when a test fails here, what is written today is wrong.

// Each field is described in the sources of 0.1.0.
#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A full commit id, as 0.1.0 demanded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitId(pub String);

impl<'de> Deserialize<'de> for CommitId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits && matches!(text.len(), 40 | 64) {
            Ok(Self(text))
        } else {
            Err(serde::de::Error::custom(format!("{text:?} is not a commit id")))
        }
    }
}

/// How a pod ended: 0.1.0 knew no other value, and refused the whole ledger with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum End {
    Done,
    DoneWithoutChanges,
    Waits,
    Drained,
    Retries,
    Later,
    Stuck,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Last {
    pub end: End,
    pub reason: String,
    #[serde(default)]
    pub message: String,
    pub at: i64,
    #[serde(default)]
    pub until: Option<i64>,
    #[serde(default)]
    pub saved: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Respawns {
    pub infrastructure: u32,
    pub oom: u32,
    pub crashed: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    pub turns: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
    pub cost_usd: f64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct LedgerSaved {
    pub r#ref: String,
    pub commit: CommitId,
    pub of: String,
    #[serde(default)]
    pub skip: u32,
    pub n: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Lost {
    pub attempt: u32,
    pub what: Vec<String>,
    #[serde(default)]
    pub more: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Landed {
    pub request: String,
    pub at: i64,
}

/// The annotation `gastown.io/ledger`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    pub v: u32,
    #[serde(default)]
    pub attempt: u32,
    #[serde(default)]
    pub forgiven: u32,
    #[serde(default)]
    pub respawns: Respawns,
    #[serde(default)]
    pub waits: u32,
    #[serde(default)]
    pub waiting_since: Option<i64>,
    #[serde(default)]
    pub ours: bool,
    #[serde(default)]
    pub branch: Option<String>,
    #[serde(default)]
    pub commit: Option<CommitId>,
    #[serde(default)]
    pub base: Option<CommitId>,
    #[serde(default)]
    pub changes: Option<String>,
    #[serde(default)]
    pub saved: Vec<LedgerSaved>,
    #[serde(default)]
    pub lost: Option<Lost>,
    #[serde(default)]
    pub last: Option<Last>,
    #[serde(default)]
    pub pods: Vec<String>,
    #[serde(default)]
    pub spec: String,
    #[serde(default)]
    pub retry: Option<String>,
    #[serde(default)]
    pub landed: Option<Landed>,
    #[serde(default)]
    pub started: Option<i64>,
    #[serde(default)]
    pub model: Option<String>,
    #[serde(default)]
    pub usage: Usage,
}

impl Ledger {
    /// 0.1.0 read version 1 of at most 8192 bytes, and stopped the Polecat at anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let ledger: Self = json(text, 8192)?;
        if ledger.v == 1 { Ok(ledger) } else { Err(format!("version {}", ledger.v)) }
    }
}

/// The prefix of the hash of a task (`gastown.io/asked`): another one stated nothing to 0.1.0.
pub const TASK_HASH: &str = "2-";

#[derive(Clone, Debug, Deserialize)]
pub struct InitReport {
    pub v: u32,
    /// Unknown results were read as unknown.
    pub result: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub base: Option<CommitId>,
    #[serde(default)]
    pub head: Option<CommitId>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Saved {
    pub r#ref: String,
    pub commit: CommitId,
    pub of: String,
    #[serde(default)]
    pub skipped: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncReport {
    pub v: u32,
    pub result: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub commit: Option<CommitId>,
    #[serde(default)]
    pub base: Option<CommitId>,
    #[serde(default)]
    pub ahead: Option<u32>,
    #[serde(default)]
    pub changes: Option<String>,
    #[serde(default)]
    pub unpushed: Option<CommitId>,
    #[serde(default)]
    pub wip: Option<String>,
    #[serde(default)]
    pub saved: Vec<Saved>,
    #[serde(default)]
    pub saved_more: u32,
    #[serde(default)]
    pub unsaved: Vec<String>,
    #[serde(default)]
    pub unsaved_more: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    pub v: u32,
    pub exit: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub code: Option<i32>,
    #[serde(default)]
    pub reset_at: Option<i64>,
    #[serde(default)]
    pub model: Option<String>,
    #[serde(default)]
    pub usage: Usage,
}

/// Results of `gt init` that 0.1.0 knew.
pub const INIT_RESULTS: [&str; 16] = [
    "Ready",
    "SecretNotFound",
    "ConfigMapNotFound",
    "BadCredentials",
    "PushDenied",
    "UnknownHostKey",
    "HostKeyMismatch",
    "RepositoryNotFound",
    "BranchNotFound",
    "BranchExists",
    "RemoteUnreachable",
    "RemoteRefused",
    "SubmoduleUnavailable",
    "LfsUnavailable",
    "InvalidConfig",
    "Internal",
];

/// Results of `gt sync` that 0.1.0 knew.
pub const SYNC_RESULTS: [&str; 9] = [
    "Pushed",
    "NoChanges",
    "PushRace",
    "PushRejected",
    "BadObjects",
    "RemoteUnreachable",
    "AccessDenied",
    "AmbiguousWork",
    "Internal",
];

/// Ends of `gt run` that 0.1.0 knew.
pub const EXITS: [&str; 10] = [
    "Completed",
    "GaveUp",
    "Failed",
    "Crashed",
    "Deadline",
    "Drained",
    "BudgetExceeded",
    "RateLimited",
    "BadCredentials",
    "ImageLacks",
];

/// A termination message: 0.1.0 read one of at most 4096 bytes, of version 1 or later.
pub fn report<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let value: Value = json(text, 4096)?;
    if value["v"].as_u64().is_none_or(|v| v == 0) {
        return Err("no version".to_owned());
    }
    serde_json::from_value(value).map_err(|e| e.to_string())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum MergePhase {
    Queued,
    Testing,
    Landed,
    Rework,
    Rejected,
    Superseded,
}

#[derive(Clone, Debug, Deserialize)]
pub struct RequestEnd {
    pub phase: MergePhase,
    pub reason: String,
    #[serde(default)]
    pub message: String,
    pub at: String,
    #[serde(default)]
    pub tested: Option<CommitId>,
    #[serde(default)]
    pub landed: Option<CommitId>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Evidence {
    pub base: Option<CommitId>,
    pub text: String,
}

/// The annotation `gastown.io/request-record`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RequestRecord {
    pub v: u32,
    pub since: u32,
    pub retried: i32,
    pub end: Option<RequestEnd>,
    pub evidence: Option<Evidence>,
    pub cleaned: bool,
    pub saved: BTreeMap<String, CommitId>,
}

impl RequestRecord {
    /// 0.1.0 read version 1, and forgot anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let record: Self = json(text, usize::MAX)?;
        if record.v == 1 { Ok(record) } else { Err(format!("version {}", record.v)) }
    }
}

/// The annotation `gastown.io/bead-closed`.
#[derive(Clone, Debug, Deserialize)]
pub struct BeadClosed {
    pub bead: String,
    /// A text or a number.
    #[serde(default)]
    pub asked: Option<Value>,
    #[serde(default)]
    pub left_open: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ServedClaim {
    pub holder: String,
    pub assignee: String,
    #[serde(default)]
    pub asked: bool,
}

/// The annotation `gastown.io/beads-served`.
#[derive(Clone, Debug, Deserialize)]
pub struct BeadsServed {
    #[serde(default)]
    pub project: String,
    #[serde(default)]
    pub claims: BTreeMap<String, ServedClaim>,
}

/// The annotation `gastown.io/convoy-counted`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Counted {
    pub landed: BTreeSet<String>,
    pub done: BTreeSet<String>,
    pub closed: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum DeliveryState {
    Pending,
    Sent,
    Failed,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Delivery {
    pub route: String,
    pub severity: Severity,
    pub state: DeliveryState,
    pub attempts: u32,
    pub last: String,
    #[serde(default)]
    pub next: Option<String>,
    #[serde(default)]
    pub why: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Settled {
    pub at: String,
    pub why: String,
}

/// The annotation `gastown.io/alarm`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct EscalationState {
    #[serde(default)]
    pub raises: u32,
    #[serde(default)]
    pub raised: Option<String>,
    #[serde(default)]
    pub stale: Vec<String>,
    #[serde(default)]
    pub settled: Option<Settled>,
    #[serde(default)]
    pub closed: Option<String>,
    #[serde(default, rename = "told")]
    pub deliveries: Vec<Delivery>,
}

/// A value of the trailer `Gastown-Bead`: 0.1.0 read exactly these parts.
pub fn bead_trailer(text: &str) -> bool {
    let parts: Vec<&str> = text.split(' ').collect();
    matches!(parts[..], ["claim", _, _, _] | ["release" | "close", _, _] | ["join", _])
}

/// A claim as 0.1.0 read its Lease: rig, bead, holder's uid and `namespace/name`.
pub fn claim(lease: &Value) -> Result<[String; 4], String> {
    if lease["metadata"]["labels"]["gastown.io/claim"] != "true" {
        return Err("it is not watched: the label gastown.io/claim is not true".to_owned());
    }
    let text = |value: &Value, what: &str| {
        value.as_str().filter(|t| !t.is_empty()).map(str::to_owned).ok_or(what.to_owned())
    };
    let annotations = &lease["metadata"]["annotations"];
    Ok([
        text(&annotations["gastown.io/claim-rig"], "claim-rig")?,
        text(&annotations["gastown.io/claim-bead"], "claim-bead")?,
        text(&lease["spec"]["holderIdentity"], "holderIdentity")?,
        text(&annotations["gastown.io/claim-polecat"], "claim-polecat")?,
    ])
}

/// A replica's lease as 0.1.0 read it: holder, seconds, transitions.
pub fn replica(lease: &Value) -> Result<(String, i64, i64), String> {
    let spec = &lease["spec"];
    let holder = spec["holderIdentity"].as_str().ok_or("holderIdentity")?;
    let seconds = spec["leaseDurationSeconds"].as_i64().ok_or("leaseDurationSeconds")?;
    let transitions = spec["leaseTransitions"].as_i64().ok_or("leaseTransitions")?;
    spec["renewTime"].as_str().ok_or("renewTime")?;
    Ok((holder.to_owned(), seconds, transitions))
}

/// What `gt` 0.1.0 could not do without, and how it read what it used when it was there: each problem
/// as a sentence.
pub fn problems_of_gt(container: &str, variables: &BTreeMap<String, String>) -> Vec<String> {
    let required: &[&str] = match container {
        "git-init" | "git-sync" => &[
            "GASTOWN_ATTEMPT",
            "GASTOWN_NAMESPACE",
            "GT_POLECAT",
            "GASTOWN_REPOSITORY",
            "GASTOWN_TARGET_BRANCH",
            "GASTOWN_WORK_BRANCH",
            "GASTOWN_KEYS_DIR",
        ],
        "claude" => &["GASTOWN_TARGET_BRANCH", "GASTOWN_WORK_BRANCH"],
        "fetch" => &["GASTOWN_GIT_URL", "GASTOWN_CANDIDATE"],
        _ => &[],
    };
    let get = |name: &str| variables.get(name).map(String::as_str).filter(|v| !v.is_empty());
    let missing = required.iter().filter(|name| get(name).is_none());
    let mut found: Vec<String> = missing.map(|name| format!("{container}: no {name}")).collect();
    let mut check = |name: &str, is_valid: &dyn Fn(&str) -> bool| {
        if let Some(value) = get(name).filter(|value| !is_valid(value)) {
            found.push(format!("{container}: {name} is {value}"));
        }
    };
    for number in [
        "GASTOWN_ATTEMPT",
        "GASTOWN_DEADLINE_SECONDS",
        "GASTOWN_SNAPSHOT_SECONDS",
        "GASTOWN_MAX_TURNS",
        "GASTOWN_MAX_TOKENS",
    ] {
        check(number, &|v| v.parse::<u64>().is_ok());
    }
    check("GASTOWN_MAX_COST_USD", &|v| v.parse::<f64>().is_ok());
    for flag in ["GASTOWN_RESUME", "GASTOWN_RESTORE", "GASTOWN_COPY_AGENT"] {
        check(flag, &|v| ["true", "false", "1", "0"].contains(&v));
    }
    check("GASTOWN_AGENT_ARGS", &|v| serde_json::from_str::<Vec<String>>(v).is_ok());
    check("GASTOWN_AGENT", &|v| ["claude-code", "generic"].contains(&v));
    check("GASTOWN_WITNESS_ENDPOINT", &|v| v.starts_with("https://"));
    found
}

fn json<T: serde::de::DeserializeOwned>(text: &str, most: usize) -> Result<T, String> {
    if text.len() > most {
        return Err(format!("{} bytes, more than {most}", text.len()));
    }
    serde_json::from_str(text.trim()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sample, samples, variables};

    fn sample(name: &str) -> String {
        let mut all = samples(name).into_iter();
        all.find(|Sample { version, .. }| version == "0.1.0").unwrap().text
    }

    #[test]
    fn the_readers_read_the_samples_of_their_own_version() {
        let ledger = Ledger::parse(&sample("ledger.json")).unwrap();
        assert_eq!((ledger.attempt, ledger.last.unwrap().end), (3, End::Retries));
        assert_eq!(ledger.usage.cost_usd.to_string(), "0.25");
        assert!(sample("asked.txt").starts_with(TASK_HASH));
        let init: InitReport = report(&sample("init-report.json")).unwrap();
        assert!(INIT_RESULTS.contains(&init.result.as_str()));
        let sync: SyncReport = report(&sample("sync-report.json")).unwrap();
        assert!(SYNC_RESULTS.contains(&sync.result.as_str()) && sync.saved_more == 3);
        let run: RunReport = report(&sample("run-report.json")).unwrap();
        assert!(EXITS.contains(&run.exit.as_str()) && run.reset_at.is_some());
        let record = RequestRecord::parse(&sample("request-record.json")).unwrap();
        assert_eq!(record.end.unwrap().phase, MergePhase::Rework);
        let closed: BeadClosed = json(&sample("bead-closed.json"), usize::MAX).unwrap();
        assert!(closed.asked.is_some());
        let served: BeadsServed = json(&sample("beads-served.json"), usize::MAX).unwrap();
        assert!(served.claims["ws-7k2p"].asked);
        let counted: Counted = json(&sample("convoy-counted.json"), usize::MAX).unwrap();
        assert_eq!(counted.landed.len() + counted.done.len() + counted.closed.len(), 3);
        let state: EscalationState = json(&sample("escalation-state.json"), usize::MAX).unwrap();
        assert_eq!(state.deliveries[0].state, DeliveryState::Pending);
        assert!(sample("bead-trailers.txt").lines().all(bead_trailer));
        let lease = |name: &str| serde_json::from_str::<Value>(&sample(name)).unwrap();
        assert_eq!(claim(&lease("claim-lease.json")).unwrap()[3], "team/toast");
        assert_eq!(replica(&lease("replica-lease.json")).unwrap().1, 15);
        for name in ["pod-variables.json", "gate-variables.json"] {
            for (container, variables) in &variables(name)[0].1 {
                assert_eq!(problems_of_gt(container, variables), Vec::<String>::new());
            }
        }
    }

    #[test]
    fn what_0_1_0_could_not_read_is_refused() {
        assert!(Ledger::parse(r#"{"v":2}"#).is_err());
        assert!(Ledger::parse(r#"{"v":1,"last":{"end":"New","reason":"R","at":1}}"#).is_err());
        assert!(Ledger::parse(r#"{"v":1,"commit":"HEAD"}"#).is_err());
        assert!(report::<SyncReport>(r#"{"v":0,"result":"Pushed"}"#).is_err());
        assert!(!bead_trailer("claim gt-1 u web/polecats/nux more"));
        let variables = BTreeMap::from([("GASTOWN_ATTEMPT".to_owned(), "two".to_owned())]);
        let problems = problems_of_gt("git-init", &variables);
        assert!(problems.contains(&"git-init: GASTOWN_ATTEMPT is two".to_owned()), "{problems:?}");
        assert!(problems.contains(&"git-init: no GT_POLECAT".to_owned()), "{problems:?}");
    }
}
