//! What each controller may do.
