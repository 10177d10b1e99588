//! From a checkpoint, or a GGUF file, to a GGUF file of other weight types.
//!
//! What is read is a [`Source`]: tensors under the names and in the shapes that the GGUF file will
//! have, whose values come in slices of rows. What is written appears at its path when it is whole.
#![deny(unsafe_code)]

pub mod checkpoint;
mod error;
pub mod source;

pub use error::{Error, Result};
pub use source::{Facts, Source, TensorDesc};
