//! Qwen 3: no biases; queries and keys are normed per head.

use super::ArchSpec;
use super::qwen2::QWEN2;

/// See the module.
pub const QWEN3: ArchSpec = ArchSpec { name: "qwen3", qk_norm: true, ..QWEN2 };
