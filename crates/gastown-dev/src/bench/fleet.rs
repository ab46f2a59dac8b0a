//! `cargo xtask bench fleet`: a crowd of polecats, all six controllers, and nodes of kwok.
//!
//! Each controller is a process of its own with its own account. Times are those of the bench's own
//! watches, requests are those of the API server's record, CPU time and memory are those of `/proc`.

mod audit;
mod controllers;
mod counts;
mod lives;
mod observe;
mod phases;
mod report;
mod setup;
mod soak;
mod usage;

use anyhow::{Context, Result, ensure};
use xtask::cli::{FleetArgs, FleetPhase};

use self::lives::Lives;
use self::observe::Observer;
use self::phases::Run;
use self::report::Measured;
use self::setup::{NAMESPACE, Setup};
use super::figures::Figures;

/// Measures.
pub async fn run(args: &FleetArgs) -> Result<Figures> {
    ensure!(args.rate > 0.0, "--rate must be more than 0");
    let cap = args.cap.unwrap_or(100);
    ensure!(
        args.polecats <= cap * args.rigs,
        "{} rigs have {} pods at most at a time, and pods run until the bench ends them: raise --rigs",
        args.rigs,
        cap * args.rigs
    );
    ensure!(
        args.replicas > 1
            || !args.phases.iter().any(|p| matches!(p, FleetPhase::Replace | FleetPhase::Soak)),
        "the phases `replace` and `soak` need another replica: --replicas 3"
    );
    let mut setup = Setup::start(args).await?;
    let observer = Observer::start(&setup.client, NAMESPACE, setup.cap);
    let rigs = setup.rigs.clone();
    let lives = Lives::new(&setup.client, NAMESPACE, &rigs, args.convoys, &observer);
    let mut run = Run::new(args, &setup.plane, &mut setup.controllers, lives, &observer);
    let mut phases = Vec::new();
    for phase in &args.phases {
        match run.phase(*phase).await {
            Ok(phase) => phases.push(phase),
            Err(error) => {
                let faults = observer.board().faults.join("\n");
                let logs = setup.controllers.logs(5);
                return Err(error).with_context(|| format!("{phase:?}\n{faults}\n{logs}"));
            }
        }
    }
    let measured = Measured {
        polecats: args.polecats,
        rigs: args.rigs,
        cap: setup.cap,
        most_live: observer.board().most_live,
        convoys: args.convoys,
        replicas: args.replicas,
        release: args.release,
        life: report::life(&phases, f64::from(args.polecats)),
        phases,
    };
    let mut figures = Figures::new(report::table(&measured), &measured)?;
    let faults = observer.board().faults.clone();
    let counted = match (args.check, args.write_counts) {
        (true, _) => counts::check(&measured),
        (_, true) => counts::write(&measured),
        _ => Ok(()),
    };
    figures.error = if faults.is_empty() {
        counted.err()
    } else {
        Some(anyhow::anyhow!("{}", faults.join("\n")))
    };
    Ok(figures)
}
