//! Dot products of bytes: by widening multiplications, by `sdot`, or by `smmla`.
//!
//! Registers hold 16 codes of a row each, those of 4 rows after each other; of 32 codes a row, the
//! second 16 follow in 4 more.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the promise of the caller")]

use std::arch::aarch64::*;
use std::arch::asm;
use std::fmt::Debug;

/// How bytes are multiplied and added up.
///
/// # Safety
/// Call the methods only where the CPU has the instructions that the type names.
pub unsafe trait Dot: Copy + Debug + Send + Sync + 'static {
    /// [`Simd::dots`](crate::simd::Simd::dots), a lane for each row.
    unsafe fn dots<const N: usize>(w: &[int8x16_t; N], a: *const u8, top: i32) -> int32x4_t;

    /// 16 codes of each row as [`tile`](Self::tile) takes them.
    unsafe fn panel(w: [int8x16_t; 4]) -> [int8x16_t; 4];

    /// [`Simd::tile`](crate::simd::Simd::tile).
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        top: i32,
    ) -> [int32x4_t; C];
}

/// `smull`, `smlal` and pairwise additions: any NEON.
#[derive(Clone, Copy, Debug)]
pub struct Mla;

/// `sdot`: Armv8.2 with the dot product extension.
#[derive(Clone, Copy, Debug)]
pub struct Sdot;

/// `smmla`: with the 8-bit matrix product extension; `sdot` for a single column.
#[derive(Clone, Copy, Debug)]
pub struct Smmla;

/// The sum of each register's lanes.
#[inline(always)]
unsafe fn sums(x: [int32x4_t; 4]) -> int32x4_t {
    unsafe { vpaddq_s32(vpaddq_s32(x[0], x[1]), vpaddq_s32(x[2], x[3])) }
}

/// Lane `i` of each register, as register `i`.
#[inline(always)]
pub(super) unsafe fn transpose(x: [int32x4_t; 4]) -> [int32x4_t; 4] {
    unsafe {
        let (s, l) = (vreinterpretq_s32_s64, vreinterpretq_s64_s32);
        let (a, b) = (l(vtrn1q_s32(x[0], x[1])), l(vtrn2q_s32(x[0], x[1])));
        let (c, d) = (l(vtrn1q_s32(x[2], x[3])), l(vtrn2q_s32(x[2], x[3])));
        [s(vtrn1q_s64(a, c)), s(vtrn1q_s64(b, d)), s(vtrn2q_s64(a, c)), s(vtrn2q_s64(b, d))]
    }
}

#[inline(always)]
unsafe fn load<const N: usize>(p: *const u8) -> [int8x16_t; N] {
    unsafe {
        let mut x = [vdupq_n_s8(0); N];
        for i in 0..N {
            x[i] = vld1q_s8(p.add(16 * i).cast());
        }
        x
    }
}

// SAFETY: NEON only.
unsafe impl Dot for Mla {
    #[inline(always)]
    unsafe fn dots<const N: usize>(w: &[int8x16_t; N], a: *const u8, top: i32) -> int32x4_t {
        unsafe {
            let mut acc = [vdupq_n_s32(0); 4];
            for r in 0..4 {
                let mut sum = vdupq_n_s16(0);
                for i in 0..N / 4 {
                    let (w, a) = (w[4 * i + r], vld1q_s8(a.add(16 * i).cast()));
                    sum = vmlal_s8(sum, vget_low_s8(w), vget_low_s8(a));
                    sum = vmlal_high_s8(sum, w, a);
                    // 16 bits hold two products of any bytes, and four of codes up to 63.
                    if top > 63 || i + 1 == N / 4 {
                        acc[r] = vpadalq_s16(acc[r], sum);
                        sum = vdupq_n_s16(0);
                    }
                }
            }
            sums(acc)
        }
    }

    #[inline(always)]
    unsafe fn panel(w: [int8x16_t; 4]) -> [int8x16_t; 4] {
        w
    }

    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        top: i32,
    ) -> [int32x4_t; C] {
        unsafe {
            let w = load::<N>(w);
            let mut out = [vdupq_n_s32(0); C];
            // A loop would stay one, with the results in memory.
            macro_rules! columns {
                ($($c:literal)*) => {
                    $( if $c < C { out[$c] = Self::dots(&w, a.add(32 * $c), top); } )*
                };
            }
            columns!(0 1 2 3 4 5 6 7);
            out
        }
    }
}

/// Adds to each lane the products of its 4 bytes in both.
#[inline(always)]
unsafe fn sdot(mut acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // The intrinsic is not stable.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {acc:v}.4s, {w:v}.16b, {a:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Adds to each lane the products of its 4 bytes in `w` with bytes `4 L .. 4 L + 4` of `a`.
#[inline(always)]
unsafe fn sdot_lane<const L: i32>(mut acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // The intrinsic is not stable.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {acc:v}.4s, {w:v}.16b, {a:v}.4b[{lane}]",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            a = in(vreg) a,
            lane = const L,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

// SAFETY: NEON and `sdot`, as the type says.
unsafe impl Dot for Sdot {
    #[inline(always)]
    unsafe fn dots<const N: usize>(w: &[int8x16_t; N], a: *const u8, _: i32) -> int32x4_t {
        unsafe {
            let mut acc = [vdupq_n_s32(0); 4];
            for i in 0..N / 4 {
                let a = vld1q_s8(a.add(16 * i).cast());
                for r in 0..4 {
                    acc[r] = sdot(acc[r], w[4 * i + r], a);
                }
            }
            sums(acc)
        }
    }

    /// 4 codes of each row.
    #[inline(always)]
    unsafe fn panel(w: [int8x16_t; 4]) -> [int8x16_t; 4] {
        unsafe {
            let s = |x| vreinterpretq_s32_s8(x);
            let [a, b, c, d] = transpose([s(w[0]), s(w[1]), s(w[2]), s(w[3])]);
            let b8 = |x| vreinterpretq_s8_s32(x);
            [b8(a), b8(b), b8(c), b8(d)]
        }
    }

    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        _: i32,
    ) -> [int32x4_t; C] {
        unsafe {
            let mut acc = [vdupq_n_s32(0); C];
            for i in (0..N).step_by(4) {
                let w = load::<4>(w.add(16 * i));
                for c in 0..C {
                    let a = vld1q_s8(a.add(32 * c + 4 * i).cast());
                    acc[c] = sdot_lane::<0>(acc[c], w[0], a);
                    acc[c] = sdot_lane::<1>(acc[c], w[1], a);
                    acc[c] = sdot_lane::<2>(acc[c], w[2], a);
                    acc[c] = sdot_lane::<3>(acc[c], w[3], a);
                }
            }
            acc
        }
    }
}

/// Adds the products of 2 rows of 8 bytes with 2 columns of 8 bytes: row 0 with both, row 1 with
/// both.
#[inline(always)]
unsafe fn smmla(mut acc: int32x4_t, w: int8x16_t, a: int64x2_t) -> int32x4_t {
    // The intrinsic is not stable.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {acc:v}.4s, {w:v}.16b, {a:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

// SAFETY: NEON, `sdot` and `smmla`, as the type says.
unsafe impl Dot for Smmla {
    #[inline(always)]
    unsafe fn dots<const N: usize>(w: &[int8x16_t; N], a: *const u8, top: i32) -> int32x4_t {
        unsafe { Sdot::dots(w, a, top) }
    }

    /// 8 codes of rows 0 and 1, and of rows 2 and 3.
    #[inline(always)]
    unsafe fn panel(w: [int8x16_t; 4]) -> [int8x16_t; 4] {
        unsafe {
            let l = |i: usize| vreinterpretq_s64_s8(w[i]);
            let first = |i: usize| vreinterpretq_s8_s64(vzip1q_s64(l(i), l(i + 1)));
            let last = |i: usize| vreinterpretq_s8_s64(vzip2q_s64(l(i), l(i + 1)));
            [first(0), first(2), last(0), last(2)]
        }
    }

    #[inline(always)]
    unsafe fn tile<const C: usize, const N: usize>(
        w: *const u8,
        a: *const u8,
        _: i32,
    ) -> [int32x4_t; C] {
        unsafe {
            // Rows 0 and 1, and rows 2 and 3, of two columns each.
            let mut acc = [[vdupq_n_s32(0); 2]; C];
            for i in (0..N).step_by(4) {
                let w = load::<4>(w.add(16 * i));
                for c in (0..C).step_by(2) {
                    let x = vld1q_s64(a.add(32 * c + 4 * i).cast());
                    let y = vld1q_s64(a.add(32 * (c + 1) + 4 * i).cast());
                    // 8 activations of a column, and of the next.
                    let (first, last) = (vzip1q_s64(x, y), vzip2q_s64(x, y));
                    for rows in 0..2 {
                        acc[c][rows] = smmla(acc[c][rows], w[rows], first);
                        acc[c][rows] = smmla(acc[c][rows], w[2 + rows], last);
                    }
                }
            }
            let mut out = [vdupq_n_s32(0); C];
            for c in (0..C).step_by(2) {
                out[c] = vuzp1q_s32(acc[c][0], acc[c][1]);
                out[c + 1] = vuzp2q_s32(acc[c][0], acc[c][1]);
            }
            out
        }
    }
}
