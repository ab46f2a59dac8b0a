//! Starts convoy-ctl.

fn main() -> std::process::ExitCode {
    gastown_runtime::run("convoy-ctl", convoy_ctl::start)
}
