//! The number of the CustomResourceDefinitions' schema, and what each controller needs of it.

use crate::rbac::{Controller, definitions};

/// The number that each definition has in annotation [`crate::names::annotation::SCHEMA`]. It is raised
/// by one in each release in which a controller comes to need a field, a value or a default that the
/// definitions of the release before do not have, together with that controller's row in `MINIMA`.
/// Definitions of 0.1.0 have no annotation, which counts as 0.
pub const SCHEMA: u32 = 1;

/// The definitions that must have at least this number. What is not here may be as old as those of
/// 0.1.0: no controller needs a field that they do not have.
const MINIMA: &[(Controller, &str, u32)] = &[
    // They apply `status.traceID`: a definition without it refuses the whole status.
    (Controller::Polecat, "polecats.gastown.gastown.io", 1),
    (Controller::Refinery, "mergerequests.gastown.gastown.io", 1),
    (Controller::Convoy, "convoys.gastown.gastown.io", 1),
];

/// A definition that a controller works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The definition's name, such as `rigs.gastown.gastown.io`.
    pub definition: String,
    /// The least number of its schema.
    pub minimum: u32,
}

/// What a controller needs.
pub fn needed(controller: Controller) -> Vec<Needed> {
    let minimum = |name: &str| {
        let mut rows = MINIMA.iter();
        rows.find(|(who, what, _)| *who == controller && *what == name).map_or(0, |row| row.2)
    };
    definitions(controller)
        .iter()
        .map(|name| Needed { definition: (*name).to_owned(), minimum: minimum(name) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crds;
    use crate::names::annotation;

    #[test]
    fn every_definition_has_the_number_and_none_is_needed_that_it_does_not_have() {
        let crds = crds();
        for crd in &crds {
            let annotations = crd.metadata.annotations.as_ref().unwrap();
            assert_eq!(annotations[annotation::SCHEMA], SCHEMA.to_string());
        }
        for needed in Controller::ALL.into_iter().flat_map(needed) {
            let is_it = |crd: &&_| crd_name(crd) == Some(needed.definition.as_str());
            assert!(crds.iter().any(|crd| is_it(&crd)), "{needed:?}");
            assert!(needed.minimum <= SCHEMA, "{needed:?}");
        }
        for (controller, name, _) in MINIMA {
            assert!(definitions(*controller).contains(name), "{controller:?} does not use {name}");
        }
    }

    fn crd_name(
        crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    ) -> Option<&str> {
        crd.metadata.name.as_deref()
    }
}
