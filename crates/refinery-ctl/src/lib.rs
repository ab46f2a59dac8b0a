//! The refinery controller.
