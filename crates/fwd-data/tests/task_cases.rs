//! Whole sets of tasks as people really have them, each with a fault or a form that was once read wrong, and what is right.

#![allow(clippy::unwrap_used)]

use fwd_data::bench::{Record, Split};
use fwd_data::task::{self, Loaded, OnBad, Remarks, TaskReport, TaskSet, check, check_with, convert};
use std::fs;
use std::path::{Path, PathBuf};

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cases").join(name)
}

/// A copy of a case with one file replaced.
fn changed(name: &str, file: &str, change: impl FnOnce(String) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut todo = vec![case(name)];
    while let Some(path) = todo.pop() {
        let to = dir.path().join(path.strip_prefix(case(name)).unwrap());
        if path.is_dir() {
            fs::create_dir_all(to).unwrap();
            todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            fs::write(to, fs::read(path).unwrap()).unwrap();
        }
    }
    let text = fs::read_to_string(dir.path().join(file)).unwrap();
    fs::write(dir.path().join(file), change(text)).unwrap();
    dir
}

fn records(path: &Path, split: Split) -> Vec<Record> {
    let bench = task::open(path, OnBad::Refuse).unwrap().bench;
    bench.tasks[0].split(split).cloned().collect()
}

fn report(path: &Path, on_bad: OnBad) -> TaskReport {
    check(&TaskSet::open(path).unwrap(), on_bad).unwrap()
}

fn answers(record: &Record) -> Vec<&str> {
    record.answers.iter().map(String::as_str).collect()
}

#[test]
fn images_under_other_keys_are_used() {
    for (name, split) in
        [("images_key", Split::Train), ("images_train", Split::Train), ("key_image_path", Split::Test)]
    {
        for record in records(&case(name), split) {
            assert_eq!(record.image, "t/a.png", "{name}");
        }
        let report = report(&case(name), OnBad::Refuse);
        assert_eq!((report.n_images, report.remarks.as_slice()), (1, [].as_slice()), "{name}: {report}");
    }
}

#[test]
fn records_without_an_image_are_counted() {
    let without = |text: String| text.replace(r#""images": ["a.png"], "#, "").replace("<image>\\n", "");
    let dir = changed("images_train", "T/train.json", without);
    let expected = [Remarks { task: "t".into(), without_image: 4, ..Remarks::default() }];
    let found = report(dir.path(), OnBad::Refuse);
    assert_eq!(found.remarks, expected);
    assert!(
        found.to_string().contains("t: 4 records without an image, for which a grey one stands"),
        "{found}"
    );
    let Loaded { bench, skipped } = task::open(dir.path(), OnBad::Refuse).unwrap();
    assert_eq!((skipped.n_records, skipped.remarks.as_slice()), (0, expected.as_slice()));
    // A packed benchmark knows it, too.
    let packed = dir.path().join("packed");
    convert::to_packed(&bench, &packed).unwrap();
    assert_eq!(task::open(&packed, OnBad::Refuse).unwrap().skipped.remarks, expected);

    // An image that the text does not show.
    let dir = changed("images_train", "T/train.json", |text| text.replace("<image>\\n", ""));
    let remarks = task::open(dir.path(), OnBad::Refuse).unwrap().skipped.remarks;
    assert_eq!(remarks, [Remarks { task: "t".into(), image_without_token: 4, ..Remarks::default() }]);

    // A token without image is an error of each record.
    let dir =
        changed("images_train", "T/train.json", |text| text.replacen(r#""images": ["a.png"], "#, "", 3));
    let message = task::open(dir.path(), OnBad::Refuse).unwrap_err().to_string();
    assert!(
        message.contains("train.json, record 0: the text has `<image>`, but the record has no image"),
        "{message}"
    );
    let Loaded { bench, skipped } = task::open(dir.path(), OnBad::Skip).unwrap();
    assert_eq!((skipped.n_records, bench.tasks[0].split(Split::Train).count()), (3, 1));
    assert_eq!(skipped.remarks, [Remarks { task: "t".into(), token_without_image: 3, ..Remarks::default() }]);
    assert_eq!(report(dir.path(), OnBad::Refuse).tokens_without_image.n, 3);
    assert!(!report(dir.path(), OnBad::Refuse).is_clean());
}

#[test]
fn a_file_that_ends_early_is_an_error_whatever_is_skipped() {
    for on_bad in [OnBad::Refuse, OnBad::Skip] {
        let set = TaskSet::open(&case("cut_json")).unwrap();
        for message in
            [set.load(on_bad).unwrap_err().to_string(), check(&set, on_bad).unwrap_err().to_string()]
        {
            assert!(message.contains("test.json, byte 24593: the file ends inside "), "{message}");
        }
    }
    assert!(task::annotations(&case("cut_json"), "t", Split::Test).is_err());
    // References, too.
    for on_bad in [OnBad::Refuse, OnBad::Skip] {
        let dir = changed("viz_subset", "V/val_coco.json", |text| text[..text.len() - 2].to_owned());
        let message = task::open(dir.path(), on_bad).unwrap_err().to_string();
        assert!(message.contains("val_coco.json, byte ") && message.contains("truncated"), "{message}");
        assert!(task::annotations(dir.path(), "vizwiz", Split::Test).is_err());
    }
}

#[test]
fn a_bad_record_is_named_in_a_line_and_the_rest_is_read() {
    for (name, split, n_good, what) in [
        ("first_surrogate", Split::Test, 1, "test.json, record 0: byte "),
        ("long_name", Split::Test, 2, "has a longer name than a file can have"),
        (
            "b64_img",
            Split::Train,
            0,
            "train.json, record 0, key `image`: this looks like an image in base64: iVBORw0KGgo",
        ),
    ] {
        let message = task::open(&case(name), OnBad::Refuse).unwrap_err().to_string();
        assert!(message.contains(what) && message.len() < 800 && !message.contains('\n'), "{message}");
        let Loaded { bench, skipped } = task::open(&case(name), OnBad::Skip).unwrap();
        assert_eq!((bench.tasks[0].split(split).count(), skipped.n_records), (n_good, 1), "{name}");
        let report = report(&case(name), OnBad::Refuse);
        assert_eq!(report.unreadable_records.n + report.missing_images.n, 1, "{name}: {report}");
        assert!(report.to_string().lines().all(|line| line.len() < 1300), "{report}");
    }
}

#[test]
fn what_nobody_asks_about_does_not_matter() {
    let annotated = task::annotations(&case("viz_subset"), "vizwiz", Split::Test).unwrap();
    let captions: Vec<&str> = annotated.samples.iter().map(|sample| sample.answers[0].as_str()).collect();
    assert_eq!(captions, ["a red box 0", "a red box 1"]);
    assert_eq!(records(&case("viz_subset"), Split::Test).len(), 2);
    // What is asked must have an answer.
    let dir = changed("viz_subset", "V/test.json", |text| text.replace(r#""1""#, r#""2""#));
    let message = task::annotations(dir.path(), "vizwiz", Split::Test).unwrap_err().to_string();
    assert!(message.contains("has no answers for `2`"), "{message}");
}

#[test]
fn rejected_captions_are_left_out_and_counted() {
    let annotated = task::annotations(&case("vizrej"), "cap", Split::Test).unwrap();
    let samples: Vec<_> =
        annotated.samples.iter().map(|sample| (sample.id.as_str(), sample.answers.join("|"))).collect();
    assert_eq!(samples, [("0", "a can of soup on a table".to_owned()), ("1", "a red box of tea".to_owned())]);
    assert_eq!(annotated.left_out, ["2"]);
    let expected =
        Remarks { task: "cap".into(), rejected_captions: 2, rejected_images: 1, ..Remarks::default() };
    assert_eq!(
        task::open(&case("vizrej"), OnBad::Refuse).unwrap().skipped.remarks,
        std::slice::from_ref(&expected)
    );
    assert_eq!(report(&case("vizrej"), OnBad::Refuse).remarks, [expected]);
    // As references of questions.
    let coco = fs::read_to_string(case("vizrej/T/test.json")).unwrap();
    let dir =
        changed("viz_subset", "V/val_coco.json", |_| coco.replace(r#""image_id": 1"#, r#""image_id": 7"#));
    let message = task::annotations(dir.path(), "vizwiz", Split::Test).unwrap_err().to_string();
    assert!(message.contains("has no answers for `1`"), "{message}");
    let dir = changed("viz_subset", "V/val_coco.json", |_| {
        coco.replace(r#""image_id": 2"#, r#""image_id": 1"#)
            .replace("tea\", \"is_precanned\": false", "tea\", \"is_precanned\": true")
    });
    let annotated = task::annotations(dir.path(), "vizwiz", Split::Test).unwrap();
    assert_eq!((annotated.samples.len(), annotated.left_out), (1, vec!["1".to_owned()]));
    assert_eq!(records(dir.path(), Split::Test).len(), 1);
}

#[test]
fn an_empty_caption_among_several_is_left_out_and_counted() {
    let records = records(&case("coco_empty_caption"), Split::Test);
    assert_eq!(answers(&records[0]), ["a box"]);
    let expected = Remarks { task: "cap".into(), empty_captions: 1, ..Remarks::default() };
    assert_eq!(report(&case("coco_empty_caption"), OnBad::Refuse).remarks, [expected]);
    let dir = changed("coco_empty_caption", "T/test.json", |text| text.replace("a box", " "));
    let message = task::open(dir.path(), OnBad::Refuse).unwrap_err().to_string();
    assert!(message.contains("record 0, key `caption`: all captions of the image 1 are empty"), "{message}");
}

#[test]
fn lists_as_text_are_several_answers_or_a_finding() {
    for record in records(&case("csv_answers"), Split::Test) {
        assert_eq!(answers(&record), ["a", "b"]);
    }
    assert_eq!(answers(&records(&case("plist"), Split::Test)[0]), ["red", "crimson"]);
    assert_eq!(report(&case("plist"), OnBad::Refuse).broken_lists.n, 0);
    let dir = changed("plist", "T/test.json", |text| text.replace("', '", "' '"));
    let report = report(dir.path(), OnBad::Refuse);
    assert_eq!(report.broken_lists.n, 1);
    assert!(
        report.broken_lists.first[0].what.ends_with("test.json, record 0: `['red' 'crimson']`"),
        "{report}"
    );
    assert!(!report.is_clean());
}

#[test]
fn conversations_one_a_line_are_read() {
    for (name, n) in [("llava_jsonl", 2), ("jsonl_named_json", 3)] {
        let records = records(&case(name), Split::Train);
        assert_eq!(
            (records.len(), records[0].instruction.as_str(), answers(&records[0])),
            (n, "Q", vec!["A"]),
            "{name}"
        );
    }
}

#[test]
fn a_caller_may_look_at_each_record() {
    let set = TaskSet::open(&case("images_train")).unwrap();
    let mut seen = Vec::new();
    let report = check_with(&set, OnBad::Refuse, &mut |task, split, instruction, answers| {
        seen.push(format!("{task} {split:?} {instruction} {}", answers.join("|")));
        (split == Split::Test).then(|| "the instruction has 600 tokens, more than 512".to_owned())
    })
    .unwrap();
    assert_eq!((seen.len(), seen[0].as_str()), (5, "t Train What color? red"));
    assert_eq!(report.refused_by_model.n, 1);
    let what = &report.refused_by_model.first[0].what;
    assert!(what.ends_with("test.json, record 0: the instruction has 600 tokens, more than 512"), "{what}");
    assert!(!report.is_clean());
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_is_read_as_json_is() {
    for (name, expected) in
        [("images_list", None), ("image_1", None), ("c_zstd", None), ("answers_struct", Some(10))]
    {
        let path = case("parquet").join(name);
        let Loaded { bench, skipped } = task::open(&path, OnBad::Refuse).unwrap();
        assert_eq!((skipped.n_records, skipped.remarks.as_slice()), (0, [].as_slice()), "{name}");
        for record in bench.tasks[0].split(Split::Test) {
            let bytes = bench.image(&record.image).unwrap();
            assert!(
                bytes.starts_with(b"\x89PNG") && bytes.as_ref() == fs::read(path.join("a.png")).unwrap(),
                "{name}"
            );
            if let Some(n) = expected {
                assert_eq!(record.answers.len(), n, "{name}: {:?}", record.answers);
            }
        }
    }
}
