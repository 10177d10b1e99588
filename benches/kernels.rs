//! Every weight type on every level that the CPU has, on one thread: one column (how fast weights
//! are read, beside a plain read of as many bytes) and many (how fast they are multiplied).
//!
//! `cargo bench -p siskin --bench kernels -- --slowest` measures all of them shortly and names the
//! slowest type of each level.

mod support;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use siskin_quant::GgmlType;
use siskin_quant::par::Pool;
use siskin_quant::table::KernelTable;
use support::{Stream, activations, plain_read, tables, weight_types};

/// Weights in a row.
const K: usize = 2048;
/// Bytes of weights in one call with one column, and of all of them: more than the caches hold.
const PART: usize = 4 << 20;
const WHOLE: usize = 128 << 20;
/// Rows and columns of a product with many columns.
const ROWS: usize = 256;
const COLUMNS: usize = 128;

/// Weights for one column.
fn stream(ty: GgmlType) -> Stream {
    let (part, whole) = if support::is_test() { (1, 1) } else { (PART, WHOLE) };
    let tiles = part / (16 * ty.row_bytes(K).expect("whole blocks"));
    Stream::new(ty, 16 * tiles.max(1), K, whole)
}

fn one_column(c: &mut Criterion) {
    let pool = Pool::new(1).expect("no thread to start");
    let tables = tables();
    let mut group = c.benchmark_group("one column");
    let mut bytes = stream(GgmlType::Q8_0);
    group.throughput(Throughput::Bytes(bytes.part_bytes() as u64));
    group.bench_function("plain read", |b| b.iter(|| plain_read(bytes.next_bytes())));
    for ty in weight_types() {
        let mut w = stream(ty);
        group.throughput(Throughput::Bytes(w.part_bytes() as u64));
        for table in &tables {
            group.bench_function(BenchmarkId::new(ty.name(), table.level()), |b| {
                run(&pool, table, ty, &mut w, 1, |f| b.iter(f));
            });
        }
    }
    group.finish();
}

fn many_columns(c: &mut Criterion) {
    let pool = Pool::new(1).expect("no thread to start");
    let tables = tables();
    let mut group = c.benchmark_group("many columns");
    for ty in weight_types() {
        let mut w = Stream::new(ty, ROWS, K, 1);
        group.throughput(Throughput::Elements(w.macs(COLUMNS)));
        for table in &tables {
            group.bench_function(BenchmarkId::new(ty.name(), table.level()), |b| {
                run(&pool, table, ty, &mut w, COLUMNS, |f| b.iter(f));
            });
        }
    }
    group.finish();
}

/// Gives `measure` the product of the next part of `w` with `n` columns.
fn run<R>(
    pool: &Pool,
    table: &KernelTable,
    ty: GgmlType,
    w: &mut Stream,
    n: usize,
    measure: impl FnOnce(&mut dyn FnMut()) -> R,
) -> R {
    pool.scope(|team| {
        let x = activations(team, table, ty, K, n);
        let mut out = vec![0.0; n * w.macs(1) as usize / K];
        measure(&mut || w.multiply(team, table, &x, &mut out))
    })
}

/// Seconds of one call: the best of as many as fit into a moment.
fn best(f: &mut dyn FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut calls = 0;
    while calls < 5 || begin.elapsed() < Duration::from_millis(150) {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
        calls += 1;
    }
    best
}

struct Speed {
    ty: GgmlType,
    /// Bytes a second with one column.
    read: f64,
    /// Multiplications a second with many.
    macs: f64,
}

/// Measures all types, prints them by level, and names the slowest.
fn slowest() {
    let pool = Pool::new(1).expect("no thread to start");
    let mut bytes = stream(GgmlType::Q8_0);
    let part = bytes.part_bytes() as f64;
    let seconds = best(&mut || {
        std::hint::black_box(plain_read(bytes.next_bytes()));
    });
    let read = part / seconds;
    println!("One thread. A plain read of the weights: {:.1} GB/s.", read / 1e9);
    let tables = tables();
    let mut levels: Vec<Vec<Speed>> = tables.iter().map(|_| Vec::new()).collect();
    for ty in weight_types() {
        let mut one = stream(ty);
        let mut many = Stream::new(ty, ROWS, K, 1);
        for (table, speeds) in tables.iter().zip(&mut levels) {
            let bytes = one.part_bytes() as f64;
            let read = bytes / run(&pool, table, ty, &mut one, 1, best);
            let macs = many.macs(COLUMNS) as f64;
            let macs = macs / run(&pool, table, ty, &mut many, COLUMNS, best);
            speeds.push(Speed { ty, read, macs });
        }
    }
    for (table, mut speeds) in tables.iter().zip(levels) {
        speeds.sort_by(|a, b| a.read.total_cmp(&b.read));
        println!(
            "\n{}\n\n| type | one column, GB/s | of a plain read | many columns, GMAC/s |\n|---|---:|---:|---:|",
            table.level()
        );
        for s in &speeds {
            let (gb, share, macs) = (s.read / 1e9, 100.0 * s.read / read, s.macs / 1e9);
            println!("| {} | {gb:.2} | {share:.0}% | {macs:.1} |", s.ty);
        }
        // Float weights are multiplied as floats and are a matter of their own.
        for (kind, float) in [("quantized", false), ("float", true)] {
            let of_kind = |s: &&Speed| (s.ty.info().act == siskin_quant::Act::F32) == float;
            let kinds = || speeds.iter().filter(of_kind);
            let one = kinds().min_by(|a, b| a.read.total_cmp(&b.read)).expect("a type");
            let many = kinds().min_by(|a, b| a.macs.total_cmp(&b.macs)).expect("a type");
            println!(
                "\n{}: the slowest {kind} type is {} with one column ({:.2} GB/s, {:.0}% of a plain \
                 read), {} with many ({:.1} GMAC/s)",
                table.level(),
                one.ty,
                one.read / 1e9,
                100.0 * one.read / read,
                many.ty,
                many.macs / 1e9,
            );
        }
    }
}

fn main() {
    if std::env::args().any(|a| a == "--slowest") {
        return slowest();
    }
    let mut c = support::criterion();
    one_column(&mut c);
    many_columns(&mut c);
    c.final_summary();
}
