//! `gt`: the program inside a polecat's pod.

fn main() {}
