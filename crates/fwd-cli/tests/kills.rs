//! Commands that are killed at random moments and started again write what undisturbed ones write, and leave nothing behind.
//!
//! `cargo xtask kills --n 200` kills more often; `--commands` chooses, `--seed` draws other moments.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A helper of a test may panic; what was tried is a report.

mod common;

use common::{Place, RECIPE, files, stderr, succeed};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A command that is killed.
struct Killed {
    name: &'static str,
    /// The command with the name of what it writes.
    start: fn(&Place, &str) -> Command,
    /// Whether it writes one file of that name, or a folder.
    writes: Writes,
    /// Whether an end before the kill leaves something that the command refuses to write again.
    is_final: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Writes {
    File,
    Folder,
}

const COMMANDS: [Killed; 9] = [
    Killed {
        name: "train",
        start: |place, out| place.train(out, &["--steps", "12"]),
        writes: Writes::Folder,
        is_final: true,
    },
    Killed {
        name: "finetune",
        start: |place, out| place.train(out, &["--steps", "12", "--method", "finetune"]),
        writes: Writes::Folder,
        is_final: true,
    },
    Killed {
        name: "lora",
        start: |place, out| place.train(out, &["--steps", "12", "--method", "o-lora"]),
        writes: Writes::Folder,
        is_final: true,
    },
    Killed {
        name: "pretrain",
        start: |place, out| {
            place.program(&["pretrain", "--out", out, "--recipe", "recipe.toml", "--bench", "bench"])
        },
        writes: Writes::Folder,
        is_final: true,
    },
    Killed {
        name: "eval",
        // Each time without features, so that they are computed and kept, too.
        start: |place, out| {
            let cache = format!("{out}/.fwd-cache");
            place.program(&["eval", "done", "--split", "val", "--predictions", out, "--cache", &cache])
        },
        writes: Writes::Folder,
        is_final: false,
    },
    Killed {
        name: "inspect",
        start: |place, out| place.program(&["inspect", "done", "--out", out]),
        writes: Writes::Folder,
        is_final: false,
    },
    Killed {
        name: "compare",
        start: |place, out| place.program(&["compare", "done", "other", "--format", "csv", "--out", out]),
        writes: Writes::File,
        is_final: false,
    },
    Killed {
        name: "report",
        start: |place, out| place.program(&["report", "done", "other", "--out", out]),
        writes: Writes::Folder,
        is_final: false,
    },
    Killed {
        name: "convert",
        start: |place, out| place.program(&["data", "convert", "bench", out, "--to", "coin"]),
        writes: Writes::Folder,
        is_final: true,
    },
];

/// Every command once; `FWD_KILLS` kills in all if that is set, of the commands `FWD_KILLS_COMMANDS`.
#[test]
fn killed_at_random_moments_every_command_ends_as_the_undisturbed_one() {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let chosen = variable("FWD_KILLS_COMMANDS");
    let is_chosen =
        |name: &str| chosen.as_ref().is_none_or(|all| all.split(',').any(|chosen| chosen == name));
    let commands: Vec<&Killed> = COMMANDS.iter().filter(|command| is_chosen(command.name)).collect();
    assert!(!commands.is_empty(), "{chosen:?} names no command");
    let n_kills = variable("FWD_KILLS").map_or(commands.len(), |n| n.parse().unwrap());
    let seed: u64 = variable("FWD_KILLS_SEED").map_or(0, |seed| seed.parse().unwrap());
    let place = Place::new();
    fs::write(place.path("recipe.toml"), RECIPE).unwrap();
    for (out, method) in [("done", "fwd"), ("other", "sequential")] {
        succeed(&mut place.train(out, &["--steps", "2", "--method", method]));
    }
    for (i, command) in commands.iter().enumerate() {
        let began = Instant::now();
        succeed(&mut (command.start)(&place, "whole"));
        let (duration, whole) = (began.elapsed(), written(&place, command, "whole"));
        assert!(!whole.is_empty(), "{} writes nothing", command.name);
        let n = n_kills / commands.len() + usize::from(i < n_kills % commands.len());
        for kill in 0..n {
            let moment = duration.mul_f64(share(seed, i, kill));
            kill_and_compare(&place, command, moment, &whole);
        }
        println!("{}: {n} kills within {} ms", command.name, duration.as_millis());
        remove(&place, command, "whole");
    }
}

fn kill_and_compare(place: &Place, command: &Killed, moment: Duration, whole: &BTreeMap<String, Vec<u8>>) {
    let name = command.name;
    let mut child =
        (command.start)(place, "again").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(moment);
    child.kill().unwrap();
    let was_finished = child.wait().unwrap().success();
    let second = (command.start)(place, "again").output().unwrap();
    if !(was_finished && command.is_final) {
        // A final result may have been complete although its process was killed.
        let is_complete = command.is_final && written(place, command, "again") == *whole;
        assert!(
            second.status.success() || is_complete,
            "{name}, killed after {moment:?}: {}",
            stderr(&second)
        );
    }
    let again = written(place, command, "again");
    let differs: Vec<_> =
        whole.keys().chain(again.keys()).filter(|file| whole.get(*file) != again.get(*file)).collect();
    assert!(differs.is_empty(), "{name}, killed after {moment:?}, wrote other bytes into {differs:?}");
    let left: Vec<String> =
        files(&place.path(".")).into_keys().filter(|file| file.contains(".tmp")).collect();
    assert!(left.is_empty(), "{name}, killed after {moment:?}, left {left:?}");
    remove(place, command, "again");
}

/// What a command wrote, but for what the clock, the machine and the way there decide: seconds, log, lock and cache.
fn written(place: &Place, command: &Killed, out: &str) -> BTreeMap<String, Vec<u8>> {
    let path = place.path(out);
    if command.writes == Writes::File {
        return fs::read(&path).map(|bytes| (out.replace("again", "whole"), bytes)).into_iter().collect();
    }
    let mut all = files(&path);
    all.retain(|file, _| {
        !file.starts_with(".fwd-cache/")
            && !["timing.json", "log.txt", "lock", "manifest.json"].contains(&file.as_str())
    });
    all
}

fn remove(place: &Place, command: &Killed, out: &str) {
    match command.writes {
        Writes::File => fs::remove_file(place.path(out)).unwrap(),
        Writes::Folder => fs::remove_dir_all(place.path(out)).unwrap(),
    }
}

/// A number from 0 to 1, the same for the same kill: SplitMix64.
fn share(seed: u64, command: usize, kill: usize) -> f64 {
    let mut z = (seed << 40 | (command as u64) << 32 | kill as u64)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
}
