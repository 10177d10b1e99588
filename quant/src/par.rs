//! The thread pool: the only file that names it.
//!
//! A model's forward pass is a few hundred short parallel steps; a fork and join through a work
//! stealing scheduler costs 10 to 30 microseconds each, as much as the step. So the pool's threads
//! are entered once, when the [`Pool`] is made, and stay in a loop of their own. The thread that
//! calls [`Pool::scope`] leads: it publishes a step as a closure over chunk numbers and works on
//! the chunks itself. Threads take chunks one at a time, so a slow or busy core takes fewer, and a
//! worker that the system has not scheduled holds nobody up: the leader waits for the chunks that
//! were taken, never for a thread to arrive. Each thread has a range of the chunks of its own, which
//! it takes in order, and helps others when that is done: it reads memory in long runs, and the
//! same part of the same weights in every pass.
//!
//! # The protocol
//!
//! `ticket` packs the number of the step (upper half) and how many of its chunks are unclaimed
//! (lower half). A chunk is claimed by decrementing the ticket with compare-and-swap, which fails
//! if the step has changed; only a thread that holds a claim reads `job` and takes a chunk. There
//! are as many claims as chunks, so whoever holds one finds a chunk in some range. The leader replaces `job`
//! only after `done` says that every chunk of the step before has finished. So a job is never read
//! and written at once, and no closure is called after [`Team::run`] returns.
//!
//! A worker without a chunk spins, then yields, then sleeps on a condition variable; nothing is
//! allocated and no system call is made while steps follow each other closely, and an idle pool
//! uses no CPU. A wake-up that is lost costs time, never the result: the leader does without.
//!
//! [loom](https://docs.rs/loom) tries the interleavings of it in `loom_tests`; CONTRIBUTING.md has
//! the command.

use crate::buffer::{Buffer, OutOfMemory};
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
}

use sync::{SPINS, YIELDS};

/// Bytes of a thread's scratch memory, see [`Scratch`].
pub const SCRATCH_BYTES: usize = 256 * 1024;

/// A cache line, so that what threads write does not share one.
#[repr(align(64))]
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

struct Shared {
    ticket: Line<AtomicU64>,
    done: Line<AtomicU32>,
    /// The next chunk of each thread's range; changed only under a claim, and by the leader between
    /// steps.
    next: Vec<Line<AtomicU32>>,
    /// Borrowed from the stack frame of `Team::run`; read only under a claim.
    job: UnsafeCell<Option<(*const Job, u32)>>,
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
pub(crate) fn first_chunk(t: usize, n: usize, threads: usize) -> usize {
    (t as u64 * n as u64 / threads as u64) as usize
}

/// The thread in whose range `chunk` is, of `n` chunks.
pub(crate) fn owner(chunk: usize, n: usize, threads: usize) -> usize {
    if n == 1 {
        // What is not handed out is the leader's.
        return 0;
    }
    // The last thread whose range begins at or before the chunk: t n / threads <= chunk.
    (((chunk as u64 + 1) * threads as u64 - 1) / n as u64) as usize
}

impl Shared {
    fn new(n_threads: usize) -> Shared {
        Shared {
            ticket: Line(AtomicU64::new(0)),
            done: Line(AtomicU32::new(0)),
            next: (0..n_threads).map(|_| Line(AtomicU32::new(0))).collect(),
            job: UnsafeCell::new(None),
            sleepers: AtomicU32::new(0),
            started: AtomicU32::new(0),
            panicked: AtomicBool::new(false),
            exit: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// Where the range of thread `t` begins, of `n` chunks.
    fn first_chunk(&self, t: usize, n: u32) -> u32 {
        // Not above n, so that it fits.
        first_chunk(t, n as usize, self.next.len()) as u32
    }

    /// The next of `n` chunks for thread `me`, which holds a claim.
    fn take(&self, me: usize, n: u32) -> u32 {
        let threads = self.next.len();
        loop {
            for t in (me..threads).chain(0..me) {
                let chunk = self.next[t].0.fetch_add(1, Ordering::Relaxed);
                if chunk < self.first_chunk(t + 1, n) {
                    return chunk;
                }
            }
            debug_assert!(false, "a claim is good for a chunk");
        }
    }

    /// Claims a chunk of the current step and runs it, as thread `me`. False if none is left.
    fn work(&self, me: usize, scratch: &mut Scratch) -> bool {
        let mut ticket = self.ticket.0.load(Ordering::Acquire);
        loop {
            if ticket as u32 == 0 {
                return false;
            }
            match self.ticket.0.compare_exchange_weak(
                ticket,
                ticket - 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => break,
                Err(now) => ticket = now,
            }
        }
        // SAFETY: this thread holds a claim on the step whose job this is, so the leader neither
        // writes the cell nor leaves `Team::run`, which borrows the closure, until `done` counts it.
        let (job, n) = self.job.with(|job| unsafe { (*job).unwrap_unchecked() });
        let chunk = self.take(me, n) as usize;
        // SAFETY: as above, the closure is alive.
        let job = unsafe { &*job };
        if catch_unwind(AssertUnwindSafe(|| job(chunk, scratch))).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.done.0.fetch_add(1, Ordering::Release);
        true
    }

    fn worker(&self, me: usize, mut scratch: Scratch) {
        self.started.fetch_add(1, Ordering::Release);
        let mut idle = 0;
        while !self.exit.load(Ordering::Relaxed) {
            if self.work(me, &mut scratch) {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < SPINS {
                spin_loop();
            } else if idle < SPINS + YIELDS {
                yield_now();
            } else {
                self.sleep();
                idle = 0;
            }
        }
    }

    fn sleep(&self) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.ticket.0.load(Ordering::SeqCst) as u32 == 0 && !self.exit.load(Ordering::SeqCst)
        {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes the workers that sleep. The lock makes sure that one that is about to sleep either
    /// sees the new ticket or is already waiting.
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
    /// If `f` panicked in some chunk; the other chunks have been run by then.
    pub fn run(&mut self, n: usize, f: &(dyn Fn(usize, &mut Scratch) + Sync)) {
        if n == 1 || self.n_threads == 1 {
            for chunk in 0..n {
                f(chunk, &mut self.scratch);
            }
            return;
        }
        let n = u32::try_from(n).expect("a step has fewer than 2^32 chunks");
        if n == 0 {
            return;
        }
        let shared = self.shared;
        let f: *const (dyn Fn(usize, &mut Scratch) + Sync + '_) = f;
        // SAFETY: only the lifetime changes. The pointer is used under claims of this step, and
        // this function returns after the last of them has been counted in `done`.
        let f: *const Job = unsafe { std::mem::transmute(f) };
        // SAFETY: no chunk is claimed or claimable: the step before has finished.
        shared.job.with_mut(|job| unsafe { *job = Some((f, n)) });
        shared.done.0.store(0, Ordering::Relaxed);
        for (t, next) in shared.next.iter().enumerate() {
            next.0.store(shared.first_chunk(t, n), Ordering::Relaxed);
        }
        let step = (shared.ticket.0.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        shared.ticket.0.store((step << 32) | u64::from(n), Ordering::SeqCst);
        shared.wake();
        while shared.work(0, &mut self.scratch) {}
        let mut spins = 0u32;
        while shared.done.0.load(Ordering::Acquire) != n {
            spins += 1;
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

/// Every interleaving that loom finds, of a leader and one or two workers.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::thread;

    /// Runs `lead` with `workers` threads in every order; each must end when it is sent home.
    fn explore(workers: usize, preemptions: usize, lead: fn(&mut Team<'_>)) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(move || {
            let shared = Arc::new(Shared::new(1 + workers));
            let threads: Vec<_> = (0..workers)
                .map(|i| {
                    let shared = shared.clone();
                    thread::spawn(move || shared.worker(1 + i, Scratch::new().unwrap()))
                })
                .collect();
            let leader = Mutex::new(Scratch::new().unwrap());
            let scratch = leader.lock().unwrap();
            lead(&mut Team { shared: &shared, scratch, n_threads: workers + 1 });
            shared.stop();
            threads.into_iter().for_each(|t| t.join().unwrap());
        });
    }

    /// A step of `n` chunks, of which each writes its own cell: loom fails if two threads have one,
    /// or if a chunk is not over, or not seen, when the step is.
    fn step(team: &mut Team<'_>, n: usize) {
        let cells: Vec<_> = (0..n).map(|_| UnsafeCell::new(0)).collect();
        let shared = Cells(&cells);
        team.run(n, &|chunk, _| {
            // SAFETY: as loom says.
            shared.get()[chunk].with_mut(|x| unsafe { *x += chunk + 1 });
        });
        for (i, cell) in cells.iter().enumerate() {
            // SAFETY: as loom says.
            cell.with(|x| assert_eq!(unsafe { *x }, i + 1));
        }
    }

    struct Cells<'a>(&'a [UnsafeCell<usize>]);

    impl Cells<'_> {
        fn get(&self) -> &[UnsafeCell<usize>] {
            self.0
        }
    }

    // SAFETY: what is to be shown; loom checks every access.
    unsafe impl Sync for Cells<'_> {}

    #[test]
    fn steps_follow_each_other_with_one_worker() {
        explore(1, 3, |team| {
            step(team, 2);
            step(team, 3);
        });
    }

    #[test]
    fn steps_follow_each_other_with_two_workers() {
        explore(2, 2, |team| {
            step(team, 2);
            step(team, 2);
        });
    }

    #[test]
    fn a_pool_without_steps_ends() {
        explore(2, 3, |_| {});
    }

    #[test]
    fn a_panic_is_seen_by_the_leader() {
        // loom runs everything on one thread, whose hook would print each.
        std::panic::set_hook(Box::new(|_| {}));
        explore(1, 3, |team| {
            let run = AssertUnwindSafe(|| team.run(2, &|chunk, _| assert!(chunk != 1)));
            assert!(catch_unwind(run).is_err());
            step(team, 2);
        });
    }
}
