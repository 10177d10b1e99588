//! Matrix products of real models' shapes, on all threads, from one column (decoding) over a few
//! (speculation, several sequences) to 512 (reading a prompt).

mod support;

use criterion::{BenchmarkId, Criterion, Throughput};
use siskin_quant::GgmlType::{self, Q4_1, Q4_K, Q5_0, Q6_K, Q8_0};
use siskin_quant::par::Pool;
use support::{Stream, activations};

/// Model, matrix, type, rows, columns: the matrices that take most of each model's time, with the
/// types of the files that people have.
const SHAPES: [(&str, &str, GgmlType, usize, usize); 14] = [
    ("SmolLM2-135M", "attn_q", Q4_1, 576, 576),
    ("SmolLM2-135M", "ffn_up", Q4_1, 1536, 576),
    ("SmolLM2-135M", "ffn_down", Q4_1, 576, 1536),
    ("SmolLM2-135M", "output", Q8_0, 49_152, 576),
    ("Gemma-3-270M", "attn_q", Q5_0, 1024, 640),
    ("Gemma-3-270M", "ffn_up", Q5_0, 2048, 640),
    ("Gemma-3-270M", "ffn_down", Q4_K, 640, 2048),
    ("Qwen2.5-0.5B", "attn_q", Q5_0, 896, 896),
    ("Qwen2.5-0.5B", "ffn_up", Q5_0, 4864, 896),
    ("Qwen2.5-0.5B", "ffn_down", Q4_K, 896, 4864),
    ("Llama-3.2-1B", "attn_k", Q4_K, 512, 2048),
    ("Llama-3.2-1B", "attn_q", Q4_K, 2048, 2048),
    ("Llama-3.2-1B", "ffn_up", Q4_K, 8192, 2048),
    ("Llama-3.2-1B", "ffn_down", Q6_K, 2048, 8192),
];
const COLUMNS: [usize; 9] = [1, 2, 3, 4, 6, 8, 9, 16, 512];
/// Bytes of weights that the calls go through: more than the caches hold.
const WHOLE: usize = 128 << 20;

fn products(c: &mut Criterion) {
    let table = support::table();
    let pool = Pool::new(support::threads()).expect("threads");
    for (model, matrix, ty, rows, cols) in SHAPES {
        let mut group = c.benchmark_group(format!("matmul/{model}"));
        let whole = if support::is_test() { 1 } else { WHOLE };
        let mut w = Stream::new(ty, rows, cols, whole);
        for n in COLUMNS {
            // The output matrix is multiplied with the last token alone.
            if n > 16 && (matrix == "output" || support::is_test()) {
                continue;
            }
            group.throughput(Throughput::Elements(w.macs(n)));
            group.bench_function(
                BenchmarkId::new(format!("{matrix} {ty} {rows}x{cols}"), n),
                |b| {
                    pool.scope(|team| {
                        let x = activations(team, &table, ty, cols, n);
                        let mut out = vec![0.0; n * rows];
                        b.iter(|| w.multiply(team, &table, &x, &mut out));
                    });
                },
            );
        }
        group.finish();
    }
}

fn main() {
    let mut c = support::criterion();
    products(&mut c);
    c.final_summary();
}
