//! A client of `bd serve`: the v0 HTTP contract of `bd` 1.3 as typed reads, guarded writes, and
//! errors that carry the next step.
//!
//! - [`Client::connect`] asks the server for its project and binds a [`Session`] to that project:
//!   each request carries the project id, so that a server of another store refuses it before
//!   anything is read or written.
//! - [`Session::snapshot`] reads the whole store into a [`gastown_beads::IssueSet`],
//!   [`Session::changes`] lists the issues that changed since.
//! - [`Session::claim`], [`Session::release`], [`Session::close`] and [`Session::comment`] do what
//!   the same names do to a store in git, and return the same: [`gastown_beads::Change::Made`], or
//!   `NotNeeded` where the store was in that state already.
//!
//! When an answer is lost, it is unknown whether the write was done. A claim is sent again, since
//! the server takes a second claim of the same actor for the first one. A close is sent again only
//! with the revision that it was first sent with. A release and a comment are never sent again: the
//! bead is read instead.
//!
//! Nothing here sleeps: a server that asks to be retried later is an error with that time.
//! Redirects are not followed, proxies of the environment are not used, answers are bounded in size
//! and time. This crate does not know Kubernetes.
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
