//! The polecat controller.
