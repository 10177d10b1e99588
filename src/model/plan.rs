//! How much memory a model takes, known before anything is allocated.

use siskin_quant::Act;
use siskin_quant::act::Activations;
use siskin_quant::attention::{KvType, partial_len};

use super::hparams::Hparams;
use super::kv_cache::layer_shape;
use super::weights::Weights;

/// Rows whose logits are computed together when those of every position are asked for.
pub(crate) const LOGIT_ROWS: usize = 16;

/// What a session is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionShape {
    /// Positions.
    pub n_ctx: usize,
    /// Tokens computed together.
    pub n_batch: usize,
    /// How keys are stored.
    pub k_type: KvType,
    /// How values are stored.
    pub v_type: KvType,
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The mapped file, and what of it had to be copied: all tensors if it is big-endian.
    pub weights: u64,
    /// Keys and values when the context is full.
    pub kv_cache: u64,
    /// Everything else that a session and its sampler can come to allocate.
    pub workspace: u64,
}

impl MemoryPlan {
    /// The plan of a session of `shape`, of a model in a file of `file_bytes`.
    pub fn new(
        h: &Hparams,
        weights: &Weights,
        file_bytes: u64,
        shape: &SessionShape,
    ) -> MemoryPlan {
        let kv_cache = (0..h.n_layer).map(|l| layer_shape(h, shape, l).bytes() as u64).sum();
        let sizes = Sizes::new(h, shape);
        let acts: usize = acts_used(weights)
            .map(|act| Activations::bytes_for(act, sizes.widest, shape.n_batch))
            .sum();
        let workspace = (4 * sizes.f32_values() + acts) as u64;
        let weights = file_bytes.saturating_add(weights.copied);
        MemoryPlan { weights, kv_cache, workspace }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv_cache).saturating_add(self.workspace)
    }
}

/// The kinds of activations that a model's weights are multiplied with.
pub(crate) fn acts_used(weights: &Weights) -> impl Iterator<Item = Act> {
    let matrices = weights
        .layers
        .iter()
        .flat_map(|l| [&l.q, &l.k, &l.v, &l.attn_output, &l.gate, &l.up, &l.down]);
    let used: Vec<Act> =
        matrices.chain(std::iter::once(&weights.output)).map(|w| w.act()).collect();
    [Act::F32, Act::Q8].into_iter().filter(move |a| used.contains(a))
}

/// Values in the buffers of a [`Workspace`](super::Workspace).
pub(crate) struct Sizes {
    /// The longest vector that is multiplied with weights.
    pub widest: usize,
    /// Residual stream, and a part's output: `[n_batch][n_embd]` each.
    pub x: usize,
    /// Input of a product: `[n_batch][widest of n_embd and the heads]`.
    pub input: usize,
    /// Queries.
    pub q: usize,
    /// Keys.
    pub k: usize,
    /// Values.
    pub v: usize,
    /// Gate and up: `[n_batch][n_ff]` each.
    pub ff: usize,
    /// Rotary angles: of layers with a window and of the others.
    pub angles: usize,
    /// Results of attention's chunks.
    pub partial: usize,
    /// Logits of one row.
    pub logits: usize,
    /// Logits of [`LOGIT_ROWS`] rows, for those who ask for every position's.
    rows: usize,
    /// A sampler's changed logits and its candidates, which are a token and a logit each.
    sampler: usize,
    /// The tokens themselves.
    tokens: usize,
}

impl Sizes {
    pub fn new(h: &Hparams, s: &SessionShape) -> Sizes {
        let n = s.n_batch;
        let heads = h.n_head * h.v_dim;
        Sizes {
            widest: h.n_embd.max(heads).max(h.n_ff),
            x: n * h.n_embd,
            input: n * h.n_embd.max(heads),
            q: n * h.n_head * h.k_dim,
            k: n * h.n_head_kv * h.k_dim,
            v: n * h.n_head_kv * h.v_dim,
            ff: n * h.n_ff,
            angles: n * h.n_rot,
            partial: partial_len(h.n_head, h.v_dim, s.n_ctx),
            logits: h.n_vocab,
            rows: LOGIT_ROWS.min(n) * h.n_vocab,
            sampler: 3 * h.n_vocab,
            tokens: s.n_ctx,
        }
    }

    fn f32_values(&self) -> usize {
        let Sizes { widest: _, x, input, q, k, v, ff, angles, partial, logits, .. } = self;
        let later = self.rows + self.sampler + self.tokens;
        2 * x + input + q + k + v + 2 * ff + 2 * angles + partial + logits + later
    }
}
