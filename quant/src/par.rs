//! The thread pool: the only file that names it.
//!
//! A model's forward pass is a few hundred short parallel steps; a fork and join through a work
//! stealing scheduler costs 10 to 30 microseconds each, as much as the step. So the pool's threads
//! are entered once, when the [`Pool`] is made, and stay in a loop of their own. The thread that
//! calls [`Pool::scope`] leads: it publishes a step as a closure over chunk numbers and works on
//! the chunks itself. Threads take chunks one at a time, so a slow or busy core takes fewer, and a
//! worker that the system has not scheduled holds nobody up: the leader waits for the chunks that
//! were taken, and no more than microseconds for a thread to arrive. Each thread has a range of the chunks of its own, which
//! it takes in order, and helps others when that is done: it reads memory in long runs, and the
//! same part of the same weights in every pass.
//!
//! # The protocol
//!
//! `step` packs the number of the current step (48 bits: at a microsecond each they last nine years) and
//! its chunks (16 bits); storing it is what hands a step out. `left` of each thread packs a number of a step and how many chunks of the
//! thread's range were not claimed in it; that of an older step stands for the whole range. A chunk is
//! claimed by decrementing `left` with compare-and-swap, by the thread itself or by one that helps. In a
//! step that is over every range's `left` is 0 or of a later step, so a thread that comes late claims
//! nothing; only a thread that holds a claim reads `job`. `finished` of each thread says how many chunks
//! it has run in a step, and the leader replaces `job` only after the sum says that all of them are. So a
//! job is never read and written at once, and no closure is called after [`Team::run`] returns.
//!
//! A thread claims its own chunks on a line that others look at only when they have none left, and counts
//! them on a line that only the leader reads. (With one counter for all, the chunks of a step waited for
//! each other: `siskin bench --shape smollm2-135m --type q4_1 -p 0` took 1.03 to 1.05 times as long on 2
//! cores.)
//!
//! A step's number, chunks and job lie on one line. In steps of several chunks for each thread, one that helps
//! leaves the last unclaimed chunk of a range to its owner, which is about to claim it and would wait for the
//! line. Only the leader takes that one too, after some microseconds, since the owner may have been descheduled. (On two cores of a server that
//! do not share a third-level cache, where a line takes 220 ns from one to the other, `siskin bench -p 16 -n 96`
//! of SmolLM2-135M was 1.01 times as fast in the prompt and 1.03 in decoding so.)
//!
//! A worker without a chunk spins, then yields, then sleeps on a condition variable; nothing is
//! allocated and no system call is made while steps follow each other closely, and an idle pool
//! uses no CPU. A wake-up that is lost costs time, never the result: the leader does without.
//!
//! [loom](https://docs.rs/loom) tries the interleavings of it in `loom_tests`; CONTRIBUTING.md has
//! the command.

use crate::buffer::{Buffer, OutOfMemory};
use std::cmp::Ordering::{Equal, Greater, Less};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, PoisonError};
use sync::{
    AtomicBool, AtomicU32, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, UnsafeCell, spin_loop,
    yield_now,
};

/// What the protocol is built of: the standard library's.
#[cfg(not(loom))]
mod sync {
    pub use std::hint::spin_loop;
    pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    pub use std::sync::{Condvar, Mutex, MutexGuard};
    pub use std::thread::yield_now;

    /// With the interface of loom's.
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// Turns of the spin loop before a worker yields: about 50 microseconds.
    pub const SPINS: u32 = 2_000;
    /// Yields before a worker sleeps.
    pub const YIELDS: u32 = 60;
    /// Turns of its spin loop after which the leader takes a chunk that another thread has left for itself: some
    /// microseconds.
    pub const PATIENCE: u32 = 100;
}

/// The same of loom's, with less patience, so that sleeping is among what it tries.
#[cfg(loom)]
mod sync {
    pub use loom::cell::UnsafeCell;
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
    pub use loom::thread::yield_now;

    pub const SPINS: u32 = 1;
    pub const YIELDS: u32 = 1;
    pub const PATIENCE: u32 = 1;
}

use sync::{PATIENCE, SPINS, YIELDS};

/// Bytes of a thread's scratch memory, see [`Scratch`].
pub const SCRATCH_BYTES: usize = 256 * 1024;

/// A pair of cache lines, which some CPUs fetch together: what a thread writes shares none.
#[repr(align(128))]
struct Line<T>(T);

/// Memory that one thread uses within a chunk: [`SCRATCH_BYTES`] bytes, aligned to 64. Its content
/// is unspecified when a chunk begins.
pub struct Scratch(Buffer);

impl Scratch {
    /// Allocates.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new() -> Result<Scratch, OutOfMemory> {
        // loom makes a hundred thousand pools, whose chunks need none.
        Buffer::zeroed(if cfg!(loom) { 0 } else { SCRATCH_BYTES }).map(Scratch)
    }

    /// The first byte; aligned to 64, valid for [`SCRATCH_BYTES`].
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_bytes_mut().as_mut_ptr()
    }

    /// The memory as `f32`.
    pub fn as_f32(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.0.as_bytes_mut())
    }
}

type Job = dyn Fn(usize, &mut Scratch) + Sync;

/// The current step: one line, so that a thread that sees a step has its job too.
struct Current {
    /// Its number and chunks.
    step: AtomicU64,
    /// Borrowed from the stack frame of `Team::run`; read only under a claim.
    job: UnsafeCell<Option<*const Job>>,
}

struct Shared {
    current: Line<Current>,
    /// Of each thread's range, the chunks that nobody claimed, with the step's number.
    left: Vec<Line<AtomicU64>>,
    /// The chunks that each thread has run, with the step's number; written by that thread alone.
    finished: Vec<Line<AtomicU64>>,
    sleepers: AtomicU32,
    /// Workers that have arrived; starting them allocates.
    started: AtomicU32,
    panicked: AtomicBool,
    exit: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written by the leader while no chunk is claimed or claimable, and read by
// threads that hold a claim (see the module's documentation); the rest is atomic. The closure
// behind the pointer is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is not used to own anything.
unsafe impl Send for Shared {}

/// Where the range of thread `t` of `threads` begins, of `n` chunks.
fn first_chunk(t: usize, n: usize, threads: usize) -> usize {
    (t as u64 * n as u64 / threads as u64) as usize
}

/// Bits of a word that count chunks.
const CHUNK_BITS: u32 = 16;
/// Chunks of a step that is handed out, at the most.
const MAX_CHUNKS: usize = (1 << CHUNK_BITS) - 1;

/// A step as one thread sees it.
#[derive(Clone, Copy)]
struct Step {
    number: u64,
    chunks: u16,
}

impl Step {
    /// From its word.
    fn unpack(word: u64) -> Step {
        Step { number: word >> CHUNK_BITS, chunks: word as u16 }
    }

    /// A word with the step's number and `low`.
    fn word(self, low: u16) -> u64 {
        self.number << CHUNK_BITS | u64::from(low)
    }
}

impl Shared {
    fn new(n_threads: usize) -> Shared {
        let lines = || (0..n_threads).map(|_| Line(AtomicU64::new(0))).collect();
        Shared {
            current: Line(Current { step: AtomicU64::new(0), job: UnsafeCell::new(None) }),
            left: lines(),
            finished: lines(),
            sleepers: AtomicU32::new(0),
            started: AtomicU32::new(0),
            panicked: AtomicBool::new(false),
            exit: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// Claims the next chunk of thread `t`'s range in `step`, if `least` or more are not
    /// claimed.
    fn claim(&self, step: Step, t: usize, least: u16) -> Option<usize> {
        let (n, threads) = (step.chunks as usize, self.left.len());
        let end = first_chunk(t + 1, n, threads);
        // Not above `chunks`, so that it fits.
        let all = (end - first_chunk(t, n, threads)) as u16;
        let mut now = self.left[t].0.load(Ordering::Relaxed);
        loop {
            let Step { number, chunks } = Step::unpack(now);
            let left = match number.cmp(&step.number) {
                Less => all,
                Equal => chunks,
                // This thread comes late.
                Greater => 0,
            };
            if left < least {
                return None;
            }
            let less = step.word(left - 1);
            match self.left[t].0.compare_exchange_weak(
                now,
                less,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(end - left as usize),
                Err(other) => now = other,
            }
        }
    }

    /// Runs a chunk of the current step, which the caller has claimed.
    fn run(&self, chunk: usize, scratch: &mut Scratch) {
        // SAFETY: this thread holds a claim on the step whose job this is, so the leader neither
        // writes the cell nor leaves `Team::run`, which borrows the closure, until `finished` counts it.
        let job = self.current.0.job.with(|job| unsafe { &*(*job).unwrap_unchecked() });
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(chunk, scratch))) {
            // Dropping it may panic, which would leave the claim uncounted.
            std::mem::forget(payload);
            self.panicked.store(true, Ordering::Relaxed);
        }
    }

    /// Runs chunks of `step` as thread `me`: those of its own range, then others', of which it leaves the
    /// last of each where there are many. Returns how many it has run.
    fn work(&self, step: Step, me: usize, scratch: &mut Scratch) -> u16 {
        let mut ran = 0;
        while let Some(chunk) = self.claim(step, me, 1) {
            self.run(chunk, scratch);
            ran += 1;
        }
        if ran > 0 {
            self.finished[me].0.store(step.word(ran), Ordering::Release);
        }
        // Of fewer, most ranges have one or none.
        let least = if usize::from(step.chunks) < 2 * self.left.len() { 1 } else { 2 };
        self.help(step, me, least, ran, scratch)
    }

    /// Runs chunks of ranges other than `me`'s in which `least` are not claimed, after `ran`. Returns how many it
    /// has run then.
    fn help(&self, step: Step, me: usize, least: u16, ran: u16, scratch: &mut Scratch) -> u16 {
        let mut ran = ran;
        for t in (me + 1..self.left.len()).chain(0..me) {
            while let Some(chunk) = self.claim(step, t, least) {
                self.run(chunk, scratch);
                ran += 1;
                self.finished[me].0.store(step.word(ran), Ordering::Release);
            }
        }
        ran
    }

    /// All chunks of `step` have been run.
    fn is_over(&self, step: Step) -> bool {
        let ran = self.finished.iter().map(|word| Step::unpack(word.0.load(Ordering::Acquire)));
        ran.filter(|ran| ran.number == step.number).map(|ran| ran.chunks).sum::<u16>()
            == step.chunks
    }

    fn worker(&self, me: usize, mut scratch: Scratch) {
        self.started.fetch_add(1, Ordering::Release);
        let mut idle = 0;
        let mut last = 0;
        while !self.exit.load(Ordering::Relaxed) {
            let step = Step::unpack(self.current.0.step.load(Ordering::Acquire));
            if step.number != last {
                self.work(step, me, &mut scratch);
                last = step.number;
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < SPINS {
                spin_loop();
            } else if idle < SPINS + YIELDS {
                yield_now();
            } else {
                self.sleep(last);
                idle = 0;
            }
        }
    }

    /// Waits for a step after `last`.
    fn sleep(&self, last: u64) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while Step::unpack(self.current.0.step.load(Ordering::SeqCst)).number == last
            && !self.exit.load(Ordering::SeqCst)
        {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes the workers that sleep. The lock makes sure that one that is about to sleep either
    /// sees the new step or is already waiting.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }

    /// Sends the workers home.
    fn stop(&self) {
        self.exit.store(true, Ordering::SeqCst);
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }
}

/// Threads that work on the steps of a forward pass.
pub struct Pool {
    shared: Arc<Shared>,
    /// Held by whoever leads; the scratch is the leader's.
    leader: Mutex<Scratch>,
    n_threads: usize,
    threads: Option<rayon::ThreadPool>,
}

impl Pool {
    /// Makes a pool of `n_threads` (at least 1), the calling thread of [`scope`](Self::scope)
    /// counted in.
    ///
    /// # Errors
    /// What the system said when a thread, or its memory, could not be had.
    pub fn new(n_threads: usize) -> Result<Pool, String> {
        let n_threads = n_threads.clamp(1, 1024);
        let scratch = || Scratch::new().map_err(|e| e.to_string());
        let leader = Mutex::new(scratch()?);
        let shared = Arc::new(Shared::new(n_threads));
        let threads = if n_threads > 1 {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(n_threads - 1)
                .thread_name(|i| format!("siskin-{i}"))
                .build()
                .map_err(|e| e.to_string())?;
            // Made here, where a refusal can be told. No worker comes twice, so none finds none.
            let scratches = (1..n_threads).map(|_| scratch()).collect::<Result<Vec<_>, _>>()?;
            let scratches = std::sync::Mutex::new(scratches);
            let workers = shared.clone();
            pool.spawn_broadcast(move |worker| {
                let scratch = scratches.lock().unwrap_or_else(PoisonError::into_inner).pop();
                if let Some(scratch) = scratch {
                    // The leader is thread 0.
                    workers.worker(1 + worker.index(), scratch);
                }
            });
            // From here on the pool allocates nothing.
            while shared.started.load(Ordering::Acquire) as usize + 1 < n_threads {
                yield_now();
            }
            Some(pool)
        } else {
            None
        };
        Ok(Pool { shared, leader, n_threads, threads })
    }

    /// Threads, the leader counted in.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Runs `f` on the calling thread with the pool at its service. One scope runs at a time;
    /// others wait for it.
    pub fn scope<R>(&self, f: impl FnOnce(&mut Team<'_>) -> R) -> R {
        let scratch = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut Team { shared: &self.shared, scratch, n_threads: self.n_threads })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop();
        self.threads.take();
    }
}

/// The leader's handle on the threads, for the length of a [`Pool::scope`].
pub struct Team<'a> {
    shared: &'a Shared,
    scratch: MutexGuard<'a, Scratch>,
    n_threads: usize,
}

impl Team<'_> {
    /// Threads, the leader counted in.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// The leader's own scratch memory, between steps.
    pub fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }

    /// Calls `f(chunk, scratch)` once for each chunk below `n`, on any of the threads, and returns
    /// when all are done.
    ///
    /// # Panics
    /// If `f` panicked in some chunk; no other chunk is running by then.
    pub fn run(&mut self, n: usize, f: &(dyn Fn(usize, &mut Scratch) + Sync)) {
        if n == 1 || self.n_threads == 1 {
            for chunk in 0..n {
                f(chunk, &mut self.scratch);
            }
            return;
        }
        if n > MAX_CHUNKS {
            for first in (0..n).step_by(MAX_CHUNKS) {
                let some = MAX_CHUNKS.min(n - first);
                self.run(some, &|chunk, scratch| f(first + chunk, scratch));
            }
            return;
        }
        if n == 0 {
            return;
        }
        let shared = self.shared;
        let f: *const (dyn Fn(usize, &mut Scratch) + Sync + '_) = f;
        // SAFETY: only the lifetime changes. The pointer is used under claims of this step, and
        // this function returns after the last of them has been counted in `finished`.
        let f: *const Job = unsafe { std::mem::transmute(f) };
        // SAFETY: no chunk is claimed or claimable: the step before is over.
        shared.current.0.job.with_mut(|job| unsafe { *job = Some(f) });
        let last = Step::unpack(shared.current.0.step.load(Ordering::Relaxed));
        let step = Step { number: last.number + 1, chunks: n as u16 };
        shared.current.0.step.store(step.word(step.chunks), Ordering::SeqCst);
        shared.wake();
        let mut ran = shared.work(step, 0, &mut self.scratch);
        let mut spins = 0u32;
        while !shared.is_over(step) {
            spins += 1;
            if spins.is_multiple_of(PATIENCE) {
                ran = shared.help(step, 0, 1, ran, &mut self.scratch);
            }
            // The chunk that is still out may be on a thread that was descheduled.
            if spins < SPINS {
                spin_loop();
            } else {
                yield_now();
            }
        }
        if shared.panicked.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a chunk of a parallel step panicked"));
        }
    }

    /// Splits `data` into chunks of `len` elements (the last may be shorter) and calls
    /// `f(index, chunk, scratch)` for each, in parallel.
    pub fn for_chunks<T: Send>(
        &mut self,
        data: &mut [T],
        len: usize,
        f: impl Fn(usize, &mut [T], &mut Scratch) + Sync,
    ) {
        let len = len.max(1);
        let total = data.len();
        let base = SendPtr(data.as_mut_ptr());
        self.run(total.div_ceil(len), &|i, scratch| {
            let start = i * len;
            let end = total.min(start + len);
            // SAFETY: chunks do not overlap, lie inside `data`, which is borrowed mutably for the
            // whole call, and `run` calls each index once.
            let chunk =
                unsafe { std::slice::from_raw_parts_mut(base.get().add(start), end - start) };
            f(i, chunk, scratch);
        });
    }
}

impl Team<'_> {
    /// Calls `f(row, values)` for each row of `width` values; in parallel where that pays.
    pub fn for_rows(
        &mut self,
        data: &mut [f32],
        width: usize,
        f: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let rows = data.len() / width.max(1);
        if rows <= 1 || data.len() < SERIAL_VALUES {
            data.chunks_exact_mut(width).enumerate().for_each(|(i, row)| f(i, row));
            return;
        }
        let per = rows.div_ceil(4 * self.n_threads);
        self.for_chunks(data, per * width, |chunk, rows, _| {
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                f(chunk * per + i, row);
            }
        });
    }
}

/// Values below which elementwise work is not worth handing out.
pub(crate) const SERIAL_VALUES: usize = 8192;

/// A pointer that may be sent to the threads of a step; whoever uses it keeps accesses disjoint.
pub(crate) struct SendPtr<T>(pub(crate) *mut T);

impl<T> SendPtr<T> {
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: used for disjoint elements only, see the uses.
unsafe impl<T: Send> Sync for SendPtr<T> {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_once_in_every_step() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads).unwrap();
            for steps in [1usize, 7, 300] {
                pool.scope(|team| {
                    for step in 0..steps {
                        let n = 1 + step % 37;
                        let mut seen = vec![0u32; n];
                        team.for_chunks(&mut seen, 1, |i, c, _| c[0] += 1 + i as u32);
                        let want: Vec<u32> = (0..n as u32).map(|i| i + 1).collect();
                        assert_eq!(seen, want);
                    }
                });
            }
        }
    }

    #[test]
    fn a_step_has_any_number_of_chunks() {
        let pool = Pool::new(3).unwrap();
        for n in [MAX_CHUNKS, MAX_CHUNKS + 1, 2 * MAX_CHUNKS + 5] {
            let mut seen = vec![0; n];
            pool.scope(|team| team.for_chunks(&mut seen, 1, |i, c, _| c[0] += 1 + i));
            assert!(seen.iter().enumerate().all(|(i, x)| *x == i + 1));
        }
    }

    #[test]
    fn workers_that_sleep_wake_up_again() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let mut sum = vec![0u64; 64];
            pool.scope(|team| team.for_chunks(&mut sum, 4, |i, c, _| c.fill(i as u64)));
            assert_eq!(sum.iter().sum::<u64>(), 4 * (0..16).sum::<u64>());
        }
    }

    #[test]
    fn a_panic_in_a_chunk_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(2).unwrap();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.scope(|team| team.run(16, &|i, _| assert!(i != 5)));
        }));
        assert!(caught.is_err());
        let mut ok = vec![0u8; 8];
        pool.scope(|team| team.for_chunks(&mut ok, 1, |_, c, _| c[0] = 1));
        assert_eq!(ok, [1; 8]);
    }

    #[test]
    fn pools_may_end_at_any_moment() {
        for i in 0..200 {
            let pool = Pool::new(1 + i % 4).unwrap();
            for steps in 0..i % 3 {
                let mut seen = vec![0; 5 * steps];
                pool.scope(|team| team.for_chunks(&mut seen, 1, |_, c, _| c[0] += 1));
                assert!(seen.iter().all(|x| *x == 1));
            }
            // Once in a while when the workers sleep.
            if i % 16 == 15 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn scopes_of_several_threads_take_turns() {
        let pool = Pool::new(2).unwrap();
        std::thread::scope(|s| {
            for t in 0..4u32 {
                let pool = &pool;
                s.spawn(move || {
                    for _ in 0..50 {
                        let mut v = vec![0u32; 100];
                        pool.scope(|team| team.for_chunks(&mut v, 9, |_, c, _| c.fill(t)));
                        assert!(v.iter().all(|x| *x == t));
                    }
                });
            }
        });
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
