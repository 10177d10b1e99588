//! Gemma 3: as Gemma 2, with normed queries and keys instead of capped scores, five layers with a
//! window to one without, and a smaller rotary base within the window.

use super::gemma2::GEMMA2;
use super::{ArchSpec, Window};

/// See the module.
pub const GEMMA3: ArchSpec = ArchSpec {
    name: "gemma3",
    qk_norm: true,
    window: Some(Window { period: 6, positions: None, rope_base: Some(10_000.0) }),
    // The 27B model.
    embd_scaled_layers: Some(62),
    attn_softcap: None,
    logit_softcap: None,
    ..GEMMA2
};
