//! The rig controller.
