//! How a pod ends: with the records that `gt` wrote in the process tests
//! (`gastown-agent/tests/golden`), about this test's commits.

use gastown_core::report::AgentExit;
use gastown_fakes::kubelet::{Exit, Outcome};
use serde_json::{Value, json};

pub fn commit(n: u32) -> String {
    format!("{:040x}", 0xabc0_0000_u64 + u64::from(n))
}

/// A record as the process tests have it.
pub fn golden(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../gastown-agent/tests/golden");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn exit(code: i32, record: &Value) -> Exit {
    Exit::new(code, record.to_string())
}

fn ready() -> Exit {
    let mut record = golden("init-ready");
    record["base"] = json!(commit(0));
    exit(0, &record)
}

/// `gt init` ended with the record of this name.
pub fn init_failed(name: &str) -> Outcome {
    Outcome::init_failed(exit(1, &golden(name)))
}

fn run(how: AgentExit) -> Exit {
    let (code, name) = match how {
        AgentExit::Completed => (0, "run-claude-completed"),
        AgentExit::Drained => (3, "run-drained"),
        AgentExit::GaveUp => (1, "run-gave-up"),
        other => panic!("the process tests have no record of {other:?}"),
    };
    exit(code, &golden(name))
}

/// The sidecar's record: the remote holds commit `n`, if any.
pub fn record(n: Option<u32>) -> Value {
    let Some(n) = n else { return golden("sync-no-changes") };
    let mut record = golden("sync-pushed");
    (record["commit"], record["base"]) = (json!(commit(n)), json!(commit(0)));
    // Each commit changes something else.
    record["changes"] = json!(format!("{n:064x}"));
    record
}

/// The agent ended with `how`, and the sidecar with this record.
pub fn ended_with(how: AgentExit, record: &Value) -> Outcome {
    Outcome::polecat(ready(), exit(0, record), run(how))
}

/// The agent ended with `how`; the remote holds commit `n`, if any.
pub fn ended(how: AgentExit, n: Option<u32>) -> Outcome {
    ended_with(how, &record(n))
}

/// Finished, with commit `n` on the remote.
pub fn done(n: u32) -> Outcome {
    ended(AgentExit::Completed, Some(n))
}

/// How `claude` and `git-sync` end when the agent has finished with commit `n`.
pub fn done_exits(n: u32) -> (Exit, Exit) {
    (run(AgentExit::Completed), exit(0, &record(Some(n))))
}
