//! Quantizers that search: for each block the scales, minimums and codes with a small error, each
//! value weighted by how much it matters.
//!
//! A format implements [`Search`], in one body of safe code over fixed arrays, and has a row in
//! `for_each_search!` or `for_each_recode!`. Each level compiles the bodies for its instructions;
//! the bits are the same at every level, since a body works on 16 sub-blocks side by side (a lane is
//! a sub-block, never a part of one), and nothing is fused, reassociated or taken from a mathematical
//! library.

pub mod affine;
pub mod centred;
pub mod curve;
pub mod fp4;
pub mod grid;
pub mod lanes;
pub mod points;
pub mod recode;
pub mod scale_min;
pub mod scale_plan;
pub mod ternary;
pub mod unit;

use bytemuck::try_cast_slice_mut;

use crate::formats::Block;
use crate::lanes::Lanes;
use lanes::{Cpu, LANES};

/// Values that are searched together: whole blocks of every format.
pub const GROUP: usize = 512;

/// Values further from zero are taken for this: more than any format can hold, little enough that
/// fourth powers can be summed.
const MAX_VALUE: f32 = 3e8;

/// The least weight of a value beside the greatest of its block, so that none is divided by zero.
const MIN_IMPORTANCE: f32 = 1e-7;

/// A quantizer: the values of whole rows, the importance of each column, the rows' bytes.
///
/// # Safety
/// The CPU has what the level needs that the function was installed for.
pub type QuantizeFn = unsafe fn(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]);

/// A format with a quantizer that searches.
pub trait Search: Block {
    /// False if the rule of the format has no use for weights, which are then all 1.
    const WEIGHTED: bool = true;

    /// Quantizes the first `out.len()` blocks of the values, at least one.
    ///
    /// The bits of a block depend on its own values and weights only. No value is NaN or beyond
    /// ±3e8. The weights of the squared errors are within 1e-7 to 1, the greatest of a block being
    /// 1.
    fn search<L: Lanes>(cpu: Cpu<L>, x: &[f32; GROUP], weights: &[f32; GROUP], out: &mut [Self]);
}

/// Quantizes rows by the search of `B`. See [`QuantizeFn`].
///
/// The values are as many as the bytes hold, in whole blocks; those are multiples of the number of
/// importances, which is not zero.
#[inline(always)]
pub fn rows<L: Lanes, B: Search>(
    cpu: Cpu<L>,
    x: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) {
    // A block has the alignment of a byte, and the length is whole blocks: the cast cannot fail.
    let blocks: &mut [B] = try_cast_slice_mut(out).unwrap_or(&mut []);
    let (mut values, mut weights) = ([0.0; GROUP], [1.0; GROUP]);
    // The next value's place in its row.
    let mut column = 0;
    for (blocks, x) in blocks.chunks_mut(GROUP / B::LEN).zip(x.chunks(GROUP)) {
        for (value, x) in values.iter_mut().zip(x) {
            let x = if *x < MAX_VALUE { *x } else { MAX_VALUE };
            *value = if x > -MAX_VALUE { x } else { -MAX_VALUE };
        }
        values[x.len()..].fill(0.0);
        let parts = weights.chunks_exact_mut(B::LEN).zip(values.chunks_exact(B::LEN));
        for (weights, x) in parts.take(if B::WEIGHTED { blocks.len() } else { 0 }) {
            let row = importance.and_then(|all| all.get(column..column + B::LEN));
            weigh(x, row, weights);
            column += B::LEN;
            if importance.is_none_or(|all| column >= all.len()) {
                column = 0;
            }
        }
        B::search(cpu, &values, &weights, blocks);
    }
}

/// The weights of the squared errors of a block's values:
///
/// ```text
/// importance * sqrt(mean of the squares of the block + x * x)
/// ```
///
/// as in ggml's quantizers with an importance matrix, where others have other rules. Measured with
/// language models (tools/peers/quality.py), the importance alone, which makes the expected error of
/// a product least, gives a larger divergence: large weights meet large activations more often than
/// independent ones would. Without importances the mean counts four times: that was better with
/// Gemma 3, and with Qwen2.5 over 14 chunks of text, but not over 4 of them; the difference is within
/// what one file of a type differs from another.
#[inline(always)]
fn weigh(x: &[f32], importance: Option<&[f32]>, out: &mut [f32]) {
    match importance {
        Some(importance) => out.copy_from_slice(importance),
        None => out.fill(1.0),
    }
    relative(out);
    let mut sums = [0.0; LANES];
    for x in x.chunks_exact(LANES) {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += x * x;
        }
    }
    let share = if importance.is_some() { 1.0 } else { 4.0 };
    let mean = share * sums.iter().sum::<f32>() / x.len() as f32;
    for (out, x) in out.iter_mut().zip(x) {
        *out *= (mean + x * x).sqrt();
    }
    relative(out);
}

/// Makes weights relative to the greatest. Where all are zero, all become the same.
#[inline(always)]
fn relative(weights: &mut [f32]) {
    let greatest = weights.iter().fold(0.0, |max, w| if *w > max { *w } else { max });
    if greatest > 0.0 && greatest.is_finite() {
        for weight in weights {
            let w = *weight / greatest;
            *weight = if w > MIN_IMPORTANCE { w } else { MIN_IMPORTANCE };
        }
    } else {
        weights.fill(1.0);
    }
}

/// The formats that implement [`Recode`](recode::Recode), and so [`Search`]: calls
/// `$then! { [args] (Q4_0, BlockQ4_0) ... }`.
macro_rules! for_each_recode {
    ($then:path [$($args:tt)*]) => {
        $then! { [$($args)*]
            (Q4_0, BlockQ4_0)
            (Q4_1, BlockQ4_1)
            (Q5_0, BlockQ5_0)
            (Q5_1, BlockQ5_1)
            (Q2_K, BlockQ2K)
            (Q3_K, BlockQ3K)
            (Q4_K, BlockQ4K)
            (Q5_K, BlockQ5K)
            (Q6_K, BlockQ6K)
            (IQ4_NL, BlockIQ4NL)
            (IQ4_XS, BlockIQ4XS)
        }
    };
}
pub(crate) use for_each_recode;

/// The same for those that implement [`Search`] alone.
macro_rules! for_each_search {
    ($then:path [$($args:tt)*]) => {
        $then! { [$($args)*]
            (Q8_0, BlockQ8_0)
            (IQ1_S, BlockIQ1S)
            (IQ1_M, BlockIQ1M)
            (IQ2_XXS, BlockIQ2XXS)
            (IQ2_XS, BlockIQ2XS)
            (IQ2_S, BlockIQ2S)
            (IQ3_XXS, BlockIQ3XXS)
            (IQ3_S, BlockIQ3S)
            (TQ1_0, BlockTQ1_0)
            (TQ2_0, BlockTQ2_0)
            (MXFP4, BlockMXFP4)
        }
    };
}
pub(crate) use for_each_search;

macro_rules! is_weighted {
    ([$ty:ident] $( ($variant:ident, $block:ident) )*) => {
        $( if $ty == crate::GgmlType::$variant {
            return <crate::formats::$block as Search>::WEIGHTED;
        } )*
    };
}

/// True if it matters to the quantizer of a type which columns are used most.
pub fn weighs_columns(ty: crate::GgmlType) -> bool {
    for_each_search! { is_weighted [ty] }
    for_each_recode! { is_weighted [ty] }
    false
}

macro_rules! install_recode {
    ([$table:ident, $recode:ident] $( ($variant:ident, $block:ident) )*) => {
        $( $table.set_recode($crate::GgmlType::$variant, $recode::<$crate::formats::$block>); )*
    };
}
pub(crate) use install_recode;

macro_rules! install_search {
    ([$table:ident, $quantize:ident] $( ($variant:ident, $block:ident) )*) => {
        $( $table.set_quantize(
            $crate::GgmlType::$variant,
            $quantize::<$crate::formats::$block>,
        ); )*
    };
}
pub(crate) use install_search;

/// Compiles the quantizers for a level: a module with a function `install`.
macro_rules! instantiate_quantize {
    ($module:ident, $lanes:ty, $(#[$attr:meta])*) => {
        mod $module {
            use $crate::quantize::recode::{self, Feedback, Recode};
            use $crate::quantize::{QuantizeFn, Search};
            use $crate::table::KernelTable;

            $(#[$attr])*
            unsafe fn quantize<B: Search>(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
                // SAFETY: the caller's promise.
                let cpu = unsafe { $crate::quantize::lanes::Cpu::<$lanes>::new() };
                $crate::quantize::rows::<$lanes, B>(cpu, x, importance, out);
            }

            $(#[$attr])*
            unsafe fn recode<B: Recode>(
                search: QuantizeFn,
                x: &[f32],
                importance: Option<&[f32]>,
                feedback: &Feedback,
                out: &mut [u8],
            ) {
                // SAFETY: the caller's promise.
                let cpu = unsafe { $crate::quantize::lanes::Cpu::<$lanes>::new() };
                // SAFETY: the caller's promise.
                let search = |x: &[f32], importance: Option<&[f32]>, out: &mut [u8]| unsafe {
                    search(x, importance, out);
                };
                recode::rows::<$lanes, B>(cpu, search, x, importance, feedback, out);
            }

            /// Installs the quantizers.
            pub fn install(table: &mut KernelTable) {
                $crate::quantize::for_each_search! {
                    $crate::quantize::install_search [table, quantize]
                }
                $crate::quantize::for_each_recode! {
                    $crate::quantize::install_search [table, quantize]
                }
                $crate::quantize::for_each_recode! {
                    $crate::quantize::install_recode [table, recode]
                }
            }
        }
    };
}
pub(crate) use instantiate_quantize;

instantiate_quantize!(portable, crate::lanes::Portable,);
pub(crate) use portable::install as install_portable;
