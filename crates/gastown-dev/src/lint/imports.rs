//! The import graph of each crate's files has no circle: a reader can start at the bottom.
//!
//! A file imports another one when it names something that is defined there, by `use` or by a whole
//! path. Declarations (`mod x;`) and re-exports of a module's own children are no imports, neither is
//! anything in tests. A re-export is followed to where the item is defined.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use syn::visit::{self, Visit};
use syn::{Item, UseTree};

/// Circles that are meant: a registry of adapters knows its adapters, and they know the trait that
/// they implement. Each is the set of files, from the workspace's folder.
const ALLOWED: [&[&str]; 1] = [&[
    "crates/gastown-agent/src/run/adapter.rs",
    "crates/gastown-agent/src/run/claude_code.rs",
    "crates/gastown-agent/src/run/generic.rs",
]];

/// Fails with every circle among the files of a crate of the workspace at `root`, named file by
/// file.
pub fn check(root: &Path) -> Result<()> {
    let mut circles = Vec::new();
    for krate in crates(root)? {
        for entry in ["src/lib.rs", "src/main.rs"] {
            let path = krate.join(entry);
            if path.is_file() {
                circles.extend(circles_of(&Tree::read(root, &path)?));
            }
        }
    }
    circles.retain(|circle| !ALLOWED.iter().any(|allowed| circle.iter().eq(allowed.iter())));
    let shown: Vec<String> = circles.iter().map(|circle| circle.join("\n  ")).collect();
    ensure!(
        circles.is_empty(),
        "files that import each other in a circle (move what they share below both):\n  {}",
        shown.join("\n\n  ")
    );
    Ok(())
}

fn crates(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("crates");
    let listed =
        std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut found: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.extend([root.join("xtask"), root.join("e2e")]);
    found.sort();
    Ok(found)
}

/// A module's path from the crate's root: `["sync", "carrier"]`; the root's is empty.
type ModulePath = Vec<String>;

/// What is known of one module.
#[derive(Default)]
struct Module {
    /// Its file, from the workspace's folder.
    file: String,
    children: BTreeSet<String>,
    /// Names that it hands on, and the path where each comes from.
    reexports: BTreeMap<String, ModulePath>,
    /// Paths that it names, whole from the crate's root.
    named: BTreeSet<ModulePath>,
}

/// The modules of one crate.
#[derive(Default)]
struct Tree(BTreeMap<ModulePath, Module>);

impl Tree {
    fn read(root: &Path, entry: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let folder = entry.parent().unwrap_or(root).to_path_buf();
        tree.add_file(root, entry, &folder, &Vec::new())?;
        Ok(tree)
    }

    /// Reads a file and the files of its child modules, which are in `folder`.
    fn add_file(
        &mut self,
        root: &Path,
        file: &Path,
        folder: &Path,
        path: &ModulePath,
    ) -> Result<()> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let parsed =
            syn::parse_file(&text).with_context(|| format!("parsing {}", file.display()))?;
        let shown = file.strip_prefix(root).unwrap_or(file).display().to_string();
        self.add_items(root, &shown, folder, path, &parsed.items)
    }

    fn add_items(
        &mut self,
        root: &Path,
        file: &str,
        folder: &Path,
        path: &ModulePath,
        items: &[Item],
    ) -> Result<()> {
        let children: BTreeSet<String> = items.iter().filter_map(child_name).collect();
        let mut reader = Reader {
            at: path,
            module: Module { file: file.to_owned(), children, ..Module::default() },
        };
        for item in items {
            reader.visit_item(item);
        }
        self.0.insert(path.clone(), reader.module);
        for item in items {
            let Item::Mod(module) = item else { continue };
            if is_test(&module.attrs) {
                continue;
            }
            let name = module.ident.to_string();
            let inner = folder.join(&name);
            let mut child = path.clone();
            child.push(name.clone());
            if let Some((_, items)) = &module.content {
                self.add_items(root, file, &inner, &child, items)?;
            } else {
                let flat = folder.join(format!("{name}.rs"));
                let file = if flat.is_file() { flat } else { inner.join("mod.rs") };
                self.add_file(root, &file, &inner, &child)?;
            }
        }
        Ok(())
    }

    /// The file that defines what a path names: its longest beginning that is a module, after
    /// re-exports are followed.
    fn file_of(&self, path: &[String]) -> Option<&str> {
        let mut path = path.to_vec();
        for _ in 0..8 {
            let known = (0..=path.len()).rev().find(|n| self.0.contains_key(&path[..*n]))?;
            let module = &self.0[&path[..known]];
            match path.get(known).and_then(|name| module.reexports.get(name)) {
                Some(origin) => {
                    let rest = path.split_off(known + 1);
                    path = origin.iter().cloned().chain(rest).collect();
                }
                None => return Some(&module.file),
            }
        }
        None
    }

    fn graph(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for module in self.0.values() {
            let from = graph.entry(&module.file).or_default();
            let to = module.named.iter().filter_map(|path| self.file_of(path));
            from.extend(to.filter(|to| *to != module.file));
        }
        graph
    }
}

fn child_name(item: &Item) -> Option<String> {
    match item {
        Item::Mod(module) if !is_test(&module.attrs) => Some(module.ident.to_string()),
        _ => None,
    }
}

fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("test")
            || attr.path().is_ident("cfg")
                && attr.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test")
    })
}

/// Collects what one module names.
struct Reader<'a> {
    at: &'a ModulePath,
    module: Module,
}

impl Reader<'_> {
    /// The path from the crate's root that these segments stand for here, if they are of this crate.
    fn whole(&self, segments: &[String]) -> Option<ModulePath> {
        let (first, rest) = segments.split_first()?;
        let mut path = self.at.clone();
        match first.as_str() {
            "crate" => path.clear(),
            "self" => {}
            "super" => {
                path.pop();
                let mut rest = rest;
                while let [next, more @ ..] = rest
                    && next == "super"
                {
                    path.pop();
                    rest = more;
                }
                path.extend(rest.iter().cloned());
                return Some(path);
            }
            child if self.module.children.contains(child) => path.push(child.to_owned()),
            _ => return None,
        }
        path.extend(rest.iter().cloned());
        Some(path)
    }

    fn name(&mut self, segments: &[String]) {
        if let Some(path) = self.whole(segments) {
            self.module.named.insert(path);
        }
    }

    fn use_tree(&mut self, tree: &UseTree, before: &mut Vec<String>, handed_on: bool) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.use_tree(&path.tree, before, handed_on);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(tree, before, handed_on);
                }
            }
            UseTree::Name(name) => self.used(&name.ident.to_string(), None, before, handed_on),
            UseTree::Rename(name) => {
                let known_as = name.rename.to_string();
                self.used(&name.ident.to_string(), Some(known_as), before, handed_on);
            }
            UseTree::Glob(_) if !handed_on => self.name(before),
            UseTree::Glob(_) => {}
        }
    }

    fn used(&mut self, name: &str, alias: Option<String>, before: &[String], handed_on: bool) {
        let mut segments = before.to_vec();
        if name != "self" {
            segments.push(name.to_owned());
        }
        let known_as = alias.or_else(|| segments.last().cloned());
        let Some(path) = self.whole(&segments) else { return };
        let of_a_child = path.len() > self.at.len() && path.starts_with(self.at);
        if handed_on && let Some(known_as) = known_as {
            self.module.reexports.insert(known_as, path.clone());
        }
        if !(handed_on && of_a_child) {
            self.module.named.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attrs: &[syn::Attribute] = match item {
            Item::Mod(_) => return,
            Item::Fn(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attrs) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let handed_on = !matches!(item.vis, syn::Visibility::Inherited);
        self.use_tree(&item.tree, &mut Vec::new(), handed_on);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if path.leading_colon.is_none() && segments.len() > 1 {
            self.name(&segments);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        // Arguments of macros are tokens: paths in them are found by their look.
        let text = called.tokens.to_string().replace(" :: ", "::");
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for word in text.split(|c: char| !is_part(c)).filter(|word| word.contains("::")) {
            let segments: Vec<String> =
                word.split("::").filter(|s| !s.is_empty()).map(str::to_owned).collect();
            self.name(&segments);
        }
        visit::visit_macro(self, called);
    }
}

/// Sets of files of which each reaches each other one.
fn circles_of(tree: &Tree) -> Vec<Vec<String>> {
    let graph = tree.graph();
    let reached = |from: &str| {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut next: Vec<&str> = graph.get(from).into_iter().flatten().copied().collect();
        while let Some(file) = next.pop() {
            if seen.insert(file) {
                next.extend(graph.get(file).into_iter().flatten());
            }
        }
        seen
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|file| (*file, reached(file))).collect();
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    for (file, from) in &reach {
        if from.contains(file) {
            let circle =
                from.iter().filter(|other| reach.get(*other).is_some_and(|r| r.contains(file)));
            circles.insert(circle.map(|file| (*file).to_owned()).collect());
        }
    }
    circles.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        circles_of(&Tree::read(root.path(), &root.path().join("lib.rs")).unwrap())
    }

    #[test]
    fn two_files_that_name_each_other_are_a_circle() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; fn f() { let _ = crate::a::A; }"),
        ]);
        assert_eq!(found, [["a.rs", "b.rs"]]);
    }

    #[test]
    fn a_re_export_is_followed_and_tests_do_not_count() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "mod inner; pub use inner::Inner; use crate::b::B; fn f(_: B) {}"),
            ("a/inner.rs", "pub struct Inner; #[cfg(test)] mod tests { use crate::b::B; }"),
            ("b.rs", "use crate::a::Inner; pub struct B(Inner);"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_child_that_uses_its_parent_which_uses_it_is_a_circle() {
        let found = circles(&[
            ("lib.rs", "mod a;"),
            ("a.rs", "mod inner; pub struct A; fn f() { inner::g() }"),
            ("a/inner.rs", "use super::A; pub fn g() { let _: Option<A> = None; }"),
        ]);
        assert_eq!(found, [["a.rs", "a/inner.rs"]]);
    }

    #[test]
    fn a_path_in_a_macro_counts() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub const A: u8 = 1; fn f() { println!(\"{}\", crate::b::B); }"),
            ("b.rs", "pub const B: u8 = crate::a::A;"),
        ]);
        assert_eq!(found, [["a.rs", "b.rs"]]);
    }
}
