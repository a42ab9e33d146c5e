//! No circle of modules inside a crate: of two modules in one folder, one may use the other, but not both each other, not even through
//! a third. The modules of a folder are compared with each other and with the file of their parent; what their descendants use counts
//! as theirs. A parent that declares and re-exports its children does not use them.

use super::source::{Import, ModulePath, Modules, Place, modules};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One module uses another: where it does so for the first time, and how it names it.
#[derive(Debug, Clone)]
struct Use {
    at: Place,
    path: String,
}

/// The uses between the modules of one folder; the path of the folder's own module stands for its file.
type Graph = BTreeMap<ModulePath, BTreeMap<ModulePath, Use>>;

/// The circles of a crate, one a line. `files` are text by name.
pub(super) fn circles(files: &BTreeMap<String, String>, root_file: &str) -> Vec<String> {
    let modules = modules(files, root_file);
    let mut graphs: BTreeMap<ModulePath, Graph> = BTreeMap::new();
    for (from, to, used) in uses(&modules) {
        let n_common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        let lifted = |path: &ModulePath| path[..path.len().min(n_common + 1)].to_vec();
        let graph = graphs.entry(from[..n_common].to_vec()).or_default();
        let known =
            graph.entry(lifted(&from)).or_default().entry(lifted(&to)).or_insert_with(|| used.clone());
        // The first place, and there the fuller path: an import before the name that it brings.
        let order = |used: &Use| (used.at.clone(), Reverse(used.path.len()));
        if order(&used) < order(known) {
            *known = used;
        }
    }
    let chains = graphs.values().flat_map(chains);
    chains.map(|chain| told(&chain, &modules)).collect()
}

/// Which module with a file of its own uses which other one.
fn uses(modules: &Modules) -> Vec<(ModulePath, ModulePath, Use)> {
    let resolver = Resolver { modules };
    let mut all = Vec::new();
    for (path, module) in modules {
        let from = resolver.owner(path);
        let mut found = |to: ModulePath, names: &[String], at: &Place| {
            if to != from {
                all.push((from.clone(), to, Use { at: at.clone(), path: names.join("::") }));
            }
        };
        for import in module.imports.iter().filter(|import| import.name.is_some()) {
            let Some(target) = resolver.path(path, &import.path) else { continue };
            let to = resolver.owner(target.module());
            // Where the code uses what it re-exports, the code says so itself; so it does with the modules around it.
            let is_facade = import.is_exported && to.starts_with(&from);
            let is_around = matches!(target, Target::Module(_)) && from.starts_with(&to);
            if !is_facade && !is_around {
                found(to, &import.path, &import.at);
            }
        }
        for mention in &module.mentions {
            let Some(target) = resolver.path(path, &mention.path) else { continue };
            let to = resolver.owner(target.module());
            if !(matches!(target, Target::Module(_)) && from.starts_with(&to)) {
                found(to, &mention.path, &mention.at);
            }
        }
    }
    all
}

/// What a path leads to.
enum Target {
    Module(ModulePath),
    /// Something defined in this module.
    Item(ModulePath),
}

impl Target {
    fn module(&self) -> &ModulePath {
        match self {
            Self::Module(path) | Self::Item(path) => path,
        }
    }
}

/// How many imports of imports are followed.
const MAX_DEPTH: usize = 12;

/// Finds where a path leads.
struct Resolver<'a> {
    modules: &'a Modules,
}

impl Resolver<'_> {
    /// The module around `path`, or `path` itself, that has a file of its own.
    fn owner(&self, path: &[String]) -> ModulePath {
        let has_file =
            |n: &usize| self.modules.get(&path[..*n]).is_some_and(|module| !module.files.is_empty());
        path[..(0..=path.len()).rev().find(has_file).unwrap_or(0)].to_vec()
    }

    /// Where `path` leads in the code of the module `from`; `None` if it leads out of the crate.
    fn path(&self, from: &[String], path: &[String]) -> Option<Target> {
        self.from(from, path, MAX_DEPTH)
    }

    fn from(&self, from: &[String], path: &[String], depth: usize) -> Option<Target> {
        let (mut at, mut rest) = (from, path);
        match path.first()?.as_str() {
            "crate" => (at, rest) = (&[], &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while let Some("super") = rest.first().map(String::as_str) {
                    (at, rest) = (&at[..at.len().checked_sub(1)?], &rest[1..]);
                }
            }
            // A name of the file, or else one of a crate outside, of the prelude or of a variable.
            name => return self.named(from, name, &path[1..], depth),
        }
        let Some(name) = rest.first() else { return Some(Target::Module(at.to_vec())) };
        // What no file seems to define comes from a macro.
        self.named(at, name, &rest[1..], depth).or_else(|| {
            let is_import = |import: &Import| import.name.as_ref() == Some(name);
            let is_outside = self.modules.get(at).is_some_and(|module| module.imports.iter().any(is_import));
            (!is_outside).then(|| Target::Item(at.to_vec()))
        })
    }

    /// Where `name` and then `rest` lead in the module `at`; `None` if it has no such name.
    fn named(&self, at: &[String], name: &str, rest: &[String], depth: usize) -> Option<Target> {
        let depth = depth.checked_sub(1)?;
        let module = self.modules.get(at)?;
        let child: ModulePath = at.iter().cloned().chain([name.to_owned()]).collect();
        if self.modules.contains_key(&child) {
            let Some(next) = rest.first() else { return Some(Target::Module(child)) };
            let inside = self.named(&child, next, &rest[1..], depth);
            return Some(inside.unwrap_or(Target::Item(child)));
        }
        if module.definitions.contains(name) {
            return Some(Target::Item(at.to_vec()));
        }
        let has_name = |import: &&Import| import.name.as_deref() == Some(name);
        if let Some(import) = module.imports.iter().find(has_name) {
            let path: Vec<String> = import.path.iter().chain(rest).cloned().collect();
            return self.from(at, &path, depth);
        }
        module.imports.iter().filter(|import| import.name.is_none()).find_map(|import| {
            match self.from(at, &import.path, depth)? {
                Target::Module(source) if source != at => self.named(&source, name, rest, depth),
                _ => None,
            }
        })
    }
}

/// The circles of a graph, each as the modules and uses along it. Every use that lies on a circle is in one of them.
fn chains(graph: &Graph) -> Vec<Vec<(ModulePath, Use)>> {
    let mut covered: BTreeSet<(&ModulePath, &ModulePath)> = BTreeSet::new();
    let mut all = Vec::new();
    for (from, targets) in graph {
        for to in targets.keys() {
            if covered.contains(&(from, to)) {
                continue;
            }
            let Some(back) = shortest(graph, to, from) else { continue };
            let circle: Vec<&ModulePath> = [from].into_iter().chain(back).collect();
            let steps = circle.iter().zip(circle.iter().skip(1));
            covered.extend(steps.clone().map(|(a, b)| (*a, *b)));
            all.push(steps.map(|(a, b)| ((*a).clone(), graph[*a][*b].clone())).collect());
        }
    }
    all
}

/// The shortest way between two modules, both included.
fn shortest<'a>(graph: &'a Graph, from: &'a ModulePath, to: &ModulePath) -> Option<Vec<&'a ModulePath>> {
    let mut before: BTreeMap<&ModulePath, Option<&ModulePath>> = BTreeMap::from([(from, None)]);
    let mut waiting = VecDeque::from([from]);
    while let Some(module) = waiting.pop_front() {
        if module == to {
            let mut way: Vec<&ModulePath> =
                std::iter::successors(Some(module), |module| before[*module]).collect();
            way.reverse();
            return Some(way);
        }
        for next in graph.get(module).into_iter().flat_map(BTreeMap::keys) {
            if !before.contains_key(next) {
                before.insert(next, Some(module));
                waiting.push_back(next);
            }
        }
    }
    None
}

/// A circle in one line.
fn told(chain: &[(ModulePath, Use)], modules: &Modules) -> String {
    let name = |path: &ModulePath| match path.is_empty() {
        // The root has no name; its file does.
        true => modules[path].files[0].rsplit('/').next().unwrap_or_default().to_owned(),
        false => path.join("::"),
    };
    let mut line = String::new();
    for (module, used) in chain {
        let Use { at: Place { file, line: number }, path } = used;
        line += &format!("{} → [{file}:{number} `{path}`] ", name(module));
    }
    line + &name(&chain[0].0)
}

#[cfg(test)]
mod tests {
    use super::circles;
    use std::collections::BTreeMap;

    /// The circles of a crate with these files in `src/`; `lib.rs` is the root.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files: BTreeMap<String, String> =
            files.iter().map(|(name, text)| (format!("src/{name}"), (*text).to_owned())).collect();
        circles(&files, "src/lib.rs")
    }

    /// Whether `text` in `b.rs` makes a circle with `a.rs`, which uses `b`.
    fn closes(text: &str) -> bool {
        let lib = "mod a; mod b; pub use a::{Item, make}; pub use a::Other as Renamed; pub fn own() {}";
        let a = "use crate::b::B; pub struct Item; pub struct Other; pub fn make() {}";
        let b = format!("pub struct B; {text}");
        !found(&[("lib.rs", lib), ("a.rs", a), ("b.rs", &b), ("b/tests.rs", "use crate::a::Item;")])
            .is_empty()
    }

    #[test]
    fn a_circle_is_one_line_with_every_place() {
        let a = "//! A.\nuse crate::b::B;\npub struct A;\n";
        let b = "//! B.\npub struct B;\nfn f() {\n    let _ = crate::a::A;\n    let _ = crate::a::A;\n}\n";
        assert_eq!(
            found(&[("lib.rs", "mod a;\nmod b;\n"), ("a.rs", a), ("b.rs", b)]),
            ["a → [src/a.rs:2 `crate::b::B`] b → [src/b.rs:4 `crate::a::A`] a"]
        );
    }

    #[test]
    fn each_way_to_name_a_module_counts() {
        for text in [
            "use crate::a::Item;",
            "use crate::{std, a::{self, Item}};",
            "use super::a::Item as Renamed;",
            "use {super::{a as other}};",
            "fn f(_: crate::a::Item) {}",
            "fn f() -> Vec<super::a::Item> { vec![] }",
            "use crate::a; fn f() { a::make() }",
            "fn f() { use crate::a::Item; }",
            "macro_rules! m { () => { $crate::a::make() } }",
            "mod inner { use super::super::a::Item; }",
            "use crate::a::*;  fn f() { make() }",
        ] {
            assert!(closes(text), "{text}");
        }
    }

    #[test]
    fn what_the_root_re_exports_comes_from_its_module() {
        assert!(closes("use crate::Item;"));
        assert!(closes("use crate::Renamed;"));
        assert!(closes("fn f() { crate::make() }"));
        assert!(closes("use super::*; fn f() { make() }"));
        assert!(!closes("use crate::own;"));
        assert!(!closes("use super::*; fn f() { own() }"));
    }

    #[test]
    fn nothing_else_counts() {
        for text in [
            "/// [`crate::a::Item`]\n//! use crate::a;\n/* use crate::a::Item; */ // crate::a::Item",
            "const T: &str = \"use crate::a::Item;\"; const R: &str = r#\"crate::a::Item\"#;",
            "#[cfg(test)] mod tests { use crate::a::Item; fn f() { crate::a::make() } }",
            "#[cfg(all(test, unix))] mod tests { use crate::a::Item; }",
            "#[cfg(test)] use crate::a::Item;",
            "#[cfg(test)] mod tests;",
            "#[cfg(test)] #[allow(x)] fn f() -> crate::a::Item { crate::a::Item }",
            "fn f() { let a = 1; a.make(); other::a::Item; ::a::Item; }",
            "pub(in crate::a) fn f() {}",
            "fn f(c: char) -> bool { c == '\"' } // crate::a\nfn g() -> char { '\"' }",
            "use other::Item; fn f() -> Item { Item::make() }",
            "fn make() {} fn f() { make() }",
        ] {
            assert!(!closes(text), "{text}");
        }
    }

    #[test]
    fn code_that_is_no_test_counts_after_one_that_is() {
        assert!(closes("#[cfg(test)] mod tests { fn f() {} } use crate::a::Item;"));
        assert!(closes("#[cfg(test)] use std::fmt; use crate::a::Item;"));
        assert!(closes("#[cfg(not(test))] use crate::a::Item;"));
        assert!(closes("#[cfg(any(test, unix))] use crate::a::Item;"));
    }

    #[test]
    fn declaring_and_re_exporting_children_is_no_use() {
        let child = "use crate::Config; pub struct A; pub fn make(_: Config) {}";
        let lib = |more: &str| format!("mod a; pub use a::{{A, make}}; pub struct Config; {more}");
        assert!(found(&[("lib.rs", &lib("")), ("a.rs", child)]).is_empty());
        let circle = ["lib.rs → [src/lib.rs:1 `A`] a → [src/a.rs:1 `crate::Config`] lib.rs"];
        for more in ["fn f(_: A) {}", "impl Config { fn f() -> A { A } }"] {
            assert_eq!(found(&[("lib.rs", &lib(more)), ("a.rs", child)]), circle, "{more}");
        }
        assert_eq!(found(&[("lib.rs", &lib("fn f() { make(Config) }")), ("a.rs", child)]).len(), 1);
        assert_eq!(found(&[("lib.rs", &lib("use a::A as Mine;")), ("a.rs", child)]).len(), 1);
        assert_eq!(found(&[("lib.rs", &lib("fn f() { a::make(Config) }")), ("a.rs", child)]).len(), 1);
    }

    #[test]
    fn descendants_are_compared_through_the_children_that_hold_them() {
        let lib = ("lib.rs", "mod x; mod y;");
        let x = [("x/mod.rs", "mod deep; pub use deep::D;"), ("x/deep.rs", "use crate::y::Y; pub struct D;")];
        let lines = found(&[lib, x[0], x[1], ("y.rs", "pub struct Y; fn f(_: crate::x::D) {}")]);
        assert_eq!(lines, ["x → [src/x/deep.rs:1 `crate::y::Y`] y → [src/y.rs:1 `crate::x::D`] x"]);
        assert!(found(&[lib, x[0], x[1], ("y.rs", "pub struct Y;")]).is_empty());
    }

    #[test]
    fn a_folder_has_circles_of_its_own() {
        let folder = |b: &'static str| {
            found(&[
                ("lib.rs", "mod x;"),
                ("x.rs", "mod a; mod b; mod c;"),
                ("x/a.rs", "use super::b::B; pub struct A;"),
                ("x/b.rs", b),
                ("x/c.rs", "use crate::x::a::A; pub struct C;"),
            ])
        };
        assert!(folder("pub struct B;").is_empty());
        assert_eq!(
            folder("pub struct B; use super::c::C;"),
            ["x::a → [src/x/a.rs:1 `super::b::B`] x::b → [src/x/b.rs:1 `super::c::C`] x::c → \
              [src/x/c.rs:1 `crate::x::a::A`] x::a"]
        );
    }

    #[test]
    fn siblings_named_through_their_folder_do_not_use_its_file() {
        let files = [
            ("lib.rs", "mod x;"),
            ("x/mod.rs", "mod a; mod b; fn f() { a::make(); b::make() }"),
            ("x/a.rs", "use crate::x; pub fn make() { x::b::make() }"),
            ("x/b.rs", "use super::super::x as folder; pub fn make() {}"),
        ];
        assert!(found(&files).is_empty(), "{:?}", found(&files));
    }

    #[test]
    fn every_circle_is_told_once() {
        let lib = ("lib.rs", "mod a; mod b; mod c;");
        let b = ("b.rs", "use crate::{a::A, c::C}; pub struct B;");
        let lines = found(&[
            lib,
            ("a.rs", "use crate::b::B; pub struct A;"),
            b,
            ("c.rs", "use crate::b::B; pub struct C;"),
        ]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("a →") && lines[1].starts_with("b →"));
    }

    #[test]
    fn a_module_may_have_two_files() {
        let lib = "#[cfg_attr(gpu, path = \"gpu/mod.rs\")]\n#[cfg_attr(not(gpu), path = \"none.rs\")]\nmod device; mod plan;";
        let files = |gpu: &'static str, none: &'static str| {
            found(&[
                ("lib.rs", lib),
                ("gpu/mod.rs", "mod lane;"),
                ("gpu/lane.rs", gpu),
                ("none.rs", none),
                ("plan.rs", "use crate::device::Device;"),
            ])
        };
        assert!(files("", "").is_empty());
        assert_eq!(files("use crate::plan::Plan;", "").len(), 1);
        assert_eq!(files("", "use crate::plan::Plan;").len(), 1);
    }
}
