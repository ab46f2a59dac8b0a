//! Lives come and go for as long as is wanted, while replicas are ended, killed and rolled out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;
use gastown_api::rbac::Controller;
use gastown_cluster::control_plane::ControlPlane;
use serde::Serialize;

use super::controllers::Controllers;
use super::lives::Lives;
use super::observe::Observer;

/// The part of the lives that ends at a time.
const PART: usize = 10;
/// How long all replicas are left alone between two that are stopped.
const PAUSE: Duration = Duration::from_secs(5);

/// What a soak works with.
pub struct Soak<'a, 'b> {
    pub time: Duration,
    /// How long the controllers may take for all lives.
    pub limit: Duration,
    pub plane: &'a ControlPlane,
    pub controllers: &'a mut Controllers,
    pub lives: &'a mut Lives<'b>,
    pub observer: &'a Observer,
}

/// How long it took until the shards of a stopped replica had others.
#[derive(Default)]
pub struct Stops {
    pub ended: Vec<Duration>,
    pub killed: Vec<Duration>,
}

/// The memory of a replica that is never replaced, in bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// After a fifth of the time, three fifths, and at the end.
    pub at: [u64; 3],
}

/// Runs until the time is over and all lives have ended. Every life must become Done and may have one pod;
/// what else must not happen is the observer's to note.
pub async fn run(soak: Soak<'_, '_>) -> Result<(BTreeMap<&'static str, Kept>, Stops)> {
    let Soak { time, limit, plane, controllers, lives, observer } = soak;
    let end = Instant::now() + time;
    let (samples, stops) = {
        let churn = churn(lives, observer, limit, end);
        let replaced = replace(controllers, plane, end, time);
        let (replaced, ()) = tokio::try_join!(replaced, churn)?;
        replaced
    };
    let present = lives.oldest(usize::MAX);
    let done = observer.board().counts.done + present.len();
    lives.end_of(&present).await?;
    observer.until(limit, "all are Done", |c| c.done == done).await?;
    let counts = observer.board().counts;
    ensure!(counts.polecats == present.len(), "{} exist: {counts:?}", present.len());
    println!(
        "fleet: {done} lives, {} replicas ended, {} killed",
        stops.ended.len(),
        stops.killed.len()
    );
    let kept = samples[0].keys().map(|name| {
        let at = [0, 1, 2].map(|n: usize| samples[n].get(name).copied().unwrap_or_default());
        (*name, Kept { at })
    });
    Ok((kept.collect(), stops))
}

/// The oldest lives end, are seen Done, are deleted, and others follow them.
async fn churn(
    lives: &mut Lives<'_>,
    observer: &Observer,
    limit: Duration,
    end: Instant,
) -> Result<()> {
    let part = lives.present().div_ceil(PART);
    while Instant::now() < end {
        let names = lives.oldest(part);
        let counts = observer.board().counts;
        lives.end_of(&names).await?;
        let done = counts.done + names.len();
        observer.until(limit, "a part of all is Done", |c| c.done == done).await?;
        lives.follow(names.len()).await?;
        let running = counts.running + names.len();
        observer.until(limit, "those that follow run", |c| c.running == running).await?;
    }
    Ok(())
}

type Samples = [BTreeMap<&'static str, u64>; 3];

/// One replica after the other is stopped, but for the last of each controller, whose memory is sampled.
async fn replace(
    controllers: &mut Controllers,
    plane: &ControlPlane,
    end: Instant,
    time: Duration,
) -> Result<(Samples, Stops)> {
    let kept = controllers.last_replica();
    let (mut samples, mut stops) = (Samples::default(), Stops::default());
    let mut random = Rng::with_seed(1);
    let mut taken = 0;
    while Instant::now() < end {
        let over = time.saturating_sub(end - Instant::now());
        while taken < 2 && over >= time * [1, 3][taken] / 5 {
            samples[taken] = controllers.memory_of(kept)?;
            taken += 1;
        }
        let controller = random.choice(Controller::ALL).unwrap_or(Controller::Polecat);
        match random.u8(0..6) {
            0 => {
                for replica in 0..kept {
                    stops.ended.push(one(controllers, plane, (controller, replica), false).await?);
                }
            }
            1 | 2 => {
                let replica = random.u8(0..kept);
                stops.killed.push(one(controllers, plane, (controller, replica), true).await?);
            }
            _ => {
                let replica = random.u8(0..kept);
                stops.ended.push(one(controllers, plane, (controller, replica), false).await?);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    for sample in &mut samples[taken..] {
        *sample = controllers.memory_of(kept)?;
    }
    Ok((samples, stops))
}

async fn one(
    controllers: &mut Controllers,
    plane: &ControlPlane,
    (controller, replica): (Controller, u8),
    kill: bool,
) -> Result<Duration> {
    let took = controllers.stop(plane, controller, replica, kill).await?;
    controllers.restart(plane, controller, replica).await?;
    Ok(took)
}
