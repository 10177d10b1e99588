//! Activations as the kernels want them.
//!
//! A row of `k` values is quantized in blocks of 32 to int8 with an f32 scale, `x = d * q`, where
//! `d = max|x| / 127` and `q` is rounded half to even. One scale for 32 values, also where the
//! weights have blocks of 256: a large value then coarsens 31 neighbours and not 255, which halves
//! the error of the products, and the kernels pay one conversion and one multiply-add for each 32
//! steps. A row is one run of bytes with sections that are each padded to 64 bytes: `q` (int8),
//! `d` (f32 per 32), the sums of each 16 and of each 32 codes (i32), and the same sums times `d`
//! (f32). The sums serve zero points and minimums; only those are made that the weights need
//! ([`Sums`]), which leaves more room in the caches. Weights that are floats take the row as f32, in
//! the first section.
//!
//! More than [`FEW`] rows lie in groups of [`GROUP`], interleaved: the first 32 codes of each row of
//! the group, then the next 32 of each; and so for each scale and sum. A panel kernel then reads what
//! it needs at one address, one item after the other.
//!
//! Kernels compute 1, 2, 4 or 8 columns at once and leave out results that nobody wants, so behind the last
//! row there is memory for as many as they may read. What lies there is without meaning, but is no tiny
//! number: those are slow to compute with (6 columns took longer than 8, `siskin bench --shape llama-1b
//! --type q4_0 -n 0 -p 6`).

use std::ops::Range;

use crate::buffer::{Buffer, OutOfMemory};
use crate::par::{SERIAL_VALUES, SendPtr, Team};
use crate::table::KernelTable;
use crate::types::Act;

/// Rows that are interleaved, if there are many.
pub const GROUP: usize = 8;
/// Rows up to which they are not: those are the columns that a kernel multiplies straight away.
pub const FEW: usize = 8;
const _: () = assert!(FEW <= GROUP, "kernels of few rows may read a group's");

/// A choice of the sections with sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums(u8);

impl Sums {
    /// None of them.
    pub const NONE: Sums = Sums(0);
    /// Of 16 codes.
    pub const SUM16: Sums = Sums(1);
    /// Of 32 codes.
    pub const SUM32: Sums = Sums(2);
    /// Of 16 values.
    pub const TOTAL16: Sums = Sums(4);
    /// Of 32 values.
    pub const TOTAL32: Sums = Sums(8);
    /// All of them.
    pub const ALL: Sums = Sums(15);

    /// What kernels of weights with sub-blocks of `sub` need: sums of codes if codes stand for more or less
    /// than they are, of values if the format has minimums.
    pub const fn of(sub: usize, zero: bool, minimums: bool) -> Sums {
        let (sum, total) =
            if sub == 16 { (Self::SUM16, Self::TOTAL16) } else { (Self::SUM32, Self::TOTAL32) };
        Sums(if zero { sum.0 } else { 0 }).with(Sums(if minimums { total.0 } else { 0 }))
    }

    /// These and `others`.
    pub const fn with(self, others: Sums) -> Sums {
        Sums(self.0 | others.0)
    }

    /// `others` are all among these.
    pub const fn contains(self, others: Sums) -> bool {
        self.0 & others.0 == others.0
    }
}

/// Where the sections of a row, or of a group of rows, are. Those that are left out take no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActLayout {
    /// Values in a row.
    pub k: usize,
    /// How they are stored.
    pub act: Act,
    /// The sections with sums that there are.
    pub sums: Sums,
    /// Offset of the scales.
    pub d: usize,
    /// Offset of the sums of 16 codes.
    pub sum16: usize,
    /// Offset of the sums of 32 codes.
    pub sum32: usize,
    /// Offset of the sums of 16 values.
    pub total16: usize,
    /// Offset of the sums of 32 values.
    pub total32: usize,
    /// Bytes from a row or group to the next.
    pub stride: usize,
    /// Rows interleaved: [`GROUP`], or 1.
    pub group: usize,
}

impl ActLayout {
    /// Where the codes `32 block ..` of row `c` of a group are.
    #[inline(always)]
    pub fn codes(&self, block: usize, c: usize) -> usize {
        32 * (block * self.group + c)
    }

    /// Where value `i` of a section of scales or sums is, of row `c` of a group.
    #[inline(always)]
    pub fn value(&self, section: usize, i: usize, c: usize) -> usize {
        section + 4 * (i * self.group + c)
    }
}

fn pad(bytes: usize) -> usize {
    bytes.next_multiple_of(64)
}

impl ActLayout {
    /// The layout of `n` rows of `k` values, which must be whole blocks of `act`, with `sums`.
    pub fn new(act: Act, sums: Sums, k: usize, n: usize) -> ActLayout {
        if act != Act::Q8 {
            let stride = pad(4 * k);
            let [d, sum16, sum32, total16, total32] = [stride; 5];
            return ActLayout { k, act, sums, d, sum16, sum32, total16, total32, stride, group: 1 };
        }
        let group = if n > FEW { GROUP } else { 1 };
        let (by16, by32) = (group * pad(4 * (k / 16)), group * pad(4 * (k / 32)));
        let d = group * pad(k);
        let sum16 = d + by32;
        let sum32 = sum16 + if sums.contains(Sums::SUM16) { by16 } else { 0 };
        let total16 = sum32 + if sums.contains(Sums::SUM32) { by32 } else { 0 };
        let total32 = total16 + if sums.contains(Sums::TOTAL16) { by16 } else { 0 };
        let stride = total32 + if sums.contains(Sums::TOTAL32) { by32 } else { 0 };
        ActLayout { k, act, sums, d, sum16, sum32, total16, total32, stride, group }
    }

    /// Rows that there is memory for where there are `n`: what kernels compute of few columns reaches as far
    /// (a test in `generic` holds the two together).
    fn rows_held(&self, n: usize) -> usize {
        match n {
            _ if self.act != Act::Q8 => n,
            3 => 4,
            6.. => n.next_multiple_of(GROUP),
            _ => n,
        }
    }

    /// Bytes of `n` rows, and of those that kernels may read beside them.
    pub fn bytes(&self, n: usize) -> usize {
        self.stride * self.rows_held(n).div_ceil(self.group)
    }
}

/// Rows of activations, in a buffer that is allocated once.
pub struct Activations {
    layout: ActLayout,
    sums: Sums,
    n: usize,
    buf: Buffer,
}

impl Activations {
    /// Memory for up to `n` rows of up to `k` values as `act`.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn with_capacity(act: Act, k: usize, n: usize) -> Result<Activations, OutOfMemory> {
        let buf = Buffer::zeroed(Self::bytes_for(act, k, n))?;
        Ok(Activations { layout: ActLayout::new(act, Sums::ALL, 0, 0), sums: Sums::ALL, n: 0, buf })
    }

    /// Bytes that [`with_capacity`](Self::with_capacity) allocates.
    pub fn bytes_for(act: Act, k: usize, n: usize) -> usize {
        ActLayout::new(act, Sums::ALL, k.next_multiple_of(256), n).bytes(n)
    }

    /// Makes these sums from now on; at first, all. Those of
    /// [`Kernels::sums`](crate::table::Kernels::sums) are what a type of weights needs.
    pub fn set_sums(&mut self, sums: Sums) {
        self.sums = sums;
    }

    /// The layout of the rows held.
    pub fn layout(&self) -> &ActLayout {
        &self.layout
    }

    /// Rows held.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The rows' bytes, `layout().stride` for each row or group, and what kernels may read beside them,
    /// which has no meaning.
    pub fn bytes(&self) -> &[u8] {
        &self.buf.as_bytes()[..self.layout.bytes(self.n)]
    }

    /// Quantizes `x`, rows of `k` values, to the format that the memory was made for.
    ///
    /// # Panics
    /// If `x` is not whole rows, `k` not whole blocks, or the memory too small.
    pub fn quantize(&mut self, team: &mut Team<'_>, table: &KernelTable, k: usize, x: &[f32]) {
        let n = rows(x, k);
        self.fill(team, table, k, n, |rows| &x[rows.start * k..rows.end * k]);
    }

    /// [`quantize`](Self::quantize) of rows that `make(row, values)` finishes first, on the thread that
    /// quantizes them, while they are in its cache.
    ///
    /// # Panics
    /// As there.
    pub fn make_and_quantize(
        &mut self,
        team: &mut Team<'_>,
        table: &KernelTable,
        k: usize,
        x: &mut [f32],
        make: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let n = rows(x, k);
        let x = SendPtr(x.as_mut_ptr());
        self.fill(team, table, k, n, |rows| {
            // SAFETY: `fill` asks once for each row below `n`, so that rows are within `x`, which is
            // borrowed mutably for the whole call, and nothing else has them.
            let x = unsafe {
                std::slice::from_raw_parts_mut(x.get().add(rows.start * k), rows.len() * k)
            };
            for (t, row) in rows.zip(x.chunks_exact_mut(k)) {
                make(t, row);
            }
            x
        });
    }

    /// Quantizes rows `0..n`, each of which `rows` gives once.
    fn fill<'x>(
        &mut self,
        team: &mut Team<'_>,
        table: &KernelTable,
        k: usize,
        n: usize,
        rows: impl Fn(Range<usize>) -> &'x [f32] + Sync,
    ) {
        let act = self.layout.act;
        assert!(act != Act::Q8 || k.is_multiple_of(32));
        // Kernels form the addresses of sums that they do not read.
        let all = ActLayout::new(act, Sums::ALL, k, n).bytes(n);
        assert!(all <= self.buf.as_bytes().len(), "the memory is for fewer rows or shorter ones");
        let layout = ActLayout::new(act, self.sums, k, n);
        self.layout = layout;
        self.n = n;
        let stride = layout.stride;
        let groups = &mut self.buf.as_bytes_mut()[..n.div_ceil(layout.group) * stride];
        let quantize = table.ops().quantize;
        let one = |i: usize, group: &mut [u8]| {
            let first = i * layout.group;
            let wanted = first..n.min(first + layout.group);
            let x = rows(wanted.clone());
            assert_eq!(x.len(), wanted.len() * k);
            // SAFETY: these are rows of a group, which is `stride` bytes of the layout, a multiple of 64
            // as the start of a buffer is; the kernel was installed because the CPU has what it needs.
            unsafe { quantize(&layout, x, group) }
        };
        // A row costs about as much as handing it out, below this.
        if n == 1 || n * k < SERIAL_VALUES {
            for (i, group) in groups.chunks_mut(stride).enumerate() {
                one(i, group);
            }
        } else {
            let count = n.div_ceil(layout.group);
            let per = count.div_ceil(4 * team.n_threads()).max(1);
            team.for_chunks(groups, stride * per, |c, groups, _| {
                for (j, group) in groups.chunks_mut(stride).enumerate() {
                    one(c * per + j, group);
                }
            });
        }
        // Bytes of other layouts may lie where kernels read rows that there are not: in groups the kernel
        // has written zeros.
        if layout.group == 1 {
            let held = &mut self.buf.as_bytes_mut()[..layout.rows_held(n) * stride];
            for row in held.chunks_exact_mut(stride).skip(n) {
                row[layout.d..layout.sum16].fill(0);
                row[layout.total16..].fill(0);
            }
        }
    }
}

/// How many rows of `k` values there are.
fn rows(x: &[f32], k: usize) -> usize {
    assert!(k > 0 && x.len().is_multiple_of(k), "activations are whole rows");
    x.len() / k
}
