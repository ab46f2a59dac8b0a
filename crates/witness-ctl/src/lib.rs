//! The witness controller.
