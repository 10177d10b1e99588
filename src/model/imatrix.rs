//! What an importance matrix is made of: the squares of what the weights are multiplied with.

use siskin_quant::par::Team;

use super::weights::{Weight, Weights};
use crate::{Result, memory};

/// What some weights, which have one input in common, were multiplied with.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSums {
    /// The weights' names in the file, such as `blk.0.attn_q.weight`.
    pub tensors: Vec<String>,
    /// For each column of the weights, the sum over the tokens of the input's square. The inputs
    /// are those before activations are quantized. Squares of f32 are exact in f64, and they are
    /// added in the order of the tokens: neither threads nor batches change a bit.
    pub sums: Vec<f64>,
    /// How many tokens that is.
    pub tokens: u64,
}

/// The inputs of a layer's weights, in the order in which they are computed.
#[derive(Clone, Copy)]
pub(crate) enum Input {
    /// Of queries, keys and values.
    Attn,
    AttnOutput,
    /// Of gate and up.
    Ffn,
    Down,
}

/// Inputs of a layer.
const PER_LAYER: usize = 4;

/// Columns that a thread sums at a time: a few cache lines of each token.
const COLUMNS: usize = 128;

/// Sums them up. Layer by layer, the output matrix last.
pub(crate) struct Collector {
    inputs: Vec<InputSums>,
    output: bool,
}

impl Collector {
    /// Without sums. `output`: with the output matrix too.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory)
    pub fn new(weights: &Weights, output: bool) -> Result<Collector> {
        let layers = weights.layers.iter().flat_map(|l| {
            let inputs: [&[&Weight]; PER_LAYER] =
                [&[&l.q, &l.k, &l.v], &[&l.attn_output], &[&l.gate, &l.up], &[&l.down]];
            inputs.map(input_sums)
        });
        let output_sums = output.then(|| input_sums(&[&weights.output]));
        let inputs = layers.chain(output_sums).collect::<Result<_>>()?;
        Ok(Collector { inputs, output })
    }

    /// Adds `x`, an input of layer `l`: rows of the weights' columns.
    pub fn add(&mut self, team: &mut Team<'_>, l: usize, input: Input, x: &[f32]) {
        if let Some(sums) = self.inputs.get_mut(PER_LAYER * l + input as usize) {
            sums.add(team, x);
        }
    }

    /// Adds an input of the output matrix, if that is wanted.
    pub fn add_output(&mut self, team: &mut Team<'_>, x: &[f32]) {
        if self.output
            && let Some(sums) = self.inputs.last_mut()
        {
            sums.add(team, x);
        }
    }

    /// The sums of all inputs.
    pub fn finish(self) -> Vec<InputSums> {
        self.inputs
    }
}

fn input_sums(weights: &[&Weight]) -> Result<InputSums> {
    let tensors = weights.iter().map(|w| w.name().to_string()).collect();
    let cols = weights.first().map_or(0, |w| w.cols());
    Ok(InputSums { tensors, sums: memory::zeros(cols)?, tokens: 0 })
}

impl InputSums {
    fn add(&mut self, team: &mut Team<'_>, x: &[f32]) {
        let cols = self.sums.len();
        let rows = x.chunks_exact(cols);
        self.tokens += rows.len() as u64;
        team.for_chunks(&mut self.sums, COLUMNS, |i, sums, _| {
            for row in rows.clone() {
                for (sum, x) in sums.iter_mut().zip(&row[i * COLUMNS..]) {
                    let x = f64::from(*x);
                    *sum += x * x;
                }
            }
        });
    }
}
