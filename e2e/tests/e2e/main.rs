//! Scenarios on a real cluster: kubelet, chart, images, the real agent. They share one cluster and run
//! in this order.
//!
//! Arguments choose the scenarios whose names hold one of them; the last one is played only when it is
//! chosen.

mod cluster;
mod demo;
mod ends;
mod fleet;
mod hostile;
mod network;
mod remote;
mod replicas;
mod saved;
mod surroundings;
mod traces;

use anyhow::Result;
use e2e::environment::Environment;
use e2e::scenarios;

/// How many are played only when they are chosen.
const BY_HAND: usize = 1;
const SCENARIOS: [&str; 13] = [
    "the_cluster_answers_as_any_other",
    "the_default_demo_lands_all_one_after_a_rework_with_its_evidence",
    "all_changes_of_a_real_repository_land_while_controllers_are_killed",
    "a_convoy_lands_while_replicas_that_share_the_work_are_replaced",
    "each_life_is_one_whole_trace_though_controllers_are_killed",
    "work_is_saved_when_a_polecat_is_terminated_or_deleted",
    "what_an_agent_plants_is_neither_executed_nor_read_nor_pushed",
    "the_next_attempt_has_the_work_of_pods_that_are_frozen_wedged_or_evicted",
    "work_waits_visibly_for_a_remote_that_refuses_the_password_or_is_down",
    "work_lands_with_submodules_and_large_files_beside_a_mesh_and_under_a_quota",
    "an_agent_and_a_gate_reach_nothing_but_what_they_need",
    "a_crowd_has_no_more_requests_a_life_than_before",
    "all_changes_of_a_real_repository_land_while_pods_of_three_replicas_are_deleted_at_random",
];

#[tokio::main]
async fn main() -> Result<()> {
    let chosen = scenarios::chosen(&SCENARIOS, BY_HAND)?;
    if chosen.is_empty() {
        return Ok(());
    }
    scenarios::run(Environment::up().await?, &chosen, play).await
}

async fn play(env: &Environment, name: &str) -> Result<()> {
    match SCENARIOS.iter().position(|s| *s == name) {
        Some(0) => cluster::answers(env).await,
        Some(1) => demo::default(env).await,
        Some(2) => Box::pin(demo::real_repository(env)).await,
        Some(3) => Box::pin(replicas::replaced(env)).await,
        Some(4) => Box::pin(traces::whole(env)).await,
        Some(5) => saved::work_is_saved(env).await,
        Some(6) => hostile::planted(env).await,
        Some(7) => ends::next_attempt_goes_on(env).await,
        Some(8) => remote::work_waits(env).await,
        Some(9) => surroundings::work_lands(env).await,
        Some(10) => network::attacks_reach_nothing(env).await,
        Some(11) => fleet::costs_no_more().await,
        _ => Box::pin(replicas::deleted_at_random(env)).await,
    }
}
