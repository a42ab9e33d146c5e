//! `cargo xtask package`: what `cargo publish` would send to crates.io. Each crate says what crates.io asks for and carries nothing else
//! than itself; the crates that stand on no other one are packed and built from their package, as crates.io would. Nothing is sent.

use crate::shell::{command, output, root, run as execute};
use crate::workspace::Crate;
use anyhow::{Result, ensure};
use std::fs;

/// The largest file that a package may hold, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What a package must hold.
const NEEDED: [&str; 3] = ["LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// What else may lie beside them. cargo writes some of these itself.
const FILES: [&str; 7] = [
    ".cargo_vcs_info.json",
    "Cargo.lock",
    "Cargo.toml",
    "Cargo.toml.orig",
    "CHANGELOG.md",
    "RESOURCES.md",
    "build.rs",
];

/// The folders of a package; two of them are those of the kernels.
const FOLDERS: [&str; 6] = ["src/", "examples/", "tests/", "benches/", "cuda/", "emulation/"];

/// The limit of crates.io for one crate.
const MAX_KEYWORDS: usize = 5;

/// The limit of crates.io, in letters.
const MAX_KEYWORD: usize = 20;

/// Checks the packages of all crates, and then builds those of the lowest.
pub(crate) fn run() -> Result<()> {
    let crates: Vec<Crate> = Crate::here()?.into_iter().filter(Crate::is_published).collect();
    let mut wrong = Vec::new();
    for package in &crates {
        wrong.extend(manifest(package));
        let list = ["package", "--list", "--allow-dirty", "--package", &package.name];
        // Without its README, cargo does not list it at all.
        let listed = match output(&mut command("cargo", &list)) {
            Ok(listed) => listed,
            Err(error) => {
                wrong.push(format!("{}: {error}", package.name));
                continue;
            }
        };
        let folder = root().join(package.folder(&root()));
        // cargo's own files are not there yet; they are small.
        let size = |name: &str| fs::metadata(folder.join(name)).map_or(0, |metadata| metadata.len());
        let files: Vec<(&str, u64)> = listed.lines().map(|name| (name, size(name))).collect();
        wrong.extend(contents(&package.name, &files));
    }
    ensure!(
        wrong.is_empty(),
        "{} things are wrong with the packages:\n  {}",
        wrong.len(),
        wrong.join("\n  ")
    );
    for package in crates.iter().filter(|package| package.internal().next().is_none()) {
        execute(&mut command(
            "cargo",
            &["publish", "--dry-run", "--allow-dirty", "--package", &package.name],
        ))?;
    }
    Ok(())
}

/// What crates.io would miss or refuse in the manifest of a crate.
fn manifest(package: &Crate) -> Vec<String> {
    let name = &package.name;
    let mut wrong = Vec::new();
    for (key, is_there) in [
        ("description", package.description.is_some()),
        ("readme", package.readme.is_some()),
        ("keywords", !package.keywords.is_empty()),
        ("categories", !package.categories.is_empty()),
    ] {
        if !is_there {
            wrong.push(format!("{name}: its Cargo.toml has no `{key}`"));
        }
    }
    if package.keywords.len() > MAX_KEYWORDS {
        wrong.push(format!("{name}: {} keywords, at most {MAX_KEYWORDS}", package.keywords.len()));
    }
    for keyword in package.keywords.iter().filter(|keyword| keyword.len() > MAX_KEYWORD) {
        wrong.push(format!("{name}: keyword `{keyword}` has more than {MAX_KEYWORD} letters"));
    }
    for dependency in package.internal().filter(|dependency| dependency.req == "*") {
        wrong.push(format!(
            "{name}: its dependency {} has no version; give it one in the Cargo.toml of the workspace",
            dependency.name
        ));
    }
    wrong
}

/// What is wrong with the files of a package, given by their names and sizes in bytes.
fn contents(package: &str, files: &[(&str, u64)]) -> Vec<String> {
    let has = |name: &str| files.iter().any(|&(file, _)| file == name);
    let mut wrong: Vec<String> = NEEDED
        .iter()
        .filter(|name| !has(name))
        .map(|name| format!("{package}: {name} is missing; licences are links to those of the repository"))
        .collect();
    for &(name, n_bytes) in files {
        let is_known = NEEDED.contains(&name) || FILES.contains(&name);
        if !is_known && !FOLDERS.iter().any(|folder| name.starts_with(folder)) {
            wrong.push(format!(
                "{package}: {name} does not belong in a package; `exclude` it in its Cargo.toml"
            ));
        }
        if n_bytes > MAX_BYTES {
            wrong.push(format!("{package}: {name} has {n_bytes} bytes, at most {MAX_BYTES}; `exclude` it"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::{contents, manifest};
    use crate::workspace::Crate;
    use serde_json::{Value, json};

    fn package(more: &[(&str, Value)]) -> Crate {
        let mut package = json!({
            "name": "a", "manifest_path": "/w/a/Cargo.toml", "targets": [], "description": "A.", "readme": "README.md",
            "keywords": ["one"], "categories": ["science"],
            "dependencies": [{ "name": "b", "path": "/w/b", "req": "^0.1.0" }],
        });
        for (key, value) in more {
            package[*key] = value.clone();
        }
        let metadata = json!({ "packages": [package] }).to_string();
        Crate::all(&metadata).expect("metadata of the right form").remove(0)
    }

    #[test]
    fn a_manifest_says_what_crates_io_asks_for() {
        assert!(manifest(&package(&[])).is_empty());
        for (key, value) in [
            ("description", Value::Null),
            ("readme", Value::Null),
            ("keywords", json!([])),
            ("categories", json!([])),
            ("keywords", json!(["a", "b", "c", "d", "e", "f"])),
            ("keywords", json!(["more-than-twenty-letters"])),
            ("dependencies", json!([{ "name": "b", "path": "/w/b", "req": "*" }])),
        ] {
            assert_eq!(manifest(&package(&[(key, value.clone())])).len(), 1, "{key}: {value}");
        }
    }

    #[test]
    fn a_package_carries_itself_alone() {
        let needed = [("LICENSE-MIT", 1), ("LICENSE-APACHE", 1), ("README.md", 1)];
        let with = |more: &[(&'static str, u64)]| contents("a", &[&needed, more].concat());
        assert!(with(&[("Cargo.toml", 1), ("src/lib.rs", 1), ("cuda/norm.cu", 1 << 20)]).is_empty());
        assert_eq!(contents("a", &needed[1..]).len(), 1);
        assert_eq!(with(&[("notes.txt", 1)]).len(), 1);
        assert_eq!(with(&[("src/weights.bin", (1 << 20) + 1)]).len(), 1);
    }
}
