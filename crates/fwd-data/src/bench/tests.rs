//! Small folders made by hand, sound and damaged.

use super::{Benchmark, CheckReport, ContentHash, Metric, Split, Stage, check};
use crate::task::{OnBad, Skipped};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A PNG of one pixel of the given grey.
fn png(grey: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = image::GrayImage::from_pixel(1, 1, image::Luma([grey]));
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

fn pack(images: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = b"FWDPACK1".to_vec();
    for (key, bytes) in images {
        file.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
        file.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        file.extend(key.as_bytes());
        file.extend(*bytes);
    }
    file
}

const INDEX: &str = r#"{"version":1,"tasks":[
    {"name":"caption","title":"Captions","stage":"pretraining","metric":"rouge-l","synthetic":false},
    {"name":"flags","title":"Flags","stage":"downstream","metric":"exact","synthetic":true,"order":2},
    {"name":"posters","title":"Posters","stage":"downstream","metric":"exact","synthetic":true},
    {"name":"scenes","title":"Scenes","stage":"downstream","metric":"exact","synthetic":true,"order":1}
]}"#;

fn line(split: &str, image: &str, answer: &str) -> String {
    format!(r#"{{"split":"{split}","image":"{image}","instruction":"What?","answer":"{answer}"}}"#)
}

fn three(images: [&str; 3]) -> String {
    let [train, val, test] = images;
    [line("train", train, "a"), line("val", val, "b"), line("test", test, "c")].join("\n") + "\n"
}

/// A sound benchmark: nine images in two packs, `caption` uses `a/*`, the others `b/*`.
fn sound() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let images: Vec<Vec<u8>> = (0..6).map(png).collect();
    let a = [("a/0", &*images[0]), ("a/1", &images[1]), ("a/2", &images[2])];
    let b = [("b/0", &*images[3]), ("b/1", &images[4]), ("b/2", &images[5])];
    write(dir.path(), "a/images.pack", &pack(&a));
    write(dir.path(), "b/images.pack", &pack(&b));
    write(dir.path(), "benchmark.json", INDEX.as_bytes());
    write(dir.path(), "tasks/caption.jsonl", three(["a/0", "a/1", "a/2"]).as_bytes());
    for name in ["flags", "posters", "scenes"] {
        write(dir.path(), &format!("tasks/{name}.jsonl"), three(["b/0", "b/1", "b/2"]).as_bytes());
    }
    dir
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The message for a sound benchmark with one file replaced.
fn refused(name: &str, bytes: &[u8]) -> String {
    let dir = sound();
    write(dir.path(), name, bytes);
    Benchmark::open(dir.path()).unwrap_err().to_string()
}

/// The report for a sound benchmark with one file replaced.
fn reported(name: &str, bytes: &[u8]) -> CheckReport {
    let dir = sound();
    write(dir.path(), name, bytes);
    check(&Benchmark::open(dir.path()).unwrap(), Skipped::default())
}

#[test]
fn a_sound_benchmark_is_read_whole() {
    let dir = sound();
    let bench = Benchmark::open(dir.path()).unwrap();
    let caption = bench.task("caption").unwrap();
    assert_eq!(
        (caption.stage, caption.metric, caption.synthetic),
        (Stage::Pretraining, Metric::RougeL, false)
    );
    let test: Vec<_> = caption.split(Split::Test).collect();
    assert_eq!((test.len(), &*test[0].image, &*test[0].answers), (1, "a/2", &["c".to_owned()][..]));
    assert_eq!(bench.image("b/1").unwrap(), png(4));
    assert_eq!(bench.content_hash("b/1").unwrap(), ContentHash::of(&png(4)));
    assert_eq!(bench.n_images(), 6);
    let names = |tasks: Vec<&super::BenchTask>| tasks.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(bench.sequence()), ["scenes", "flags"]);
    assert_eq!(names(bench.pretraining()), ["caption"]);
    assert!(check(&bench, Skipped::default()).is_clean(), "{}", check(&bench, Skipped::default()));
}

#[test]
fn a_hash_is_shown_in_hexadecimal() {
    // FIPS 180-2, SHA-256 of "abc".
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(ContentHash::of(b"abc").to_string(), expected);
}

#[test]
fn the_hash_of_the_benchmark_sees_every_file() {
    let dir = sound();
    let before = Benchmark::open(dir.path()).unwrap().hash();
    assert_eq!(before, Benchmark::open(dir.path()).unwrap().hash());
    for (name, bytes) in [
        ("tasks/flags.jsonl", three(["b/0", "b/2", "b/1"]).into_bytes()),
        ("benchmark.json", INDEX.replace("Flags", "Banners").into_bytes()),
        ("a/images.pack", pack(&[("a/0", &png(9)), ("a/1", &png(1)), ("a/2", &png(2))])),
    ] {
        let dir = sound();
        write(dir.path(), name, &bytes);
        assert_ne!(Benchmark::open(dir.path()).unwrap().hash(), before, "{name}");
    }
}

#[test]
fn several_answers_are_read() {
    let dir = sound();
    let text = three(["a/0", "a/1", "a/2"]).replacen(r#""answer":"a""#, r#""answers":["a","one a"]"#, 1);
    write(dir.path(), "tasks/caption.jsonl", text.as_bytes());
    let bench = Benchmark::open(dir.path()).unwrap();
    assert_eq!(bench.tasks[0].records[0].answers, ["a", "one a"]);
}

#[test]
fn damaged_packs_are_refused() {
    let (one, two) = (png(1), png(2));
    let whole = pack(&[("a/0", &one), ("a/1", &two)]);
    let message = refused("a/images.pack", b"FWDPACK2");
    assert!(message.contains("a/images.pack") && message.contains("FWDPACK1"), "{message}");
    // A cut at any byte is either between two records or found out.
    for n_bytes in 8..whole.len() {
        let dir = sound();
        write(dir.path(), "a/images.pack", &whole[..n_bytes]);
        let message = Benchmark::open(dir.path()).unwrap_err().to_string();
        let between = n_bytes == 8 || n_bytes == 8 + 6 + 3 + one.len();
        assert_eq!(message.contains("truncated"), !between, "{n_bytes}: {message}");
    }
    assert!(refused("a/images.pack", &whole[..whole.len() - 1]).contains("the image `a/1`"));
    let twice = refused("a/images.pack", &pack(&[("a/0", &one), ("a/0", &two)]));
    assert!(twice.contains("`a/0` is there twice"), "{twice}");
    let unsorted = refused("a/images.pack", &pack(&[("a/1", &one), ("a/0", &two)]));
    assert!(unsorted.contains("must ascend"), "{unsorted}");
    let foreign = refused("a/images.pack", &pack(&[("b/0", &one)]));
    assert!(foreign.contains("another folder"), "{foreign}");
    let mut not_utf8 = pack(&[("a/0", &one)]);
    not_utf8[14] = 0xff;
    assert!(refused("a/images.pack", &not_utf8).contains("not UTF-8"));
}

#[test]
fn damaged_records_are_refused_with_their_line() {
    let good = three(["a/0", "a/1", "a/2"]);
    let with = |line: &str| refused("tasks/caption.jsonl", format!("{good}{line}\n").as_bytes());
    for (bad, reason) in [
        ("{", "EOF"),
        (&*line("dev", "a/0", "x"), "unknown variant `dev`"),
        (&*line("train", "a/0", " "), "answer about the image `a/0` is empty"),
        (&*line("train", "a/7", "x"), "there is no image `a/7`"),
        (&*line("train", "c/0", "x"), "there is no image `c/0`"),
        (&*line("train", "a/0", "x").replace("What?", ""), "instruction about the image `a/0` is empty"),
        (&*line("train", "a/0", "x").replace(r#""answer":"x""#, r#""answers":[]"#), "is empty"),
        (&*line("train", "a/0", "x").replace(r#","answer":"x""#, ""), "either `answer` or `answers`"),
        (&*line("train", "a/0", "x").replace("answer", "reply"), "unknown field `reply`"),
    ] {
        let message = with(bad);
        assert!(message.contains("caption.jsonl, line 4: ") && message.contains(reason), "{bad}: {message}");
    }
    assert!(refused("tasks/caption.jsonl", b"\n").contains("has no records"));
}

#[test]
fn a_damaged_index_is_refused() {
    for (from, to, reason) in [
        ("\"version\":1", "\"version\":2", "version 2 is unknown"),
        ("\"posters\"", "\"flags\"", "task `flags` is listed twice"),
        ("\"order\":2", "\"order\":1", "order 1 is taken"),
        ("\"synthetic\":false", "\"synthetic\":false,\"order\":3", "only downstream"),
        ("\"posters\"", "\"../x\"", "lower-case letters"),
        ("rouge-l", "bleu", "unknown variant `bleu`"),
        ("\"title\"", "\"titel\"", "unknown field `titel`"),
    ] {
        let message = refused("benchmark.json", INDEX.replacen(from, to, 1).as_bytes());
        assert!(message.contains("benchmark.json: ") && message.contains(reason), "{message}");
    }
    let dir = sound();
    fs::remove_file(dir.path().join("tasks/flags.jsonl")).unwrap();
    assert!(Benchmark::open(dir.path()).unwrap_err().to_string().contains("flags.jsonl"));
}

#[test]
fn an_unknown_name_gets_a_suggestion() {
    let dir = sound();
    let bench = Benchmark::open(dir.path()).unwrap();
    assert!(bench.task("captions").unwrap_err().to_string().ends_with("did you mean `caption`?"));
    assert!(bench.task("zzz").unwrap_err().to_string().ends_with("no task `zzz`"));
    assert!(bench.image("a/9").unwrap_err().to_string().contains("`a/9`"));
}

#[test]
fn leaks_are_reported_by_content() {
    // Another key, the same bytes.
    let copied = pack(&[("b/0", &png(3)), ("b/1", &png(4)), ("b/2", &png(3))]);
    let report = reported("b/images.pack", &copied);
    assert_eq!(report.between_splits.len(), 3);
    assert_eq!(report.between_splits[0].first, "flags/train");
    assert_eq!(report.between_splits[0].example, ("b/0".into(), "b/2".into()));
    assert!(!report.is_clean() && report.to_string().contains("NOT clean"));
    let shared = pack(&[("b/0", &png(0)), ("b/1", &png(4)), ("b/2", &png(5))]);
    let report = reported("b/images.pack", &shared);
    assert_eq!(report.with_pretraining.len(), 3);
    assert_eq!(report.with_pretraining[0].example, ("a/0".into(), "b/0".into()));
    assert!(report.between_splits.is_empty());
}

#[test]
fn damaged_images_and_copied_records_are_reported() {
    let report =
        reported("b/images.pack", &pack(&[("b/0", b"no image"), ("b/1", &png(4)), ("b/2", &png(5))]));
    assert_eq!(report.undecodable.len(), 1);
    assert!(report.undecodable[0].starts_with("b/0: "), "{:?}", report.undecodable);
    let text = three(["a/0", "a/1", "a/2"]) + &line("train", "a/0", "other");
    assert_eq!(reported("tasks/caption.jsonl", text.as_bytes()).duplicate_records, ["caption: a/0: What?"]);
    let no_val = [line("train", "a/0", "a"), line("test", "a/1", "b")].join("\n");
    assert_eq!(reported("tasks/caption.jsonl", no_val.as_bytes()).empty_splits, ["caption: val"]);
}

#[test]
fn image_files_are_a_pack() {
    let dir = sound();
    let packed = Benchmark::open(dir.path()).unwrap();
    fs::remove_file(dir.path().join("b/images.pack")).unwrap();
    let names = ["b/0.png", "b/1.PNG", "b/2.png"];
    for (i, name) in names.iter().enumerate() {
        write(dir.path(), name, &png(3 + i as u8));
    }
    write(dir.path(), "b/notes.txt", b"no image");
    write(dir.path(), "b/more/of them/3.png", &png(9));
    write(dir.path(), "b/.hidden/4.png", &png(9));
    for name in ["flags", "posters", "scenes"] {
        write(dir.path(), &format!("tasks/{name}.jsonl"), three(names).as_bytes());
    }
    let loose = Benchmark::open(dir.path()).unwrap();
    assert_eq!(loose.n_images(), 7);
    assert_eq!(loose.image("b/1.PNG").unwrap(), packed.image("b/1").unwrap());
    assert_eq!(loose.image("b/more/of them/3.png").unwrap(), png(9));
    assert_ne!(loose.hash(), packed.hash());
    assert!(loose.image("b/notes.txt").is_err());
}

#[test]
fn bad_records_are_left_out_and_the_hash_knows_which() {
    let dir = sound();
    let whole = Benchmark::open(dir.path()).unwrap().hash();
    let (_, none) = Benchmark::open_with(dir.path(), OnBad::Skip).unwrap();
    assert_eq!(none, Skipped::default());
    let text = three(["a/0", "a/1", "a/2"]);
    let more = |bad: &str| format!("{text}{bad}\n{}\n", line("train", "a/0", "x"));
    write(dir.path(), "tasks/caption.jsonl", more(&line("train", "a/7", "x")).as_bytes());
    let cut = png(4)[..40].to_vec();
    write(dir.path(), "b/images.pack", &pack(&[("b/0", &png(3)), ("b/1", &cut), ("b/2", &png(5))]));
    assert!(Benchmark::open(dir.path()).unwrap_err().to_string().ends_with("there is no image `a/7`"));
    let (bench, skipped) = Benchmark::open_with(dir.path(), OnBad::Skip).unwrap();
    assert_eq!((skipped.n_records, bench.task("caption").unwrap().records.len()), (4, 4));
    assert!(skipped.reasons[0].ends_with("caption.jsonl, line 4: there is no image `a/7`"), "{skipped:?}");
    assert!(skipped.reasons[1].contains("flags.jsonl, line 2: b/1: "), "{skipped:?}");
    assert_eq!(bench.task("flags").unwrap().split(Split::Val).count(), 0);
    let hash = bench.hash();
    assert_ne!(hash, whole);
    let report = check(&bench, skipped);
    assert!(report.undecodable.is_empty() && report.to_string().contains("records left out: 4"), "{report}");
    assert_eq!(report.empty_splits.len(), 3);
    // Another record is bad.
    write(dir.path(), "tasks/caption.jsonl", more("{").as_bytes());
    assert_ne!(Benchmark::open_with(dir.path(), OnBad::Skip).unwrap().0.hash(), hash);
}

#[test]
fn texts_are_examined() {
    let index = INDEX.replacen("\"exact\"", "\"vqa-soft\"", 1);
    let dir = sound();
    write(dir.path(), "benchmark.json", index.as_bytes());
    let text = three(["b/0", "b/1", "b/2"])
        .replace("\"What?\",\"answer\":\"c\"", "\"What? The answer is c.\",\"answer\":\"c\"");
    write(dir.path(), "tasks/flags.jsonl", text.as_bytes());
    let report = check(&Benchmark::open(dir.path()).unwrap(), Skipped::default());
    assert_eq!(report.answers_not_ten, ["flags/val/0: 1 answers", "flags/test/0: 1 answers"]);
    assert_eq!(report.stated_answers, ["flags/test/0: c"]);
    assert!(!report.is_clean());
}

#[test]
fn options_in_an_instruction_tell_letter_and_text() {
    let dir = sound();
    let index = INDEX.replacen("\"exact\"", "\"multiple-choice\"", 1);
    write(dir.path(), "benchmark.json", index.as_bytes());
    let text =
        three(["b/0", "b/1", "b/2"]).replace("What?", r"What?\n(A) cat\n(B) dog").replace("\"a\"", "\"A\"");
    write(dir.path(), "tasks/flags.jsonl", text.as_bytes());
    let bench = Benchmark::open(dir.path()).unwrap();
    let flags = bench.task("flags").unwrap();
    assert_eq!(flags.records[0].answers, ["A", "cat"]);
    assert_eq!(flags.records[1].answers, ["b", "dog"]);
    assert_eq!(bench.task("posters").unwrap().records[0].answers, ["a"]);
}
