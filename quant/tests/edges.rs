//! Shapes that models seldom have, on every level: few tokens at once, keys and values of different
//! types, odd and wide heads, many heads over one, long contexts; steps of unlike products.

mod support;

use siskin_quant::act::{Activations, Sums};
use siskin_quant::attention::{Attend, KvLayer, KvShape, KvType, partial_len};
use siskin_quant::matmul::{Matrix, Product, matmul};
use siskin_quant::par::Pool;
use siskin_quant::table::KernelTable;
use siskin_quant::{Act, GgmlType};
use support::{Random, assert_same, tables};

/// An attention layer and a sequence.
#[derive(Clone, Copy, Debug)]
struct Case {
    h: usize,
    hk: usize,
    kd: usize,
    vd: usize,
    kt: KvType,
    vt: KvType,
    window: usize,
    total: usize,
    sparse: bool,
}

fn attention(
    table: &KernelTable,
    threads: usize,
    c: Case,
    batch: usize,
    q: &[f32],
    k: &[f32],
    v: &[f32],
) -> Vec<f32> {
    let shape = KvShape {
        n_head_kv: c.hk,
        k_dim: c.kd,
        v_dim: c.vd,
        capacity: c.window.saturating_add(batch).min(c.total),
        k_type: c.kt,
        v_type: c.vt,
    };
    let mut layer = KvLayer::new(&shape).unwrap();
    let mut out = vec![0.0; c.total * c.h * c.vd];
    let mut partial = vec![0.0; partial_len(c.h, c.vd, c.total)];
    let pool = Pool::new(threads).unwrap();
    for pos in (0..c.total).step_by(batch) {
        let n = batch.min(c.total - pos);
        layer.store(
            table.ops(),
            pos,
            &k[pos * c.hk * c.kd..(pos + n) * c.hk * c.kd],
            &v[pos * c.hk * c.vd..(pos + n) * c.hk * c.vd],
        );
        if c.sparse && pos + n + 20 < c.total {
            continue;
        }
        let mut a = Attend {
            q: &q[pos * c.h * c.kd..(pos + n) * c.h * c.kd],
            n_head: c.h,
            pos,
            window: c.window,
            scale: 0.2,
            softcap: 0.0,
            out: &mut out[pos * c.h * c.vd..(pos + n) * c.h * c.vd],
            partial: &mut partial,
        };
        pool.scope(|team| layer.attend(team, table.ops(), &mut a));
    }
    out
}
fn check(c: Case, batches: &[usize]) {
    let mut r = Random(99);
    let (q, k, v) = (
        r.floats(c.total * c.h * c.kd),
        r.floats(c.total * c.hk * c.kd),
        r.floats(c.total * c.hk * c.vd),
    );
    let t = tables();
    let want = attention(&t[0], 1, c, 1, &q, &k, &v);
    let tail = if c.sparse { (c.total - 19) * c.h * c.vd } else { 0 };
    for table in [&t[0], t.last().unwrap(), &t[t.len() / 2]] {
        for (i, b) in batches.iter().enumerate() {
            let got = attention(table, 1 + i % 3, c, *b, &q, &k, &v);
            assert_same(&got[tail..], &want[tail..], &format!("{c:?} batch {b} {}", table.level()));
        }
    }
}
use KvType::*;
#[test]
fn few_tokens_at_once() {
    for (_, ty) in KvType::NAMES {
        check(
            Case {
                h: 2,
                hk: 1,
                kd: 32,
                vd: 64,
                kt: ty,
                vt: ty,
                window: 40,
                total: 140,
                sparse: false,
            },
            &[1, 2, 3, 5],
        );
        check(
            Case {
                h: 1,
                hk: 1,
                kd: 64,
                vd: 32,
                kt: ty,
                vt: ty,
                window: usize::MAX,
                total: 100,
                sparse: false,
            },
            &[2, 3, 7, 100],
        );
    }
}
#[test]
fn keys_and_values_of_different_types() {
    for (kt, vt) in [(F32, F16), (F16, F32), (Q8_0, F16), (F16, Q4_0), (Q4_0, Q8_0), (F32, Q8_0)] {
        check(
            Case { h: 6, hk: 2, kd: 96, vd: 64, kt, vt, window: 33, total: 140, sparse: false },
            &[1, 2, 64, 140],
        );
    }
}
#[test]
fn heads_of_odd_dimensions() {
    check(
        Case { h: 3, hk: 1, kd: 20, vd: 7, kt: F16, vt: F16, window: 5, total: 140, sparse: false },
        &[1, 2, 30, 140],
    );
    check(
        Case { h: 3, hk: 3, kd: 1, vd: 1, kt: F32, vt: F16, window: 1, total: 70, sparse: false },
        &[1, 2, 70],
    );
}
#[test]
fn more_heads_over_one_than_a_tile_holds() {
    check(
        Case {
            h: 140,
            hk: 1,
            kd: 32,
            vd: 32,
            kt: F16,
            vt: F16,
            window: 50,
            total: 70,
            sparse: false,
        },
        &[1, 2, 70],
    );
    // The scratch memory is as full as it gets, and too small to convert a chunk.
    for (h, dim) in [(4, 128), (4, 192), (8, 256), (3, 320)] {
        check(
            Case {
                h,
                hk: 1,
                kd: dim,
                vd: dim,
                kt: F16,
                vt: Q8_0,
                window: usize::MAX,
                total: 70,
                sparse: false,
            },
            &[1, 64, 70],
        );
    }
    check(
        Case {
            h: 9,
            hk: 1,
            kd: 1024,
            vd: 1024,
            kt: F16,
            vt: F16,
            window: usize::MAX,
            total: 3,
            sparse: false,
        },
        &[1, 3],
    );
    check(
        Case {
            h: 16,
            hk: 1,
            kd: 512,
            vd: 512,
            kt: Q8_0,
            vt: Q8_0,
            window: usize::MAX,
            total: 5,
            sparse: false,
        },
        &[1, 2, 5],
    );
}
#[test]
fn contexts_long_enough_to_merge_on_several_threads() {
    check(
        Case {
            h: 2,
            hk: 1,
            kd: 16,
            vd: 16,
            kt: F16,
            vt: F16,
            window: usize::MAX,
            total: 1200,
            sparse: true,
        },
        &[1, 1200],
    );
}
#[test]
fn many_wide_heads_over_one() {
    check(
        Case {
            h: 128,
            hk: 1,
            kd: 512,
            vd: 512,
            kt: F16,
            vt: F16,
            window: usize::MAX,
            total: 2,
            sparse: false,
        },
        &[1, 2],
    );
}
#[test]
fn zeros_have_the_same_sign() {
    let mut data = vec![];
    for (d, m) in [(0x8001u16, 0x8000u16), (0x8001, 0x3c00)] {
        data.extend(d.to_le_bytes());
        data.extend(m.to_le_bytes());
        data.extend([0x11u8; 16]);
    }
    let w = Matrix::new(GgmlType::Q4_1, 1, 64, &data).unwrap();
    let mut x = vec![1e-40f32; 32];
    x.extend([-f32::from_bits(1); 32]);
    let pool = Pool::new(1).unwrap();
    let t = tables();
    let mut want = None;
    for table in &t {
        let mut out = vec![f32::NAN; 1];
        pool.scope(|team| {
            let mut a = Activations::with_capacity(Act::Q8, 64, 1).unwrap();
            a.quantize(team, table, 64, &x);
            matmul(team, table, &mut [Product { w, x: &a, out: &mut out }], &[]);
        });
        let want = *want.get_or_insert(out[0].to_bits());
        assert_eq!(out[0].to_bits(), want, "{}", table.level());
    }
}
#[test]
fn unlike_products_in_one_step() {
    let mut r = Random(5);
    let types = [
        (GgmlType::Q4_K, 37),
        (GgmlType::Q4_K, 0),
        (GgmlType::NVFP4, 100),
        (GgmlType::Q8_0, 3),
        (GgmlType::Q6_K, 160),
    ];
    let k = 512;
    let datas: Vec<Vec<u8>> = types
        .iter()
        .map(|(t, rows)| {
            (0..t.row_bytes(k).unwrap() * rows).map(|_| r.next() as u8 & 0x3b).collect()
        })
        .collect();
    for n in [1, 2, 3, 6, 8, 9, 17, 130] {
        let x = r.floats(n * k);
        let mut want: Option<Vec<Vec<f32>>> = None;
        for table in tables() {
            for threads in [1, 2, 5] {
                let pool = Pool::new(threads).unwrap();
                let mut outs: Vec<Vec<f32>> =
                    types.iter().map(|(_, rows)| vec![f32::NAN; n * rows]).collect();
                let ms: Vec<Matrix> = types
                    .iter()
                    .zip(&datas)
                    .map(|((t, rows), d)| Matrix::new(*t, *rows, k, d).unwrap())
                    .collect();
                for next in [&ms[..], &ms[1..2], &[]] {
                    pool.scope(|team| {
                        let mut a = Activations::with_capacity(Act::Q8, k, n).unwrap();
                        a.set_sums(ms.iter().fold(Sums::NONE, |sums, w| {
                            sums.with(table.get(w.ty()).unwrap().sums)
                        }));
                        a.quantize(team, &table, k, &x);
                        let mut ps: Vec<Product> = ms
                            .iter()
                            .zip(&mut outs)
                            .map(|(w, out)| Product { w: *w, x: &a, out })
                            .collect();
                        matmul(team, &table, &mut ps, next);
                    });
                    let want = want.get_or_insert_with(|| outs.clone());
                    for (o, w) in outs.iter().zip(want.iter()) {
                        assert_same(o, w, &format!("{n} {threads} {}", table.level()));
                    }
                }
            }
        }
    }
}
#[test]
fn rows_that_are_made_are_quantized_like_others() {
    let mut r = Random(8);
    let k = 1024;
    for act in [Act::Q8, Act::F32] {
        for n in [1, 7, 8, 9, 17, 40] {
            let mut x = r.floats(n * k);
            for (i, odd) in [f32::NAN, f32::INFINITY, 1e-44, -0.0, 3e38].iter().enumerate() {
                x[i * 37 % (n * k)] = *odd;
            }
            let made: Vec<f32> = x.iter().map(|x| x * 2.0).collect();
            let mut want: Option<Vec<u8>> = None;
            for table in tables() {
                let pool = Pool::new(3).unwrap();
                let (mut a, mut b) = (
                    Activations::with_capacity(act, k, 40).unwrap(),
                    Activations::with_capacity(act, k, 40).unwrap(),
                );
                let mut y = x.clone();
                pool.scope(|team| {
                    a.quantize(team, &table, k, &made);
                    b.make_and_quantize(team, &table, k, &mut y, |_, row| {
                        row.iter_mut().for_each(|x| *x *= 2.0)
                    });
                });
                assert!(a.bytes() == b.bytes());
                assert!(*want.get_or_insert(a.bytes().to_vec()) == a.bytes(), "{}", table.level());
            }
        }
    }
}

/// What the module `act` says, one block after the other.
#[test]
fn activations_are_what_their_format_says() {
    let mut r = Random(9);
    let pool = Pool::new(2).unwrap();
    for (k, n) in [(32, 1), (96, 9), (544, 3), (544, 17), (576, 8), (576, 15), (1056, 24)] {
        let mut x = r.floats(n * k);
        x[..32].fill(0.0);
        for (i, odd) in [f32::NAN, f32::INFINITY, 1e-44, -0.0, 3e38].iter().enumerate() {
            x[(32 + i * 41) % (n * k)] = *odd;
        }
        for sums in [Sums::ALL, Sums::SUM32.with(Sums::TOTAL32), Sums::TOTAL16, Sums::NONE] {
            for table in tables() {
                let mut a = Activations::with_capacity(Act::Q8, k, n).unwrap();
                a.set_sums(sums);
                pool.scope(|team| a.quantize(team, &table, k, &x));
                let (l, bytes) = (a.layout(), a.bytes());
                for (i, x) in x.chunks_exact(32).enumerate() {
                    let (row, block) = (i / (k / 32), i % (k / 32));
                    let what = format!("row {row} block {block} of {n}x{k}, {}", table.level());
                    let (group, c) = (&bytes[row / l.group * l.stride..], row % l.group);
                    let word = |section: usize, i: usize| -> [u8; 4] {
                        group[l.value(section, i, c)..][..4].try_into().unwrap()
                    };
                    let top =
                        x.iter().fold(0.0f32, |top, x| if x.abs() > top { x.abs() } else { top });
                    let d = top / 127.0;
                    let inverse = if top > 0.0 { 127.0 / top } else { 0.0 };
                    #[expect(clippy::manual_clamp, reason = "what is NaN becomes -127")]
                    let codes: Vec<i32> = x
                        .iter()
                        .map(|x| (x * inverse).max(-127.0).min(127.0).round_ties_even() as i32)
                        .collect();
                    let got = group[l.codes(block, c)..][..32].iter().map(|q| i32::from(*q as i8));
                    assert!(got.eq(codes.iter().copied()), "{what}");
                    assert_eq!(word(l.d, block), d.to_ne_bytes(), "{what}");
                    let sum = |codes: &[i32]| codes.iter().sum::<i32>();
                    let total = |codes: &[i32]| (d * sum(codes) as f32 + 0.0).to_ne_bytes();
                    if sums.contains(Sums::SUM32) {
                        assert_eq!(word(l.sum32, block), sum(&codes).to_ne_bytes(), "{what}");
                    }
                    if sums.contains(Sums::TOTAL32) {
                        assert_eq!(word(l.total32, block), total(&codes), "{what}");
                    }
                    for (half, codes) in codes.chunks_exact(16).enumerate() {
                        if sums.contains(Sums::SUM16) {
                            let want = sum(codes).to_ne_bytes();
                            assert_eq!(word(l.sum16, 2 * block + half), want, "{what}");
                        }
                        if sums.contains(Sums::TOTAL16) {
                            assert_eq!(word(l.total16, 2 * block + half), total(codes), "{what}");
                        }
                    }
                }
            }
        }
    }
}
