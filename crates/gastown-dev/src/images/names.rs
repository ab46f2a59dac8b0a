//! The names of the images: registry, name and tag.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::util;

/// Where the images are published.
pub const REGISTRY: &str = "ghcr.io/gastown-operator";

/// The keys of the chart's values that hold an image.
const CHART_KEYS: [&str; 7] =
    ["agent", "rig", "polecat", "convoy", "witness", "refinery", "beadstore"];

/// The names of one set of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    registry: String,
    tag: String,
}

impl Names {
    /// The names in a registry (by default the one that they are published in) under a tag (by
    /// default this version).
    pub fn new(registry: Option<&str>, tag: Option<&str>) -> Result<Self> {
        let registry = registry.unwrap_or(REGISTRY).trim_end_matches('/');
        let is_plain = |text: &str, more: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !is_plain(registry, ".-_:/") || registry.starts_with('/') {
            bail!(
                "{registry:?} is not a registry: give a host and a path, such as registry.example.com/gastown"
            );
        }
        let tag = tag.map_or_else(version, |tag| Ok(tag.to_owned()))?;
        if !is_plain(&tag, "._-") || tag.starts_with(['.', '-']) || tag.len() > 128 {
            bail!(
                "{tag:?} is not a tag: at most 128 letters, digits, dots, dashes and underscores"
            );
        }
        Ok(Self { registry: registry.to_owned(), tag })
    }

    /// The full name of an image.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.registry, self.tag)
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The command that installs the chart with these images.
    pub fn helm_command(&self) -> String {
        let set: Vec<String> =
            self.chart_values().iter().map(|value| format!(" --set {value}")).collect();
        format!(
            "helm upgrade --install gastown charts/gastown-operator --namespace gastown-system --create-namespace{}",
            set.concat()
        )
    }

    /// The values with which the chart uses these images, as for helm: key=value.
    pub fn chart_values(&self) -> Vec<String> {
        let registry = format!("imageRegistry={}", self.registry);
        // The chart's own default is this version.
        let keys =
            if version().is_ok_and(|version| version == self.tag) { &[] } else { &CHART_KEYS[..] };
        let tags = keys.iter().map(|key| format!("{key}.image.tag={}", self.tag));
        std::iter::once(registry).chain(tags).collect()
    }
}

/// The version of everything in this workspace.
pub fn version() -> Result<String> {
    read_version(&util::root().join("VERSION"))
}

fn read_version(path: &Path) -> Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_registry_name_and_tag() {
        let names = Names::new(Some("localhost:5000/team/"), Some("v1")).unwrap();
        assert_eq!(names.reference("rig-ctl"), "localhost:5000/team/rig-ctl:v1");
        let published = Names::new(None, None).unwrap();
        assert_eq!(
            published.reference("rig-ctl"),
            format!("{REGISTRY}/rig-ctl:{}", env!("CARGO_PKG_VERSION"))
        );
    }

    #[test]
    fn the_chart_gets_a_tag_only_when_it_is_not_its_own() {
        let own = Names::new(Some("r.io/x"), None).unwrap();
        assert_eq!(own.chart_values(), ["imageRegistry=r.io/x"]);
        let other = Names::new(Some("r.io/x"), Some("v9")).unwrap();
        assert_eq!(other.chart_values().len(), 1 + CHART_KEYS.len());
        assert!(other.helm_command().contains(" --set polecat.image.tag=v9"));
    }

    #[test]
    fn what_is_no_registry_or_tag_is_refused() {
        for registry in ["", "/x", "a b", "a,b=c", "https://a/b?x"] {
            assert!(Names::new(Some(registry), None).is_err(), "{registry:?}");
        }
        for tag in ["", "-x", "a/b", "a b", "a,b"] {
            assert!(Names::new(None, Some(tag)).is_err(), "{tag:?}");
        }
    }
}
