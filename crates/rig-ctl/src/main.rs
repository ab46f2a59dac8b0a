//! Starts rig-ctl.

use rig_ctl::install_check;

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some(install_check::ARGUMENT) {
        return gastown_runtime::run_once("rig-ctl", install_check::run);
    }
    gastown_runtime::run("rig-ctl", rig_ctl::start)
}
