//! Gemma 2: norms before and after each part, GELU, capped scores and logits, every other layer
//! with a window. The converter has added 1 to the norms' weights.

use siskin_quant::ops::{Activation, RopeStyle};

use super::llama::LLAMA;
use super::{ArchSpec, Window};

/// See the module.
pub const GEMMA2: ArchSpec = ArchSpec {
    name: "gemma2",
    rope: RopeStyle::Neox,
    post_norm: true,
    activation: Activation::Gelu,
    scale_embeddings: true,
    window: Some(Window { period: 2, positions: Some(4096), rope_base: None }),
    // The 27B model.
    embd_scaled_layers: Some(46),
    attn_softcap: Some(50.0),
    logit_softcap: Some(30.0),
    ..LLAMA
};
