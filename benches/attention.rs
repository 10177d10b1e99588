//! The attention of one layer by depth: one token (decoding) and 512 (reading a prompt), with
//! caches of f16 and q8_0. The heads are those of Llama 3.2 1B: 32 of 64 dimensions over 8 of keys
//! and values.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput};
use siskin_quant::attention::{Attend, KvLayer, KvShape, KvType, partial_len};
use siskin_quant::par::Pool;
use support::Random;

const N_HEAD: usize = 32;
const N_HEAD_KV: usize = 8;
const DIM: usize = 64;

fn attention(c: &mut Criterion) {
    let table = support::table();
    let pool = Pool::new(support::threads()).expect("threads");
    let mut rng = Random::new();
    for (name, n) in [("decode", 1usize), ("prefill 512", 512)] {
        let mut group = c.benchmark_group(format!("attention/{name}"));
        for depth in [128, 1024, 4096] {
            for (type_name, ty) in [("f16", KvType::F16), ("q8_0", KvType::Q8_0)] {
                let total = depth + n;
                let shape = KvShape {
                    n_head_kv: N_HEAD_KV,
                    k_dim: DIM,
                    v_dim: DIM,
                    capacity: total,
                    k_type: ty,
                    v_type: ty,
                };
                let mut layer = KvLayer::new(&shape).expect("a cache");
                let k = rng.floats(total * N_HEAD_KV * DIM);
                let v = rng.floats(total * N_HEAD_KV * DIM);
                layer.store(table.ops(), 0, &k, &v);
                let q = rng.floats(n * N_HEAD * DIM);
                let mut out = vec![0.0; q.len()];
                let mut partial = vec![0.0; partial_len(N_HEAD, DIM, total)];
                // Tokens a second, were attention all there is.
                group.throughput(Throughput::Elements(n as u64));
                group.bench_function(BenchmarkId::new(type_name, depth), |b| {
                    pool.scope(|team| {
                        b.iter(|| {
                            let mut attend = Attend {
                                q: &q,
                                n_head: N_HEAD,
                                pos: depth,
                                window: usize::MAX,
                                scale: 0.125,
                                softcap: 0.0,
                                out: &mut out,
                                partial: &mut partial,
                            };
                            layer.attend(team, table.ops(), &mut attend);
                        });
                    });
                });
            }
        }
        group.finish();
    }
}

fn main() {
    let mut c = support::criterion();
    attention(&mut c);
    c.final_summary();
}
