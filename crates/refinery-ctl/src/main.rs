//! The refinery controller's program.

fn main() -> std::process::ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == refinery_ctl::builder::ARGUMENT)
    {
        return refinery_ctl::builder::main();
    }
    gastown_runtime::run("refinery-ctl", refinery_ctl::start)
}
