//! Agents at work, as a witness sees them: each has the relay and the link of `gt sync`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use gastown_agent::socket::{Activity, PendingRequest, Tool};
use gastown_agent::sync::Relay;
use gastown_agent::sync::witness::{Ca, Holder, Link, Who, Witness};
use gastown_cluster::process::Process;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, NAMESPACE, RIG};

/// How often `gt run` reports while there is something to report.
const REPORTS: Duration = Duration::from_secs(2);
/// An agent is inside a tool call for this many reports, and then outside of one for as many.
const TOOL: usize = 5;

/// All agents of a [`Fixture`].
pub struct Agents<'a> {
    fixture: &'a Fixture,
    witness: Witness,
    relays: Vec<Arc<Relay>>,
    /// One task for each stream that was begun; it ends with the stream.
    streams: JoinSet<()>,
    lost: usize,
    /// Reports to the relays until it is dropped.
    _work: JoinSet<()>,
    git: mpsc::Sender<PendingRequest>,
    asked: mpsc::Receiver<PendingRequest>,
}

impl<'a> Agents<'a> {
    /// Agents at work, without an open stream.
    pub fn new(fixture: &'a Fixture, process: &Process) -> Result<Self> {
        let ca = std::fs::read_to_string(process.ca()).context("reading the CA's certificate")?;
        let witness = Witness {
            endpoint: process.endpoint(),
            ca: Ca::Text(ca),
            token_file: fixture.tokens(),
            // One replica serves all rigs here.
            rig: String::new(),
            holder: Holder::default(),
        };
        let relays: Vec<Arc<Relay>> = fixture.polecats().map(|_| Arc::new(Relay::new(1))).collect();
        let mut work = JoinSet::new();
        work.spawn(report(relays.clone()));
        let (git, asked) = mpsc::channel(64);
        Ok(Self {
            fixture,
            witness,
            relays,
            streams: JoinSet::new(),
            lost: 0,
            _work: work,
            git,
            asked,
        })
    }

    /// How many there are.
    pub fn all(&self) -> usize {
        self.relays.len()
    }

    /// Begins further streams until `upto` were begun.
    pub fn begin(&mut self, upto: usize) {
        let begun = self.streams.len() + self.lost;
        for (relay, polecat) in
            self.relays.iter().zip(self.fixture.polecats()).take(upto).skip(begun)
        {
            let who = Who {
                namespace: NAMESPACE.to_owned(),
                polecat: polecat.clone(),
                rig: RIG.to_owned(),
                attempt: 1,
            };
            let witness =
                Witness { token_file: self.fixture.token(&polecat), ..self.witness.clone() };
            let (relay_of_it, git) = (relay.clone(), self.git.clone());
            let finish = CancellationToken::new();
            let link = Link { witness, who, relay: relay_of_it, git, finish };
            self.streams.spawn(async move {
                let ended = link.attach().await;
                println!(
                    "streams: the stream of {polecat} ended: {}",
                    ended
                        .err()
                        .map_or_else(|| "the witness closed it".to_owned(), |e| e.to_string())
                );
            });
        }
    }

    /// How many streams were refused or have ended.
    pub fn lost(&mut self) -> usize {
        while self.streams.try_join_next().is_some() {
            self.lost += 1;
        }
        self.lost
    }

    /// How many orders reached an agent: nudges that wait for it, and checkpoints.
    pub fn orders(&mut self) -> usize {
        let mut orders = 0;
        while self.asked.try_recv().is_ok() {
            orders += 1;
        }
        let now = Timestamp::now().as_millisecond();
        orders
            + self
                .relays
                .iter()
                .filter(|relay| relay.report(activity(None, now), now).is_some())
                .count()
    }
}

/// Reports to each relay what its agent does, spread over the interval between two reports.
async fn report(relays: Vec<Arc<Relay>>) {
    let pause = REPORTS / u32::try_from(relays.len().max(1)).unwrap_or(u32::MAX);
    let mut tick = interval(pause.max(Duration::from_millis(1)));
    let mut since = vec![None; relays.len()];
    for round in 0.. {
        for (n, (relay, since)) in relays.iter().zip(&mut since).enumerate() {
            tick.tick().await;
            let now = Timestamp::now().as_millisecond();
            *since = is_in_tool(n + round).then(|| since.unwrap_or(now));
            relay.report(activity(*since, now), now);
        }
    }
}

/// Whether an agent is inside a tool call at its report of this number.
fn is_in_tool(report: usize) -> bool {
    (report / TOOL).is_multiple_of(2)
}

/// An agent that did something now, and is inside a tool call since `since`, if at all.
fn activity(since: Option<i64>, now_ms: i64) -> Activity {
    let tool = since.map(|since_ms| Tool { name: "Bash: make test".to_owned(), since_ms });
    Activity { last_event_ms: now_ms, tool, ..Activity::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_in_a_tool_call_for_some_reports_and_then_outside_for_as_many() {
        let drawn: String =
            (0..17).map(|report| if is_in_tool(report) { 't' } else { '.' }).collect();
        assert_eq!(drawn, "ttttt.....ttttt..");
    }
}
