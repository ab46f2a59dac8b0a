//! Stores in real repositories and behind a real server: what is read of them, what is written, and
//! what happens when somebody else writes too.

#![allow(clippy::unwrap_used, clippy::panic)]

use beadstore_ctl::plan::{Claim, Landed, Wanted, assignee};
use beadstore_ctl::view::View;

mod git;
mod served;

fn claimed(bead: &str, holder: &str, name: &str) -> Wanted {
    let claim = Claim { bead: bead.into(), holder: holder.into(), assignee: assignee("web", name) };
    Wanted { claims: vec![claim], ..Wanted::default() }
}

fn landed(bead: &str, request: &str) -> Wanted {
    let landed = Landed { bead: bead.into(), request: request.into(), commit: "abc123".into() };
    Wanted { landed: vec![landed], ..Wanted::default() }
}

fn status_of(view: &View, bead: &str) -> String {
    view.issues().get(bead).unwrap_or_else(|| panic!("{bead}")).status.as_str().to_owned()
}
