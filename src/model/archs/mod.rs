//! Architectures as data: one file each, one [`ArchSpec`] each.

use siskin_quant::ops::{Activation, RopeStyle};

mod gemma2;
mod gemma3;
mod llama;
mod qwen2;
mod qwen3;

/// What makes an architecture, as far as the shared decoder is concerned.
///
/// Optional parts that show in a file (biases, an output matrix of its own, rotary factors) are
/// taken from the file; what a file cannot say is here.
#[derive(Clone, Copy, Debug)]
pub struct ArchSpec {
    /// `general.architecture`, and the prefix of the file's keys.
    pub name: &'static str,
    /// How rotary embeddings pair dimensions.
    pub rope: RopeStyle,
    /// Queries and keys are normed per head.
    pub qk_norm: bool,
    /// The outputs of attention and feed-forward are normed before they are added.
    pub post_norm: bool,
    /// The gate's activation.
    pub activation: Activation,
    /// Embeddings are multiplied by the square root of their length.
    pub scale_embeddings: bool,
    /// Some layers see a window of positions only.
    pub window: Option<Window>,
    /// Score factor is `1 / sqrt(n_embd / n_head)`, not of the head's dimensions, for models of
    /// this many layers.
    pub embd_scaled_layers: Option<usize>,
    /// Scores are capped at this, if the file does not say otherwise.
    pub attn_softcap: Option<f32>,
    /// Logits are capped at this, if the file does not say otherwise.
    pub logit_softcap: Option<f32>,
}

/// Layers with a sliding window.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Every `period`th layer sees all positions, the others the window. A file's
    /// `attention.sliding_window_pattern` goes before.
    pub period: usize,
    /// Positions, if the file does not say.
    pub positions: Option<usize>,
    /// Base of the rotary angles in layers with a window, if the file does not say;
    /// `None`: as in the others.
    pub rope_base: Option<f32>,
}

/// Every architecture that the decoder runs.
pub const ARCHS: &[&ArchSpec] =
    &[&llama::LLAMA, &qwen2::QWEN2, &qwen3::QWEN3, &gemma2::GEMMA2, &gemma3::GEMMA3];

/// The architecture with this name.
pub fn find(name: &str) -> Option<&'static ArchSpec> {
    ARCHS.iter().copied().find(|a| a.name == name)
}
