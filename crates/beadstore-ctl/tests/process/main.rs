//! Stores in real repositories and behind a real server: reads, edits, and edits of others in
//! between.

#![allow(clippy::unwrap_used, clippy::panic)]

use beadstore_ctl::snapshot::StoreSnapshot;
use gastown_core::beads::{Claim, Landed, Wanted, assignee};

mod git;
mod http;

fn claimed(bead: &str, holder: &str, name: &str) -> Wanted {
    let claim = Claim { bead: bead.into(), holder: holder.into(), assignee: assignee("web", name) };
    Wanted { claims: vec![claim], ..Wanted::default() }
}

fn landed(bead: &str, request: &str) -> Wanted {
    let landed = Landed { bead: bead.into(), request: request.into(), commit: "abc123".into() };
    Wanted { landed: vec![landed], ..Wanted::default() }
}

fn status_of(snapshot: &StoreSnapshot, bead: &str) -> String {
    snapshot.issues().get(bead).unwrap_or_else(|| panic!("{bead}")).status.as_str().to_owned()
}
