//! The limits of this machine: how fast it reads memory, how fast it multiplies bytes.
//!
//! Neither is a constant. Neighbours share the memory, clocks fall with heat, and a virtual machine's
//! cores move; so a limit is measured for a moment, beside what is compared with it, and again for
//! the next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::buffer::{Buffer, OutOfMemory};
use crate::par::Pool;
use crate::table::KernelTable;

/// Sums of words side by side, so that none waits for another.
const LANES: usize = 16;
/// Words that a thread reads at a time, at the most.
const CHUNK: usize = 1 << 17;
/// Turns of the loop that measures multiplications, in one chunk.
const TURNS: u64 = 25_000;

/// What was measured in a span of time, in units a second.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Of all runs together: what the machine gave, to compare with what else took a while.
    pub mean: f64,
    /// Of the fastest run, which is one pass over the memory or a few milliseconds: what it can give.
    pub best: f64,
}

/// Repeats `run`, which tells how much it did, for as long as `time`.
fn rate(time: Duration, mut run: impl FnMut() -> f64) -> Rate {
    let (mut done, mut best) = (0.0, 0.0f64);
    let start = Instant::now();
    loop {
        let begin = Instant::now();
        let amount = run();
        best = best.max(amount / begin.elapsed().as_secs_f64());
        done += amount;
        let passed = start.elapsed();
        if passed >= time {
            return Rate { mean: done / passed.as_secs_f64(), best };
        }
    }
}

/// Memory to read, to see how fast that can be.
pub struct ReadBuffer(Buffer);

impl ReadBuffer {
    /// Of about this many bytes, which should be more than the caches hold; every page is there.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new(bytes: usize) -> Result<ReadBuffer, OutOfMemory> {
        let whole = bytes.max(1).checked_next_multiple_of(LANES * size_of::<u64>());
        let mut buffer = Buffer::zeroed(whole.ok_or(OutOfMemory { bytes })?)?;
        buffer.as_bytes_mut().fill(1);
        Ok(ReadBuffer(buffer))
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.0.as_bytes().len()
    }

    /// Bytes a second that all threads read together.
    pub fn bandwidth(&mut self, pool: &Pool, time: Duration) -> Rate {
        let bytes = self.bytes() as f64;
        let words: &mut [u64] = bytemuck::cast_slice_mut(self.0.as_bytes_mut());
        let chunk =
            (words.len() / (8 * pool.n_threads())).next_multiple_of(LANES).clamp(LANES, CHUNK);
        rate(time, || {
            pool.scope(|team| {
                team.for_chunks(words, chunk, |_, chunk, _| {
                    let mut sums = [0u64; LANES];
                    for x in chunk.chunks_exact(LANES) {
                        for (s, x) in sums.iter_mut().zip(x) {
                            *s = s.wrapping_add(*x);
                        }
                    }
                    std::hint::black_box(sums);
                });
            });
            bytes
        })
    }
}

/// Operations a second (a multiplication and an addition are two) of all threads together on
/// bytes, with the instructions that the level's panels use. `None` for levels without such
/// instructions.
pub fn int8_peak(pool: &Pool, table: &KernelTable, time: Duration) -> Option<Rate> {
    let peak = table.peak()?;
    Some(rate(time, || {
        let chunks = 8 * pool.n_threads();
        let operations = AtomicU64::new(0);
        pool.scope(|team| {
            team.run(chunks, &|_, _| {
                // SAFETY: the table holds functions that the CPU can run.
                operations.fetch_add(unsafe { peak(TURNS) }, Ordering::Relaxed);
            });
        });
        operations.into_inner() as f64
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_all_runs_and_its_best_of_one() {
        let mut runs = 0;
        let rate = rate(Duration::from_millis(1), || {
            runs += 1;
            // The time is over in the first run, unless it was measured to be shorter.
            std::thread::sleep(Duration::from_millis(2));
            3.0
        });
        assert_eq!(runs, 1);
        assert!(0.0 < rate.mean && rate.mean <= rate.best && rate.best <= 1500.0, "{rate:?}");
    }

    #[test]
    fn memory_is_read_whole_lines_at_a_time() {
        assert!(ReadBuffer::new(usize::MAX).is_err());
        assert_eq!(ReadBuffer::new(0).unwrap().bytes(), 128);
        let mut buffer = ReadBuffer::new(1000).unwrap();
        assert_eq!(buffer.bytes(), 1024);
        let pool = Pool::new(2).unwrap();
        let rate = buffer.bandwidth(&pool, Duration::ZERO);
        assert!(rate.mean > 0.0 && rate.mean <= rate.best, "{rate:?}");
    }
}
