//! Siskin runs quantized GGUF language models on the CPU.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod chat;
mod cores;
mod engine;
mod error;
mod generate;
pub mod gguf;
mod memory;
pub mod model;
pub mod sampler;
mod session;
pub mod tokenizer;

pub use engine::{Engine, EngineOptions, kernel_levels};
pub use error::{Error, Result};
pub use generate::{Finish, GenerateOptions, TextStream, Tokens};
pub use model::{Hparams, MemoryPlan, SessionShape};
pub use session::{CancelHandle, Session, SessionOptions};
pub use siskin_quant::GgmlType;
pub use siskin_quant::attention::KvType;
pub use tokenizer::{EncodeOptions, Tokenizer, TokenizerOptions};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
