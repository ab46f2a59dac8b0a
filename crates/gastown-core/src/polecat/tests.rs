//! The rules, one a test.
