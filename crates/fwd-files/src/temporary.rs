//! Temporary files and folders, and how those of dead processes are told from those of living ones.
//!
//! A process holds a lock on each of its own (`flock` on Unix). The system frees a lock when its process ends, however it ends. So what
//! can be locked belongs to nobody any more, also between containers and machines that share a folder, where a process id says nothing.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;
use tempfile::{NamedTempFile, TempDir};

/// How the names of temporary files begin.
const PREFIX: &str = ".tmp";

/// How the names of those begin that are locked, before six letters and digits.
const LOCKED: &str = ".tmp-";

/// How many letters and digits follow.
const N_RANDOM: usize = 6;

/// Older versions locked nothing: what they left is given time.
const GRACE: Duration = Duration::from_secs(3600);

/// Creates a temporary file in a folder that exists; dropping it deletes the file.
///
/// On Unix it has the permissions of an ordinary file, `0o666` without the bits of the umask. (The default of `tempfile`, `0o600`,
/// would hide a renamed file from every other user.) Its name begins with `.tmp`. If its process dies, [`sweep`] deletes it.
///
/// # Errors
/// The system's error if the file cannot be created.
pub fn temporary(dir: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    loop {
        let file = builder.prefix(LOCKED).rand_bytes(N_RANDOM).tempfile_in(dir)?;
        lock(file.as_file());
        if is_still_there(file.path())? {
            return Ok(file);
        }
    }
}

/// A temporary folder; dropping it deletes it with all that it holds.
#[derive(Debug)]
pub struct TemporaryFolder {
    folder: TempDir,
    /// Open as long as the folder is in use; none where the system locks no folders.
    _lock: Option<File>,
}

impl TemporaryFolder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Renames the folder, so that it stays.
    ///
    /// # Errors
    /// The system's error; the folder is deleted then.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        fs::rename(self.folder.path(), path)?;
        let _ = self.folder.keep();
        Ok(())
    }
}

/// Creates a temporary folder in a folder that exists, with the permissions of an ordinary one. If its process dies, [`sweep`]
/// deletes it.
///
/// # Errors
/// The system's error if the folder cannot be created.
pub fn temporary_folder(dir: &Path) -> io::Result<TemporaryFolder> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    loop {
        let folder = builder.prefix(LOCKED).rand_bytes(N_RANDOM).tempdir_in(dir)?;
        let opened = File::open(folder.path()).ok();
        opened.iter().for_each(lock);
        if is_still_there(folder.path())? {
            return Ok(TemporaryFolder { folder, _lock: opened });
        }
    }
}

/// Whether a file of this name was made by [`temporary`]: its name begins with `.tmp`.
///
/// # Examples
/// ```
/// assert!(fwd_files::is_temporary(".tmp-A1b2C3"));
/// assert!(!fwd_files::is_temporary("metrics.tmp"));
/// ```
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Deletes the temporary files and folders in a folder whose processes were killed, but not those of living ones.
///
/// The empty path is the working directory, as the parent of a bare file name. Folders inside are not searched. What cannot be deleted, and a folder that does not exist, is passed over: leftovers only take
/// space.
///
/// # Examples
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// let in_use = fwd_files::temporary(folder)?;
/// // As if this process had died: the file is closed, and stays.
/// let left = fwd_files::temporary(folder)?.into_temp_path().keep()?;
/// fwd_files::sweep(folder);
/// assert!(in_use.path().exists() && !left.exists());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn sweep(dir: &Path) {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(grace) = name.to_str().and_then(grace) else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_file() || kind.is_dir() {
            // What fails only leaves the leftover where it is.
            let _ = delete_abandoned(&entry.path(), kind.is_dir(), grace);
        }
    }
}

/// How long a temporary file of this name is left alone at least; none for another file.
fn grace(name: &str) -> Option<Duration> {
    let is_random = |rest: &str| rest.len() == N_RANDOM && rest.bytes().all(|b| b.is_ascii_alphanumeric());
    let is_ours = |prefix| name.strip_prefix(prefix).is_some_and(is_random);
    if is_ours(LOCKED) { Some(Duration::ZERO) } else { is_ours(PREFIX).then_some(GRACE) }
}

fn delete_abandoned(path: &Path, is_folder: bool, grace: Duration) -> io::Result<()> {
    let file = File::open(path)?;
    // A clock that was set back makes a file young.
    let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
    if age < grace || file.try_lock().is_err() {
        return Ok(());
    }
    // Locked until it is gone: whoever has just made it, and waits for the lock, then sees that it is.
    if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Where the system has no locks, leftovers are not told from files in use, and stay.
fn lock(file: &File) {
    let _ = file.lock();
}

/// Whether nobody took a new file for a leftover before it was locked.
fn is_still_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
