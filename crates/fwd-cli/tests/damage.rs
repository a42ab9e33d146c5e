//! Full disks, locked folders, shared folders and damaged files: every command says what is wrong, and nothing whole is lost.

#![cfg(unix)]
#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, fail, files, stderr, succeed};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Two finished runs.
fn runs() -> Place {
    let place = Place::new();
    for (out, method) in [("a", "fwd"), ("b", "sequential")] {
        succeed(&mut place.train(out, &["--steps", "2", "--method", method]));
    }
    place
}

/// The commands that write into a place that is named, but for the trainings, with that place.
fn writers<'a>(out: &'a str, file: &'a str) -> [(Vec<&'a str>, &'a str); 6] {
    [
        (vec!["eval", "a", "--predictions", out], out),
        (vec!["inspect", "a", "--out", out], out),
        (vec!["analyze", "--run", "a", "--out", out], out),
        (vec!["report", "a", "b", "--out", out], out),
        (vec!["compare", "a", "b", "--out", file], file),
        (vec!["data", "convert", "bench", out, "--to", "coin"], out),
    ]
}

/// The same command where no file can grow; the signal that the system sends then is ignored, so that the write fails instead.
fn on_a_full_disk(place: &Place, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]).arg(command.get_program());
    limited.args(command.get_args()).current_dir(place.path(".")).env("RAYON_NUM_THREADS", "2");
    limited
}

#[test]
fn on_a_full_disk_every_command_says_so_and_keeps_what_is_there() {
    let place = runs();
    // Features for the commands that need some.
    for (args, out) in writers("made", "made.txt") {
        let mut command = place.program(&args);
        let refused = fail(&mut on_a_full_disk(&place, &command));
        assert!(refused.contains("help: there is no room"), "{args:?}: {refused}");
        let left = files(&place.path("."));
        assert!(left.keys().all(|file| !file.contains(".tmp")), "{args:?}: {left:?}");
        succeed(&mut command);
        let whole = files(&place.path("."));
        let refused = fail(&mut on_a_full_disk(&place, &command));
        let expected =
            if args[0] == "data" { "something is there already" } else { "help: there is no room" };
        assert!(refused.contains(expected), "{args:?}: {refused}");
        assert!(files(&place.path(".")) == whole, "{args:?} has changed files");
        let made = place.path(out);
        if made.is_dir() { fs::remove_dir_all(made).unwrap() } else { fs::remove_file(made).unwrap() }
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named_by_every_command() {
    use std::os::unix::fs::PermissionsExt;
    let place = runs();
    let locked = place.path("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    // The superuser may write there; some folders refuse even that one.
    let is_superuser = fs::write(locked.join("probe"), "").is_ok();
    let dir = if is_superuser { Path::new("/sys").to_path_buf() } else { locked };
    let (out, file) = (dir.join("fwd-prompt"), dir.join("fwd-prompt.txt"));
    for (args, path) in writers(out.to_str().unwrap(), file.to_str().unwrap()) {
        let refused = fail(&mut place.program(&args));
        let is_named = refused.contains(path) || refused.contains(dir.to_str().unwrap());
        assert!(is_named && refused.contains("help: choose a folder"), "{args:?}: {refused}");
    }
    // Features that cannot be kept cost time, not the run.
    let output = place.train("c", &["--steps", "2", "--cache", out.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("features are not kept for the next run"), "{}", stderr(&output));
    assert_eq!(place.metrics_bytes("c"), place.metrics_bytes("a"));
}

#[test]
fn two_runs_that_share_their_features_end_as_one_alone() {
    let place = Place::new();
    succeed(&mut place.train("whole", &["--cache", "own"]));
    let start = |out| {
        let mut command = place.train(out, &["--cache", "shared"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let both = ["a", "b"].map(start);
    for mut child in both {
        assert!(child.wait().unwrap().success());
    }
    for run in ["a", "b"] {
        assert_eq!(place.metrics_bytes(run), place.metrics_bytes("whole"));
    }
    assert!(files(&place.path("shared")) == files(&place.path("own")), "other features");
}

/// All files below a folder, changed by their number.
fn damage(dir: &Path, change: impl Fn(usize, Vec<u8>) -> Vec<u8>) -> usize {
    let all = files(dir);
    for (i, (name, bytes)) in all.iter().enumerate() {
        fs::write(dir.join(name), change(i, bytes.clone())).unwrap();
    }
    all.len()
}

#[test]
fn damaged_features_of_images_are_computed_anew() {
    let place = Place::new();
    let train = |out| succeed(&mut place.train(out, &["--steps", "2", "--method", "finetune"]));
    train("a");
    let kept = files(&place.path(".fwd-cache"));
    let n = damage(&place.path(".fwd-cache"), |i, mut bytes| {
        match i % 4 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes[20] ^= 0x10,
            2 => bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes()),
            _ => bytes.clear(),
        }
        bytes
    });
    assert!(n > 4, "{n} files");
    train("b");
    assert_eq!(place.metrics_bytes("a"), place.metrics_bytes("b"));
    assert!(files(&place.path(".fwd-cache")) == kept, "they are not whole again");
}

#[test]
fn every_damage_of_a_state_is_named() {
    let place = Place::new();
    succeed(&mut place.train("run", &[]));
    // As if it had not finished.
    fs::remove_file(place.path("run/metrics.json")).unwrap();
    let state = place.path("run/state");
    let whole = files(&state);
    let tensors = whole.keys().find(|name| name.ends_with(".safetensors")).unwrap();
    let changed = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole[name].clone();
        change(&mut bytes);
        fs::write(state.join(name), bytes).unwrap();
        let refused = fail(&mut place.train("run", &[]));
        assert!(refused.contains(name) && refused.contains("delete run"), "{refused}");
        fs::write(state.join(name), &whole[name]).unwrap();
    };
    for name in [tensors.as_str(), "state.json"] {
        for at in [0, 1, 2, 3, 4].map(|part| part * (whole[name].len() - 1) / 4) {
            changed(name, &|bytes| bytes[at] ^= 4);
            changed(name, &|bytes| bytes.truncate(at));
        }
    }
    fs::remove_file(state.join(tensors)).unwrap();
    let refused = fail(&mut place.train("run", &[]));
    assert!(refused.contains(tensors.as_str()), "{refused}");
    fs::write(state.join(tensors), &whole[tensors]).unwrap();
    succeed(&mut place.train("run", &[]));
}
