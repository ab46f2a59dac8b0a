//! `cargo xtask bench streams`: thousands of agents that report to one witness-ctl.
//!
//! Each stream is what `gt sync` holds: its own connection with TLS, its own token bound to its own
//! pod, the pace of its heartbeats.

mod agents;
mod fixture;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use gastown_api::rbac::Controller;
use gastown_cluster::control_plane::{ControlPlane, Options};
use gastown_cluster::install;
use gastown_cluster::process::Process;
use serde::Serialize;
use tokio::time::sleep;

use xtask::cli::StreamsArgs;

use super::figures::{Figures, mebibytes, program};
use super::metrics;
use agents::Agents;
use fixture::Fixture;

/// witness-ctl's gauge of open streams.
const OPEN: &str = "gastown_witness_streams";
/// witness-ctl's counter of heartbeats.
const HEARTBEATS: &str = "gastown_witness_heartbeats_total";
/// How long heartbeats are counted.
const MINUTE: Duration = Duration::from_mins(1);
/// How many streams may be opening at a time.
const OPENING: usize = 64;
/// How often their number is read.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long all of them may take to open, plus [`LIMIT_PER_STREAM`] for each.
const LIMIT: Duration = Duration::from_mins(1);
/// How much longer they may take for each stream.
const LIMIT_PER_STREAM: Duration = Duration::from_millis(50);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    /// Open at the end, by witness-ctl's gauge.
    streams: usize,
    /// Refused, or ended before the measurement did.
    lost: usize,
    /// From the start of the first stream until all were open.
    attach_seconds: f64,
    /// From then on until every Polecat's status had Healthy=True.
    judge_seconds: f64,
    /// Resident memory of a witness-ctl that knows all Polecats and has no stream, in bytes.
    rss_before_bytes: u64,
    /// With all streams, after a minute of heartbeats.
    rss_bytes: u64,
    streams_per_mebibyte: f64,
    /// CPU time of witness-ctl in the minute of heartbeats.
    cpu_seconds: f64,
    /// Heartbeats in that minute.
    heartbeats: u64,
    /// Requests of witness-ctl to the API server in that minute, by verb and resource.
    requests: BTreeMap<String, u64>,
    /// Nudges and checkpoints that these agents got, although all of them make progress.
    orders: usize,
}

/// Measures.
pub async fn run(args: &StreamsArgs) -> Result<Figures> {
    let program = program("witness-ctl").await?;
    let count = usize::from(args.streams);
    println!("streams: a control plane");
    let plane = ControlPlane::start(Options::default()).await?;
    install::install(&plane, Controller::Witness, &[]).await?;
    println!("streams: {count} polecats, their pods and tokens");
    let fixture = Fixture::create(&plane, count).await?;
    let witness = Process::start(&plane, Controller::Witness, &program, &[]).await?;
    let measured = measure(&fixture, &witness)
        .await
        .with_context(|| format!("the end of witness-ctl's log:\n{}", witness.log(15)))?;
    witness.end().await?;
    let lost = (measured.lost > 0)
        .then(|| anyhow!("{} of {count} streams were refused or dropped", measured.lost));
    Ok(Figures { error: lost, ..Figures::new(table(&measured), &measured)? })
}

async fn measure(fixture: &Fixture, witness: &Process) -> Result<Measured> {
    fixture.await_running().await?;
    let rss_before_bytes = witness.resident()?;
    println!("streams: opening them");
    let mut agents = Agents::new(fixture, witness)?;
    let begun = Instant::now();
    open_all(&mut agents, witness).await?;
    let attached = Instant::now();
    fixture.await_healthy().await?;
    let judged = Instant::now();
    println!("streams: a minute of heartbeats");
    let (before, cpu) = (witness.metrics().await?, witness.cpu()?);
    sleep(MINUTE).await;
    let (cpu_seconds, after) =
        (witness.cpu()?.saturating_sub(cpu).as_secs_f64(), witness.metrics().await?);
    let rss_bytes = witness.resident()?;
    let requests = metrics::since(&metrics::requests(&before), &metrics::requests(&after));
    let streams = metrics::value(&after, OPEN);
    Ok(Measured {
        streams: streams as usize,
        lost: agents.lost(),
        attach_seconds: (attached - begun).as_secs_f64(),
        judge_seconds: (judged - attached).as_secs_f64(),
        rss_before_bytes,
        rss_bytes,
        streams_per_mebibyte: streams
            / mebibytes(rss_bytes.saturating_sub(rss_before_bytes).max(1)),
        cpu_seconds,
        heartbeats: (metrics::value(&after, HEARTBEATS) - metrics::value(&before, HEARTBEATS))
            as u64,
        requests: requests
            .into_iter()
            .map(|((resource, verb), count)| (format!("{verb} {resource}"), count))
            .collect(),
        orders: agents.orders(),
    })
}

/// Opens all streams, some at a time: pods do not start all at once either, and this machine does
/// both ends of each handshake.
async fn open_all(agents: &mut Agents<'_>, witness: &Process) -> Result<()> {
    let all = agents.all();
    let deadline = Instant::now() + LIMIT + LIMIT_PER_STREAM * u32::try_from(all)?;
    loop {
        let open = metrics::value(&witness.metrics().await?, OPEN) as usize;
        agents.begin((open + OPENING).min(all));
        if open == all {
            return Ok(());
        }
        let lost = agents.lost();
        ensure!(
            lost == 0,
            "{lost} streams were refused or dropped while {open} of {all} were open"
        );
        ensure!(Instant::now() < deadline, "only {open} of {all} streams were open in time");
        sleep(INTERVAL).await;
    }
}

fn table(m: &Measured) -> String {
    let mut lines = vec![
        format!(
            "{} streams open, {} refused or dropped, {} orders sent",
            m.streams, m.lost, m.orders
        ),
        format!(
            "opened in {:.1} s, every polecat Healthy {:.1} s later",
            m.attach_seconds, m.judge_seconds
        ),
        format!(
            "witness-ctl: {:.1} MiB resident before, {:.1} MiB with all of them: {:.1} streams per MiB",
            mebibytes(m.rss_before_bytes),
            mebibytes(m.rss_bytes),
            m.streams_per_mebibyte
        ),
        format!("in a minute: {} heartbeats, {:.2} s of CPU time", m.heartbeats, m.cpu_seconds),
        format!("\n{:<40} {:>7}", "REQUESTS TO THE API SERVER", "A MINUTE"),
    ];
    lines.extend(m.requests.iter().map(|(what, count)| format!("{what:<40} {count:>8}")));
    lines.push(format!("{:<40} {:>8}", "all", m.requests.values().sum::<u64>()));
    lines.join("\n")
}
