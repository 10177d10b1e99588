//! From a checkpoint, or a GGUF file, to a GGUF file of other weight types.
//!
//! What is read is a [`Source`]: tensors under the names and in the shapes that the GGUF file will
//! have, whose values come in slices of rows. What is written appears at its path when it is whole.
#![deny(unsafe_code)]

pub mod budget;
pub mod calibrate;
pub mod checkpoint;
pub mod compare;
mod error;
mod feedbacks;
mod file_type;
mod gguf_source;
pub mod imatrix;
pub mod mix;
pub mod plan;
mod problems;
pub mod source;
pub mod write;

pub use checkpoint::{Checkpoint, ConvertOptions};
pub use error::{Error, Result};
pub use file_type::{FILE_TYPES, FileType};
pub use gguf_source::GgufSource;
pub use imatrix::Imatrix;
pub use plan::{Plan, PlanOptions, TensorRule};
pub use source::{Facts, Source, TensorDesc};
pub use write::{Key, Progress, WriteOptions, Written};
