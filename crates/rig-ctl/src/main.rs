//! Starts rig-ctl.

fn main() -> std::process::ExitCode {
    gastown_runtime::run("rig-ctl", rig_ctl::start)
}
