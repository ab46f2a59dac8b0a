//! Who may call which method. Which Polecat a pod may speak for is checked with each request.

use std::sync::Arc;

use gastown_runtime::auth::Identity;
use gastown_runtime::grpc::{self, Callers, Policy};

/// Controllers of the release namespace, by the service account's name.
const CALLERS: Callers = &[
    ("Raise", &["polecat-ctl", "refinery-ctl", "beadstore-ctl"]),
    ("Settle", &["polecat-ctl", "refinery-ctl", "beadstore-ctl"]),
];
/// Methods that a pod may call. That a Polecat owns it is checked with each request.
const PODS: &[&str] = &["Attach", "Raise"];

/// Whether the caller is a controller of the release that may call this method.
pub(crate) fn is_controller(release: &str, method: &str, caller: &Identity) -> bool {
    grpc::is_allowed(CALLERS, release, method, caller)
}

/// The policy of the gRPC server.
pub(crate) fn policy(release: &str) -> Policy {
    let release = release.to_owned();
    Arc::new(move |path: &str, caller: &Identity| {
        let method = path.strip_prefix("/gastown.v1.Witness/").unwrap_or_default();
        let pod = caller.pod_name.is_some() && caller.pod_uid.is_some();
        if is_controller(&release, method, caller) || (pod && PODS.contains(&method)) {
            return Ok(());
        }
        Err(format!("{}:{} may not call {path}", caller.namespace, caller.service_account))
    })
}

#[cfg(test)]
mod tests {
    use gastown_fakes::callers;
    use gastown_proto::v1::DESCRIPTORS;

    use super::*;

    #[test]
    fn every_pair_of_controller_and_method_is_decided_as_the_table_shows() {
        let policy = policy("gastown-system");
        // rig, polecat, convoy, witness, refinery, beadstore
        let rows = [("Attach", "------"), ("Raise", "-x--xx"), ("Settle", "-x--xx")];
        callers::check(
            DESCRIPTORS,
            "gastown.v1.Witness",
            &rows,
            "gastown-system",
            |method, namespace, account| {
                let (namespace, service_account) = (namespace.into(), account.into());
                policy(
                    &format!("/gastown.v1.Witness/{method}"),
                    &Identity { namespace, service_account, pod_name: None, pod_uid: None },
                )
                .is_ok()
            },
        );
    }

    #[test]
    fn controllers_of_the_release_raise_and_settle_and_pods_attach_and_raise() {
        let policy = policy("gastown-system");
        let may = |namespace: &str, account: &str, pod: bool, method: &str| {
            let pod = pod.then(|| "p".to_owned());
            let caller = Identity {
                namespace: namespace.into(),
                service_account: account.into(),
                pod_name: pod.clone(),
                pod_uid: pod,
            };
            policy(&format!("/gastown.v1.Witness/{method}"), &caller).is_ok()
        };
        for account in ["polecat-ctl", "refinery-ctl", "beadstore-ctl"] {
            assert!(
                may("gastown-system", account, false, "Raise")
                    && may("gastown-system", account, false, "Settle"),
                "{account}"
            );
            assert!(
                !may("work", account, false, "Raise") && !may("work", account, true, "Settle"),
                "{account}"
            );
        }
        assert!(!may("gastown-system", "rig-ctl", false, "Raise"));
        assert!(may("work", "default", true, "Attach") && may("work", "default", true, "Raise"));
        assert!(
            !may("work", "default", false, "Attach") && !may("work", "default", true, "Settle")
        );
        assert!(!may("gastown-system", "polecat-ctl", true, "Anything"));
    }
}
