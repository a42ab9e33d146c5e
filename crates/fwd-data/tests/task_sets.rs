//! Sets of tasks: found, described, read, checked and converted, with images that are there, missing, damaged or elsewhere.

#![allow(clippy::unwrap_used)]

use fwd_data::bench::{Benchmark, Metric, Split, Stage, check as check_bench};
use fwd_data::task::{self, ImageRoot, Loaded, OnBad, Preset, Skipped, TaskSet, check, convert};
use fwd_data::{DataError, PathFault};
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

fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn conversation(image: &str, question: &str, answer: &str) -> String {
    format!(
        r#"{{"image":"{image}","conversations":[{{"from":"human","value":"<image>\n{question}"}},{{"from":"gpt","value":"{answer}"}}]}}"#
    )
}

fn question(id: u32, image: &str, answer: &str) -> String {
    format!(r#"{{"question_id":"{id}","image":"{image}","text":"What?","answer":"{answer}"}}"#)
}

/// Two tasks in CoIN's layout, `GQA` of CoIN and `Pets` of nobody.
fn layout() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, name) in
        ["GQA/images/0.png", "GQA/images/1.png", "Pets/images/0.png", "Pets/images/1.png"].iter().enumerate()
    {
        write(dir.path(), name, png(i as u8));
    }
    for folder in ["GQA", "Pets"] {
        let train = conversation(&format!("./{folder}/images/0.png"), "What?", "dog");
        write(dir.path(), &format!("{folder}/train.json"), format!("[{train}]"));
        let test = question(1, &format!("{folder}/images/1.png"), "cat");
        write(dir.path(), &format!("{folder}/test.json"), format!("[{test}]"));
    }
    dir
}

/// The layout with one file replaced.
fn layout_with(name: &str, text: &str) -> TempDir {
    let dir = layout();
    write(dir.path(), name, text);
    dir
}

fn refused(dir: &TempDir) -> String {
    let error = task::open(dir.path(), OnBad::Refuse).unwrap_err();
    error.to_string().replace(&dir.path().canonicalize().unwrap().display().to_string(), "DIR")
}

fn load(dir: &TempDir) -> Loaded {
    task::open(dir.path(), OnBad::Refuse).unwrap()
}

#[test]
fn a_folder_in_coins_layout_is_a_benchmark() {
    let dir = layout();
    let Loaded { bench, skipped } = load(&dir);
    assert_eq!(skipped.n_records, 0);
    let names: Vec<_> = bench.sequence().iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["gqa", "pets"]);
    let gqa = bench.task("gqa").unwrap();
    assert_eq!(
        (gqa.title.as_str(), gqa.stage, gqa.metric, gqa.order),
        ("GQA", Stage::Downstream, Metric::Gqa, Some(1))
    );
    let train: Vec<_> = gqa.split(Split::Train).collect();
    assert_eq!((train[0].image.as_str(), train[0].instruction.as_str()), ("GQA/images/0.png", "What?"));
    assert_eq!(train[0].answers, ["dog"]);
    assert_eq!(bench.image("GQA/images/1.png").unwrap(), png(1));
    assert_eq!(bench.image("GQA/images/1.png").unwrap(), png(1));
    assert!(matches!(bench.image("GQA/images/9.png"), Err(DataError::UnknownImage { .. })));
    assert_eq!(bench.n_images(), 4);
    assert_eq!(bench.hash(), load(&dir).bench.hash());
    write(dir.path(), "GQA/test.json", format!("[{}]", question(1, "GQA/images/1.png", "cow")));
    assert_ne!(bench.hash(), load(&dir).bench.hash());
    let none = tempfile::tempdir().unwrap();
    assert!(
        refused(&none).contains("no tasks here: neither benchmark.json nor tasks.toml"),
        "{}",
        refused(&none)
    );
}

#[test]
fn both_names_of_a_published_file_are_tried() {
    let dir = layout();
    fs::rename(dir.path().join("GQA/train.json"), dir.path().join("GQA/train_4w.json")).unwrap();
    assert_eq!(load(&dir).bench.task("gqa").unwrap().split(Split::Train).count(), 1);
    let set = TaskSet::preset(Preset::Coin, dir.path());
    let message = set.load(OnBad::Refuse).unwrap_err().to_string();
    assert!(message.starts_with("task `scienceqa`: no file for train; tried "), "{message}");
    assert!(
        message.contains("ScienceQA/train.json, ") && message.contains("ScienceQA/train_4w.json"),
        "{message}"
    );
}

#[test]
fn answers_that_are_kept_apart_are_found() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["VizWiz-caption/images/0.png", "Flickr30k-cap/0.png", "TextVQA/train_images/003a.png"] {
        write(dir.path(), name, png(1));
    }
    let unanswered = |id: &str, image: &str, text: &str| {
        format!(r#"[{{"question_id":"{id}","image":"{image}","text":"{text}"}}]"#)
    };
    let train = |image: &str| format!("[{}]", conversation(image, "Q", "A"));
    write(dir.path(), "Flickr30k-cap/train_brief_4w.json", train("Flickr30k-cap/0.png"));
    write(dir.path(), "Flickr30k-cap/test_3000.json", unanswered("7", "Flickr30k-cap/0.png", "Describe."));
    let gold = r#"{"images":[{"id":7,"file_name":"x"}],"annotations":[{"image_id":7,"caption":"a"},{"image_id":7,"caption":"b"}]}"#;
    write(dir.path(), "Flickr30k-cap/val_coco_type_3000.json", gold);
    let bench = load(&dir).bench;
    let flickr = bench.task("flickr30k-cap").unwrap();
    assert_eq!(
        (flickr.metric, flickr.split(Split::Test).next().unwrap().answers.join("|")),
        (Metric::CiderD, "a|b".into())
    );
    write(dir.path(), "Flickr30k-cap/val_coco_type_3000.json", gold.replace('7', "8"));
    assert!(refused(&dir).contains("has no answers for `7`"), "{}", refused(&dir));

    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "TextVQA/train_images/003a.png", png(1));
    write(dir.path(), "TextVQA/train.json", train("TextVQA/train_images/003a.png"));
    let text = r"What brand is it?\nAnswer in a word.";
    write(dir.path(), "TextVQA/val.json", unanswered("003a", "TextVQA/train_images/003a.png", text));
    assert!(refused(&dir).contains("val.json, record 0, key `answer`: is missing"), "{}", refused(&dir));
    let annotations = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tasks/textvqa.json");
    fs::copy(annotations, dir.path().join("TextVQA/TextVQA_0.5.1_val.json")).unwrap();
    let bench = load(&dir).bench;
    let record = bench.task("textvqa").unwrap().split(Split::Test).next().unwrap();
    assert_eq!((record.answers.len(), record.answers[1].as_str()), (10, "dakota"));
}

#[test]
fn a_description_decides() {
    let dir = layout();
    let text = "[[task]]\nname = \"one\"\nkind = \"caption\"\nimage_root = \"GQA/images\"\ntest = [\"none.csv\", \"t.csv\"]\n\
                prompt = \"{instruction} Be brief.\"\n\
                [[task]]\nname = \"two\"\nkind = \"vqa\"\nstage = \"pretraining\"\ntrain = \"l.jsonl\"\n";
    write(dir.path(), "tasks.toml", text);
    write(dir.path(), "t.csv", "image,question,answer\n0.png,What?,a dog\n");
    write(dir.path(), "l.jsonl", r#"{"text":"1 + 1?","answer":2}"#);
    let bench = load(&dir).bench;
    let one = bench.task("one").unwrap();
    assert_eq!(
        (one.metric, one.order, one.records[0].instruction.as_str()),
        (Metric::RougeL, Some(1), "What? Be brief.")
    );
    assert_eq!(one.records[0].image, "GQA/images/0.png");
    let two = bench.task("two").unwrap();
    assert_eq!((two.stage, two.order, two.records[0].answers[0].as_str()), (Stage::Pretraining, None, "2"));
    // A question without an image gets a grey one.
    assert!(bench.image(&two.records[0].image).unwrap().starts_with(b"\x89PNG"));
    // A pattern stands for several files.
    write(dir.path(), "l2.jsonl", r#"{"text":"2 + 2?","answer":4}"#);
    write(dir.path(), "tasks.toml", text.replacen("l.jsonl", "l*.jsonl", 1));
    assert_eq!(load(&dir).bench.task("two").unwrap().records.len(), 2);
    write(dir.path(), "tasks.toml", text);
    let by_file = TaskSet::open(&dir.path().join("tasks.toml")).unwrap();
    assert_eq!(by_file, TaskSet::open(dir.path()).unwrap());
    write(dir.path(), "tasks.toml", text.replacen("prompt", "promt", 1));
    assert!(refused(&dir).ends_with("tasks.toml: task 0: unknown key `promt`; did you mean `prompt`?"));
}

#[test]
fn paths_out_of_the_image_root_are_refused() {
    let dir = layout();
    write(dir.path(), "secret.png", png(9));
    for (image, reason) in [
        ("../secret.png", "goes up with `..`"),
        ("/etc/passwd", "is an absolute path"),
        ("images/7.png", "is missing"),
        ("images", "is no file"),
    ] {
        write(
            dir.path(),
            "set.toml",
            "[[task]]\nname=\"x\"\nkind=\"vqa\"\nimage_root=\"GQA\"\ntest=\"x.json\"",
        );
        write(dir.path(), "x.json", format!("[{}]", question(1, image, "a")));
        let error = TaskSet::open(&dir.path().join("set.toml")).unwrap().load(OnBad::Refuse).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(&format!("x.json, record 0: the image `{image}` {reason}; the image root is ")),
            "{message}"
        );
    }
}

#[cfg(unix)]
#[test]
fn symbolic_links_may_not_leave_the_image_root() {
    use std::os::unix::fs::symlink;
    let dir = layout();
    let root = ImageRoot::open(&dir.path().join("GQA")).unwrap();
    symlink(dir.path().join("Pets/images"), dir.path().join("GQA/out")).unwrap();
    symlink(dir.path().join("GQA/images/0.png"), dir.path().join("GQA/in.png")).unwrap();
    let fault = |image: &str| match root.resolve(image, "x") {
        Err(DataError::ImagePath { fault, .. }) => Some(fault),
        other => {
            other.unwrap();
            None
        }
    };
    assert_eq!(fault("out/0.png"), Some(PathFault::LinkOut));
    assert_eq!(fault("in.png"), None);
    // The root itself may be a link.
    symlink(dir.path().join("GQA"), dir.path().join("link")).unwrap();
    ImageRoot::open(&dir.path().join("link")).unwrap().resolve("images/0.png", "x").unwrap();
}

/// A PNG that claims 40000 × 40000 pixels.
fn bomb() -> Vec<u8> {
    let mut bytes = png(0);
    bytes[16..24].copy_from_slice(&[0, 0, 0x9c, 0x40, 0, 0, 0x9c, 0x40]);
    let crc = !bytes[12..29].iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

#[test]
fn bad_records_are_skipped_counted_and_listed() {
    let questions = [
        question(1, "GQA/images/1.png", "cat"),
        question(2, "GQA/images/none.png", "cat"),
        question(3, "GQA/images/bomb.png", "cat"),
        question(4, "GQA/images/cut.png", "cat"),
        r#"{"text":"What?"}"#.into(),
    ];
    let dir = layout_with("GQA/test.json", &format!("[{}]", questions.join(",")));
    write(dir.path(), "GQA/images/bomb.png", bomb());
    let whole = png(5);
    write(dir.path(), "GQA/images/cut.png", &whole[..whole.len() - 20]);
    assert!(
        refused(&dir).starts_with("DIR/GQA/test.json, record 1: the image `GQA/images/none.png` is missing")
    );
    let Loaded { bench, skipped, .. } = task::open(dir.path(), OnBad::Skip).unwrap();
    assert_eq!(bench.task("gqa").unwrap().split(Split::Test).count(), 1);
    assert_eq!((skipped.n_records, skipped.reasons.len()), (4, 4));
    let parts = [
        "test.json, record 1: the image `GQA/images/none.png` is missing",
        "test.json, record 4, key `answer`",
        "test.json, record 2: GQA/images/bomb.png: the image has 40000x40000 pixels",
        "test.json, record 3: GQA/images/cut.png",
    ];
    for (reason, part) in skipped.reasons.iter().zip(parts) {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert!(check_bench(&bench, Skipped::default()).undecodable.is_empty());
    // A file that is damaged outside its records is never passed over.
    let dir = layout_with("GQA/test.json", "[{}");
    assert!(task::open(dir.path(), OnBad::Skip).unwrap_err().to_string().contains("truncated"));
}

#[test]
fn a_check_finds_what_is_wrong() {
    let dir = layout();
    let report = check(&TaskSet::open(dir.path()).unwrap(), OnBad::Refuse).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.n_tasks, report.n_records, report.n_images), (2, 4, 4));

    let questions = [
        question(1, "GQA/images/none.png", "cat"),
        question(1, "../GQA/images/0.png", "cat"),
        question(3, "GQA/images/cut.png", "cat"),
        // The same content as the image of training.
        question(4, "GQA/images/copy.png", "cat"),
        r#"{"question_id":5,"image":"GQA/images/1.png","text":"Cat? The answer is: cat.","answer":"cat"}"#
            .replace("is: cat", "is cat"),
        r#"{"question_id":6,"text":"Dog or cat?","answer":"cat"}"#.into(),
        r#"{"question_id":7,"text":3,"answer":"cat"}"#.into(),
    ];
    let dir = layout_with("GQA/test.json", &format!("[{}]", questions.join(",")));
    write(dir.path(), "GQA/images/copy.png", png(0));
    write(dir.path(), "GQA/images/cut.png", &png(5)[..50]);
    let report = check(&TaskSet::open(dir.path()).unwrap(), OnBad::Refuse).unwrap();
    let counts = [
        &report.missing_images,
        &report.outside_images,
        &report.undecodable_images,
        &report.duplicate_ids,
        &report.stated_answers,
        &report.unreadable_records,
        &report.answers_not_ten,
        &report.captions_without_image,
    ];
    assert_eq!(counts.map(|findings| findings.n), [1, 1, 1, 1, 1, 1, 0, 0], "{report}");
    assert!(report.undecodable_images.first[0].what.contains("test.json, record 2"), "{report}");
    assert!(report.duplicate_ids.first[0].what.ends_with("record 1: another is called `1`"), "{report}");
    assert_eq!((report.between_splits.len(), report.between_splits[0].n_images), (1, 1));
    assert_eq!((report.answers_in_questions[0].n, report.answers_in_questions[0].of), (2, 6));
    assert!(!report.is_clean() && report.to_string().ends_with("NOT clean"));
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["missing_images"]["first"][0]["task"], "gqa");
}

#[test]
fn a_check_counts_annotators_and_captions() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "VQAv2/0.png", png(0));
    write(dir.path(), "VQAv2/1.png", png(1));
    write(dir.path(), "VQAv2/train.json", format!("[{}]", conversation("VQAv2/0.png", "Q", "A")));
    write(dir.path(), "VQAv2/test.json", format!("[{}]", question(1, "VQAv2/1.png", "cat")));
    let report = check(&TaskSet::open(dir.path()).unwrap(), OnBad::Refuse).unwrap();
    assert_eq!(report.answers_not_ten.first[0].what.rsplit(": ").next(), Some("1 answers"));
    write(
        dir.path(),
        "tasks.toml",
        "[[task]]\nname=\"c\"\nkind=\"caption\"\nimage_root=\"VQAv2\"\ntest=\"c.json\"\nprompt=\"Describe.\"",
    );
    let text = r#"{"images":[{"id":1,"file_name":"1.png"}],"annotations":[{"image_id":1,"caption":"a"},{"image_id":2,"caption":"b"}]}"#;
    write(dir.path(), "c.json", text);
    let report = check(&TaskSet::open(dir.path()).unwrap(), OnBad::Refuse).unwrap();
    assert_eq!((report.captions_without_image.n, report.unreadable_records.n), (1, 0), "{report}");
    let loaded = task::open(dir.path(), OnBad::Skip).unwrap();
    assert_eq!((loaded.bench.tasks[0].records.len(), loaded.skipped.n_records), (1, 1));
}

/// What must survive a conversion: all but the keys of images.
fn essence(bench: &Benchmark) -> Vec<String> {
    let mut lines = Vec::new();
    for task in &bench.tasks {
        let entry = (&task.name, &task.title, task.stage, task.metric, task.synthetic, task.order);
        lines.push(format!("{entry:?}"));
        for split in [Split::Train, Split::Val, Split::Test] {
            for record in task.split(split) {
                let hash = bench.content_hash(&record.image).unwrap();
                lines.push(format!("{split:?} {hash} {:?} {:?}", record.instruction, record.answers));
            }
        }
    }
    lines
}

#[test]
fn the_embedded_benchmark_goes_to_llava_and_back() {
    let mut bench =
        Benchmark::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/bench")).unwrap();
    bench.tasks.retain(|task| ["flags", "posters"].contains(&task.name.as_str()));
    assert_eq!(bench.tasks.len(), 2);
    let dir = tempfile::tempdir().unwrap();
    let (llava, packed) = (dir.path().join("llava"), dir.path().join("packed"));
    convert::to_llava(&bench, &llava).unwrap();
    assert!(llava.join("flags/train.json").is_file() && llava.join("posters/images").is_dir());
    let loose = task::open(&llava, OnBad::Refuse).unwrap().bench;
    assert_eq!(essence(&loose), essence(&bench));
    assert!(check(&TaskSet::open(&llava).unwrap(), OnBad::Refuse).unwrap().is_clean());
    convert::to_packed(&loose, &packed).unwrap();
    let again = task::open(&packed, OnBad::Refuse).unwrap().bench;
    assert_eq!(essence(&again), essence(&bench));
    // The same content makes the same files.
    let twice = dir.path().join("twice");
    convert::to_packed(&again, &twice).unwrap();
    assert_eq!(Benchmark::open(&twice).unwrap().hash(), again.hash());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn several_answers_and_no_image_go_to_llava_and_back() {
    let dir = layout();
    let several = r#"{"question_id":"1","text":"What?","answer":["a","b"]}"#;
    write(dir.path(), "GQA/test.json", format!("[{several}]"));
    let mut bench = load(&dir).bench;
    bench.tasks[0].records[0].answers.push("hound".into());
    let out = dir.path().join("out");
    convert::to_llava(&bench, &out).unwrap();
    let again = task::open(&out, OnBad::Refuse).unwrap().bench;
    assert_eq!(essence(&again), essence(&bench));
    assert!(!fs::read_to_string(out.join("gqa/test.json")).unwrap().contains("image"));
    let packed = dir.path().join("packed");
    convert::to_packed(&bench, &packed).unwrap();
    assert_eq!(essence(&Benchmark::open(&packed).unwrap()), essence(&bench));
}

#[test]
fn a_conversion_is_whole_or_not_there() {
    let dir = layout();
    let bench = load(&dir).bench;
    fs::remove_file(dir.path().join("Pets/images/1.png")).unwrap();
    let to = tempfile::tempdir().unwrap();
    let out = to.path().join("out");
    assert!(matches!(convert::to_packed(&bench, &out), Err(DataError::Io { .. })));
    assert!(matches!(convert::to_llava(&bench, &out), Err(DataError::Io { .. })));
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
    write(to.path(), "out/mine.txt", "mine");
    let message = convert::to_packed(&bench, &out).unwrap_err().with_cause();
    assert!(message.contains("something is there already"), "{message}");
    assert_eq!(fs::read(out.join("mine.txt")).unwrap(), b"mine");
}

#[test]
fn an_image_that_is_not_there_is_named_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("llava.json", format!("[{}]", conversation("none.png", "Q", "A"))),
        ("test.json", format!("[{}]", question(1, "none.png", "A"))),
        ("test.jsonl", question(1, "none.png", "A")),
        (
            "textvqa.json",
            r#"{"data":[{"question":"Q","image_id":"none","image":"none.png","answers":["A"]}]}"#.into(),
        ),
        (
            "coco.json",
            r#"{"images":[{"id":1,"file_name":"none.png"}],"annotations":[{"image_id":1,"caption":"A"}]}"#
                .into(),
        ),
        ("table.csv", "image,text,answer\nnone.png,Q,A\n".into()),
    ] {
        write(dir.path(), file, text);
        let description =
            format!("[[task]]\nname=\"t\"\nkind=\"vqa\"\ntest=\"{file}\"\nprompt=\"Q {{instruction}}\"\n");
        write(dir.path(), "tasks.toml", description);
        let message = task::open(dir.path(), OnBad::Refuse).unwrap_err().to_string();
        assert!(message.contains(&format!("{file}, record 0: the image `none.png` is missing")), "{message}");
    }
}

#[test]
fn prompts_that_depend_on_the_answer_are_found() {
    // As one task of MLLM-DCL: the template looks at the gold answer.
    let one = |i: usize| {
        let (ending, answer) = if i.is_multiple_of(2) {
            ("Answer the question with yes or no.", ["yes", "no"][i / 2 % 2].to_owned())
        } else {
            ("Answer in a word.", format!("organ{i}"))
        };
        format!(r#"{{"question_id":"{i}","text":"Question {i}?\n{ending}","answer":"{answer}"}}"#)
    };
    let dir = layout_with("GQA/test.json", &format!("[{}]", (0..40).map(one).collect::<Vec<_>>().join(",")));
    let report = check(&TaskSet::open(dir.path()).unwrap(), OnBad::Refuse).unwrap();
    let kinds: Vec<_> =
        report.telling_kinds.iter().map(|closing| (closing.task.as_str(), closing.kind, closing.n)).collect();
    assert_eq!(kinds, [("gqa", "words", 20), ("gqa", "yes or no", 20)]);
    assert!(report.is_clean(), "{report}");
    let text = fs::read_to_string(dir.path().join("GQA/test.json")).unwrap().replace("\"no\"", "\"yes\"");
    write(dir.path(), "GQA/test.json", text.replace("Question 1?", "Question 1?\\nRationale: it is."));
    let report = check(&TaskSet::open(dir.path()).unwrap(), OnBad::Refuse).unwrap();
    assert_eq!(report.telling_prompts.n, 1);
    let what = &report.telling_prompts.first[0].what;
    assert!(what.starts_with("20 prompts end in `Answer the question with yes or no.`"), "{what}");
    assert!(!report.is_clean());
    assert_eq!((report.explained_answers[0].n, report.explained_answers[0].of), (1, 40));
}

#[test]
fn a_check_may_leave_bad_records_out() {
    let questions = [question(1, "GQA/images/1.png", "cat"), question(2, "GQA/images/none.png", "cat")];
    let dir = layout_with("GQA/test.json", &format!("[{}]", questions.join(",")));
    let set = TaskSet::open(dir.path()).unwrap();
    assert!(!check(&set, OnBad::Refuse).unwrap().is_clean());
    let report = check(&set, OnBad::Skip).unwrap();
    assert!(report.is_clean() && report.missing_images.n == 1, "{report}");
    assert!(report.to_string().contains("missing images: 1, left out"), "{report}");
    // What is left out is another benchmark than what is not there.
    let hash = task::open(dir.path(), OnBad::Skip).unwrap().bench.hash();
    write(dir.path(), "GQA/images/none.png", png(7));
    assert_ne!(task::open(dir.path(), OnBad::Skip).unwrap().bench.hash(), hash);
}

#[test]
fn names_are_told_apart_by_questions() {
    let ask = |text: &str| {
        format!(r#"{{"question_id":"7","image":"GQA/images/1.png","text":"{text}","answer":"a"}}"#)
    };
    let dir = layout_with("GQA/test.json", &format!("[{},{},{}]", ask("Who?"), ask("Why?"), ask("Why?")));
    let report = check(&TaskSet::open(dir.path()).unwrap(), OnBad::Refuse).unwrap();
    assert_eq!((report.duplicate_ids.n, report.shared_ids[0].n, report.shared_ids[0].of), (1, 1, 3));
}

#[test]
fn annotations_need_no_images() {
    let dir = tempfile::tempdir().unwrap();
    let text = r"Which?\nA. cat\nB. dog";
    write(
        dir.path(),
        "ScienceQA/test.json",
        format!(
            r#"[{{"question_id":"17","image":"none.png","text":"{text}","answer":"B"}},{{"text":"Q","answer":"A"}}]"#
        ),
    );
    write(
        dir.path(),
        "tasks.toml",
        "[[task]]\nname=\"scienceqa\"\nkind=\"multiple-choice\"\ntest=\"ScienceQA/test.json\"\n",
    );
    let annotated = task::annotations(dir.path(), "ScienceQA", Split::Test).unwrap();
    assert_eq!((annotated.task.as_str(), annotated.metric), ("scienceqa", Metric::MultipleChoice));
    let ids: Vec<&str> = annotated.samples.iter().map(|sample| sample.id.as_str()).collect();
    assert_eq!(ids, ["17", "scienceqa/test/1"]);
    // The text of the option is told by the prompt.
    assert_eq!(annotated.samples[0].answers, ["B", "dog"]);
    assert_eq!(annotated.samples[0].question, "Which?\nA. cat\nB. dog");
    let message = task::annotations(dir.path(), "scienceqb", Split::Test).unwrap_err().to_string();
    assert!(message.ends_with("did you mean `scienceqa`?"), "{message}");
    assert_eq!(task::sequence(dir.path()).unwrap(), ["scienceqa"]);
}

#[test]
fn names_of_records_survive_a_conversion() {
    let dir = layout();
    let bench = load(&dir).bench;
    assert_eq!(bench.task("gqa").unwrap().split(Split::Test).next().unwrap().id.as_deref(), Some("1"));
    assert_eq!(bench.task("gqa").unwrap().ids(Split::Train).next().unwrap(), "gqa/train/0");
    let (packed, llava) = (dir.path().join("packed"), dir.path().join("llava"));
    convert::to_packed(&bench, &packed).unwrap();
    let again = Benchmark::open(&packed).unwrap();
    convert::to_llava(&again, &llava).unwrap();
    for path in [&packed, &llava] {
        let annotated = task::annotations(path, "gqa", Split::Test).unwrap();
        assert_eq!((annotated.samples[0].id.as_str(), annotated.metric), ("1", Metric::Gqa));
        assert_eq!(task::sequence(path).unwrap(), ["gqa", "pets"]);
    }
}
