//! What makes errors cancel, of each input of the weights while tensors that have it are quantized.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use siskin_quant::quantize::recode::Feedback;
use siskin_quant::table::KernelTable;

use crate::plan::{Plan, recodes};
use crate::{Imatrix, Result, TensorDesc};

/// Computed when the first tensor needs it, dropped after the last.
pub struct Feedbacks<'a> {
    imatrix: Option<&'a Imatrix>,
    /// The input of each tensor that is quantized with feedback.
    of_tensor: Vec<Option<usize>>,
    inputs: Vec<Mutex<Input<'a>>>,
}

/// An input of some tensors.
struct Input<'a> {
    /// The tensor by whose name the importance matrix has the sketch.
    name: &'a str,
    /// Tensors that are still to be quantized.
    left: usize,
    /// If it was computed, what there is.
    computed: Option<Option<Arc<Feedback>>>,
}

impl<'a> Feedbacks<'a> {
    /// For tensors that get other types by `plan`.
    pub fn new(
        tensors: &[TensorDesc],
        plan: &Plan,
        table: &KernelTable,
        imatrix: Option<&'a Imatrix>,
    ) -> Self {
        let mut inputs: Vec<Input<'a>> = Vec::new();
        let names = imatrix.map(Imatrix::sketch_names).unwrap_or_default();
        let mut index_of = BTreeMap::new();
        let mut input = |(tensor, ty): (&TensorDesc, _)| {
            if !recodes(tensor, ty, table) {
                return None;
            }
            let name = *names.get(tensor.name.as_str())?;
            let index = *index_of.entry(name).or_insert_with(|| {
                inputs.push(Input { name, left: 0, computed: None });
                inputs.len() - 1
            });
            inputs[index].left += 1;
            Some(index)
        };
        let of_tensor = tensors.iter().zip(plan.types.iter().copied()).map(&mut input).collect();
        let inputs = inputs.into_iter().map(Mutex::new).collect();
        Feedbacks { imatrix, of_tensor, inputs }
    }

    /// True if a tensor is quantized with feedback, unless too little is known for that.
    pub fn wanted(&self, tensor: usize) -> bool {
        self.of_tensor.get(tensor).is_some_and(Option::is_some)
    }

    /// What belongs to a tensor. Whoever asks first computes it, others wait.
    ///
    /// # Errors
    /// See [`Imatrix::feedback`].
    pub fn of(&self, tensor: usize) -> Result<Option<Arc<Feedback>>> {
        let (Some(mut input), Some(imatrix)) = (self.input(tensor), self.imatrix) else {
            return Ok(None);
        };
        if let Some(feedback) = &input.computed {
            return Ok(feedback.clone());
        }
        let feedback = imatrix.feedback(input.name)?.map(Arc::new);
        input.computed = Some(feedback.clone());
        Ok(feedback)
    }

    /// A tensor is quantized.
    pub fn done(&self, tensor: usize) {
        if let Some(mut input) = self.input(tensor) {
            input.left -= 1;
            if input.left == 0 {
                input.computed = None;
            }
        }
    }

    fn input(&self, tensor: usize) -> Option<MutexGuard<'_, Input<'a>>> {
        let index = (*self.of_tensor.get(tensor)?)?;
        Some(self.inputs[index].lock().unwrap_or_else(PoisonError::into_inner))
    }
}
