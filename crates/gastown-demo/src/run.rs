//! Playing a plan from the first object to the last landed change.

use std::time::{Duration, Instant};

use anyhow::Result;
use gastown_api::ConvoyPhase;
use kube::Client;

use crate::beads;
use crate::deadline::Deadline;
use crate::diagnosis::diagnose;
use crate::news::News;
use crate::objects::CONVOY;
use crate::plan::Plan;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::settings::Settings;
use crate::snapshot::Snapshot;

/// How often the cluster is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Plays the plan: puts its changes into the bead store, sends one Convoy off, and watches until
/// every change has landed, every bead is closed and the Convoy is complete. `report` gets a line
/// for everything that changes.
pub async fn run(
    client: &Client,
    settings: Settings,
    plan: &Plan,
    mut report: impl FnMut(&str),
) -> Result<(Scenario, Report)> {
    report(&format!("setting up the scenario in namespace {}", settings.namespace));
    let scenario = Scenario::set_up(client, settings, plan, &plan.scripts()).await?;
    scenario.start_convoys(plan).await?;
    let mut news = News::default();
    let mut deadline = Deadline::new(scenario.settings.deadline);
    loop {
        let snapshot = scenario.snapshot().await?;
        for line in news.of(&snapshot) {
            report(&line);
            deadline.note_news();
        }
        let landed = plan.changes.iter().filter(|c| snapshot.is_finished(&c.bead)).count();
        let complete = snapshot.convoy(CONVOY).and_then(|c| c.status.as_ref()?.phase)
            == Some(ConvoyPhase::Complete);
        if landed == plan.changes.len()
            && complete
            && scenario.has_delivered(plan, &snapshot).await?
        {
            let beads = beads::read(&plan.path(), &scenario.repository_here()).await?;
            if plan.changes.iter().all(|c| beads.get(&c.bead).is_some_and(|b| b.status == "closed"))
            {
                let result = Report::new(&scenario, plan, &snapshot, &beads).await?;
                return Ok((scenario, result));
            }
        }
        if let Some(why) = deadline.is_over(&snapshot, landed, plan.changes.len()) {
            return Err(diagnose(&why, &scenario, &snapshot).await);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Looks at the cluster until `done` returns something, or fails after `limit` with a diagnosis.
pub async fn until<T>(
    scenario: &Scenario,
    what: &str,
    limit: Duration,
    mut done: impl FnMut(&Snapshot) -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let snapshot = scenario.snapshot().await?;
        if let Some(found) = done(&snapshot) {
            return Ok(found);
        }
        if Instant::now() > deadline {
            let what = format!("{what} did not happen within {} s", limit.as_secs());
            return Err(diagnose(&what, scenario, &snapshot).await);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
