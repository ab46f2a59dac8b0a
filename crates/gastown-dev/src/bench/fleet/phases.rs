//! The phases: what each needs, does and measures.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use gastown_api::rbac::Controller;
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::proc::Memory;
use serde::Serialize;
use xtask::cli::{FleetArgs, FleetPhase};

use super::super::spread::Spread;
use super::audit::{self, Requests, is_by_work};
use super::controllers::Controllers;
use super::lives::Lives;
use super::observe::{Life, Observer};
use super::soak::{self, Kept};
use super::usage::{Usage, Used};

/// How long a phase may take for its first life, and how much longer for each further one.
const LIMIT: (Duration, Duration) = (Duration::from_mins(1), Duration::from_millis(400));
/// A phase is over when the controllers have asked for nothing for as long as this.
const QUIET: Duration = Duration::from_secs(3);
/// They may write by time; no longer than this is waited for them.
const QUIET_LIMIT: Duration = Duration::from_secs(30);

/// What a phase measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    name: String,
    /// How many lives took part.
    pub lives: usize,
    /// From its first action until what it is about was seen of all lives, in seconds.
    pub seconds: f64,
    /// Durations of each life, by what they are.
    pub spreads: BTreeMap<&'static str, Option<Spread>>,
    /// CPU time, until the controllers were quiet.
    pub used: Used,
    /// Memory of each controller at the end.
    pub memory: BTreeMap<&'static str, Resident>,
    /// Memory of the replica of each controller that a soak never replaced.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<&'static str, Kept>,
    /// Requests to the API server until the controllers were quiet.
    #[serde(serialize_with = "as_list")]
    pub requests: Requests,
}

/// The memory of a controller, in bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resident {
    /// What is resident now.
    pub now: u64,
    /// The most that was since it started.
    pub peak: u64,
}

impl Phase {
    /// The phase's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is this one.
    pub fn is(&self, phase: FleetPhase) -> bool {
        self.name == name(phase)
    }
}

fn name(phase: FleetPhase) -> String {
    format!("{phase:?}").to_lowercase()
}

fn as_list<S: serde::Serializer>(requests: &Requests, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Row<'a> {
        #[serde(flatten)]
        request: &'a audit::Request,
        count: u64,
    }
    to.collect_seq(requests.iter().map(|(request, count)| Row { request, count: *count }))
}

/// What exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    None,
    /// Polecats whose pods run.
    Live,
    /// Polecats that are Done.
    Done,
}

/// A run of phases, one after the other.
pub struct Run<'a> {
    args: &'a FleetArgs,
    plane: &'a ControlPlane,
    controllers: &'a mut Controllers,
    lives: Lives<'a>,
    observer: &'a Observer,
    crowd: Crowd,
    /// How far the record of requests was read.
    read: u64,
    /// How long it took until all shards of a replica had others: of those that were ended, and of
    /// those that were killed.
    ended: Vec<Duration>,
    killed: Vec<Duration>,
    /// The memory of those that a soak never replaced.
    kept: BTreeMap<&'static str, Kept>,
}

impl<'a> Run<'a> {
    /// Nothing exists yet.
    pub fn new(
        args: &'a FleetArgs,
        plane: &'a ControlPlane,
        controllers: &'a mut Controllers,
        lives: Lives<'a>,
        observer: &'a Observer,
    ) -> Self {
        let (ended, killed, kept) = Default::default();
        let crowd = Crowd::None;
        Self { args, plane, controllers, lives, observer, crowd, read: 0, ended, killed, kept }
    }

    /// Runs a phase: what it needs first, not measured.
    pub async fn phase(&mut self, phase: FleetPhase) -> Result<Phase> {
        self.prepare(phase).await?;
        self.quiet().await?;
        println!("fleet: {}", name(phase));
        self.requests()?;
        if phase == FleetPhase::Restart {
            self.controllers.kill();
        }
        let before = Usage::now(self.plane, self.controllers)?;
        let seconds = match phase {
            FleetPhase::Create => self.create().await?,
            FleetPhase::Burst => self.burst().await?,
            FleetPhase::Idle => self.idle().await,
            FleetPhase::Replace => self.replace().await?,
            FleetPhase::Soak => self.soak().await?,
            FleetPhase::Ends => self.ends().await?,
            FleetPhase::Restart => self.restart().await?,
            FleetPhase::Delete => self.delete().await?,
        }
        .as_secs_f64();
        let requests = match phase {
            FleetPhase::Idle => self.requests()?,
            _ => self.quiet().await?,
        };
        let used = Usage::now(self.plane, self.controllers)?.since(&before);
        let resident = |m: Memory| Resident { now: m.resident, peak: m.peak };
        let memory = self.controllers.memory()?.into_iter();
        let lives = self.observer.board().lives.len();
        Ok(Phase {
            name: name(phase),
            lives,
            seconds,
            spreads: self.spreads(phase),
            used,
            memory: memory.map(|(name, memory)| (name, resident(memory))).collect(),
            kept: std::mem::take(&mut self.kept),
            requests,
        })
    }

    /// How long the controllers may take for all polecats.
    fn limit(&self) -> Duration {
        LIMIT.0 + LIMIT.1 * self.args.polecats
    }

    fn polecats(&self) -> usize {
        self.args.polecats as usize
    }

    async fn prepare(&mut self, phase: FleetPhase) -> Result<()> {
        match phase {
            FleetPhase::Create | FleetPhase::Burst => self.clear().await,
            FleetPhase::Delete if self.lives.present() == self.polecats() => Ok(()),
            FleetPhase::Idle
            | FleetPhase::Replace
            | FleetPhase::Soak
            | FleetPhase::Ends
            | FleetPhase::Restart
                if self.crowd == Crowd::Live && self.lives.present() == self.polecats() =>
            {
                Ok(())
            }
            _ => {
                self.clear().await?;
                self.burst().await.map(drop)
            }
        }
    }

    async fn clear(&mut self) -> Result<()> {
        if self.crowd != Crowd::None {
            self.delete().await?;
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<Duration> {
        let count = self.args.alone.map_or(self.polecats().min(100), |count| count as usize);
        let begun = Instant::now();
        self.crowd = Crowd::Live;
        self.lives.paced(count, self.args.rate).await?;
        let all = self.observer.until(self.limit(), "all pods run", |c| c.running == count).await?;
        Ok(all - begun)
    }

    async fn burst(&mut self) -> Result<Duration> {
        let count = self.polecats();
        let begun = Instant::now();
        self.crowd = Crowd::Live;
        self.lives.burst(count).await?;
        let all =
            self.observer.until(self.limit(), "all pods exist", |c| c.started == count).await?;
        self.observer.until(self.limit(), "all pods run", |c| c.running == count).await?;
        Ok(all - begun)
    }

    async fn idle(&self) -> Duration {
        let time = Duration::from_secs(self.args.idle_seconds.into());
        tokio::time::sleep(time).await;
        time
    }

    /// Each replica is ended once, and one of each controller is killed.
    async fn replace(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        (self.ended, self.killed) = Default::default();
        for (controller, replica) in self.controllers.replicas() {
            let took = self.controllers.stop(self.plane, controller, replica, false).await?;
            self.ended.push(took);
            self.controllers.restart(self.plane, controller, replica).await?;
        }
        for controller in Controller::ALL {
            let took = self.controllers.stop(self.plane, controller, 0, true).await?;
            self.killed.push(took);
            self.controllers.restart(self.plane, controller, 0).await?;
        }
        Ok(begun.elapsed())
    }

    async fn soak(&mut self) -> Result<Duration> {
        self.crowd = Crowd::Done;
        let begun = Instant::now();
        let stops;
        (self.kept, stops) = soak::run(soak::Soak {
            time: Duration::from_mins(self.args.minutes.into()),
            limit: self.limit(),
            plane: self.plane,
            controllers: self.controllers,
            lives: &mut self.lives,
            observer: self.observer,
        })
        .await?;
        (self.ended, self.killed) = (stops.ended, stops.killed);
        Ok(begun.elapsed())
    }

    async fn ends(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.crowd = Crowd::Done;
        self.lives.end(Duration::from_secs(self.args.spread.into())).await?;
        Ok(self.all_done().await? - begun)
    }

    /// The controllers are dead already.
    async fn restart(&mut self) -> Result<Duration> {
        self.crowd = Crowd::Done;
        self.lives.end(Duration::ZERO).await?;
        let begun = Instant::now();
        self.controllers.start(self.plane).await?;
        Ok(self.all_done().await? - begun)
    }

    async fn all_done(&self) -> Result<Instant> {
        let count = self.polecats();
        let done = self.observer.until(self.limit(), "all are Done", |c| c.done == count).await?;
        if !self.args.convoys {
            return Ok(done);
        }
        self.observer.until(self.limit(), "all convoys are Complete", |c| c.complete == count).await
    }

    async fn delete(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.crowd = Crowd::None;
        self.lives.delete().await?;
        let gone = |c: &super::observe::Counts| c.polecats == 0 && c.pods == 0;
        Ok(self.observer.until(self.limit(), "all are gone", gone).await? - begun)
    }

    fn spreads(&self, phase: FleetPhase) -> BTreeMap<&'static str, Option<Spread>> {
        let of = |from: fn(&Life) -> Option<Instant>, to: fn(&Life) -> Option<Instant>| {
            let board = self.observer.board();
            let took = board
                .lives
                .values()
                .filter_map(|life| Some(to(life)?.saturating_duration_since(from(life)?)));
            Spread::of(took.collect())
        };
        match phase {
            FleetPhase::Create | FleetPhase::Burst => [
                ("create to pod", of(|l| l.created, |l| l.pod)),
                ("create to Running", of(|l| l.created, |l| l.running)),
            ]
            .into(),
            FleetPhase::Ends if self.args.convoys => [
                ("pod ended to Done", of(|l| l.ended, |l| l.done)),
                ("Done to Complete", of(|l| l.done, |l| l.complete)),
            ]
            .into(),
            FleetPhase::Soak => [
                ("create to pod", of(|l| l.created, |l| l.pod)),
                ("pod ended to Done", of(|l| l.ended, |l| l.done)),
                ("ended to all shards at others", Spread::of(self.ended.clone())),
                ("killed to all shards at others", Spread::of(self.killed.clone())),
            ]
            .into(),
            FleetPhase::Replace => [
                ("ended to all shards at others", Spread::of(self.ended.clone())),
                ("killed to all shards at others", Spread::of(self.killed.clone())),
            ]
            .into(),
            FleetPhase::Ends => [("pod ended to Done", of(|l| l.ended, |l| l.done))].into(),
            FleetPhase::Idle | FleetPhase::Restart | FleetPhase::Delete => BTreeMap::new(),
        }
    }

    /// The requests since the last call.
    fn requests(&mut self) -> Result<Requests> {
        let (requests, read) = audit::read(&self.plane.audit_log(), self.read)
            .context("the API server's record of requests")?;
        self.read = read;
        Ok(requests)
    }

    /// Waits until the controllers are quiet; returns the requests since the last call.
    async fn quiet(&mut self) -> Result<Requests> {
        let begun = Instant::now();
        let mut all = self.requests()?;
        loop {
            tokio::time::sleep(QUIET).await;
            let more = self.requests()?;
            audit::add(&mut all, &more);
            if audit::count(&more, is_by_work) == 0 || begun.elapsed() > QUIET_LIMIT {
                return Ok(all);
            }
        }
    }
}
