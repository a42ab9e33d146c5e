//! Threads and stacks as the tensor libraries need them, whoever starts the program.

use anyhow::{Context, Result, anyhow};
use std::process::Command;

/// Variables that libraries read when the process starts, and what the program wants them to be.
///
/// candle has a thread pool of its own, which spins beside rayon's and takes its time. The allocator gives memory back to the system
/// that was not used for this many milliseconds; as little as it waits by itself (10) has a step clear anew the pages that the
/// one before gave back.
const ENVIRONMENT: [(&str, &str); 2] = [("CANDLE_NUM_THREADS", "1"), ("MIMALLOC_PURGE_DELAY", "10000")];

/// candle's backward walk recurses over the graph.
const STACK: usize = 64 << 20;

/// Threads of the pool nest: one that waits takes up another's work.
const POOL_STACK: usize = 16 << 20;

/// What a system that refuses a thread is short of.
const TOO_LITTLE: &str =
    "cannot start threads: the system allows too little memory or too few of them (ulimit -v, ulimit -u)";

/// Starts the program again with the environment it needs, in this process' place, unless all of it is set already.
///
/// The environment of a running process cannot be changed safely. If the restart fails, the program goes on and is only slower.
pub(crate) fn restart_with_environment() {
    let missing: Vec<_> =
        ENVIRONMENT.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut again = Command::new(program);
    again.args(std::env::args_os().skip(1)).envs(missing);
    replace(&mut again);
}

/// Keeps the process and its id, so that signals reach the same program.
#[cfg(unix)]
fn replace(again: &mut Command) {
    use std::os::unix::process::CommandExt;
    let _ = again.exec();
}

#[cfg(not(unix))]
fn replace(again: &mut Command) {
    if let Ok(status) = again.status() {
        std::process::exit(status.code().unwrap_or(1));
    }
}

/// Runs `work` on a thread with a large stack, and gives rayon's pool one as well.
///
/// # Errors
/// Those of `work`, or if no thread can be had.
pub(crate) fn with_large_stack<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    rayon::ThreadPoolBuilder::new().stack_size(POOL_STACK).build_global().context(TOO_LITTLE)?;
    let thread = std::thread::Builder::new().name("work".into()).stack_size(STACK).spawn(work);
    let ended = thread.context(TOO_LITTLE)?.join();
    ended.map_err(|_| {
        anyhow!("the program has a defect (see the message above); the run directory is intact")
    })?
}
