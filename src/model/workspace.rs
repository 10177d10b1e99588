//! The buffers of a forward pass, allocated once.

use siskin_quant::Act;
use siskin_quant::act::{Activations, Sums};
use siskin_quant::par::Team;
use siskin_quant::table::KernelTable;

use super::plan::{SessionShape, Sizes, acts_used};
use super::rope::{Angles, Frequencies};
use super::weights::Weight;
use super::{Hparams, Weights};
use crate::{Result, memory};

/// Activations quantized for the weights that are multiplied with them.
pub(crate) struct Inputs([Option<Activations>; 2]);

fn index(act: Act) -> usize {
    match act {
        Act::F32 | Act::None => 0,
        Act::Q8 => 1,
    }
}

impl Inputs {
    /// Quantizes `x`, rows of the weights' columns, in each way that one of `weights` needs.
    /// `make(row, values)` finishes each row before.
    pub fn prepare(
        &mut self,
        team: &mut Team<'_>,
        table: &KernelTable,
        weights: &[&Weight],
        x: &mut [f32],
        make: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let mut made = false;
        for (i, slot) in self.0.iter_mut().enumerate() {
            let needed = weights.iter().filter(|w| index(w.act()) == i);
            let kernels = needed.clone().filter_map(|w| table.get(w.matrix().ty()));
            let sums = kernels.fold(Sums::NONE, |sums, kernels| sums.with(kernels.sums));
            if let (Some(weight), Some(slot)) = (needed.clone().next(), slot) {
                slot.set_sums(sums);
                if made {
                    slot.quantize(team, table, weight.cols(), x);
                } else {
                    slot.make_and_quantize(team, table, weight.cols(), x, &make);
                    made = true;
                }
            }
        }
    }

    /// What `weight` is multiplied with.
    pub fn of(&self, weight: &Weight) -> &Activations {
        self.0[index(weight.act())].as_ref().expect("made for every kind that the model has")
    }
}

/// See the module.
pub(crate) struct Workspace {
    pub x: Vec<f32>,
    pub part: Vec<f32>,
    pub input: Vec<f32>,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub gate: Vec<f32>,
    pub up: Vec<f32>,
    pub partial: Vec<f32>,
    pub logits: Vec<f32>,
    pub inputs: Inputs,
    pub angles: Angles,
    pub angles_window: Angles,
    pub frequencies: Frequencies,
    pub frequencies_window: Frequencies,
}

impl Workspace {
    /// Allocates; pages are touched as they are used.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory)
    pub fn new(h: &Hparams, weights: &Weights, shape: &SessionShape) -> Result<Workspace> {
        let s = Sizes::new(h, shape);
        let mut inputs = [None, None];
        for act in acts_used(weights) {
            inputs[index(act)] = Some(Activations::with_capacity(act, s.widest, shape.n_batch)?);
        }
        // Llama 3's factors belong to its only kind of layer.
        let factors = weights.rope_factors.as_deref();
        Ok(Workspace {
            x: memory::zeros(s.x)?,
            part: memory::zeros(s.x)?,
            input: memory::zeros(s.input)?,
            q: memory::zeros(s.q)?,
            k: memory::zeros(s.k)?,
            v: memory::zeros(s.v)?,
            gate: memory::zeros(s.ff)?,
            up: memory::zeros(s.ff)?,
            partial: memory::zeros(s.partial)?,
            logits: memory::zeros(s.logits)?,
            inputs: Inputs(inputs),
            angles: Angles::new(h.n_rot, shape.n_batch)?,
            angles_window: Angles::new(h.n_rot, shape.n_batch)?,
            frequencies: Frequencies::new(h.rope, h.n_rot, factors),
            frequencies_window: Frequencies::new(h.rope_window, h.n_rot, factors),
        })
    }
}
