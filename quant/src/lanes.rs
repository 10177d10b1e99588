//! Sixteen f32 lanes, the unit in which all float arithmetic is written.
//!
//! Every operation on the lanes is an IEEE operation on each lane by itself, so a level that holds
//! them in one register, two, four or an array computes the same bits. Sums over the lanes always
//! follow one tree: lane `i` takes lane `i + 8`, then `i + 4`, `i + 2`, `i + 1`.

#![allow(clippy::missing_safety_doc, reason = "the trait's Safety section covers its methods")]

use std::fmt::Debug;

/// Bytes of a line of the caches.
pub const LINE: usize = 64;

/// How an instruction set asks for memory.
pub trait Prefetch: Copy + Debug + Send + Sync + 'static {
    /// Asks for the cache line at `p`, into the second-level cache. Any address will do.
    fn prefetch(p: *const u8);

    /// [`prefetch_near`](Self::prefetch_near) is another instruction than [`prefetch`](Self::prefetch).
    const NEAR: bool = false;

    /// Asks for the cache line at `p`, into the first-level cache. Any address will do.
    #[inline(always)]
    fn prefetch_near(p: *const u8) {
        Self::prefetch(p);
    }

    /// How often a line is asked for at least, a little later each time. A CPU that computes faster than its memory
    /// reads drops requests; what was dropped would be waited for when it is used.
    const ASKS: usize = 1;

    /// `p`, in such a way that what is asked for at it afterwards tends to stay between the reads of
    /// memory before and those after, by the disassembly: the compiler gathers requests in one place if
    /// it can. Costs some of its freedom (with AVX2 a quarter of the speed of Q4_K in the cache), which
    /// is worth it where computing is not what takes the time.
    #[inline(always)]
    fn here(p: *const u8) -> *const u8 {
        p
    }
}

/// Sixteen lanes as some instruction set holds them.
///
/// # Safety
/// The methods may use instructions beyond the baseline: call them only where the CPU is known to
/// have them, which is inside a function that `arch` installs for a level. Pointers must be
/// valid for sixteen elements, and sixty-four where as many are written; they need no alignment.
pub unsafe trait Lanes: Prefetch {
    /// The sixteen lanes.
    type V: Copy;

    /// Sums of sixteen lanes that the registers hold beside what is added to them.
    const SUMS: usize;

    /// All lanes `x`.
    unsafe fn splat(x: f32) -> Self::V;
    /// Reads 16 values.
    unsafe fn load(p: *const f32) -> Self::V;
    /// Reads 16 half-precision values.
    unsafe fn load_f16(p: *const u16) -> Self::V;
    /// Reads 16 bfloat16 values.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// Reads 16 signed bytes.
    unsafe fn load_i8(p: *const i8) -> Self::V;
    /// Writes 16 values.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Writes 16 values rounded to half precision, half to even.
    unsafe fn store_f16(p: *mut u16, v: Self::V);
    /// `a + b`
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `if a > b { a } else { b }`: `b` where either is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }`: `b` where either is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// The absolute value.
    unsafe fn abs(a: Self::V) -> Self::V;
    /// `if a < b { x } else { y }`
    unsafe fn select_lt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// 2 to the power `n`, given `n + ROUND` for an integer `n` in -126 to 127.
    unsafe fn exp2_rounded(t: Self::V) -> Self::V;
    /// Writes the 64 integers as bytes, given `q + ROUND` for integers `q` in -128 to 127.
    unsafe fn store_i8_rounded(p: *mut i8, t: [Self::V; 4]);

    /// The lanes as an array.
    #[inline(always)]
    unsafe fn to_array(v: Self::V) -> [f32; 16] {
        let mut out = [0.0; 16];
        // SAFETY: the array has 16 elements; the rest is the caller's promise.
        unsafe { Self::store(out.as_mut_ptr(), v) };
        out
    }

    /// The largest lane, of lanes that are at least 0 and not NaN.
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        // SAFETY: the caller's promise.
        let x = unsafe { Self::to_array(v) };
        x.into_iter().fold(0.0, |a, b| if b > a { b } else { a })
    }

    /// The sum of the lanes, by the fixed tree.
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        // SAFETY: the caller's promise.
        tree_sum(unsafe { Self::to_array(v) })
    }

    /// The largest lane of each, which have no NaN, in a lane each: a third of the instructions of one after
    /// the other where lanes can be shuffled, and none waits for the one before. Of zeros, either.
    #[inline(always)]
    unsafe fn largest_each(v: &[Self::V; 16]) -> Self::V {
        let mut out = [f32::NEG_INFINITY; 16];
        for (out, v) in out.iter_mut().zip(v) {
            // SAFETY: the caller's promise.
            for x in unsafe { Self::to_array(*v) } {
                *out = if x > *out { x } else { *out };
            }
        }
        // SAFETY: the array has 16 elements; the rest is the caller's promise.
        unsafe { Self::load(out.as_ptr()) }
    }

    /// [`sum`](Self::sum) of each, in a lane each.
    #[inline(always)]
    unsafe fn sum_each(v: &[Self::V; 16]) -> Self::V {
        let mut out = [0.0; 16];
        for (out, v) in out.iter_mut().zip(v) {
            // SAFETY: the caller's promise.
            *out = unsafe { Self::sum(*v) };
        }
        // SAFETY: the array has 16 elements; the rest is the caller's promise.
        unsafe { Self::load(out.as_ptr()) }
    }
}

/// Adding this to a value in ±2^22 rounds it to an integer, half to even, which then stands in the
/// low bits: 1.5 * 2^23.
pub const ROUND: f32 = 12_582_912.0;

/// The fixed tree: lane `i` takes `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
#[inline(always)]
pub fn tree_sum(mut x: [f32; 16]) -> f32 {
    let mut half = 8;
    while half > 0 {
        for i in 0..half {
            x[i] += x[i + half];
        }
        half /= 2;
    }
    x[0]
}

/// The lanes as an array, for any CPU.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

macro_rules! lanewise {
    ($a:ident, $b:ident, $e:expr) => {{
        let mut out = [0.0f32; 16];
        for i in 0..16 {
            let ($a, $b) = ($a[i], $b[i]);
            out[i] = $e;
        }
        out
    }};
}

impl Prefetch for Portable {
    #[inline(always)]
    fn prefetch(_: *const u8) {}
}

// SAFETY: uses no instruction beyond the baseline.
unsafe impl Lanes for Portable {
    type V = [f32; 16];

    const SUMS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 16] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> [f32; 16] {
        // SAFETY: the caller's promise.
        let x = unsafe { p.cast::<[u16; 16]>().read_unaligned() };
        x.map(|x| half::f16::from_bits(x).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> [f32; 16] {
        // SAFETY: the caller's promise.
        let x = unsafe { p.cast::<[u16; 16]>().read_unaligned() };
        x.map(|x| f32::from_bits(u32::from(x) << 16))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> [f32; 16] {
        // SAFETY: the caller's promise.
        let x = unsafe { p.cast::<[i8; 16]>().read_unaligned() };
        x.map(f32::from)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 16]) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: [f32; 16]) {
        let x = v.map(|x| half::f16::from_f32(x).to_bits());
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[u16; 16]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        lanewise!(a, b, a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        lanewise!(a, b, a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        lanewise!(a, b, a * b)
    }
    #[inline(always)]
    unsafe fn div(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        lanewise!(a, b, a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        let mut out = c;
        for i in 0..16 {
            out[i] = a[i].mul_add(b[i], c[i]);
        }
        out
    }
    #[inline(always)]
    unsafe fn max(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        lanewise!(a, b, if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        lanewise!(a, b, if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn abs(a: [f32; 16]) -> [f32; 16] {
        a.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn select_lt(a: [f32; 16], b: [f32; 16], x: [f32; 16], y: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn exp2_rounded(t: [f32; 16]) -> [f32; 16] {
        t.map(|t| f32::from_bits((t.to_bits() << 23).wrapping_add(0x3f80_0000)))
    }
    #[inline(always)]
    unsafe fn store_i8_rounded(p: *mut i8, t: [[f32; 16]; 4]) {
        for (i, t) in t.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { p.cast::<[i8; 16]>().add(i).write(t.map(|t| t.to_bits() as i8)) }
        }
    }
}

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts, the first short enough that its product with an exponent is exact.
const LN2_HI: f32 = 0.693_359_375;
const LN2_LO: f32 = -2.121_944_4e-4;

/// e to the power `x`, to about 1 ulp: 0 below -87.3, infinity above 88.3, NaN for NaN.
///
/// The argument is reduced to `r = x - n ln 2` in ±0.35 and the minimax polynomial of Cephes'
/// `expf` evaluated.
///
/// # Safety
/// As for the methods of [`Lanes`].
#[inline(always)]
pub unsafe fn exp<L: Lanes>(x: L::V) -> L::V {
    // SAFETY: the caller's promise.
    unsafe {
        let round = L::splat(ROUND);
        // `min` and `max` return their second operand for NaN, so it has to be x.
        let c = L::max(L::splat(-87.3), L::min(L::splat(88.3), x));
        let t = L::fma(c, L::splat(LOG2_E), round);
        let n = L::sub(t, round);
        let r = L::fma(n, L::splat(-LN2_HI), c);
        let r = L::fma(n, L::splat(-LN2_LO), r);
        let mut p = L::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = L::fma(p, r, L::splat(c));
        }
        let one = L::splat(1.0);
        let y = L::add(L::fma(p, L::mul(r, r), r), one);
        let y = L::mul(y, L::exp2_rounded(t));
        let y = L::select_lt(x, L::splat(-87.3), L::splat(0.0), y);
        L::select_lt(L::splat(88.3), x, L::splat(f32::INFINITY), y)
    }
}

/// `x / (1 + exp(-x))`
///
/// # Safety
/// As for the methods of [`Lanes`].
#[inline(always)]
pub unsafe fn silu<L: Lanes>(x: L::V) -> L::V {
    // SAFETY: the caller's promise.
    unsafe {
        let e = exp::<L>(L::sub(L::splat(0.0), x));
        L::div(x, L::add(L::splat(1.0), e))
    }
}

/// GELU by its tanh approximation: `x / (1 + exp(-2 u))`, `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
///
/// # Safety
/// As for the methods of [`Lanes`].
#[inline(always)]
pub unsafe fn gelu<L: Lanes>(x: L::V) -> L::V {
    // SAFETY: the caller's promise.
    unsafe {
        let x2 = L::mul(x, x);
        let cubic = L::fma(L::mul(L::splat(0.044_715), x2), x, x);
        // -2 sqrt(2 / pi)
        let e = exp::<L>(L::mul(cubic, L::splat(-1.595_769_1)));
        L::div(x, L::add(L::splat(1.0), e))
    }
}

/// The hyperbolic tangent: Cephes' polynomial below 0.625, by [`exp`] above.
///
/// # Safety
/// As for the methods of [`Lanes`].
#[inline(always)]
pub unsafe fn tanh<L: Lanes>(x: L::V) -> L::V {
    // SAFETY: the caller's promise.
    unsafe {
        let one = L::splat(1.0);
        let e = exp::<L>(L::mul(x, L::splat(2.0)));
        let large = L::sub(one, L::div(L::splat(2.0), L::add(one, e)));
        let z = L::mul(x, x);
        let mut p = L::splat(-5.704_988_7e-3);
        for c in [2.063_909e-2, -5.373_971_5e-2, 1.333_144_2e-1, -3.333_328_2e-1] {
            p = L::fma(p, z, L::splat(c));
        }
        let small = L::fma(L::mul(p, z), x, x);
        L::select_lt(L::abs(x), L::splat(0.625), small, large)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(f: unsafe fn([f32; 16]) -> [f32; 16], x: f32) -> f32 {
        // SAFETY: the portable lanes need nothing.
        let y = unsafe { f([x; 16]) };
        y[3]
    }

    #[test]
    fn exp_is_accurate_and_its_ends_are_right() {
        let mut x = -87.0f32;
        while x < 88.0 {
            let (got, want) = (f64::from(each(exp::<Portable>, x)), f64::from(x).exp());
            assert!((got / want - 1.0).abs() < 2e-7, "exp({x}) = {got}, not {want}");
            x += 0.0137;
        }
        assert_eq!(each(exp::<Portable>, 0.0), 1.0);
        assert_eq!(each(exp::<Portable>, f32::NEG_INFINITY), 0.0);
        assert_eq!(each(exp::<Portable>, f32::INFINITY), f32::INFINITY);
        assert!(each(exp::<Portable>, f32::NAN).is_nan());
    }

    #[test]
    fn activations_follow_their_formulas() {
        let mut x = -12.0f32;
        while x < 12.0 {
            let y = f64::from(x);
            let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
            let u = (2.0 / std::f64::consts::PI).sqrt() * (y + 0.044715 * y * y * y);
            let cases = [
                ("silu", each(silu::<Portable>, x), y * sigmoid(y)),
                ("gelu", each(gelu::<Portable>, x), y * sigmoid(2.0 * u)),
                ("tanh", each(tanh::<Portable>, x), y.tanh()),
            ];
            for (name, got, want) in cases {
                let error = (f64::from(got) - want).abs();
                assert!(error < 1e-6 * want.abs().max(0.01), "{name}({x}) = {got}, not {want}");
            }
            x += 0.0071;
        }
    }
}
