//! The API server's own record of requests, for whoever compares it with roles.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The variable with the folder in which each API server leaves its record. Nothing is recorded without it.
pub const FOLDER: &str = "GASTOWN_AUDIT_DIR";

/// Who asked for what, without the content; lists and watches when they begin, as they may not end.
const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [
    {"level": "None", "nonResourceURLs": ["*"]},
    {"level": "Metadata", "omitStages": ["RequestReceived"]}
]}
"#;

/// The flags of an API server that leaves its record as `name` in the folder that [`FOLDER`] names, if
/// it names one; the policy is written to `dir`.
pub fn flags(name: &str, dir: &Path) -> Result<Vec<String>> {
    let folder = std::env::var_os(FOLDER).filter(|f| !f.is_empty()).map(PathBuf::from);
    folder.map_or_else(|| Ok(Vec::new()), |folder| flags_of(&folder, name, dir))
}

/// The flags of an API server that leaves its record as `name` in `folder`; the policy is written to
/// `dir`.
pub fn flags_of(folder: &Path, name: &str, dir: &Path) -> Result<Vec<String>> {
    let policy = dir.join("audit-policy.json");
    std::fs::write(&policy, POLICY).with_context(|| format!("writing {}", policy.display()))?;
    Ok(vec![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", folder.join(format!("{name}.log")).display()),
        // Written before the answer is sent: a server that is killed has left all of it.
        "--audit-log-mode=blocking".into(),
        // In MiB: one file, however long it gets.
        "--audit-log-maxsize=100000".into(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_a_record_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let flags = flags_of(Path::new("/records"), "plane-1", dir.path()).unwrap();
        assert!(flags.contains(&"--audit-log-path=/records/plane-1.log".to_owned()), "{flags:?}");
        let policy: serde_json::Value = serde_json::from_str(POLICY).unwrap();
        assert_eq!(policy["kind"], "Policy");
    }
}
