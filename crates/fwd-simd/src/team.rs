//! Fork-join for sections of a few microseconds: the products of one generated token.
//!
//! rayon puts idle threads to sleep, and waking one costs 5–50 µs, as much as a small product itself. Here a thread that has finished its
//! share spins for [`SPIN`] before it goes to sleep, so that in a run of sections the next one begins within a microsecond. Every share has
//! its thread: the same part of a matrix is read by the same one each time. The calling thread takes share 0, and then those whose threads
//! have not begun (they sleep, or the machine is busy with something else); so a section never waits for a thread to wake up.
//!
//! There is one team in a process, for one section at a time. A section that begins while another one runs (from within it, or from another
//! thread) is run by its caller alone.
#![allow(unsafe_code)]

use faer::MatMut;
use faer::prelude::IntoConst;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, OnceLock, TryLockError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a thread looks out for its next share before it goes to sleep.
const SPIN: Duration = Duration::from_micros(100);
/// Looks between two looks at the clock, or before a waiting caller lets other threads have its processor.
const LOOKS: u32 = 64;

/// A section: what every share runs, and the first panic of one.
struct Job<'a> {
    body: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    fn run(&self, share: usize) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.body)(share))) {
            // What is not kept is forgotten: its destructor might panic too.
            match self.panic.try_lock() {
                Ok(mut first) if first.is_none() => *first = Some(panic),
                _ => std::mem::forget(panic),
            }
        }
    }
}

/// Where a thread is handed its share: idle, asleep, at work, or the address of a job that has not begun.
#[repr(align(128))]
struct Seat {
    state: AtomicPtr<Job<'static>>,
    thread: OnceLock<Thread>,
}

fn idle() -> *mut Job<'static> {
    null_mut()
}

fn asleep() -> *mut Job<'static> {
    without_provenance_mut(1)
}

fn at_work() -> *mut Job<'static> {
    without_provenance_mut(2)
}

impl Seat {
    /// A seat with a thread, or `None` if the system gives no more of them.
    fn with_thread(share: usize) -> Option<Arc<Self>> {
        let seat = Arc::new(Self { state: AtomicPtr::new(idle()), thread: OnceLock::new() });
        let its = Arc::clone(&seat);
        let builder = std::thread::Builder::new().name(format!("fwd-team-{share}"));
        let handle = builder.spawn(move || its.serve(share)).ok()?;
        let _ = seat.thread.set(handle.thread().clone());
        Some(seat)
    }

    /// What the thread does for good.
    fn serve(&self, share: usize) {
        let mut idle_since = Instant::now();
        loop {
            for _ in 0..LOOKS {
                let seen = self.state.load(Ordering::Relaxed);
                if seen != idle()
                    && let Ok(job) =
                        self.state.compare_exchange(seen, at_work(), Ordering::Acquire, Ordering::Relaxed)
                {
                    // SAFETY: the state was a job and not a mark, for only this thread sets the marks. Its caller waits in `fork` until
                    // the state is no longer `at_work`, so the job and what it borrows live until the store below.
                    unsafe { &*job }.run(share);
                    self.state.store(idle(), Ordering::Release);
                    idle_since = Instant::now();
                }
                std::hint::spin_loop();
            }
            if idle_since.elapsed() > SPIN && self.change(idle(), asleep()) {
                while self.state.load(Ordering::Acquire) == asleep() {
                    std::thread::park();
                }
                idle_since = Instant::now();
            }
        }
    }

    fn change(&self, from: *mut Job<'static>, to: *mut Job<'static>) -> bool {
        self.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Hands the thread a job; it must have finished the one before.
    fn offer(&self, job: *mut Job<'static>) {
        if self.state.swap(job, Ordering::AcqRel) == asleep()
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Waits until the thread has finished.
    fn wait(&self) {
        let mut looks = 0u32;
        while self.state.load(Ordering::Acquire) == at_work() {
            looks = looks.saturating_add(1);
            // A thread that is slow may wait for this processor.
            if looks > LOOKS * LOOKS { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

/// The threads of the shares from 1 on; locked while a section runs.
static TEAM: Mutex<Vec<Arc<Seat>>> = Mutex::new(Vec::new());

/// Shares that are worth having: the threads of the current rayon pool, but no more than there are processors.
pub fn members() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    let processors = *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
    rayon::current_num_threads().min(processors)
}

/// Runs `body(0) … body(n - 1)`, each once, side by side if the team is free, and returns when all have ended.
///
/// For sections of microseconds that follow each other closely. Long ones belong to rayon, whose threads can help each other. A share must
/// neither wait for another one, which may come after it on the same thread, nor hand work to rayon, whose threads may be those that wait here.
///
/// # Panics
/// With the first panic of a share, after all shares have ended.
pub fn fork(n: usize, body: impl Fn(usize) + Sync) {
    let team = match TEAM.try_lock() {
        _ if n <= 1 => None,
        Ok(team) => Some(team),
        Err(TryLockError::Poisoned(team)) => Some(team.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    };
    let Some(mut team) = team else { return (0..n).for_each(body) };
    // Threads for as many shares as run side by side; where the system gives none, it is not asked again.
    let wanted = members().min(n).saturating_sub(1);
    static REFUSED: AtomicBool = AtomicBool::new(false);
    while team.len() < wanted && !REFUSED.load(Ordering::Relaxed) {
        match Seat::with_thread(team.len() + 1) {
            Some(seat) => team.push(seat),
            None => REFUSED.store(true, Ordering::Relaxed),
        }
    }
    let seats = &team[..team.len().min(wanted)];
    let job = Job { body: &body, panic: Mutex::new(None) };
    let address = std::ptr::from_ref(&job).cast::<Job<'static>>().cast_mut();
    seats.iter().for_each(|seat| seat.offer(address));
    job.run(0);
    // Shares for which there is no thread.
    (seats.len() + 1..n).for_each(|share| job.run(share));
    for (i, seat) in seats.iter().enumerate() {
        if seat.change(address, idle()) {
            job.run(i + 1);
        }
    }
    // Nothing in here panics before every thread has let go of the job: `Job::run` catches what its body throws.
    seats.iter().for_each(|seat| seat.wait());
    drop(team);
    if let Some(panic) = job.panic.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        resume_unwind(panic);
    }
}

/// The items `from .. to` of share `i` of `n`, of `n_items` in all.
fn share(i: usize, n: usize, n_items: usize) -> [usize; 2] {
    [i, i + 1].map(|i| (n_items as u128 * i as u128 / n as u128) as usize)
}

/// Shares out the columns of `y` in runs of whole units of `unit` columns: `body(first, columns)` writes those from `first` on.
///
/// With `max_members = 1` all of it runs on the calling thread.
///
/// # Panics
/// If `unit` is 0, or with the first panic of `body`.
pub fn fork_columns<E: Send + Sync>(
    y: MatMut<'_, E>,
    unit: usize,
    max_members: usize,
    body: impl Fn(usize, MatMut<'_, E>) + Sync,
) {
    let (n_columns, n_units) = (y.ncols(), y.ncols().div_ceil(unit));
    let n = members().min(max_members).min(n_units);
    if n <= 1 {
        return body(0, y);
    }
    let y = y.into_const();
    fork(n, |i| {
        let [from, to] = share(i, n, n_units).map(|at| (at * unit).min(n_columns));
        // SAFETY: `y` was an exclusive view, and no one else has it now; the shares are runs of columns of which no two overlap, and `fork`
        // runs each of them once.
        let columns = unsafe { y.subcols(from, to - from).const_cast() };
        body(from, columns);
    });
}

/// Shares out a slice in runs of whole chunks of `chunk` elements: `body(first, elements)` writes those from chunk `first` on.
///
/// With `max_members = 1` all of it runs on the calling thread.
///
/// # Panics
/// If `chunk` is 0, or with the first panic of `body`.
pub fn fork_chunks<T: Send + Sync>(
    slice: &mut [T],
    chunk: usize,
    max_members: usize,
    body: impl Fn(usize, &mut [T]) + Sync,
) {
    let n = slice.len();
    let rows = MatMut::from_column_major_slice_mut(slice, 1, n);
    fork_columns(rows, chunk, max_members, |from, columns| {
        let n = columns.ncols();
        // SAFETY: the columns of a matrix of one row made of a slice lie side by side, and this view of them is exclusive.
        let run = unsafe { std::slice::from_raw_parts_mut(columns.as_ptr_mut(), n) };
        body(from / chunk, run);
    });
}
