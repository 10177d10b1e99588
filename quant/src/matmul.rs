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

use std::ops::Range;

use crate::act::{Activations, FEW};
use crate::generic::panel::MANY;
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

/// Products in a step, at the most.
pub const MAX_PRODUCTS: usize = 8;

/// How the rows of the products of a step are handed out: each thread's range of chunks is its share of
/// every product, in chunks that are about as many bytes in all of them.
struct Split {
    shares: [Share; MAX_PRODUCTS],
    /// Ranges, and chunks in each.
    threads: usize,
    chunks: usize,
}

/// A thread's share of a product.
#[derive(Clone, Copy)]
struct Share {
    /// Rows of the product.
    rows: usize,
    /// Tiles of the products before, less whole rounds over the threads: so that not the same threads have
    /// one tile more of each.
    offset: usize,
    /// The first of its chunks in a range, and how many there are.
    first: usize,
    chunks: usize,
    /// Tiles of a chunk, of which the last has fewer; or 0, and all have about as many.
    tiles: usize,
}

impl Split {
    /// The split of products of `weights` with `n` columns.
    fn new<'a>(
        table: &KernelTable,
        weights: impl Iterator<Item = &'a Matrix<'a>> + Clone,
        n: usize,
        threads: usize,
    ) -> Split {
        let total = weights.clone().map(|w| w.data.len()).sum::<usize>();
        let bytes = chunk_bytes(total, n, threads);
        // What is not worth handing out is one range; a thread that helps fetches the leader's next part.
        let threads = if total <= bytes { 1 } else { threads };
        let none = Share { rows: 0, offset: 0, first: usize::MAX, chunks: 0, tiles: 0 };
        let mut before = 0;
        let mut split = Split { shares: [none; MAX_PRODUCTS], threads, chunks: 0 };
        for (w, share) in weights.zip(&mut split.shares) {
            let most = w.rows.div_ceil(ROW_TILE).div_ceil(threads).max(1);
            let tiles = bytes / w.row_bytes.saturating_mul(ROW_TILE).max(1);
            // What the kernels compute together.
            let tall = match table.get(w.ty) {
                Some(kernels) if n >= MANY => kernels.rows.div_ceil(ROW_TILE),
                _ => 1,
            };
            let (tiles, chunks) = if tall > 1 {
                let tiles = (tiles.min(most) + tall / 2) / tall * tall;
                let tiles = tiles.max(tall);
                (tiles, most.div_ceil(tiles))
            } else {
                let tiles = tiles.clamp(1, most);
                (0, (most + tiles / 2) / tiles)
            };
            let offset = before % threads;
            *share = Share { rows: w.rows, offset, first: split.chunks, chunks, tiles };
            split.chunks += chunks;
            before += w.rows.div_ceil(ROW_TILE);
        }
        split
    }

    /// Chunks of all ranges.
    fn all(&self) -> usize {
        self.threads * self.chunks
    }

    /// The product of a chunk, and its rows; none if there are fewer tiles than threads.
    fn find(&self, chunk: usize) -> (usize, Range<usize>) {
        let (thread, chunk) = (chunk / self.chunks, chunk % self.chunks);
        let i = self.shares.partition_point(|share| share.first <= chunk) - 1;
        let Share { rows, offset, first, chunks, tiles } = self.shares[i];
        let begin_of = |thread| (rows.div_ceil(ROW_TILE) * thread + offset) / self.threads;
        let (begin, end) = (begin_of(thread), begin_of(thread + 1));
        let at = |chunk: usize| match tiles {
            0 => begin + (end - begin) * chunk / chunks,
            _ => end.min(begin + tiles * chunk),
        };
        let row = |tile: usize| rows.min(ROW_TILE * tile);
        (i, row(at(chunk - first))..row(at(chunk - first + 1)))
    }

    /// Where in `weights` a chunk begins; null if there is no such chunk.
    fn address<'a>(&self, chunk: usize, weights: impl Fn(usize) -> &'a Matrix<'a>) -> *const u8 {
        if chunk >= self.all() {
            return std::ptr::null();
        }
        let (i, rows) = self.find(chunk);
        let w = weights(i);
        w.data.as_ptr().wrapping_add(rows.start * w.row_bytes)
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
    team.run(split.all(), &|chunk, scratch| {
        let (i, rows) = split.find(chunk);
        if rows.is_empty() {
            return;
        }
        let p = &products[i];
        let Some(kernels) = table.get(p.w.ty) else { return };
        // Of the thread whose chunk this is, also if another one helps: the memory is shared.
        let owner = chunk / split.chunks;
        let next = if chunk + 1 < split.chunks * (owner + 1) {
            split.address(chunk + 1, |i| &products[i].w)
        } else {
            then.address(then.chunks * owner, |i| &next[i])
        };
        let mut args = GemmArgs {
            w: p.w.data.as_ptr(),
            row_bytes: p.w.row_bytes,
            act: p.x.bytes().as_ptr(),
            layout: p.x.layout(),
            n: p.x.n(),
            rows,
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
                    for chunk in 0..split.all() {
                        let (i, found) = split.find(chunk);
                        let case = format!("{rows} rows, {n} columns, {threads} threads");
                        assert_eq!(found.start, next[i], "{case}");
                        assert!(found.end == rows || found.end.is_multiple_of(ROW_TILE), "{case}");
                        next[i] = found.end;
                    }
                    assert_eq!(next, [rows; 2]);
                }
            }
        }
    }

    #[test]
    fn no_thread_has_the_larger_share_of_every_product() {
        let table = KernelTable::detect().expect("kernels");
        let data = vec![0; 576 * GgmlType::Q8_0.row_bytes(576).expect("whole blocks")];
        let w = |rows: usize| {
            let data = &data[..rows * data.len() / 576];
            Matrix::new(GgmlType::Q8_0, rows, 576, data).expect("a matrix")
        };
        let shares = |weights: &[Matrix<'_>], threads: usize| -> Vec<usize> {
            let split = Split::new(&table, weights.iter(), 1, threads);
            let rows = |thread| {
                let chunks = split.chunks * thread..split.chunks * (thread + 1);
                chunks.map(|chunk| split.find(chunk).1.len()).sum()
            };
            (0..threads).map(rows).collect()
        };
        // An odd number of tiles each.
        assert_eq!(shares(&[w(304), w(304)], 2), [304, 304]);
        for share in shares(&[w(576), w(192), w(192)], 16) {
            assert!((3 * ROW_TILE..=5 * ROW_TILE).contains(&share), "{share} of 960 rows");
        }
    }

    #[test]
    fn threads_have_as_many_rows_each_in_tall_tiles() {
        let table = KernelTable::detect().expect("kernels");
        let tall = table.get(GgmlType::Q4_0).expect("kernels").rows.next_multiple_of(ROW_TILE);
        let data = vec![0; 640 * GgmlType::Q4_0.row_bytes(64).expect("whole blocks")];
        for (rows, n, threads, want) in
            [(576, 128, 2, tall), (576, 127, 2, ROW_TILE), (640, 128, 4, tall)]
        {
            let data = &data[..rows * data.len() / 640];
            let w = Matrix::new(GgmlType::Q4_0, rows, 64, data).expect("a matrix");
            let split = Split::new(&table, [w].iter(), n, threads);
            let case = format!("{rows} rows, {n} columns, {threads} threads");
            for thread in 0..threads {
                let chunks = split.chunks * thread..split.chunks * (thread + 1);
                let mut sizes = chunks.map(|chunk| split.find(chunk).1.len());
                assert_eq!(sizes.clone().sum::<usize>(), rows / threads, "{case}");
                assert!(sizes.next().is_some_and(|rows| rows.is_multiple_of(want)), "{case}");
                assert!(sizes.all(|rows| rows <= want), "{case}");
            }
        }
    }
}
