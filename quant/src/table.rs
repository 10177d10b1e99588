//! The kernels of a level, chosen once.
//!
//! The table is filled with the scalar kernels, then overridden by each [`Level`] that the CPU has,
//! in order. Every entry computes the same bits (see [`crate::matmul`]); a level only makes it
//! faster.

use crate::act::{ActLayout, Sums};
use crate::features::CpuFeatures;
use crate::formats::{self, RowError};
use crate::generic;
use crate::ops::Ops;
use crate::par::Scratch;
use crate::quantize::recode::{Feedback, RecodeFn};
use crate::quantize::{self, QuantizeFn};
use crate::types::{Act, GgmlType};
use std::ops::Range;

/// One call of a matrix kernel: rows `rows` of the weights against all `n` rows of activations.
///
/// Element `(r, c)` goes to `out[c * ldo + r]`.
pub struct GemmArgs<'a> {
    /// The first weight row (row 0, whatever `rows` begins with).
    pub w: *const u8,
    /// Bytes from a weight row to the next.
    pub row_bytes: usize,
    /// The activation rows, aligned to 64; [`ActLayout::bytes`] of `n` rows.
    pub act: *const u8,
    /// How an activation row is laid out; `layout.k` is the length of the dot products.
    pub layout: &'a ActLayout,
    /// Rows of activations (columns of the product).
    pub n: usize,
    /// Weight rows to compute.
    pub rows: Range<usize>,
    /// Weights that the thread will read next, for prefetching; null where it is not known.
    pub next: *const u8,
    /// Where element (0, 0) goes.
    pub out: *mut f32,
    /// Elements from a column of the product to the next.
    pub ldo: usize,
    /// [`KernelTable::near_bytes`].
    pub near_bytes: usize,
    /// How formats are unpacked that share the kernels of a shape: set by what calls those.
    pub unpack: Option<generic::staged::Unpack>,
    /// The thread's own memory.
    pub scratch: &'a mut Scratch,
}

/// A matrix kernel.
///
/// # Safety
/// The pointers of the arguments are valid for the rows and columns that they describe, the layout has
/// the kernel's [`Kernels::sums`], nothing else accesses the elements written, and the CPU has what the
/// kernel's level needs.
pub type GemmFn = unsafe fn(&mut GemmArgs<'_>);

/// Multiplies bytes as panels of many columns are multiplied, but without scales, as often as it is told:
/// what [`crate::limits`] measures. Returns how many operations that was, a multiplication and an
/// addition being two.
///
/// # Safety
/// The CPU has what the level needs.
pub type PeakFn = unsafe fn(u64) -> u64;

/// What a level installs for a weight type.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// What the activations must be quantized to.
    pub act: Act,
    /// The matrix product.
    pub gemm: GemmFn,
    /// Rows that it likes to compute together where there are many columns.
    pub rows: usize,
    /// The sums of the activations that it reads.
    pub sums: Sums,
}

/// An instruction set level.
pub struct Level {
    /// The name by which it can be forced.
    pub name: &'static str,
    /// What the CPU must have.
    pub needs: CpuFeatures,
    /// Overrides the kernels that the level does better.
    pub install: fn(&mut KernelTable),
}

/// The kernels of all types, and the vector operations.
pub struct KernelTable {
    kernels: [Option<Kernels>; GgmlType::COUNT],
    quantize: [Option<QuantizeFn>; GgmlType::COUNT],
    recode: [Option<RecodeFn>; GgmlType::COUNT],
    ops: Ops,
    peak: Option<PeakFn>,
    near_bytes: usize,
    level: &'static str,
}

impl KernelTable {
    /// The fastest kernels that the CPU can run, or those of the level that the environment
    /// variable [`LEVEL_VARIABLE`](crate::features::LEVEL_VARIABLE) names.
    ///
    /// # Errors
    /// If the variable names no level, or one that this CPU does not have.
    pub fn detect() -> Result<KernelTable, String> {
        match std::env::var(crate::features::LEVEL_VARIABLE) {
            Ok(name) => Self::for_level(&name),
            Err(_) => Self::up_to(None),
        }
    }

    /// The kernels of the level named, and those below it.
    ///
    /// # Errors
    /// If there is no such level, or this CPU does not have it; the text lists those it has.
    pub fn for_level(name: &str) -> Result<KernelTable, String> {
        Self::up_to(Some(name))
    }

    /// The names of the levels that this CPU has, from slow to fast.
    pub fn level_names() -> Vec<&'static str> {
        let cpu = CpuFeatures::detect();
        let levels = crate::arch::LEVELS.iter().filter(|l| cpu.has(l.needs));
        std::iter::once("scalar").chain(levels.map(|l| l.name)).collect()
    }

    fn up_to(name: Option<&str>) -> Result<KernelTable, String> {
        let names = Self::level_names();
        if let Some(name) = name
            && !names.contains(&name)
        {
            return Err(format!("no level `{name}` on this CPU; it has {}", names.join(", ")));
        }
        let mut table = KernelTable {
            kernels: [None; GgmlType::COUNT],
            quantize: [None; GgmlType::COUNT],
            recode: [None; GgmlType::COUNT],
            ops: Ops::scalar(),
            peak: None,
            near_bytes: crate::arch::near_bytes(),
            level: "scalar",
        };
        table.set_ops(Ops::scalar());
        generic::install_scalar(&mut table);
        quantize::install_portable(&mut table);
        let cpu = CpuFeatures::detect();
        for level in crate::arch::LEVELS.iter().filter(|l| cpu.has(l.needs)) {
            if name == Some(table.level) {
                break;
            }
            (level.install)(&mut table);
            table.level = level.name;
        }
        Ok(table)
    }

    /// The kernels of a type; `None` for types that hold no weights.
    pub fn get(&self, ty: GgmlType) -> Option<&Kernels> {
        self.kernels.get(ty as usize)?.as_ref()
    }

    /// Installs kernels for a type.
    pub fn set(&mut self, ty: GgmlType, kernels: Kernels) {
        self.kernels[ty as usize] = Some(kernels);
    }

    /// Quantizes whole rows: as many values as `out` has room for.
    ///
    /// The importance of a column is the weight of its squared error, at least 0 and relative to the
    /// others' (an importance matrix holds the mean squares of a column's activations). There are as
    /// many as a row has values, and the values are whole rows. Without, all
    /// columns matter the same. A large value's error counts more than a small one's.
    ///
    /// The bytes of a block depend on its values and their importances alone, and are the same at
    /// every level. A NaN or an infinity gives blocks without meaning.
    ///
    /// # Errors
    /// If the type has no quantizer, or the sizes do not fit each other.
    pub fn quantize(
        &self,
        ty: GgmlType,
        x: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), RowError> {
        let Some(quantize) = self.quantize[ty as usize] else {
            return formats::quantize_row(ty, x, out);
        };
        if ty.row_bytes(x.len()) != Some(out.len()) {
            return Err(RowError::Size { ty, bytes: out.len(), values: x.len() });
        }
        if let Some(importance) = importance
            && (ty.row_bytes(importance.len()).is_none()
                || !x.len().is_multiple_of(importance.len()))
        {
            let (columns, values) = (importance.len(), x.len());
            return Err(RowError::Importance { ty, columns, values });
        }
        // SAFETY: the table holds functions that the CPU can run.
        unsafe { quantize(x, importance, out) };
        Ok(())
    }

    /// Quantizes whole rows, as many values as `out` has room for, so that the errors of columns
    /// which are used together cancel. The importances are as in [`quantize`](Self::quantize). A
    /// type whose codes cannot be chosen by themselves is quantized as by that.
    ///
    /// The bytes of a row depend on its values, the importances and the feedback alone, and are the
    /// same at every level.
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize), or the values are not rows of the feedback's columns.
    pub fn quantize_with_feedback(
        &self,
        ty: GgmlType,
        x: &[f32],
        importance: Option<&[f32]>,
        feedback: &Feedback,
        out: &mut [u8],
    ) -> Result<(), RowError> {
        let index = ty as usize;
        let (Some(search), Some(recode)) = (self.quantize[index], self.recode[index]) else {
            return self.quantize(ty, x, importance, out);
        };
        if ty.row_bytes(x.len()) != Some(out.len()) {
            return Err(RowError::Size { ty, bytes: out.len(), values: x.len() });
        }
        let columns = feedback.columns();
        let wrong = |n: usize| ty.row_bytes(n).is_none() || !x.len().is_multiple_of(n);
        if columns == 0 || wrong(columns) || importance.is_some_and(|i| i.len() != columns) {
            return Err(RowError::Importance { ty, columns, values: x.len() });
        }
        // SAFETY: the table holds functions that the CPU can run.
        unsafe { recode(search, x, importance, feedback, out) };
        Ok(())
    }

    /// True if [`quantize_with_feedback`](Self::quantize_with_feedback) differs from
    /// [`quantize`](Self::quantize) for the type.
    pub fn can_recode(&self, ty: GgmlType) -> bool {
        self.recode[ty as usize].is_some()
    }

    /// Installs what chooses the codes of a type.
    pub fn set_recode(&mut self, ty: GgmlType, recode: RecodeFn) {
        self.recode[ty as usize] = Some(recode);
    }

    /// True if [`quantize`](Self::quantize) knows the type.
    pub fn can_quantize(&self, ty: GgmlType) -> bool {
        self.quantize[ty as usize].is_some() || formats::can_quantize(ty)
    }

    /// Installs a quantizer for a type.
    pub fn set_quantize(&mut self, ty: GgmlType, quantize: QuantizeFn) {
        self.quantize[ty as usize] = Some(quantize);
    }

    /// The vector operations.
    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// Replaces the vector operations, and with them the products with float weights.
    pub fn set_ops(&mut self, ops: Ops) {
        self.ops = ops;
        for (ty, gemm) in [
            (GgmlType::F32, ops.gemm_f32),
            (GgmlType::F16, ops.gemm_f16),
            (GgmlType::BF16, ops.gemm_bf16),
        ] {
            self.set(ty, Kernels { act: Act::F32, gemm, rows: 1, sums: Sums::NONE });
        }
    }

    /// Bytes of the rows that are computed together, up to which kernels of one column fetch them into the
    /// first-level cache.
    pub fn near_bytes(&self) -> usize {
        self.near_bytes
    }

    /// Replaces what is best on this CPU.
    pub fn set_near_bytes(&mut self, bytes: usize) {
        self.near_bytes = bytes;
    }

    /// The loop that measures the level's byte multiplications.
    pub fn peak(&self) -> Option<PeakFn> {
        self.peak
    }

    /// Installs it.
    pub fn set_peak(&mut self, peak: PeakFn) {
        self.peak = Some(peak);
    }

    /// The name of the fastest level installed.
    pub fn level(&self) -> &'static str {
        self.level
    }
}
