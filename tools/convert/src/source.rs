//! What a GGUF file is made from.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use siskin::GgmlType;
use siskin::gguf::{Builder, GgufFile};

use crate::Result;

/// A tensor as the GGUF file will have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorDesc {
    /// Its name in GGUF files, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// In ggml's order: the length of a row comes first.
    pub shape: Vec<u64>,
    /// How the source holds its values; of several, the most exact (F32 before BF16).
    pub ty: GgmlType,
}

impl TensorDesc {
    /// Values in a row.
    pub fn cols(&self) -> usize {
        self.shape.first().map_or(1, |n| *n as usize)
    }

    /// Rows, over all further dimensions.
    pub fn rows(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }

    /// Values in all.
    pub fn n_values(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// What the choice of weight types depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `general.architecture`.
    pub arch: String,
    /// Layers.
    pub n_layer: usize,
    /// Heads of queries.
    pub n_head: usize,
    /// Heads of keys and values.
    pub n_head_kv: usize,
    /// Experts of a layer; 0 where there are none.
    pub n_expert: usize,
}

/// Something that has a model's metadata and tensors: a checkpoint's folder, or a GGUF file.
///
/// Tensors are numbered as [`tensors`](Source::tensors) lists them, which is the order in which they
/// are written.
pub trait Source: Sync {
    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// What the choice of types depends on.
    fn facts(&self) -> &Facts;

    /// The tensors.
    fn tensors(&self) -> &[TensorDesc];

    /// Adds all keys but `general.file_type` and `general.quantization_version`, which depend on
    /// the types chosen, and the keys that make a file a part of several (`split.*`).
    ///
    /// # Errors
    /// A value cannot be read, or cannot be written.
    fn metadata(&self, to: &mut Builder) -> Result<()>;

    /// Writes the values of some rows: `out` has room for exactly those. Several threads call this
    /// at once.
    ///
    /// Values are given as they are: that a NaN or an infinity is refused is the caller's doing.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn read(&self, tensor: usize, rows: Range<u64>, out: &mut [f32]) -> Result<()>;

    /// The bytes of some rows of a tensor that is quantized already, in the type that
    /// [`TensorDesc::ty`] names, little-endian; `None` where there are only values.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn raw(&self, _tensor: usize, _rows: Range<u64>) -> Result<Option<Cow<'_, [u8]>>> {
        Ok(None)
    }

    /// The GGUF file that this is, if it is one.
    fn file(&self) -> Option<&GgufFile> {
        None
    }

    /// Which part of a source in several parts the tensor is in, from 0.
    fn part(&self, _tensor: usize) -> usize {
        0
    }

    /// Told when a tensor has been read, so that its pages can be given back.
    fn done(&self, _tensor: usize) {}
}
