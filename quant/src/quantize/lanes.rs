//! Arithmetic of the searches: elementwise and never fused, so that it is the same on every
//! machine.

use std::marker::PhantomData;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use super::GROUP;
use crate::float::{f16_to_f32, f32_to_f16};
use crate::lanes::{Lanes, ROUND};

/// Sub-blocks that are searched side by side, each in a lane.
pub const LANES: usize = 16;

/// The largest f16.
pub const F16_MAX: f32 = 65504.0;

/// The nearest integer, half to even, of a value in ±2^22; of any other some value near it.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    (x + ROUND) - ROUND
}

/// The nearest integer, half away from zero, of a value in ±2^21.
#[inline(always)]
pub fn round_half_away(x: f32) -> f32 {
    let even = round(x);
    let rest = x - even;
    let up = if rest == 0.5 && x > 0.0 { even + 1.0 } else { even };
    if rest == -0.5 && x < 0.0 { up - 1.0 } else { up }
}

/// The low byte of an integer in -128 to 255.
#[inline(always)]
pub fn code_byte(q: f32) -> u8 {
    (q + ROUND).to_bits() as u8
}

/// The nearest f16 as the file has it. The value is within the finite ones.
#[inline(always)]
pub fn f16_field(x: f32) -> [u8; 2] {
    f32_to_f16(x).to_le_bytes()
}

/// A CPU that has the instructions of `L`: whoever has one may use them.
#[derive(Clone, Copy, Debug)]
pub struct Cpu<L: Lanes>(PhantomData<L>);

impl<L: Lanes> Cpu<L> {
    /// Says that this CPU has the instructions.
    ///
    /// # Safety
    /// It has them, and what is compiled into the caller is compiled for them.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Cpu(PhantomData)
    }

    /// All lanes `x`.
    #[inline(always)]
    pub fn splat(self, x: f32) -> F<L> {
        // SAFETY: `self` says that the CPU can.
        F(unsafe { L::splat(x) })
    }

    /// The lanes of an array.
    #[inline(always)]
    pub fn load(self, x: &[f32; LANES]) -> F<L> {
        // SAFETY: `self` says that the CPU can, and the array has as many values.
        F(unsafe { L::load(x.as_ptr()) })
    }
}

/// A number for each sub-block, in the registers of `L`. That there is one says that the CPU has
/// the instructions, since only a [`Cpu`] makes one.
#[derive(Clone, Copy)]
pub struct F<L: Lanes>(L::V);

macro_rules! operators {
    ($($op:ident $method:ident $lanes:ident;)*) => {
        $( impl<L: Lanes> $op for F<L> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: that `self` was made says that the CPU can.
                F(unsafe { L::$lanes(self.0, other.0) })
            }
        } )*
    };
}

operators! {
    Add add add;
    Sub sub sub;
    Mul mul mul;
    Div div div;
}

impl<L: Lanes> AddAssign for F<L> {
    #[inline(always)]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl<L: Lanes> Neg for F<L> {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        self.like(0.0) - self
    }
}

impl<L: Lanes> F<L> {
    /// All lanes `x`.
    #[inline(always)]
    pub fn like(self, x: f32) -> Self {
        // SAFETY: that `self` was made says that the CPU can.
        F(unsafe { L::splat(x) })
    }

    /// `if self > b { self } else { b }`: `b` where either is NaN.
    #[inline(always)]
    pub fn max(self, b: Self) -> Self {
        // SAFETY: as in `like`.
        F(unsafe { L::max(self.0, b.0) })
    }

    /// `if self < b { self } else { b }`: `b` where either is NaN.
    #[inline(always)]
    pub fn min(self, b: Self) -> Self {
        // SAFETY: as in `like`.
        F(unsafe { L::min(self.0, b.0) })
    }

    /// The absolute value.
    #[inline(always)]
    pub fn abs(self) -> Self {
        // SAFETY: as in `like`.
        F(unsafe { L::abs(self.0) })
    }

    /// `if self < b { x } else { y }`.
    #[inline(always)]
    pub fn less(self, b: Self, x: Self, y: Self) -> Self {
        // SAFETY: as in `like`.
        F(unsafe { L::select_lt(self.0, b.0, x.0, y.0) })
    }

    /// `self / b`, or `other` where `b` is not above zero.
    #[inline(always)]
    pub fn over(self, b: Self, other: Self) -> Self {
        b.like(0.0).less(b, self / b, other)
    }

    /// `1 / self`, or zero for zero.
    #[inline(always)]
    pub fn inverse(self) -> Self {
        let zero = self.like(0.0);
        zero.less(self.abs(), self.like(1.0) / self, zero)
    }

    /// The nearest integer in a range; its beginning for NaN. Half to even.
    #[inline(always)]
    pub fn round_within(self, least: Self, most: Self) -> Self {
        let round = self.like(ROUND);
        ((self + round) - round).max(least).min(most)
    }

    /// The nearest f16, within the finite ones.
    #[inline(always)]
    pub fn to_f16(self) -> Self {
        let x = self.min(self.like(F16_MAX)).max(self.like(-F16_MAX));
        let mut half = x.array();
        for half in &mut half {
            *half = f16_to_f32(f32_to_f16(*half));
        }
        x.of(&half)
    }

    /// The lanes as an array.
    #[inline(always)]
    pub fn array(self) -> [f32; LANES] {
        // SAFETY: as in `like`.
        unsafe { L::to_array(self.0) }
    }

    /// The lanes of an array.
    #[inline(always)]
    pub fn of(self, x: &[f32; LANES]) -> Self {
        // SAFETY: as in `like`; the array has as many values.
        F(unsafe { L::load(x.as_ptr()) })
    }

    /// In each lane, what `f`, which must not mind the order of its arguments, makes of the run of
    /// `N` lanes, the sub-blocks of a block, that it is in. Lanes are taken in pairs, those in pairs,
    /// and so on.
    #[inline(always)]
    fn per_block<const N: usize>(self, f: impl Fn(Self, Self) -> Self) -> Self {
        let mut all = self;
        let mut apart = 1;
        while apart < N {
            let x = all.array();
            all = f(all, all.of(&std::array::from_fn(|i| x[i ^ apart])));
            apart *= 2;
        }
        all
    }

    /// The sum over each run of `N` lanes.
    #[inline(always)]
    pub fn sum<const N: usize>(self) -> Self {
        self.per_block::<N>(|a, b| a + b)
    }

    /// The largest of each run of `N` lanes.
    #[inline(always)]
    pub fn largest<const N: usize>(self) -> Self {
        self.per_block::<N>(|a, b| a.max(b))
    }
}

/// The values of 16 sub-blocks of `N`, with their weights: `x[j][i]` is value `j` of sub-block `i`.
pub struct Values<const N: usize> {
    /// The values.
    pub x: [[f32; LANES]; N],
    /// What their squared errors are multiplied with.
    pub w: [[f32; LANES]; N],
}

impl<const N: usize> Values<N> {
    /// The first sub-blocks.
    #[inline(always)]
    pub fn new(x: &[f32; GROUP], weights: &[f32; GROUP]) -> Self {
        Self::part(x, weights, 0)
    }

    /// The sub-blocks after `part` times as many.
    #[inline(always)]
    pub fn part(x: &[f32; GROUP], weights: &[f32; GROUP], part: usize) -> Self {
        let rest = |x: &[f32; GROUP]| transposed(&x[(part * LANES * N).min(GROUP)..]);
        Values { x: rest(x), w: rest(weights) }
    }

    /// The values and weights of all sub-blocks at place `j`.
    #[inline(always)]
    pub fn each<L: Lanes>(&self, cpu: Cpu<L>) -> impl Iterator<Item = (F<L>, F<L>)> {
        self.x.iter().zip(&self.w).map(move |(x, w)| (cpu.load(x), cpu.load(w)))
    }
}

/// Value `j` of part `i` as value `i` of row `j`.
#[inline(always)]
fn transposed<const N: usize>(x: &[f32]) -> [[f32; LANES]; N] {
    let mut out = [[0.0; LANES]; N];
    for (i, part) in x.chunks_exact(N).take(LANES).enumerate() {
        for (out, x) in out.iter_mut().zip(part) {
            out[i] = *x;
        }
    }
    out
}

/// The codes of sub-blocks one after another, given as the lanes of their values, with `zero` added.
#[inline(always)]
pub fn code_bytes<const N: usize>(codes: &[[f32; LANES]; N], zero: f32) -> [[u8; N]; LANES] {
    let mut out = [[0; N]; LANES];
    for (j, codes) in codes.iter().enumerate() {
        for i in 0..LANES {
            out[i][j] = code_byte(codes[i] + zero);
        }
    }
    out
}
