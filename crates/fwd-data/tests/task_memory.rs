//! Files far larger than the memory that reading them may take; alone in their process, so that the peak is theirs.
//!
//! The large one, 2 GB of conversations about 100,000 images, is made, checked and removed by
//!
//! ```text
//! FWD_LARGE_DIR=DIR cargo test -p fwd-data --test task_memory -- --ignored --nocapture
//! ```

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout)] // The large test reports what it measured.

use fwd_data::task::{self, Format, OnBad, TaskSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

/// The most memory that this process has held, in MiB.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// Writes conversations until there are so many bytes, about so many images in turn; the number of conversations.
fn write_conversations(path: &Path, n_bytes: usize, n_images: usize) -> usize {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let (mut n, mut written) = (0, 0);
    let pad = "a word or two ".repeat(30);
    while written < n_bytes {
        let separator = if n == 0 { "[\n" } else { ",\n" };
        let image = n % n_images;
        let record = format!(
            r#"{separator}{{"id":"{n}","image":"big/images/{image}.png","conversations":[{{"from":"human","value":"<image>\nQuestion {n}: {pad}?"}},{{"from":"gpt","value":"answer {n}"}}]}}"#
        );
        file.write_all(record.as_bytes()).unwrap();
        written += record.len();
        n += 1;
    }
    file.write_all(b"\n]\n").unwrap();
    file.into_inner().unwrap().sync_all().unwrap();
    n
}

fn count(path: &Path) -> usize {
    let mut n_read = 0;
    for (i, record) in task::read(path, Some(Format::Llava)).unwrap().enumerate() {
        assert_eq!(record.unwrap().name(), i.to_string());
        n_read += 1;
    }
    n_read
}

#[test]
fn a_file_of_64_mb_is_streamed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.json");
    let n = write_conversations(&path, 64 << 20, 100);
    let before = peak_mib();
    assert_eq!(count(&path), n);
    let grown = peak_mib() - before;
    assert!(grown < 16, "{grown} MiB more for a file of 64 MiB");
}

#[test]
#[ignore = "writes 2.5 GB into FWD_LARGE_DIR"]
fn two_gigabytes_and_100_000_images_take_less_than_one() {
    let parent = std::env::var("FWD_LARGE_DIR").expect("FWD_LARGE_DIR names a folder with 2.5 GB of room");
    let dir = tempfile::tempdir_in(parent).unwrap();
    let images = dir.path().join("big/images");
    fs::create_dir_all(&images).unwrap();
    for i in 0..100_000u32 {
        let shade = |x: u32, y: u32| image::Rgb([(x * 8) as u8, (y * 8) as u8 ^ i as u8, (i >> 8) as u8]);
        image::RgbImage::from_fn(32, 32, shade).save(images.join(format!("{i}.png"))).unwrap();
    }
    let train = dir.path().join("big/train.json");
    let n = write_conversations(&train, 2_000_000_000, 100_000);
    let first = r#"[{"question_id":"1","image":"big/images/0.png","text":"What?","answer":"a"}]"#;
    fs::write(dir.path().join("big/test.json"), first).unwrap();

    let began = Instant::now();
    assert_eq!(count(&train), n);
    println!("read {n} conversations: {:.0} s, peak {} MiB", began.elapsed().as_secs_f64(), peak_mib());
    assert!(peak_mib() < 64);
    let began = Instant::now();
    let report = task::check(&TaskSet::open(dir.path()).unwrap(), OnBad::Refuse).unwrap();
    println!(
        "checked them and their images: {:.0} s, peak {} MiB",
        began.elapsed().as_secs_f64(),
        peak_mib()
    );
    assert_eq!((report.n_records, report.n_images), (n + 1, 100_000));
    assert_eq!(
        (report.unreadable_records.n, report.undecodable_images.n, report.missing_images.n),
        (0, 0, 0)
    );
    assert!(peak_mib() < 1024);
}
