//! Which Refinery serves which branch. Pure.

use std::sync::Arc;

use gastown_api::names::reason;
use gastown_api::{Refinery, Rig};
use gastown_types::{BranchName, GitUrl};
use kube::{Resource as _, ResourceExt as _};

/// What a Refinery is to do.
#[derive(Debug)]
pub(crate) enum Place {
    /// It works on this branch of this repository.
    Serves { rig: Arc<Rig>, url: GitUrl, target: BranchName },
    /// It must not; why, for its conditions.
    Stands { reason: &'static str, message: String },
}

/// Another Refinery, another rig or both share the target.
pub(crate) const TARGET_SHARED: &str = "TargetShared";

fn age(r: &Refinery) -> (i64, String, String) {
    (
        r.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second()),
        r.namespace().unwrap_or_default(),
        r.name_any(),
    )
}

fn url(rig: &Rig) -> Option<GitUrl> {
    rig.spec.git_url.parse().ok()
}

/// The place of `refinery` among all. The oldest of those that name the same branch serves; ties by
/// name.
pub(crate) fn place(
    refinery: &Refinery,
    all: &[Arc<Refinery>],
    rig_named: impl Fn(&str) -> Option<Arc<Rig>>,
) -> Place {
    let stands = |reason, message: String| Place::Stands { reason, message };
    let name = &refinery.spec.rig_ref;
    let Some(rig) = rig_named(name) else {
        return stands(reason::RIG_NOT_FOUND, format!("Rig {name} does not exist"));
    };
    let url_here = match rig.spec.git_url.parse::<GitUrl>() {
        Ok(url) => url,
        Err(e) => return stands(reason::INVALID_OBJECT, format!("the gitURL of Rig {name}: {e}")),
    };
    let target = match refinery.spec.target_branch.parse::<BranchName>() {
        Ok(target) => target,
        Err(e) => return stands(reason::INVALID_OBJECT, format!("targetBranch: {e}")),
    };
    let elder = |o: &&Arc<Refinery>| {
        o.uid() != refinery.uid()
            && o.meta().deletion_timestamp.is_none()
            && o.spec.target_branch == refinery.spec.target_branch
            && age(o) < age(refinery)
    };
    let mut elders: Vec<&Arc<Refinery>> = all.iter().filter(elder).collect();
    elders.sort_by_key(|o| age(o));
    let full = |o: &Refinery| format!("{}/{}", o.namespace().unwrap_or_default(), o.name_any());
    if let Some(o) = elders.iter().find(|o| o.spec.rig_ref == *name) {
        return stands(
            reason::DUPLICATE,
            format!("Refinery {} serves branch {target} of rig {name}", full(o)),
        );
    }
    let same = |o: &&&Arc<Refinery>| {
        rig_named(&o.spec.rig_ref)
            .and_then(|r| url(&r))
            .is_some_and(|u| u.normalised() == url_here.normalised())
    };
    if let Some(o) = elders.iter().find(same) {
        let message = format!(
            "Refinery {} of rig {} serves branch {target} of the same repository",
            full(o),
            o.spec.rig_ref
        );
        return stands(TARGET_SHARED, message);
    }
    Place::Serves { rig, url: url_here, target }
}

/// The Refinery that takes requests of a rig for a branch: the oldest that names both.
pub(crate) fn server<'a>(
    all: &'a [Arc<Refinery>],
    rig: &str,
    target: &str,
) -> Option<&'a Arc<Refinery>> {
    let fits = |r: &&Arc<Refinery>| {
        r.meta().deletion_timestamp.is_none()
            && r.spec.rig_ref == rig
            && r.spec.target_branch == target
    };
    all.iter().filter(fits).min_by_key(|r| age(r))
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

    fn stands(r: &Refinery, all: &[Arc<Refinery>]) -> &'static str {
        match place(r, all, rigs) {
            Place::Serves { .. } => "serves",
            Place::Stands { reason, .. } => reason,
        }
    }

    #[test]
    fn the_oldest_serves_and_others_say_why_they_do_not() {
        let all = [
            refinery("a", "web", 3),
            refinery("b", "web", 1),
            refinery("c", "web-too", 2),
            refinery("d", "api", 4),
            refinery("e", "gone", 5),
        ];
        let places: Vec<&str> = all.iter().map(|r| stands(r, &all)).collect();
        assert_eq!(places, ["Duplicate", "serves", "TargetShared", "serves", "RigNotFound"]);
        assert_eq!(server(&all, "web", "main").unwrap().name_any(), "b");
        assert!(server(&all, "web", "release").is_none());
    }

    #[test]
    fn of_two_of_one_second_the_name_decides_and_one_being_deleted_does_not_count() {
        let mut all = [refinery("b", "web", 1), refinery("a", "web", 1)];
        assert_eq!((stands(&all[0], &all), stands(&all[1], &all)), ("Duplicate", "serves"));
        Arc::make_mut(&mut all[1]).metadata.deletion_timestamp =
            Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(stands(&all[0], &all), "serves");
    }
}
