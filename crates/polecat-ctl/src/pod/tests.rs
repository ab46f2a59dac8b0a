//! Objects as a person expects them.
