use serde_json::Value;

use super::super::Build;
use super::*;

fn lock() -> Lock {
    let hash = "a".repeat(64);
    let line = |name: &str, version: &str| {
        format!("'http://m/debian/pool/{name}.deb' {name}_{version}_amd64.deb 1 SHA256:{hash}")
    };
    let uris = [line("git", "1%3a2.39.5-0+deb12u3"), line("libstdc++6", "12.2.0-14")].join("\n");
    Lock::of_uris(&uris, "amd64", String::new()).unwrap()
}

fn npm_package() -> NpmPackage {
    gastown_toolchain::claude_code_package().unwrap()
}

/// The document of an image with a Debian package, one of npm's and rig-ctl as it is compiled today.
fn sample() -> Value {
    let graph = Graph::of(&["rig-ctl".to_owned()].into(), Build::Release).unwrap();
    let digest = Digest::of(b"manifest");
    let parts = Parts {
        name: "sample",
        version: "1.2.3",
        digest: &digest,
        debian: &["git".to_owned(), "libstdc++6".to_owned()].into(),
        lock: &lock(),
        programs: &[("rig-ctl".to_owned(), "rig-ctl".to_owned())].into(),
        crates: Some(&graph),
        linked: &linked().unwrap(),
        npm: &[npm_package()],
    };
    serde_json::to_value(document(&parts, "2026-01-01T00:00:00Z".into()).unwrap()).unwrap()
}

fn texts<'a>(list: &'a Value, key: &'a str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap()).collect()
}

fn package<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["packages"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()
}

fn purl(package: &Value) -> &str {
    package["externalRefs"][0]["referenceLocator"].as_str().unwrap()
}

/// What SPDX 2.3 demands of a document, its packages and its relationships.
#[test]
fn the_document_is_valid_spdx() {
    let document = sample();
    for (key, value) in
        [("spdxVersion", "SPDX-2.3"), ("dataLicense", "CC0-1.0"), ("SPDXID", "SPDXRef-DOCUMENT")]
    {
        assert_eq!(document[key], value);
    }
    assert!(!document["name"].as_str().unwrap().is_empty());
    let namespace = url::Url::parse(document["documentNamespace"].as_str().unwrap()).unwrap();
    assert_eq!(namespace.fragment(), None);
    let created = &document["creationInfo"];
    created["created"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(created["creators"][0].as_str().unwrap().starts_with("Tool: "));
    for package in document["packages"].as_array().unwrap() {
        for key in ["name", "SPDXID", "downloadLocation", "licenseDeclared", "licenseConcluded"] {
            assert!(package[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {package}");
        }
        let id = package["SPDXID"].as_str().unwrap().strip_prefix("SPDXRef-").unwrap();
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)), "{id}");
        assert_eq!(package["filesAnalyzed"], false);
        assert!(purl(package).starts_with("pkg:"), "{package}");
        for checksum in package["checksums"].as_array().into_iter().flatten() {
            let length = if checksum["algorithm"] == "SHA512" { 128 } else { 64 };
            assert_eq!(checksum["checksumValue"].as_str().unwrap().len(), length);
        }
    }
}

#[test]
fn ids_are_unique_and_relationships_lead_to_what_the_document_has() {
    let document = sample();
    let ids = texts(&document["packages"], "SPDXID");
    let mut known: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(known.len(), ids.len(), "an id occurs twice");
    let all = document["relationships"].as_array().unwrap();
    assert!(all.iter().any(|r| r["relationshipType"] == "DESCRIBES"
        && r["spdxElementId"] == "SPDXRef-DOCUMENT"
        && r["relatedSpdxElement"] == package(&document, "sample")["SPDXID"]));
    let reached: BTreeSet<&str> =
        all.iter().map(|r| r["relatedSpdxElement"].as_str().unwrap()).collect();
    // Nothing is listed that nothing refers to.
    assert_eq!(reached, known);
    known.insert("SPDXRef-DOCUMENT");
    assert!(texts(&document["relationships"], "spdxElementId").iter().all(|id| known.contains(id)));
}

#[test]
fn packages_have_the_urls_by_which_scanners_know_them() {
    let document = sample();
    for (name, wanted) in [
        ("git", "pkg:deb/debian/git@1%3A2.39.5-0%2Bdeb12u3?arch=amd64&distro=bookworm"),
        ("libstdc++6", "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64&distro=bookworm"),
        (
            "@anthropic-ai/claude-code-linux-x64",
            &format!("pkg:npm/%40anthropic-ai/claude-code-linux-x64@{}", npm_package().version),
        ),
    ] {
        assert_eq!(purl(package(&document, name)), wanted);
    }
}

#[test]
fn crates_are_those_of_the_program_and_not_those_of_its_build_or_of_other_programs() {
    let document = sample();
    let names = texts(&document["packages"], "name");
    for there in ["kube", "tokio", "rustls", "gastown-runtime", "rust-std", "glibc"] {
        assert!(names.contains(&there), "{there}");
    }
    // They build it, test it, derive code for it, or belong to refinery-ctl.
    for absent in ["protox", "tonic-prost-build", "proptest", "insta", "serde_derive", "gix", "syn"]
    {
        assert!(!names.contains(&absent), "{absent}");
    }
    let tokio = package(&document, "tokio");
    let location = tokio["downloadLocation"].as_str().unwrap();
    assert_eq!(location.rsplit('.').next(), Some("crate"), "{location}");
    assert_eq!(tokio["checksums"][0]["checksumValue"].as_str().unwrap().len(), 64);
    assert_eq!(tokio["licenseDeclared"], "MIT");
}

#[test]
fn a_package_that_is_not_locked_is_an_error() {
    let error = debian(&lock(), "jq").unwrap_err().to_string();
    assert!(error.contains("jq") && error.contains("lock"), "{error}");
}

#[test]
fn installed_packages_are_read_from_the_list_of_dpkg() {
    let status =
        "Package: git\nStatus: install ok installed\n\nPackage: zlib1g\nDepends: Package: x\n";
    assert_eq!(installed(status), ["git".to_owned(), "zlib1g".to_owned()].into());
}
