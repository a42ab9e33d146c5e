//! The parts that need no files.

use super::images::relative;
use super::record::without_image_token;
use super::{Kind, Preset, TaskSpec, description};
use crate::bench::Metric;
use crate::error::PathFault;
use std::path::Path;

#[test]
fn the_image_token_goes_wherever_it_stands() {
    for (text, expected) in [
        ("<image>\nQ", "Q"),
        ("Q\n<image>", "Q"),
        ("<image>Q", "Q"),
        ("in <image> here", "in here"),
        ("A\n<image>\nB", "A\nB"),
        ("<image>\n<image>\nA\n\nB", "A\n\nB"),
        ("Q", "Q"),
        ("<image>", ""),
    ] {
        assert_eq!(without_image_token(text), expected, "{text:?}");
    }
}

#[test]
fn paths_are_cleaned_or_refused() {
    assert_eq!(relative("./a//b/./c.png").as_deref(), Ok("a/b/c.png"));
    assert_eq!(relative("a..b/c...png").as_deref(), Ok("a..b/c...png"));
    for (path, fault) in [
        ("/etc/passwd", PathFault::Absolute),
        ("\\\\host\\x", PathFault::Absolute),
        ("C:/x.png", PathFault::Absolute),
        ("a/../../b", PathFault::Upwards),
        ("a\\..\\b", PathFault::Upwards),
    ] {
        assert_eq!(relative(path), Err(fault), "{path}");
    }
}

#[test]
fn the_presets_have_the_published_tasks() {
    let names = |preset: Preset| preset.tasks().into_iter().map(|task| task.name).collect::<Vec<_>>();
    assert_eq!(Preset::ALL.map(|preset| names(preset).len()), [8, 6, 10, 5]);
    assert_eq!(
        names(Preset::Coin),
        ["scienceqa", "textvqa", "imagenet", "gqa", "vizwiz", "grounding", "vqav2", "ocrvqa"]
    );
    let ucit = Preset::Ucit.tasks();
    let train = ucit[1].train.as_ref().unwrap().names();
    assert_eq!(train[..2], ["ArxivQA/train.json", "ArxivQA/train_4w.json"]);
    assert!(ucit[2].references.is_some());
}

#[test]
fn a_description_is_read_and_written() {
    let text = r#"
        [[task]]
        name = "one"
        kind = "caption"
        train = "a.json"
        test = ["b.json", "c.json"]
        prompt = "{instruction} Be brief."
    "#;
    let tasks = description::parse(Path::new("tasks.toml"), text).unwrap();
    assert_eq!((tasks[0].kind, tasks[0].metric()), (Kind::Caption, Metric::RougeL));
    assert_eq!(tasks[0].prompted("Say."), "Say. Be brief.");
    let written = description::write(Path::new("x"), &tasks).unwrap();
    assert_eq!(description::parse(Path::new("x"), &written).unwrap(), tasks);
}

#[test]
fn a_damaged_description_is_refused() {
    let good = "[[task]]\nname = \"one\"\nkind = \"vqa\"\ntrain = \"a.json\"\n";
    for (from, to, reason) in [
        ("train", "trian", "task 0: unknown key `trian`; did you mean `train`?"),
        ("[[task]]", "[[tasks]]", "unknown key `tasks`; did you mean `task`?"),
        ("train =", "zzz =", "unknown key `zzz`"),
        ("\"vqa\"", "\"vqq\"", "unknown variant `vqq`"),
        ("\"one\"", "\"One\"", "task `One`: a name has lower-case letters"),
        ("kind = \"vqa\"", "", "missing field `kind`"),
        ("train = \"a.json\"", "", "has none of `train`, `val` and `test`"),
        ("train = \"a.json\"", "train = 3", "expected the name of a file or a list"),
        ("= \"one\"", "= ", "tasks.toml: "),
    ] {
        let text = good.replacen(from, to, 1);
        let message = description::parse(Path::new("tasks.toml"), &text).unwrap_err().to_string();
        assert!(message.starts_with("tasks.toml: ") && message.contains(reason), "{message}");
    }
    let twice = format!("{good}{good}");
    let message = description::parse(Path::new("tasks.toml"), &twice).unwrap_err().to_string();
    assert!(message.contains("`one` is listed twice"), "{message}");
}

#[test]
fn annotators_are_counted_where_they_are_due() {
    assert_eq!(Metric::VqaSoft.answers_due(), Some(10));
    assert_eq!(TaskSpec::new("x", Kind::Vqa).metric().answers_due(), None);
}
