//! What a file and its folder look like after writing, and after writing that failed.

#![allow(clippy::unwrap_used)]

use fwd_files::{
    is_temporary, read, read_to_string, sweep, temporary, temporary_folder, write_atomically,
    write_atomically_with,
};
use std::ffi::OsString;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::Path;

/// The names of the files in a folder, ascending.
fn names(dir: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn folders_are_created_and_content_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/file");
    for content in [&b"a longer content"[..], b"short", b""] {
        write_atomically(&path, content).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    assert_eq!(names(path.parent().unwrap()), ["file"]);
}

#[test]
fn pieces_arrive_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    // More than the buffer holds, so that it is emptied on the way.
    let pieces: Vec<Vec<u8>> = (0..200u8).map(|i| vec![i; 1000]).collect();
    write_atomically_with(&path, |file| pieces.iter().try_for_each(|piece| file.write_all(piece))).unwrap();
    assert_eq!(fs::read(&path).unwrap(), pieces.concat());
}

#[test]
fn an_older_file_stays_whole_if_writing_fails_half_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    write_atomically(&path, b"older").unwrap();
    let error = write_atomically_with(&path, |file| {
        file.write_all(&[b'x'; 100_000])?;
        Err(Error::from(ErrorKind::StorageFull))
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(fs::read(&path).unwrap(), b"older");
    assert_eq!(names(dir.path()), ["file"]);
}

#[test]
fn while_it_is_written_only_a_temporary_file_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    write_atomically_with(&path, |file| {
        let names = names(dir.path());
        assert!(names.len() == 1 && is_temporary(names[0].to_str().unwrap()), "{names:?}");
        file.write_all(b"content")
    })
    .unwrap();
    assert_eq!(names(dir.path()), ["file"]);
}

#[test]
fn no_temporary_file_is_left_if_the_place_is_taken_by_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("taken");
    fs::create_dir(&path).unwrap();
    assert!(write_atomically(&path, b"content").is_err());
    assert_eq!(names(dir.path()), ["taken"]);
}

#[test]
fn a_dropped_temporary_file_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    drop(temporary(dir.path()).unwrap());
    assert!(names(dir.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn what_dead_processes_left_is_swept_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (file, folder) = (temporary(dir.path()).unwrap(), temporary_folder(dir.path()).unwrap());
    fs::write(folder.path().join("part"), b"x").unwrap();
    // As a process leaves them that is killed: closed, and in their places.
    let left = temporary(dir.path()).unwrap().into_temp_path().keep().unwrap();
    let left_folder = dir.path().join(".tmp-aB3dE6");
    fs::create_dir(&left_folder).unwrap();
    fs::write(left_folder.join("part"), b"x").unwrap();
    // Of an older version, which locked nothing: one that may be in use, and one that is too old for that.
    let [young, old] = [".tmpaB3dE6", ".tmpAb3dE6"].map(|name| dir.path().join(name));
    fs::write(&young, b"x").unwrap();
    let hours_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    fs::File::create(&old).unwrap().set_modified(hours_ago).unwrap();
    // Somebody's own.
    let own = [".tmp-notes-of-mine", ".tmp-ab.txt", "a.tmp"].map(|name| dir.path().join(name));
    own.iter().for_each(|path| fs::write(path, b"x").unwrap());
    sweep(dir.path());
    assert!(file.path().exists() && folder.path().join("part").exists() && young.exists());
    assert!(own.iter().all(|path| path.exists()));
    assert!(!left.exists() && !left_folder.exists() && !old.exists());
    sweep(&dir.path().join("nowhere"));
}

#[test]
fn a_temporary_folder_stays_if_it_is_renamed_and_goes_if_not() {
    let dir = tempfile::tempdir().unwrap();
    let made = temporary_folder(dir.path()).unwrap();
    fs::write(made.path().join("a"), b"content").unwrap();
    made.persist(&dir.path().join("made")).unwrap();
    drop(temporary_folder(dir.path()).unwrap());
    assert_eq!(names(dir.path()), ["made"]);
    assert_eq!(fs::read(dir.path().join("made/a")).unwrap(), b"content");
}

#[cfg(unix)]
#[test]
fn the_mode_is_that_of_an_ordinary_file_under_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let [ordinary, written] = ["ordinary", "written"].map(|name| dir.path().join(name));
    fs::write(&ordinary, b"content").unwrap();
    write_atomically(&written, b"content").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&written), mode(&ordinary));
}

#[test]
fn what_is_no_file_or_too_long_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, b"four").unwrap();
    assert_eq!(read(&path, 4).unwrap(), b"four");
    let error = read(&path, 3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.to_string().contains('4') && error.to_string().contains('3'), "{error}");
    assert_eq!(read(dir.path(), 10).unwrap_err().kind(), ErrorKind::InvalidInput);
    fs::write(&path, b"ab\xff").unwrap();
    assert_eq!(read_to_string(&path, 4).unwrap_err().to_string(), "byte 2 is no UTF-8");
}

#[cfg(unix)]
#[test]
fn a_pipe_and_a_device_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.as_path(), Path::new("/dev/zero")] {
        assert_eq!(read(path, 10).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
