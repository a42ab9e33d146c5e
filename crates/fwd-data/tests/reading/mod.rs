//! What a file of records is read as.

#![allow(dead_code, clippy::unwrap_used)] // Each test binary uses a part of this.

use fwd_data::task::{ImageSource, TaskRecord, read};
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tasks").join(name)
}

pub(crate) fn all(path: &Path) -> Vec<TaskRecord> {
    read(path, None).unwrap().map(Result::unwrap).collect()
}

/// The records and the errors, in order, of a file of this content.
pub(crate) fn outcome(name: &str, bytes: &[u8]) -> Vec<Result<TaskRecord, String>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    let strip =
        |error: fwd_data::DataError| error.to_string().replace(&dir.path().display().to_string(), "DIR");
    match read(&path, None) {
        Ok(records) => records.map(|record| record.map_err(strip)).collect(),
        Err(error) => vec![Err(strip(error))],
    }
}

/// The only error.
pub(crate) fn message(name: &str, bytes: &[u8]) -> String {
    let errors: Vec<_> = outcome(name, bytes).into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.into_iter().next().unwrap()
}

/// The first error; of COCO, captions without image may follow.
pub(crate) fn first_error(name: &str, bytes: &[u8]) -> String {
    outcome(name, bytes).into_iter().find_map(Result::err).unwrap()
}

pub(crate) fn image(record: &TaskRecord) -> &str {
    match record.image.as_ref().unwrap() {
        ImageSource::Path(path) => path,
        ImageSource::Bytes(_) => panic!("bytes"),
    }
}
