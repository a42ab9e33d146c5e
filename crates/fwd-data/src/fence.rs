//! The fence around libraries that panic or never return on damaged files: JPEG, tokenizers, parquet. A panic becomes an error, and
//! what takes too long is given up.

use crate::excerpt::bounded;
use std::any::Any;
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

thread_local! {
    static IS_FENCED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs a library whose panics become errors of this crate. The panic hook of a program may keep silent then.
///
/// # Examples
/// ```
/// let report = std::panic::take_hook();
/// std::panic::set_hook(Box::new(move |panic| {
///     if !fwd_data::is_fenced() {
///         report(panic);
///     }
/// }));
/// ```
pub fn is_fenced() -> bool {
    IS_FENCED.get()
}

/// Runs what may panic; the message of a panic is the error, in one line of bounded length.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = IS_FENCED.replace(true);
    // The closure owns all that the library may leave half-made.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    IS_FENCED.set(before);
    outcome.map_err(|panic| bounded(message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown")
}

/// Runs what may panic or never return, in a thread of its own. A thread that takes longer goes on by itself, and nobody listens to it.
///
/// # Errors
/// The system's error if there is no thread to be had. Inside: the message of a panic, or that it took longer than `patience`.
pub(crate) fn in_time<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Result<T, String>> {
    let (sender, receiver) = mpsc::channel();
    let run = move || drop(sender.send(caught(work)));
    thread::Builder::new().name("fenced".into()).spawn(run)?;
    let late = || format!("it was not read within {} s", patience.as_secs());
    Ok(receiver.recv_timeout(patience).unwrap_or_else(|_| Err(late())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_delays_become_errors() {
        assert_eq!(caught(|| 1), Ok(1));
        assert!(caught(is_fenced).unwrap() && !is_fenced());
        let panics = || -> u8 { panic!("at {}\n", 3) };
        assert_eq!(caught(panics), Err("at 3 ".to_owned()));
        assert!(!is_fenced());
        let slow = || thread::sleep(Duration::from_secs(5));
        let outcome = in_time(Duration::from_millis(20), slow).unwrap();
        assert_eq!(outcome, Err("it was not read within 0 s".to_owned()));
        assert_eq!(in_time(Duration::from_secs(5), || 2).unwrap(), Ok(2));
    }
}
