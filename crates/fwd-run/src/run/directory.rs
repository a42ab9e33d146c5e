//! A run directory that this process works in: nobody else may write into it, and what lies there belongs to this run.

use super::manifest::Manifest;
use super::paths::RunPaths;
use crate::files::write_json;
use crate::observer::Observer;
use anyhow::{Context, Result, bail, ensure};
use fwd_simd::{Cpu, Level};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// A run directory that this process holds.
pub struct RunDir<'o> {
    paths: RunPaths,
    lock: File,
    observer: &'o dyn Observer,
    /// The levels of vector instructions that the run has been computed at.
    levels: Vec<String>,
}

impl std::fmt::Debug for RunDir<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunDir").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// Refuses a directory that holds a finished run, before anything is loaded.
///
/// # Errors
/// That says what to do instead.
pub fn refuse_finished(dir: &Path) -> Result<()> {
    let is_finished = RunPaths::new(dir).is_finished();
    ensure!(
        !is_finished,
        "{0} holds a finished run, which is never overwritten; choose another --out, or score it again with `fwd-prompt eval {0}`",
        dir.display()
    );
    Ok(())
}

impl<'o> RunDir<'o> {
    /// Takes a directory for a run: a new one, or one where an unfinished run of the same identity lies.
    ///
    /// # Errors
    /// If the directory cannot be written, is in use, holds a finished run, another run, or something else.
    pub fn open(dir: &Path, manifest: &Manifest, observer: &'o dyn Observer) -> Result<Self> {
        refuse_finished(dir)?;
        let paths = RunPaths::new(dir);
        let path = paths.manifest();
        if dir.is_dir() && !path.exists() {
            let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
            let is_ours = |name: &str| RunPaths::precedes_manifest(name) || fwd_files::is_temporary(name);
            let foreign = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
            if let Some(name) = foreign.into_iter().find(|name| !is_ours(name)) {
                bail!("{} is not empty (`{name}`) and no run directory; choose another --out", dir.display());
            }
        }
        fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the run directory {}", dir.display()))?;
        let lock = take_lock(&paths)?;
        // The process that held the lock until now may have finished the run.
        refuse_finished(dir)?;
        remove_leftovers(dir);
        let mut levels = manifest.machine.levels.clone();
        let mut remark = None;
        if path.exists() {
            let mut kept = Manifest::read(dir)?;
            let [there, here] = [&kept.run, &manifest.run].map(serde_json::to_value);
            let differences = fwd_continual::differences(&there?, &here?);
            ensure!(
                differences.is_empty(),
                "{} holds another run: {}; choose another --out",
                dir.display(),
                differences.join("; ")
            );
            let threads = (kept.machine.threads, manifest.machine.threads);
            if threads.0 != threads.1 {
                tracing::warn!(
                    "the run began with {} threads and goes on with {}: its last digits will not be those of an unbroken run (RAYON_NUM_THREADS sets them)",
                    threads.0,
                    threads.1
                );
            }
            remark = change_of_level(&mut kept, manifest);
            if remark.is_some() {
                write_json(&path, &kept)?;
            }
            levels = kept.machine.levels;
        } else {
            write_json(&path, manifest)?;
        }
        let log = OpenOptions::new().create(true).append(true).open(paths.log());
        let log = log.with_context(|| format!("cannot write {}", paths.log().display()))?;
        observer.log_file(Some(log));
        if let Some(remark) = remark {
            // On the terminal and in the log of the run.
            tracing::warn!("{remark}");
        }
        Ok(Self { paths, lock, observer, levels })
    }

    /// The levels of vector instructions that the run has been computed at, the present one among them.
    pub fn levels(&self) -> &[String] {
        &self.levels
    }

    /// Where its files lie.
    pub fn paths(&self) -> &RunPaths {
        &self.paths
    }
}

impl Drop for RunDir<'_> {
    fn drop(&mut self) {
        self.observer.log_file(None);
        // An empty file says that its process left in order.
        let _ = self.lock.set_len(0);
    }
}

/// Puts the present level of vector instructions into the manifest of a run that was computed at another so far; says so then.
fn change_of_level(kept: &mut Manifest, now: &Manifest) -> Option<String> {
    let now = now.machine.levels.last()?;
    // None is known of a run from before levels were written down.
    let Some(before) = kept.machine.levels.last() else {
        kept.machine.levels.push(now.clone());
        return None;
    };
    if before == now {
        return None;
    }
    let remedy = match before.parse::<Level>().ok().and_then(|level| Cpu::at(level).ok()) {
        Some(cpu) => format!("FWD_CPU={} stays at the former", cpu.level()),
        None => "this processor does not have the former".to_owned(),
    };
    let remark = format!(
        "the run was computed with the vector instructions of the level `{before}` and goes on with those of `{now}`: its last digits \
         will not be those of an unbroken run; {remedy}"
    );
    kept.machine.levels.push(now.clone());
    Some(remark)
}

/// Locks a directory through its file `lock`, which names the process. The system frees a lock when its process ends, however
/// it ends, so a lock that can be taken is free, whatever the file says.
fn take_lock(paths: &RunPaths) -> Result<File> {
    let (dir, path) = (paths.dir(), paths.lock());
    let failed = || format!("cannot write {}", path.display());
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = open.with_context(failed)?;
    let mut holder = String::new();
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let _ = file.read_to_string(&mut holder);
            bail!(
                "{} is in use by another process (id {}); wait for it, or choose another --out",
                dir.display(),
                holder.trim()
            );
        }
        Err(TryLockError::Error(error)) => {
            tracing::warn!("{}: {error}; this folder cannot be guarded against a second run", path.display());
        }
    }
    let _ = file.read_to_string(&mut holder);
    if !holder.trim().is_empty() {
        tracing::info!("process {} has left {} without finishing; going on", holder.trim(), dir.display());
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).with_context(failed)?;
    Ok(file)
}

/// Removes the temporary files of processes that were killed while they wrote one, in all folders.
fn remove_leftovers(dir: &Path) {
    fwd_files::sweep(dir);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_leftovers(&entry.path());
        }
    }
}
