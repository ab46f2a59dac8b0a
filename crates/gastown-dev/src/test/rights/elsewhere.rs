//! Rights that no test of the control plane uses, each with the reason. A right that is not here must be
//! used; what is here is not shown to be needed by those tests.

use super::place::Place;

/// Some rights of some controllers.
struct Listed {
    controllers: &'static [&'static str],
    place: Place,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    #[expect(dead_code, reason = "for whoever reads the list")]
    why: &'static str,
}

const ALL: &[&str] =
    &["rig-ctl", "polecat-ctl", "convoy-ctl", "witness-ctl", "refinery-ctl", "beadstore-ctl"];

const fn listed(
    controllers: &'static [&'static str],
    place: Place,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
) -> Listed {
    Listed { controllers, place, resources, verbs, why }
}

/// A kind that is read by list and watch. One object alone is read after a conflict of a write.
const WATCHED: &str = "whoever may list objects may read each of them";
/// What is deleted long after its end, or when a setting is changed.
const OLD: &str =
    "unit tests decide when it is deleted; no test of the control plane waits so long";

const LISTED: &[Listed] = &[
    listed(
        ALL,
        Place::Release,
        &["leases"],
        &["get", "list", "watch", "create", "update", "patch"],
        "tests run a controller's loops without its lease; a cluster's tests run it with one",
    ),
    listed(
        ALL,
        Place::Everywhere,
        &["events"],
        &["patch"],
        "an Event that is published again within minutes",
    ),
    listed(&["rig-ctl"], Place::Everywhere, &["polecats", "convoys"], &["get"], WATCHED),
    listed(
        &["polecat-ctl"],
        Place::Everywhere,
        &["rigs", "refineries", "mergerequests", "beadstores"],
        &["get"],
        WATCHED,
    ),
    listed(
        &["convoy-ctl"],
        Place::Everywhere,
        &["convoys", "rigs", "beadstores", "mergerequests", "polecats"],
        &["get"],
        WATCHED,
    ),
    listed(&["witness-ctl"], Place::Everywhere, &["witnesses", "polecats"], &["get"], WATCHED),
    listed(
        &["refinery-ctl"],
        Place::Everywhere,
        &["refineries", "rigs", "gateruns", "jobs", "pods"],
        &["get"],
        WATCHED,
    ),
    listed(&["beadstore-ctl"], Place::Everywhere, &["rigs", "refineries"], &["get"], WATCHED),
    listed(&["polecat-ctl"], Place::Everywhere, &["polecats", "configmaps"], &["delete"], OLD),
    listed(&["witness-ctl"], Place::Everywhere, &["escalations"], &["delete"], OLD),
    listed(
        &["refinery-ctl"],
        Place::Everywhere,
        &["mergerequests", "gateruns", "networkpolicies"],
        &["delete"],
        OLD,
    ),
    listed(
        &["refinery-ctl", "beadstore-ctl"],
        Place::Release,
        &["configmaps"],
        &["get"],
        "known hosts and authorities of a ConfigMap are tested without the control plane",
    ),
    listed(
        &["refinery-ctl", "beadstore-ctl", "witness-ctl"],
        Place::Configured,
        &["secrets", "configmaps"],
        &["get"],
        "tests name Secrets of the release's namespace; that the role reaches another is asked of the API server in crates/gastown-api/tests/plane/rbac.rs",
    ),
];

/// Whether a right needs no use.
pub(super) fn is_listed(controller: &str, place: Place, resource: &str, verb: &str) -> bool {
    LISTED.iter().any(|listed| {
        listed.controllers.contains(&controller)
            && listed.place == place
            && listed.resources.contains(&resource)
            && listed.verbs.contains(&verb)
    })
}
