//! What an importance matrix is made of: the squares of what the weights are multiplied with.

use siskin_quant::par::Team;
use siskin_quant::quantize::recode::RANK;

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
    /// If asked for, a sketch of how the columns are used together: the matrix of the sums over the
    /// tokens of the products of two columns' inputs, times one of random signs (see
    /// [`sketch_signs`]). [`SKETCH`] numbers for each column; empty otherwise. Single precision, in
    /// the order of the tokens.
    pub sketch: Vec<[f32; SKETCH]>,
    /// How many tokens that is.
    pub tokens: u64,
}

/// Numbers for each column in a sketch.
pub const SKETCH: usize = RANK;

/// The signs that a sketch of a matrix is made with, of one of its columns: the bits of the column's
/// number mixed by SplitMix64 (Steele et al., 2014), the lowest first; a bit that is set is a minus.
pub fn sketch_signs(column: usize) -> [f32; SKETCH] {
    let mut z = (column as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    std::array::from_fn(|i| if z >> i & 1 == 1 { -1.0 } else { 1.0 })
}

/// What is collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImatrixOptions {
    /// The inputs of the output matrix too, of the tokens whose logits are computed.
    pub output: bool,
    /// A sketch of each input too.
    pub sketch: bool,
    /// Gives the memory of a matrix's pages back each time it was multiplied: for those who read a text
    /// once and want no more of the file in memory than what is at work.
    pub forget: bool,
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
    /// Pages are given back after each use.
    pub forget: bool,
    /// The signs of all columns that there are; empty without sketches.
    signs: Vec<[f32; SKETCH]>,
    /// The sums of a batch's inputs with those signs, a row for each token.
    projected: Vec<[f32; SKETCH]>,
}

impl Collector {
    /// Without sums. `batch`: how many tokens are added at a time, at most.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory)
    pub fn new(weights: &Weights, options: ImatrixOptions, batch: usize) -> Result<Collector> {
        let ImatrixOptions { output, sketch, forget } = options;
        let layers = weights.layers.iter().flat_map(|l| {
            let inputs: [&[&Weight]; PER_LAYER] =
                [&[&l.q, &l.k, &l.v], &[&l.attn_output], &[&l.gate, &l.up], &[&l.down]];
            inputs.map(|weights| input_sums(weights, sketch))
        });
        let output_sums = output.then(|| input_sums(&[&weights.output], sketch));
        let inputs = layers.chain(output_sums).collect::<Result<Vec<_>>>()?;
        let (mut signs, mut projected) = (Vec::new(), Vec::new());
        if sketch {
            let columns = inputs.iter().map(|input| input.sums.len()).max().unwrap_or(0);
            signs = memory::reserved(columns)?;
            signs.extend((0..columns).map(sketch_signs));
            projected = memory::zeros(batch)?;
        }
        Ok(Collector { inputs, output, forget, signs, projected })
    }

    /// Adds `x`, an input of layer `l`: rows of the weights' columns.
    pub fn add(&mut self, team: &mut Team<'_>, l: usize, input: Input, x: &[f32]) {
        self.add_to(PER_LAYER * l + input as usize, team, x);
    }

    /// Adds an input of the output matrix, if that is wanted.
    pub fn add_output(&mut self, team: &mut Team<'_>, x: &[f32]) {
        if self.output {
            self.add_to(self.inputs.len() - 1, team, x);
        }
    }

    fn add_to(&mut self, index: usize, team: &mut Team<'_>, x: &[f32]) {
        let Some(input) = self.inputs.get_mut(index) else { return };
        input.add(team, x);
        if self.signs.is_empty() {
            return;
        }
        let cols = input.sums.len();
        for x in x.chunks(self.projected.len() * cols) {
            let projected = &mut self.projected[..x.len() / cols];
            team.for_chunks(projected, 1, |token, sums, _| {
                let x = &x[token * cols..][..cols];
                sums.fill([0.0; SKETCH]);
                sums.iter_mut().for_each(|sum| add_products(sum, x.iter(), &self.signs));
            });
            team.for_chunks(&mut input.sketch, SKETCH_COLUMNS, |i, sketch, _| {
                for (sum, column) in sketch.iter_mut().zip(i * SKETCH_COLUMNS..) {
                    add_products(sum, x[column..].iter().step_by(cols), projected);
                }
            });
        }
    }

    /// The sums of all inputs.
    pub fn finish(self) -> Vec<InputSums> {
        self.inputs
    }
}

/// Columns of a sketch that a thread sums at a time.
const SKETCH_COLUMNS: usize = 16;

/// Adds numbers times rows to a row, one after the other.
fn add_products<'a>(
    sum: &mut [f32; SKETCH],
    x: impl Iterator<Item = &'a f32> + Clone,
    rows: &[[f32; SKETCH]],
) {
    // As many sums as fit the registers.
    const PART: usize = 32;
    for (part, sum) in sum.as_chunks_mut::<PART>().0.iter_mut().enumerate() {
        let mut acc = *sum;
        for (x, row) in x.clone().zip(rows) {
            for (acc, y) in acc.iter_mut().zip(&row[part * PART..]) {
                *acc += x * y;
            }
        }
        *sum = acc;
    }
}

fn input_sums(weights: &[&Weight], sketch: bool) -> Result<InputSums> {
    let tensors = weights.iter().map(|w| w.name().to_string()).collect();
    let cols = weights.first().map_or(0, |w| w.cols());
    let sketch = memory::zeros(if sketch { cols } else { 0 })?;
    Ok(InputSums { tensors, sums: memory::zeros(cols)?, sketch, tokens: 0 })
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
