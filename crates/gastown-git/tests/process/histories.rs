//! Random pairs of histories, as one stream for `git fast-import`.

use std::collections::BTreeMap;

use proptest::prelude::*;

/// Paths of files: names that rules of attributes match, a folder that can move, a name that is not
/// UTF-8, and one that is a file or a folder.
const PATHS: [&[u8]; 9] = [
    b"CHANGELOG",
    b"a.txt",
    b"b.bat",
    b"c.bin",
    b"dir/d.txt",
    b"dir/e",
    b"dir/sub/f.txt",
    b"na\xefve \xff.txt",
    b"either",
];

/// Rules of `.gitattributes`.
const RULES: [&str; 16] = [
    "CHANGELOG merge=union",
    "*.txt merge=union",
    "*.txt -merge",
    "*.txt merge=binary",
    "*.txt merge=unknown",
    "* merge=union",
    "*.bin binary",
    "*.bin merge=union",
    "[attr]joined merge=union\n*.txt joined",
    "* text=auto",
    "*.txt text",
    "*.bat text eol=crlf",
    "*.txt eol=lf",
    "CHANGELOG -text",
    "CHANGELOG ident",
    "sub/* merge=union",
];

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File { executable: bool, content: Vec<u8> },
    Link(Vec<u8>),
    Submodule(u8),
}

/// A change to a tree. Paths are indices of [`PATHS`].
#[derive(Clone, Debug)]
pub enum Change {
    /// Replaces a line, or appends one.
    Line {
        path: usize,
        line: usize,
        word: u8,
    },
    Insert {
        path: usize,
        line: usize,
        word: u8,
    },
    /// Unix to DOS line ends, or back.
    LineEnds {
        path: usize,
    },
    /// A NUL and a byte that is not UTF-8.
    Bytes {
        path: usize,
        byte: u8,
    },
    NoFinalNewline {
        path: usize,
    },
    Delete {
        path: usize,
    },
    Move {
        path: usize,
        to: u8,
    },
    MoveFolder,
    Mode {
        path: usize,
    },
    Link {
        path: usize,
        to: u8,
    },
    Submodule {
        path: usize,
        commit: u8,
    },
    /// A file becomes a folder with a file.
    Folder {
        path: usize,
    },
    /// Rules for the whole tree, or for the folder `dir`.
    Attributes {
        in_folder: bool,
        rules: Vec<usize>,
    },
}

/// The histories of a source and of the target since their fork.
#[derive(Clone, Debug)]
pub struct Histories {
    root: Vec<Change>,
    ours: Vec<Vec<Change>>,
    theirs: Vec<Vec<Change>>,
    /// This commit of the source is made on the target too.
    picked: Option<usize>,
    /// The source merges the target's first commit after this one of its own.
    merge: Option<usize>,
}

fn change() -> impl Strategy<Value = Change> {
    let path = 0..PATHS.len();
    let edit = (path.clone(), 0..14_usize, 0..3_u8);
    prop_oneof![
        8 => edit.clone().prop_map(|(path, line, word)| Change::Line { path, line, word }),
        8 => edit.prop_map(|(path, line, word)| Change::Insert { path, line, word }),
        1 => path.clone().prop_map(|path| Change::LineEnds { path }),
        1 => (path.clone(), 0..2_u8).prop_map(|(path, byte)| Change::Bytes { path, byte }),
        1 => path.clone().prop_map(|path| Change::NoFinalNewline { path }),
        1 => path.clone().prop_map(|path| Change::Delete { path }),
        2 => (path.clone(), 0..3_u8).prop_map(|(path, to)| Change::Move { path, to }),
        1 => Just(Change::MoveFolder),
        1 => path.clone().prop_map(|path| Change::Mode { path }),
        1 => (path.clone(), 0..2_u8).prop_map(|(path, to)| Change::Link { path, to }),
        1 => (path.clone(), 0..3_u8).prop_map(|(path, commit)| Change::Submodule { path, commit }),
        1 => path.prop_map(|path| Change::Folder { path }),
        2 => attributes(),
    ]
}

fn attributes() -> impl Strategy<Value = Change> {
    let rules = prop::collection::vec(0..RULES.len(), 0..4);
    (prop::bool::weighted(0.3), rules)
        .prop_map(|(in_folder, rules)| Change::Attributes { in_folder, rules })
}

/// Any pair of histories.
pub fn histories() -> impl Strategy<Value = Histories> {
    let commits = || prop::collection::vec(prop::collection::vec(change(), 1..3), 1..4);
    (
        prop::collection::vec(prop_oneof![2 => attributes(), 1 => change()], 0..3),
        commits(),
        commits(),
        prop::option::weighted(0.2, 0..3_usize),
        prop::option::weighted(0.15, 0..3_usize),
    )
        .prop_map(|(root, ours, theirs, picked, merge)| Histories {
            root,
            ours,
            theirs,
            picked,
            merge,
        })
}

type Tree = BTreeMap<Vec<u8>, Entry>;

fn first_tree() -> Tree {
    let file = |path: &[u8]| {
        let title = format!("file {}", String::from_utf8_lossy(path));
        let lines: Vec<String> =
            std::iter::once(title).chain((0..12).map(|i| format!("line {i}"))).collect();
        let end = if path.ends_with(b"bat") { "\r\n" } else { "\n" };
        let mut content = (lines.join(end) + end).into_bytes();
        if path.ends_with(b"bin") {
            content.extend_from_slice(b"\0\xff\n");
        }
        (path.to_vec(), Entry::File { executable: false, content })
    };
    PATHS.iter().map(|path| file(path)).collect()
}

/// Puts an entry, without what is in its way: files above it, and all below it.
fn put(tree: &mut Tree, path: &[u8], entry: Entry) {
    let below = [path, b"/"].concat();
    tree.retain(|other, _| {
        !other.starts_with(&below) && !path.starts_with(&[other.as_slice(), b"/"].concat())
    });
    tree.insert(path.to_vec(), entry);
}

/// The file that was first at the path, wherever it is now.
fn locate(tree: &Tree, path: usize) -> Vec<u8> {
    let path = PATHS[path];
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let found = tree.keys().find(|p| p.ends_with(name));
    found.cloned().unwrap_or_else(|| path.to_vec())
}

fn edit(tree: &mut Tree, path: usize, with: impl FnOnce(&mut Vec<u8>)) {
    let path = locate(tree, path);
    let (executable, mut content) = match tree.get(&path) {
        Some(Entry::File { executable, content }) => (*executable, content.clone()),
        _ => (false, Vec::new()),
    };
    with(&mut content);
    put(tree, &path, Entry::File { executable, content });
}

fn edit_lines(tree: &mut Tree, path: usize, with: impl FnOnce(&mut Vec<Vec<u8>>)) {
    edit(tree, path, |content| {
        let end: &[u8] = if content.windows(2).any(|w| w == b"\r\n") { b"\r\n" } else { b"\n" };
        let mut lines: Vec<Vec<u8>> =
            content.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        with(&mut lines);
        for line in &mut lines {
            if line.last() != Some(&b'\n') {
                line.extend_from_slice(end);
            }
        }
        *content = lines.concat();
    });
}

fn apply(tree: &mut Tree, change: &Change) {
    match change {
        Change::Line { path, line, word } => edit_lines(tree, *path, |lines| {
            let text = format!("word {word}").into_bytes();
            match lines.get_mut(*line) {
                Some(line) => *line = text,
                None => lines.push(text),
            }
        }),
        Change::Insert { path, line, word } => edit_lines(tree, *path, |lines| {
            lines.insert((*line).min(lines.len()), format!("new {word}").into_bytes());
        }),
        Change::LineEnds { path } => edit(tree, *path, |content| {
            let text = content.clone();
            content.clear();
            let is_dos = text.windows(2).any(|w| w == b"\r\n");
            for byte in text {
                match byte {
                    b'\r' if is_dos => {}
                    b'\n' if !is_dos => content.extend_from_slice(b"\r\n"),
                    other => content.push(other),
                }
            }
        }),
        Change::Bytes { path, byte } => edit(tree, *path, |content| {
            content.extend_from_slice(&[0, 0xf0 | byte, b'\n']);
        }),
        Change::NoFinalNewline { path } => edit(tree, *path, |content| {
            while content.last().is_some_and(u8::is_ascii_whitespace) {
                content.pop();
            }
        }),
        Change::Delete { path } => drop(tree.remove(&locate(tree, *path))),
        Change::Move { path, to } => {
            let from = locate(tree, *path);
            let name = from.rsplit(|b| *b == b'/').next().unwrap_or(&from).to_vec();
            let folder: &[u8] = [&b"moved/"[..], b"dir/", b""][usize::from(*to)];
            if let Some(entry) = tree.remove(&from) {
                put(tree, &[folder, &name].concat(), entry);
            }
        }
        Change::MoveFolder => {
            let (inside, outside): (Tree, Tree) =
                std::mem::take(tree).into_iter().partition(|(path, _)| path.starts_with(b"dir/"));
            *tree = outside;
            for (path, entry) in inside {
                put(tree, &[b"folder/", &path[4..]].concat(), entry);
            }
        }
        Change::Mode { path } => {
            if let Some(Entry::File { executable, .. }) = tree.get_mut(&locate(tree, *path)) {
                *executable = !*executable;
            }
        }
        Change::Link { path, to } => {
            let to = if *to == 0 { b"CHANGELOG".to_vec() } else { b"../else\xfe".to_vec() };
            put(tree, &locate(tree, *path), Entry::Link(to));
        }
        Change::Submodule { path, commit } => {
            put(tree, &locate(tree, *path), Entry::Submodule(*commit));
        }
        Change::Folder { path } => {
            let path = [&locate(tree, *path)[..], b"/inner"].concat();
            put(tree, &path, Entry::File { executable: false, content: b"inner\n".to_vec() });
        }
        Change::Attributes { in_folder, rules } => {
            let path: &[u8] = if *in_folder { b"dir/.gitattributes" } else { b".gitattributes" };
            let text: String = rules.iter().flat_map(|rule| [RULES[*rule], "\n"]).collect();
            put(tree, path, Entry::File { executable: false, content: text.into_bytes() });
        }
    }
}

/// Writes commits for `git fast-import`.
#[derive(Default)]
struct Stream {
    text: Vec<u8>,
    marks: usize,
}

impl Stream {
    /// Appends a commit of this tree, and returns its mark.
    fn commit(&mut self, branch: &str, tree: &Tree, parents: &[usize]) -> usize {
        self.marks += 1;
        let mark = self.marks;
        let message = format!("{branch} {mark}");
        let mut put = |bytes: &[u8]| self.text.extend_from_slice(bytes);
        put(format!("commit refs/heads/{branch}\nmark :{mark}\n").as_bytes());
        put(format!("committer Ann Author <ann@example.org> {mark} +0000\n").as_bytes());
        put(format!("data {}\n{message}\n", message.len()).as_bytes());
        for (i, parent) in parents.iter().enumerate() {
            put(format!("{} :{parent}\n", if i == 0 { "from" } else { "merge" }).as_bytes());
        }
        put(b"deleteall\n");
        for (path, entry) in tree {
            let (mode, content) = match entry {
                Entry::File { executable: false, content } => ("100644", content),
                Entry::File { executable: true, content } => ("100755", content),
                Entry::Link(to) => ("120000", to),
                Entry::Submodule(commit) => {
                    let id = format!("{:040x}", usize::from(*commit) + 1);
                    put(format!("M 160000 {id} ").as_bytes());
                    put(path);
                    put(b"\n");
                    continue;
                }
            };
            put(format!("M {mode} inline ").as_bytes());
            put(path);
            put(format!("\ndata {}\n", content.len()).as_bytes());
            put(content);
            put(b"\n");
        }
        mark
    }
}

impl Histories {
    /// Whether the source has a merge.
    pub fn has_merge(&self) -> bool {
        self.merge.is_some_and(|after| after < self.ours.len())
    }

    /// The branches `main` and `work` as a stream for `git fast-import`.
    pub fn stream(&self) -> Vec<u8> {
        let mut stream = Stream::default();
        let mut tree = first_tree();
        self.root.iter().for_each(|change| apply(&mut tree, change));
        let root = stream.commit("main", &tree, &[]);
        let (mut theirs, mut tip, mut first) = (tree.clone(), root, None);
        let picked = self.picked.and_then(|at| self.ours.get(at));
        for changes in self.theirs.iter().chain(picked) {
            for change in changes {
                apply(&mut theirs, change);
            }
            tip = stream.commit("main", &theirs, &[tip]);
            first.get_or_insert((tip, theirs.clone()));
        }
        let mut at = root;
        for (i, changes) in self.ours.iter().enumerate() {
            for change in changes {
                apply(&mut tree, change);
            }
            at = stream.commit("work", &tree, &[at]);
            if let Some((other, theirs)) = &first
                && self.merge == Some(i)
            {
                // Whoever merged took the target's side of some files.
                for (path, entry) in theirs.iter().step_by(2) {
                    put(&mut tree, path, entry.clone());
                }
                at = stream.commit("work", &tree, &[at, *other]);
            }
        }
        stream.text.extend_from_slice(b"done\n");
        stream.text
    }
}
