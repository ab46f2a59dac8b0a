//! The client side of our gRPC services: TLS with our CA, the projected token, trace context and
//! retry. Controllers and the program in a polecat's pod share it.
//!
//! It must not know the Kubernetes API, so that the pod's program needs no client for it.

mod bearer;
mod calls;
mod holder;
mod remote;
mod retry;
mod trace_context;

pub use bearer::Bearer;
pub use calls::{Call, observe};
pub use holder::{Follow, Holder, RIG, elsewhere, others, set_others};
pub use remote::{AuthChannel, Ca, Error, Remote};
pub use retry::retry;
