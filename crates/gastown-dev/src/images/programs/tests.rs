use gastown_cluster::oci::{Digest, ImageBuilder};
use serde_json::json;

use super::*;

#[test]
fn a_program_is_found_in_its_package() {
    let package = |name: &str, kind: &str, target: &str| {
        json!({"name": name, "targets": [
            {"kind": ["lib"], "name": name}, {"kind": [kind], "name": target},
        ]})
    };
    let metadata = json!({"packages": [
        package("gastown-agent", "bin", "gt"), package("rig-ctl", "bin", "rig-ctl"), package("x", "test", "gt"),
    ]});
    assert_eq!(
        owners_of(&metadata, &["gt"].into()),
        [("gt".to_owned(), "gastown-agent".to_owned())].into()
    );
    assert!(owners_of(&metadata, &["none"].into()).is_empty());
}

/// A small workspace whose program shows paths in many ways: places of panics, `file!`, and a crate
/// beside it.
fn write_workspace(root: &Path) {
    let files = [
        (
            "Cargo.toml",
            "[workspace]\nmembers = [\"library\"]\n[package]\nname = \"sample\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\nlibrary = { path = \"library\" }\n[profile.release]\ndebug = \"line-tables-only\"\n",
        ),
        (
            "src/main.rs",
            "fn main() { let n = std::env::args().count(); println!(\"{} {}\", file!(), library::place(n)); assert!(n < 9, \"{n}\"); }\n",
        ),
        (
            "library/Cargo.toml",
            "[package]\nname = \"library\"\nversion = \"0.1.0\"\nedition = \"2024\"\n",
        ),
        (
            "library/src/lib.rs",
            "pub fn place(n: usize) -> &'static str { let v = vec![file!()]; v[n - 1] }\n",
        ),
    ];
    for (name, text) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// Compiles the small workspace in a folder as a release, and writes an image of it.
fn built_in(root: &Path) -> (Vec<u8>, Digest) {
    std::fs::create_dir_all(root).unwrap();
    write_workspace(root);
    let target = root.join("target");
    let mut cargo = util::cargo();
    cargo.args(["build", "--release", "--offline", "--quiet"]);
    cargo.args(["--target", "x86_64-unknown-linux-gnu"]);
    cargo.args(flags_without_paths(root, &target).unwrap());
    cargo.current_dir(root).env("CARGO_TARGET_DIR", &target).env_remove("RUSTFLAGS");
    util::output(&mut cargo).unwrap();
    let from = target.join("x86_64-unknown-linux-gnu/release/sample");
    let program = stripped(&from, &root.join("sample"), Build::Release).unwrap();
    let image = ImageBuilder::new("x/y:1").layer_from_files(&[("/sample", &program, 0o755)]);
    let digest = image.gzip(true).write(&root.join("image.tar")).unwrap();
    (std::fs::read(root.join("image.tar")).unwrap(), digest)
}

#[test]
fn a_program_and_its_image_are_the_same_from_any_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("another/place"));
    let (first, second) = (built_in(&one), built_in(&other));
    assert_eq!(first.1, second.1, "the digests differ");
    assert!(first.0 == second.0, "the images differ");
    let program = std::fs::read(one.join("sample")).unwrap();
    let path = dir.path().to_str().unwrap().as_bytes();
    assert!(!program.windows(path.len()).any(|part| part == path), "the program shows its folder");
}
