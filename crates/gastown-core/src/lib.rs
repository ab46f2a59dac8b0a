//! Pure decisions. Facts in, plans out: no client, no clock, no randomness, no I/O.

pub mod admission;
pub mod beads;
#[cfg(test)]
mod compat_tests;
pub mod convoy;
pub mod escalation;
#[cfg(test)]
mod fuzz;
pub mod polecat;
pub mod report;
pub mod retry;
pub mod rig;
pub mod seniority;
pub mod train;
pub mod witness;
