//! Choosing a token of the largest vocabulary in use, 262,144 tokens.

mod support;

use std::hint::black_box;

use criterion::Criterion;
use siskin::sampler::{DryBreakers, LogProbs, Sampler, SamplerParams};

const N_VOCAB: usize = 262_144;

/// Logits with a few high ones, as a model gives them.
fn bell() -> Vec<f32> {
    let mut state = 9u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut logit = || {
        let x = (next() + next() + next() + next()) * 4.0;
        x * x.abs()
    };
    (0..N_VOCAB).map(|_| logit()).collect()
}

fn bench(c: &mut Criterion) {
    // Rising logits make every new one the highest so far.
    let rising: Vec<f32> = (0..N_VOCAB).map(|i| i as f32 * 1e-4).collect();
    let history: Vec<u32> = (0..512).map(|i| (i * 37) % 1000).collect();
    let d = SamplerParams::default;
    let off = SamplerParams { top_k: 0, top_p: 1.0, min_p: 0.0, ..d() };
    let cases = [
        ("greedy", SamplerParams::greedy()),
        ("top-k 40", SamplerParams { top_k: 40, ..off.clone() }),
        ("defaults", d()),
        ("repeat penalty", SamplerParams { penalty_repeat: 1.1, ..d() }),
        ("DRY", SamplerParams { dry_multiplier: 0.8, dry_penalty_last_n: 512, ..d() }),
        ("top-p alone", SamplerParams { top_p: 0.95, ..off.clone() }),
        ("min-p alone", SamplerParams { min_p: 0.05, ..off.clone() }),
        ("top-n-sigma alone", SamplerParams { top_n_sigma: 2.0, ..off.clone() }),
        ("typical alone", SamplerParams { typ_p: 0.9, ..off.clone() }),
        ("temperature alone", off.clone()),
        ("mirostat 2", SamplerParams { mirostat: 2, ..d() }),
    ];
    for (shape, logits) in [("bell", &bell()), ("rising", &rising)] {
        let mut group = c.benchmark_group(format!("sampler/{shape}"));
        for (name, params) in &cases {
            let sampler = Sampler::new(params, N_VOCAB, DryBreakers::none());
            let mut sampler = sampler.expect("valid parameters");
            group.bench_function(*name, |b| {
                b.iter(|| sampler.sample(black_box(logits), &history).expect("a token"));
            });
        }
        group.bench_function("log_sum_exp", |b| {
            b.iter(|| LogProbs::log_sum_exp(black_box(logits)));
        });
    }
}

fn main() {
    let mut criterion = support::criterion();
    bench(&mut criterion);
    criterion.final_summary();
}
