//! Which Refinery is active for which branch, and its validated spec. Pure.

use std::sync::Arc;

use gastown_api::names::reason;
use gastown_api::{Refinery, Rig};
use gastown_core::seniority::active;
use gastown_git::Committing;
use gastown_types::{BranchName, GitUrl, InvalidIdentity};
use kube::ResourceExt as _;

/// Another Refinery, of another rig, is active for the same branch of the same repository.
const TARGET_SHARED: &str = "TargetShared";

/// Whether a Refinery works.
#[derive(Debug)]
pub(crate) enum Role {
    /// It tests and lands requests.
    Active(ValidRefinery),
    /// It must not, for this reason.
    Inactive { reason: &'static str, message: String },
}

/// What an active Refinery works on.
#[derive(Debug)]
pub(crate) struct ValidRefinery {
    pub rig: Arc<Rig>,
    pub url: GitUrl,
    pub target: BranchName,
    pub committing: Committing,
}

/// The role of `refinery` among `all`. The oldest one of a branch is active.
pub(crate) fn role(
    refinery: &Refinery,
    all: &[Arc<Refinery>],
    rig_named: impl Fn(&str) -> Option<Arc<Rig>>,
) -> Role {
    let valid = match validate(refinery, &rig_named) {
        Ok(valid) => valid,
        Err((reason, message)) => return Role::Inactive { reason, message },
    };
    let (name, target) = (&refinery.spec.rig_ref, &valid.target);
    let others = all.iter().map(Arc::as_ref).filter(|o: &&Refinery| {
        o.uid() != refinery.uid() && o.spec.target_branch == refinery.spec.target_branch
    });
    // The active Refinery among the rivals, if that is another one.
    let outranked_by = |is_rival: &dyn Fn(&Refinery) -> bool| {
        let rivals = others.clone().filter(|o| is_rival(o));
        active(rivals.chain([refinery])).filter(|o| o.uid() != refinery.uid())
    };
    if let Some(o) = outranked_by(&|o| o.spec.rig_ref == *name) {
        let message =
            format!("Refinery {} is active for branch {target} of rig {name}", full_name(o));
        return Role::Inactive { reason: reason::DUPLICATE, message };
    }
    let is_same_repository = |o: &Refinery| {
        let url = rig_named(&o.spec.rig_ref).and_then(|r| r.spec.git_url.parse::<GitUrl>().ok());
        url.is_some_and(|url| url.normalised() == valid.url.normalised())
    };
    if let Some(o) = outranked_by(&is_same_repository) {
        let message = format!(
            "Refinery {} of rig {} is active for branch {target} of the same repository",
            full_name(o),
            o.spec.rig_ref
        );
        return Role::Inactive { reason: TARGET_SHARED, message };
    }
    Role::Active(valid)
}

fn validate(
    refinery: &Refinery,
    rig_named: impl Fn(&str) -> Option<Arc<Rig>>,
) -> Result<ValidRefinery, (&'static str, String)> {
    let name = &refinery.spec.rig_ref;
    let rig = rig_named(name)
        .ok_or_else(|| (reason::RIG_NOT_FOUND, format!("Rig {name} does not exist")))?;
    let url = rig.spec.git_url.parse::<GitUrl>();
    let url =
        url.map_err(|e| (reason::INVALID_OBJECT, format!("the gitURL of Rig {name}: {e}")))?;
    let target = refinery.spec.target_branch.parse::<BranchName>();
    let target = target.map_err(|e| (reason::INVALID_OBJECT, format!("targetBranch: {e}")))?;
    let committer = refinery.spec.committer.as_ref().map(|c| c.parse()).transpose();
    let committer = committer
        .map_err(|e: InvalidIdentity| (reason::INVALID_OBJECT, format!("committer: {e}")))?;
    let committing = Committing { committer, sign_off: refinery.spec.sign_off };
    Ok(ValidRefinery { rig, url, target, committing })
}

fn full_name(refinery: &Refinery) -> String {
    format!("{}/{}", refinery.namespace().unwrap_or_default(), refinery.name_any())
}

/// The Refinery that takes requests of a rig for a branch: the oldest that names both.
pub(crate) fn active_for<'a>(
    all: &'a [Arc<Refinery>],
    rig: &str,
    target: &str,
) -> Option<&'a Refinery> {
    let is_for = |r: &&Refinery| r.spec.rig_ref == rig && r.spec.target_branch == target;
    active(all.iter().map(Arc::as_ref).filter(is_for))
}

#[cfg(test)]
mod tests {
    use gastown_api::RefinerySpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn refinery(name: &str, rig: &str, born: i64) -> Arc<Refinery> {
        let mut r = Refinery::new(name, RefinerySpec::of_rig(rig));
        r.metadata.namespace = Some("ns".into());
        r.metadata.uid = Some(name.into());
        r.metadata.creation_timestamp = Some(Time(jiff::Timestamp::from_second(born).unwrap()));
        Arc::new(r)
    }

    fn rigs(name: &str) -> Option<Arc<Rig>> {
        let url = match name {
            "web" => "git@host:org/web.git",
            "web-too" => "https://host/org/web",
            "api" => "https://host/org/api",
            _ => return None,
        };
        let spec = serde_json::json!({"gitURL": url, "beadsPrefix": "bl"});
        Some(Arc::new(Rig::new(name, serde_json::from_value(spec).unwrap())))
    }

    fn state(r: &Refinery, all: &[Arc<Refinery>]) -> &'static str {
        match role(r, all, rigs) {
            Role::Active(_) => "active",
            Role::Inactive { reason, .. } => reason,
        }
    }

    #[test]
    fn the_oldest_is_active_and_the_others_have_a_reason() {
        let all = [
            refinery("a", "web", 3),
            refinery("b", "web", 1),
            refinery("c", "web-too", 2),
            refinery("d", "api", 4),
            refinery("e", "gone", 5),
        ];
        let states: Vec<&str> = all.iter().map(|r| state(r, &all)).collect();
        assert_eq!(states, ["Duplicate", "active", "TargetShared", "active", "RigNotFound"]);
        assert_eq!(active_for(&all, "web", "main").unwrap().name_any(), "b");
        assert!(active_for(&all, "web", "release").is_none());
    }

    #[test]
    fn a_committer_that_git_could_not_write_is_not_accepted() {
        let with = |committer: &str| {
            let mut r = Arc::unwrap_or_clone(refinery("a", "web", 1));
            r.spec.committer = Some(committer.into());
            r
        };
        let bad = with("Acme Bot");
        let Role::Inactive { reason, message } = role(&bad, &[], rigs) else { panic!() };
        assert_eq!(reason, "InvalidObject");
        assert!(message.starts_with("committer: \"Acme Bot\" is not a name and an"), "{message}");
        let Role::Active(valid) = role(&with("Acme Bot <b@h>"), &[], rigs) else { panic!() };
        assert_eq!(valid.committing.committer.unwrap().as_str(), "Acme Bot <b@h>");
    }

    #[test]
    fn ties_go_by_name_and_one_that_is_being_deleted_does_not_count() {
        let mut all = [refinery("b", "web", 1), refinery("a", "web", 1)];
        assert_eq!((state(&all[0], &all), state(&all[1], &all)), ("Duplicate", "active"));
        Arc::make_mut(&mut all[1]).metadata.deletion_timestamp =
            Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(state(&all[0], &all), "active");
    }
}
