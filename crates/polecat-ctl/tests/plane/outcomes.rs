//! How a pod ends: the records of its containers.

use gastown_core::report::{
    AgentExit, InitReport, InitResult, RunReport, SyncReport, SyncResult, Usage, VERSION, render,
};
use gastown_fakes::kubelet::{Exit, Outcome};

pub fn commit(n: u32) -> String {
    format!("{:040x}", 0xabc0_0000_u64 + u64::from(n))
}

fn ready() -> Exit {
    let base = Some(commit(0).parse().unwrap());
    let mut report =
        InitReport { v: 1, result: InitResult::Ready, message: String::new(), base, head: None };
    Exit::new(0, render(&mut report))
}

pub fn init_failed(result: InitResult, message: &str) -> Outcome {
    let mut report = InitReport { v: 1, result, message: message.into(), base: None, head: None };
    Outcome::init_failed(Exit::new(1, render(&mut report)))
}

fn run(exit: AgentExit) -> Exit {
    let usage =
        Usage { turns: 2, input_tokens: 10, output_tokens: 5, cost_usd: 0.5, ..Usage::default() };
    let model = Some("claude-test".to_owned());
    let mut report = RunReport {
        v: 1,
        exit,
        message: String::new(),
        code: Some(0),
        reset_at: None,
        model,
        usage,
    };
    let code = match exit {
        AgentExit::Completed => 0,
        AgentExit::Drained | AgentExit::Deadline | AgentExit::BudgetExceeded => 3,
        _ => 1,
    };
    Exit::new(code, render(&mut report))
}

/// The sidecar's record: the remote holds commit `n`, if any.
pub fn record(n: Option<u32>) -> SyncReport {
    let commit = n.map(|n| self::commit(n).parse().unwrap());
    SyncReport {
        v: VERSION,
        result: if n.is_some() { SyncResult::Pushed } else { SyncResult::NoChanges },
        message: String::new(),
        base: commit.as_ref().map(|_| self::commit(0).parse().unwrap()),
        commit,
        ahead: Some(u32::from(n.is_some())),
        unpushed: None,
        wip: None,
        saved: Vec::new(),
        saved_more: 0,
        unsaved: Vec::new(),
        unsaved_more: 0,
    }
}

/// The agent ended with `exit`, and the sidecar with this record.
pub fn ended_with(exit: AgentExit, mut record: SyncReport) -> Outcome {
    Outcome::polecat(ready(), Exit::new(0, render(&mut record)), run(exit))
}

/// The agent ended with `exit`; the remote holds commit `n`, if any.
pub fn ended(exit: AgentExit, n: Option<u32>) -> Outcome {
    ended_with(exit, record(n))
}

/// Finished, with commit `n` on the remote.
pub fn done(n: u32) -> Outcome {
    ended(AgentExit::Completed, Some(n))
}

/// How `claude` and `git-sync` end when the agent has finished with commit `n`.
pub fn done_exits(n: u32) -> (Exit, Exit) {
    (run(AgentExit::Completed), Exit::new(0, render(&mut record(Some(n)))))
}
