//! Siskin runs quantized GGUF language models on the CPU.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod error;
pub mod sampler;

pub use error::{Error, Result};
pub use siskin_quant::GgmlType;
