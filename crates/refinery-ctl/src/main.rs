//! Starts refinery-ctl.

fn main() {}
