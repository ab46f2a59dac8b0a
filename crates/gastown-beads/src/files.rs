//! The other files in `.beads/`: which one holds the issues, and metadata.json.

use gastown_types::text;
use serde_json::Value;

use crate::problem::MAX_SHOWN;

/// Files that end in `.jsonl` and hold something else.
const NOT_ISSUES: &[&str] = &[
    "deletions.jsonl",
    "interactions.jsonl",
    "events.jsonl",
    "routes.jsonl",
    "sync_base.jsonl",
    "beads.base.jsonl",
    "beads.left.jsonl",
    "beads.right.jsonl",
];

/// The settings of metadata.json that the operator reads. Connections are never taken from there:
/// they are those of one clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `dolt` or `sqlite`; absent in classic stores.
    pub backend: Option<String>,
    /// The name of the file of issues.
    pub jsonl_export: Option<String>,
    /// The id of the project, which guards against another store.
    pub project_id: Option<String>,
}

/// Why metadata.json cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// It is not a JSON object.
    #[error("metadata.json is not a JSON object: {0}")]
    NotJson(String),
    /// The value of a key that decides something is not a string.
    #[error("metadata.json: `{0}` is not a string")]
    WrongType(&'static str),
}

/// Why no file of issues was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// There is no candidate; a store in Dolt alone looks like this.
    #[error("there is no JSONL file of issues in .beads")]
    NoJsonl,
    /// There are several candidates.
    #[error("{} could all be the file of issues: name one as jsonl_export in metadata.json", .0.join(", "))]
    Ambiguous(Vec<String>),
    /// The configured name is not a plain file name, so it could lead out of `.beads`.
    #[error("metadata.json names `{0}`, which is not a plain name of a .jsonl file")]
    BadName(String),
    /// metadata.json cannot be read.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl Metadata {
    /// Reads metadata.json.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetadataError> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| MetadataError::NotJson(error.to_string()))?;
        let Value::Object(map) = value else {
            return Err(MetadataError::NotJson("it is another kind of value".to_owned()));
        };
        let string = |key: &'static str| match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(MetadataError::WrongType(key)),
        };
        Ok(Self {
            backend: string("backend")?,
            jsonl_export: string("jsonl_export")?,
            project_id: string("project_id")?,
        })
    }

    /// Whether a Dolt database is authoritative, so that the JSONL file is an export of it.
    pub fn is_dolt(&self) -> bool {
        self.backend.as_deref() == Some("dolt")
    }
}

/// The name of the file of `.beads/` that holds the issues: the one that metadata.json names, else
/// `issues.jsonl`, else `beads.jsonl`, else the only other candidate. The caller checks that it is a
/// regular file.
pub fn discover(names: &[&str], metadata_json: Option<&[u8]>) -> Result<String, DiscoverError> {
    let metadata = metadata_json.map(Metadata::parse).transpose()?.unwrap_or_default();
    if let Some(name) = metadata.jsonl_export {
        if !is_plain(&name) {
            return Err(DiscoverError::BadName(text::line(&name, MAX_SHOWN)));
        }
        if names.contains(&name.as_str()) && !NOT_ISSUES.contains(&name.as_str()) {
            return Ok(name);
        }
    }
    if let Some(name) =
        ["issues.jsonl", "beads.jsonl"].into_iter().find(|name| names.contains(name))
    {
        return Ok(name.to_owned());
    }
    let mut others: Vec<String> = names
        .iter()
        .filter(|name| is_plain(name) && !NOT_ISSUES.contains(name))
        .map(|name| (*name).to_owned())
        .collect();
    others.sort_unstable();
    match others.len() {
        0 => Err(DiscoverError::NoJsonl),
        1 => Ok(others.remove(0)),
        _ => Err(DiscoverError::Ambiguous(others)),
    }
}

/// Whether this is the name of a `.jsonl` file that is not hidden, without a path.
fn is_plain(name: &str) -> bool {
    name.len() <= 255
        && name.strip_suffix(".jsonl").is_some_and(|stem| !stem.is_empty())
        && !name.starts_with(['.', '-'])
        && !name.contains(['/', '\\', ':'])
        && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], metadata: &str) -> Result<String, DiscoverError> {
        discover(names, Some(metadata.as_bytes()).filter(|text| !text.is_empty()))
    }

    #[test]
    fn the_configured_name_comes_first_then_the_usual_names_then_the_only_candidate() {
        let all = ["beads.jsonl", "deletions.jsonl", "issues.jsonl", "work.jsonl"];
        assert_eq!(found(&all, r#"{"jsonl_export":"work.jsonl"}"#).unwrap(), "work.jsonl");
        assert_eq!(found(&all, r#"{"jsonl_export":"gone.jsonl"}"#).unwrap(), "issues.jsonl");
        assert_eq!(found(&all, r#"{"jsonl_export":"deletions.jsonl"}"#).unwrap(), "issues.jsonl");
        assert_eq!(found(&["work.jsonl", "beads.jsonl"], "").unwrap(), "beads.jsonl");
        assert_eq!(
            found(&["work.jsonl", "events.jsonl", "config.yaml"], "{}").unwrap(),
            "work.jsonl"
        );
        assert_eq!(
            found(&["b.jsonl", "a.jsonl"], "").unwrap_err(),
            DiscoverError::Ambiguous(vec!["a.jsonl".into(), "b.jsonl".into()])
        );
        assert_eq!(
            found(&["interactions.jsonl", "config.yaml", ".jsonl"], "").unwrap_err(),
            DiscoverError::NoJsonl
        );
    }

    #[test]
    fn a_configured_path_is_refused() {
        for name in [
            "../issues.jsonl",
            "/etc/passwd",
            "a/b.jsonl",
            "..",
            "c:\\x.jsonl",
            ".hidden.jsonl",
            "x.txt",
            "a\\u0000.jsonl",
        ] {
            let metadata = format!(r#"{{"jsonl_export":"{}"}}"#, name.replace("\\x", "\\\\x"));
            assert!(
                matches!(found(&["issues.jsonl"], &metadata), Err(DiscoverError::BadName(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn metadata_decides_whether_a_dolt_database_is_authoritative() {
        let metadata =
            Metadata::parse(br#"{"database":"dolt","backend":"dolt","dolt_mode":"embedded","project_id":"63aa","dolt_server_port":3307}"#)
                .unwrap();
        assert!(metadata.is_dolt());
        assert_eq!((metadata.project_id.as_deref(), metadata.jsonl_export), (Some("63aa"), None));
        assert!(!Metadata::parse(br#"{"database":"beads.db","backend":null}"#).unwrap().is_dolt());
    }

    #[test]
    fn metadata_that_cannot_be_read_is_an_error() {
        for bytes in [b"".as_slice(), b"[]", b"{", b"\xff", br#"{"backend":5}"#] {
            assert!(Metadata::parse(bytes).is_err());
        }
        assert_eq!(
            Metadata::parse(br#"{"project_id":[]}"#).unwrap_err().to_string(),
            "metadata.json: `project_id` is not a string"
        );
    }
}
