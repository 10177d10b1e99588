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

pub(crate) mod body;
pub(crate) mod kv;

use crate::buffer::{Buffer, OutOfMemory};
use crate::ops::Ops;
use crate::par::{SendPtr, Team};

/// Positions of a chunk.
pub const CHUNK: usize = 64;
/// Query rows of one token that are computed together, at the most.
const QUERY_ROWS: usize = 32;
/// Query rows of many tokens that are computed together, at the most: they share the conversion of a chunk
/// to f32. Half as many where there would be too few tasks for the threads.
const MANY_ROWS: usize = 128;
/// Queries of them, and outputs, have so many floats each at the most.
const TILE_FLOATS: usize = 12 * 1024;
const _: () = assert!(MANY_ROWS * (CHUNK + 4) + 2 * TILE_FLOATS <= crate::par::SCRATCH_BYTES / 4);
/// Dimensions of a head, at the most: with more, the threads' scratch memory would be too small.
pub const MAX_DIM: usize = 1024;
/// Scores, a scaled query, and a sum of each row when one token is decoded.
const _: () = assert!(QUERY_ROWS * (CHUNK + 2 + MAX_DIM) <= crate::par::SCRATCH_BYTES / 4);

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
pub(crate) struct KvView {
    k: *mut u8,
    v: *mut u8,
    k_type: KvType,
    v_type: KvType,
    k_dim: usize,
    v_pad: usize,
    capacity: usize,
}

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
    /// `[rows][v_pad]`: the weighted values.
    o: &'a mut [f32],
    /// The maxima and sums of the chunks before, if `o` is theirs and this one is to be merged into it.
    all: Option<(&'a mut [f32], &'a mut [f32])>,
    /// Room for the chunk as f32, `CHUNK * (k_dim + v_pad)`; or less, and it is not converted.
    kv: &'a mut [f32],
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
            if dim == 0 || dim > MAX_DIM || !dim.is_multiple_of(ty.block()) {
                return Err(KvError::Shape(format!(
                    "a cache of {ty:?} needs heads of a multiple of {} dimensions, up to {MAX_DIM}; \
                     the {name} have {dim}",
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
        let view = self.view(head);
        let k = self.k.as_bytes_mut()[head * self.k_head_bytes..].as_mut_ptr();
        let v = self.v.as_bytes_mut()[head * self.v_head_bytes..].as_mut_ptr();
        KvView { k, v, ..view }
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
            for rows in (0..group).step_by(QUERY_ROWS) {
                let n = QUERY_ROWS.min(group - rows);
                let (s, rest) = scratch.as_f32().split_at_mut(QUERY_ROWS * CHUNK);
                let scaled = &mut rest[..n * self.k_dim];
                let from = (head * group + rows) * self.k_dim;
                ops.scaled(&q[from..from + n * self.k_dim], scale, scaled);
                let (m, rest) = out.split_at_mut(group);
                let (l, o) = rest.split_at_mut(group);
                let mut args = ChunkArgs {
                    view: &self.view(head),
                    chunk,
                    q: scaled,
                    ranges: &[(first, pos + 1); QUERY_ROWS][..n],
                    softcap,
                    s,
                    m: &mut m[rows..rows + n],
                    l: &mut l[rows..rows + n],
                    o: &mut o[rows * v_pad..(rows + n) * v_pad],
                    all: None,
                    kv: &mut [],
                };
                // SAFETY: the slices have the lengths of `ChunkArgs`.
                unsafe { (ops.attention_chunk)(&mut args) }
            }
        });
        let partial = &*partial;
        let merge = |head: usize, out: &mut [f32], all: &mut [f32]| {
            for (i, out) in out.chunks_mut(QUERY_ROWS * self.v_dim).enumerate() {
                let n = out.len() / self.v_dim;
                let rows = QUERY_ROWS * i..QUERY_ROWS * i + n;
                let (stats, o_all) = all.split_at_mut(2 * n);
                let (m_all, l_all) = stats.split_at_mut(n);
                let o_all = &mut o_all[..n * v_pad];
                begin(m_all, l_all, o_all);
                for c in 0..chunks {
                    let (stats, o) =
                        partial[(head * chunks + c) * result..][..result].split_at(2 * group);
                    let (m, l) = stats.split_at(group);
                    let (m, l) = (&m[rows.clone()], &l[rows.clone()]);
                    let o = &o[rows.start * v_pad..rows.end * v_pad];
                    let mut args = MergeArgs { m, l, o, m_all, l_all, o_all };
                    // SAFETY: the slices have the lengths of `MergeArgs`.
                    unsafe { (ops.attention_merge)(&mut args) }
                }
                for (r, out) in out.chunks_exact_mut(self.v_dim).enumerate() {
                    ops.scaled(&o_all[r * v_pad..][..self.v_dim], 1.0 / l_all[r], out);
                }
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
        let tasks = self.n_head_kv * (n * group).div_ceil(MANY_ROWS);
        let most = if tasks < 4 * team.n_threads() { MANY_ROWS / 2 } else { MANY_ROWS };
        let rows = (TILE_FLOATS / widest).clamp(1, most);
        // Tokens of a tile, or, if a group is larger than a tile, heads of one token.
        let (tokens, heads) = if group <= rows { (rows / group, group) } else { (1, rows) };
        // Rows in fours, where that is to be had.
        let tokens = if tokens > 4 { tokens / 4 * 4 } else { tokens };
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
            let (m, memory) = memory.split_at_mut(nr);
            let (l, memory) = memory.split_at_mut(nr);
            let (m_all, memory) = memory.split_at_mut(nr);
            let (l_all, kv) = memory.split_at_mut(nr);
            let mut ranges = [(0, 0); MANY_ROWS];
            let row = nh * self.k_dim;
            for (i, to) in scaled.chunks_exact_mut(row).enumerate() {
                let t = t0 + i;
                let p = pos + t;
                ranges[i * nh..(i + 1) * nh].fill(((p + 1).saturating_sub(window), p + 1));
                ops.scaled(&q[t * q_row + h0 * self.k_dim..][..row], scale, to);
            }
            let ranges = &ranges[..nr];
            begin(m_all, l_all, o);
            let view = self.view(head);
            let (first, last) = (ranges[0].0, ranges[nr - 1].1);
            for chunk in first / CHUNK..last.div_ceil(CHUNK) {
                let view = &view;
                let all = Some((&mut *m_all, &mut *l_all));
                let mut args =
                    ChunkArgs { view, chunk, q: scaled, ranges, softcap, s, m, l, o, all, kv };
                // SAFETY: the slices have the lengths of `ChunkArgs`.
                unsafe { (ops.attention_chunk)(&mut args) }
            }
            for r in 0..nr {
                let (t, h) = (t0 + r / nh, h0 + r % nh);
                // SAFETY: token t < n and head h < n_head lie inside `out`, and no other task has
                // the same pair.
                let out = unsafe {
                    let at = out.get().add(t * o_row + h * self.v_dim);
                    std::slice::from_raw_parts_mut(at, self.v_dim)
                };
                ops.scaled(&o[r * v_pad..][..self.v_dim], 1.0 / l_all[r], out);
            }
        });
    }
}

fn begin(m: &mut [f32], l: &mut [f32], o: &mut [f32]) {
    m.fill(f32::NEG_INFINITY);
    l.fill(0.0);
    o.fill(0.0);
}
