//! `gt init`, `gt sync` and `gt run` as processes, against real git and a real sshd.

mod isolation;
mod life;
mod pod;
mod remotes;
