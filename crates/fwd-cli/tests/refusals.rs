//! What must not be done is refused with a message that says what to do, and nothing is lost.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, fail, stderr, succeed};
use std::fs;
use std::io::Write;
use std::time::Instant;

#[test]
fn a_finished_run_another_configuration_and_a_foreign_folder() {
    let place = Place::new();
    succeed(&mut place.train("run", &[]));
    let before = place.metrics_bytes("run");
    let refused = fail(&mut place.train("run", &[]));
    assert!(refused.contains("finished run") && refused.contains("fwd-prompt eval"), "{refused}");
    assert_eq!(place.metrics_bytes("run"), before);

    // As if it had not finished.
    fs::remove_file(place.path("run/metrics.json")).unwrap();
    let refused = fail(&mut place.train("run", &["--seed", "9", "--lr", "0.5"]));
    assert!(refused.contains("config.seed is 0 there, 9 here"), "{refused}");
    assert!(refused.contains("training.prompts.lr"), "{refused}");
    // How often it is saved, and where its features are, is no difference.
    succeed(&mut place.train("run", &["--set", "save_every=5", "--cache", "elsewhere"]));
    assert_eq!(place.metrics_bytes("run"), before);

    fs::create_dir(place.path("mine")).unwrap();
    fs::write(place.path("mine/thesis.tex"), "x").unwrap();
    let refused = fail(&mut place.train("mine", &[]));
    assert!(refused.contains("thesis.tex"), "{refused}");
    assert!(fail(&mut place.program(&["eval", "mine"])).contains("no run directory"));
}

#[test]
fn unknown_keys_and_tasks_come_with_a_suggestion() {
    let place = Place::new();
    fs::write(place.path("run.toml"), "seed = 1\n\n[training]\nbatchsize = 3\n").unwrap();
    let refused = fail(&mut place.program(&["train", "--config", "run.toml", "--out", "run"]));
    assert!(refused.contains("run.toml") && refused.contains("line 4"), "{refused}");
    assert!(refused.contains("did you mean `batch_size`?"), "{refused}");
    let refused = fail(&mut place.train("run", &["--set", "pool.top_kk=1"]));
    assert!(refused.contains("did you mean `top_k`?"), "{refused}");
    assert!(fail(&mut place.train("run", &["--tasks", "colour"])).contains("colours"));
    assert!(fail(&mut place.train("run", &["--tasks", "colours,colours"])).contains("twice"));
    assert!(!place.path("run").exists());
}

#[test]
fn another_model_is_refused() {
    let place = Place::new();
    succeed(&mut place.train("run", &[]));
    common::write_backbone(&place.path("other"));
    let config = place.path("other/generation_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("{", "{ \"note\": 1,")).unwrap();
    let refused = fail(&mut place.program(&["eval", "run", "--backbone", "other"]));
    assert!(refused.contains("another model"), "{refused}");
    let image = place.path("x.png");
    image::RgbImage::new(8, 8).save(&image).unwrap();
    let refused =
        fail(&mut place.program(&["ask", "run", "--backbone", "other", "--image", "x.png", "What?"]));
    assert!(refused.contains("another model"), "{refused}");
    fs::remove_file(place.path("run/metrics.json")).unwrap();
    let refused = fail(&mut place.train("run", &["--backbone", "other"]));
    assert!(refused.contains("backbone_hash"), "{refused}");
}

#[test]
fn unreadable_and_huge_images_are_named() {
    let place = Place::new();
    let ask =
        |file: &str| fail(&mut place.program(&["ask", "--backbone", "model", "--image", file, "What?"]));
    assert!(ask("none.png").contains("none.png"));
    fs::write(place.path("text.png"), "no image").unwrap();
    assert!(ask("text.png").contains("text.png: this is no known image"));
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(8, 8).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let png = png.into_inner();
    fs::write(place.path("cut.png"), &png[..png.len() / 2]).unwrap();
    assert!(ask("cut.png").contains("cut.png"));

    // A few bytes that claim 60000 x 60000 pixels; the checksum of the header is right.
    let mut bomb = png;
    let side = 60_000u32.to_be_bytes();
    bomb[16..20].copy_from_slice(&side);
    bomb[20..24].copy_from_slice(&side);
    let crc = crc32fast::hash(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&crc);
    fs::File::create(place.path("bomb.png")).unwrap().write_all(&bomb).unwrap();
    let began = Instant::now();
    let refused = ask("bomb.png");
    assert!(refused.contains("bomb.png"), "{refused}");
    assert!(began.elapsed().as_secs() < 10);
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    fs::create_dir(place.path("locked")).unwrap();
    fs::set_permissions(place.path("locked"), fs::Permissions::from_mode(0o555)).unwrap();
    // The superuser may write there; some folders refuse even that one.
    let is_superuser = fs::write(place.path("locked/probe"), "").is_ok();
    let out =
        if is_superuser { "/sys/fwd-prompt".into() } else { place.path("locked/run").display().to_string() };
    let refused = fail(&mut place.train(&out, &[]));
    assert!(refused.contains(&out) && refused.contains("help: choose a folder"), "{refused}");
}

#[cfg(unix)]
#[test]
fn a_full_disk_stops_the_run_which_then_goes_on() {
    use std::process::Command;
    let place = Place::new();
    let more = ["--set", "pool.prompt_len=16"];
    succeed(&mut place.train("whole", &more));
    let train = place.train("run", &more);
    // No file may grow beyond 20 blocks; the signal that the system sends then is ignored, so that the write fails instead.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 20; exec \"$@\"", "sh"]).arg(train.get_program());
    limited.args(train.get_args()).current_dir(place.path(".")).env("RAYON_NUM_THREADS", "2");
    let output = limited.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("help: there is no room"), "{}", stderr(&output));
    succeed(&mut place.train("run", &more));
    assert_eq!(place.metrics_bytes("run"), place.metrics_bytes("whole"));
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_is_not_there_is_refused() {
    let place = Place::new();
    for more in [["--device", "cuda"], ["--set", "device=cuda"]] {
        let refused = fail(&mut place.train("run", &more));
        assert!(refused.contains("--device cuda: CUDA is not available"), "{refused}");
        assert!(refused.contains("--features cuda"), "{refused}");
    }
    let refused = fail(&mut place.train("run", &["--set", "device=cud"]));
    assert!(refused.contains("did you mean `cuda`?"), "{refused}");
    assert!(!place.path("run").exists());
}
