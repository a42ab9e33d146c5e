//! What the program is built with: the commit, for the manifests of runs (`unknown` outside a repository), and the embedded benchmark
//! and model (nothing outside the source tree).

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn commit() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=FWD_BUILD={commit}");
    // The log of HEAD grows with every commit and checkout.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|path| Path::new(path).exists());
    println!("cargo:rerun-if-changed={}", log.as_deref().unwrap_or("build.rs"));
}

/// The files below a folder, ascending.
fn files(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    for path in entries {
        // The cache of features and other hidden files are not part of the assets.
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if is_hidden {
            continue;
        }
        if path.is_dir() { files(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

/// Writes `assets.rs`: a constant of the type `Embedded` that includes all files.
fn assets() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let mut found = Vec::new();
    if root.is_dir() {
        println!("cargo:rerun-if-changed={}", root.display());
        files(&root.canonicalize()?, &mut found)?;
    }
    let root = root.canonicalize().unwrap_or(root);
    let mut hasher = DefaultHasher::new();
    let mut table = String::new();
    for path in &found {
        println!("cargo:rerun-if-changed={}", path.display());
        let name = path.strip_prefix(&root).unwrap_or(path).to_string_lossy().replace('\\', "/");
        (&name, fs::read(path)?).hash(&mut hasher);
        table += &format!("        ({name:?}, include_bytes!({:?})),\n", path.to_string_lossy());
    }
    let hash = hasher.finish();
    let code = format!(
        "/// The embedded benchmark and model.\npub(crate) const ASSETS: fwd_run::assets::Embedded = fwd_run::assets::Embedded {{\n    \
         name: \"{hash:016x}\",\n    files: &[\n{table}    ],\n}};\n"
    );
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&out).join("assets.rs"), code)
}

fn main() -> io::Result<()> {
    commit();
    assets()
}
