//! `gt init`, `gt sync` and `gt run` as processes, with real git and a real sshd.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod background;
mod fixture;
mod hostile;
mod http;
mod isolation;
mod life;
mod matrix;
mod pod;
mod real_repositories;
mod remotes;
mod running;
mod saving;
mod witness;
