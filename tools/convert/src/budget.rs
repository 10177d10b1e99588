//! The best types that a size allows.
//!
//! Quantizing a tensor adds noise to what it computes. For each tensor and each type that it could
//! get, the share of noise is measured: rows spread over the tensor are quantized, and the squared
//! error, each column weighted by the importance matrix where there is one, is taken relative to
//! the squares of the weights; where its sketch says which columns are used together, it is the
//! error of their products, with the codes that let errors cancel. What a share of noise does to the
//! model's predictions differs from tensor to tensor: [`sensitivity`] says how much, per role, from
//! measurements. Noise of different tensors adds up, as independent small errors do, so the expected
//! divergence of a choice is
//!
//! ```text
//! sum over tensors of sensitivity(tensor) * noise(tensor, type)
//! ```
//!
//! and every tensor starts with its smallest type; then, again and again, the step to a larger type
//! is taken that saves the most divergence for each byte, until no step fits.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use siskin::GgmlType;
use siskin_quant::formats;
use siskin_quant::quantize::recode::Feedback;
use siskin_quant::table::KernelTable;

use crate::mix::{self, Role};
use crate::plan::{Plan, n_bytes};
use crate::write::{self, ALIGNMENT, Key};
use crate::{Error, FileType, Imatrix, Result, Source, TensorDesc};

/// The types that a tensor can get, besides its own, where its rows are whole blocks of them: those
/// with fast kernels.
pub const TYPES: [GgmlType; 11] = [
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::IQ4_XS,
    GgmlType::IQ4_NL,
    GgmlType::Q4_K,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_K,
    GgmlType::Q5_1,
    GgmlType::Q6_K,
    GgmlType::Q8_0,
];

/// Values of a tensor that are quantized to measure a type, about.
const SAMPLE: usize = 128 * 1024;

/// How large the file may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// Bytes of the whole file.
    Bytes(u64),
    /// Bits for each weight, on average.
    BitsPerWeight(f64),
}

/// What a tensor was given, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The type.
    pub ty: GgmlType,
    /// The share of noise in what the tensor computes: its relative squared error.
    pub noise: f64,
    /// What it is taken to add to the mean divergence of the model's predictions, in nats.
    pub divergence: f64,
}

/// A type that a tensor could get.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    ty: GgmlType,
    bytes: u64,
    noise: f64,
}

/// The divergence, in nats, for a share of noise of 1 in one tensor of a model of `n_layer` layers;
/// `tied`: the embeddings are the output matrix.
///
/// Measured by tools/peers/sensitivity.py with SmolLM2 135M (30 layers, tied): a role at a time, in a
/// third of the layers, was quantized to Q4_0, and the divergence from the original divided by the
/// noise; the means of the thirds. Untied matrices, and roles that the model has not, are guesses
/// between these. Models differ: the figures order the roles, they do not predict a divergence.
pub fn sensitivity(tensor: &TensorDesc, n_layer: usize, tied: bool) -> f64 {
    let of_layer = match Role::of(&tensor.name) {
        Role::Output => return 8.9,
        Role::TokenEmbd if tied => return 8.9,
        Role::TokenEmbd => return 2.0,
        Role::AttnQ => 2.5,
        Role::AttnK => 2.4,
        Role::AttnV | Role::AttnQkv => 11.6,
        Role::AttnOutput => 2.3,
        Role::FfnGate => 2.8,
        Role::FfnUp => 6.2,
        Role::FfnDown => 11.1,
        Role::Other => 5.0,
    };
    of_layer / n_layer.max(1) as f64
}

/// What is asked for, and what helps to choose.
#[derive(Clone, Copy, Debug)]
pub struct Budget<'a> {
    /// How large the file may be.
    pub size: Size,
    /// As in [`WriteOptions`](crate::WriteOptions).
    pub importance: &'a [Option<Vec<f32>>],
    /// As in [`WriteOptions`](crate::WriteOptions).
    pub sketches: Option<&'a Imatrix>,
    /// The keys that will be added: they count.
    pub keys: &'a [(String, Key)],
    /// As in [`WriteOptions`](crate::WriteOptions).
    pub threads: Option<usize>,
}

impl Budget<'_> {
    /// Chooses types for a size.
    ///
    /// `fixed` is a plan by whose types everything goes that is no matrix, or for which `free` says
    /// no: there a user has said what to take. `progress` is told how many tensors of how many are
    /// measured, from several threads, and ends the work with `false`.
    ///
    /// # Errors
    /// The source cannot be read, even the smallest types are too large, or [`Error::Cancelled`].
    pub fn choose(
        &self,
        source: &dyn Source,
        fixed: &Plan,
        free: &(dyn Fn(&TensorDesc) -> bool + Sync),
        table: &KernelTable,
        progress: &(dyn Fn(usize, usize) -> bool + Sync),
    ) -> Result<(Plan, Vec<Choice>)> {
        let tensors = source.tensors();
        let done = AtomicUsize::new(0);
        let one = |(i, tensor): (usize, &TensorDesc)| {
            if !progress(done.load(Ordering::Relaxed), tensors.len()) {
                return Err(Error::Cancelled);
            }
            let found = if mix::is_quantized(tensor) && free(tensor) {
                let importance = self.importance.get(i).and_then(Option::as_deref);
                let together = match self.sketches {
                    Some(imatrix) if tensor.shape.len() == 2 => Together::new(imatrix, tensor)?,
                    _ => None,
                };
                Sample::read(source, i, importance, together)?.candidates(table)?
            } else {
                let ty = fixed.types[i];
                vec![Candidate { ty, bytes: padded(tensor, ty), noise: 0.0 }]
            };
            source.done(i);
            done.fetch_add(1, Ordering::Relaxed);
            Ok(found)
        };
        let measured: Vec<Result<Vec<Candidate>>> = write::pool(self.threads)?
            .install(|| tensors.par_iter().enumerate().with_max_len(1).map(one).collect());
        let candidates = measured.into_iter().collect::<Result<Vec<_>>>()?;

        let tied = mix::tied(tensors);
        let n_layer = source.facts().n_layer;
        let weights: Vec<f64> = tensors.iter().map(|t| sensitivity(t, n_layer, tied)).collect();
        let room = match self.size {
            Size::Bytes(bytes) => bytes.saturating_sub(self.head_bytes(source, fixed)?),
            Size::BitsPerWeight(bits) => {
                let values: u64 = tensors.iter().map(TensorDesc::n_values).sum();
                (bits * values as f64 / 8.0) as u64
            }
        };
        let picks = fill(&candidates, &weights, room)?;
        let choice = |((pick, all), weight): ((&usize, &Vec<Candidate>), &f64)| {
            let Candidate { ty, noise, .. } = all[*pick];
            Choice { ty, noise, divergence: noise * weight }
        };
        let choices: Vec<Choice> =
            picks.iter().zip(&candidates).zip(&weights).map(choice).collect();
        let types: Vec<GgmlType> = choices.iter().map(|c| c.ty).collect();
        let file_type = most_used(tensors, &types).map_or(fixed.file_type, |t| t.number);
        Ok((Plan { types, file_type, notes: Vec::new() }, choices))
    }

    /// Bytes of a file before the data, which do not depend on the types.
    fn head_bytes(&self, source: &dyn Source, plan: &Plan) -> Result<u64> {
        let mut count = Count(0);
        let tensors = 0..source.tensors().len();
        write::declare(source, plan, self.keys, tensors, None)?.start(&mut count)?;
        Ok(count.0)
    }
}

/// Counts what is written.
struct Count(u64);

impl std::io::Write for &mut Count {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0 += data.len() as u64;
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The file type named after the type that most weights have.
fn most_used(tensors: &[TensorDesc], types: &[GgmlType]) -> Option<&'static FileType> {
    let values = |ty: GgmlType| -> u64 {
        let of = tensors.iter().zip(types).filter(|(_, t)| **t == ty);
        of.map(|(tensor, _)| tensor.n_values()).sum()
    };
    types.iter().copied().max_by_key(|ty| (values(*ty), *ty)).and_then(FileType::of_base)
}

/// Bytes of a tensor in a file.
fn padded(tensor: &TensorDesc, ty: GgmlType) -> u64 {
    n_bytes(tensor, ty).next_multiple_of(ALIGNMENT)
}

/// Rows spread over a tensor.
struct Sample<'a> {
    source: &'a dyn Source,
    tensor: &'a TensorDesc,
    /// The rows of each expert, whose columns have an importance of their own; of other tensors,
    /// all.
    parts: Vec<(Option<&'a [f32]>, Vec<f32>)>,
    together: Option<Together>,
}

/// How the columns of a tensor are used together.
struct Together {
    feedback: Feedback,
    /// Their mean squares by the same sketch, which need not be those by which they are weighed when
    /// they are quantized.
    means: Vec<f32>,
}

impl Together {
    fn new(sketches: &Imatrix, tensor: &TensorDesc) -> Result<Option<Together>> {
        let feedback = sketches.feedback(&tensor.name)?;
        let means = sketches.importance(&tensor.name, tensor.cols())?;
        Ok(feedback.zip(means).map(|(feedback, means)| Together { feedback, means }))
    }

    /// The mean square of the error of products, in the sum over rows.
    fn error(&self, values: &[f32], back: &[f32]) -> f64 {
        // Feedback is relative to the most important column.
        let most = f64::from(self.means.iter().fold(0.0f32, |max, x| max.max(*x)));
        let columns = self.feedback.columns();
        let of_row = |(values, back): (&[f32], &[f32])| {
            let off = |(a, b): (&f32, &f32)| f64::from(*a) - f64::from(*b);
            self.feedback.error(values.iter().zip(back).map(off))
        };
        most * values.chunks(columns).zip(back.chunks(columns)).map(of_row).sum::<f64>()
    }
}

impl<'a> Sample<'a> {
    fn read(
        source: &'a dyn Source,
        index: usize,
        importance: Option<&'a [f32]>,
        together: Option<Together>,
    ) -> Result<Sample<'a>> {
        let tensor = &source.tensors()[index];
        let (cols, rows) = (tensor.cols(), tensor.rows());
        let n = (SAMPLE / cols.max(1)).clamp(1, 4096).min(rows as usize) as u64;
        let mut parts: Vec<(Option<&[f32]>, Vec<f32>)> = Vec::new();
        let mut row = vec![0.0; cols];
        for at in (0..n).map(|i| i * rows / n) {
            source.read(index, at..at + 1, &mut row)?;
            write::check_finite(source, tensor, at, &row)?;
            let importance = write::importance_of_row(source, tensor, importance, at)?;
            let same = |part: &&mut (Option<&[f32]>, _)| {
                part.0.map(<[f32]>::as_ptr) == importance.map(<[f32]>::as_ptr)
            };
            match parts.last_mut().filter(same) {
                Some((_, values)) => values.extend_from_slice(&row),
                None => parts.push((importance, row.clone())),
            }
        }
        Ok(Sample { source, tensor, parts, together })
    }

    /// What each type would cost and lose, from small to large.
    fn candidates(&self, table: &KernelTable) -> Result<Vec<Candidate>> {
        let fits = |ty: &GgmlType| self.tensor.cols().is_multiple_of(ty.block_len());
        let types = TYPES.into_iter().filter(fits).chain([self.tensor.ty]);
        let candidate = |ty| {
            let noise = if ty == self.tensor.ty { 0.0 } else { self.noise(ty, table)? };
            Ok(Candidate { ty, bytes: padded(self.tensor, ty), noise })
        };
        Ok(worthwhile(types.map(candidate).collect::<Result<_>>()?))
    }

    /// The share of noise that quantizing to a type makes.
    fn noise(&self, ty: GgmlType, table: &KernelTable) -> Result<f64> {
        let wrong = |e: formats::RowError| {
            Error::tensor(self.source.path(), &self.tensor.name, e.to_string())
        };
        let (mut error, mut power) = (0.0, 0.0);
        for (importance, values) in &self.parts {
            let mut bytes = vec![0; ty.row_bytes(values.len()).unwrap_or(0)];
            let mut back = vec![0.0; values.len()];
            match &self.together {
                Some(Together { feedback, .. }) => {
                    table.quantize_with_feedback(ty, values, *importance, feedback, &mut bytes)
                }
                None => table.quantize(ty, values, *importance, &mut bytes),
            }
            .map_err(wrong)?;
            formats::dequantize_row(ty, &bytes, &mut back).map_err(wrong)?;
            let weights = self.together.as_ref().map(|t| &t.means[..]).or(*importance);
            for (i, (a, b)) in values.iter().zip(&back).enumerate() {
                let weight = weights.map_or(1.0, |all| f64::from(all[i % all.len()]));
                let (a, b) = (f64::from(*a), f64::from(*b));
                error += weight * (a - b) * (a - b);
                power += weight * a * a;
            }
            if let Some(together) = &self.together {
                error = together.error(values, &back);
            }
        }
        Ok(if power > 0.0 { error / power } else { 0.0 })
    }
}

/// From small to large, without those that are no better than a smaller one.
fn worthwhile(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.noise.total_cmp(&b.noise)));
    let mut least = f64::INFINITY;
    candidates.retain(|c| {
        let better = c.noise < least;
        least = least.min(c.noise);
        better
    });
    candidates
}

/// The candidate of each tensor, all of them within `room` bytes.
fn fill(candidates: &[Vec<Candidate>], weights: &[f64], room: u64) -> Result<Vec<usize>> {
    let mut picks = vec![0; candidates.len()];
    let mut bytes: u64 = candidates.iter().map(|all| all[0].bytes).sum();
    if bytes > room {
        return Err(Error::Invalid(format!(
            "the smallest types make {bytes} bytes of data, but the size leaves {room}"
        )));
    }
    loop {
        // Of each tensor the step that saves the most for each byte, of all tensors the best.
        let mut best: Option<(f64, usize, usize)> = None;
        for (i, all) in candidates.iter().enumerate() {
            let now = all[picks[i]];
            for (to, larger) in all.iter().enumerate().skip(picks[i] + 1) {
                let more = larger.bytes - now.bytes;
                if bytes + more > room {
                    break;
                }
                let gain = weights[i] * (now.noise - larger.noise) / more as f64;
                if best.is_none_or(|(most, ..)| gain > most) {
                    best = Some((gain, i, to));
                }
            }
        }
        let Some((_, i, to)) = best else { return Ok(picks) };
        bytes += candidates[i][to].bytes - candidates[i][picks[i]].bytes;
        picks[i] = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(bytes: u64, noise: f64) -> Candidate {
        Candidate { ty: GgmlType::Q8_0, bytes, noise }
    }

    #[test]
    fn bytes_go_where_they_save_the_most() {
        let tensor = vec![candidate(10, 0.08), candidate(20, 0.02), candidate(40, 0.01)];
        let all = vec![tensor.clone(), tensor];
        // The second tensor matters ten times as much.
        assert_eq!(fill(&all, &[1.0, 10.0], 30).expect("fits"), [0, 1]);
        assert_eq!(fill(&all, &[1.0, 10.0], 40).expect("fits"), [1, 1]);
        assert_eq!(fill(&all, &[1.0, 10.0], 60).expect("fits"), [1, 2]);
        assert_eq!(fill(&all, &[1.0, 10.0], 1000).expect("fits"), [2, 2]);
        assert!(fill(&all, &[1.0, 10.0], 19).is_err());
    }

    #[test]
    fn what_is_larger_and_no_better_is_left_out() {
        let kept = worthwhile(vec![candidate(20, 0.1), candidate(10, 0.1), candidate(30, 0.05)]);
        assert_eq!(kept.iter().map(|c| c.bytes).collect::<Vec<_>>(), [10, 30]);
    }
}
