//! The parts of `gt`, the program inside a polecat's pod.
