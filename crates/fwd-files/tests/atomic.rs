//! What a file and its folder look like after writing, and after writing that failed.

#![allow(clippy::unwrap_used)]

use fwd_files::{is_temporary, temporary, write_atomically, write_atomically_with};
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
fn the_mode_is_that_of_an_ordinary_file_under_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let [ordinary, written] = ["ordinary", "written"].map(|name| dir.path().join(name));
    fs::write(&ordinary, b"content").unwrap();
    write_atomically(&written, b"content").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&written), mode(&ordinary));
}
