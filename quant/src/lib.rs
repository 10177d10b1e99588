//! ggml weight formats and the kernels that compute with them.
//!
//! A leaf crate: it knows no files and no models. [`types`] names the formats, [`formats`] holds
//! one file for each.
#![warn(missing_docs)]

pub mod float;
pub mod formats;
pub mod types;

pub use types::GgmlType;
