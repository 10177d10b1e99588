//! Qwen 2 and 2.5: llama with halves for rotary pairs and biases on queries, keys and values.

use siskin_quant::ops::RopeStyle;

use super::ArchSpec;
use super::llama::LLAMA;

/// See the module.
pub const QWEN2: ArchSpec = ArchSpec { name: "qwen2", rope: RopeStyle::Neox, ..LLAMA };
