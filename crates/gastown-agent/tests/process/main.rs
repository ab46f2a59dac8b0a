//! `gt init`, `gt sync` and `gt run` as processes, against real git and a real sshd.

mod life;
mod pod;
