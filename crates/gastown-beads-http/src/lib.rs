//! Bead stores behind `bd serve`: the v0 HTTP contract of `bd` 1.3 as typed reads, guarded writes,
//! and errors that say what to do next.
//!
//! - [`Client::connect`] asks who answers and binds a [`Session`] to that project: each request
//!   carries its id, so that a server of another store refuses it before anything is read or
//!   written.
//! - [`Session::snapshot`] reads the whole store into a [`gastown_beads::IssueSet`],
//!   [`Session::changes`] what changed since.
//! - [`Session::claim`], [`Session::release`], [`Session::close`] and [`Session::comment`] do what
//!   the same names do to a store in git, and say the same: [`gastown_beads::Change::Made`], or
//!   `NotNeeded` where the store said so already.
//!
//! What a write did stays unknown when its answer is lost. A claim is asked for again, since the
//! server takes it from the same actor for the same; a close only under the revision that it was
//! first asked for with; a release and a comment never: the bead is looked at instead.
//!
//! Nothing here sleeps: a server that asks for patience is an error that says for how long.
//! Redirects are not followed, proxies of the environment not used, answers bounded in size and
//! time. It knows nothing of Kubernetes.
//!
//! Tested against a server written from the published contract (`tests/process`), not against a
//! live `bd serve`.

mod endpoint;
mod error;
mod http;
mod session;
mod token;
mod wire;
mod write;

pub use endpoint::{Endpoint, EndpointError};
pub use error::{Class, Error};
pub use http::Options;
pub use session::{Changes, Client, Session, Snapshot};
pub use token::{Token, TokenError};
pub use wire::{Code, Context, Revision};
pub use write::Blockers;
