//! What git, remotes and repositories print, changed at random: nothing panics, and what is believed
//! is of the right form.

use proptest::prelude::*;

const POINTERS: &[&str] = &[
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n",
    "version https://hawser.github.com/spec/v1\next-0-foo sha256:4d\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 0\n",
];
const BATCHES: &[&str] = &[
    "a5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24 blob 3\nabc\na5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24 missing\n",
    "a5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24 blob 18446744073709551615\nabc\n",
];
const TAGS: &[&str] = &[
    "a5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24\trefs/tags/v1\nb5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24\trefs/tags/v1^{}\nc5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24\trefs/tags/v1/a\n",
];
const COMMITS: &[&str] = &[
    "tree a5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24\nparent b5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24\nauthor A <a@b> 1 +0000\ncommitter C <c@d> 1234567890 -0130\nencoding latin1\ngpgsig -----BEGIN\n x\n\nsubject\n\nbody\n",
];
const LISTINGS: &[&str] = &[
    "submodule.lib.path\nvendor/lib\0submodule.lib.url\n../lib.git\0submodule.lib.update\nnone\0submodule.a.b.url\nhttps://host/x\0",
    "160000 commit a5e2ca24d17e2393a5e2ca24d17e2393a5e2ca24\tvendor/lib\x00100644 blob b5\tfile\0",
];
const PUSHES: &[&str] = &[
    "To https://host/x\n!\ta:refs/heads/main\t[rejected] (stale info)\n=\tb:refs/heads/b\t[up to date]\n*\tc:refs/heads/c\t[new branch]\nDone\n",
];
const ERRORS: &[&str] = &[
    "fatal: unable to access 'https://host/x/': the requested url returned error: 403\n",
    "error: rpc failed; http 502 curl 22 the requested url returned error: 502",
    "remote: Counting objects:  42% (1/2), 3 KiB | 1 KiB/s\rReceiving objects: 100% (2/2), done.\nfatal: early EOF\n",
];
const URLS: &[&str] =
    &["../lib.git", "./a/../b", "https://host/a.git", "git@host:a/b", "../../../../x"];

proptest! {
    #[test]
    fn pointers_have_an_id_that_is_a_safe_path(bytes in gastown_fuzz::bytes(POINTERS)) {
        if let Some(pointer) = crate::lfs::Pointer::parse(&bytes) {
            prop_assert!(pointer.oid.len() == 64 && pointer.oid.bytes().all(|b| b.is_ascii_hexdigit()));
            prop_assert_eq!(pointer.path().components().count(), 3);
        }
    }

    #[test]
    fn objects_in_a_batch_are_read_to_its_end(bytes in gastown_fuzz::bytes(BATCHES)) {
        crate::lfs::batch(&bytes);
    }

    #[test]
    fn tags_have_names_that_git_takes(listing in gastown_fuzz::text(TAGS)) {
        for tag in crate::tags::parse(&listing, "refs/tags/") {
            let name = format!("refs/tags/{}", tag.name);
            prop_assert!(gix::refs::FullName::try_from(name.as_str()).is_ok(), "{}", name);
        }
    }

    #[test]
    fn commits_are_read_or_refused(bytes in gastown_fuzz::bytes(COMMITS)) {
        if let Some(commit) = crate::commit::parse(&bytes) {
            prop_assert!(commit.date.iter().all(|b| b.is_ascii_digit() || b" +-".contains(b)));
            prop_assert!(!commit.author.contains(&b'\n'));
        }
        crate::commit::message(&bytes);
        crate::commit::is_by(&bytes, b"C <c@d>");
    }

    #[test]
    fn submodules_have_names_that_stay_below_their_folder(bytes in gastown_fuzz::bytes(LISTINGS)) {
        for (name, _) in crate::submodules::parse(&bytes).values() {
            prop_assert!(!name.split('/').any(|part| matches!(part, "" | "." | ".." | ".git")), "{}", name);
        }
        crate::submodules::gitlinks(&bytes);
    }

    #[test]
    fn urls_of_submodules_resolve_or_do_not(written in gastown_fuzz::text(URLS)) {
        for base in ["https://host/org/repo.git", "git@host:org/repo", "file:///srv/repo"] {
            if let Some(url) = crate::submodules::resolve(base, &written) {
                prop_assert!(url.len() <= base.len() + written.len() + 1);
            }
            let remote = crate::Remote::anonymous(base.parse().unwrap());
            if let Ok(found) = remote.for_submodule(&written) {
                prop_assert!(found.url.scheme() != gastown_types::Scheme::File);
            }
        }
    }

    #[test]
    fn pushes_are_read_line_by_line(text in gastown_fuzz::text(PUSHES)) {
        prop_assert!(crate::push::porcelain(&text).len() <= text.lines().count());
    }

    #[test]
    fn errors_keep_what_is_no_progress(bytes in gastown_fuzz::bytes(ERRORS)) {
        let kept = crate::progress::without_progress(&bytes);
        prop_assert!(kept.len() <= 3 * bytes.len() + 1);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        prop_assert!(crate::error::http_status(&text).is_none_or(|status| (300..600).contains(&status)));
    }

    #[test]
    fn requests_of_gates_are_bounded(bytes in gastown_fuzz::bytes(POINTERS), gzip in any::<bool>()) {
        if let Ok(plain) = crate::serve::decode(&bytes, gzip) {
            prop_assert!(gzip || plain == bytes);
        }
    }
}
