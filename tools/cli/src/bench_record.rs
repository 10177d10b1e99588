//! The results of `siskin bench` as llama-bench writes them, so that what reads its files can read
//! these.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use siskin::gguf::ByteOrder;
use siskin::{Engine, Rate, Session};

use crate::ftype;

/// How a test was run.
pub struct Run {
    pub n_batch: usize,
    pub n_prompt: usize,
    pub n_gen: usize,
    pub n_depth: usize,
    pub test_time: SystemTime,
    pub time_to_first_token_ms: f64,
    pub peak_memory_bytes: Option<u64>,
}

/// One test's result. The fields down to `samples_ts` are named as in llama-bench.
#[derive(Serialize)]
pub struct Record {
    build_commit: &'static str,
    build_number: u32,
    cpu_info: String,
    gpu_info: &'static str,
    backends: &'static str,
    model_filename: String,
    model_type: String,
    model_size: u64,
    model_n_params: u64,
    n_batch: usize,
    n_ubatch: usize,
    n_threads: usize,
    type_k: String,
    type_v: String,
    n_gpu_layers: u32,
    flash_attn: i32,
    use_mmap: bool,
    pub n_prompt: usize,
    pub n_gen: usize,
    n_depth: usize,
    test_time: String,
    avg_ns: u64,
    stddev_ns: u64,
    pub avg_ts: f64,
    pub stddev_ts: f64,
    samples_ns: Vec<u64>,
    pub samples_ts: Vec<f64>,
    pub median_ts: f64,
    time_to_first_token_ms: f64,
    peak_memory_bytes: Option<u64>,
    kernel_level: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    siskin_version: &'static str,
}

/// What bounds the speed of a test.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// How many bytes a second are read from memory.
    ReadBytes,
    /// How many operations a second are done on bytes.
    Int8Ops,
}

/// What this machine can do of what bounds a test, and the share of it that the test reached.
///
/// The machine's speed drifts, so the limit is measured just before and after each run.
#[derive(Serialize)]
pub struct Limits {
    bound: Bound,
    /// The median of what was measured beside the runs, of which each has the mean of before and
    /// after.
    per_s: f64,
    /// The fastest moment.
    best_per_s: f64,
    /// The median of each run's share of what was measured beside it.
    share: f64,
    /// The median run's share of the fastest moment.
    share_of_best: f64,
}

impl Limits {
    /// Of runs with these tokens a second, each token of which takes `work` of what `rates` count,
    /// before and after each run.
    pub fn new(bound: Bound, samples_ts: &[f64], work: f64, rates: &[[Rate; 2]]) -> Limits {
        let beside: Vec<f64> = rates.iter().map(|[a, b]| (a.mean + b.mean) / 2.0).collect();
        let shares = samples_ts.iter().zip(&beside).map(|(ts, limit)| ts * work / limit);
        let best = rates.as_flattened().iter().map(|r| r.best).fold(0.0, f64::max);
        Limits {
            bound,
            per_s: median(&beside),
            best_per_s: best,
            share: median(&shares.collect::<Vec<_>>()),
            share_of_best: median(samples_ts) * work / best,
        }
    }
}

impl std::fmt::Display for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, of, did) = match self.bound {
            Bound::ReadBytes => (1e9, "GB/s", "memory is read"),
            Bound::Int8Ops => (1e12, "Tops/s", "bytes are multiplied"),
        };
        write!(
            f,
            "{:.0}% of the {:.2} {of} at which {did} just before and after, {:.0}% of {:.2} at best",
            100.0 * self.share,
            self.per_s / unit,
            100.0 * self.share_of_best,
            self.best_per_s / unit,
        )
    }
}

impl Record {
    /// Of runs that took `samples_ns`.
    pub fn new(
        engine: &Engine,
        session: &Session,
        run: Run,
        samples_ns: Vec<u64>,
    ) -> anyhow::Result<Record> {
        let file = engine.file();
        let shape = session.shape();
        let n = (run.n_prompt + run.n_gen) as f64;
        let ns: Vec<f64> = samples_ns.iter().map(|ns| *ns as f64).collect();
        let samples_ts: Vec<f64> = ns.iter().map(|ns| n * 1e9 / ns).collect();
        Ok(Record {
            build_commit: env!("SISKIN_COMMIT"),
            build_number: env!("SISKIN_BUILD_NUMBER").parse().unwrap_or(0),
            cpu_info: cpu_info(),
            gpu_info: "",
            backends: "CPU",
            model_filename: file.path().display().to_string(),
            model_type: ftype::model_type(file)?,
            model_size: file.file_bytes(),
            model_n_params: file.tensors().iter().map(|t| t.shape.iter().product::<u64>()).sum(),
            n_batch: run.n_batch,
            n_ubatch: run.n_batch,
            n_threads: engine.threads(),
            type_k: format!("{:?}", shape.k_type).to_lowercase(),
            type_v: format!("{:?}", shape.v_type).to_lowercase(),
            n_gpu_layers: 0,
            // Scores are never kept for a whole row.
            flash_attn: 1,
            use_mmap: file.path().exists() && file.byte_order() == ByteOrder::Little,
            n_prompt: run.n_prompt,
            n_gen: run.n_gen,
            n_depth: run.n_depth,
            test_time: iso_8601(run.test_time),
            avg_ns: mean(&ns) as u64,
            stddev_ns: stddev(&ns) as u64,
            avg_ts: mean(&samples_ts),
            stddev_ts: stddev(&samples_ts),
            median_ts: median(&samples_ts),
            samples_ns,
            samples_ts,
            time_to_first_token_ms: run.time_to_first_token_ms,
            peak_memory_bytes: run.peak_memory_bytes,
            kernel_level: engine.level().to_string(),
            limits: None,
            siskin_version: env!("CARGO_PKG_VERSION"),
        })
    }
}

/// The CPU's name where the system tells, or else the architecture's.
fn cpu_info() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // The second is what a Raspberry Pi has in place of the first.
    let name = ["model name", "Model"].iter().find_map(|key| {
        let mut values = text.lines().filter_map(|line| line.strip_prefix(key));
        values.find_map(|rest| rest.trim_start().strip_prefix(':')).map(|name| name.trim().into())
    });
    name.unwrap_or_else(|| std::env::consts::ARCH.into())
}

/// A time as `2025-01-31T23:59:59Z`.
fn iso_8601(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut day, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1)
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn stddev(x: &[f64]) -> f64 {
    let m = mean(x);
    let squares: f64 = x.iter().map(|x| (x - m) * (x - m)).sum();
    (squares / (x.len().max(2) - 1) as f64).sqrt()
}

fn median(x: &[f64]) -> f64 {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        let at = |seconds| iso_8601(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(at(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59Z");
    }

    #[test]
    fn a_share_is_of_what_was_measured_beside_the_run() {
        let rate = |mean| Rate { mean, best: 2.0 * mean };
        let rates = [[90.0, 110.0], [110.0, 40.0], [40.0, 60.0]].map(|pair| pair.map(rate));
        // Beside the runs: 100, 75 and 50.
        let limits = Limits::new(Bound::ReadBytes, &[8.0, 3.0, 4.5], 10.0, &rates);
        assert_eq!((limits.per_s, limits.share), (75.0, 0.8));
        assert_eq!((limits.best_per_s, limits.share_of_best), (220.0, 45.0 / 220.0));
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(stddev(&[5.0]), 0.0);
    }
}
