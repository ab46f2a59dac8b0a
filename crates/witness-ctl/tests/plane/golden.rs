//! Heartbeats that `gt sync` sent in the process tests (`gastown-agent/tests/golden`).

use anyhow::{Context as _, Result};
use gastown_proto::v1::{CommandResult, Heartbeat};
use serde::Deserialize;

/// What such a file has. Of times it has only whether there was one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Golden {
    namespace: String,
    polecat: String,
    rig: String,
    attempt: u32,
    now: bool,
    last_event: bool,
    in_tool_since: bool,
    tool: String,
    waiting_for_human: bool,
    cpu: bool,
    pushed_commit: String,
    results: Vec<GoldenResult>,
    saving: String,
    ended: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenResult {
    number: u64,
    ok: bool,
    message: String,
}

/// The heartbeat of this name, sent at `now_ms`.
pub fn heartbeat(name: &str, now_ms: i64) -> Result<Heartbeat> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../gastown-agent/tests/golden");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).context("a golden file")?;
    let golden: Golden = serde_json::from_str(&text).with_context(|| format!("reading {name}"))?;
    let time = |there: bool| if there { now_ms } else { 0 };
    let result = |r: GoldenResult| CommandResult { number: r.number, ok: r.ok, message: r.message };
    Ok(Heartbeat {
        namespace: golden.namespace,
        polecat: golden.polecat,
        rig: golden.rig,
        attempt: golden.attempt,
        now_ms: time(golden.now),
        last_event_ms: time(golden.last_event),
        in_tool_since_ms: time(golden.in_tool_since),
        tool: golden.tool,
        waiting_for_human: golden.waiting_for_human,
        cpu_seconds: f64::from(u8::from(golden.cpu)),
        pushed_commit: golden.pushed_commit,
        results: golden.results.into_iter().map(result).collect(),
        saving: golden.saving,
        ended: golden.ended,
        steps: Vec::new(),
    })
}
