//! What the benchmarks share: random values, weights, settings.

// Each benchmark is a crate of its own and uses a part.
#![allow(dead_code)]

use std::path::PathBuf;
use std::time::Duration;

use criterion::Criterion;
use siskin_quant::act::Activations;
use siskin_quant::matmul::{Matrix, Product, matmul};
use siskin_quant::par::Team;
use siskin_quant::table::KernelTable;
use siskin_quant::{Act, GgmlType, formats};

/// A generator of values.
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }
}

/// All types that hold weights, from the one list of them.
pub fn weight_types() -> impl Iterator<Item = GgmlType> {
    GgmlType::ALL.iter().copied().filter(|t| t.info().act != Act::None)
}

/// The kernels of every level that this CPU has, from slow to fast.
pub fn tables() -> Vec<KernelTable> {
    let names = KernelTable::level_names();
    names.into_iter().map(|name| KernelTable::for_level(name).expect("a level it has")).collect()
}

/// The kernels that an engine would take: the fastest, or those of `SISKIN_CPU`.
pub fn table() -> KernelTable {
    KernelTable::detect().unwrap_or_else(|e| panic!("{e}"))
}

/// Threads of the benchmarks that use several: those of the machine, or `SISKIN_BENCH_THREADS`.
pub fn threads() -> usize {
    let wanted = std::env::var("SISKIN_BENCH_THREADS").ok().and_then(|n| n.parse().ok());
    wanted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

/// The models' files that `SISKIN_BENCH_MODELS` names, as `PATH` names folders.
pub fn models() -> Vec<PathBuf> {
    let paths = std::env::var_os("SISKIN_BENCH_MODELS").unwrap_or_default();
    std::env::split_paths(&paths).filter(|p| !p.as_os_str().is_empty()).collect()
}

/// True where each benchmark only runs once: `-- --test`, or under `cargo test`.
pub fn is_test() -> bool {
    std::env::args().any(|a| a == "--test") || !std::env::args().any(|a| a == "--bench")
}

/// Short runs: the kernels' times differ by far more than these can err.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args()
}

/// `rows` rows of `cols` random weights: 16 rows, repeated. Values are finite and small.
pub fn weights(ty: GgmlType, rows: usize, cols: usize) -> Vec<u8> {
    let mut rng = Random::new();
    let row_bytes = ty.row_bytes(cols).expect("whole blocks");
    let mut data = vec![0u8; 16 * row_bytes];
    let mut values = vec![0.0; ty.block_len()];
    for block in data.chunks_exact_mut(ty.block_bytes()) {
        loop {
            block.iter_mut().for_each(|b| *b = rng.next() as u8);
            formats::dequantize_row(ty, block, &mut values).expect("a block");
            if values.iter().all(|x| x.is_finite() && x.abs() < 1e6) {
                break;
            }
        }
    }
    let mut all = data.repeat(rows.div_ceil(16));
    all.truncate(rows * row_bytes);
    all
}

/// `n` rows of `k` random activations, quantized for weights of type `ty`.
pub fn activations(
    team: &mut Team<'_>,
    table: &KernelTable,
    ty: GgmlType,
    k: usize,
    n: usize,
) -> Activations {
    let mut acts = Activations::with_capacity(ty.info().act, k, n).expect("memory");
    acts.set_sums(table.get(ty).expect("kernels").sums);
    acts.quantize(team, table, k, &Random::new().floats(n * k));
    acts
}

/// A large block of weights of which every call takes the next part, so that they come from memory
/// as in a model, where each token reads every matrix once.
pub struct Stream {
    ty: GgmlType,
    rows: usize,
    cols: usize,
    data: Vec<u8>,
    part: usize,
    at: usize,
}

impl Stream {
    /// At least `bytes` bytes of weights, in parts of `rows` rows of `cols`.
    pub fn new(ty: GgmlType, rows: usize, cols: usize, bytes: usize) -> Stream {
        let part = ty.row_bytes(cols).expect("whole blocks") * rows;
        let parts = bytes.div_ceil(part).max(1);
        Stream { ty, rows, cols, data: weights(ty, rows * parts, cols), part, at: 0 }
    }

    /// Bytes of a part.
    pub fn part_bytes(&self) -> usize {
        self.part
    }

    /// Multiplications of a part with `n` columns.
    pub fn macs(&self, n: usize) -> u64 {
        (self.rows * self.cols * n) as u64
    }

    /// The bytes of the next part.
    pub fn next_bytes(&mut self) -> &[u8] {
        self.at = if self.at + self.part >= self.data.len() { 0 } else { self.at + self.part };
        &self.data[self.at..self.at + self.part]
    }

    /// Multiplies the next part.
    pub fn multiply(
        &mut self,
        team: &mut Team<'_>,
        table: &KernelTable,
        x: &Activations,
        out: &mut [f32],
    ) {
        let (ty, rows, cols) = (self.ty, self.rows, self.cols);
        let w = Matrix::new(ty, rows, cols, self.next_bytes()).expect("a matrix");
        matmul(team, table, &mut [Product { w, x, out }], &[]);
    }
}

/// Reads bytes and does nothing else: what no kernel can beat.
pub fn plain_read(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 16];
    for chunk in bytes.chunks_exact(128) {
        for (s, x) in sums.iter_mut().zip(chunk.chunks_exact(8)) {
            *s = s.wrapping_add(u64::from_le_bytes(x.try_into().expect("8 bytes")));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}
