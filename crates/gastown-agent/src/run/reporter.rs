//! Reports the agent's activity to the sidecar, and receives nudges for the agent. It never delays
//! the agent: what cannot be sent now is in the next report.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gastown_types::text;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::cpu::Cpu;
use crate::socket::{self, Activity, Call, Nudge, NudgeResult, Request, Tool};

/// The shortest pause between two reports.
const FASTEST: Duration = Duration::from_secs(1);
/// How much later a report comes when nothing is new; it is sent because its answer may hold a nudge.
const QUIET: Duration = Duration::from_secs(1);
/// The timeout of a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last report may take.
const LAST: Duration = Duration::from_secs(1);
/// Results of nudges that wait to be reported.
const RESULTS_MAX: usize = 16;
/// Tool calls that wait to be reported; further ones are left out.
const CALLS_MAX: usize = 32;
/// Bytes of a tool's name: what is before the agent's description of the call.
const NAME_MAX: usize = 64;

/// What the session observes of its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// When the agent last did anything, in milliseconds since 1970; 0 = nothing yet.
    pub last_event_ms: i64,
    /// The tool call that it is in.
    pub tool: Option<Tool>,
    /// It waits for a person.
    pub waiting: bool,
}

/// Tool calls that have ended and are not reported yet.
type Calls = Arc<Mutex<Vec<Call>>>;

/// The session's side of the reports.
pub struct Reporter {
    observed: watch::Sender<Observation>,
    calls: Calls,
    nudges: mpsc::Receiver<Nudge>,
    results: mpsc::Sender<NudgeResult>,
    task: JoinSet<()>,
}

impl Reporter {
    /// Starts the reports to the socket.
    pub fn start(socket: PathBuf) -> Self {
        let (observed, watched) = watch::channel(Observation::default());
        let (nudge, nudges) = mpsc::channel(1);
        let (results, done) = mpsc::channel(RESULTS_MAX);
        let mut task = JoinSet::new();
        let calls = Calls::default();
        task.spawn(report(socket, watched, calls.clone(), nudge, done));
        Self { observed, calls, nudges, results, task }
    }

    /// Sets the content of the next report.
    pub fn observe(&self, new: Observation) {
        self.observed.send_if_modified(|old| {
            let differs = *old != new;
            if let Some(tool) = old.tool.take().filter(|tool| new.tool.as_ref() != Some(tool)) {
                let mut calls = self.calls.lock();
                if calls.len() < CALLS_MAX {
                    calls.push(ended(&tool, new.last_event_ms));
                }
            }
            *old = new;
            differs
        });
    }

    /// Waits for the next nudge.
    pub async fn nudge(&mut self) -> Option<Nudge> {
        self.nudges.recv().await
    }

    /// Refuses nudges from now on.
    pub fn close(&mut self) {
        self.nudges.close();
    }

    /// Reports what has not been reported, once, and ends the reports.
    pub async fn finish(self) {
        let Self { observed, mut task, .. } = self;
        drop(observed);
        // A sidecar that does not answer keeps nobody.
        let _ = timeout(LAST, task.join_next()).await;
    }

    /// Where the results of nudges go.
    pub fn results(&self) -> mpsc::Sender<NudgeResult> {
        self.results.clone()
    }
}

/// A call that was under way until this time, by its tool's name without the agent's description of it.
fn ended(tool: &Tool, at_ms: i64) -> Call {
    let name = tool.name.split(':').next().unwrap_or_default();
    Call {
        name: text::truncate(name.trim(), NAME_MAX).to_owned(),
        begin_ms: tool.since_ms,
        end_ms: at_ms.max(tool.since_ms),
    }
}

async fn report(
    socket: PathBuf,
    mut observed: watch::Receiver<Observation>,
    calls: Calls,
    nudge: mpsc::Sender<Nudge>,
    mut done: mpsc::Receiver<NudgeResult>,
) {
    let cpu = Cpu::find();
    let mut results: Vec<NudgeResult> = Vec::new();
    // The sidecar sends a nudge again until it has the result.
    let mut received = None;
    let mut is_last = false;
    loop {
        while results.len() < RESULTS_MAX
            && let Ok(result) = done.try_recv()
        {
            results.push(result);
        }
        let Observation { last_event_ms, tool, waiting } = observed.borrow_and_update().clone();
        let activity = Activity {
            last_event_ms,
            tool,
            waiting,
            cpu_seconds: cpu.seconds(),
            results: results.clone(),
            calls: calls.lock().clone(),
        };
        let reported = activity.calls.len();
        match socket::send(&socket, &Request::Activity(activity), REPORT_TIMEOUT).await {
            Ok(answer) => {
                results.clear();
                calls.lock().drain(..reported);
                if let Some(new) = answer.nudge.filter(|n| received != Some(n.id)) {
                    let id = new.id;
                    received = Some(id);
                    if nudge.try_send(new).is_err() {
                        results.push(NudgeResult {
                            id,
                            ok: false,
                            message:
                                "the agent is ending, or has not read the nudge before this one"
                                    .into(),
                        });
                    }
                }
            }
            Err(e) => tracing::debug!(error = %e, "the agent's activity is not reported"),
        }
        if is_last {
            return;
        }
        let waits = results.is_empty() && done.is_empty();
        // The session has ended when its side is dropped: what is left is reported then.
        is_last = pause(&mut observed, waits).await;
    }
}

/// Waits until the next report is due: later where nothing changes and nothing else waits. Returns whether
/// it is the last one, which is due at once.
async fn pause(observed: &mut watch::Receiver<Observation>, is_quiet: bool) -> bool {
    let next = Instant::now() + FASTEST;
    let mut due = if is_quiet { next + QUIET } else { next };
    loop {
        match timeout_at(due, observed.changed()).await {
            Err(_) => return false,
            Ok(Err(_)) => return true,
            Ok(Ok(())) => due = next,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::server::{self, Handlers};
    use crate::sync::{Escalations, Relay};

    /// A sidecar's socket in this folder, and where its reports go.
    fn sidecar(dir: &std::path::Path) -> (PathBuf, Arc<Relay>) {
        let (path, relay) = (dir.join("s"), Arc::new(Relay::new(1)));
        let escalations = Arc::new(Escalations::new(crate::sync::witness::Who::default(), None));
        let handlers = Handlers { git: mpsc::channel(1).0, relay: relay.clone(), escalations };
        tokio::spawn(server::serve(server::bind(&path).unwrap(), handlers));
        (path, relay)
    }

    fn in_tool(tool: Option<&str>, at: i64) -> Observation {
        let tool = tool.map(|name| Tool { name: name.into(), since_ms: at });
        Observation { last_event_ms: at, tool, waiting: false }
    }

    #[tokio::test]
    async fn what_ended_last_is_reported_when_the_session_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (path, relay) = sidecar(dir.path());
        let reporter = Reporter::start(path);
        reporter.observe(in_tool(Some("Bash: make"), 3));
        reporter.observe(in_tool(Some("Read: a secret"), 5));
        reporter.observe(in_tool(None, 8));
        reporter.finish().await;
        let steps = relay.heartbeat(10).steps;
        let shown: Vec<_> = steps.iter().map(|s| (s.name.as_str(), s.begin_ms, s.end_ms)).collect();
        assert_eq!(shown, [("Bash", 3, 5), ("Read", 5, 8)]);
    }

    #[tokio::test]
    async fn a_session_ends_without_a_sidecar() {
        let dir = tempfile::tempdir().unwrap();
        let reporter = Reporter::start(dir.path().join("none"));
        reporter.observe(in_tool(Some("Bash"), 3));
        reporter.observe(in_tool(None, 8));
        reporter.finish().await;
    }

    #[tokio::test]
    async fn activity_reaches_the_heartbeat_and_a_nudge_comes_back_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, relay) = sidecar(dir.path());
        let stream = relay.begin_stream();
        relay.nudge(stream, 9, "go on");

        let mut reporter = Reporter::start(path);
        reporter.observe(Observation {
            last_event_ms: 5,
            tool: Some(Tool { name: "Bash".into(), since_ms: 4 }),
            waiting: false,
        });
        let nudge = reporter.nudge().await.unwrap();
        assert_eq!((nudge.id, nudge.text.as_str()), (1, "go on"));
        reporter
            .results()
            .try_send(NudgeResult { id: 1, ok: true, message: String::new() })
            .unwrap();
        let heartbeat = loop {
            relay.changed().await;
            let heartbeat = relay.heartbeat(10);
            if !heartbeat.results.is_empty() {
                break heartbeat;
            }
        };
        assert_eq!(
            (
                heartbeat.last_event_ms,
                heartbeat.tool.as_str(),
                heartbeat.results[0].number,
                heartbeat.results[0].ok
            ),
            (5, "Bash", 9, true)
        );
        reporter.close();
        relay.nudge(stream, 10, "too late");
        let refused = loop {
            relay.changed().await;
            if let Some(result) = relay.heartbeat(10).results.pop() {
                break result;
            }
        };
        assert_eq!((refused.number, refused.ok), (10, false));
    }
}
