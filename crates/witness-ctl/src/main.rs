//! Starts witness-ctl.

fn main() -> std::process::ExitCode {
    gastown_runtime::run("witness-ctl", witness_ctl::start)
}
