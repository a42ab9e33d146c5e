//! A file whose writing fails half way keeps its older content, and no temporary file is left.
//!
//! `cargo run -p fwd-files --example survives`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // An example shows its result.

use std::fs;
use std::io;

fn main() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("scores.csv");
    fwd_files::write_atomically(&path, b"task,score\nflags,81.5\n")?;
    let failed = fwd_files::write_atomically_with(&path, |file| {
        file.write_all(b"task,sc")?;
        Err(io::Error::other("the computation went wrong"))
    });
    println!("second writing: {failed:?}");
    println!("content: {:?}", fs::read_to_string(&path)?);
    println!("files in the folder: {}", fs::read_dir(folder.path())?.count());
    Ok(())
}
