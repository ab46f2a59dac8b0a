//! What nobody but our own accounts may write, as admission policies: the one source of the chart's
//! policies and of their table in `docs/rbac.md`.
//!
//! Tenants may create and change objects that our controllers act on: their own pods, Polecats and
//! MergeRequests. What the controllers believe of such objects is guarded here. Cluster
//! administrators (the group `system:masters`), who repair and restore objects, and the cluster's own
//! controllers are not held by it.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec, Validation,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};

use crate::names::{GROUP, annotation, condition, finalizer, label};
use crate::rbac::Controller;

/// Stands for the release's namespace in the policies that the chart has.
pub const RELEASE_NAMESPACE: &str = "RELEASE_NAMESPACE";

/// The group that is never held by the policies; the chart adds others behind it.
pub const EXEMPT_GROUP: &str = "'system:masters'";

/// Who is not held by the policies, after their groups.
const EXEMPT: &str = "!request.userInfo.groups.exists(g, g in ['system:serviceaccounts:kube-system', \
    'system:masters']) && request.userInfo.username != 'system:kube-controller-manager'";

/// What of an object is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object as a whole.
    Whole,
    /// The value of an annotation.
    Annotation(&'static str),
    /// A finalizer. Anybody may remove it, who then forces a deletion.
    Finalizer(&'static str),
    /// A condition in the status.
    Condition(&'static str),
}

/// One thing that only some may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// What of the object.
    pub part: Part,
    /// Who may write it; nobody of ours where it is empty.
    pub by: &'static [Controller],
    /// What would come of it if a stranger wrote it.
    pub why: &'static str,
}

/// The guards of one kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name, without the prefix `gastown-`.
    pub name: &'static str,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// Resources and subresources.
    pub resources: &'static [&'static str],
    /// The labels of the objects that it is about, with their values where these matter.
    pub labels: &'static [(&'static str, Option<&'static str>)],
    /// What is guarded.
    pub guards: &'static [Guard],
}

const fn guard(part: Part, by: &'static [Controller], why: &'static str) -> Guard {
    Guard { part, by, why }
}

const fn of_kind(
    name: &'static str,
    resources: &'static [&'static str],
    guards: &'static [Guard],
) -> Policy {
    Policy { name, group: GROUP, resources, labels: &[], guards }
}

/// What a forged status comes to where nothing worse does.
const SHOWN: &str = "a state that is shown and not so";

/// The labels of gates' Jobs and pods.
const OF_GATE: &[(&str, Option<&str>)] = &[
    ("app.kubernetes.io/component", Some("gate")),
    ("app.kubernetes.io/managed-by", Some("refinery-ctl")),
];

/// All policies.
pub const POLICIES: &[Policy] = &[
    of_kind(
        "rigs",
        &["rigs"],
        &[guard(
            Part::Finalizer(finalizer::RIG),
            &[Controller::Rig],
            "a Rig that cannot be deleted",
        )],
    ),
    of_kind(
        "polecats",
        &["polecats"],
        &[
            guard(
                Part::Annotation(annotation::LEDGER),
                &[Controller::Polecat],
                "attempts that were not made, work that was not done, a landing that was none",
            ),
            guard(
                Part::Finalizer(finalizer::POLECAT),
                // convoy-ctl creates Polecats with it.
                &[Controller::Polecat, Controller::Convoy],
                "a Polecat that cannot be deleted",
            ),
        ],
    ),
    of_kind(
        "mergerequests",
        &["mergerequests"],
        &[
            guard(
                Part::Annotation(annotation::REQUEST_RECORD),
                &[Controller::Refinery],
                "an end that the request did not come to, refs that are deleted",
            ),
            guard(
                Part::Annotation(annotation::BEAD_CLOSED),
                &[Controller::BeadStore],
                "a bead that is closed, or stays open, against what happened",
            ),
        ],
    ),
    of_kind(
        "convoys",
        &["convoys"],
        &[
            guard(
                Part::Annotation(annotation::CONVOY_COUNTED),
                &[Controller::Convoy],
                "beads that count as done and are not",
            ),
            guard(
                Part::Annotation(annotation::CONVOY_ENDED),
                &[Controller::Convoy],
                "an end without its Event",
            ),
        ],
    ),
    of_kind(
        "beadstores",
        &["beadstores"],
        &[guard(
            Part::Annotation(annotation::BEADS_SERVED),
            &[Controller::BeadStore],
            "claims in a server that are kept, or given back, against what happened",
        )],
    ),
    of_kind(
        "escalations",
        &["escalations"],
        &[guard(
            Part::Annotation(annotation::ESCALATION_STATE),
            &[Controller::Witness],
            "a message that is never sent, or again and again",
        )],
    ),
    of_kind(
        "gateruns",
        &["gateruns", "gateruns/status"],
        &[guard(Part::Whole, &[Controller::Refinery], "a commit that counts as tested and is not")],
    ),
    of_kind("rigs-status", &["rigs/status"], &[guard(Part::Whole, &[Controller::Rig], SHOWN)]),
    of_kind(
        "convoys-status",
        &["convoys/status"],
        &[guard(Part::Whole, &[Controller::Convoy], SHOWN)],
    ),
    of_kind(
        "beadstores-status",
        &["beadstores/status"],
        &[guard(Part::Whole, &[Controller::BeadStore], SHOWN)],
    ),
    of_kind(
        "refineries-status",
        &["refineries/status"],
        &[guard(Part::Whole, &[Controller::Refinery], SHOWN)],
    ),
    of_kind(
        "witnesses-status",
        &["witnesses/status"],
        &[guard(Part::Whole, &[Controller::Witness], SHOWN)],
    ),
    of_kind(
        "escalations-status",
        &["escalations/status"],
        &[guard(Part::Whole, &[Controller::Witness], SHOWN)],
    ),
    of_kind(
        "mergerequests-status",
        &["mergerequests/status"],
        &[guard(
            Part::Whole,
            &[Controller::Refinery],
            "a landing that did not happen, whose bead is closed",
        )],
    ),
    of_kind(
        "polecats-status",
        &["polecats/status"],
        &[
            guard(
                Part::Whole,
                &[Controller::Polecat, Controller::Witness, Controller::Refinery],
                SHOWN,
            ),
            guard(
                Part::Condition(condition::MERGED),
                &[Controller::Refinery],
                "a landing that did not happen",
            ),
            guard(
                Part::Condition(condition::HEALTHY),
                &[Controller::Witness],
                "an agent that is restarted without need",
            ),
        ],
    ),
    Policy {
        name: "gate-jobs",
        group: "batch",
        resources: &["jobs"],
        labels: OF_GATE,
        guards: &[guard(Part::Whole, &[Controller::Refinery], "a Job that is taken for a gate's")],
    },
    Policy {
        name: "gate-pods",
        group: "",
        resources: &["pods"],
        labels: OF_GATE,
        guards: &[guard(Part::Whole, &[], "a pod whose end is taken for a gate's")],
    },
    Policy {
        name: "agent-pods",
        group: "",
        resources: &["pods", "configmaps"],
        labels: &[(label::POLECAT, None)],
        guards: &[guard(
            Part::Whole,
            &[Controller::Polecat],
            "a pod whose end is taken for an agent's, or a task that is not the Polecat's",
        )],
    },
    Policy {
        name: "claims",
        group: "coordination.k8s.io",
        resources: &["leases"],
        labels: &[(label::CLAIM, None)],
        guards: &[guard(
            Part::Whole,
            &[Controller::Polecat],
            "a bead that nobody can work on, or two can",
        )],
    },
];

impl Guard {
    /// The accounts that may write it, for people.
    pub fn owners(&self) -> String {
        match self.by {
            [] => "the cluster's Job controller".to_owned(),
            all => all.iter().map(|c| c.name()).collect::<Vec<_>>().join(", "),
        }
    }

    /// What it is, for people.
    pub fn what(&self) -> String {
        match self.part {
            Part::Whole => "all of it".to_owned(),
            Part::Annotation(key) => format!("annotation `{key}`"),
            Part::Finalizer(name) => format!("finalizer `{name}` (may be removed)"),
            Part::Condition(kind) => format!("condition `{kind}`"),
        }
    }

    fn validation(&self, namespace: &str) -> Validation {
        let account = |c: &Controller| format!("'system:serviceaccount:{namespace}:{}'", c.name());
        let accounts: Vec<String> = self.by.iter().map(account).collect();
        let is_owner = format!("request.userInfo.username in [{}]", accounts.join(", "));
        let expression = match self.part {
            Part::Whole => is_owner,
            Part::Annotation(key) => {
                let value = |of: &str| format!("{of}.metadata.?annotations[?'{key}']");
                let (new, old) = (value("object"), value("oldObject"));
                format!("{is_owner} || {new} == (oldObject == null ? optional.none() : {old})")
            }
            Part::Finalizer(name) => {
                let has = |of: &str| format!("'{name}' in {of}.metadata.?finalizers.orValue([])");
                let (new, old) = (has("object"), has("oldObject"));
                format!("{is_owner} || !({new}) || (oldObject != null && {old})")
            }
            Part::Condition(kind) => {
                let all = |of: &str| {
                    format!("{of}.?status.?conditions.orValue([]).filter(c, c.type == '{kind}')")
                };
                format!("{is_owner} || {} == {}", all("object"), all("oldObject"))
            }
        };
        Validation {
            expression,
            message: Some(format!(
                "{} is written by {} only: from anybody else it would mean {}",
                self.what().replace('`', ""),
                self.owners(),
                self.why
            )),
            reason: Some("Forbidden".to_owned()),
            message_expression: None,
        }
    }
}

impl Policy {
    fn object(&self, namespace: &str) -> ValidatingAdmissionPolicy {
        let rule = NamedRuleWithOperations {
            api_groups: Some(vec![self.group.to_owned()]),
            api_versions: Some(vec!["*".to_owned()]),
            operations: Some(vec!["CREATE".to_owned(), "UPDATE".to_owned()]),
            resources: Some(self.resources.iter().map(|&r| r.to_owned()).collect()),
            ..NamedRuleWithOperations::default()
        };
        let exempt =
            MatchCondition { name: "not-exempt".to_owned(), expression: EXEMPT.to_owned() };
        ValidatingAdmissionPolicy {
            metadata: self.metadata(),
            spec: Some(ValidatingAdmissionPolicySpec {
                failure_policy: Some("Fail".to_owned()),
                match_constraints: Some(MatchResources {
                    resource_rules: Some(vec![rule]),
                    object_selector: self.selector(),
                    ..MatchResources::default()
                }),
                match_conditions: Some(vec![exempt]),
                validations: Some(self.guards.iter().map(|g| g.validation(namespace)).collect()),
                ..ValidatingAdmissionPolicySpec::default()
            }),
            status: None,
        }
    }

    fn binding(&self) -> ValidatingAdmissionPolicyBinding {
        ValidatingAdmissionPolicyBinding {
            metadata: self.metadata(),
            spec: Some(ValidatingAdmissionPolicyBindingSpec {
                policy_name: self.metadata().name,
                validation_actions: Some(vec!["Deny".to_owned()]),
                ..ValidatingAdmissionPolicyBindingSpec::default()
            }),
        }
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta { name: Some(format!("gastown-{}", self.name)), ..ObjectMeta::default() }
    }

    fn selector(&self) -> Option<LabelSelector> {
        let (mut values, mut keys) = (BTreeMap::new(), Vec::new());
        for (key, value) in self.labels {
            match value {
                Some(value) => drop(values.insert((*key).to_owned(), (*value).to_owned())),
                None => keys.push(LabelSelectorRequirement {
                    key: (*key).to_owned(),
                    operator: "Exists".to_owned(),
                    values: None,
                }),
            }
        }
        (!self.labels.is_empty()).then(|| LabelSelector {
            match_labels: (!values.is_empty()).then_some(values),
            match_expressions: (!keys.is_empty()).then_some(keys),
        })
    }
}

/// The policies of a release in this namespace, and what puts each into force.
pub fn policies(
    namespace: &str,
) -> Vec<(ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding)> {
    POLICIES.iter().map(|policy| (policy.object(namespace), policy.binding())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::crds;

    #[test]
    fn the_chart_finds_where_groups_are_added() {
        assert_eq!(EXEMPT.matches(EXEMPT_GROUP).count(), 1);
    }

    #[test]
    fn every_status_of_ours_is_guarded_and_no_name_is_used_twice() {
        let guarded: BTreeSet<&str> =
            POLICIES.iter().flat_map(|policy| policy.resources).copied().collect();
        for crd in crds() {
            let status = format!("{}/status", crd.spec.names.plural);
            assert!(guarded.contains(status.as_str()), "{status}");
        }
        let names: BTreeSet<&str> = POLICIES.iter().map(|policy| policy.name).collect();
        assert_eq!(names.len(), POLICIES.len());
    }
}
