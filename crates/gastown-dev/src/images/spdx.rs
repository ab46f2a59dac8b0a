//! SPDX 2.3 documents in JSON: the parts of the format that a list of packages needs.

// The names of fields are those of SPDX.
#![allow(clippy::struct_field_names)]

use std::collections::BTreeMap;

use serde::Serialize;

/// What the format writes for what is not known.
pub const NO_ASSERTION: &str = "NOASSERTION";

/// A document.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

#[derive(Clone, Debug, Serialize)]
struct CreationInfo {
    created: String,
    creators: Vec<String>,
}

/// A package.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// The package's id in the document.
    #[serde(rename = "SPDXID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version_info: String,
    /// Where it can be had, or [`NO_ASSERTION`].
    pub download_location: String,
    /// Whether its files are listed.
    pub files_analyzed: bool,
    /// The licence that its authors declare, or [`NO_ASSERTION`].
    pub license_declared: String,
    license_concluded: &'static str,
    copyright_text: &'static str,
    /// Hashes of the archive.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checksums: Vec<Checksum>,
    /// Its names elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_refs: Vec<ExternalRef>,
    /// `CONTAINER` for an image, `APPLICATION`, `LIBRARY`, or `OTHER`.
    pub primary_package_purpose: &'static str,
}

/// A hash.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checksum {
    /// Such as `SHA256`.
    pub algorithm: &'static str,
    /// Hex digits.
    pub checksum_value: String,
}

/// A name elsewhere.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

/// What one package has to do with another.
#[derive(Clone, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

const DOCUMENT: &str = "SPDXRef-DOCUMENT";

impl Package {
    /// A package with a package URL, from which its id is made.
    pub fn new(purl: &str, name: &str, version: &str, purpose: &'static str) -> Self {
        let reference = ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: purl.to_owned(),
        };
        Self {
            id: id_of(purl),
            name: name.to_owned(),
            version_info: version.to_owned(),
            download_location: NO_ASSERTION.to_owned(),
            files_analyzed: false,
            license_declared: NO_ASSERTION.to_owned(),
            license_concluded: NO_ASSERTION,
            copyright_text: NO_ASSERTION,
            checksums: Vec::new(),
            external_refs: vec![reference],
            primary_package_purpose: purpose,
        }
    }

    /// With a hash of its archive.
    #[must_use]
    pub fn hash(mut self, algorithm: &'static str, hex: &str) -> Self {
        self.checksums.push(Checksum { algorithm, checksum_value: hex.to_owned() });
        self
    }

    /// With the place where its archive can be had.
    #[must_use]
    pub fn from(mut self, location: &str) -> Self {
        location.clone_into(&mut self.download_location);
        self
    }

    /// With its declared licence.
    #[must_use]
    pub fn license(mut self, expression: &str) -> Self {
        expression.clone_into(&mut self.license_declared);
        self
    }
}

/// An id of letters, digits, dots and dashes. What is replaced has its code between dashes,
/// so that two package URLs never have one id.
fn id_of(purl: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let text: String = purl
        .chars()
        .map(|c| if plain(c) { c.to_string() } else { format!("-{:x}-", u32::from(c)) })
        .collect();
    format!("SPDXRef-{text}")
}

/// Packages and what they have to do with each other, each once.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    packages: BTreeMap<String, Package>,
    relationships: std::collections::BTreeSet<Relationship>,
}

impl Contents {
    /// Adds a package, and returns its id.
    pub fn add(&mut self, package: Package) -> String {
        let id = package.id.clone();
        self.packages.insert(id.clone(), package);
        id
    }

    /// Adds a relationship, such as `CONTAINS` or `DEPENDS_ON`.
    pub fn relate(&mut self, one: &str, how: &'static str, other: &str) {
        self.relationships.insert(Relationship {
            spdx_element_id: one.to_owned(),
            relationship_type: how,
            related_spdx_element: other.to_owned(),
        });
    }

    /// The document that describes the package `main`, made at `created`.
    pub fn document(
        mut self,
        main: &str,
        name: &str,
        namespace: &str,
        created: String,
    ) -> Document {
        self.relate(DOCUMENT, "DESCRIBES", main);
        let version = env!("CARGO_PKG_VERSION");
        Document {
            spdx_version: "SPDX-2.3",
            data_license: "CC0-1.0",
            id: DOCUMENT,
            name: name.to_owned(),
            document_namespace: namespace.to_owned(),
            creation_info: CreationInfo {
                created,
                creators: vec![format!("Tool: cargo-xtask-images-{version}")],
            },
            packages: self.packages.into_values().collect(),
            relationships: self.relationships.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_that_differ_have_ids_that_differ() {
        let ids =
            ["pkg:a/b@1", "pkg:a/b-1", "pkg:a-b@1", "pkg:a/b@1%2B2", "pkg:a/b@1.2"].map(id_of);
        for (at, id) in ids.iter().enumerate() {
            let rest = id.strip_prefix("SPDXRef-").unwrap();
            assert!(rest.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)), "{id}");
            assert!(!ids[..at].contains(id), "{ids:?}");
        }
    }
}
