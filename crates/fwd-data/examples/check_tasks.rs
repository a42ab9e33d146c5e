//! Writes two small tasks in CoIN's layout into a temporary folder, opens them, and checks them for leaks and damage.
//!
//! ```text
//! cargo run -p fwd-data --example check_tasks
//! ```

#![allow(clippy::print_stdout)]

use fwd_data::bench::Split;
use fwd_data::task::{OnBad, TaskSet, check, open};
use std::error::Error;
use std::fs;
use std::path::Path;

/// Writes `TASK/train.json` and `TASK/test.json` with one record each, and an image of one colour for both.
fn write_task(dir: &Path, task: &str, [train_grey, test_grey]: [u8; 2]) -> Result<(), Box<dyn Error>> {
    let folder = dir.join(task);
    fs::create_dir_all(folder.join("images"))?;
    for (name, grey) in [("train", train_grey), ("test", test_grey)] {
        let picture = image::GrayImage::from_pixel(8, 8, image::Luma([grey]));
        picture.save(folder.join(format!("images/{name}.png")))?;
    }
    // Training records are conversations, test records are questions.
    let train = format!(
        r#"[{{"id": "0", "image": "{task}/images/train.png", "conversations": [
            {{"from": "human", "value": "<image>\nIs it dark or light?"}}, {{"from": "gpt", "value": "dark"}}]}}]"#
    );
    let test = format!(
        r#"[{{"question_id": "1", "image": "{task}/images/test.png", "text": "Is it dark or light?", "answer": "light"}}]"#
    );
    fs::write(folder.join("train.json"), train)?;
    fs::write(folder.join("test.json"), test)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    // `GQA` is a task of CoIN and gets CoIN's scorer. The second task has one image in training and in test.
    write_task(dir.path(), "GQA", [20, 230])?;
    write_task(dir.path(), "Shades", [90, 90])?;

    let bench = open(dir.path(), OnBad::Refuse)?.bench;
    for task in &bench.tasks {
        let counts = [Split::Train, Split::Val, Split::Test].map(|split| task.split(split).count());
        println!("{}: scored by {}, {counts:?} records in train, val and test", task.name, task.metric);
    }

    // The check finds the image that two splits share.
    let report = check(&TaskSet::open(dir.path())?, OnBad::Refuse)?;
    println!("\n{report}");
    Ok(())
}
