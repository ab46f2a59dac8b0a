//! `gt init`, `gt sync` and `gt run` as processes, against real git and a real sshd.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod http;
mod isolation;
mod life;
mod pod;
mod remotes;
mod running;
mod town;
mod witness;
