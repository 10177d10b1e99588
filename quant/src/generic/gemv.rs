//! One column: 16 rows in flight, lanes are rows after a joint reduction.

#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is its caller's promise")]

use super::source::Source;
use crate::simd::Simd;
use crate::table::GemmArgs;

/// Rows computed together.
pub const ROWS: usize = 16;

/// Asks for the lines of `bytes` bytes at `p`.
#[inline(always)]
unsafe fn prefetch<S: Simd>(p: *const u8, bytes: usize) {
    let mut i = 0;
    while i < bytes {
        // Past the end of the weights a prefetch does nothing: addresses need not be valid.
        unsafe { S::prefetch(p.wrapping_add(i)) };
        i += 64;
    }
}

/// Rows `row..row + n` (up to 16) of the weights times column `col`.
///
/// # Safety
/// As for [`GemmFn`](crate::table::GemmFn).
#[inline(always)]
pub unsafe fn rows<S: Simd, T: Source>(args: &GemmArgs<'_>, row: usize, n: usize, col: usize) {
    unsafe {
        let layout = args.layout;
        let x = args.act.add(col * layout.stride);
        let d_a = x.add(layout.d).cast::<f32>();
        let first = args.w.add(row * args.row_bytes);
        // Rows past the end repeat the last one; their results are not stored.
        let p: [*const u8; ROWS] =
            std::array::from_fn(|r| first.add(r.min(n - 1) * args.row_bytes));
        // The rows of the next tile, as one run of bytes: 16 short streams are too many for the
        // hardware to follow.
        let next = first.wrapping_add(ROWS * args.row_bytes);
        let units = layout.k / T::UNIT;
        let step = ROWS * args.row_bytes / units;
        let mut acc = S::splat(0.0);
        let mut kept = T::Kept::default();
        for u in 0..units {
            prefetch::<S>(next.wrapping_add(u * step), step);
            let da = S::splat(*d_a.add(u));
            if T::UNIT == 256 {
                let a: [S::B; 8] = std::array::from_fn(|j| S::load_b(x.add(256 * u + 32 * j)));
                let sum16 = x.add(layout.sum16).cast::<i16>().add(16 * u);
                let mut sums = [(S::zero(), S::zero()); 2];
                for (half, sums) in sums.iter_mut().enumerate() {
                    let mut dots = [S::zero(); 8];
                    let mut mins = [S::zero(); 8];
                    for i in 0..8 {
                        let r = 8 * half + i;
                        (dots[i], mins[i]) = T::dot256::<S>(p[r], u, &a, sum16, &mut kept, r);
                    }
                    sums.0 = S::reduce(dots);
                    if T::HAS_MIN {
                        sums.1 = S::reduce(mins);
                    }
                }
                let isum = S::to_f32(S::join(sums[0].0, sums[1].0));
                acc = S::fma(S::mul(T::d::<S>(p, u, &kept), da), isum, acc);
                if T::HAS_MIN {
                    let imin = S::to_f32(S::join(sums[0].1, sums[1].1));
                    acc = S::fma(S::mul(T::dmin::<S>(p, u, &kept), da), imin, acc);
                }
            } else {
                let a = S::load_b(x.add(32 * u));
                let sum = *x.add(layout.sum32).cast::<i32>().add(u);
                let mut sums = [S::zero(); 2];
                for (half, sums) in sums.iter_mut().enumerate() {
                    let mut dots = [S::zero(); 8];
                    for i in 0..8 {
                        let r = 8 * half + i;
                        dots[i] = T::dot32::<S>(p[r], u, a, &mut kept, r);
                    }
                    *sums = S::reduce(dots);
                }
                let mut isum = S::join(sums[0], sums[1]);
                if T::ZERO != 0 {
                    isum = S::add_i(isum, S::splat_i(-T::ZERO * sum));
                }
                acc = S::fma(S::mul(T::d::<S>(p, u, &kept), da), S::to_f32(isum), acc);
                if T::HAS_MIN {
                    let d = S::mul(T::dmin::<S>(p, u, &kept), da);
                    acc = S::fma(d, S::splat(sum as f32), acc);
                }
            }
        }
        let out = args.out.add(col * args.ldo + row);
        if n == ROWS {
            S::store(out, acc);
        } else {
            let acc = S::to_array(acc);
            std::ptr::copy_nonoverlapping(acc.as_ptr(), out, n);
        }
    }
}
