//! Models: numbers and weights from a GGUF file, and the decoder that runs them.

pub mod archs;
mod decoder;
mod hparams;
mod imatrix;
mod kv_cache;
mod plan;
mod rope;
pub mod tensor_names;
mod weights;
mod workspace;

pub use hparams::{Hparams, Rope};
pub use imatrix::{ImatrixOptions, InputSums, SKETCH, sketch_signs};
pub use kv_cache::KvCache;
pub use plan::{MemoryPlan, SessionShape};
pub use weights::{Layer, Weight, Weights};

pub(crate) use decoder::Pass;
pub(crate) use imatrix::Collector;
pub(crate) use plan::LOGIT_ROWS;
pub(crate) use workspace::Workspace;

use crate::Result;
use crate::gguf::GgufFile;

/// A model: what a file says and holds. Never changes after loading.
pub struct Model {
    /// The numbers.
    pub hparams: Hparams,
    /// The tensors.
    pub weights: Weights,
}

impl Model {
    /// Finds and checks everything that the model needs; reads no weights.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) if the file does not describe a model that can be run.
    pub fn new(file: &GgufFile) -> Result<Model> {
        let hparams = Hparams::new(file)?;
        let weights = Weights::new(file, &hparams)?;
        Ok(Model { hparams, weights })
    }
}
