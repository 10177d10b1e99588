//! How keys and values are stored: reading them into lanes, and writing them.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]

use super::{KvType, KvView};
use crate::lanes::Lanes;

/// A way to store keys and values.
pub(crate) trait Kv {
    /// Dimensions of 16 keys in a cache line, about.
    const LINE: usize;
    /// Bytes of 16 dimensions of a value, about.
    const BYTES: usize;
    /// The scales of dimensions `32 b..` of 16 keys.
    unsafe fn k_scale<L: Lanes>(group: *const u8, b: usize) -> L::V;
    /// Dimension `d` of 16 keys.
    unsafe fn k<L: Lanes>(group: *const u8, d: usize, scale: L::V) -> L::V;
    /// Dimensions `d..d + 16` of a value.
    unsafe fn v<L: Lanes>(row: *const u8, d: usize) -> L::V;
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct Q8;
pub(crate) struct Q4;

#[inline(always)]
unsafe fn f16_at(p: *const u8) -> f32 {
    half::f16::from_bits(unsafe { p.cast::<u16>().read_unaligned() }).to_f32()
}

impl Kv for F32 {
    const LINE: usize = 1;
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn k_scale<L: Lanes>(_: *const u8, _: usize) -> L::V {
        unsafe { L::splat(1.0) }
    }
    #[inline(always)]
    unsafe fn k<L: Lanes>(group: *const u8, d: usize, _: L::V) -> L::V {
        unsafe { L::load(group.cast::<f32>().add(16 * d)) }
    }
    #[inline(always)]
    unsafe fn v<L: Lanes>(row: *const u8, d: usize) -> L::V {
        unsafe { L::load(row.cast::<f32>().add(d)) }
    }
}

impl Kv for F16 {
    const LINE: usize = 2;
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn k_scale<L: Lanes>(_: *const u8, _: usize) -> L::V {
        unsafe { L::splat(1.0) }
    }
    #[inline(always)]
    unsafe fn k<L: Lanes>(group: *const u8, d: usize, _: L::V) -> L::V {
        unsafe { L::load_f16(group.cast::<u16>().add(16 * d)) }
    }
    #[inline(always)]
    unsafe fn v<L: Lanes>(row: *const u8, d: usize) -> L::V {
        unsafe { L::load_f16(row.cast::<u16>().add(d)) }
    }
}

impl Kv for Q8 {
    const LINE: usize = 4;
    const BYTES: usize = 17;

    #[inline(always)]
    unsafe fn k_scale<L: Lanes>(group: *const u8, b: usize) -> L::V {
        unsafe { L::load_f16(group.add(b * 16 * 34).cast()) }
    }
    #[inline(always)]
    unsafe fn k<L: Lanes>(group: *const u8, d: usize, scale: L::V) -> L::V {
        unsafe {
            let codes = group.add(d / 32 * 16 * 34 + 32 + d % 32 * 16);
            L::mul(L::load_i8(codes.cast()), scale)
        }
    }
    #[inline(always)]
    unsafe fn v<L: Lanes>(row: *const u8, d: usize) -> L::V {
        unsafe {
            let block = row.add(d / 32 * 34);
            let scale = L::splat(f16_at(block));
            L::mul(L::load_i8(block.add(2 + d % 32).cast()), scale)
        }
    }
}

#[inline(always)]
fn nibbles(bytes: [u8; 8]) -> [i8; 16] {
    std::array::from_fn(|i| (bytes[i % 8] >> (4 * (i / 8)) & 15) as i8 - 8)
}

impl Kv for Q4 {
    const LINE: usize = 8;
    const BYTES: usize = 9;

    #[inline(always)]
    unsafe fn k_scale<L: Lanes>(group: *const u8, b: usize) -> L::V {
        unsafe { L::load_f16(group.add(b * 16 * 18).cast()) }
    }
    #[inline(always)]
    unsafe fn k<L: Lanes>(group: *const u8, d: usize, scale: L::V) -> L::V {
        unsafe {
            let codes = group.add(d / 32 * 16 * 18 + 32 + d % 32 * 8).cast::<[u8; 8]>();
            L::mul(L::load_i8(nibbles(codes.read()).as_ptr()), scale)
        }
    }
    #[inline(always)]
    unsafe fn v<L: Lanes>(row: *const u8, d: usize) -> L::V {
        unsafe {
            let block = row.add(d / 32 * 18);
            let scale = L::splat(f16_at(block));
            let codes = block.add(2).cast::<[u8; 16]>().read();
            let shift = d % 32 / 16 * 4;
            let codes = codes.map(|c| (c >> shift & 15) as i8 - 8);
            L::mul(L::load_i8(codes.as_ptr()), scale)
        }
    }
}

/// Quantizes 32 values to 8 bits: the scale and the codes.
#[inline(always)]
fn quantize_q8(x: &[f32]) -> (half::f16, [i8; 32]) {
    let top = x.iter().fold(0.0f32, |a, b| if b.abs() > a { b.abs() } else { a });
    let inverse = if top > 0.0 { 127.0 / top } else { 0.0 };
    let mut q = [0i8; 32];
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * inverse).round_ties_even() as i8;
    }
    (half::f16::from_f32(top / 127.0), q)
}

/// Quantizes 32 values to 4 bits, 0 to 15 with 8 for zero. The value furthest from zero gets
/// code 0, as in ggml.
#[inline(always)]
fn quantize_q4(x: &[f32]) -> (half::f16, [u8; 32]) {
    let top = x.iter().fold(0.0f32, |a, b| if b.abs() > a.abs() { *b } else { a });
    let d = top / -8.0;
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    let mut q = [0u8; 32];
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * inverse + 8.5).clamp(0.0, 15.0) as u8;
    }
    (half::f16::from_f32(d), q)
}

#[inline(always)]
pub unsafe fn store<L: Lanes>(view: &KvView, slot: usize, k: &[f32], v: &[f32]) {
    unsafe {
        let group = view.k.add(slot / 16 * 16 * view.k_type.bytes(view.k_dim));
        let lane = slot % 16;
        match view.k_type {
            KvType::F32 => {
                for (d, x) in k.iter().enumerate() {
                    *group.cast::<f32>().add(16 * d + lane) = *x;
                }
            }
            KvType::F16 => {
                let out = group.cast::<u16>().add(lane);
                let mut d = 0;
                while d + 16 <= k.len() {
                    let mut h = [0u16; 16];
                    L::store_f16(h.as_mut_ptr(), L::load(k.as_ptr().add(d)));
                    for (i, h) in h.iter().enumerate() {
                        *out.add(16 * (d + i)) = *h;
                    }
                    d += 16;
                }
                for d in d..k.len() {
                    *out.add(16 * d) = half::f16::from_f32(k[d]).to_bits();
                }
            }
            KvType::Q8_0 => {
                for (b, x) in k.chunks_exact(32).enumerate() {
                    let (d, q) = quantize_q8(x);
                    let block = group.add(b * 16 * 34);
                    *block.cast::<u16>().add(lane) = d.to_bits();
                    for (i, q) in q.iter().enumerate() {
                        *block.add(32 + 16 * i + lane).cast() = *q;
                    }
                }
            }
            KvType::Q4_0 => {
                for (b, x) in k.chunks_exact(32).enumerate() {
                    let (d, q) = quantize_q4(x);
                    let block = group.add(b * 16 * 18);
                    *block.cast::<u16>().add(lane) = d.to_bits();
                    let shift = lane / 8 * 4;
                    for (i, q) in q.iter().enumerate() {
                        let byte = block.add(32 + 8 * i + lane % 8);
                        *byte = *byte & !(15 << shift) | q << shift;
                    }
                }
            }
        }
        let row = view.v.add(slot * view.v_type.bytes(view.v_pad));
        match view.v_type {
            KvType::F32 => {
                std::ptr::copy_nonoverlapping(v.as_ptr(), row.cast(), v.len());
            }
            KvType::F16 => {
                let out = row.cast::<u16>();
                let mut d = 0;
                while d + 16 <= v.len() {
                    L::store_f16(out.add(d), L::load(v.as_ptr().add(d)));
                    d += 16;
                }
                for d in d..v.len() {
                    *out.add(d) = half::f16::from_f32(v[d]).to_bits();
                }
            }
            KvType::Q8_0 => {
                for (b, x) in v.chunks_exact(32).enumerate() {
                    let (d, q) = quantize_q8(x);
                    let block = row.add(b * 34);
                    block.cast::<u16>().write_unaligned(d.to_bits());
                    block.add(2).cast::<[i8; 32]>().write(q);
                }
            }
            KvType::Q4_0 => {
                for (b, x) in v.chunks_exact(32).enumerate() {
                    let (d, q) = quantize_q4(x);
                    let block = row.add(b * 18);
                    block.cast::<u16>().write_unaligned(d.to_bits());
                    for i in 0..16 {
                        *block.add(2 + i) = q[i] | q[i + 16] << 4;
                    }
                }
            }
        }
    }
}
