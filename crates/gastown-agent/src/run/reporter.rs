//! Tells the sidecar what the agent does, and brings its nudges. It never holds the agent up: what
//! cannot be told is told with the next report.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::cpu::Cpu;
use crate::socket::{self, Activity, Nudge, Nudged, Request, Tool};

/// Reports come no faster.
const FASTEST: Duration = Duration::from_secs(1);
/// With nothing new, the next one comes so much later: its answer may bring a nudge.
const QUIET: Duration = Duration::from_secs(1);
/// For one report.
const PATIENCE: Duration = Duration::from_secs(10);
/// Results that wait to be told.
const RESULTS: usize = 16;

/// What the session sees of its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When it last did anything, in milliseconds since 1970; 0 = nothing yet.
    pub last_event_ms: i64,
    /// The tool call that it is in.
    pub tool: Option<Tool>,
    /// It waits for a person.
    pub waiting: bool,
}

/// The session's end of the line.
pub struct Reporter {
    seen: watch::Sender<Seen>,
    nudges: mpsc::Receiver<Nudge>,
    results: mpsc::Sender<Nudged>,
    _task: JoinSet<()>,
}

impl Reporter {
    /// Begins to report.
    pub fn start(socket: PathBuf) -> Self {
        let (seen, watched) = watch::channel(Seen::default());
        let (nudge, nudges) = mpsc::channel(1);
        let (results, done) = mpsc::channel(RESULTS);
        let mut task = JoinSet::new();
        task.spawn(report(socket, watched, nudge, done));
        Self { seen, nudges, results, _task: task }
    }

    /// Notes what is seen.
    pub fn see(&self, seen: Seen) {
        self.seen.send_if_modified(|old| {
            let differs = *old != seen;
            *old = seen;
            differs
        });
    }

    /// The next nudge.
    pub async fn nudge(&mut self) -> Option<Nudge> {
        self.nudges.recv().await
    }

    /// No more nudges are taken.
    pub fn close(&mut self) {
        self.nudges.close();
    }

    /// Where results of nudges go.
    pub fn results(&self) -> mpsc::Sender<Nudged> {
        self.results.clone()
    }
}

async fn report(
    socket: PathBuf,
    mut seen: watch::Receiver<Seen>,
    nudge: mpsc::Sender<Nudge>,
    mut done: mpsc::Receiver<Nudged>,
) {
    let cpu = Cpu::find();
    let mut results: Vec<Nudged> = Vec::new();
    // A nudge comes again until its result was told.
    let mut taken = None;
    loop {
        while results.len() < RESULTS
            && let Ok(result) = done.try_recv()
        {
            results.push(result);
        }
        let Seen { last_event_ms, tool, waiting } = seen.borrow_and_update().clone();
        let activity = Activity {
            last_event_ms,
            tool,
            waiting,
            cpu_seconds: cpu.seconds(),
            results: results.clone(),
        };
        match socket::ask(&socket, Request::Activity(activity), PATIENCE).await {
            Ok(answer) => {
                results.clear();
                if let Some(new) = answer.nudge.filter(|n| taken != Some(n.id)) {
                    let id = new.id;
                    taken = Some(id);
                    if nudge.try_send(new).is_err() {
                        results.push(Nudged {
                            id,
                            ok: false,
                            message: "the agent is ending, or has not taken the nudge before"
                                .into(),
                        });
                    }
                }
            }
            Err(e) => tracing::debug!(error = %e, "the sidecar does not hear what the agent does"),
        }
        sleep(FASTEST).await;
        if results.is_empty() && done.is_empty() {
            // The session is gone when its end of the line is.
            if matches!(timeout(QUIET, seen.changed()).await, Ok(Err(_))) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::{Alarms, Board};

    #[tokio::test]
    async fn what_is_seen_reaches_the_board_and_a_nudge_comes_back_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let board = Arc::new(Board::new(1));
        let stream = board.attached();
        board.nudge(stream, 9, "go on");
        let alarms = Arc::new(Alarms::new(crate::sync::witness::Who::default(), None));
        let desks = socket::Desks { git: mpsc::channel(1).0, board: board.clone(), alarms };
        tokio::spawn(socket::serve(socket::bind(&path).unwrap(), desks));

        let mut reporter = Reporter::start(path);
        reporter.see(Seen {
            last_event_ms: 5,
            tool: Some(Tool { name: "Bash".into(), since_ms: 4 }),
            waiting: false,
        });
        let nudge = reporter.nudge().await.unwrap();
        assert_eq!((nudge.id, nudge.text.as_str()), (1, "go on"));
        reporter.results().try_send(Nudged { id: 1, ok: true, message: String::new() }).unwrap();
        let beat = loop {
            board.changed().await;
            let beat = board.beat(10);
            if !beat.results.is_empty() {
                break beat;
            }
        };
        assert_eq!(
            (beat.last_event_ms, beat.tool.as_str(), beat.results[0].number, beat.results[0].ok),
            (5, "Bash", 9, true)
        );
        reporter.close();
        board.nudge(stream, 10, "too late");
        let refused = loop {
            board.changed().await;
            if let Some(result) = board.beat(10).results.pop() {
                break result;
            }
        };
        assert_eq!((refused.number, refused.ok), (10, false));
    }
}
