//! Benchmarks that are made from folders of pictures and from tables.

#![allow(clippy::unwrap_used)]

use fwd_data::bench::{Metric, Split};
use fwd_data::task::{self, Init, Made, OnBad, TaskSet, check};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn png(shade: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = image::GrayImage::from_pixel(2, 2, image::Luma([shade]));
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

/// A folder with these pictures, each of a shade of its own.
fn pictures(names: &[String]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, name) in names.iter().enumerate() {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, png(i as u8)).unwrap();
    }
    dir
}

fn options(seed: u64) -> Init {
    Init { seed, test_share: 0.2, question: "What is it?".into() }
}

fn make(path: &Path, seed: u64) -> Result<Made, String> {
    task::init(path, &options(seed)).map_err(|error| error.with_cause())
}

/// Ten pictures of each of two classes, some of them in a deeper folder.
fn classes(below: &str) -> Vec<String> {
    let name = |class: &str, i: usize| match i {
        0..5 => format!("{below}{class}/{i}.png"),
        _ => format!("{below}{class}/more/and/{i}.png"),
    };
    ["cat", "red_panda"].iter().flat_map(|class| (0..10).map(move |i| name(class, i))).collect()
}

fn test_images(dir: &Path) -> BTreeSet<String> {
    let bench = task::open(dir, OnBad::Refuse).unwrap().bench;
    bench.tasks[0].split(Split::Test).map(|record| record.image.clone()).collect()
}

#[test]
fn folders_are_classes() {
    let dir = pictures(&classes(""));
    fs::write(dir.path().join("cat/old.gif"), "GIF").unwrap();
    fs::write(dir.path().join("loose.png"), png(200)).unwrap();
    let made = make(dir.path(), 0).unwrap();
    let task = &made.tasks[0];
    assert_eq!(
        (made.tasks.len(), task.n_classes, task.n_records["train"], task.n_records["test"]),
        (1, Some(2), 16, 4)
    );
    let passed_over: Vec<_> =
        made.passed_over.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(passed_over, ["loose.png", "old.gif"]);
    let report = check(&TaskSet::open(dir.path()).unwrap(), OnBad::Refuse).unwrap();
    assert!(report.is_clean() && report.n_images == 20, "{report}");
    let bench = task::open(dir.path(), OnBad::Refuse).unwrap().bench;
    assert_eq!((bench.tasks[0].metric, bench.tasks[0].order), (Metric::Exact, Some(1)));
    let answers: BTreeSet<&str> =
        bench.tasks[0].split(Split::Test).map(|record| record.answers[0].as_str()).collect();
    assert_eq!(answers, BTreeSet::from(["cat", "red panda"]));
    assert_eq!(bench.tasks[0].records[0].instruction, "What is it?");
    // What is there is not overwritten.
    let before = fs::read(&made.description).unwrap();
    assert!(make(dir.path(), 1).unwrap_err().contains("there is a benchmark already"));
    assert_eq!(fs::read(&made.description).unwrap(), before);
}

#[test]
fn the_seed_draws_the_test() {
    let drawn = |seed| {
        let dir = pictures(&classes(""));
        make(dir.path(), seed).unwrap();
        test_images(dir.path())
            .into_iter()
            .map(|image| image.split_once('/').unwrap().1.to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(drawn(0), drawn(0));
    assert_ne!(drawn(0), drawn(1));
}

#[test]
fn folders_of_classes_are_tasks_and_splits_are_kept() {
    let dir = pictures(&[classes("zoo/"), classes("Farm A/")].concat());
    let made = make(dir.path(), 0).unwrap();
    let names: Vec<&str> = made.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["farm-a", "zoo"]);
    assert!(check(&TaskSet::open(dir.path()).unwrap(), OnBad::Refuse).unwrap().is_clean());

    let dir = pictures(&[classes("train/"), classes("val/")].concat());
    let made = make(dir.path(), 0).unwrap();
    assert_eq!(
        (made.tasks.len(), made.tasks[0].n_records["train"], made.tasks[0].n_records["val"]),
        (1, 20, 20)
    );
}

#[test]
fn a_table_is_a_task_whose_splits_share_no_image() {
    let dir = pictures(&(0..10).map(|i| format!("images/{i}.png")).collect::<Vec<_>>());
    let rows: String = (0..30).map(|i| format!("images/{}.png,What is {i}?,a{i}\n", i % 10)).collect();
    let table = dir.path().join("My Questions.csv");
    fs::write(&table, format!("image,question,answer\n{rows}")).unwrap();
    let made = make(&table, 0).unwrap();
    assert_eq!((made.tasks[0].name.as_str(), made.tasks[0].n_classes), ("my-questions", None));
    assert_eq!((made.tasks[0].n_records["train"], made.tasks[0].n_records["test"]), (24, 6));
    let report = check(&TaskSet::open(dir.path()).unwrap(), OnBad::Refuse).unwrap();
    assert!(report.is_clean() && report.n_images == 10, "{report}");
    fs::write(&table, "image,question,answer\n,Q,A\n").unwrap();
    assert!(make(&table, 0).unwrap_err().contains("record 0, key `image`: is missing"));
}

#[test]
fn what_is_no_benchmark_is_said() {
    let none = tempfile::tempdir().unwrap();
    assert!(make(none.path(), 0).unwrap_err().contains("no PNG, JPEG or WebP pictures in sub-folders"));
    let one = pictures(&["cat/0.png".to_owned(), "cat/1.png".to_owned()]);
    assert!(make(one.path(), 0).unwrap_err().contains("all pictures are of one class"));
    let share = Init { test_share: 1.0, ..options(0) };
    assert!(task::init(one.path(), &share).unwrap_err().to_string().contains("between 0 and 1"));
    assert!(!one.path().join("records").exists() && !one.path().join("tasks.toml").exists());
}
