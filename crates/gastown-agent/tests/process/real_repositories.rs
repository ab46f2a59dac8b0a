//! What real repositories have beside files: tags, submodules, LFS, private authorities, proxies,
//! and many refs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use gastown_agent::lfs;
use gastown_core::report::{InitReport, InitResult};
use gastown_fakes::git_http::{Config, GitHttp};
use gastown_git::{Class, Git, RefUpdate, Refusal, Remote};
use tokio::runtime::Runtime;

use crate::pod::{Origin, Pod, git, git_ok};

fn serve(dir: &Path, login: Option<(&str, &str)>) -> (Runtime, GitHttp) {
    let runtime = Runtime::new().unwrap();
    let login = login.map(|(u, p)| (u.to_owned(), p.to_owned()));
    let config = Config { dir: dir.to_owned(), login };
    let http = runtime.block_on(GitHttp::start_with(config)).unwrap();
    (runtime, http)
}

fn folder(origin: &Origin) -> PathBuf {
    origin.path().parent().unwrap().to_owned()
}

fn stops(pod: &Pod, want: InitResult, parts: &[&str]) -> InitReport {
    let report = pod.init();
    assert_eq!(report.result, want, "{report:?}\n{}", pod.log("init"));
    for part in parts {
        assert!(report.message.contains(part), "{part:?} is not in {:?}", report.message);
    }
    report
}

/// Adds a file to a bare repository's `main` and returns the commit.
fn commit(origin: &Origin, clone: &str, files: &[(&str, &str)]) -> String {
    let at = folder(origin).join(clone);
    if !at.exists() {
        origin.clone_at(clone);
    }
    for (path, text) in files {
        fs::create_dir_all(at.join(path).parent().unwrap()).unwrap();
        fs::write(at.join(path), text).unwrap();
    }
    git(&at, &["add", "-A"]);
    git(&at, &["commit", "-q", "-m", "more"]);
    git(&at, &["push", "-q", "origin", "HEAD:main"]);
    git(&at, &["rev-parse", "HEAD"])
}

#[test]
fn describe_and_a_comparison_with_the_target_work_in_workspace_and_gate() {
    let origin = Origin::new();
    let first = origin.at("main").unwrap();
    git(&origin.path(), &["tag", "-a", "-m", "one", "v1", &first]);
    git(&origin.path(), &["tag", "dir/light", &first]);
    let base = commit(&origin, "more", &[("more", "1\n")]);
    let side = origin.another_writer("side");
    git(&origin.path(), &["tag", "-a", "-m", "side", "elsewhere", &side]);
    let mut pod = Pod::new(&origin.url());
    pod.ready();
    let described = format!("v1-1-g{}", &base[..7]);
    assert_eq!(git(&pod.repo(), &["describe", "--abbrev=7"]), described);
    assert_eq!(git(&pod.repo(), &["tag"]), "dir/light\nv1");
    assert_eq!(git(&pod.repo(), &["tag", "--points-at", &first]), "dir/light\nv1");
    assert_eq!(git(&pod.repo(), &["diff", "--name-only", "origin/main..."]), "");
    let origin_git = pod.path("workspace/origin.git");
    assert_eq!(git(&origin_git, &["tag"]), "dir/light\nv1");
    git(&pod.repo(), &["fsck", "--strict"]);

    // As refinery-ctl's endpoint serves them.
    let (_runtime, http) = serve(&folder(&origin), None);
    let tag = origin.at("refs/tags/v1").unwrap();
    git(&origin.path(), &["update-ref", "refs/gastown/tags/0123456789abcdef/v1", &tag]);
    pod.set("GASTOWN_GIT_URL", &http.repository("r")).set("GASTOWN_CANDIDATE", &side);
    pod.set("GASTOWN_BASE", &base).set("GASTOWN_TARGET_BRANCH", "main");
    assert_eq!(pod.start("fetch", &["fetch"]).wait(), Some(0), "{}", pod.log("fetch"));
    assert_eq!(git(&pod.repo(), &["describe"]), format!("v1-2-g{}", &side[..7]));
    assert_eq!(git(&pod.repo(), &["diff", "--name-only", "origin/main...HEAD"]), "other");
    assert_eq!(git(&pod.repo(), &["status", "--porcelain"]), "");

    // As deep as its Refinery wants it: all files, and of the history what is in reach.
    for (depth, commits, has_base) in [("1", "1", false), ("2", "2", true)] {
        pod.set("GASTOWN_FETCH_DEPTH", depth);
        assert_eq!(pod.start("fetch", &["fetch"]).wait(), Some(0), "{}", pod.log("fetch"));
        assert_eq!(git(&pod.repo(), &["rev-parse", "HEAD"]), side);
        assert_eq!(
            git(&pod.repo(), &["ls-files"]),
            git(&origin.path(), &["ls-tree", "-r", "--name-only", &side])
        );
        assert_eq!(git(&pod.repo(), &["rev-list", "--count", "--all"]), commits, "{depth}");
        let refs = git(&pod.repo(), &["for-each-ref", "--format=%(refname)"]);
        assert_eq!(refs.contains("refs/remotes/origin/main"), has_base, "{refs}");
        assert!(!refs.contains("refs/tags/"), "no tag is in reach: {refs}");
    }
    pod.set("GASTOWN_FETCH_DEPTH", "none");
    assert_eq!(pod.start("fetch", &["fetch"]).wait(), Some(1), "{}", pod.log("fetch"));
    assert!(pod.log("fetch").contains("GASTOWN_FETCH_DEPTH"), "{}", pod.log("fetch"));
}

#[test]
fn a_branch_in_the_way_is_found_before_an_agent_is_paid() {
    let origin = Origin::new();
    origin.another_writer("polecat");
    let pod = Pod::new(&origin.url());
    stops(&pod, InitResult::BranchExists, &["branch polecat,", "polecat/toast"]);
    git(&origin.path(), &["branch", "-D", "polecat"]);
    origin.another_writer("polecat/toast/notes");
    stops(&pod, InitResult::BranchExists, &["branch polecat/toast/notes,"]);
    git(&origin.path(), &["branch", "-D", "polecat/toast/notes"]);
    origin.another_writer("polecat/other");
    pod.ready();
}

#[test]
fn a_refusal_that_stays_is_not_taken_for_a_server_that_is_down() {
    let origin = Origin::new();
    let (runtime, http) = serve(&folder(&origin), None);
    let pod = Pod::new(&http.repository("r"));
    http.refuse_requests(Some(("/git-upload-pack", StatusCode::PAYLOAD_TOO_LARGE)));
    stops(&pod, InitResult::RemoteRefused, &["413"]);
    http.refuse_requests(Some(("/git-upload-pack", StatusCode::SERVICE_UNAVAILABLE)));
    stops(&pod, InitResult::RemoteUnreachable, &["503"]);
    http.refuse_requests(Some(("/info/refs", StatusCode::TOO_MANY_REQUESTS)));
    stops(&pod, InitResult::RemoteUnreachable, &["429"]);
    http.refuse_requests(Some(("/git-receive-pack", StatusCode::PAYLOAD_TOO_LARGE)));
    // The dry run sends nothing; the push of the fence is refused, before an agent is paid.
    stops(&pod, InitResult::RemoteRefused, &["413"]);
    let remote = Remote::anonymous(http.repository("r").parse().unwrap());
    let clone = origin.clone_at("pushing");
    fs::write(clone.join("w"), "w").unwrap();
    git(&clone, &["add", "-A"]);
    git(&clone, &["commit", "-q", "-m", "w"]);
    let new = Some(git(&clone, &["rev-parse", "HEAD"]).parse().unwrap());
    let update = RefUpdate { name: "refs/heads/x".into(), expected: None, new };
    let push =
        async { remote.push(&Git::from_env(), &clone.join(".git"), &[update]).await.unwrap_err() };
    let e = runtime.block_on(push);
    assert_eq!(e.class, Class::Rejected(Refusal::Http(413)), "{e}");
}

#[test]
fn a_private_authority_comes_from_the_secret_or_a_configmap() {
    let origin = Origin::new();
    let runtime = Runtime::new().unwrap();
    let config = Config { dir: folder(&origin), login: None };
    let (http, pem) = runtime.block_on(GitHttp::start_secure(config)).unwrap();
    let mut pod = Pod::new(&http.repository("r"));
    stops(&pod, InitResult::RemoteUnreachable, &["certificate", "caConfigMapRef"]);
    pod.put("git-creds/ca.crt", &pem);
    pod.put("git-creds/token", "unused");
    pod.set("GASTOWN_GIT_SECRET", "forge");
    pod.ready();
    fs::remove_file(pod.path("git-creds/ca.crt")).unwrap();
    pod.set("GASTOWN_CA_CONFIGMAP", "corp");
    stops(&pod, InitResult::ConfigMapNotFound, &["configmap corp"]);
    pod.put("git-ca/ca.crt", &pem);
    pod.ready();
    pod.put("git-ca/ca.crt", "not a certificate");
    stops(&pod, InitResult::BadCredentials, &["BEGIN CERTIFICATE"]);
}

#[test]
fn the_proxy_is_used_and_direct_hosts_are_not_asked_through_it() {
    let origin = Origin::new();
    let (_runtime, http) = serve(&folder(&origin), None);
    let (_other, proxy) = serve(&folder(&origin), None);
    proxy.refuse_requests(Some(("/", StatusCode::PROXY_AUTHENTICATION_REQUIRED)));
    let mut pod = Pod::new(&http.repository("r"));
    pod.set("http_proxy", &proxy.url());
    stops(&pod, InitResult::RemoteRefused, &["407"]);
    assert_eq!(http.requests(), 0);
    pod.set("no_proxy", "127.0.0.1");
    pod.ready();
}

/// A bare repository beside `r.git` with one file.
fn library(origin: &Origin, name: &str) -> PathBuf {
    let dir = folder(origin);
    git(&dir, &["init", "-q", "--bare", "--initial-branch=main", &format!("{name}.git")]);
    let work = dir.join(format!("{name}-work"));
    git(&dir, &["clone", "-q", &format!("{name}.git"), work.to_str().unwrap()]);
    fs::write(work.join(name), format!("{name}\n")).unwrap();
    git(&work, &["add", "-A"]);
    git(&work, &["commit", "-q", "-m", name]);
    git(&work, &["tag", "-a", "-m", "tag", &format!("{name}-1")]);
    git(&work, &["push", "-q", "origin", "HEAD:main", "--tags"]);
    work
}

/// Adds a submodule at `path` to the clone `work` without fetching anything.
fn add_submodule(work: &Path, path: &str, url: &str, commit: &str) {
    let text = format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n");
    let mut all = fs::read_to_string(work.join(".gitmodules")).unwrap_or_default();
    all.push_str(&text);
    fs::write(work.join(".gitmodules"), all).unwrap();
    git(work, &["add", ".gitmodules"]);
    git(work, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
    git(work, &["commit", "-q", "-m", "add a submodule"]);
    git(work, &["push", "-q", "origin", "HEAD:main"]);
}

#[test]
fn submodules_are_filled_with_the_repositorys_credentials() {
    let origin = Origin::new();
    let deep = library(&origin, "deep");
    let lib = library(&origin, "lib");
    add_submodule(&lib, "sub/deep", "../deep.git", &git(&deep, &["rev-parse", "HEAD"]));
    let seed = origin.clone_at("super");
    add_submodule(&seed, "vendor/lib", "../lib.git", &git(&lib, &["rev-parse", "HEAD"]));
    let (_runtime, http) = serve(&folder(&origin), Some(("me", "pw")));
    git(&origin.path(), &["config", "http.receivepack", "true"]);
    let mut pod = Pod::new(&http.repository("r"));
    pod.set("GASTOWN_GIT_SECRET", "forge").put("git-creds/username", "me");
    pod.put("git-creds/password", "pw");
    pod.ready();
    let repo = pod.repo();
    assert_eq!(fs::read_to_string(repo.join("vendor/lib/lib")).unwrap(), "lib\n");
    assert_eq!(fs::read_to_string(repo.join("vendor/lib/sub/deep/deep")).unwrap(), "deep\n");
    assert_eq!(git(&repo, &["status", "--porcelain"]), "");
    let status = git(&repo, &["submodule", "status", "--recursive"]);
    assert_eq!(status.lines().count(), 2, "{status}");
    assert!(status.contains("vendor/lib (lib-1-1-g") && status.contains("(deep-1)"), "{status}");
    assert!(!status.lines().any(|l| l.starts_with(['-', '+'])), "{status}");
    // The agent works in it without a network.
    let module = repo.join("vendor/lib");
    fs::write(module.join("lib"), "changed\n").unwrap();
    git(&module, &["commit", "-q", "-a", "-m", "mine"]);
    assert_eq!(git(&repo, &["status", "--porcelain"]), "M vendor/lib");
    git(&repo, &["submodule", "update", "--recursive", "--force"]);
    assert_eq!(fs::read_to_string(module.join("lib")).unwrap(), "lib\n");
    // A second start of the container begins again from nothing.
    pod.ready();
    assert_eq!(git(&repo, &["status", "--porcelain"]), "");
}

#[test]
fn a_submodule_that_cannot_be_fetched_is_named_before_an_agent_is_paid() {
    let id = "c".repeat(40);
    for (url, why) in [
        ("../gone.git", "does not exist"),
        ("file:///etc/x.git", "only https and ssh"),
        ("ext::sh -c id", "not a repository URL"),
    ] {
        let origin = Origin::new();
        let seed = origin.clone_at("super");
        add_submodule(&seed, "vendor/lib", url, &id);
        let (_runtime, http) = serve(&folder(&origin), None);
        let pod = Pod::new(&http.repository("r"));
        stops(&pod, InitResult::SubmoduleUnavailable, &["vendor/lib", url, why]);
    }
    // A commit that `.gitmodules` does not describe is nobody's to fetch.
    let origin = Origin::new();
    let seed = origin.clone_at("super");
    git(&seed, &["update-index", "--add", "--cacheinfo", &format!("160000,{id},stray")]);
    git(&seed, &["commit", "-q", "-m", "stray"]);
    git(&seed, &["push", "-q", "origin", "HEAD:main"]);
    Pod::new(&origin.url()).ready();
}

#[test]
fn a_gate_has_the_submodules_and_large_files_of_its_candidate() {
    let origin = Origin::new();
    let dir = folder(&origin);
    let lib = library(&origin, "lib");
    let module = git(&lib, &["rev-parse", "HEAD"]);
    let (oid, text) = pointer("the content\n");
    let attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n";
    let base = commit(&origin, "super", &[(".gitattributes", attributes), ("a.bin", &text)]);
    let seed = dir.join("super");
    add_submodule(&seed, "vendor/lib", "../lib.git", &module);
    add_submodule(&seed, "vendor/gone", "../gone.git", &"c".repeat(40));
    let candidate = git(&seed, &["rev-parse", "HEAD"]);
    let (runtime, http) = serve(&dir, None);

    // refinery-ctl brings them into its mirror, as far as they are there, and takes them out again.
    let remote = Remote::anonymous(http.repository("r").parse().unwrap());
    let mirror = gastown_git::Mirror::at(Git::from_env(), &dir.join("mirrors"), &remote.url);
    let (id, main) = (candidate.parse().unwrap(), "main".parse().unwrap());
    let fetched = async {
        mirror.refresh(&remote, &[main]).await.unwrap();
        mirror.fetch_contents(&remote, &id).await.unwrap();
    };
    runtime.block_on(fetched);
    let refs =
        || git(mirror.path(), &["for-each-ref", "--format=%(refname)", "refs/gastown/modules"]);
    assert_eq!(refs(), format!("refs/gastown/modules/{candidate}/{module}"));
    assert_eq!(lfs_objects(mirror.path(), &oid), None, "the server does not have it");
    fs::create_dir_all(origin.path().join("lfs/objects")).unwrap();
    fs::write(origin.path().join("lfs/objects").join(&oid), "the content\n").unwrap();
    runtime.block_on(mirror.drop_candidate(&id)).unwrap();
    assert_eq!(refs(), "");
    runtime.block_on(mirror.fetch_contents(&remote, &id)).unwrap();
    assert_eq!(lfs_objects(mirror.path(), &oid).unwrap(), "the content\n");

    // As the endpoint serves them: a repository for each commit that is there.
    let place = origin.path().join("-/modules").join(&module);
    git(&dir, &["clone", "-q", "--bare", "lib.git", place.to_str().unwrap()]);
    let mut pod = Pod::new("file:///unused");
    pod.set("GASTOWN_GIT_URL", &http.repository("r")).set("GASTOWN_CANDIDATE", &candidate);
    pod.set("GASTOWN_BASE", &base).set("GASTOWN_TARGET_BRANCH", "main");
    assert_eq!(pod.start("fetch", &["fetch"]).wait(), Some(0), "{}", pod.log("fetch"));
    let repo = pod.repo();
    assert_eq!(fs::read_to_string(repo.join("vendor/lib/lib")).unwrap(), "lib\n");
    assert!(fs::read_dir(repo.join("vendor/gone")).unwrap().next().is_none());
    assert_eq!(fs::read_to_string(repo.join("a.bin")).unwrap(), "the content\n");
}

fn lfs_objects(repo: &Path, oid: &str) -> Option<String> {
    gastown_git::lfs::object_in(repo, oid).map(|file| fs::read_to_string(file).unwrap())
}

fn pointer(content: &str) -> (String, String) {
    let oid = gastown_types::digest::sha256(content);
    let text = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n",
        content.len()
    );
    (oid, text)
}

#[test]
fn large_files_have_their_content_and_new_ones_are_uploaded() {
    assert!(
        git_ok(Path::new("/"), &["lfs", "version"]),
        "git-lfs is missing: apt-get install git-lfs"
    );
    let origin = Origin::new();
    let (oid, text) = pointer("the content\n");
    let attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n";
    let base = commit(&origin, "seed2", &[(".gitattributes", attributes), ("a.bin", &text)]);
    let store = origin.path().join("lfs/objects");
    let (runtime, http) = serve(&folder(&origin), Some(("me", "pw")));
    let mut pod = Pod::new(&http.repository("r"));
    pod.set("GASTOWN_GIT_SECRET", "forge").put("git-creds/username", "me");
    pod.put("git-creds/password", "pw");
    git(&origin.path(), &["config", "http.receivepack", "true"]);
    stops(&pod, InitResult::LfsUnavailable, &["LFS"]);
    fs::create_dir_all(&store).unwrap();
    fs::write(store.join(&oid), "the content\n").unwrap();
    pod.ready();
    let repo = pod.repo();
    assert_eq!(fs::read_to_string(repo.join("a.bin")).unwrap(), "the content\n");
    assert!(!repo.join(".git/lfs/objects").exists(), "the content is stored twice");
    assert!(pod.path("gastown/tools/bin/git-lfs").is_file());
    assert_eq!(git(&repo, &["status", "--porcelain"]), "");

    fs::write(repo.join("b.bin"), "more content\n").unwrap();
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-q", "-m", "more"]);
    let (new_oid, new_text) = pointer("more content\n");
    assert_eq!(git(&repo, &["cat-file", "blob", "HEAD:b.bin"]), new_text.trim());
    let new = git(&repo, &["rev-parse", "HEAD"]);
    let private = pod.path("gastown/private/repo.git");
    git(&private, &["fetch", "-q", repo.to_str().unwrap(), &new]);
    let agents = [gastown_agent::hostile::open_root(&repo.join(".git/lfs/objects")).unwrap()];
    let mut remote = Remote::anonymous(http.repository("r").parse().unwrap());
    remote.credentials = gastown_git::Credentials::Basic {
        username: "me".into(),
        password: gastown_git::Secret::new("pw"),
    };
    let (new, known) = (new.parse().unwrap(), [base.parse().unwrap()]);
    let git = Git::from_env();
    let uploaded =
        runtime.block_on(lfs::upload(&git, &remote, &private, &new, &known, &agents)).unwrap();
    assert_eq!((uploaded.count, uploaded.missing), (1, Vec::new()));
    assert_eq!(fs::read_to_string(store.join(&new_oid)).unwrap(), "more content\n");
    // What is in nobody's folder is reported.
    fs::remove_dir_all(private.join("lfs")).unwrap();
    let uploaded =
        runtime.block_on(lfs::upload(&git, &remote, &private, &new, &known, &[])).unwrap();
    assert_eq!(uploaded.missing.iter().map(|p| p.oid.as_str()).collect::<Vec<_>>(), [new_oid]);
}

#[test]
fn a_repository_with_100_000_refs_is_cloned_without_a_file_for_each() {
    let origin = Origin::new();
    let id = origin.at("main").unwrap();
    let mut text = String::from("# pack-refs with: peeled fully-peeled sorted \n");
    for n in 0..50_000 {
        let _ = writeln!(text, "{id} refs/heads/many/b{n:05}");
    }
    for n in 0..50_000 {
        let _ = writeln!(text, "{id} refs/tags/t{n:05}");
    }
    fs::write(origin.path().join("packed-refs"), text).unwrap();
    let pod = Pod::new(&origin.url());
    pod.ready();
    let tags = git(&pod.repo(), &["tag"]);
    assert_eq!(tags.lines().count(), 50_000);
    let packed = fs::read_to_string(pod.repo().join(".git/packed-refs")).unwrap();
    assert_eq!(packed.lines().filter(|l| l.contains(" refs/tags/t")).count(), 50_000);
    assert!(!pod.repo().join(".git/refs/tags/t00001").exists());
    assert_eq!(git(&pod.repo(), &["describe", "--tags", "--exact-match", "HEAD"]).len(), 6);
}
