//! The process that reads: it says before each input which one it is, so that its end can be explained, and what panicked.

use crate::args::Args;
use crate::finding::Finding;
use crate::reader::{Input, Reader};
use crate::readers;
use anyhow::{Context, Result};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Errors longer than this are no sentence any more, in bytes.
const LONGEST_MESSAGE: usize = 4096;

/// As the program gives its own work.
const STACK: usize = 64 << 20;

/// The last panic's message.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Reads inputs as the arguments say, on a thread with the stack of the program's.
pub(crate) fn run(args: &Args, work: &Path) -> Result<()> {
    std::panic::set_hook(Box::new(|info| {
        if let Ok(mut message) = PANIC.lock() {
            *message = info.to_string();
        }
    }));
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || read_all(args, work))?;
        thread
            .join()
            .unwrap_or_else(|_| anyhow::bail!("the harness itself panicked: {}", one_line(&last_panic())))
    })
}

fn read_all(args: &Args, work: &Path) -> Result<()> {
    let replayed = args.replay.as_deref().map(Finding::read).transpose()?;
    let name = args.reader.first().context("a child needs a reader")?;
    let mut reader = readers::open(name, work)?;
    let end = Instant::now() + Duration::from_secs_f64(args.seconds);
    let (mut accepted, mut number) = (0, args.child.from);
    loop {
        let is_over = match args.inputs {
            Some(n) => number >= args.child.from + n,
            None => Instant::now() >= end,
        };
        if is_over {
            return say(&format!("end {accepted}"));
        }
        say(&format!("input {number}"))?;
        let input = match &replayed {
            Some((_, input)) => input.clone(),
            None => reader.damaged(&mut fwd_continual::stream(args.seed, name, [number, 0])),
        };
        if let Some(said) = read_one(&mut reader, &input) {
            say(&said)?;
        } else {
            accepted += 1;
        }
        number += 1;
    }
}

/// What there is to say about an input; nothing if it was accepted.
fn read_one(reader: &mut Reader, input: &Input) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| reader.read(input))) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            let text = format!("{error:#}");
            let is_broken = text.contains(|c: char| c.is_control() && c != '\n');
            let begin: String = text.chars().take(300).collect();
            Some(match () {
                () if text.len() > LONGEST_MESSAGE => {
                    format!("message {}", one_line(&format!("{} bytes: {begin}", text.len())))
                }
                () if is_broken => format!(
                    "message {}",
                    one_line(&format!("control characters: {}", begin.escape_default()))
                ),
                () => "refused".to_owned(),
            })
        }
        Err(_) => Some(format!("panic {}", one_line(&last_panic()))),
    }
}

fn last_panic() -> String {
    PANIC.lock().map(|message| message.clone()).unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(600).collect()
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
