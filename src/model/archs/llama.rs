//! Llama and what follows it to the letter: Mistral, SmolLM, Llama 2 and 3 (whose rotary factors
//! come with the file as `rope_freqs.weight`).

use siskin_quant::ops::{Activation, RopeStyle};

use super::ArchSpec;

/// See the module.
pub const LLAMA: ArchSpec = ArchSpec {
    name: "llama",
    rope: RopeStyle::Norm,
    qk_norm: false,
    post_norm: false,
    activation: Activation::Silu,
    scale_embeddings: false,
    window: None,
    embd_scaled_layers: None,
    attn_softcap: None,
    logit_softcap: None,
};
