//! ggml weight formats and the kernels that compute with them.
//!
//! A leaf crate: it knows no files and no models. [`types`] names the formats, [`formats`] holds
//! one file for each, [`table`] the kernels of an instruction set level, [`quantize`] the searches
//! that make blocks, [`matmul`] and [`attention`] are the safe entries to the products, [`par`] the threads, [`buffer`] the memory.
#![warn(missing_docs)]

pub mod act;
mod arch;
pub mod attention;
pub mod buffer;
pub mod features;
pub mod float;
pub mod formats;
pub mod generic;
pub mod lanes;
pub mod limits;
pub mod matmul;
pub mod ops;
pub mod par;
pub mod quantize;
pub mod simd;
pub mod table;
pub mod types;

pub use types::{Act, GgmlType};
