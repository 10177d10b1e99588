//! The tensors of a model: their names in GGUF files and in hub checkpoints side by side, and their
//! shapes. The loader and the converter both go by these tables.

use super::archs::ArchSpec;

/// A dimension of a tensor, by what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Tokens in the vocabulary.
    Vocab,
    /// Values of an embedding.
    Embd,
    /// Width of the feed-forward part.
    Ff,
    /// Queries of all heads.
    Queries,
    /// Keys of all heads.
    Keys,
    /// Values of all heads.
    Values,
    /// What the heads put out.
    Heads,
    /// The query or key of a head.
    Head,
    /// Pairs of dimensions that are rotated.
    RopePairs,
    /// Positions, where these have embeddings.
    Positions,
    /// Kinds of segments, where these have embeddings.
    TokenTypes,
}

/// The numbers that the dimensions of a model's tensors follow from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Values of an embedding.
    pub n_embd: usize,
    /// Width of the feed-forward part.
    pub n_ff: usize,
    /// Heads of queries.
    pub n_head: usize,
    /// Heads of keys and values.
    pub n_head_kv: usize,
    /// Dimensions of a query or key.
    pub k_dim: usize,
    /// Dimensions of a value.
    pub v_dim: usize,
    /// Dimensions that are rotated.
    pub n_rot: usize,
    /// Positions with embeddings; 0 where they have none.
    pub n_positions: usize,
    /// Kinds of segments with embeddings; 0 where they have none.
    pub n_token_types: usize,
}

impl Sizes {
    /// How long a dimension is.
    pub fn get(&self, dim: Dim) -> usize {
        match dim {
            Dim::Vocab => self.n_vocab,
            Dim::Embd => self.n_embd,
            Dim::Ff => self.n_ff,
            Dim::Queries => self.n_head * self.k_dim,
            Dim::Keys => self.n_head_kv * self.k_dim,
            Dim::Values => self.n_head_kv * self.v_dim,
            Dim::Heads => self.n_head * self.v_dim,
            Dim::Head => self.k_dim,
            Dim::RopePairs => self.n_rot / 2,
            Dim::Positions => self.n_positions,
            Dim::TokenTypes => self.n_token_types,
        }
    }
}

/// Which models have a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// All of them.
    Always,
    /// Those whose file has it.
    Optional,
    /// Those that norm queries and keys.
    QkNorm,
    /// Those that norm what attention and feed-forward put out.
    PostNorm,
    /// Those that do not.
    NoPostNorm,
}

/// A tensor, or one in each layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in GGUF files, with `{}` for the layer.
    pub gguf: &'static str,
    /// Its name in hub checkpoints, with `{}` for the layer; empty if it is computed.
    pub hub: &'static str,
    /// Its dimensions in ggml's order: the length of a row comes first.
    pub shape: &'static [Dim],
    /// Which models have it.
    pub need: Need,
}

impl Tensor {
    /// Whether each layer has one.
    pub fn layered(&self) -> bool {
        self.gguf.contains("{}")
    }

    /// Its name in GGUF files.
    pub fn gguf_name(&self, layer: usize) -> String {
        self.gguf.replace("{}", &layer.to_string())
    }

    /// Its name in hub checkpoints.
    pub fn hub_name(&self, layer: usize) -> String {
        self.hub.replace("{}", &layer.to_string())
    }

    /// Whether models of an architecture must have it; `None` if they have no use for it.
    pub fn required(&self, arch: &ArchSpec) -> Option<bool> {
        match self.need {
            Need::Always => Some(true),
            Need::Optional => Some(false),
            Need::QkNorm => arch.qk_norm.then_some(true),
            Need::PostNorm => arch.post_norm.then_some(true),
            Need::NoPostNorm => (!arch.post_norm).then_some(true),
        }
    }
}

/// A tensor of a hub checkpoint that holds the rows of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fused {
    /// Its name, with `{}` for the layer.
    pub hub: &'static str,
    /// The tensors that it holds, one after the other.
    pub parts: &'static [Tensor],
}

macro_rules! tensors {
    ($table:ident, $about:literal: $($name:ident = $gguf:literal, $hub:literal, [$($dim:ident),+], $need:ident, $doc:literal;)+) => {
        $(
            #[doc = $doc]
            pub const $name: Tensor = Tensor {
                gguf: $gguf,
                hub: $hub,
                shape: &[$(Dim::$dim),+],
                need: Need::$need,
            };
        )+
        #[doc = $about]
        pub const $table: &[Tensor] = &[$($name),+];
    };
}

tensors! {
    DECODER, "The tensors of a decoder, in the order in which they are written.":
    ROPE_FREQS = "rope_freqs.weight", "", [RopePairs], Optional,
        "What each rotary frequency is divided by.";
    TOKEN_EMBD = "token_embd.weight", "model.embed_tokens.weight", [Embd, Vocab], Always,
        "Embeddings of the tokens.";
    ATTN_NORM = "blk.{}.attn_norm.weight", "model.layers.{}.input_layernorm.weight",
        [Embd], Always, "Norm before attention.";
    ATTN_Q = "blk.{}.attn_q.weight", "model.layers.{}.self_attn.q_proj.weight",
        [Embd, Queries], Always, "Queries.";
    ATTN_Q_BIAS = "blk.{}.attn_q.bias", "model.layers.{}.self_attn.q_proj.bias",
        [Queries], Optional, "Bias of the queries.";
    ATTN_K = "blk.{}.attn_k.weight", "model.layers.{}.self_attn.k_proj.weight",
        [Embd, Keys], Always, "Keys.";
    ATTN_K_BIAS = "blk.{}.attn_k.bias", "model.layers.{}.self_attn.k_proj.bias",
        [Keys], Optional, "Bias of the keys.";
    ATTN_V = "blk.{}.attn_v.weight", "model.layers.{}.self_attn.v_proj.weight",
        [Embd, Values], Always, "Values.";
    ATTN_V_BIAS = "blk.{}.attn_v.bias", "model.layers.{}.self_attn.v_proj.bias",
        [Values], Optional, "Bias of the values.";
    ATTN_Q_NORM = "blk.{}.attn_q_norm.weight", "model.layers.{}.self_attn.q_norm.weight",
        [Head], QkNorm, "Norm of each query.";
    ATTN_K_NORM = "blk.{}.attn_k_norm.weight", "model.layers.{}.self_attn.k_norm.weight",
        [Head], QkNorm, "Norm of each key.";
    ATTN_OUTPUT = "blk.{}.attn_output.weight", "model.layers.{}.self_attn.o_proj.weight",
        [Heads, Embd], Always, "Output of attention.";
    ATTN_OUTPUT_BIAS = "blk.{}.attn_output.bias", "model.layers.{}.self_attn.o_proj.bias",
        [Embd], Optional, "Bias of attention's output.";
    ATTN_POST_NORM = "blk.{}.post_attention_norm.weight",
        "model.layers.{}.post_attention_layernorm.weight",
        [Embd], PostNorm, "Norm after attention.";
    FFN_NORM = "blk.{}.ffn_norm.weight", "model.layers.{}.post_attention_layernorm.weight",
        [Embd], NoPostNorm, "Norm before the feed-forward part.";
    FFN_PRE_NORM = "blk.{}.ffn_norm.weight", "model.layers.{}.pre_feedforward_layernorm.weight",
        [Embd], PostNorm, "The same where attention has a norm after it.";
    FFN_GATE = "blk.{}.ffn_gate.weight", "model.layers.{}.mlp.gate_proj.weight",
        [Embd, Ff], Always, "The gate of the feed-forward part.";
    FFN_GATE_BIAS = "blk.{}.ffn_gate.bias", "model.layers.{}.mlp.gate_proj.bias",
        [Ff], Optional, "Bias of the gate.";
    FFN_UP = "blk.{}.ffn_up.weight", "model.layers.{}.mlp.up_proj.weight",
        [Embd, Ff], Always, "Into the feed-forward part.";
    FFN_UP_BIAS = "blk.{}.ffn_up.bias", "model.layers.{}.mlp.up_proj.bias",
        [Ff], Optional, "Bias of up.";
    FFN_DOWN = "blk.{}.ffn_down.weight", "model.layers.{}.mlp.down_proj.weight",
        [Ff, Embd], Always, "Out of the feed-forward part.";
    FFN_DOWN_BIAS = "blk.{}.ffn_down.bias", "model.layers.{}.mlp.down_proj.bias",
        [Embd], Optional, "Bias of down.";
    FFN_POST_NORM = "blk.{}.post_ffw_norm.weight",
        "model.layers.{}.post_feedforward_layernorm.weight",
        [Embd], PostNorm, "Norm after the feed-forward part.";
    OUTPUT_NORM = "output_norm.weight", "model.norm.weight", [Embd], Always, "The last norm.";
    OUTPUT = "output.weight", "lm_head.weight", [Embd, Vocab], Optional,
        "The output; the embeddings where there is none.";
}

/// Tensors of a decoder that some checkpoints keep as one (those that follow Phi-3).
pub const DECODER_FUSED: &[Fused] = &[
    Fused { hub: "model.layers.{}.self_attn.qkv_proj.weight", parts: &[ATTN_Q, ATTN_K, ATTN_V] },
    Fused {
        hub: "model.layers.{}.self_attn.qkv_proj.bias",
        parts: &[ATTN_Q_BIAS, ATTN_K_BIAS, ATTN_V_BIAS],
    },
    Fused { hub: "model.layers.{}.mlp.gate_up_proj.weight", parts: &[FFN_GATE, FFN_UP] },
    Fused { hub: "model.layers.{}.mlp.gate_up_proj.bias", parts: &[FFN_GATE_BIAS, FFN_UP_BIAS] },
];

tensors! {
    BERT, "The tensors of BERT, in the order in which they are written.":
    BERT_TOKEN_EMBD = "token_embd.weight", "embeddings.word_embeddings.weight",
        [Embd, Vocab], Always, "Embeddings of the tokens.";
    BERT_POSITION_EMBD = "position_embd.weight", "embeddings.position_embeddings.weight",
        [Embd, Positions], Always, "Embeddings of the positions.";
    BERT_TOKEN_TYPES = "token_types.weight", "embeddings.token_type_embeddings.weight",
        [Embd, TokenTypes], Always, "Embeddings of the kinds of segments.";
    BERT_EMBD_NORM = "token_embd_norm.weight", "embeddings.LayerNorm.weight",
        [Embd], Always, "Norm of the embeddings.";
    BERT_EMBD_NORM_BIAS = "token_embd_norm.bias", "embeddings.LayerNorm.bias",
        [Embd], Always, "Its bias.";
    BERT_Q = "blk.{}.attn_q.weight", "encoder.layer.{}.attention.self.query.weight",
        [Embd, Queries], Always, "Queries.";
    BERT_Q_BIAS = "blk.{}.attn_q.bias", "encoder.layer.{}.attention.self.query.bias",
        [Queries], Always, "Bias of the queries.";
    BERT_K = "blk.{}.attn_k.weight", "encoder.layer.{}.attention.self.key.weight",
        [Embd, Keys], Always, "Keys.";
    BERT_K_BIAS = "blk.{}.attn_k.bias", "encoder.layer.{}.attention.self.key.bias",
        [Keys], Always, "Bias of the keys.";
    BERT_V = "blk.{}.attn_v.weight", "encoder.layer.{}.attention.self.value.weight",
        [Embd, Values], Always, "Values.";
    BERT_V_BIAS = "blk.{}.attn_v.bias", "encoder.layer.{}.attention.self.value.bias",
        [Values], Always, "Bias of the values.";
    BERT_ATTN_OUTPUT = "blk.{}.attn_output.weight",
        "encoder.layer.{}.attention.output.dense.weight",
        [Heads, Embd], Always, "Output of attention.";
    BERT_ATTN_OUTPUT_BIAS = "blk.{}.attn_output.bias",
        "encoder.layer.{}.attention.output.dense.bias",
        [Embd], Always, "Its bias.";
    BERT_ATTN_NORM = "blk.{}.attn_output_norm.weight",
        "encoder.layer.{}.attention.output.LayerNorm.weight",
        [Embd], Always, "Norm after attention.";
    BERT_ATTN_NORM_BIAS = "blk.{}.attn_output_norm.bias",
        "encoder.layer.{}.attention.output.LayerNorm.bias",
        [Embd], Always, "Its bias.";
    BERT_UP = "blk.{}.ffn_up.weight", "encoder.layer.{}.intermediate.dense.weight",
        [Embd, Ff], Always, "Into the feed-forward part.";
    BERT_UP_BIAS = "blk.{}.ffn_up.bias", "encoder.layer.{}.intermediate.dense.bias",
        [Ff], Always, "Its bias.";
    BERT_DOWN = "blk.{}.ffn_down.weight", "encoder.layer.{}.output.dense.weight",
        [Ff, Embd], Always, "Out of the feed-forward part.";
    BERT_DOWN_BIAS = "blk.{}.ffn_down.bias", "encoder.layer.{}.output.dense.bias",
        [Embd], Always, "Its bias.";
    BERT_OUTPUT_NORM = "blk.{}.layer_output_norm.weight",
        "encoder.layer.{}.output.LayerNorm.weight",
        [Embd], Always, "Norm after the feed-forward part.";
    BERT_OUTPUT_NORM_BIAS = "blk.{}.layer_output_norm.bias",
        "encoder.layer.{}.output.LayerNorm.bias",
        [Embd], Always, "Its bias.";
}
