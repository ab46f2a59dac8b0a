//! Starts polecat-ctl.

fn main() {}
