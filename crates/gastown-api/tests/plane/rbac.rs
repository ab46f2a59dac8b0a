//! The roles on a real API server: each controller is asked, as its own service account, what it
//! may do.

use gastown_api::rbac::{Controller, cluster_grants, cluster_rules, namespace_rules, secret_rules};
use gastown_cluster::control_plane::{ControlPlane, Options};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::fixture::Fixture;

/// A controller's service account in a release namespace, with its roles bound there and in one
/// secret namespace.
struct Account {
    release: String,
    secrets: String,
    client: Client,
}

async fn apply(
    client: &Client,
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    rest: serde_json::Value,
) {
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind));
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut object = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": name } });
    object.as_object_mut().unwrap().append(&mut rest.as_object().unwrap().clone());
    api.patch(name, &PatchParams::apply("tests"), &Patch::Apply(&object)).await.unwrap();
}

async fn bind(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
    rules: Vec<PolicyRule>,
    account: &serde_json::Value,
) {
    let (role, binding) = if namespace.is_some() {
        ("Role", "RoleBinding")
    } else {
        ("ClusterRole", "ClusterRoleBinding")
    };
    apply(client, role, namespace, name, json!({ "rules": rules })).await;
    let reference = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name });
    apply(client, binding, namespace, name, json!({ "roleRef": reference, "subjects": [account] }))
        .await;
}

impl Account {
    async fn of(controller: Controller) -> Self {
        let fixture = Fixture::new().await;
        let plane = ControlPlane::shared().await.unwrap();
        let (client, release) = (fixture.client(), fixture.namespace().to_owned());
        let secrets = plane.namespace().await.unwrap();
        let account =
            json!({ "kind": "ServiceAccount", "name": controller.name(), "namespace": release });
        let unique = format!("{}-{release}", controller.name());
        bind(&client, None, &unique, cluster_rules(controller), &account).await;
        bind(&client, Some(&release), &unique, namespace_rules(controller), &account).await;
        bind(&client, Some(&secrets), &unique, secret_rules(controller), &account).await;
        let user = format!("system:serviceaccount:{release}:{}", controller.name());
        Self { release, secrets, client: plane.client_as(&user).unwrap() }
    }

    async fn may(&self, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
        let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = json!({ "spec": { "resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": sub, "namespace": namespace,
        } } });
        let review: SelfSubjectAccessReview = serde_json::from_value(asked).unwrap();
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
    }

    /// A fresh role reaches the authoriser through a watch, so the first answer may be too early.
    async fn until_bound(&self) {
        let bound = async {
            while !self.may("create", "coordination.k8s.io", "leases", &self.release).await {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), bound).await.unwrap();
    }

    async fn expect(&self, allowed: bool, asked: &[(&str, &str, &str, &str)]) {
        for (verb, group, resource, namespace) in asked {
            assert_eq!(
                self.may(verb, group, resource, namespace).await,
                allowed,
                "{verb} {resource} in {namespace:?}"
            );
        }
    }
}

const OURS: &str = "gastown.gastown.io";

#[tokio::test]
async fn polecat_ctl_makes_pods_anywhere_and_sees_no_secret() {
    let account = Account::of(Controller::Polecat).await;
    account.until_bound().await;
    let (here, other) = (account.release.as_str(), account.secrets.as_str());
    account
        .expect(
            true,
            &[
                ("create", "", "pods", other),
                ("patch", "", "pods", other),
                ("create", "", "configmaps", other),
                ("patch", OURS, "polecats/status", other),
                ("list", OURS, "rigs", ""),
            ],
        )
        .await;
    account
        .expect(
            false,
            &[
                ("get", "", "secrets", here),
                ("list", "", "secrets", other),
                ("create", "", "secrets", here),
                ("list", "", "configmaps", other),
                ("create", "", "pods/exec", other),
                ("create", "coordination.k8s.io", "leases", other),
                ("patch", OURS, "mergerequests", other),
                ("create", "rbac.authorization.k8s.io", "clusterroles", ""),
            ],
        )
        .await;
}

#[tokio::test]
async fn refinery_ctl_reads_secrets_in_the_configured_namespaces_and_nowhere_else() {
    let account = Account::of(Controller::Refinery).await;
    account.until_bound().await;
    let (here, configured) = (account.release.as_str(), account.secrets.as_str());
    account
        .expect(
            true,
            &[
                ("get", "", "secrets", here),
                ("get", "", "secrets", configured),
                ("create", "batch", "jobs", "default"),
                ("get", "", "pods/log", "default"),
                ("create", "authentication.k8s.io", "tokenreviews", ""),
                ("patch", OURS, "polecats/status", "default"),
            ],
        )
        .await;
    account
        .expect(
            false,
            &[
                ("get", "", "secrets", "default"),
                ("list", "", "secrets", here),
                ("create", "", "pods", here),
                ("patch", OURS, "polecats", "default"),
                ("create", "", "serviceaccounts/token", here),
            ],
        )
        .await;
}

#[tokio::test]
async fn rig_ctl_makes_children_in_the_release_namespace_alone() {
    let account = Account::of(Controller::Rig).await;
    account.until_bound().await;
    let (here, other) = (account.release.as_str(), account.secrets.as_str());
    account
        .expect(
            true,
            &[
                ("create", OURS, "refineries", here),
                ("delete", OURS, "witnesses", here),
                ("list", OURS, "refineries", other),
            ],
        )
        .await;
    let denied = [
        ("create", OURS, "refineries", other),
        ("delete", OURS, "polecats", here),
        ("get", "", "secrets", here),
        ("list", "", "pods", here),
    ];
    account.expect(false, &denied).await;
}

#[tokio::test]
async fn beadstore_ctl_reads_what_it_copies_and_writes_its_own_kind_and_what_it_closed() {
    let account = Account::of(Controller::BeadStore).await;
    account.until_bound().await;
    let (here, configured) = (account.release.as_str(), account.secrets.as_str());
    let allowed = [
        ("get", "", "secrets", configured),
        ("patch", OURS, "beadstores/status", "default"),
        ("watch", "coordination.k8s.io", "leases", here),
        ("list", OURS, "mergerequests", ""),
        ("patch", OURS, "mergerequests", "default"),
    ];
    account.expect(true, &allowed).await;
    let denied = [
        ("get", "", "secrets", "default"),
        ("list", "", "secrets", here),
        ("patch", OURS, "mergerequests/status", "default"),
        ("create", OURS, "mergerequests", "default"),
        ("delete", OURS, "mergerequests", "default"),
        ("patch", OURS, "polecats/status", "default"),
        ("list", "coordination.k8s.io", "leases", "default"),
        ("delete", "coordination.k8s.io", "leases", here),
        ("create", "", "pods", here),
    ];
    account.expect(false, &denied).await;
}

#[tokio::test]
async fn convoy_ctl_starts_polecats_and_can_take_none_away() {
    let account = Account::of(Controller::Convoy).await;
    account.until_bound().await;
    let (here, other) = (account.release.as_str(), account.secrets.as_str());
    let may = [
        ("create", OURS, "polecats", other),
        ("list", OURS, "beadstores", other),
        ("patch", OURS, "convoys", other),
    ];
    account.expect(true, &may).await;
    let denied = [
        ("delete", OURS, "polecats", here),
        ("patch", OURS, "polecats", here),
        ("delete", OURS, "convoys", here),
        ("patch", OURS, "mergerequests", here),
        ("get", "", "secrets", here),
        ("create", "", "pods", here),
    ];
    account.expect(false, &denied).await;
}

#[tokio::test]
async fn witness_ctl_writes_health_and_escalations_and_reads_secrets_where_configured() {
    let account = Account::of(Controller::Witness).await;
    account.until_bound().await;
    let (here, configured) = (account.release.as_str(), account.secrets.as_str());
    let may = [
        ("patch", OURS, "polecats/status", "default"),
        ("create", OURS, "escalations", "default"),
        ("delete", OURS, "escalations", "default"),
        ("get", "", "secrets", here),
        ("get", "", "secrets", configured),
        ("create", "authentication.k8s.io", "tokenreviews", ""),
    ];
    account.expect(true, &may).await;
    let denied = [
        ("get", "", "secrets", "default"),
        ("list", "", "secrets", here),
        ("patch", OURS, "polecats", "default"),
        ("delete", OURS, "polecats", "default"),
        ("create", OURS, "polecats", "default"),
        ("patch", OURS, "mergerequests/status", "default"),
        ("delete", "", "pods", "default"),
        ("create", "", "pods/exec", "default"),
        ("get", "", "pods/log", "default"),
    ];
    account.expect(false, &denied).await;
}

/// Rules with a subresource that no request names: the API server itself asks for it.
fn finalizer_rules(controller: Controller) -> Vec<(&'static str, String)> {
    let grants = cluster_grants(controller).iter();
    let resources = grants.flat_map(|g| g.resources.iter().map(|r| (g.group, *r)));
    let owners = resources.filter_map(|(group, r)| Some((group, r.strip_suffix("/finalizers")?)));
    owners.map(|(group, owner)| (group, owner.to_owned())).collect()
}

/// OpenShift turns this admission plugin on: whoever names a blocking owner must be allowed to change the
/// owner's finalizers.
#[tokio::test]
async fn a_blocking_owner_needs_the_rule_on_finalizers() {
    let options = Options {
        apiserver_flags: vec![
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".into(),
        ],
        ..Options::default()
    };
    let plane = ControlPlane::start(options).await.unwrap();
    plane.install_crds().await.unwrap();
    let fixture = Fixture::on(&plane).await;
    let (client, namespace) = (fixture.client(), fixture.namespace().to_owned());
    for controller in Controller::ALL {
        for (group, owner) in finalizer_rules(controller) {
            let name = controller.name();
            let account = json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace });
            let user = format!("system:serviceaccount:{namespace}:{name}");
            let child = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": format!("{name}-child"), "ownerReferences": [{
                    "apiVersion": format!("{group}/v1alpha1"), "kind": kind_of(&owner), "name": "x",
                    "uid": "11111111-1111-1111-1111-111111111111", "blockOwnerDeletion": true,
                }]},
            });
            let as_controller = plane.client_as(&user).unwrap();
            let with = cluster_rules(controller);
            let finalizers = format!("{owner}/finalizers");
            let is_other = |rule: &PolicyRule| {
                !rule.resources.iter().flatten().any(|resource| *resource == finalizers)
            };
            let without = with.iter().filter(|rule| is_other(rule)).cloned().collect();
            let unique = format!("{name}-{namespace}");
            let leases = namespace_rules(controller);
            bind(&client, Some(&namespace), &unique, leases, &account).await;
            bind(&client, None, &unique, without, &account).await;
            until_created(&as_controller, &namespace, &child, "set finalizers on").await;
            bind(&client, None, &unique, with, &account).await;
            until_created(&as_controller, &namespace, &child, "").await;
        }
    }
}

fn kind_of(plural: &str) -> String {
    let crds = gastown_api::crds().into_iter();
    crds.map(|crd| crd.spec.names).find(|names| names.plural == plural).unwrap().kind
}

/// Creates an object, not for good, until it is taken, or refused with this text: a changed role reaches
/// the authoriser through a watch.
async fn until_created(client: &Client, namespace: &str, object: &Value, refusal: &str) {
    let gvk = GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease");
    let resource = ApiResource::from_gvk(&gvk);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let seen = async {
        loop {
            let answer = api.create(&params, &object).await;
            let is_seen = match &answer {
                Ok(_) => refusal.is_empty(),
                Err(e) => !refusal.is_empty() && e.to_string().contains(refusal),
            };
            if is_seen {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), seen).await.unwrap();
}
