//! The crates of the workspace, as cargo sees them.

use crate::shell::{command, output};
use anyhow::Result;
use serde::Deserialize;
use std::path::Path;

/// A crate of the workspace, as `cargo metadata` tells it.
#[derive(Debug, Deserialize)]
pub(crate) struct Crate {
    pub(crate) name: String,
    manifest_path: String,
    pub(crate) dependencies: Vec<Dependency>,
    targets: Vec<Target>,
    /// The registries that it may go to: none if it is not published, all if this is missing.
    publish: Option<Vec<String>>,
    pub(crate) description: Option<String>,
    pub(crate) readme: Option<String>,
    pub(crate) keywords: Vec<String>,
    pub(crate) categories: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev` or `build`; a normal one has none.
    kind: Option<String>,
    /// Only dependencies inside of the workspace have one.
    path: Option<String>,
    pub(crate) req: String,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: String,
}

impl Crate {
    /// Reads the output of `cargo metadata --no-deps`.
    pub(crate) fn all(metadata: &str) -> Result<Vec<Self>> {
        #[derive(Deserialize)]
        struct Metadata {
            packages: Vec<Crate>,
        }
        let mut crates = serde_json::from_str::<Metadata>(metadata)?.packages;
        crates.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(crates)
    }

    /// All crates of this workspace. Reads the manifests alone, not the registry.
    pub(crate) fn here() -> Result<Vec<Self>> {
        let args = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
        Self::all(&output(&mut command("cargo", &args))?)
    }

    /// Its folder, as a path from `root`, with a slash at the end.
    pub(crate) fn folder(&self, root: &Path) -> String {
        let folder = Path::new(&self.manifest_path).parent().unwrap_or(root);
        format!("{}/", folder.strip_prefix(root).unwrap_or(folder).display())
    }

    /// The root files of its library and its programs, as paths from `root`.
    pub(crate) fn root_files(&self, root: &Path) -> Vec<String> {
        let targets = self.targets.iter().filter(|target| target.is("lib") || target.is("bin"));
        let paths = targets.map(|target| Path::new(&target.src_path));
        paths.map(|path| path.strip_prefix(root).unwrap_or(path).display().to_string()).collect()
    }

    pub(crate) fn is_published(&self) -> bool {
        self.publish.as_ref().is_none_or(|registries| !registries.is_empty())
    }

    pub(crate) fn is_library(&self) -> bool {
        self.targets.iter().any(|target| target.is("lib"))
    }

    /// Its dependencies on other crates of the workspace.
    pub(crate) fn internal(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies.iter().filter(|dependency| dependency.path.is_some())
    }
}

impl Dependency {
    /// Whether only tests, examples and benchmarks need it.
    pub(crate) fn is_dev(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

impl Target {
    fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|known| known == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::Crate;
    use std::path::Path;

    #[test]
    fn crates_know_where_they_are() {
        let metadata = r#"{ "packages": [{
            "name": "a", "manifest_path": "/w/crates/a/Cargo.toml", "dependencies": [], "keywords": [], "categories": [],
            "targets": [{ "kind": ["lib"], "src_path": "/w/crates/a/src/lib.rs" },
                        { "kind": ["test"], "src_path": "/w/crates/a/tests/t.rs" }]
        }] }"#;
        let a = &Crate::all(metadata).expect("metadata of the right form")[0];
        assert_eq!(a.folder(Path::new("/w")), "crates/a/");
        assert_eq!(a.root_files(Path::new("/w")), ["crates/a/src/lib.rs"]);
        assert!(a.is_library() && a.is_published());
    }
}
