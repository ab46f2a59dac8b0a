//! The refinery controller's program.

fn main() -> std::process::ExitCode {
    gastown_runtime::run("refinery-ctl", refinery_ctl::start)
}
