//! Starts beadstore-ctl.

fn main() -> std::process::ExitCode {
    gastown_runtime::run("beadstore-ctl", beadstore_ctl::start)
}
