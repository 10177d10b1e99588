//! The matrix product of quantized weights and activations: the safe entry to the kernels.
//!
//! # The arithmetic, which every kernel computes to the bit
//!
//! Element `(r, c)` is a chain of fused multiply-adds over the units of row `r` in increasing
//! order, beginning with 0 (see [`Unit`](crate::formats::Unit)):
//!
//! ```text
//! inner = fma(d_a, isum as f32, inner)      for each 32 weights of the unit; from 0
//!         isum = sum(scale * q_w * q_a), exact in i32
//! acc = fma(d_w, inner, acc)
//! ```
//!
//! and in formats with minimums, then,
//!
//! ```text
//! min = fma(min_w as f32, total_a, min)     for each 16 or 32 weights that share one; from 0
//!       total_a = d_a * (sum(q_a) as f32)
//! acc = fma(dmin_w, min, acc)
//! ```
//!
//! Weights that are floats use 16 accumulators, element `k` in accumulator `k mod 16`, and then
//! the fixed tree of [`crate::lanes`]. Neither depends on the number of rows or columns computed
//! together, so prefill and decode, any split over threads and any register width agree.

use crate::act::Activations;
use crate::par::{SendPtr, Team};
use crate::table::{GemmArgs, KernelTable};
use crate::types::{Act, GgmlType};

/// Rows that a kernel likes to compute together; chunks are multiples of it.
pub const ROW_TILE: usize = 16;

/// A matrix of weights, as it lies in the file.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    ty: GgmlType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// A matrix of `rows` rows of `cols` weights. `None` if `data` is not exactly that, or if the
    /// type holds no weights.
    pub fn new(ty: GgmlType, rows: usize, cols: usize, data: &'a [u8]) -> Option<Matrix<'a>> {
        let row_bytes = ty.row_bytes(cols)?;
        if ty.info().act == Act::None || data.len() != row_bytes.checked_mul(rows)? {
            return None;
        }
        Some(Matrix { ty, rows, cols, row_bytes, data })
    }

    /// The weights' type.
    pub fn ty(&self) -> GgmlType {
        self.ty
    }

    /// Rows: the length of a result.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: the length of an activation row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bytes of one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.data[row * self.row_bytes..(row + 1) * self.row_bytes]
    }
}

/// One product of a step: `out[c * w.rows + r]` = row `r` of the weights times row `c` of `x`.
pub struct Product<'a> {
    /// The weights.
    pub w: Matrix<'a>,
    /// The activations, quantized to what the type of `w` wants.
    pub x: &'a Activations,
    /// `x.n() * w.rows()` values.
    pub out: &'a mut [f32],
}

/// Computes several products in one parallel step.
///
/// # Panics
/// If the sizes or the activation types of a product do not fit each other.
pub fn matmul(team: &mut Team<'_>, table: &KernelTable, products: &mut [Product<'_>]) {
    let threads = team.n_threads();
    // The first chunk of each product and the rows of its chunks, which are about as many bytes in
    // all products, so that each thread's range of them is as much work.
    let mut chunks = [(0usize, 0usize); 8];
    assert!(products.len() <= chunks.len(), "at most 8 products in a step");
    let bytes = products.iter().map(|p| p.w.data.len()).sum();
    let n = products.iter().map(|p| p.x.n()).max().unwrap_or(0);
    let bytes = chunk_bytes(bytes, n, threads);
    let mut total = 0;
    for (p, (first, per)) in products.iter().zip(&mut chunks) {
        assert_eq!(p.w.cols, p.x.layout().k, "activations fit the weights");
        assert_eq!(p.out.len(), p.x.n() * p.w.rows, "the result fits");
        let kernels = table.get(p.w.ty).expect("a type with weights has kernels");
        assert_eq!(kernels.act, p.x.layout().act, "activations are quantized for the weights");
        *first = total;
        let tiles = bytes / (p.w.row_bytes * ROW_TILE).max(1);
        *per = tiles.clamp(1, p.w.rows.div_ceil(ROW_TILE).max(1)) * ROW_TILE;
        total += p.w.rows.div_ceil(*per);
    }
    let outs: [SendPtr<f32>; 8] = std::array::from_fn(|i| match products.get_mut(i) {
        Some(p) => SendPtr(p.out.as_mut_ptr()),
        None => SendPtr(std::ptr::null_mut()),
    });
    let products = &*products;
    let chunks = &chunks[..products.len()];
    team.run(total, &|chunk, scratch| {
        let i = chunks.partition_point(|(first, _)| *first <= chunk) - 1;
        let (first, per) = chunks[i];
        let p = &products[i];
        let start = (chunk - first) * per;
        let end = p.w.rows.min(start + per);
        let Some(kernels) = table.get(p.w.ty) else { return };
        let mut args = GemmArgs {
            w: p.w.data.as_ptr(),
            row_bytes: p.w.row_bytes,
            act: p.x.bytes().as_ptr(),
            layout: p.x.layout(),
            n: p.x.n(),
            rows: start..end,
            out: outs[i].get(),
            ldo: p.w.rows,
            unpack: None,
            scratch,
        };
        // SAFETY: the sizes were checked above; chunks of a product are disjoint ranges of rows,
        // so no element is written twice; the table holds only kernels that the CPU can run.
        unsafe { (kernels.gemm)(&mut args) }
    });
}

/// Bytes of weights in a chunk of products with `n` columns, `total` bytes in all: several chunks
/// for each thread, but not so small that handing one out shows.
fn chunk_bytes(total: usize, n: usize, threads: usize) -> usize {
    if threads == 1 {
        return usize::MAX;
    }
    // About 16 KiB of weights for each column at the least: 1 microsecond of work.
    (total / (CHUNKS * threads)).max(16 * 1024 / n.max(1))
}

/// Chunks of a step for each thread, about.
const CHUNKS: usize = 6;
