//! Images stay on disk: opening a benchmark takes no more memory for more of them. Alone in its process, so that the peak is its own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use fwd_data::DataError;
use fwd_data::bench::{Benchmark, check};
use fwd_data::task::{OnBad, open};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// The most memory that this process has held, in MiB.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// A small picture with two megabytes behind its end, which count as part of the file.
fn picture(shade: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::GrayImage::from_pixel(8, 8, image::Luma([shade]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let mut bytes = bytes.into_inner();
    bytes.resize(bytes.len() + (2 << 20), shade);
    bytes
}

const N_IMAGES: u8 = 64;
const INDEX: &str = r#"{"version":1,"tasks":[
    {"name":"t","title":"T","stage":"downstream","metric":"exact","synthetic":true,"order":1}]}"#;

fn write_records(dir: &Path, key: impl Fn(u8) -> String) {
    let line = |i: u8| {
        let split = ["train", "val", "test"][usize::from(i) % 3];
        format!(r#"{{"split":"{split}","image":"{}","instruction":"What?","answer":"a"}}"#, key(i)) + "\n"
    };
    fs::create_dir_all(dir.join("tasks")).unwrap();
    fs::write(dir.join("benchmark.json"), INDEX).unwrap();
    fs::write(dir.join("tasks/t.jsonl"), (0..N_IMAGES).map(line).collect::<String>()).unwrap();
}

/// One test, because the peak is that of the whole process.
#[test]
fn neither_loose_nor_packed_images_are_kept_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (loose, packed) = (dir.path().join("loose"), dir.path().join("packed"));
    for folder in [&loose, &packed] {
        fs::create_dir_all(folder.join("a")).unwrap();
        write_records(folder, |i| format!("a/{i:02}.png"));
    }
    let mut pack = File::create(packed.join("a/images.pack")).unwrap();
    pack.write_all(b"FWDPACK1").unwrap();
    for i in 0..N_IMAGES {
        let (key, bytes) = (format!("a/{i:02}.png"), picture(i));
        fs::write(loose.join(&key), &bytes).unwrap();
        pack.write_all(&(key.len() as u16).to_le_bytes()).unwrap();
        pack.write_all(&(bytes.len() as u32).to_le_bytes()).unwrap();
        pack.write_all(key.as_bytes()).unwrap();
        pack.write_all(&bytes).unwrap();
    }
    drop(pack);
    // The layout of others, with paths in the records.
    let coin = dir.path().join("coin");
    fs::create_dir_all(coin.join("T")).unwrap();
    let records = |n: u8| {
        let record =
            |i| format!(r#"{{"question_id":"{i}","image":"a/{i:02}.png","text":"What?","answer":"a"}}"#);
        format!("[{}]", (0..n).map(record).collect::<Vec<_>>().join(","))
    };
    fs::write(coin.join("T/train.json"), records(N_IMAGES)).unwrap();
    fs::write(coin.join("T/test.json"), records(1)).unwrap();
    fs::rename(loose.join("a"), coin.join("a")).unwrap();

    let before = peak_mib();
    let coin = open(&coin, OnBad::Skip).unwrap();
    assert_eq!((coin.bench.n_images(), coin.skipped.n_records), (usize::from(N_IMAGES), 0));
    fs::rename(dir.path().join("coin/a"), loose.join("a")).unwrap();
    let of_files = Benchmark::open(&loose).unwrap();
    let of_pack = Benchmark::open(&packed).unwrap();
    assert_eq!(of_files.hash(), of_pack.hash());
    for bench in [&of_files, &of_pack] {
        for i in 0..N_IMAGES {
            assert!(bench.image(&format!("a/{i:02}.png")).unwrap() == picture(i));
        }
        let report = check(bench, Default::default());
        assert!(report.is_clean(), "{report}");
    }
    let grown = peak_mib() - before;
    assert!(grown < 32, "{grown} MiB more for {} MiB of pictures", 2 * u64::from(N_IMAGES));

    // A pack that shrinks while it is in use.
    File::options().write(true).open(packed.join("a/images.pack")).unwrap().set_len(3 << 20).unwrap();
    assert!(of_pack.image("a/00.png").is_ok());
    match of_pack.image("a/40.png").unwrap_err() {
        DataError::Io { path, source } => {
            assert!(path.ends_with("a/images.pack"));
            assert!(source.to_string().contains("has been cut short"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    assert!(of_pack.content_hash("a/40.png").is_err());
}
