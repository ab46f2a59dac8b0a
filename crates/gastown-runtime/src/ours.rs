//! What makes an object ours: where it is, which controller it names, and the name that follows from
//! its content. Labels and annotations are anybody's, and a uid is no secret.
//!
//! `docs/security.md` has the table of all kinds. That nobody but our accounts writes what is
//! believed is the part of the chart's admission policies.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt as _};

/// An object that others belong to.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// Its namespace; `None` when its kind has none.
    pub namespace: Option<&'a str>,
    /// Its name.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
}

/// The controller that an object names, if it is of kind `P`.
pub fn controller<P: Resource<DynamicType = ()>>(child: &impl Resource) -> Option<&OwnerReference> {
    let mut owners = child.meta().owner_references.iter().flatten();
    let (group, kind) = (P::group(&()), P::kind(&()));
    owners.find(|owner| {
        // Another version of the group is the same kind.
        let of_group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        owner.controller == Some(true) && owner.kind == kind && of_group == group
    })
}

/// Whether an object belongs to this parent of kind `P`: both are in one namespace, and the object
/// names the parent, by kind, name and uid, as its controller. A child of a kind without namespaces
/// may be anywhere; its caller knows where it is to be.
pub fn belongs_to<P: Resource<DynamicType = ()>>(
    child: &impl Resource,
    parent: Parent<'_>,
) -> bool {
    let here = parent.namespace.is_none_or(|at| child.meta().namespace.as_deref() == Some(at));
    here && controller::<P>(child)
        .is_some_and(|owner| owner.name == parent.name && owner.uid == parent.uid)
}

/// Whether `parent` controls `child`, as [`belongs_to`] has it. A parent without a uid controls
/// nothing.
pub fn controls<P: Resource<DynamicType = ()>>(parent: &P, child: &impl Resource) -> bool {
    let (name, uid) = (parent.name_any(), parent.uid().unwrap_or_default());
    let namespace = parent.meta().namespace.as_deref();
    !uid.is_empty() && belongs_to::<P>(child, Parent { namespace, name: &name, uid: &uid })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    fn job() -> Job {
        let metadata = json!({"namespace": "ns", "name": "gate", "uid": "u"});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn pod(namespace: &str, change: &Value) -> Pod {
        let mut owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "gate", "uid": "u", "controller": true});
        for (key, value) in change.as_object().unwrap() {
            owner[key] = value.clone();
        }
        let metadata = json!({"namespace": namespace, "name": "p", "ownerReferences": [owner]});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    #[test]
    fn a_child_is_where_its_parent_is_and_names_it_by_kind_name_and_uid() {
        assert!(controls(&job(), &pod("ns", &json!({}))));
        assert!(controls(&job(), &pod("ns", &json!({"apiVersion": "batch/v2"}))));
        assert!(!controls(&job(), &pod("tenant", &json!({}))), "a pod of another namespace");
        for forged in [
            json!({"uid": "v"}),
            json!({"name": "other"}),
            json!({"kind": "CronJob"}),
            json!({"apiVersion": "v1"}),
            json!({"apiVersion": "example.com/v1"}),
            json!({"controller": false}),
            json!({"controller": null}),
        ] {
            assert!(!controls(&job(), &pod("ns", &forged)), "{forged}");
        }
        assert!(!controls(&Job::default(), &pod("ns", &json!({"uid": "", "name": ""}))));
    }
}
