//! Names and addresses in commits.

use gastown_types::Identity;
use serde_json::json;

use crate::fixture::{Fixture, bead_store, refinery, rig, with};
use crate::rules::{taken_means_read, texts};

#[tokio::test]
async fn names_and_addresses_are_those_that_the_controllers_read() {
    let fixture = Fixture::new().await;
    let good = ["Gastown Beads <beads@example.org>", "b <b@h>", "J\u{fc}rgen, Dr. (x) <j@h>"];
    let bad = [
        "beads",
        "<b@h.org>",
        "a <b@h> <c@h>",
        "a\nb <c@h>",
        "a <b c>",
        " a <b@h>",
        "a  <b@h>",
        "a <b@h>\n",
    ];
    for text in good {
        assert!(text.parse::<Identity>().is_ok(), "{text}");
    }
    for text in bad {
        assert!(text.parse::<Identity>().is_err(), "{text}");
    }
    let rig = with(rig(), "spec/refinery", json!({}));
    for (base, place) in [
        (&bead_store(), "spec/git/commitAuthor"),
        (&refinery(), "spec/committer"),
        (&rig, "spec/refinery/committer"),
    ] {
        texts(&fixture, base, place, &good, &bad, &["name and an address"]).await;
    }
    let first: &[&str] = &["a", "A b", "\u{fc}", "J", "b.", "", " ", "\u{a0}"];
    // Not U+0085: an apply is read as YAML, where that is a line break, which becomes a space.
    let more: &[&str] = &["", "", "", "a", ".", " ", "\t", "\n", "\n", "<"];
    let between: &[&str] = &[" <", " <", " <", " <", "<", " "];
    let mail: &[&str] = &["b", "b@h", "b", "b@h", "", "\0"];
    let rest: &[&str] = &["", "", "", "@h", "@h", " ", "\u{2003}", "<", "\r"];
    let end: &[&str] = &[">", ">", ">", ">", ">", "> ", ""];
    let parts = [first, more, between, mail, rest, end];
    let reads = |text: &str| text.parse::<Identity>().is_ok();
    taken_means_read(&fixture, &refinery(), "spec/committer", &parts, reads).await;
}
