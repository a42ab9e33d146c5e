//! Rules for crates: dependencies point down, and each crate is introduced to those who find it.

use crate::workspace::Crate;
use std::path::Path;

/// The crates of the workspace in layers, the lowest first. A crate may depend on those of lower layers only.
const LAYERS: [&[&str]; 8] = [
    &["fwd-files", "fwd-simd", "fwd-kernels"],
    &["fwd-linalg"],
    &["fwd-ops", "fwd-eval", "fwd-continual"],
    &["fwd-prompt", "fwd-data"],
    &["fwd-adapters"],
    &["fwd-models"],
    &["fwd-run"],
    &["fwd-cli", "fwd-benches", "fwd-fuzz"],
];

/// The crate that builds the others: it has no layer, and none may use it.
const OUTSIDE: &str = "xtask";

/// Where a crate's layer is written down.
const HERE: &str = "LAYERS in xtask/src/tidy/crates.rs";

/// Dependencies that do not point to a lower layer. Those of tests may point anywhere but to the program and to xtask.
pub(super) fn arrows(crates: &[Crate]) -> Vec<String> {
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let mut all = Vec::new();
    for package in crates {
        let from = layer(&package.name);
        if from.is_none() && package.name != OUTSIDE {
            all.push(format!("{}: has no layer yet; add it to {HERE}", package.name));
        }
        for dependency in package.internal() {
            let (name, of) = (&package.name, &dependency.name);
            let is_dev = dependency.is_dev();
            if of == OUTSIDE {
                all.push(format!("{name} -> {of}: no crate may use {of}"));
            } else if is_dev && of == "fwd-cli" {
                all.push(format!("{name} -> {of}: tests of a library must not need the program"));
            } else if let (false, Some(from), Some(to)) = (is_dev, from, layer(of))
                && to >= from
            {
                all.push(format!("{name} (layer {from}) -> {of} (layer {to})"));
            }
        }
    }
    all
}

/// Crates without a README, and libraries without an example. `names` are all files of the repository.
pub(super) fn introductions(crates: &[Crate], root: &Path, names: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for package in crates.iter().filter(|package| package.is_published()) {
        let folder = package.folder(root);
        if !names.contains(&format!("{folder}README.md").as_str()) {
            all.push(format!("{folder}README.md is missing"));
        }
        let examples = format!("{folder}examples/");
        let has_example = names.iter().any(|name| name.starts_with(&examples) && name.ends_with(".rs"));
        if package.is_library() && !has_example {
            all.push(format!("{examples} has no example"));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{arrows, introductions};
    use crate::workspace::Crate;
    use serde_json::{Value, json};
    use std::path::Path;

    /// The metadata of a crate: its name, its folder, `lib` or `bin`, and its dependencies with their kinds.
    fn package(name: &str, folder: &str, target: &str, dependencies: &[(&str, Option<&str>)]) -> Value {
        let dependency = |(name, kind): &(&str, Option<&str>)| json!({ "name": name, "kind": kind, "path": "/w/x", "req": "^0.1.0" });
        json!({
            "name": name,
            "manifest_path": format!("/w/{folder}/Cargo.toml"),
            "dependencies": dependencies.iter().map(dependency).collect::<Vec<_>>(),
            "targets": [{ "kind": [target], "src_path": format!("/w/{folder}/src/{target}.rs") }],
            "publish": if name == "xtask" { Some(Vec::<String>::new()) } else { None },
            "keywords": [],
            "categories": [],
        })
    }

    fn crates(packages: &[Value]) -> Vec<Crate> {
        Crate::all(&json!({ "packages": packages }).to_string()).expect("metadata of the right form")
    }

    /// The one arrow of a crate with one dependency.
    fn arrow(from: &str, to: &str, kind: Option<&str>) -> Vec<String> {
        arrows(&crates(&[package(from, "crates/x", "lib", &[(to, kind)])]))
    }

    #[test]
    fn a_dependency_points_down() {
        for (from, to) in [("fwd-models", "fwd-prompt"), ("fwd-data", "fwd-eval"), ("fwd-run", "fwd-files")] {
            assert!(arrow(from, to, None).is_empty());
            assert_eq!(arrow(to, from, None).len(), 1);
            assert_eq!(arrow(to, from, Some("build")).len(), 1);
        }
        assert_eq!(arrow("fwd-prompt", "fwd-data", None), ["fwd-prompt (layer 3) -> fwd-data (layer 3)"]);
        assert!(arrow("xtask", "fwd-cli", None).is_empty());
    }

    #[test]
    fn tests_may_depend_on_anything_but_the_program() {
        assert!(arrow("fwd-prompt", "fwd-models", Some("dev")).is_empty());
        assert_eq!(arrow("fwd-prompt", "fwd-cli", Some("dev")).len(), 1);
        for kind in [None, Some("dev")] {
            assert_eq!(arrow("fwd-cli", "xtask", kind), ["fwd-cli -> xtask: no crate may use xtask"]);
        }
    }

    #[test]
    fn a_new_crate_is_told_where_it_belongs() {
        assert_eq!(
            arrows(&crates(&[package("fwd-new", "crates/fwd-new", "lib", &[])])),
            ["fwd-new: has no layer yet; add it to LAYERS in xtask/src/tidy/crates.rs"]
        );
    }

    #[test]
    fn each_crate_has_a_readme_and_each_library_an_example() {
        let crates = crates(&[
            package("fwd-linalg", "crates/fwd-linalg", "lib", &[]),
            package("fwd-cli", "crates/fwd-cli", "bin", &[]),
            package("xtask", "xtask", "bin", &[]),
        ]);
        let missing = |names: &[&str]| introductions(&crates, Path::new("/w"), names);
        assert_eq!(
            missing(&[]),
            [
                "crates/fwd-cli/README.md is missing",
                "crates/fwd-linalg/README.md is missing",
                "crates/fwd-linalg/examples/ has no example"
            ]
        );
        let readmes = ["crates/fwd-linalg/README.md", "crates/fwd-cli/README.md"];
        assert_eq!(missing(&readmes).len(), 1);
        assert_eq!(missing(&[readmes[0], readmes[1], "crates/fwd-linalg/examples/data.csv"]).len(), 1);
        assert!(missing(&[readmes[0], readmes[1], "crates/fwd-linalg/examples/one.rs"]).is_empty());
    }
}
