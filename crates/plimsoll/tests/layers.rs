//! Checks that imports between source files follow the order of crates and modules in ARCHITECTURE.md.
//!
//! A file imports another file if a path in its code names an item that the other file defines. Re-exports are followed
//! to the definition. Code under `#[cfg(test)]` is ignored, and a re-export alone is not an import. The environment
//! variable `PLIMSOLL_ROOT` names another checkout to check.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::Ident;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprCall, ImplItemFn, Item, ItemMod, ItemUse, Meta, Token, UseTree, Visibility};

/// The crate whose modules ARCHITECTURE.md lists.
const LAYERED: &str = "plimsoll";

/// The crates of the workspace, each with those that it may depend on.
const CRATES: [(&str, &[&str]); 5] = [
    ("plimsoll-kernels", &[]),
    ("plimsoll-formats", &[]),
    ("plimsoll-stats", &[]),
    ("plimsoll", &["plimsoll-kernels", "plimsoll-formats", "plimsoll-stats"]),
    ("plimsoll-cli", &["plimsoll"]),
];

#[test]
fn imports_follow_the_documented_order() {
    let root = std::env::var_os("PLIMSOLL_ROOT")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), PathBuf::from);
    let graph = graph(&Sources::read(&root));
    assert!(!graph.files.is_empty(), "no source files in {}", root.display());
    let mut problems = cycles(&graph);
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    match layers(&architecture) {
        Some(layers) => problems.extend(violations(&graph, &layers)),
        None => problems.push("ARCHITECTURE.md has no list of layers: a code block after `<!-- layers -->`".to_owned()),
    }
    problems.extend(wrong_dependencies(&manifests(&root)));
    assert!(problems.is_empty(), "problems: {}\n\n{}\n", problems.len(), problems.join("\n\n"));
}

/// Source files by their path in the workspace: `crates/<crate>/src/…`.
struct Sources {
    files: Vec<(PathBuf, String)>,
}

impl Sources {
    fn read(root: &Path) -> Self {
        let mut files = Vec::new();
        let mut paths: Vec<_> = entries(&root.join("crates")).iter().map(|folder| folder.join("src")).collect();
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                paths.extend(entries(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push((path.strip_prefix(root).unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
        files.sort();
        Self { files }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut entries: Vec<_> = read.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

/// The name and the Cargo.toml of each crate.
fn manifests(root: &Path) -> Vec<(String, String)> {
    let read = |folder: PathBuf| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
        Some((folder.file_name()?.to_string_lossy().into_owned(), manifest))
    };
    entries(&root.join("crates")).into_iter().filter_map(read).collect()
}

/// A module's names from the crate down: `["plimsoll", "model", "config"]`.
type ModulePath = Vec<String>;

struct Graph {
    /// Each file and its module.
    files: Vec<(PathBuf, ModulePath)>,
    /// By the importing file, then by line.
    imports: Vec<Import>,
}

struct Import {
    from: usize,
    to: usize,
    line: usize,
    text: String,
}

/// The module of a file, or an inline module.
struct Module {
    file: usize,
    items: HashSet<String>,
    uses: Vec<Use>,
}

/// One name that a `use` item imports, or a glob, which has no name.
struct Use {
    name: Option<String>,
    target: Vec<String>,
    line: usize,
    is_reexport: bool,
}

/// What a path names.
enum Place {
    Module(ModulePath),
    /// An item that this module defines.
    Item(ModulePath),
}

fn graph(sources: &Sources) -> Graph {
    let mut files = Vec::new();
    for (path, text) in &sources.files {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        files.push((path.clone(), module_path(path), parsed.items));
    }
    let test_modules: Vec<_> = files.iter().flat_map(|(_, module, items)| test_modules(module, items)).collect();
    files.retain(|(_, module, _)| !test_modules.iter().any(|test| module.starts_with(test)));

    let mut modules = Modules::default();
    for (file, (_, module, items)) in files.iter().enumerate() {
        modules.add(module.clone(), file, items);
    }
    let mut imports = Vec::new();
    for (file, (_, module, items)) in files.iter().enumerate() {
        let mut collector = Collector { modules: &modules, file, module: module.clone(), imports: Vec::new() };
        items.iter().for_each(|item| collector.visit_item(item));
        collector.imports.sort_by_key(|import| import.line);
        imports.extend(collector.imports);
    }
    Graph { files: files.into_iter().map(|(path, module, _)| (path, module)).collect(), imports }
}

/// The module of `crates/<crate>/src/<module>/<module>.rs`.
fn module_path(file: &Path) -> ModulePath {
    let mut names: Vec<_> = file.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let is_root = names.len() == 4 && ["lib", "main"].contains(&names[3].as_str());
    if is_root || names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    names.remove(2);
    names.remove(0);
    names
}

fn test_modules(module: &[String], items: &[Item]) -> Vec<ModulePath> {
    let of_item = |item: &Item| match item {
        Item::Mod(inner) if is_test(&inner.attrs) => Some(join(module, &inner.ident)),
        _ => None,
    };
    items.iter().filter_map(of_item).collect()
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

fn join(path: &[String], ident: &Ident) -> Vec<String> {
    let mut path = path.to_vec();
    path.push(ident.to_string());
    path
}

/// An item's attributes, and the name that it defines.
fn parts(item: &Item) -> (&[Attribute], Option<&Ident>) {
    match item {
        Item::Const(item) => (&item.attrs, Some(&item.ident)),
        Item::Enum(item) => (&item.attrs, Some(&item.ident)),
        Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
        Item::Impl(item) => (&item.attrs, None),
        Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
        Item::Mod(item) => (&item.attrs, None),
        Item::Static(item) => (&item.attrs, Some(&item.ident)),
        Item::Struct(item) => (&item.attrs, Some(&item.ident)),
        Item::Trait(item) => (&item.attrs, Some(&item.ident)),
        Item::Type(item) => (&item.attrs, Some(&item.ident)),
        Item::Union(item) => (&item.attrs, Some(&item.ident)),
        Item::Use(item) => (&item.attrs, None),
        _ => (&[], None),
    }
}

/// The names that a `use` item imports.
fn uses(item: &ItemUse) -> Vec<Use> {
    let is_reexport = !matches!(item.vis, Visibility::Inherited);
    let mut uses = Vec::new();
    let mut trees = vec![(&item.tree, Vec::new())];
    while let Some((tree, path)) = trees.pop() {
        let line = tree.span().start().line;
        let mut add = |name: Option<String>, target| uses.push(Use { name, target, line, is_reexport });
        match tree {
            UseTree::Path(outer) => trees.push((&outer.tree, join(&path, &outer.ident))),
            UseTree::Group(group) => trees.extend(group.items.iter().map(|tree| (tree, path.clone()))),
            UseTree::Glob(_) => add(None, path),
            UseTree::Name(name) if name.ident == "self" => add(path.last().cloned(), path),
            UseTree::Name(name) => add(Some(name.ident.to_string()), join(&path, &name.ident)),
            UseTree::Rename(name) if name.ident == "self" => add(Some(name.rename.to_string()), path),
            UseTree::Rename(name) => add(Some(name.rename.to_string()), join(&path, &name.ident)),
        }
    }
    uses
}

#[derive(Default)]
struct Modules(HashMap<ModulePath, Module>);

impl Modules {
    fn add(&mut self, path: ModulePath, file: usize, items: &[Item]) {
        let mut module = Module { file, items: HashSet::new(), uses: Vec::new() };
        for item in items.iter().filter(|item| !is_test(parts(item).0)) {
            match item {
                Item::Mod(ItemMod { ident, content: Some((_, items)), .. }) => {
                    self.add(join(&path, ident), file, items);
                }
                Item::Use(item) if item.leading_colon.is_none() => module.uses.extend(uses(item)),
                item => module.items.extend(parts(item).1.map(ToString::to_string)),
            }
        }
        self.0.insert(path, module);
    }

    /// The module or item that a path in a module names. `seen` prevents endless loops over cyclic re-exports.
    fn resolve(&self, module: &[String], path: &[String], seen: &mut HashSet<(ModulePath, String)>) -> Option<Place> {
        let mut module = module.to_vec();
        for (index, name) in path.iter().enumerate() {
            match name.as_str() {
                "crate" => module.truncate(1),
                "super" => module.truncate(module.len().saturating_sub(1)),
                "self" => {}
                name => match self.find(&module, name, seen) {
                    Some(Place::Module(inner)) => module = inner,
                    // The rest of the path are variants and associated items.
                    Some(item) => return Some(item),
                    None if index == 0 => return None,
                    // The item is defined by a macro call.
                    None => return Some(Place::Item(module)),
                },
            }
        }
        Some(Place::Module(module))
    }

    /// The module or item that a name in a module refers to.
    fn find(&self, path: &[String], name: &str, seen: &mut HashSet<(ModulePath, String)>) -> Option<Place> {
        let inner = [path, &[name.to_owned()]].concat();
        if self.0.contains_key(&inner) {
            return Some(Place::Module(inner));
        }
        let module = self.0.get(path)?;
        if module.items.contains(name) {
            return Some(Place::Item(path.to_vec()));
        }
        if !seen.insert((path.to_vec(), name.to_owned())) {
            return None;
        }
        let (globs, named): (Vec<_>, Vec<_>) = module.uses.iter().partition(|found| found.name.is_none());
        let mut named = named.into_iter().filter(|found| found.name.as_deref() == Some(name));
        let found = named.find_map(|found| self.resolve(path, &found.target, seen));
        found.or_else(|| {
            globs.into_iter().find_map(|glob| match self.resolve(path, &glob.target, seen)? {
                Place::Module(target) => self.find(&target, name, seen),
                Place::Item(_) => None,
            })
        })
    }
}

/// Collects what one file imports.
struct Collector<'a> {
    modules: &'a Modules,
    file: usize,
    module: ModulePath,
    imports: Vec<Import>,
}

impl Collector<'_> {
    fn add(&mut self, path: &[String], line: usize, text: String) {
        let place = self.modules.resolve(&self.module, path, &mut HashSet::new());
        if let Some(Place::Module(module) | Place::Item(module)) = place
            && let Some(&Module { file: to, .. }) = self.modules.0.get(&module)
            && to != self.file
        {
            self.imports.push(Import { from: self.file, to, line, text });
        }
    }

    /// Adds a path outside a `use` item, unless it only uses a name that a private `use` item imports.
    fn add_path(&mut self, path: &[String], line: usize, is_call: bool) {
        let [first, rest @ ..] = path else { return };
        let is_import = if ["crate", "self", "super"].contains(&first.as_str()) {
            !rest.is_empty()
        } else {
            // A single lower-case name may be a local variable.
            let may_be_item = !rest.is_empty() || is_call || first.starts_with(char::is_uppercase);
            match self.modules.find(&self.module, first, &mut HashSet::new()) {
                Some(Place::Module(_)) => !rest.is_empty(),
                Some(Place::Item(_)) => may_be_item && !self.has_private_use(first),
                None => false,
            }
        };
        if is_import {
            self.add(path, line, path.join("::"));
        }
    }

    fn has_private_use(&self, name: &str) -> bool {
        let uses = self.modules.0.get(&self.module).map_or(&[][..], |module| &module.uses);
        uses.iter().any(|found| !found.is_reexport && found.name.as_deref() == Some(name))
    }

    /// Adds the paths in the tokens of a macro whose arguments are not expressions, with the line of the macro.
    fn scan(&mut self, tokens: &str, line: usize) {
        let tokens = tokens.replace(" :: ", "::");
        for path in tokens.split(|char: char| !char.is_alphanumeric() && !"_:".contains(char)) {
            let names: Vec<_> = path.split("::").map(str::to_owned).collect();
            if names.len() > 1 {
                self.add_path(&names, line, false);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(parts(item).0) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for found in uses(item) {
            if item.leading_colon.is_none() && !found.is_reexport {
                let star = if found.name.is_none() { "::*" } else { "" };
                self.add(&found.target, found.line, format!("use {}{star}", found.target.join("::")));
            }
        }
    }

    // The path in `pub(in crate::model)` is not an import.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if path.leading_colon.is_none() {
            self.add_path(&names, path.span().start().line, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        if let Expr::Path(function) = &*call.func
            && let Some(name) = function.path.get_ident()
        {
            self.add_path(&join(&[], name), name.span().start().line, true);
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        visit::visit_macro(self, item);
        match item.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
            Ok(expressions) => expressions.iter().for_each(|expression| self.visit_expr(expression)),
            Err(_) => self.scan(&item.tokens.to_string(), item.span().start().line),
        }
    }
}

/// The files that a file imports, directly or through others, each with the last import on a shortest path to it.
type Reached<'a> = BTreeMap<usize, &'a Import>;

fn reached(graph: &Graph, start: usize) -> Reached<'_> {
    let mut reached = Reached::new();
    let mut next = VecDeque::from([start]);
    while let Some(file) = next.pop_front() {
        for import in graph.imports.iter().filter(|import| import.from == file) {
            if let Entry::Vacant(entry) = reached.entry(import.to) {
                entry.insert(import);
                next.push_back(import.to);
            }
        }
    }
    reached
}

/// The sets of files that all import each other, directly or through others, each with a shortest cycle.
fn components(graph: &Graph) -> Vec<(Vec<usize>, Vec<&Import>)> {
    let all: Vec<_> = (0..graph.files.len()).map(|file| reached(graph, file)).collect();
    let mut components: Vec<(Vec<usize>, Vec<&Import>)> = Vec::new();
    for (file, reached) in all.iter().enumerate().filter(|(file, reached)| reached.contains_key(file)) {
        if !components.iter().any(|(files, _)| files.contains(&file)) {
            let files: Vec<_> = reached.keys().copied().filter(|&other| all[other].contains_key(&file)).collect();
            let shortest = files.iter().map(|&file| cycle(&all[file], file)).min_by_key(Vec::len);
            components.push((files, shortest.unwrap_or_default()));
        }
    }
    components
}

/// A shortest cycle from a file to itself.
fn cycle<'a>(reached: &Reached<'a>, start: usize) -> Vec<&'a Import> {
    let mut cycle = vec![reached[&start]];
    while cycle[cycle.len() - 1].from != start {
        cycle.push(reached[&cycle[cycle.len() - 1].from]);
    }
    cycle.reverse();
    cycle
}

/// One message for each set of files that import each other.
fn cycles(graph: &Graph) -> Vec<String> {
    let message = |(files, cycle): (Vec<usize>, Vec<&Import>)| {
        let step = |Import { to, line, text, .. }: &Import| format!(" → {} ({text}, line {line})", name(graph, *to));
        let steps: String = cycle.iter().copied().map(step).collect();
        let (first, of) = (name(graph, cycle[0].from), &graph.files[files[0]].1[0]);
        format!(
            "{of}: {} files import each other, directly or through others. A shortest cycle:\n{first}{steps}",
            files.len()
        )
    };
    components(graph).into_iter().map(message).collect()
}

/// A file's path in the `src` folder of its crate.
fn name(graph: &Graph, file: usize) -> String {
    graph.files[file].0.iter().skip(3).collect::<PathBuf>().display().to_string()
}

/// The list of modules in ARCHITECTURE.md, from the lowest to the highest.
fn layers(architecture: &str) -> Option<Vec<&str>> {
    let mut lines = architecture.lines().skip_while(|line| line.trim() != "<!-- layers -->").skip(1);
    lines.find(|line| !line.trim().is_empty()).filter(|line| line.starts_with("```"))?;
    Some(lines.take_while(|line| !line.starts_with("```")).filter_map(|line| line.split_whitespace().next()).collect())
}

/// Differences between the list and the modules, and imports that violate the order of the list.
fn violations(graph: &Graph, layers: &[&str]) -> Vec<String> {
    let top = |file: usize| graph.files[file].1.get(1).map(String::as_str);
    let files = || (0..graph.files.len()).filter(|&file| graph.files[file].1[0] == LAYERED);
    let modules: BTreeSet<&str> = files().filter_map(top).collect();
    let listed: BTreeSet<&str> = layers.iter().copied().collect();
    let mut messages: Vec<_> = modules
        .difference(&listed)
        .map(|module| format!("ARCHITECTURE.md does not list the module {module}"))
        .collect();
    messages.extend(
        listed.difference(&modules).map(|module| format!("ARCHITECTURE.md lists {module}, which is not a module")),
    );
    if listed.len() < layers.len() {
        messages.push("ARCHITECTURE.md lists a module twice".to_owned());
    }

    let layer = |module| layers.iter().position(|&layer| layer == module);
    for import in graph.imports.iter().filter(|import| graph.files[import.from].1[0] == LAYERED) {
        let Some(from) = top(import.from) else { continue };
        let place = format!("{}:{}: {from}", graph.files[import.from].0.display(), import.line);
        let text = &import.text;
        let Some(to) = top(import.to) else {
            messages.push(format!("{place} imports an item of lib.rs: {text}"));
            continue;
        };
        if let (Some(lower), Some(higher)) = (layer(from), layer(to))
            && lower < higher
        {
            messages.push(format!("{place} (layer {}) imports {to} (layer {}): {text}", lower + 1, higher + 1));
        }
    }
    messages
}

/// Dependencies among the crates of the workspace that [`CRATES`] does not allow.
fn wrong_dependencies(manifests: &[(String, String)]) -> Vec<String> {
    let mut messages = Vec::new();
    for (name, manifest) in manifests {
        let Some((_, allowed)) = CRATES.iter().find(|(known, _)| known == name) else {
            messages.push(format!("{name}: its place among the crates is not in CRATES"));
            continue;
        };
        let is_wrong = |found: &&str| !allowed.contains(found) && manifests.iter().any(|(known, _)| known == found);
        messages.extend(
            dependencies(manifest).into_iter().filter(is_wrong).map(|found| format!("{name} depends on {found}")),
        );
    }
    messages
}

/// The keys of the `dependencies` tables, including those of targets and build scripts.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut table = "";
    let key = |line| {
        if str::starts_with(line, '[') {
            table = line;
            return line.strip_prefix("[dependencies.")?.strip_suffix(']');
        }
        let is_listed = table.ends_with("dependencies]") && !table.ends_with("dev-dependencies]");
        line.split(['.', '=', ' ']).next().filter(|_| is_listed)
    };
    manifest.lines().filter_map(key).collect()
}

/// The graph of an example crate with these files in `src`.
fn example(files: &[(&str, &str)]) -> Graph {
    let place = |(path, text): &(&str, &str)| (Path::new("crates/plimsoll/src").join(path), (*text).to_owned());
    graph(&Sources { files: files.iter().map(place).collect() })
}

/// The imports of an example crate, as `importer imported text`.
fn imports(files: &[(&str, &str)]) -> Vec<String> {
    let graph = example(files);
    let text = |import: &Import| format!("{} {} {}", name(&graph, import.from), name(&graph, import.to), import.text);
    graph.imports.iter().map(text).collect()
}

#[test]
fn a_cycle_of_siblings_is_found() {
    let graph = example(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B;\npub struct A;"),
        ("b.rs", "use crate::c::C;\npub struct B(super::a::A);"),
        ("c.rs", "pub struct C;\nfn f() -> u8 { format!(\"{}\", crate::a::A); 1 }"),
    ]);
    let cycle = "plimsoll: 3 files import each other, directly or through others. A shortest cycle:\n\
                 a.rs → b.rs (use crate::b::B, line 1) → a.rs (super::a::A, line 2)";
    assert_eq!(cycles(&graph), [cycle]);
}

#[test]
fn a_cycle_of_parent_and_child_is_found() {
    let child = ("a/child.rs", "use super::A; pub struct Child; pub fn make() {}");
    for parent in [
        "mod child; use child::Child; pub struct A;",
        "mod child; pub struct A; fn f(_: child::Child) {}",
        "mod child; pub use child::Child; pub struct A(Child);",
        "mod child; pub(crate) use child::*; pub struct A; fn f() { make() }",
        "mod child; pub struct A; fn f() { assert!(matches!(1, child::Child::ONE)); }",
    ] {
        let found = cycles(&example(&[("lib.rs", "mod a;"), ("a/mod.rs", parent), child]));
        assert!(found.len() == 1 && found[0].starts_with("plimsoll: 2 files"), "{parent}: {found:?}");
    }
    // Neither a re-export nor a variable with a module's name is an import.
    let parent = "mod child; pub use child::Child; pub struct A; fn f(child: u8) -> u8 { child }";
    assert!(cycles(&example(&[("lib.rs", "mod a;"), ("a/mod.rs", parent), child])).is_empty());
}

#[test]
fn a_reexport_is_followed_to_the_definition() {
    let found = imports(&[
        ("lib.rs", "mod a; mod b; pub use a::{Thing as Renamed, Other};"),
        ("a/mod.rs", "mod x; mod y; pub use x::Thing; pub use y::*; pub use z::Loop;"),
        ("a/x.rs", "pub struct Thing; pub struct Pair(super::Other, super::y::z::Deep);"),
        ("a/y.rs", "pub struct Other; pub mod z { pub struct Deep; } pub use super::*;"),
        ("b.rs", "use crate::{Renamed, a::{self, Other}}; fn f(_: a::Thing) { crate::Other::new(); a::Missing; }"),
    ]);
    let expected = [
        "a/x.rs a/y.rs super::Other",
        "a/x.rs a/y.rs super::y::z::Deep",
        "b.rs a/y.rs use crate::a::Other",
        "b.rs a/mod.rs use crate::a",
        "b.rs a/x.rs use crate::Renamed",
        "b.rs a/x.rs a::Thing",
        "b.rs a/y.rs crate::Other::new",
        "b.rs a/mod.rs a::Missing",
    ];
    assert_eq!(found, expected);
}

#[test]
fn imports_of_tests_are_ignored() {
    let found = imports(&[
        ("lib.rs", "mod a; mod b; #[cfg(test)] mod tests;"),
        ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; } #[cfg(test)] use crate::b::B as C;"),
        ("b.rs", "pub struct B; impl B { #[cfg(test)] fn f() -> crate::a::A { crate::a::A } }"),
        ("tests.rs", "use crate::a::A;"),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn violations_of_the_order_are_found() {
    let graph = example(&[
        ("lib.rs", "mod high; mod low; mod other; pub struct Root; use high::High;"),
        ("high.rs", "use crate::low::Low; pub struct High;"),
        ("low.rs", "\nuse crate::high::High; pub struct Low(crate::Root);"),
        ("other.rs", ""),
    ]);
    let layers = layers("# Map\n<!-- layers -->\n\n```text\nlow   the first\nhigh\ngone\n```\nmore\n").unwrap();
    let expected = [
        "ARCHITECTURE.md does not list the module other",
        "ARCHITECTURE.md lists gone, which is not a module",
        "crates/plimsoll/src/low.rs:2: low (layer 1) imports high (layer 2): use crate::high::High",
        "crates/plimsoll/src/low.rs:2: low imports an item of lib.rs: crate::Root",
    ];
    assert_eq!(violations(&graph, &layers), expected);
}

#[test]
fn wrong_dependencies_of_crates_are_found() {
    let manifest = |name: &str, tables: &str| (name.to_owned(), tables.to_owned());
    let found = wrong_dependencies(&[
        manifest("plimsoll", "[dependencies]\nplimsoll-kernels.workspace = true\nserde = \"1\""),
        manifest("plimsoll-cli", "[dependencies]\nplimsoll = { path = \"\" }\n\n[dependencies.plimsoll-kernels]"),
        manifest("plimsoll-kernels", "[dev-dependencies]\nplimsoll.workspace = true"),
        manifest("plimsoll-stats", "[target.'cfg(unix)'.dependencies]\nplimsoll.workspace = true"),
    ]);
    assert_eq!(found, ["plimsoll-cli depends on plimsoll-kernels", "plimsoll-stats depends on plimsoll"]);
}
