//! Vector operations: norms, activations, rotary embeddings, quantization of activations and
//! products with float weights.
//!
//! Each is written once, in `body`, over [`Lanes`](crate::lanes::Lanes), and compiled for each
//! level by `instantiate_ops!`; the levels agree to the bit because each lane's operations are
//! IEEE operations in the same order. [`Ops`] holds a level's functions; its methods are the safe
//! entries, which check sizes.

use crate::act::ActLayout;
use crate::attention::{ChunkArgs, KvView, MergeArgs};
use crate::lanes::Portable;
use crate::table::GemmArgs;

pub(crate) mod quantize;

/// How the pairs of a rotary embedding are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Neighbours: `(0, 1), (2, 3), ...` (ggml's "norm", used by llama's GGUF files).
    Norm,
    /// Halves: `(0, n/2), (1, n/2 + 1), ...` (ggml's "neox").
    Neox,
}

/// The gate's activation in a gated feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`
    Silu,
    /// The tanh approximation of GELU.
    Gelu,
}

/// A level's vector operations.
///
/// The fields are unsafe to call: the CPU must have the level's features, and sizes must fit, as
/// the methods of the same names check, or `act`, `matmul` and `attention`, which call the others.
#[derive(Clone, Copy)]
pub struct Ops {
    pub(crate) quantize: unsafe fn(&ActLayout, &[f32], &mut [u8]),
    pub(crate) rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    pub(crate) rms_norm_in_place: unsafe fn(&mut [f32], &[f32], f32),
    pub(crate) add: unsafe fn(&mut [f32], &[f32]),
    pub(crate) scale: unsafe fn(&mut [f32], f32),
    pub(crate) scaled: unsafe fn(&[f32], f32, &mut [f32]),
    pub(crate) softcap: unsafe fn(&mut [f32], f32),
    pub(crate) gate: unsafe fn(Activation, &mut [f32], &[f32]),
    pub(crate) rope: unsafe fn(RopeStyle, &mut [f32], &[f32], &[f32]),
    pub(crate) gemm_f32: unsafe fn(&mut GemmArgs<'_>),
    pub(crate) gemm_f16: unsafe fn(&mut GemmArgs<'_>),
    pub(crate) gemm_bf16: unsafe fn(&mut GemmArgs<'_>),
    pub(crate) kv_store: unsafe fn(&KvView, usize, &[f32], &[f32]),
    pub(crate) attention_chunk: unsafe fn(&mut ChunkArgs<'_>),
    pub(crate) attention_merge: unsafe fn(&mut MergeArgs<'_>),
}

impl Ops {
    /// The operations for any CPU.
    pub fn scalar() -> Ops {
        portable::OPS
    }

    /// Root mean square norm: `out = x / sqrt(mean(x^2) + eps) * w`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm(&self, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
        assert!(x.len() == w.len() && x.len() == out.len());
        // SAFETY: the lengths are equal; the table holds functions that the CPU can run.
        unsafe { (self.rms_norm)(x, w, eps, out) }
    }

    /// [`rms_norm`](Self::rms_norm) with `x` as the result.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm_in_place(&self, x: &mut [f32], w: &[f32], eps: f32) {
        assert_eq!(x.len(), w.len());
        // SAFETY: as above.
        unsafe { (self.rms_norm_in_place)(x, w, eps) }
    }

    /// `x += y`
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len());
        // SAFETY: as above.
        unsafe { (self.add)(x, y) }
    }

    /// `x *= s`
    pub fn scale(&self, x: &mut [f32], s: f32) {
        // SAFETY: the table holds functions that the CPU can run.
        unsafe { (self.scale)(x, s) }
    }

    /// `out = x * s`
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn scaled(&self, x: &[f32], s: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        // SAFETY: the lengths are equal; the table holds functions that the CPU can run.
        unsafe { (self.scaled)(x, s, out) }
    }

    /// `x = cap * tanh(x / cap)`
    pub fn softcap(&self, x: &mut [f32], cap: f32) {
        // SAFETY: the table holds functions that the CPU can run.
        unsafe { (self.softcap)(x, cap) }
    }

    /// `gate = act(gate) * up`
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn gate(&self, act: Activation, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        // SAFETY: the lengths are equal; the table holds functions that the CPU can run.
        unsafe { (self.gate)(act, gate, up) }
    }

    /// Rotates the first `2 * cos.len()` values of a head.
    ///
    /// # Panics
    /// If `x` is shorter than that, or `cos` and `sin` differ in length.
    pub fn rope(&self, style: RopeStyle, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert!(cos.len() == sin.len() && x.len() >= 2 * cos.len());
        // SAFETY: the lengths fit; the table holds functions that the CPU can run.
        unsafe { (self.rope)(style, x, cos, sin) }
    }
}

/// The bodies, generic over the lanes.
#[allow(clippy::undocumented_unsafe_blocks, reason = "each body's block is its caller's promise")]
pub(crate) mod body {
    use super::*;
    use crate::lanes::{self, Lanes};

    /// The last few values of a slice, padded with zeros.
    #[inline(always)]
    unsafe fn load_part<L: Lanes>(x: &[f32], at: usize) -> L::V {
        let mut pad = [0.0f32; 16];
        for (p, x) in pad.iter_mut().zip(&x[at..]) {
            *p = *x;
        }
        unsafe { L::load(pad.as_ptr()) }
    }

    /// `f` on each group of 16 of `x`, in place. `f` is called in one place: called in two, it
    /// would become a function of its own, without the level's instructions.
    #[inline(always)]
    unsafe fn map<L: Lanes>(x: &mut [f32], f: impl Fn(usize, L::V) -> L::V) {
        let mut i = 0;
        while i < x.len() {
            unsafe {
                let y = f(i, load_at::<L>(x, i));
                if i + 16 <= x.len() {
                    L::store(x.as_mut_ptr().add(i), y);
                } else {
                    let n = x.len() - i;
                    x[i..].copy_from_slice(&L::to_array(y)[..n]);
                }
            }
            i += 16;
        }
    }

    /// Group `i` of a slice as long as the one mapped.
    #[inline(always)]
    unsafe fn load_at<L: Lanes>(x: &[f32], i: usize) -> L::V {
        if i + 16 <= x.len() {
            unsafe { L::load(x.as_ptr().add(i)) }
        } else {
            unsafe { load_part::<L>(x, i) }
        }
    }

    /// One over the root mean square.
    #[inline(always)]
    unsafe fn rms_scale<L: Lanes>(x: &[f32], eps: f32) -> L::V {
        unsafe {
            let mut sum = L::splat(0.0);
            let mut i = 0;
            while i < x.len() {
                let v = load_at::<L>(x, i);
                sum = L::fma(v, v, sum);
                i += 16;
            }
            let mean = L::sum(sum) / x.len() as f32;
            L::splat(1.0 / (mean + eps).sqrt())
        }
    }

    #[inline(always)]
    pub unsafe fn rms_norm<L: Lanes>(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
        unsafe {
            let scale = rms_scale::<L>(x, eps);
            map::<L>(out, |i, _| L::mul(L::mul(load_at::<L>(x, i), scale), load_at::<L>(w, i)));
        }
    }

    #[inline(always)]
    pub unsafe fn rms_norm_in_place<L: Lanes>(x: &mut [f32], w: &[f32], eps: f32) {
        unsafe {
            let scale = rms_scale::<L>(x, eps);
            map::<L>(x, |i, v| L::mul(L::mul(v, scale), load_at::<L>(w, i)));
        }
    }

    #[inline(always)]
    pub unsafe fn add<L: Lanes>(x: &mut [f32], y: &[f32]) {
        unsafe { map::<L>(x, |i, v| L::add(v, load_at::<L>(y, i))) }
    }

    #[inline(always)]
    pub unsafe fn scale<L: Lanes>(x: &mut [f32], s: f32) {
        unsafe { map::<L>(x, |_, v| L::mul(v, L::splat(s))) }
    }

    #[inline(always)]
    pub unsafe fn scaled<L: Lanes>(x: &[f32], s: f32, out: &mut [f32]) {
        unsafe { map::<L>(out, |i, _| L::mul(load_at::<L>(x, i), L::splat(s))) }
    }

    #[inline(always)]
    pub unsafe fn softcap<L: Lanes>(x: &mut [f32], cap: f32) {
        unsafe {
            map::<L>(x, |_, v| {
                let c = L::splat(cap);
                L::mul(lanes::tanh::<L>(L::div(v, c)), c)
            });
        }
    }

    #[inline(always)]
    pub unsafe fn gate<L: Lanes>(act: Activation, gate: &mut [f32], up: &[f32]) {
        unsafe {
            match act {
                Activation::Silu => {
                    map::<L>(gate, |i, v| L::mul(lanes::silu::<L>(v), load_at::<L>(up, i)));
                }
                Activation::Gelu => {
                    map::<L>(gate, |i, v| L::mul(lanes::gelu::<L>(v), load_at::<L>(up, i)));
                }
            }
        }
    }

    #[inline(always)]
    #[expect(
        clippy::extra_unused_type_parameters,
        reason = "compiled for each level like the others"
    )]
    pub unsafe fn rope<L: Lanes>(style: RopeStyle, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        let half = cos.len();
        let rotate = |a: f32, b: f32, c: f32, s: f32| (a.mul_add(c, -(b * s)), a.mul_add(s, b * c));
        match style {
            RopeStyle::Norm => {
                for (pair, (c, s)) in x.chunks_exact_mut(2).zip(cos.iter().zip(sin)) {
                    (pair[0], pair[1]) = rotate(pair[0], pair[1], *c, *s);
                }
            }
            RopeStyle::Neox => {
                let (low, high) = x.split_at_mut(half);
                for ((a, b), (c, s)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
                    (*a, *b) = rotate(*a, *b, *c, *s);
                }
            }
        }
    }

    /// A float that weights are stored in.
    pub trait Float {
        const BYTES: usize;
        unsafe fn load16<L: Lanes>(p: *const u8) -> L::V;
        unsafe fn load1(p: *const u8) -> f32;
    }

    pub struct F32;
    pub struct F16;
    pub struct Bf16;

    impl Float for F32 {
        const BYTES: usize = 4;
        #[inline(always)]
        unsafe fn load16<L: Lanes>(p: *const u8) -> L::V {
            unsafe { L::load(p.cast()) }
        }
        #[inline(always)]
        unsafe fn load1(p: *const u8) -> f32 {
            unsafe { p.cast::<f32>().read_unaligned() }
        }
    }
    impl Float for F16 {
        const BYTES: usize = 2;
        #[inline(always)]
        unsafe fn load16<L: Lanes>(p: *const u8) -> L::V {
            unsafe { L::load_f16(p.cast()) }
        }
        #[inline(always)]
        unsafe fn load1(p: *const u8) -> f32 {
            half::f16::from_bits(unsafe { p.cast::<u16>().read_unaligned() }).to_f32()
        }
    }
    impl Float for Bf16 {
        const BYTES: usize = 2;
        #[inline(always)]
        unsafe fn load16<L: Lanes>(p: *const u8) -> L::V {
            unsafe { L::load_bf16(p.cast()) }
        }
        #[inline(always)]
        unsafe fn load1(p: *const u8) -> f32 {
            f32::from_bits(u32::from(unsafe { p.cast::<u16>().read_unaligned() }) << 16)
        }
    }

    /// Dot products of `R` rows with `C` columns: loads are shared between them.
    #[inline(always)]
    unsafe fn float_tile<L: Lanes, T: Float, const R: usize, const C: usize>(
        args: &GemmArgs<'_>,
        row: usize,
        col: usize,
    ) {
        unsafe {
            let k = args.layout.k;
            let w = |r: usize| args.w.add((row + r) * args.row_bytes);
            let x = |c: usize| args.act.add((col + c) * args.layout.stride).cast::<f32>();
            let mut acc = [[L::splat(0.0); C]; R];
            let whole = k - k % 16;
            let mut i = 0;
            while i < whole {
                let xs: [L::V; C] = std::array::from_fn(|c| L::load(x(c).add(i)));
                for r in 0..R {
                    let wv = T::load16::<L>(w(r).add(i * T::BYTES));
                    for c in 0..C {
                        acc[r][c] = L::fma(wv, xs[c], acc[r][c]);
                    }
                }
                i += 16;
            }
            for r in 0..R {
                for c in 0..C {
                    let mut lanes = L::to_array(acc[r][c]);
                    for i in whole..k {
                        let wv = T::load1(w(r).add(i * T::BYTES));
                        lanes[i - whole] = wv.mul_add(*x(c).add(i), lanes[i - whole]);
                    }
                    *args.out.add((col + c) * args.ldo + row + r) = lanes::tree_sum(lanes);
                }
            }
        }
    }

    #[inline(always)]
    pub unsafe fn gemm_float<L: Lanes, T: Float>(args: &mut GemmArgs<'_>) {
        unsafe {
            let mut row = args.rows.start;
            while row < args.rows.end {
                let four = row + 4 <= args.rows.end;
                let mut col = 0;
                while col < args.n {
                    match (four, col + 2 <= args.n) {
                        (true, true) => float_tile::<L, T, 4, 2>(args, row, col),
                        (true, false) => float_tile::<L, T, 4, 1>(args, row, col),
                        (false, true) => float_tile::<L, T, 1, 2>(args, row, col),
                        (false, false) => float_tile::<L, T, 1, 1>(args, row, col),
                    }
                    col += 2;
                }
                row += if four { 4 } else { 1 };
            }
        }
    }
}

/// Compiles the bodies for a level: a module with a constant `OPS`.
macro_rules! instantiate_ops {
    ($module:ident, $lanes:ty, $(#[$attr:meta])*) => {
        mod $module {
            #![allow(clippy::undocumented_unsafe_blocks, reason = "the promises of `Ops`'s fields")]
            use $crate::act::ActLayout;
            use $crate::attention::{self, ChunkArgs, KvView, MergeArgs};
            use $crate::ops::{Activation, Ops, RopeStyle, body};
            use $crate::table::GemmArgs;

            type L = $lanes;

            $(#[$attr])*
            unsafe fn quantize(layout: &ActLayout, x: &[f32], group: &mut [u8]) {
                unsafe { $crate::ops::quantize::quantize::<L>(layout, x, group) }
            }
            $(#[$attr])*
            unsafe fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
                unsafe { body::rms_norm::<L>(x, w, eps, out) }
            }
            $(#[$attr])*
            unsafe fn rms_norm_in_place(x: &mut [f32], w: &[f32], eps: f32) {
                unsafe { body::rms_norm_in_place::<L>(x, w, eps) }
            }
            $(#[$attr])*
            unsafe fn add(x: &mut [f32], y: &[f32]) {
                unsafe { body::add::<L>(x, y) }
            }
            $(#[$attr])*
            unsafe fn scale(x: &mut [f32], s: f32) {
                unsafe { body::scale::<L>(x, s) }
            }
            $(#[$attr])*
            unsafe fn scaled(x: &[f32], s: f32, out: &mut [f32]) {
                unsafe { body::scaled::<L>(x, s, out) }
            }
            $(#[$attr])*
            unsafe fn softcap(x: &mut [f32], cap: f32) {
                unsafe { body::softcap::<L>(x, cap) }
            }
            $(#[$attr])*
            unsafe fn gate(act: Activation, gate: &mut [f32], up: &[f32]) {
                unsafe { body::gate::<L>(act, gate, up) }
            }
            $(#[$attr])*
            unsafe fn rope(style: RopeStyle, x: &mut [f32], cos: &[f32], sin: &[f32]) {
                unsafe { body::rope::<L>(style, x, cos, sin) }
            }
            $(#[$attr])*
            unsafe fn gemm_f32(args: &mut GemmArgs<'_>) {
                unsafe { body::gemm_float::<L, body::F32>(args) }
            }
            $(#[$attr])*
            unsafe fn gemm_f16(args: &mut GemmArgs<'_>) {
                unsafe { body::gemm_float::<L, body::F16>(args) }
            }
            $(#[$attr])*
            unsafe fn gemm_bf16(args: &mut GemmArgs<'_>) {
                unsafe { body::gemm_float::<L, body::Bf16>(args) }
            }
            $(#[$attr])*
            unsafe fn kv_store(view: &KvView, pos: usize, k: &[f32], v: &[f32]) {
                unsafe { attention::kv::store::<L>(view, pos, k, v) }
            }
            $(#[$attr])*
            unsafe fn attention_chunk(args: &mut ChunkArgs<'_>) {
                unsafe { attention::body::chunk::<L>(args) }
            }
            $(#[$attr])*
            unsafe fn attention_merge(args: &mut MergeArgs<'_>) {
                unsafe { attention::body::merge::<L>(args) }
            }

            pub const OPS: Ops = Ops {
                quantize,
                rms_norm,
                rms_norm_in_place,
                add,
                scale,
                scaled,
                softcap,
                gate,
                rope,
                gemm_f32,
                gemm_f16,
                gemm_bf16,
                kv_store,
                attention_chunk,
                attention_merge,
            };
        }
    };
}
pub(crate) use instantiate_ops;

instantiate_ops!(portable, super::Portable,);
