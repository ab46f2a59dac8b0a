//! Starts rig-ctl.

fn main() {}
