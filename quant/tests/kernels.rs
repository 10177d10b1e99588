//! Every level computes, to the bit, what the scalar kernels compute.

mod support;

use siskin_quant::act::{Activations, Sums};
use siskin_quant::attention::{Attend, KvLayer, KvShape, KvType, partial_len};
use siskin_quant::matmul::{Matrix, Product, matmul};
use siskin_quant::ops::{Activation, RopeStyle};
use siskin_quant::par::Pool;
use siskin_quant::table::KernelTable;
use siskin_quant::{Act, GgmlType};
use support::{Random, assert_same, tables};

fn weight_types() -> impl Iterator<Item = GgmlType> {
    GgmlType::ALL.iter().copied().filter(|t| t.info().act != Act::None)
}

/// Random bits, with finite scales: f16 fields of random bits are often huge or NaN, which would
/// make most results the same. Floats are drawn as such.
fn weights(ty: GgmlType, rows: usize, k: usize, hostile: bool, rng: &mut Random) -> Vec<u8> {
    let bytes = ty.row_bytes(k).unwrap() * rows;
    if hostile {
        return rng.bytes(bytes);
    }
    match ty {
        GgmlType::F32 => rng.floats(rows * k).iter().flat_map(|x| x.to_le_bytes()).collect(),
        GgmlType::F16 | GgmlType::BF16 => {
            // Exponents of moderate size in both formats.
            let half = |r: u64| (r as u16 & 0x83ff | 0x3400).to_le_bytes();
            (0..rows * k).flat_map(|_| half(rng.next())).collect()
        }
        _ => {
            let mut data = rng.bytes(bytes);
            let mut values = vec![0.0; ty.block_len()];
            for block in data.chunks_exact_mut(ty.block_bytes()) {
                loop {
                    siskin_quant::formats::dequantize_row(ty, block, &mut values).unwrap();
                    if values.iter().all(|x| x.is_finite() && x.abs() < 1e6) {
                        break;
                    }
                    block.copy_from_slice(&rng.bytes(ty.block_bytes()));
                }
            }
            data
        }
    }
}

fn product(table: &KernelTable, pool: &Pool, w: Matrix<'_>, x: &[f32]) -> Vec<f32> {
    let n = x.len() / w.cols();
    let mut acts = Activations::with_capacity(w.ty().info().act, w.cols(), n).unwrap();
    product_in(&mut acts, table, pool, w, x)
}

/// [`product`] in memory for activations that may have held others.
fn product_in(
    acts: &mut Activations,
    table: &KernelTable,
    pool: &Pool,
    w: Matrix<'_>,
    x: &[f32],
) -> Vec<f32> {
    let results = x.len() / w.cols() * w.rows();
    // Nothing is written behind the last column.
    let mut out = vec![f32::NAN; results + 8 * w.rows()];
    // As a model does. What a kernel reads of others would be what lies there instead.
    acts.set_sums(table.get(w.ty()).unwrap().sums);
    pool.scope(|team| {
        acts.quantize(team, table, w.cols(), x);
        let out = &mut out[..results];
        matmul(team, table, &mut [Product { w, x: acts, out }], &[]);
    });
    assert!(out[results..].iter().all(|x| x.is_nan()));
    out.truncate(results);
    out
}

#[test]
fn activations_may_lie_where_others_did() {
    let mut rng = Random(41);
    let pool = Pool::new(2).unwrap();
    for ty in [GgmlType::Q4_0, GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::IQ3_S, GgmlType::F16] {
        for table in tables() {
            let mut acts = Activations::with_capacity(ty.info().act, 1024, 40).unwrap();
            for (n, k) in [(40, 1024), (3, 512), (6, 1024), (17, 256), (7, 512), (9, 768), (1, 256)]
            {
                let data = weights(ty, 20, k, false, &mut rng);
                let w = Matrix::new(ty, 20, k, &data).unwrap();
                let x = rng.floats(n * k);
                let got = product_in(&mut acts, &table, &pool, w, &x);
                let what = format!("{ty} {n}x{k} on {}", table.level());
                assert_same(&got, &product(&table, &pool, w, &x), &what);
            }
        }
    }
}

/// Numbers that are slow to compute with: what kernels read beside the last row is none.
#[test]
fn no_tiny_numbers_lie_behind_the_last_row() {
    let pool = Pool::new(1).unwrap();
    let mut rng = Random(42);
    let table = &tables()[0];
    let mut acts = Activations::with_capacity(Act::Q8, 1024, 40).unwrap();
    for (n, sums) in [3, 6, 7, 9, 15, 39].into_iter().zip([
        Sums::ALL,
        Sums::TOTAL32,
        Sums::NONE,
        Sums::ALL,
        Sums::TOTAL16.with(Sums::SUM32),
        Sums::SUM16,
    ]) {
        acts.set_sums(sums);
        pool.scope(|team| {
            for (n, k) in [(40, 1024), (n, 512)] {
                acts.quantize(team, table, k, &rng.floats(n * k));
            }
        });
        let l = acts.layout();
        let rows = acts.bytes().len() / l.stride * l.group;
        assert!(rows > n);
        for t in n..rows {
            let row = &acts.bytes()[t / l.group * l.stride..];
            for (section, values, of) in [
                (l.d, 16, Sums::NONE),
                (l.total16, 32, Sums::TOTAL16),
                (l.total32, 16, Sums::TOTAL32),
            ] {
                if !sums.contains(of) {
                    continue;
                }
                let zero = |i| row[l.value(section, i, t % l.group)..][..4] == [0; 4];
                assert!((0..values).all(zero), "{n} {t}");
            }
        }
    }
}

#[test]
fn weights_are_fetched_into_either_cache() {
    let mut rng = Random(77);
    let pool = Pool::new(1).unwrap();
    for ty in weight_types() {
        let unit = ty.block_len().max(32);
        let bytes = ty.row_bytes(unit).unwrap();
        // Sixteen rows of more than 24 KiB together are fetched in a third way.
        for k in [2 * unit, unit * ((24 << 10) / 16 / bytes + 1)] {
            let data = weights(ty, 40, k, false, &mut rng);
            let w = Matrix::new(ty, 40, k, &data).unwrap();
            let x = rng.floats(k);
            for mut table in tables() {
                let both = [0, usize::MAX].map(|bytes| {
                    table.set_near_bytes(bytes);
                    product(&table, &pool, w, &x)
                });
                assert_same(&both[0], &both[1], &format!("{ty} {k} on {}", table.level()));
            }
        }
    }
}

#[test]
#[should_panic(expected = "activations have the sums that are read")]
fn sums_that_are_missing_are_not_read() {
    let table = &tables()[0];
    let data = weights(GgmlType::Q4_1, 16, 32, false, &mut Random(7));
    let w = Matrix::new(GgmlType::Q4_1, 16, 32, &data).unwrap();
    let mut acts = Activations::with_capacity(Act::Q8, 32, 1).unwrap();
    acts.set_sums(Sums::SUM16);
    Pool::new(1).unwrap().scope(|team| {
        acts.quantize(team, table, 32, &[1.0; 32]);
        matmul(team, table, &mut [Product { w, x: &acts, out: &mut [0.0; 16] }], &[]);
    });
}

#[test]
fn products_of_every_type_are_the_same_on_every_level() {
    let mut rng = Random(0x5eed);
    let tables = tables();
    let pools: Vec<Pool> = [1, 2, 3].iter().map(|n| Pool::new(*n).unwrap()).collect();
    for ty in weight_types() {
        let unit = ty.block_len().max(32);
        for (rows, units, n) in [
            (1, 1, 1),
            (16, 2, 1),
            (33, 3, 1),
            (33, 3, 2),
            (17, 1, 3),
            (16, 40, 4),
            (19, 5, 5),
            (17, 3, 6),
            (20, 2, 7),
            (35, 7, 8),
            (3, 3, 8),
            (48, 2, 9),
            (5, 9, 17),
            // More than a panel holds, on every level.
            (2, 33024 / unit, 9),
            // Tiles that are multiplied together, and what is left of them; more than a panel holds of them.
            (67, 3, 129),
            (48, 2, 131),
            (48, 7424 / unit, 128),
        ] {
            for hostile in [false, true] {
                let k = unit * units;
                let data = weights(ty, rows, k, hostile, &mut rng);
                let w = Matrix::new(ty, rows, k, &data).unwrap();
                let mut x = rng.floats(n * k);
                if hostile {
                    // All codes at their ends.
                    x.iter_mut().for_each(|x| *x = x.signum());
                }
                let want = product(&tables[0], &pools[0], w, &x);
                for (i, table) in tables.iter().enumerate() {
                    // Of so few rows each of several threads would have no whole tile of the tallest.
                    let pool = if n < 128 { i % pools.len() } else { 0 };
                    let got = product(table, &pools[pool], w, &x);
                    let level = table.level();
                    assert_same(&got, &want, &format!("{ty} {rows}x{k}x{n} on {level}"));
                }
            }
        }
    }
}

#[test]
fn tall_tiles_are_the_same_on_any_number_of_threads() {
    let mut rng = Random(0x7a11);
    let tables = tables();
    let one = Pool::new(1).unwrap();
    for ty in [GgmlType::Q4_1, GgmlType::Q6_K] {
        // Whole tiles for three threads, and a part of one.
        let (rows, k) = (48 * 15 + 7, 256);
        let data = weights(ty, rows, k, false, &mut rng);
        let w = Matrix::new(ty, rows, k, &data).unwrap();
        let x = rng.floats(130 * k);
        let want = product(&tables[0], &one, w, &x);
        for table in &tables {
            for threads in [2, 3] {
                let got = product(table, &Pool::new(threads).unwrap(), w, &x);
                assert_same(&got, &want, &format!("{ty}, {threads} threads on {}", table.level()));
            }
        }
    }
}

#[test]
fn a_column_is_the_same_alone_and_among_others() {
    let mut rng = Random(77);
    let pool = Pool::new(2).unwrap();
    for table in tables() {
        for ty in weight_types() {
            let k = if ty.block_len() == 256 { 512 } else { 128 };
            let data = weights(ty, 20, k, false, &mut rng);
            let w = Matrix::new(ty, 20, k, &data).unwrap();
            let x = rng.floats(11 * k);
            let alone: Vec<_> = x.chunks_exact(k).map(|x| product(&table, &pool, w, x)).collect();
            for n in [3, 5, 6, 7, 8, 11] {
                let together = product(&table, &pool, w, &x[..n * k]);
                for (c, alone) in alone[..n].iter().enumerate() {
                    let what = format!("{ty} column {c} of {n} on {}", table.level());
                    assert_same(&together[c * 20..(c + 1) * 20], alone, &what);
                }
            }
        }
    }
}

/// A file's last row ends where the file does, and what is behind it may be no memory: here it is a
/// mapping beyond the end of its file, which ends the process if it is read.
#[cfg(target_os = "linux")]
#[cfg(not(miri))]
#[test]
fn nothing_is_read_behind_the_last_row() {
    /// At least a page of any system.
    const PAGE: usize = 64 << 10;
    let mut rng = Random(11);
    let pool = Pool::new(1).unwrap();
    let path = std::env::temp_dir().join(format!("siskin-last-row-{}", std::process::id()));
    for ty in weight_types() {
        let k = ty.block_len().max(32) * 3;
        let data = weights(ty, 19, k, false, &mut rng);
        let before = data.len().next_multiple_of(PAGE) - data.len();
        std::fs::write(&path, [vec![0; before], data].concat()).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let size = file.metadata().unwrap().len() as usize;
        // SAFETY: nothing else knows the file.
        let map = unsafe { memmap2::MmapOptions::new().len(size + PAGE).map(&file) }.unwrap();
        for rows in [1, 3, 19] {
            let bytes = &map[size - rows * ty.row_bytes(k).unwrap()..size];
            let w = Matrix::new(ty, rows, k, bytes).unwrap();
            for table in tables() {
                for n in [1, 4, 9] {
                    product(&table, &pool, w, &rng.floats(n * k));
                }
            }
        }
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn odd_lengths_of_float_rows_are_the_same_on_every_level() {
    let mut rng = Random(3);
    let pool = Pool::new(1).unwrap();
    let tables = tables();
    for ty in [GgmlType::F32, GgmlType::F16, GgmlType::BF16] {
        for k in [1, 7, 16, 31, 100] {
            let data = weights(ty, 7, k, false, &mut rng);
            let w = Matrix::new(ty, 7, k, &data).unwrap();
            let x = rng.floats(3 * k);
            let want = product(&tables[0], &pool, w, &x);
            for table in &tables[1..] {
                assert_same(&product(table, &pool, w, &x), &want, &format!("{ty} {k}"));
            }
        }
    }
}

/// Values that tempt: zeros, infinities, NaN, denormals, large and small.
fn hostile_floats(n: usize, rng: &mut Random) -> Vec<f32> {
    let odd = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40, 3e38, -3e38, 88.0];
    (0..n)
        .map(|_| match rng.next() % 4 {
            0 => odd[(rng.next() % odd.len() as u64) as usize],
            1 => rng.float() * 100.0,
            _ => rng.float(),
        })
        .collect()
}

#[test]
fn vector_operations_are_the_same_on_every_level() {
    let mut rng = Random(9);
    let tables = tables();
    let scalar = tables[0].ops();
    for n in [1, 15, 16, 64, 100, 576] {
        for hostile in [false, true] {
            let mut values = |n| if hostile { hostile_floats(n, &mut rng) } else { rng.floats(n) };
            let (x, y, w) = (values(n), values(n), values(n));
            let half = n / 2;
            for table in &tables[1..] {
                let ops = table.ops();
                let name = |op: &str| format!("{op} of {n} on {}", table.level());
                let pair = |op: &str, f: &dyn Fn(&siskin_quant::ops::Ops, &mut [f32])| {
                    let (mut got, mut want) = (x.clone(), x.clone());
                    f(ops, &mut got);
                    f(scalar, &mut want);
                    assert_same(&got, &want, &name(op));
                };
                pair("rms_norm", &|o, v| o.rms_norm(&y, &w, 1e-5, v));
                pair("rms_norm_in_place", &|o, v| o.rms_norm_in_place(v, &w, 1e-5));
                pair("add", &|o, v| o.add(v, &y));
                pair("scale", &|o, v| o.scale(v, 0.37));
                pair("scaled", &|o, v| o.scaled(&y, 0.37, v));
                pair("softcap", &|o, v| o.softcap(v, 30.0));
                pair("silu", &|o, v| o.gate(Activation::Silu, v, &y));
                pair("gelu", &|o, v| o.gate(Activation::Gelu, v, &y));
                for style in [RopeStyle::Norm, RopeStyle::Neox] {
                    pair("rope", &|o, v| o.rope(style, v, &y[..half], &w[..half]));
                }
            }
        }
    }
}

#[test]
fn activations_are_quantized_the_same_on_every_level() {
    let mut rng = Random(21);
    let pool = Pool::new(2).unwrap();
    let tables = tables();
    let some = [Sums::SUM16, Sums::SUM32.with(Sums::TOTAL16), Sums::TOTAL32, Sums::NONE];
    for (act, sums) in some
        .map(|sums| (Act::Q8, sums))
        .into_iter()
        .chain([(Act::Q8, Sums::ALL), (Act::F32, Sums::ALL)])
    {
        for hostile in [false, true] {
            let k = 768;
            let x = if hostile { hostile_floats(4 * k, &mut rng) } else { rng.floats(4 * k) };
            let rows: Vec<Vec<u8>> = tables
                .iter()
                .map(|table| {
                    let mut acts = Activations::with_capacity(act, k, 4).unwrap();
                    acts.set_sums(sums);
                    pool.scope(|team| acts.quantize(team, table, k, &x));
                    acts.bytes().to_vec()
                })
                .collect();
            for (table, row) in tables.iter().zip(&rows).skip(1) {
                assert!(*row == rows[0], "{act:?} with {sums:?} on {}", table.level());
            }
        }
    }
}

/// Attention over `total` tokens, of which batches of `batch` are computed together.
fn attention(
    table: &KernelTable,
    threads: usize,
    ty: KvType,
    window: usize,
    batch: usize,
    (q, k, v): (&[f32], &[f32], &[f32]),
    softcap: f32,
) -> Vec<f32> {
    let (n_head, n_head_kv, dim) = (6, 2, 32);
    let total = k.len() / (n_head_kv * dim);
    let shape = KvShape {
        n_head_kv,
        k_dim: dim,
        v_dim: dim,
        capacity: window.saturating_add(batch).min(total),
        k_type: ty,
        v_type: ty,
    };
    let mut layer = KvLayer::new(&shape).unwrap();
    let mut out = vec![0.0; total * n_head * dim];
    let mut partial = vec![0.0; partial_len(n_head, dim, total)];
    let pool = Pool::new(threads).unwrap();
    for pos in (0..total).step_by(batch) {
        let n = batch.min(total - pos);
        let kv = pos * n_head_kv * dim..(pos + n) * n_head_kv * dim;
        let qo = pos * n_head * dim..(pos + n) * n_head * dim;
        layer.store(table.ops(), pos, &k[kv.clone()], &v[kv]);
        let mut attend = Attend {
            q: &q[qo.clone()],
            n_head,
            pos,
            window,
            scale: 0.2,
            softcap,
            out: &mut out[qo],
            partial: &mut partial,
        };
        pool.scope(|team| layer.attend(team, table.ops(), &mut attend));
    }
    out
}

#[test]
fn attention_is_the_same_on_every_level_for_any_batch_and_threads() {
    let mut rng = Random(1234);
    let total = 150;
    let (q, k, v) = (rng.floats(total * 192), rng.floats(total * 64), rng.floats(total * 64));
    let qkv = (&q[..], &k[..], &v[..]);
    let tables = tables();
    for (_, ty) in KvType::NAMES {
        for window in [usize::MAX, 40] {
            for softcap in [0.0, 2.0] {
                let want = attention(&tables[0], 1, ty, window, 1, qkv, softcap);
                for (i, table) in tables.iter().enumerate() {
                    for (threads, batch) in [(1 + i % 3, 1), (2, 7), (3, 64), (1, 150)] {
                        let got = attention(table, threads, ty, window, batch, qkv, softcap);
                        let level = table.level();
                        let what = format!("{ty:?} window {window} batch {batch} on {level}");
                        assert_same(&got, &want, &what);
                    }
                }
            }
        }
    }
}

#[test]
fn attention_is_close_to_a_softmax_in_f64() {
    let mut rng = Random(5);
    let total = 100;
    let (q, k, v) = (rng.floats(total * 192), rng.floats(total * 64), rng.floats(total * 64));
    let table = KernelTable::detect().unwrap();
    for (ty, tolerance) in
        [(KvType::F32, 2e-6), (KvType::F16, 1e-3), (KvType::Q8_0, 1e-2), (KvType::Q4_0, 0.15)]
    {
        for window in [usize::MAX, 30] {
            let got = attention(&table, 2, ty, window, 16, (&q, &k, &v), 0.0);
            for t in 0..total {
                let first = (t + 1).saturating_sub(window);
                for h in 0..6 {
                    let q = &q[t * 192 + h * 32..][..32];
                    let row = |x: &[f32], j: usize| x[j * 64 + h / 3 * 32..][..32].to_vec();
                    let weights: Vec<f64> = (first..=t)
                        .map(|j| {
                            let dot: f64 = q
                                .iter()
                                .zip(row(&k, j))
                                .map(|(q, k)| f64::from(*q) * f64::from(k))
                                .sum();
                            (dot * 0.2).exp()
                        })
                        .collect();
                    let sum: f64 = weights.iter().sum();
                    for d in 0..32 {
                        let want: f64 = weights
                            .iter()
                            .zip(first..=t)
                            .map(|(w, j)| w / sum * f64::from(row(&v, j)[d]))
                            .sum();
                        let got = f64::from(got[t * 192 + h * 32 + d]);
                        assert!(
                            (got - want).abs() < tolerance,
                            "{ty:?} token {t} head {h}: {got}, not {want}"
                        );
                    }
                }
            }
        }
    }
}
