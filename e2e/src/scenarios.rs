//! Runs scenarios in their order on one cluster, and reports as test programs do.

use std::time::Instant;

use anyhow::Result;

use crate::environment::Environment;

/// Those scenarios whose names hold one of the program's arguments. Without arguments all but the last
/// `by_hand`, which take long. Under `CI=true` none is an error.
pub fn chosen(all: &[&'static str], by_hand: usize) -> Result<Vec<&'static str>> {
    let filters = filters(std::env::args().skip(1));
    let usual = all.len().saturating_sub(by_hand);
    let is_meant = |(n, name): &(usize, &str)| {
        if filters.is_empty() {
            *n < usual
        } else {
            filters.iter().any(|f| name.contains(f.as_str()))
        }
    };
    let chosen = all.iter().copied().enumerate().filter(is_meant).map(|(_, name)| name);
    let chosen: Vec<&str> = chosen.collect();
    if chosen.is_empty() {
        println!("no scenario's name holds any of: {}", filters.join(", "));
        anyhow::ensure!(!gastown_fakes::is_ci(), "under CI=true a filter must match a scenario");
    }
    Ok(chosen)
}

/// Plays them all, whatever becomes of one, and takes the cluster down. An error names those that
/// failed.
pub async fn run(
    env: Environment,
    chosen: &[&str],
    play: impl AsyncFn(&Environment, &str) -> Result<()>,
) -> Result<()> {
    let mut failed = Vec::new();
    for name in chosen {
        println!("\nscenario {name}");
        let start = Instant::now();
        let played = tokio::select! {
            played = play(&env, name) => played,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        let seconds = start.elapsed().as_secs();
        match played {
            Ok(()) => println!("scenario {name} ... ok ({seconds} s)"),
            Err(e) => {
                println!("scenario {name} ... FAILED ({seconds} s)\n{e:?}");
                failed.push(*name);
            }
        }
    }
    env.down().await?;
    anyhow::ensure!(
        failed.is_empty(),
        "{} of {} scenarios failed: {}",
        failed.len(),
        chosen.len(),
        failed.join(", ")
    );
    println!("\n{} passed, 0 failed", chosen.len());
    Ok(())
}

/// The filters among the arguments; the flags for programs of `cargo test` are ignored.
fn filters(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut args = args;
    let mut filters = Vec::new();
    while let Some(arg) = args.next() {
        if arg == "--test-threads" {
            args.next();
        } else if !arg.starts_with('-') {
            filters.push(arg);
        }
    }
    filters
}
