//! The program on the CRDs of earlier releases.

use anyhow::Result;
use gastown_api::rbac::Controller;
use gastown_cluster::definitions;

#[tokio::test]
async fn the_program_names_definitions_that_are_missing_or_too_old_and_works_on_the_others()
-> Result<()> {
    definitions::check(Controller::Rig, env!("CARGO_BIN_EXE_rig-ctl")).await
}
