//! Attention over a cache of keys and values.
//!
//! # The arithmetic
//!
//! The cache is walked in chunks of [`CHUNK`] positions, aligned to position 0 (in a sliding window
//! too). Within a chunk, a score is one chain of fused multiply-adds over the head's dimensions, an
//! output element one chain over the positions, both in increasing order; the sum of the
//! exponentials takes position `j` in lane `j mod 16` and the tree of [`crate::lanes`]. Chunk
//! results `(m, l, o)` (maximum, sum, weighted values) are merged in order of position. So neither
//! threads nor batches nor registers show in the result: lanes are positions for the scores and
//! dimensions for the output, never parts of one sum. (Scores were to be sums over 16 lanes of the
//! dimensions; as chains with one position a lane they need no horizontal sum at all, and a key
//! that is loaded serves all queries in the tile.)
//!
//! # The cache
//!
//! Keys of 16 positions are stored together, dimension by dimension (`[pos / 16][dim][16]`), so
//! that one load gives 16 lanes of scores; values as rows `[pos][dim]`. Both are contiguous per
//! head. A quantized key has its blocks of 32 along the dimensions, as everywhere.

use crate::buffer::{Buffer, OutOfMemory};
use crate::ops::Ops;
use crate::par::{SendPtr, Team};

/// Positions of a chunk.
pub const CHUNK: usize = 64;
/// Query rows that are computed together, at the most.
const MAX_ROWS: usize = 32;

/// How keys or values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// 8 bits with an f16 scale per 32.
    Q8_0,
    /// 4 bits with an f16 scale per 32.
    Q4_0,
}

impl KvType {
    /// All of them, by name.
    pub const NAMES: [(&'static str, KvType); 4] = [
        ("f32", KvType::F32),
        ("f16", KvType::F16),
        ("q8_0", KvType::Q8_0),
        ("q4_0", KvType::Q4_0),
    ];

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<KvType> {
        Self::NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, t)| *t)
    }

    /// Bytes of `n` values of one position; `n` is whole blocks.
    pub fn bytes(self, n: usize) -> usize {
        match self {
            KvType::F32 => 4 * n,
            KvType::F16 => 2 * n,
            KvType::Q8_0 => n / 32 * 34,
            KvType::Q4_0 => n / 32 * 18,
        }
    }

    /// What the number of dimensions of a head must be a multiple of.
    pub fn block(self) -> usize {
        match self {
            KvType::F32 | KvType::F16 => 1,
            KvType::Q8_0 | KvType::Q4_0 => 32,
        }
    }
}

/// One head's keys and values, as raw memory.
pub struct KvView {
    k: *mut u8,
    v: *mut u8,
    k_type: KvType,
    v_type: KvType,
    k_dim: usize,
    v_pad: usize,
    capacity: usize,
}

// SAFETY: the pointers are used by `KvLayer` alone, which hands out views for writing only from
// `&mut self`, to one thread a head, and for reading from `&self`.
unsafe impl Sync for KvView {}

/// One chunk of positions against some query rows.
pub(crate) struct ChunkArgs<'a> {
    view: &'a KvView,
    /// The chunk: positions `chunk * CHUNK ..`.
    chunk: usize,
    /// `[rows][k_dim]`, scaled.
    q: &'a [f32],
    /// Positions that each row attends to.
    ranges: &'a [(usize, usize)],
    softcap: f32,
    /// `[rows][CHUNK]`
    s: &'a mut [f32],
    /// `[rows]`: the maximum, and the sum (0 where a row has no position in the chunk).
    m: &'a mut [f32],
    l: &'a mut [f32],
    /// `[rows][v_pad]`
    o: &'a mut [f32],
}

/// Merges a chunk's result into what the chunks before it gave.
pub(crate) struct MergeArgs<'a> {
    /// The chunk's.
    m: &'a [f32],
    l: &'a [f32],
    o: &'a [f32],
    /// The sum so far.
    m_all: &'a mut [f32],
    l_all: &'a mut [f32],
    o_all: &'a mut [f32],
}

/// The cache of one layer: a ring of `capacity` positions for each head.
pub struct KvLayer {
    k: Buffer,
    v: Buffer,
    k_head_bytes: usize,
    v_head_bytes: usize,
    n_head_kv: usize,
    k_dim: usize,
    v_dim: usize,
    capacity: usize,
    k_type: KvType,
    v_type: KvType,
}

/// The shape of a layer's cache.
#[derive(Clone, Copy, Debug)]
pub struct KvShape {
    /// Heads of keys and values.
    pub n_head_kv: usize,
    /// Dimensions of a key.
    pub k_dim: usize,
    /// Dimensions of a value.
    pub v_dim: usize,
    /// Positions held at once; rounded up to whole chunks.
    pub capacity: usize,
    /// How keys are stored.
    pub k_type: KvType,
    /// How values are stored.
    pub v_type: KvType,
}

impl KvShape {
    fn rounded(&self) -> usize {
        self.capacity.next_multiple_of(CHUNK)
    }

    fn head_bytes(&self) -> (usize, usize) {
        let n = self.rounded();
        let k = self.k_type.bytes(self.k_dim) * n;
        let v = self.v_type.bytes(self.v_dim.next_multiple_of(16)) * n;
        (k.next_multiple_of(64), v.next_multiple_of(64))
    }

    /// Bytes of the layer's cache.
    pub fn bytes(&self) -> usize {
        let (k, v) = self.head_bytes();
        (k + v) * self.n_head_kv
    }
}

/// What a layer's attention is computed from.
pub struct Attend<'a> {
    /// `[tokens][n_head][k_dim]`
    pub q: &'a [f32],
    /// Query heads; a multiple of the cache's heads.
    pub n_head: usize,
    /// Position of the first token; the cache holds all tokens up to the last.
    pub pos: usize,
    /// Positions that a token sees, itself counted in; `usize::MAX` for all.
    pub window: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// `cap * tanh(score / cap)` if above 0.
    pub softcap: f32,
    /// `[tokens][n_head][v_dim]`
    pub out: &'a mut [f32],
    /// [`partial_len`] values.
    pub partial: &'a mut [f32],
}

/// Values of `partial` that [`KvLayer::attend`] needs to decode one token at up to `n_ctx`
/// positions.
pub fn partial_len(n_head: usize, v_dim: usize, n_ctx: usize) -> usize {
    n_head * (n_ctx.div_ceil(CHUNK) + 1) * (v_dim.next_multiple_of(16) + 2)
}

/// Why a layer's cache cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvError {
    /// A head's dimensions are not whole blocks of the type.
    Shape(String),
    /// There is no memory for it.
    Memory(OutOfMemory),
}

impl KvLayer {
    /// Allocates; zero pages are not touched until they are used.
    ///
    /// # Errors
    /// See [`KvError`].
    pub fn new(shape: &KvShape) -> Result<KvLayer, KvError> {
        for (name, ty, dim) in
            [("keys", shape.k_type, shape.k_dim), ("values", shape.v_type, shape.v_dim)]
        {
            if dim == 0 || !dim.is_multiple_of(ty.block()) {
                return Err(KvError::Shape(format!(
                    "a cache of {ty:?} needs heads of a multiple of {} dimensions; the {name} have {dim}",
                    ty.block()
                )));
            }
        }
        let (k_head_bytes, v_head_bytes) = shape.head_bytes();
        Ok(KvLayer {
            k: Buffer::zeroed(k_head_bytes * shape.n_head_kv).map_err(KvError::Memory)?,
            v: Buffer::zeroed(v_head_bytes * shape.n_head_kv).map_err(KvError::Memory)?,
            k_head_bytes,
            v_head_bytes,
            n_head_kv: shape.n_head_kv,
            k_dim: shape.k_dim,
            v_dim: shape.v_dim,
            capacity: shape.rounded(),
            k_type: shape.k_type,
            v_type: shape.v_type,
        })
    }

    /// Positions held at once.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn view(&self, head: usize) -> KvView {
        assert!(head < self.n_head_kv);
        KvView {
            // Written through only by `store`, which has the layer mutably.
            k: self.k.as_bytes()[head * self.k_head_bytes..].as_ptr().cast_mut(),
            v: self.v.as_bytes()[head * self.v_head_bytes..].as_ptr().cast_mut(),
            k_type: self.k_type,
            v_type: self.v_type,
            k_dim: self.k_dim,
            v_pad: self.v_dim.next_multiple_of(16),
            capacity: self.capacity,
        }
    }

    fn view_mut(&mut self, head: usize) -> KvView {
        let k = self.k.as_bytes_mut()[head * self.k_head_bytes..].as_mut_ptr();
        let v = self.v.as_bytes_mut()[head * self.v_head_bytes..].as_mut_ptr();
        KvView { k, v, ..self.view(head) }
    }

    /// Stores keys `[tokens][n_head_kv][k_dim]` and values `[tokens][n_head_kv][v_dim]` of the
    /// positions from `pos` on, in place of those `capacity` before.
    ///
    /// # Panics
    /// If the lengths do not fit each other, or are more than the capacity.
    pub fn store(&mut self, ops: &Ops, pos: usize, k: &[f32], v: &[f32]) {
        let (k_row, v_row) = (self.n_head_kv * self.k_dim, self.n_head_kv * self.v_dim);
        let n = k.len() / k_row;
        assert!(k.len() == n * k_row && v.len() == n * v_row && n <= self.capacity);
        for head in 0..self.n_head_kv {
            let view = self.view_mut(head);
            for t in 0..n {
                let k = &k[t * k_row + head * self.k_dim..][..self.k_dim];
                let v = &v[t * v_row + head * self.v_dim..][..self.v_dim];
                // SAFETY: the view is this layer's, borrowed mutably; the lengths are the view's.
                unsafe { (ops.kv_store)(&view, (pos + t) % self.capacity, k, v) }
            }
        }
    }

    /// Attention of the tokens from `pos` on, whose keys and values have been stored.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    pub fn attend(&self, team: &mut Team<'_>, ops: &Ops, a: &mut Attend<'_>) {
        let (q_row, o_row) = (a.n_head * self.k_dim, a.n_head * self.v_dim);
        let n = a.q.len() / q_row;
        assert!(a.n_head.is_multiple_of(self.n_head_kv));
        assert!(a.q.len() == n * q_row && a.out.len() == n * o_row && n <= self.capacity);
        let first = (a.pos + 1).saturating_sub(a.window);
        assert!(a.pos + n - first <= self.capacity, "the cache holds the window and the batch");
        if n == 1 {
            self.attend_one(team, ops, a, first);
        } else {
            self.attend_many(team, ops, a, n);
        }
    }

    /// One token: a chunk of a head's cache is a task, and the results are merged afterwards.
    fn attend_one(&self, team: &mut Team<'_>, ops: &Ops, a: &mut Attend<'_>, first: usize) {
        let group = a.n_head / self.n_head_kv;
        let v_pad = self.v_dim.next_multiple_of(16);
        let (c0, c1) = (first / CHUNK, a.pos / CHUNK + 1);
        let chunks = c1 - c0;
        // A task's result: m, l and o of the group's heads.
        let result = group * (v_pad + 2);
        let tasks = self.n_head_kv * chunks;
        let partial = &mut a.partial[..tasks * result];
        let (q, scale, softcap, pos) = (a.q, a.scale, a.softcap, a.pos);
        team.for_chunks(partial, result, |task, out, scratch| {
            let (head, chunk) = (task / chunks, c0 + task % chunks);
            for rows in (0..group).step_by(MAX_ROWS) {
                let n = MAX_ROWS.min(group - rows);
                let (s, rest) = scratch.as_f32().split_at_mut(MAX_ROWS * CHUNK);
                let scaled = &mut rest[..n * self.k_dim];
                let from = (head * group + rows) * self.k_dim;
                for (x, q) in scaled.iter_mut().zip(&q[from..from + n * self.k_dim]) {
                    *x = q * scale;
                }
                let (m, rest) = out.split_at_mut(group);
                let (l, o) = rest.split_at_mut(group);
                let mut args = ChunkArgs {
                    view: &self.view(head),
                    chunk,
                    q: scaled,
                    ranges: &[(first, pos + 1); MAX_ROWS][..n],
                    softcap,
                    s,
                    m: &mut m[rows..rows + n],
                    l: &mut l[rows..rows + n],
                    o: &mut o[rows * v_pad..(rows + n) * v_pad],
                };
                // SAFETY: the slices have the lengths of `ChunkArgs`.
                unsafe { (ops.attention_chunk)(&mut args) }
            }
        });
        let partial = &*partial;
        let merge = |head: usize, out: &mut [f32], all: &mut [f32]| {
            let (stats, o_all) = all.split_at_mut(2 * group);
            let (m_all, l_all) = stats.split_at_mut(group);
            let o_all = &mut o_all[..group * v_pad];
            begin(m_all, l_all, o_all);
            for c in 0..chunks {
                let (stats, o) =
                    partial[(head * chunks + c) * result..][..result].split_at(2 * group);
                let (m, l) = stats.split_at(group);
                // SAFETY: the slices have the lengths of `MergeArgs`.
                unsafe { (ops.attention_merge)(&mut MergeArgs { m, l, o, m_all, l_all, o_all }) }
            }
            for (r, out) in out.chunks_exact_mut(self.v_dim).enumerate() {
                normalize(&o_all[r * v_pad..][..self.v_dim], l_all[r], out);
            }
        };
        // Merging is a few operations on each result; handing it out pays only for long contexts.
        let per_head = group * self.v_dim;
        if chunks < 16 {
            let all = team.scratch().as_f32();
            for (head, out) in a.out.chunks_exact_mut(per_head).enumerate() {
                merge(head, out, all);
            }
        } else {
            team.for_chunks(a.out, per_head, |head, out, s| merge(head, out, s.as_f32()));
        }
    }

    /// Many tokens: a tile of tokens with one head's queries is a task and walks all chunks.
    fn attend_many(&self, team: &mut Team<'_>, ops: &Ops, a: &mut Attend<'_>, n: usize) {
        let group = a.n_head / self.n_head_kv;
        let v_pad = self.v_dim.next_multiple_of(16);
        let widest = self.k_dim.max(v_pad);
        let rows = (8192 / widest).clamp(1, MAX_ROWS);
        // Tokens of a tile, or, if a group is larger than a tile, heads of one token.
        let (tokens, heads) = if group <= rows { (rows / group, group) } else { (1, rows) };
        let tiles = n.div_ceil(tokens);
        let splits = group.div_ceil(heads);
        let (q, scale, softcap, pos, window) = (a.q, a.scale, a.softcap, a.pos, a.window);
        let (q_row, o_row) = (a.n_head * self.k_dim, a.n_head * self.v_dim);
        let out = SendPtr(a.out.as_mut_ptr());
        team.run(self.n_head_kv * splits * tiles, &|task, scratch| {
            // The last tiles see the most positions: begin with them.
            let tile = tiles - 1 - task / (self.n_head_kv * splits);
            let head_split = task % (self.n_head_kv * splits);
            let (head, split) = (head_split / splits, head_split % splits);
            let t0 = tile * tokens;
            let nt = tokens.min(n - t0);
            let h0 = head * group + split * heads;
            let nh = heads.min(group - split * heads);
            let nr = nt * nh;
            let memory = scratch.as_f32();
            let (s, memory) = memory.split_at_mut(nr * CHUNK);
            let (scaled, memory) = memory.split_at_mut(nr * self.k_dim);
            let (o, memory) = memory.split_at_mut(nr * v_pad);
            let (o_all, memory) = memory.split_at_mut(nr * v_pad);
            let (m, memory) = memory.split_at_mut(nr);
            let (l, memory) = memory.split_at_mut(nr);
            let (m_all, memory) = memory.split_at_mut(nr);
            let l_all = &mut memory[..nr];
            let mut ranges = [(0, 0); MAX_ROWS];
            for r in 0..nr {
                let (t, h) = (t0 + r / nh, h0 + r % nh);
                let p = pos + t;
                ranges[r] = ((p + 1).saturating_sub(window), p + 1);
                let from = t * q_row + h * self.k_dim;
                let to = &mut scaled[r * self.k_dim..(r + 1) * self.k_dim];
                for (x, q) in to.iter_mut().zip(&q[from..from + self.k_dim]) {
                    *x = q * scale;
                }
            }
            let ranges = &ranges[..nr];
            begin(m_all, l_all, o_all);
            let view = self.view(head);
            let (first, last) = (ranges[0].0, ranges[nr - 1].1);
            for chunk in first / CHUNK..last.div_ceil(CHUNK) {
                let mut args =
                    ChunkArgs { view: &view, chunk, q: scaled, ranges, softcap, s, m, l, o };
                // SAFETY: the slices have the lengths of `ChunkArgs` and `MergeArgs`.
                unsafe {
                    (ops.attention_chunk)(&mut args);
                    (ops.attention_merge)(&mut MergeArgs { m, l, o, m_all, l_all, o_all });
                }
            }
            for r in 0..nr {
                let (t, h) = (t0 + r / nh, h0 + r % nh);
                // SAFETY: token t < n and head h < n_head lie inside `out`, and no other task has
                // the same pair.
                let out = unsafe {
                    let at = out.get().add(t * o_row + h * self.v_dim);
                    std::slice::from_raw_parts_mut(at, self.v_dim)
                };
                normalize(&o_all[r * v_pad..][..self.v_dim], l_all[r], out);
            }
        });
    }
}

fn begin(m: &mut [f32], l: &mut [f32], o: &mut [f32]) {
    m.fill(f32::NEG_INFINITY);
    l.fill(0.0);
    o.fill(0.0);
}

fn normalize(o: &[f32], l: f32, out: &mut [f32]) {
    let inverse = 1.0 / l;
    for (out, o) in out.iter_mut().zip(o) {
        *out = o * inverse;
    }
}

/// The bodies, generic over the lanes.
#[allow(clippy::undocumented_unsafe_blocks, reason = "each body's block is its caller's promise")]
pub(crate) mod body {
    use super::*;
    use crate::lanes::{self, Lanes};

    /// A way to store keys and values.
    trait Kv {
        /// The scales of dimensions `32 b..` of 16 keys.
        unsafe fn k_scale<L: Lanes>(group: *const u8, b: usize) -> L::V;
        /// Dimension `d` of 16 keys.
        unsafe fn k<L: Lanes>(group: *const u8, d: usize, scale: L::V) -> L::V;
        /// Dimensions `d..d + 16` of a value.
        unsafe fn v<L: Lanes>(row: *const u8, d: usize) -> L::V;
    }

    struct F32;
    struct F16;
    struct Q8;
    struct Q4;

    #[inline(always)]
    unsafe fn f16_at(p: *const u8) -> f32 {
        half::f16::from_bits(unsafe { p.cast::<u16>().read_unaligned() }).to_f32()
    }

    impl Kv for F32 {
        #[inline(always)]
        unsafe fn k_scale<L: Lanes>(_: *const u8, _: usize) -> L::V {
            unsafe { L::splat(1.0) }
        }
        #[inline(always)]
        unsafe fn k<L: Lanes>(group: *const u8, d: usize, _: L::V) -> L::V {
            unsafe { L::load(group.cast::<f32>().add(16 * d)) }
        }
        #[inline(always)]
        unsafe fn v<L: Lanes>(row: *const u8, d: usize) -> L::V {
            unsafe { L::load(row.cast::<f32>().add(d)) }
        }
    }

    impl Kv for F16 {
        #[inline(always)]
        unsafe fn k_scale<L: Lanes>(_: *const u8, _: usize) -> L::V {
            unsafe { L::splat(1.0) }
        }
        #[inline(always)]
        unsafe fn k<L: Lanes>(group: *const u8, d: usize, _: L::V) -> L::V {
            unsafe { L::load_f16(group.cast::<u16>().add(16 * d)) }
        }
        #[inline(always)]
        unsafe fn v<L: Lanes>(row: *const u8, d: usize) -> L::V {
            unsafe { L::load_f16(row.cast::<u16>().add(d)) }
        }
    }

    impl Kv for Q8 {
        #[inline(always)]
        unsafe fn k_scale<L: Lanes>(group: *const u8, b: usize) -> L::V {
            unsafe { L::load_f16(group.add(b * 16 * 34).cast()) }
        }
        #[inline(always)]
        unsafe fn k<L: Lanes>(group: *const u8, d: usize, scale: L::V) -> L::V {
            unsafe {
                let codes = group.add(d / 32 * 16 * 34 + 32 + d % 32 * 16);
                L::mul(L::load_i8(codes.cast()), scale)
            }
        }
        #[inline(always)]
        unsafe fn v<L: Lanes>(row: *const u8, d: usize) -> L::V {
            unsafe {
                let block = row.add(d / 32 * 34);
                let scale = L::splat(f16_at(block));
                L::mul(L::load_i8(block.add(2 + d % 32).cast()), scale)
            }
        }
    }

    #[inline(always)]
    fn nibbles(bytes: [u8; 8]) -> [i8; 16] {
        std::array::from_fn(|i| (bytes[i % 8] >> (4 * (i / 8)) & 15) as i8 - 8)
    }

    impl Kv for Q4 {
        #[inline(always)]
        unsafe fn k_scale<L: Lanes>(group: *const u8, b: usize) -> L::V {
            unsafe { L::load_f16(group.add(b * 16 * 18).cast()) }
        }
        #[inline(always)]
        unsafe fn k<L: Lanes>(group: *const u8, d: usize, scale: L::V) -> L::V {
            unsafe {
                let codes = group.add(d / 32 * 16 * 18 + 32 + d % 32 * 8).cast::<[u8; 8]>();
                L::mul(L::load_i8(nibbles(codes.read()).as_ptr()), scale)
            }
        }
        #[inline(always)]
        unsafe fn v<L: Lanes>(row: *const u8, d: usize) -> L::V {
            unsafe {
                let block = row.add(d / 32 * 18);
                let scale = L::splat(f16_at(block));
                let codes = block.add(2).cast::<[u8; 16]>().read();
                let shift = d % 32 / 16 * 4;
                let codes = codes.map(|c| (c >> shift & 15) as i8 - 8);
                L::mul(L::load_i8(codes.as_ptr()), scale)
            }
        }
    }

    /// Quantizes 32 values to 8 bits: the scale and the codes.
    #[inline(always)]
    fn quantize_q8(x: &[f32]) -> (half::f16, [i8; 32]) {
        let top = x.iter().fold(0.0f32, |a, b| if b.abs() > a { b.abs() } else { a });
        let inverse = if top > 0.0 { 127.0 / top } else { 0.0 };
        let mut q = [0i8; 32];
        for (q, x) in q.iter_mut().zip(x) {
            *q = (x * inverse).round_ties_even() as i8;
        }
        (half::f16::from_f32(top / 127.0), q)
    }

    /// Quantizes 32 values to 4 bits, 0 to 15 with 8 for zero. The value furthest from zero gets
    /// code 0, as in ggml.
    #[inline(always)]
    fn quantize_q4(x: &[f32]) -> (half::f16, [u8; 32]) {
        let top = x.iter().fold(0.0f32, |a, b| if b.abs() > a.abs() { *b } else { a });
        let d = top / -8.0;
        let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
        let mut q = [0u8; 32];
        for (q, x) in q.iter_mut().zip(x) {
            *q = (x * inverse + 8.5).clamp(0.0, 15.0) as u8;
        }
        (half::f16::from_f32(d), q)
    }

    #[inline(always)]
    pub unsafe fn store<L: Lanes>(view: &KvView, slot: usize, k: &[f32], v: &[f32]) {
        unsafe {
            let group = view.k.add(slot / 16 * 16 * view.k_type.bytes(view.k_dim));
            let lane = slot % 16;
            match view.k_type {
                KvType::F32 => {
                    for (d, x) in k.iter().enumerate() {
                        *group.cast::<f32>().add(16 * d + lane) = *x;
                    }
                }
                KvType::F16 => {
                    let out = group.cast::<u16>().add(lane);
                    let mut d = 0;
                    while d + 16 <= k.len() {
                        let mut h = [0u16; 16];
                        L::store_f16(h.as_mut_ptr(), L::load(k.as_ptr().add(d)));
                        for (i, h) in h.iter().enumerate() {
                            *out.add(16 * (d + i)) = *h;
                        }
                        d += 16;
                    }
                    for d in d..k.len() {
                        *out.add(16 * d) = half::f16::from_f32(k[d]).to_bits();
                    }
                }
                KvType::Q8_0 => {
                    for (b, x) in k.chunks_exact(32).enumerate() {
                        let (d, q) = quantize_q8(x);
                        let block = group.add(b * 16 * 34);
                        *block.cast::<u16>().add(lane) = d.to_bits();
                        for (i, q) in q.iter().enumerate() {
                            *block.add(32 + 16 * i + lane).cast() = *q;
                        }
                    }
                }
                KvType::Q4_0 => {
                    for (b, x) in k.chunks_exact(32).enumerate() {
                        let (d, q) = quantize_q4(x);
                        let block = group.add(b * 16 * 18);
                        *block.cast::<u16>().add(lane) = d.to_bits();
                        let shift = lane / 8 * 4;
                        for (i, q) in q.iter().enumerate() {
                            let byte = block.add(32 + 8 * i + lane % 8);
                            *byte = *byte & !(15 << shift) | q << shift;
                        }
                    }
                }
            }
            let row = view.v.add(slot * view.v_type.bytes(view.v_pad));
            match view.v_type {
                KvType::F32 => {
                    std::ptr::copy_nonoverlapping(v.as_ptr(), row.cast(), v.len());
                }
                KvType::F16 => {
                    let out = row.cast::<u16>();
                    let mut d = 0;
                    while d + 16 <= v.len() {
                        L::store_f16(out.add(d), L::load(v.as_ptr().add(d)));
                        d += 16;
                    }
                    for d in d..v.len() {
                        *out.add(d) = half::f16::from_f32(v[d]).to_bits();
                    }
                }
                KvType::Q8_0 => {
                    for (b, x) in v.chunks_exact(32).enumerate() {
                        let (d, q) = quantize_q8(x);
                        let block = row.add(b * 34);
                        block.cast::<u16>().write_unaligned(d.to_bits());
                        block.add(2).cast::<[i8; 32]>().write(q);
                    }
                }
                KvType::Q4_0 => {
                    for (b, x) in v.chunks_exact(32).enumerate() {
                        let (d, q) = quantize_q4(x);
                        let block = row.add(b * 18);
                        block.cast::<u16>().write_unaligned(d.to_bits());
                        for i in 0..16 {
                            *block.add(2 + i) = q[i] | q[i + 16] << 4;
                        }
                    }
                }
            }
        }
    }

    /// Scores of `R` rows against `G` groups of 16 positions.
    #[inline(always)]
    unsafe fn score_tile<L: Lanes, K: Kv, const R: usize, const G: usize>(
        a: &mut ChunkArgs<'_>,
        groups: *const u8,
        group_bytes: usize,
        row: usize,
        g: usize,
    ) {
        unsafe {
            let k_dim = a.view.k_dim;
            let q: [*const f32; R] = std::array::from_fn(|r| a.q.as_ptr().add((row + r) * k_dim));
            let keys: [*const u8; G] = std::array::from_fn(|j| groups.add((g + j) * group_bytes));
            let mut acc = [[L::splat(0.0); G]; R];
            for b in 0..k_dim.div_ceil(32) {
                let scales: [L::V; G] = std::array::from_fn(|j| K::k_scale::<L>(keys[j], b));
                for d in 32 * b..k_dim.min(32 * b + 32) {
                    let k: [L::V; G] = std::array::from_fn(|j| K::k::<L>(keys[j], d, scales[j]));
                    for r in 0..R {
                        let q = L::splat(*q[r].add(d));
                        for j in 0..G {
                            acc[r][j] = L::fma(q, k[j], acc[r][j]);
                        }
                    }
                }
            }
            for r in 0..R {
                for j in 0..G {
                    L::store(a.s.as_mut_ptr().add((row + r) * CHUNK + (g + j) * 16), acc[r][j]);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn scores<L: Lanes, K: Kv>(a: &mut ChunkArgs<'_>, slot: usize, used: usize) {
        unsafe {
            let group_bytes = 16 * a.view.k_type.bytes(a.view.k_dim);
            let groups: *const u8 = a.view.k.add(slot / 16 * group_bytes);
            let n = a.ranges.len();
            let mut g = 0;
            while g < used {
                let two = g + 2 <= used;
                let mut r = 0;
                while r < n {
                    let left = n - r;
                    match (left, two) {
                        (4.., true) => score_tile::<L, K, 4, 2>(a, groups, group_bytes, r, g),
                        (3, true) => score_tile::<L, K, 3, 2>(a, groups, group_bytes, r, g),
                        (2, true) => score_tile::<L, K, 2, 2>(a, groups, group_bytes, r, g),
                        (_, true) => score_tile::<L, K, 1, 2>(a, groups, group_bytes, r, g),
                        (4.., false) => score_tile::<L, K, 4, 1>(a, groups, group_bytes, r, g),
                        (3, false) => score_tile::<L, K, 3, 1>(a, groups, group_bytes, r, g),
                        (2, false) => score_tile::<L, K, 2, 1>(a, groups, group_bytes, r, g),
                        (_, false) => score_tile::<L, K, 1, 1>(a, groups, group_bytes, r, g),
                    }
                    r += left.min(4);
                }
                g += if two { 2 } else { 1 };
            }
        }
    }

    /// The weighted values of `R` rows, dimensions `d..d + 16 D`. `common` are the positions that
    /// all rows attend to; a row's own come before and after, in increasing order.
    #[inline(always)]
    unsafe fn value_tile<L: Lanes, V: Kv, const R: usize, const D: usize>(
        a: &mut ChunkArgs<'_>,
        rows: *const u8,
        local: &[(usize, usize)],
        row: usize,
        d: usize,
    ) {
        unsafe {
            let row_bytes = a.view.v_type.bytes(a.view.v_pad);
            let local = &local[row..row + R];
            let lo = local.iter().map(|x| x.0).max().unwrap_or(0);
            let hi = local.iter().map(|x| x.1).min().unwrap_or(0).max(lo);
            let p: [*const f32; R] = std::array::from_fn(|r| a.s.as_ptr().add((row + r) * CHUNK));
            let mut acc = [[L::splat(0.0); D]; R];
            for r in 0..R {
                for j in local[r].0..lo.min(local[r].1) {
                    for i in 0..D {
                        let v = V::v::<L>(rows.add(j * row_bytes), d + 16 * i);
                        acc[r][i] = L::fma(L::splat(*p[r].add(j)), v, acc[r][i]);
                    }
                }
            }
            for j in lo..hi {
                let v: [L::V; D] =
                    std::array::from_fn(|i| V::v::<L>(rows.add(j * row_bytes), d + 16 * i));
                for r in 0..R {
                    let p = L::splat(*p[r].add(j));
                    for i in 0..D {
                        acc[r][i] = L::fma(p, v[i], acc[r][i]);
                    }
                }
            }
            for r in 0..R {
                for j in hi.max(local[r].0)..local[r].1 {
                    for i in 0..D {
                        let v = V::v::<L>(rows.add(j * row_bytes), d + 16 * i);
                        acc[r][i] = L::fma(L::splat(*p[r].add(j)), v, acc[r][i]);
                    }
                }
                for i in 0..D {
                    let at = (row + r) * a.view.v_pad + d + 16 * i;
                    L::store(a.o.as_mut_ptr().add(at), acc[r][i]);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn values<L: Lanes, V: Kv>(
        a: &mut ChunkArgs<'_>,
        slot: usize,
        local: &[(usize, usize)],
    ) {
        unsafe {
            let rows: *const u8 = a.view.v.add(slot * a.view.v_type.bytes(a.view.v_pad));
            let n = a.ranges.len();
            let mut r = 0;
            while r < n {
                let left = n - r;
                let mut d = 0;
                while d < a.view.v_pad {
                    let two = d + 32 <= a.view.v_pad;
                    match (left, two) {
                        (4.., true) => value_tile::<L, V, 4, 2>(a, rows, local, r, d),
                        (3, true) => value_tile::<L, V, 3, 2>(a, rows, local, r, d),
                        (2, true) => value_tile::<L, V, 2, 2>(a, rows, local, r, d),
                        (_, true) => value_tile::<L, V, 1, 2>(a, rows, local, r, d),
                        (4.., false) => value_tile::<L, V, 4, 1>(a, rows, local, r, d),
                        (3, false) => value_tile::<L, V, 3, 1>(a, rows, local, r, d),
                        (2, false) => value_tile::<L, V, 2, 1>(a, rows, local, r, d),
                        (_, false) => value_tile::<L, V, 1, 1>(a, rows, local, r, d),
                    }
                    d += if two { 32 } else { 16 };
                }
                r += left.min(4);
            }
        }
    }

    /// Turns scores into weights: `exp(s - max)`, 0 outside the row's positions.
    #[inline(always)]
    unsafe fn soften<L: Lanes>(s: &mut [f32], lo: usize, hi: usize, cap: f32) -> (f32, f32) {
        unsafe {
            let p = s.as_mut_ptr();
            if cap > 0.0 {
                let c = L::splat(cap);
                for i in (0..CHUNK).step_by(16) {
                    let x = L::div(L::load(p.add(i)), c);
                    L::store(p.add(i), L::mul(lanes::tanh::<L>(x), c));
                }
            }
            s[..lo].fill(f32::NEG_INFINITY);
            s[hi..].fill(f32::NEG_INFINITY);
            let mut top = L::splat(f32::NEG_INFINITY);
            for i in (0..CHUNK).step_by(16) {
                top = L::max(L::load(p.add(i)), top);
            }
            let m = L::to_array(top).into_iter().fold(
                f32::NEG_INFINITY,
                |a, b| {
                    if b > a { b } else { a }
                },
            );
            let top = L::splat(m);
            let mut sum = L::splat(0.0);
            for i in (0..CHUNK).step_by(16) {
                let e = lanes::exp::<L>(L::sub(L::load(p.add(i)), top));
                L::store(p.add(i), e);
                sum = L::add(sum, e);
            }
            (m, L::sum(sum))
        }
    }

    #[inline(always)]
    pub unsafe fn chunk<L: Lanes>(a: &mut ChunkArgs<'_>) {
        unsafe {
            let start = a.chunk * CHUNK;
            let slot = start % a.view.capacity;
            let n = a.ranges.len();
            let mut local = [(0usize, 0usize); MAX_ROWS];
            let mut used = 0;
            for (local, (lo, hi)) in local.iter_mut().zip(a.ranges) {
                let lo = (*lo).max(start) - start;
                let hi = (*hi).clamp(start, start + CHUNK) - start;
                *local = if lo < hi { (lo, hi) } else { (0, 0) };
                used = used.max(local.1);
            }
            let used = used.div_ceil(16);
            match a.view.k_type {
                KvType::F32 => scores::<L, F32>(a, slot, used),
                KvType::F16 => scores::<L, F16>(a, slot, used),
                KvType::Q8_0 => scores::<L, Q8>(a, slot, used),
                KvType::Q4_0 => scores::<L, Q4>(a, slot, used),
            }
            for r in 0..n {
                let (lo, hi) = local[r];
                if lo == hi {
                    (a.m[r], a.l[r]) = (f32::NEG_INFINITY, 0.0);
                    continue;
                }
                let s = &mut a.s[r * CHUNK..(r + 1) * CHUNK];
                (a.m[r], a.l[r]) = soften::<L>(s, lo, hi, a.softcap);
            }
            match a.view.v_type {
                KvType::F32 => values::<L, F32>(a, slot, &local),
                KvType::F16 => values::<L, F16>(a, slot, &local),
                KvType::Q8_0 => values::<L, Q8>(a, slot, &local),
                KvType::Q4_0 => values::<L, Q4>(a, slot, &local),
            }
        }
    }

    #[inline(always)]
    pub unsafe fn merge<L: Lanes>(a: &mut MergeArgs<'_>) {
        let n = a.m.len();
        let width = a.o.len() / n;
        for r in 0..n {
            // A row without positions in this chunk; any other has a sum of at least 1.
            if a.l[r] == 0.0 {
                continue;
            }
            unsafe {
                let m = if a.m[r] > a.m_all[r] { a.m[r] } else { a.m_all[r] };
                let mut e = [0.0f32; 16];
                e[0] = a.m_all[r] - m;
                e[1] = a.m[r] - m;
                let e = L::to_array(lanes::exp::<L>(L::load(e.as_ptr())));
                a.m_all[r] = m;
                a.l_all[r] = a.l_all[r].mul_add(e[0], a.l[r] * e[1]);
                let (old, new) = (L::splat(e[0]), L::splat(e[1]));
                let o = a.o.as_ptr().add(r * width);
                let all = a.o_all.as_mut_ptr().add(r * width);
                for d in (0..width).step_by(16) {
                    let add = L::mul(L::load(o.add(d)), new);
                    L::store(all.add(d), L::fma(L::load(all.add(d)), old, add));
                }
            }
        }
    }
}
