//! `.gitattributes` of the working tree, applied as git applies them when it takes a file in: line
//! endings, `ident`, `working-tree-encoding`. Filters (drivers) are programs and are never run; of
//! Git LFS, whose format is known, the pointer is computed.

use std::io::Read;
use std::path::PathBuf;

use gix::bstr::{BStr, ByteSlice as _};
use gix_attributes::search::{MetadataCollection, Outcome};
use gix_attributes::{Search, StateRef};
use gix_filter::pipeline::convert::{ToGitOutcome, to_worktree};
use gix_glob::pattern::Case;
use sha2::{Digest as _, Sha256};

use crate::hostile;

/// The attributes that apply at the present folder of a walk, and the conversions that they ask for.
pub struct Attributes {
    search: Search,
    collection: MetadataCollection,
    filter: Outcome,
    pipeline: gix_filter::Pipeline,
}

/// What git would have for a file of the working tree.
#[derive(Debug, PartialEq, Eq)]
pub enum Clean {
    /// The file as it is.
    Same,
    /// Other bytes.
    Converted(Vec<u8>),
}

impl Attributes {
    /// No attributes beyond those that git has built in.
    pub fn new(hash: gix::hash::Kind) -> std::io::Result<Self> {
        let mut collection = MetadataCollection::default();
        let mut buffer = Vec::new();
        let search =
            Search::new_globals(std::iter::empty::<PathBuf>(), &mut buffer, &mut collection)?;
        let mut filter = Outcome::default();
        filter.initialize_with_selection(&collection, ["filter"]);
        let options = gix_filter::pipeline::Options {
            crlf_roundtrip_check: gix_filter::pipeline::CrlfRoundTripCheck::Skip,
            ..gix_filter::pipeline::Options::default()
        };
        let pipeline = gix_filter::Pipeline::new(gix_command::Context::default(), hash, options);
        Ok(Self { search, collection, filter, pipeline })
    }

    /// Enters a folder with a `.gitattributes` of this content. `folder` is its path from the root of
    /// the working tree, with a final slash; empty for the root.
    pub fn push(&mut self, folder: &[u8], bytes: &[u8]) {
        let mut source = b"/".to_vec();
        source.extend_from_slice(folder);
        source.extend_from_slice(b".gitattributes");
        let source = PathBuf::from(hostile::name(&source));
        // Macros may be defined at the root only, as in git. Invalid lines are skipped.
        let macros = folder.is_empty();
        let added = self.search.add_patterns_buffer(
            bytes,
            source,
            Some(std::path::Path::new("/")),
            &mut self.collection,
            macros,
        );
        if added.is_err() {
            let empty = self.search.add_patterns_buffer(
                b"",
                PathBuf::from("/.gitattributes"),
                None,
                &mut self.collection,
                false,
            );
            debug_assert!(empty.is_ok());
        }
    }

    /// Leaves the folder that was entered last.
    pub fn pop(&mut self) {
        self.search.pop_pattern_list();
    }

    /// Whether the path's content is kept by Git LFS.
    pub fn is_lfs(&mut self, path: &[u8]) -> bool {
        self.filter.initialize(&self.collection);
        self.search.pattern_matching_relative_path(
            path.as_bstr(),
            Case::Sensitive,
            Some(false),
            &mut self.filter,
        );
        self.filter
            .iter_selected()
            .any(|m| matches!(m.assignment.state, StateRef::Value(v) if v.as_bstr() == "lfs"))
    }

    /// What git would store for the file `bytes` at `path`. `head` is what HEAD has there.
    pub fn clean(&mut self, path: &[u8], bytes: &[u8], head: Option<&[u8]>) -> Clean {
        let Self { search, collection, pipeline, .. } = self;
        let mut matching = |path: &BStr, out: &mut Outcome| {
            out.initialize(collection);
            search.pattern_matching_relative_path(path, Case::Sensitive, Some(false), out);
        };
        // Only for messages and process filters, of which there are none.
        let at = std::path::Path::new(hostile::name(path));
        let mut in_head = |buffer: &mut Vec<u8>| {
            Ok(head.map(|bytes| {
                buffer.clear();
                buffer.extend_from_slice(bytes);
            }))
        };
        let converted = match pipeline.convert_to_git(bytes, at, &mut matching, &mut in_head) {
            Ok(ToGitOutcome::Buffer(converted)) if converted != bytes => converted.to_vec(),
            // An unknown encoding, for one, is an error of git's too; the bytes themselves are saved.
            Ok(_) | Err(_) => return Clean::Same,
        };
        // A blob that was not stored as its attributes want is changed by git only when the file is:
        // an untouched file is what a checkout makes of HEAD's.
        if let Some(head) = head {
            let options = to_worktree::Options {
                can_delay: gix_filter::driver::apply::Delay::Forbid,
                ..to_worktree::Options::default()
            };
            let out = pipeline.convert_to_worktree(head, path.as_bstr(), &mut matching, options);
            let same = match out {
                Ok(to) => to.as_bytes() == Some(bytes),
                Err(_) => false,
            };
            if same {
                return Clean::Converted(head.to_vec());
            }
        }
        Clean::Converted(converted)
    }
}

/// The pointer that Git LFS stores for a file of this content.
pub fn lfs_pointer(mut content: impl Read) -> std::io::Result<Vec<u8>> {
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; 64 << 10]);
    loop {
        let read = content.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
    let oid = hex::encode(hasher.finalize());
    Ok(format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n")
        .into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(root: &str) -> Attributes {
        let mut attributes = Attributes::new(gix::hash::Kind::Sha1).unwrap();
        attributes.push(b"", root.as_bytes());
        attributes
    }

    fn converted(text: &str) -> Clean {
        Clean::Converted(text.as_bytes().to_vec())
    }

    #[test]
    fn line_endings_are_those_that_git_stores() {
        let mut a = attributes("*.bat text eol=crlf\n*.bin -text\n*.txt text=auto\n");
        assert_eq!(a.clean(b"x.bat", b"a\r\nb\r\n", Some(b"a\nb\n")), converted("a\nb\n"));
        assert_eq!(a.clean(b"x.bin", b"a\r\n", None), Clean::Same);
        assert_eq!(a.clean(b"x.txt", b"a\r\n", None), converted("a\n"));
        assert_eq!(a.clean(b"x.txt", b"a\r\n\0", None), Clean::Same, "binary");
        assert_eq!(a.clean(b"x.rs", b"a\r\n", None), Clean::Same, "no attribute, no conversion");
    }

    #[test]
    fn a_file_that_was_stored_against_its_attributes_and_not_touched_is_unchanged() {
        // git stored CRLF although the attribute wants LF; a checkout writes it as it is.
        let mut a = attributes("*.bat text eol=crlf\n");
        let stored = b"a\r\nb\r\n";
        assert_eq!(a.clean(b"x.bat", stored, Some(stored)), converted("a\r\nb\r\n"));
        assert_eq!(a.clean(b"x.bat", b"c\r\n", Some(stored)), converted("c\n"));
    }

    #[test]
    fn ident_and_encodings_are_undone() {
        let mut a = attributes("*.c ident\n*.u16 text working-tree-encoding=UTF-16LE eol=lf\n");
        let id = "$Id: 1234567890123456789012345678901234567890 $\n";
        assert_eq!(a.clean(b"x.c", id.as_bytes(), None), converted("$Id$\n"));
        assert_eq!(a.clean(b"x.u16", b"a\0\n\0", None), converted("a\n"));
        let mut a = attributes("* working-tree-encoding=no-such-one\n");
        assert_eq!(a.clean(b"x", b"a\n", None), Clean::Same);
    }

    #[test]
    fn a_folders_attributes_hold_below_it_and_end_with_it() {
        let mut a = attributes("* text eol=lf\n");
        a.push(b"win/", b"*.x eol=crlf -text\n[attr]evil text\n");
        assert_eq!(a.clean(b"win/a.x", b"a\r\n", None), Clean::Same);
        assert_eq!(a.clean(b"a.x", b"a\r\n", None), converted("a\n"));
        a.pop();
        assert_eq!(a.clean(b"win/a.x", b"a\r\n", None), converted("a\n"));
    }

    #[test]
    fn files_of_git_lfs_are_recognized_and_no_filter_runs() {
        let mut a = attributes("*.psd filter=lfs diff=lfs merge=lfs -text\n*.e filter=evil\n");
        assert!(a.is_lfs(b"art/x.psd") && !a.is_lfs(b"x.e"));
        assert_eq!(a.clean(b"x.e", b"a\n", None), Clean::Same);
        let pointer = String::from_utf8(lfs_pointer(&b"hello\n"[..]).unwrap()).unwrap();
        assert!(pointer.ends_with("size 6\n") && pointer.contains("oid sha256:5891b5b5"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(
            rules in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let mut a = Attributes::new(gix::hash::Kind::Sha1).unwrap();
            a.push(b"", &rules);
            a.push(b"d/", &rules);
            a.clean(b"d/f", &bytes, Some(&bytes));
            a.is_lfs(b"d/f");
            a.pop();
        }
    }
}
