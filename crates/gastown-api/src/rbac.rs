//! What each controller may do, and why: the one source of the chart's roles and of the page that
//! shows them.
//!
//! Nobody has `*`, nobody may bind roles or make tokens, and polecat-ctl has no permission on
//! Secrets at all. What a controller needs in the release namespace only is in [`namespace_rules`];
//! Secrets and known hosts that a Refinery, a BeadStore or a Witness names are read in the release
//! namespace and in those namespaces that the chart's `refinery.secretNamespaces`,
//! `beadstore.secretNamespaces` and `witness.secretNamespaces` name ([`secret_rules`]).

use k8s_openapi::api::rbac::v1::PolicyRule;

/// A controller with a service account of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// rig-ctl.
    Rig,
    /// polecat-ctl.
    Polecat,
    /// refinery-ctl.
    Refinery,
    /// beadstore-ctl.
    BeadStore,
    /// convoy-ctl.
    Convoy,
    /// witness-ctl.
    Witness,
}

impl Controller {
    /// All controllers.
    pub const ALL: [Self; 6] =
        [Self::Rig, Self::Polecat, Self::Convoy, Self::Witness, Self::Refinery, Self::BeadStore];

    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rig => "rig-ctl",
            Self::Polecat => "polecat-ctl",
            Self::Refinery => "refinery-ctl",
            Self::Witness => "witness-ctl",
            Self::Convoy => "convoy-ctl",
            Self::BeadStore => "beadstore-ctl",
        }
    }

    /// The chart's value that names the namespaces of [`secret_rules`].
    pub fn secret_namespaces(self) -> Option<&'static str> {
        match self {
            Self::Rig | Self::Polecat | Self::Convoy => None,
            Self::Refinery => Some("refinery.secretNamespaces"),
            Self::BeadStore => Some("beadstore.secretNamespaces"),
            Self::Witness => Some("witness.secretNamespaces"),
        }
    }
}

/// One row of the table: what may be done, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// Resources and subresources.
    pub resources: &'static [&'static str],
    /// Names of the only objects that it holds for; empty where it holds for all.
    pub names: &'static [&'static str],
    /// Verbs of the API, such as `get`.
    pub verbs: &'static [&'static str],
    /// Why the controller needs it.
    pub why: &'static str,
}

const READ: &[&str] = &["get", "list", "watch"];
const OURS: &str = crate::names::GROUP;

const fn grant(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
) -> Grant {
    Grant { group, resources, names: &[], verbs, why }
}

/// The right to read these definitions, whose schema may be too old for the program.
const fn of_definitions(names: &'static [&'static str]) -> Grant {
    Grant {
        group: "apiextensions.k8s.io",
        resources: &["customresourcedefinitions"],
        names,
        verbs: &["get"],
        why: "whether the definitions are new enough for this version, at the start",
    }
}

const RIGS: &str = "rigs.gastown.gastown.io";
const POLECATS: &str = "polecats.gastown.gastown.io";
const CONVOYS: &str = "convoys.gastown.gastown.io";
const WITNESSES: &str = "witnesses.gastown.gastown.io";
const REFINERIES: &str = "refineries.gastown.gastown.io";
const BEAD_STORES: &str = "beadstores.gastown.gastown.io";
const MERGE_REQUESTS: &str = "mergerequests.gastown.gastown.io";
const GATE_RUNS: &str = "gateruns.gastown.gastown.io";
const ESCALATIONS: &str = "escalations.gastown.gastown.io";

/// The definitions of the kinds that a controller has rights on.
pub const fn definitions(controller: Controller) -> &'static [&'static str] {
    match controller {
        Controller::Rig => &[RIGS, POLECATS, CONVOYS, WITNESSES, REFINERIES, BEAD_STORES],
        Controller::Polecat => &[POLECATS, RIGS, REFINERIES, MERGE_REQUESTS, BEAD_STORES],
        Controller::Refinery => &[REFINERIES, MERGE_REQUESTS, RIGS, POLECATS, GATE_RUNS],
        Controller::BeadStore => &[BEAD_STORES, RIGS, REFINERIES, MERGE_REQUESTS],
        Controller::Convoy => &[CONVOYS, RIGS, BEAD_STORES, MERGE_REQUESTS, POLECATS],
        Controller::Witness => &[
            WITNESSES,
            ESCALATIONS,
            POLECATS,
            BEAD_STORES,
            CONVOYS,
            MERGE_REQUESTS,
            REFINERIES,
            RIGS,
        ],
    }
}

const EVENTS: Grant =
    grant("events.k8s.io", &["events"], &["create", "patch"], "publishes what happened");

const LEASE: Grant = grant(
    "coordination.k8s.io",
    &["leases"],
    &["get", "list", "watch", "create", "update", "patch"],
    "replicas divide the rigs among them",
);

const RIG: &[Grant] = &[
    grant(
        OURS,
        &["rigs"],
        &["get", "list", "watch", "patch"],
        "its own kind; the finalizer is a patch",
    ),
    grant(OURS, &["rigs/status"], &["patch"], "phase, counts and conditions"),
    grant(OURS, &["rigs/finalizers"], &["update"], "be a blocking owner of its children"),
    grant(
        OURS,
        &["polecats", "convoys"],
        READ,
        "counts by phase; what must drain before a Rig goes",
    ),
    grant(
        OURS,
        &["witnesses", "refineries", "beadstores"],
        READ,
        "readiness of children; adopts one that a user created, in any namespace",
    ),
    of_definitions(definitions(Controller::Rig)),
    EVENTS,
];

const RIG_RELEASE: &[Grant] = &[
    grant(
        OURS,
        &["witnesses", "refineries", "beadstores"],
        &["create", "patch", "delete"],
        "the children that it creates here",
    ),
    LEASE,
];

const POLECAT: &[Grant] = &[
    grant(
        OURS,
        &["polecats"],
        &["get", "list", "watch", "patch", "delete"],
        "its own kind: ledger and finalizer are patches; finished ones are deleted after their TTL",
    ),
    grant(OURS, &["polecats/status"], &["patch"], "phase, outcome and conditions"),
    grant(OURS, &["polecats/finalizers"], &["update"], "be a blocking owner of pods and prompts"),
    grant(
        OURS,
        &["rigs", "refineries", "mergerequests"],
        READ,
        "capacity, served branches, what became of submitted work",
    ),
    grant(OURS, &["beadstores"], READ, "whether a rig has beads to read and to comment on"),
    grant(
        "",
        &["pods"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "agents' pods: drain and finalizer are patches",
    ),
    grant("", &["configmaps"], &["get", "create", "patch", "delete"], "an attempt's prompt"),
    grant(
        "networking.k8s.io",
        &["networkpolicies"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "what agents' pods may reach, where Polecats are",
    ),
    of_definitions(definitions(Controller::Polecat)),
    EVENTS,
];

const POLECAT_RELEASE: &[Grant] = &[
    LEASE,
    grant(
        "coordination.k8s.io",
        &["leases"],
        &["delete"],
        "claims of beads, given back or left behind",
    ),
];

const REFINERY: &[Grant] = &[
    grant(OURS, &["refineries"], READ, "its own kind"),
    grant(OURS, &["refineries/status"], &["patch"], "phase, counts and conditions"),
    grant(OURS, &["refineries/finalizers"], &["update"], "be a blocking owner of gates"),
    grant(
        OURS,
        &["mergerequests"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "the queue: ends are patches; ended ones are deleted after seven days",
    ),
    grant(OURS, &["mergerequests/status"], &["patch"], "phase, position and attempts"),
    grant(OURS, &["rigs", "polecats"], READ, "repository, allowed namespaces, authors"),
    grant(OURS, &["polecats/status"], &["patch"], "the condition Merged, and nothing else"),
    grant(
        OURS,
        &["gateruns"],
        &["get", "list", "watch", "create", "delete"],
        "what was tested: a run is created before its Job, and deleted when it is old",
    ),
    grant(OURS, &["gateruns/status"], &["patch"], "how a run ended, before its Job is deleted"),
    grant(OURS, &["gateruns/finalizers"], &["update"], "be a blocking owner of a run's Job"),
    grant("batch", &["jobs"], &["get", "list", "watch", "create", "delete"], "gates"),
    grant("", &["pods"], READ, "why a gate ended"),
    grant("", &["pods/log"], &["get"], "a gate's evidence"),
    grant(
        "networking.k8s.io",
        &["networkpolicies"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "what gates may reach, where Refineries are",
    ),
    grant(
        "authentication.k8s.io",
        &["tokenreviews"],
        &["create"],
        "who calls its gRPC and git servers",
    ),
    of_definitions(definitions(Controller::Refinery)),
    EVENTS,
];

const REFINERY_SECRETS: &[Grant] = &[
    grant("", &["secrets"], &["get"], "credentials that a Refinery here names"),
    grant("", &["configmaps"], &["get"], "known hosts that a Refinery here names"),
];

const REFINERY_RELEASE: &[Grant] = &[REFINERY_SECRETS[0], REFINERY_SECRETS[1], LEASE];

const BEAD_STORE: &[Grant] = &[
    grant(
        OURS,
        &["beadstores"],
        &["get", "list", "watch", "patch"],
        "its own kind; the Go operator's finalizer is taken off by a patch",
    ),
    grant(OURS, &["beadstores/status"], &["patch"], "phase, counts and conditions"),
    grant(
        OURS,
        &["rigs", "refineries", "mergerequests"],
        READ,
        "repository, target branches, what landed",
    ),
    grant(
        OURS,
        &["mergerequests"],
        &["patch"],
        "one annotation, and nothing else: that its landing closed a bead of `bd serve`",
    ),
    grant("authentication.k8s.io", &["tokenreviews"], &["create"], "who calls its gRPC server"),
    of_definitions(definitions(Controller::BeadStore)),
    EVENTS,
];

const BEAD_STORE_SECRETS: &[Grant] = &[
    grant("", &["secrets"], &["get"], "credentials that a BeadStore here names"),
    grant("", &["configmaps"], &["get"], "known hosts that a BeadStore here names"),
];

const BEAD_STORE_RELEASE: &[Grant] = &[
    BEAD_STORE_SECRETS[0],
    BEAD_STORE_SECRETS[1],
    grant(
        "coordination.k8s.io",
        &["leases"],
        &["get", "list", "watch", "create", "update", "patch"],
        "one replica writes; claims on beads are Leases that it copies into the store",
    ),
];

const CONVOY: &[Grant] = &[
    grant(
        OURS,
        &["convoys"],
        &["get", "list", "watch", "patch"],
        "its own kind; what counted and which end was published are patches",
    ),
    grant(OURS, &["convoys/status"], &["patch"], "phase, progress and conditions"),
    grant(
        OURS,
        &["rigs", "beadstores", "mergerequests"],
        READ,
        "capacity and template, where beads are, what landed",
    ),
    grant(
        OURS,
        &["polecats"],
        &["get", "list", "watch", "create"],
        "who works on a bead; creates one for a bead",
    ),
    of_definitions(definitions(Controller::Convoy)),
    EVENTS,
];

const CONVOY_RELEASE: &[Grant] = &[LEASE];

const WITNESS: &[Grant] = &[
    grant(OURS, &["witnesses"], READ, "its own kind"),
    grant(OURS, &["witnesses/status"], &["patch"], "phase, counts and conditions"),
    grant(
        OURS,
        &["escalations"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "its own kind: deliveries are recorded by a patch; closed ones are deleted after seven days",
    ),
    grant(OURS, &["escalations/status"], &["patch"], "phase, severity and deliveries"),
    grant(OURS, &["polecats"], READ, "the Polecats that it watches"),
    grant(
        OURS,
        &["polecats/status"],
        &["patch"],
        "activity and the conditions Healthy and Saved, and nothing else",
    ),
    grant(
        OURS,
        &["beadstores", "convoys", "mergerequests", "refineries", "rigs"],
        &["get"],
        "whether what an Escalation is about still exists",
    ),
    grant("", &["pods"], &["get"], "checks the pod that attaches"),
    grant("authentication.k8s.io", &["tokenreviews"], &["create"], "who calls its gRPC server"),
    of_definitions(definitions(Controller::Witness)),
    EVENTS,
];

const WITNESS_SECRETS: &[Grant] = &[grant(
    "",
    &["secrets"],
    &["get"],
    "URLs and passwords of channels that a Witness here names",
)];

const WITNESS_RELEASE: &[Grant] = &[WITNESS_SECRETS[0], LEASE];

/// What a controller may do in every namespace and on what has none.
pub fn cluster_grants(controller: Controller) -> &'static [Grant] {
    match controller {
        Controller::Rig => RIG,
        Controller::Polecat => POLECAT,
        Controller::Refinery => REFINERY,
        Controller::BeadStore => BEAD_STORE,
        Controller::Convoy => CONVOY,
        Controller::Witness => WITNESS,
    }
}

/// What a controller may do in the release namespace besides.
pub fn namespace_grants(controller: Controller) -> &'static [Grant] {
    match controller {
        Controller::Rig => RIG_RELEASE,
        Controller::Polecat => POLECAT_RELEASE,
        Controller::Refinery => REFINERY_RELEASE,
        Controller::Witness => WITNESS_RELEASE,
        Controller::BeadStore => BEAD_STORE_RELEASE,
        Controller::Convoy => CONVOY_RELEASE,
    }
}

/// What a controller may do in each namespace of [`Controller::secret_namespaces`].
pub fn secret_grants(controller: Controller) -> &'static [Grant] {
    match controller {
        Controller::Rig | Controller::Polecat | Controller::Convoy => &[],
        Controller::Refinery => REFINERY_SECRETS,
        Controller::BeadStore => BEAD_STORE_SECRETS,
        Controller::Witness => WITNESS_SECRETS,
    }
}

/// [`cluster_grants`] as a ClusterRole's rules.
pub fn cluster_rules(controller: Controller) -> Vec<PolicyRule> {
    cluster_grants(controller).iter().map(rule).collect()
}

/// [`namespace_grants`] as a Role's rules.
pub fn namespace_rules(controller: Controller) -> Vec<PolicyRule> {
    namespace_grants(controller).iter().map(rule).collect()
}

/// [`secret_grants`] as a Role's rules.
pub fn secret_rules(controller: Controller) -> Vec<PolicyRule> {
    secret_grants(controller).iter().map(rule).collect()
}

fn rule(grant: &Grant) -> PolicyRule {
    let Grant { group, resources, names, verbs, why: _ } = grant;
    let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(texts(&[group])),
        resources: Some(texts(resources)),
        verbs: texts(verbs),
        resource_names: Some(texts(names)).filter(|names| !names.is_empty()),
        non_resource_urls: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(controller: Controller) -> impl Iterator<Item = &'static Grant> {
        [cluster_grants(controller), namespace_grants(controller), secret_grants(controller)]
            .into_iter()
            .flatten()
    }

    #[test]
    fn nobody_has_a_star_or_a_way_to_more_power() {
        for grant in Controller::ALL.into_iter().flat_map(all) {
            let words = || grant.resources.iter().chain(grant.verbs).chain([&grant.group]);
            assert!(!words().any(|w| w.contains('*')), "{grant:?}");
            assert!(
                !grant.verbs.iter().any(|v| ["bind", "escalate", "impersonate"].contains(v)),
                "{grant:?}"
            );
            assert!(
                !grant.resources.iter().any(|r| ["pods/exec", "serviceaccounts/token"].contains(r)),
                "{grant:?}"
            );
        }
    }

    #[test]
    fn a_controller_reads_the_definitions_of_the_kinds_that_it_works_with() {
        for controller in Controller::ALL {
            let ours = all(controller).filter(|grant| grant.group == OURS);
            let kinds = ours.flat_map(|grant| grant.resources).filter(|r| !r.contains('/'));
            let used: std::collections::BTreeSet<String> =
                kinds.map(|kind| format!("{kind}.{OURS}")).collect();
            let read = definitions(controller).iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(used, read, "{controller:?}");
        }
    }

    #[test]
    fn secrets_are_read_by_those_who_ask_remotes_alone_and_never_everywhere() {
        let secrets = |grants: &[Grant]| grants.iter().any(|g| g.resources.contains(&"secrets"));
        for controller in Controller::ALL {
            assert!(!secrets(cluster_grants(controller)), "{controller:?}");
            let here = secrets(namespace_grants(controller)) || secrets(secret_grants(controller));
            assert_eq!(here, controller.secret_namespaces().is_some(), "{controller:?}");
        }
    }
}
