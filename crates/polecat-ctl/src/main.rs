//! Starts polecat-ctl.

use std::process::ExitCode;

fn main() -> ExitCode {
    gastown_runtime::run("polecat-ctl", polecat_ctl::start)
}
