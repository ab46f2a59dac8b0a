//! The figures of a run, for a program and for a person. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gastown_api::rbac::Controller;
use serde::Serialize;
use xtask::cli::FleetPhase;

use super::super::figures::mebibytes;
use super::audit::{self, REPLICAS, Requests, count, is_by_work};
use super::phases::Phase;
use super::soak::Kept;

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    pub polecats: u32,
    pub rigs: u32,
    /// How many polecats of a rig may run at a time.
    pub cap: usize,
    /// The most that ever did.
    pub most_live: usize,
    pub convoys: bool,
    /// How many replicas each controller has.
    pub replicas: u8,
    pub release: bool,
    /// The phases, in their order.
    pub phases: Vec<Phase>,
    /// Requests of the controllers for one life, by writer, verb and resource; those by time, such as
    /// renewals of leases, are not among them.
    pub life: BTreeMap<String, f64>,
}

/// The requests of one life; none unless all of a life was measured.
pub fn life(phases: &[Phase], polecats: f64) -> BTreeMap<String, f64> {
    let mut all = Requests::new();
    for of in [FleetPhase::Burst, FleetPhase::Ends, FleetPhase::Delete] {
        let Some(phase) = phases.iter().find(|phase| phase.is(of)) else {
            return BTreeMap::new();
        };
        audit::add(&mut all, &phase.requests);
    }
    let mut life = BTreeMap::new();
    for (request, count) in all.iter().filter(|(request, _)| is_by_work(request)) {
        let kind = format!("{} {} {}", request.writer, request.verb, request.resource);
        *life.entry(kind).or_default() += *count as f64 / polecats;
        if matches!(request.code, 404 | 409) {
            let answered = format!("{} answered {}", request.writer, request.code);
            *life.entry(answered).or_default() += *count as f64 / polecats;
        }
    }
    life
}

/// All requests of a life; what was answered is among them already.
pub fn all(life: &BTreeMap<String, f64>) -> f64 {
    life.iter().filter(|(kind, _)| !kind.contains(" answered ")).map(|(_, count)| count).sum()
}

/// The figures for a person.
pub fn table(m: &Measured) -> String {
    let mut text = format!(
        "{} polecats of {} rigs, at most {} of a rig at a time (most seen: {}){}; controllers are {} builds{}\n",
        m.polecats,
        m.rigs,
        m.cap,
        m.most_live,
        if m.convoys { ", a convoy each" } else { "" },
        if m.release { "release" } else { "dev" },
        if m.replicas > 1 {
            format!(", {} replicas of each: memory is the largest", m.replicas)
        } else {
            String::new()
        },
    );
    for phase in &m.phases {
        let _ = write!(text, "\n{}", of_phase(phase));
    }
    if !m.life.is_empty() {
        let _ = write!(text, "\n{}", of_life(m));
    }
    text.trim_end().to_owned()
}

fn of_phase(phase: &Phase) -> String {
    let mut text = format!("{} ({} lives): {:.2} s\n", phase.name(), phase.lives, phase.seconds);
    for (what, spread) in &phase.spreads {
        let spread = spread.as_ref().map_or_else(|| "never".to_owned(), ToString::to_string);
        let _ = writeln!(text, "  {what}: {spread}");
    }
    let _ = writeln!(text, "  requests: {}", requests(phase));
    let _ = writeln!(text, "  CPU seconds: {}", cpu(phase));
    let _ = writeln!(text, "  memory, MiB now/most: {}", memory(phase));
    if !phase.kept.is_empty() {
        let _ = writeln!(
            text,
            "  memory of those never replaced, MiB at 1/5, 3/5, end: {}",
            kept(phase)
        );
    }
    let used = &phase.used;
    let _ = writeln!(
        text,
        "  machine: {:.0} % busy over {:.1} s, {:.1} CPU seconds of other processes, load {:.2}",
        used.busy * 100.0,
        used.seconds,
        used.others_cpu_seconds,
        used.load
    );
    text
}

fn requests(phase: &Phase) -> String {
    let of = |code: u16| count(&phase.requests, |r| is_by_work(r) && r.code == code);
    let work = count(&phase.requests, is_by_work);
    let leases = count(&phase.requests, |r| r.resource == REPLICAS);
    let each = if phase.is(FleetPhase::Idle) {
        format!("{:.1} a minute with leases", (work + leases) as f64 * 60.0 / phase.seconds)
    } else {
        format!("{:.2} a life", work as f64 / phase.lives.max(1) as f64)
    };
    let all = count(&phase.requests, |_| true);
    format!(
        "{work} of the controllers ({each}; {} answered 404, {} 409), {leases} for leases of replicas, {all} of all clients",
        of(404),
        of(409)
    )
}

fn cpu(phase: &Phase) -> String {
    let used = &phase.used.cpu_seconds;
    let of = |name: &str| used.get(name).copied().unwrap_or_default();
    let names = Controller::ALL.map(Controller::name);
    let all: f64 = names.iter().map(|name| of(name)).sum();
    let each: Vec<String> = names
        .iter()
        .map(|name| format!("{} {:.2}", name.trim_end_matches("-ctl"), of(name)))
        .collect();
    let others: Vec<String> = used
        .iter()
        .filter(|(name, _)| !names.contains(&name.as_str()))
        .map(|(name, seconds)| format!("{} {seconds:.2}", name.trim_start_matches("kube-")))
        .collect();
    format!("controllers {all:.2} ({}); {}", each.join(", "), others.join(", "))
}

fn memory(phase: &Phase) -> String {
    let now: u64 = phase.memory.values().map(|m| m.now).sum();
    let peak: u64 = phase.memory.values().map(|m| m.peak).sum();
    let each: Vec<String> = phase
        .memory
        .iter()
        .map(|(name, m)| {
            let name = name.trim_end_matches("-ctl");
            format!("{name} {:.0}/{:.0}", mebibytes(m.now), mebibytes(m.peak))
        })
        .collect();
    format!("all {:.0}/{:.0} ({})", mebibytes(now), mebibytes(peak), each.join(", "))
}

fn kept(phase: &Phase) -> String {
    let of = |(name, kept): (&&str, &Kept)| {
        let all = kept.at.map(|bytes| format!("{:.0}", mebibytes(bytes))).join("/");
        format!("{} {all}", name.trim_end_matches("-ctl"))
    };
    phase.kept.iter().map(of).collect::<Vec<_>>().join(", ")
}

fn of_life(m: &Measured) -> String {
    let mut text = format!("{:<60} {:>8}\n", "REQUESTS OF ONE LIFE", "");
    for (kind, count) in m.life.iter().filter(|(_, count)| **count >= 0.005) {
        let _ = writeln!(text, "{kind:<60} {count:>8.2}");
    }
    let _ = writeln!(text, "{:<60} {:>8.2}", "all", all(&m.life));
    text
}
