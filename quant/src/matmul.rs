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

use crate::act::{Activations, FEW};
use crate::generic::panel::MANY;
use crate::par::{self, SendPtr, Team};
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

/// Products in a step, at the most.
pub const MAX_PRODUCTS: usize = 8;

/// How the rows of the products of a step are handed out: in chunks that are about as many bytes in all
/// products, so that each thread's range of them is as much work.
struct Split {
    /// The first chunk of each product and the rows of its chunks.
    products: [(usize, usize); MAX_PRODUCTS],
    chunks: usize,
}

impl Split {
    /// The split of products of `weights` with `n` columns.
    fn new<'a>(
        table: &KernelTable,
        weights: impl Iterator<Item = &'a Matrix<'a>> + Clone,
        n: usize,
        threads: usize,
    ) -> Split {
        let bytes = weights.clone().map(|w| w.data.len()).sum();
        let bytes = chunk_bytes(bytes, n, threads);
        // What the kernels compute together, in tiles, where each thread then has about as many.
        let tall = |w: &Matrix<'_>| match table.get(w.ty) {
            Some(kernels) if n >= MANY => kernels.rows.div_ceil(ROW_TILE),
            _ => 1,
        };
        let chunks: usize = weights.clone().map(|w| w.rows.div_ceil(tall(w) * ROW_TILE)).sum();
        let even = chunks.next_multiple_of(threads) - chunks <= chunks / 20;
        let mut split = Split { products: [(0, 0); MAX_PRODUCTS], chunks: 0 };
        for (w, product) in weights.zip(&mut split.products) {
            let tiles = bytes / w.row_bytes.saturating_mul(ROW_TILE).max(1);
            let tiles = tiles.clamp(1, w.rows.div_ceil(ROW_TILE).max(1));
            let tall = if even { tall(w) } else { 1 };
            let rows = ((tiles + tall / 2) / tall).max(1) * tall * ROW_TILE;
            *product = (split.chunks, rows);
            split.chunks += w.rows.div_ceil(rows);
        }
        split
    }

    /// The product of a chunk, and its first row.
    fn find(&self, chunk: usize, products: usize) -> (usize, usize) {
        let i = self.products[..products].partition_point(|(first, _)| *first <= chunk) - 1;
        let (first, rows) = self.products[i];
        (i, (chunk - first) * rows)
    }

    /// Where in `weights` a chunk begins; null if there is no such chunk.
    fn address<'a>(
        &self,
        chunk: usize,
        weights: impl Fn(usize) -> &'a Matrix<'a>,
        products: usize,
    ) -> *const u8 {
        if chunk >= self.chunks {
            return std::ptr::null();
        }
        let (i, row) = self.find(chunk, products);
        let w = weights(i);
        w.data.as_ptr().wrapping_add(row * w.row_bytes)
    }
}

/// Computes several products in one parallel step. `next` are the weights of the step after it, which
/// each thread begins to fetch when it comes to the end of its own part.
///
/// # Panics
/// If the sizes or the activations of a product do not fit its weights, or if there are more than
/// [`MAX_PRODUCTS`].
pub fn matmul(
    team: &mut Team<'_>,
    table: &KernelTable,
    products: &mut [Product<'_>],
    next: &[Matrix<'_>],
) {
    let threads = team.n_threads();
    assert!(products.len().max(next.len()) <= MAX_PRODUCTS, "too many products in a step");
    for p in &*products {
        assert_eq!(p.w.cols, p.x.layout().k, "activations fit the weights");
        assert_eq!(p.out.len(), p.x.n() * p.w.rows, "the result fits");
        let kernels = table.get(p.w.ty).expect("a type with weights has kernels");
        assert_eq!(kernels.act, p.x.layout().act, "activations are quantized for the weights");
        assert!(
            p.x.layout().sums.contains(kernels.sums),
            "activations have the sums that are read"
        );
    }
    let outs: [SendPtr<f32>; MAX_PRODUCTS] = std::array::from_fn(|i| match products.get_mut(i) {
        Some(p) => SendPtr(p.out.as_mut_ptr()),
        None => SendPtr(std::ptr::null_mut()),
    });
    let products = &*products;
    let n = products.iter().map(|p| p.x.n()).max().unwrap_or(0);
    let split = Split::new(table, products.iter().map(|p| &p.w), n, threads);
    let then = Split::new(table, next.iter(), n, threads);
    team.run(split.chunks, &|chunk, scratch| {
        let (i, start) = split.find(chunk, products.len());
        let p = &products[i];
        let end = p.w.rows.min(start + split.products[i].1);
        let Some(kernels) = table.get(p.w.ty) else { return };
        // Of the thread whose chunk this is, also if another one helps: the memory is shared.
        let owner = par::owner(chunk, split.chunks, threads);
        let next = if chunk + 1 < par::first_chunk(owner + 1, split.chunks, threads) {
            split.address(chunk + 1, |i| &products[i].w, products.len())
        } else {
            let first = par::first_chunk(owner, then.chunks, threads);
            then.address(first, |i| &next[i], next.len())
        };
        let mut args = GemmArgs {
            w: p.w.data.as_ptr(),
            row_bytes: p.w.row_bytes,
            act: p.x.bytes().as_ptr(),
            layout: p.x.layout(),
            n: p.x.n(),
            rows: start..end,
            next,
            out: outs[i].get(),
            ldo: p.w.rows,
            near_bytes: table.near_bytes(),
            unpack: None,
            scratch,
        };
        // SAFETY: the sizes and sums were checked above; chunks of a product are disjoint ranges of rows,
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
    // Bytes of weights times columns are 16 KiB at the least: about a microsecond of work.
    let chunks = if n > FEW { 24 } else { 6 };
    (total / (chunks * threads)).max(16 * 1024 / n.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_chunk() {
        let names = KernelTable::level_names();
        let tables: Vec<_> = names
            .iter()
            .map(|name| KernelTable::for_level(name).expect("a level it has"))
            .collect();
        let data = vec![0; 4096 * GgmlType::Q4_0.row_bytes(64).expect("whole blocks")];
        for table in &tables {
            for rows in [1, 15, 16, 47, 48, 49, 576, 640, 4096] {
                for (n, threads) in [(1, 1), (9, 2), (128, 1), (128, 2), (128, 3), (512, 16)] {
                    let data = &data[..rows * data.len() / 4096];
                    let w = Matrix::new(GgmlType::Q4_0, rows, 64, data).expect("a matrix");
                    let two = [w, w];
                    let split = Split::new(table, two.iter(), n, threads);
                    let mut next = [0; 2];
                    for chunk in 0..split.chunks {
                        let (i, start) = split.find(chunk, 2);
                        assert_eq!(start, next[i], "{rows} rows, {n} columns, {threads} threads");
                        next[i] = start + split.products[i].1;
                    }
                    assert!(next.iter().all(|end| (rows..rows + 4096).contains(end)));
                }
            }
        }
    }

    #[test]
    fn tall_tiles_are_where_threads_have_as_many() {
        let table = KernelTable::detect().expect("kernels");
        let tall = table.get(GgmlType::Q4_0).expect("kernels").rows.max(ROW_TILE);
        let data = vec![0; 640 * GgmlType::Q4_0.row_bytes(64).expect("whole blocks")];
        for (rows, n, threads, want) in
            [(576, 128, 2, tall), (576, 127, 2, ROW_TILE), (640, 128, 4, ROW_TILE)]
        {
            let data = &data[..rows * data.len() / 640];
            let w = Matrix::new(GgmlType::Q4_0, rows, 64, data).expect("a matrix");
            let split = Split::new(&table, [w].iter(), n, threads);
            assert_eq!(split.products[0].1, want, "{rows} rows, {n} columns, {threads} threads");
        }
    }
}
