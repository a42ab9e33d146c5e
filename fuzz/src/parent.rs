//! The process that supervises: it starts a child for each reader, and another one behind the input that ended it.

use crate::args::Args;
use crate::finding::{Failure, Finding};
use crate::reader::{Input, root};
use crate::readers;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Address space of the program, its libraries and its stacks, in MiB.
const PROGRAM_MIB: u64 = 384;

/// How long a child may prepare its reader.
const PREPARATION: Duration = Duration::from_secs(120);

/// After so many ended processes a reader is not tried any more.
const MAX_DEATHS: usize = 20;

/// What a child came to.
enum End {
    /// It read all that it should.
    Done,
    /// It ended, or was ended, while it read an input.
    Failed { number: u64, failure: Failure, message: String },
}

/// What became of the inputs of a reader.
#[derive(Debug, Default)]
struct Tally {
    inputs: u64,
    refused: u64,
    findings: Vec<(u64, Failure, String)>,
    deaths: usize,
}

/// Tries the readers, or a finding again. The exit code is 1 if anything was found.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let shm = Path::new("/dev/shm");
    let place = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
    let work = tempfile::Builder::new().prefix("fwd-fuzz-").tempdir_in(place)?;
    if let Some(path) = &args.replay {
        return replay(args, path, work.path());
    }
    let names: Vec<&str> = match args.reader.is_empty() {
        true => readers::ALL.iter().map(|(name, _)| *name).collect(),
        false => args.reader.iter().map(|name| readers::known(name)).collect::<Result<_>>()?,
    };
    let share = Duration::from_secs_f64(args.seconds / names.len() as f64);
    println!(
        "{:<16} {:>10} {:>8} {:>10} {:>9} {:>9}",
        "reader", "inputs", "/s", "refused", "findings", "kinds"
    );
    let (mut n_findings, mut n_inputs, began) = (0, 0, Instant::now());
    for name in names {
        let started = Instant::now();
        let tally = try_reader(args, name, work.path(), share)?;
        let seconds = started.elapsed().as_secs_f64();
        let kinds = save(args, name, work.path(), &tally)?;
        let (all, rate) = (tally.findings.len(), tally.inputs as f64 / seconds.max(1e-9));
        let n = tally.inputs;
        println!("{name:<16} {n:>10} {rate:>8.0} {:>10} {all:>9} {:>9}", tally.refused, kinds.len());
        for (path, n, finding) in &kinds {
            println!("    {} x{n}: {}\n        {}", finding.failure, finding.message, path.display());
        }
        if tally.deaths >= MAX_DEATHS {
            println!("    given up after {MAX_DEATHS} ended processes");
        }
        n_findings += kinds.len();
        n_inputs += n;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{n_inputs} inputs in {seconds:.0} s, seed {}: {n_findings} kinds of findings", args.seed);
    Ok(if n_findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads a finding again.
fn replay(args: &Args, path: &Path, work: &Path) -> Result<ExitCode> {
    let (finding, _) = Finding::read(path)?;
    let mut tally = Tally::default();
    let path = path.canonicalize()?;
    let more = ["--inputs".into(), "1".into(), "--replay".into(), path.display().to_string()];
    let end = supervise(args, &finding.reader, work, &more, &mut tally)?;
    if let End::Failed { failure, message, .. } = end {
        tally.findings.push((0, failure, message));
    }
    for (_, failure, message) in &tally.findings {
        println!("{failure}: {message}");
    }
    if tally.findings.is_empty() {
        println!("{}", if tally.refused > 0 { "refused, as it should be" } else { "accepted" });
    }
    Ok(if tally.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn try_reader(args: &Args, name: &str, work: &Path, share: Duration) -> Result<Tally> {
    let mut tally = Tally::default();
    let end = Instant::now() + share;
    let mut from = 0;
    loop {
        let budget = match args.inputs {
            Some(n) => ["--inputs".to_owned(), (n - from).to_string()],
            None => {
                let left = end.saturating_duration_since(Instant::now()).as_secs_f64();
                ["--seconds".to_owned(), left.to_string()]
            }
        };
        let more = [&budget[..], &["--from".to_owned(), from.to_string()]].concat();
        let End::Failed { number, failure, message } = supervise(args, name, work, &more, &mut tally)? else {
            return Ok(tally);
        };
        from = number + 1;
        tally.deaths += 1;
        // Once more, alone: a busy machine is no finding, nor is memory that earlier inputs took.
        let alone = ["--inputs", "1", "--from", &number.to_string()].map(str::to_owned);
        match supervise(args, name, work, &alone, &mut Tally::default())? {
            End::Failed { .. } => tally.findings.push((number, failure, message)),
            End::Done => {
                println!("    {name}: input {number} ended by a {failure} that did not come again: {message}")
            }
        }
        let is_over = args.inputs.map_or(Instant::now() >= end, |n| from >= n);
        if is_over || tally.deaths >= MAX_DEATHS {
            return Ok(tally);
        }
    }
}

/// Starts a child and listens to it until it ends.
fn supervise(args: &Args, name: &str, work: &Path, more: &[String], tally: &mut Tally) -> Result<End> {
    let mut child = start(args, name, work, more)?;
    let lines = lines(&mut child)?;
    let mut current = None;
    loop {
        let patience = if current.is_some() { Duration::from_secs_f64(args.limit) } else { PREPARATION };
        let line = match lines.recv_timeout(patience) {
            Ok(line) => line,
            Err(error) => {
                child.kill()?;
                let mut errors = String::new();
                child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut errors)).transpose()?;
                let status = child.wait()?;
                let Some(number) = current else { bail!("{name} cannot be prepared: {status}\n{errors}") };
                let is_said = |line: &&str| !line.trim().is_empty() && !line.starts_with("note:");
                let last = errors.lines().rfind(is_said).unwrap_or_default();
                let (failure, message) = match error {
                    RecvTimeoutError::Timeout => (Failure::Hang, format!("more than {} s", args.limit)),
                    RecvTimeoutError::Disconnected => (Failure::Death, format!("{status}: {last}")),
                };
                return Ok(End::Failed { number, failure, message });
            }
        };
        let (what, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (what, current) {
            ("input", _) => {
                current = Some(rest.parse()?);
                tally.inputs += 1;
            }
            ("refused", _) => tally.refused += 1,
            ("panic", Some(number)) => tally.findings.push((number, Failure::Panic, rest.to_owned())),
            ("message", Some(number)) => {
                tally.refused += 1;
                if args.messages {
                    tally.findings.push((number, Failure::Message, rest.to_owned()));
                }
            }
            ("end", _) => {
                ensure!(child.wait()?.success(), "{name}: a child ended badly after its last input");
                return Ok(End::Done);
            }
            _ => {} // Something that a reader printed.
        }
    }
}

fn start(args: &Args, name: &str, work: &Path, more: &[String]) -> Result<Child> {
    let limit = (args.memory + PROGRAM_MIB) << 10;
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -c 0; ulimit -v {limit}; exec \"$@\""), "sh"]);
    command.arg(std::env::current_exe()?).arg("--work").arg(work).args(["--reader", name]);
    command.args(["--seed", &args.seed.to_string()]).args(more);
    // One thread, and one arena of glibc's, so that the limit is that of the reader.
    command.env("RAYON_NUM_THREADS", "1").env("CANDLE_NUM_THREADS", "1").env("MALLOC_ARENA_MAX", "1");
    command.env_remove("RUST_MIN_STACK").env("RUST_BACKTRACE", "0");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start a child")
}

/// The lines of a child, read on a thread of their own.
fn lines(child: &mut Child) -> Result<Receiver<String>> {
    let out = child.stdout.take().context("a child has no output")?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

/// Writes down the first finding of each kind. Its path and how many there are.
fn save(args: &Args, name: &str, work: &Path, tally: &Tally) -> Result<Vec<(PathBuf, usize, Finding)>> {
    let mut kinds: BTreeMap<(Failure, String), (usize, Finding)> = BTreeMap::new();
    if tally.findings.is_empty() {
        return Ok(Vec::new());
    }
    let reader = readers::open(name, work)?;
    let input = |number| reader.damaged(&mut fwd_continual::stream(args.seed, name, [number, 0]));
    for (number, failure, message) in &tally.findings {
        let Input { file, is_repaired, .. } = input(*number);
        let (reader, message) = (name.to_owned(), message.clone());
        let finding = Finding {
            reader,
            seed: args.seed,
            number: *number,
            file,
            is_repaired,
            failure: *failure,
            message,
        };
        kinds.entry(finding.kind()).or_insert((0, finding)).0 += 1;
    }
    let dir = root().join("target/fuzz/findings");
    kinds
        .into_values()
        .map(|(n, finding)| Ok((finding.save(&dir, &input(finding.number))?, n, finding)))
        .collect()
}
