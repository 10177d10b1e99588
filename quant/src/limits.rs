//! The limits of this machine: how fast it reads memory, how fast it multiplies bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::par::Pool;
use crate::table::KernelTable;

/// Bytes read by [`read_bandwidth`]: more than the caches of a desktop hold.
const BUFFER: usize = 512 << 20;
/// Turns of the loop that measures multiplications, in one chunk.
const TURNS: u64 = 25_000;

/// Bytes a second that all threads read from memory together: the best of the runs that fit into
/// `time`.
pub fn read_bandwidth(pool: &Pool, time: Duration) -> f64 {
    // Written once, so that every page is there.
    let mut data = vec![1u64; BUFFER / 8];
    let mut best = 0.0f64;
    let start = Instant::now();
    while best == 0.0 || start.elapsed() < time {
        let run = Instant::now();
        pool.scope(|team| {
            team.for_chunks(&mut data, 1 << 17, |_, chunk, _| {
                let mut sums = [0u64; 16];
                for x in chunk.chunks_exact(16) {
                    for (s, x) in sums.iter_mut().zip(x) {
                        *s = s.wrapping_add(*x);
                    }
                }
                std::hint::black_box(sums);
            });
        });
        best = best.max(BUFFER as f64 / run.elapsed().as_secs_f64());
    }
    best
}

/// Operations a second (a multiplication and an addition are two) of all threads together on
/// bytes, with the instructions that the level's panels use: the best of the runs that fit into
/// `time`. `None` for levels without such instructions.
pub fn int8_peak(pool: &Pool, table: &KernelTable, time: Duration) -> Option<f64> {
    let peak = table.peak()?;
    let mut best = 0.0f64;
    let start = Instant::now();
    while best == 0.0 || start.elapsed() < time {
        let chunks = 8 * pool.n_threads();
        let run = Instant::now();
        let operations = AtomicU64::new(0);
        pool.scope(|team| {
            team.run(chunks, &|_, _| {
                // SAFETY: the table holds functions that the CPU can run.
                operations.fetch_add(unsafe { peak(TURNS) }, Ordering::Relaxed);
            });
        });
        let operations = operations.into_inner() as f64;
        best = best.max(operations / run.elapsed().as_secs_f64());
    }
    Some(best)
}
