//! The roles' rules for the chart, and the page that shows them.

use std::fmt::Write as _;

use gastown_api::rbac::{
    Controller, Grant, cluster_grants, cluster_rules, namespace_grants, namespace_rules,
    secret_grants, secret_rules,
};
use k8s_openapi::api::rbac::v1::PolicyRule;

/// The chart's files by name: a list of rules each.
pub fn files() -> Vec<(String, Vec<PolicyRule>)> {
    let mut files = Vec::new();
    for controller in Controller::ALL {
        let name = controller.name();
        let kinds = [
            ("cluster", cluster_rules(controller)),
            ("namespace", namespace_rules(controller)),
            ("secrets", secret_rules(controller)),
        ];
        files.extend(
            kinds
                .into_iter()
                .filter(|(_, rules)| !rules.is_empty())
                .map(|(kind, rules)| (format!("{name}-{kind}"), rules)),
        );
    }
    files
}

/// `docs/rbac.md`.
pub fn page() -> String {
    let mut page = String::from(
        "<!-- Made by `cargo xtask gen` from crates/gastown-api/src/rbac.rs; edit that. -->\n\
         # What each controller may do\n\n\
         Every controller has a service account of its own. Nobody has `*`, and only refinery-ctl, beadstore-ctl and witness-ctl read\n\
         Secrets: in the release namespace and in the namespaces that the chart's `refinery.secretNamespaces`,\n\
         `beadstore.secretNamespaces` and `witness.secretNamespaces` name.\n",
    );
    for controller in Controller::ALL {
        let _ = write!(page, "\n## {}\n", controller.name());
        table(&mut page, "Everywhere", cluster_grants(controller));
        table(&mut page, "In the release namespace", namespace_grants(controller));
        if let Some(value) = controller.secret_namespaces() {
            table(&mut page, &format!("In each namespace of `{value}`"), secret_grants(controller));
        }
    }
    page
}

fn table(page: &mut String, title: &str, grants: &[Grant]) {
    if grants.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "\n{title}:\n\n| API group | Resources | Verbs | What for |\n|---|---|---|---|\n"
    );
    for Grant { group, resources, verbs, why } in grants {
        let group = if group.is_empty() { "core" } else { group };
        let _ =
            writeln!(page, "| {group} | {} | {} | {why} |", resources.join(", "), verbs.join(", "));
    }
}
