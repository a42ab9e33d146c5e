//! The commands that docs/using.md shows for the sample pictures, with the answers that it shows, and where the pictures come from.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::succeed;
use fwd_data::bench::{Benchmark, Split};
use fwd_data::{ImageLimits, RgbImage};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Each sample picture with the test record of the embedded benchmark whose picture it is: task and number.
const SAMPLES: [(&str, &str, usize); 3] =
    [("shape.png", "attributes", 2), ("word.png", "words", 1), ("umbrella.png", "color", 2)];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The words of a command line; double quotes hold words together.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[test]
fn the_commands_of_the_guide_give_the_answers_that_it_shows() {
    let guide = fs::read_to_string(root().join("docs/using.md")).unwrap();
    let (_, rest) = guide.split_once("## A question about a picture").unwrap();
    let (_, rest) = rest.split_once("```\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let mut n_commands = 0;
    for block in shown.split("$ fwd-prompt ").skip(1) {
        let (line, expected) = block.split_once('\n').unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fwd-prompt"));
        command.args(words(line)).current_dir(root()).env_remove("RUST_LOG");
        assert_eq!(succeed(&mut command).trim_end(), expected.trim_end(), "{line}");
        n_commands += 1;
    }
    assert_eq!(n_commands, SAMPLES.len());
}

/// With the variable `FWD_WRITE_SAMPLES` it writes the pictures anew.
#[test]
fn the_sample_pictures_are_those_of_the_benchmarks_test_records() {
    let bench = Benchmark::open(&root().join("assets/bench")).unwrap();
    for (file, task, number) in SAMPLES {
        let record = bench.task(task).unwrap().split(Split::Test).nth(number).unwrap();
        let decode = |bytes: &[u8]| RgbImage::decode(bytes, file, ImageLimits::default()).unwrap();
        let picture = decode(&bench.image(&record.image).unwrap());
        let path = root().join("assets/samples").join(file);
        if std::env::var_os("FWD_WRITE_SAMPLES").is_some() {
            let (width, height) = (picture.width() as u32, picture.height() as u32);
            image::save_buffer(&path, picture.data(), width, height, image::ColorType::Rgb8).unwrap();
        }
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() < 20_000, "{file}: {} bytes", bytes.len());
        assert_eq!(decode(&bytes), picture, "{file}");
    }
}
