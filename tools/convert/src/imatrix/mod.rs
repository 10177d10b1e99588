//! Importance matrices: how strongly each column of a matrix of weights is used, by which quantizers
//! weigh their errors.
//!
//! The numbers are those of llama.cpp's `imatrix` tool: for each tensor, the sums over the tokens of
//! a text of the squares of what its columns were multiplied with, and how many tokens that were.

mod file;
mod sketch;
mod statistics;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siskin::model::InputSums;
use siskin_quant::quantize::recode::Feedback;

use sketch::Sketch;
pub use statistics::Statistics;

use crate::{Error, Result, TensorDesc, mix};

/// Tokens of a chunk where a file does not say: llama.cpp's default.
pub const DEFAULT_CHUNK_SIZE: u32 = 512;

/// What is known of one tensor. All sums are finite and none is negative.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    sums: Vec<f32>,
    /// At least one; as many as divide the sums.
    counts: Vec<u64>,
    /// How the columns are used together, where that was collected.
    sketch: Option<Sketch>,
}

impl Entry {
    /// Checks the numbers. The error is only the reason.
    fn new(sums: Vec<f32>, counts: Vec<u64>) -> Result<Entry, String> {
        let (n, matrices) = (sums.len(), counts.len());
        if n == 0 || matrices == 0 || !n.is_multiple_of(matrices) {
            return Err(format!("{n} sums of {matrices} matrices: no whole rows"));
        }
        match sums.iter().position(|x| !x.is_finite() || *x < 0.0) {
            Some(at) => Err(format!("sum {at} is {}, not the sum of squares", sums[at])),
            None => Ok(Entry { sums, counts, sketch: None }),
        }
    }

    /// The sums of squares: of each column, of one matrix (expert) after the other.
    pub fn sums(&self) -> &[f32] {
        &self.sums
    }

    /// The tokens of each matrix (expert).
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The mean squares, laid out as the sums: 1 where no token came by, as in llama.cpp.
    pub fn means(&self) -> Vec<f32> {
        let rows = self.sums.chunks_exact(self.sums.len() / self.counts.len());
        let means = rows.zip(&self.counts).flat_map(|(row, count)| {
            row.iter().map(|sum| if *count == 0 { 1.0 } else { sum / *count as f32 })
        });
        means.collect()
    }

    /// True if there is a sketch of how the columns are used together.
    pub fn has_sketch(&self) -> bool {
        self.sketch.is_some()
    }

    /// True if there is one of enough text to be of use.
    fn has_sketch_of_enough(&self) -> bool {
        self.has_sketch() && self.counts[0] >= sketch::MIN_TOKENS
    }

    /// True if both are of the same input, as far as the numbers tell.
    fn same_input(&self, other: &Entry) -> bool {
        self.counts == other.counts && self.sums == other.sums
    }

    /// The same for entries of the same input.
    fn input_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.counts.hash(&mut hasher);
        // Zero is equal to minus zero.
        self.sums.iter().for_each(|sum| (sum + 0.0).to_bits().hash(&mut hasher));
        hasher.finish()
    }

    /// Adds another's, but not its sketch. One count stands for all matrices where the other has
    /// more.
    fn add(&mut self, other: &Entry) -> Result<(), String> {
        let (a, b) = (self.sums.len(), other.sums.len());
        if a != b {
            return Err(format!("there are {b} sums, but {a} in what it is added to"));
        }
        let (a, b) = (self.counts.len(), other.counts.len());
        if a != b && a != 1 && b != 1 {
            return Err(format!("there are {b} counts, but {a} in what it is added to"));
        }
        let sums = self.sums.iter().zip(&other.sums).map(|(a, b)| a + b).collect();
        let n = a.max(b);
        let all = |counts: &[u64]| counts.iter().copied().cycle().take(n).collect::<Vec<_>>();
        let counts = all(&self.counts).into_iter().zip(all(&other.counts));
        *self = Entry::new(sums, counts.map(|(a, b)| a.saturating_add(b)).collect())?;
        Ok(())
    }
}

/// An importance matrix: what a file of llama.cpp's holds.
///
/// ```no_run
/// use siskin_convert::Imatrix;
///
/// # fn main() -> siskin_convert::Result<()> {
/// let imatrix = Imatrix::open("imatrix.gguf")?;
/// if let Some(weights) = imatrix.importance("blk.0.ffn_down.weight", 1536)? {
///     println!("the first column's: {}", weights[0]);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Imatrix {
    path: PathBuf,
    /// The files that the text came from.
    pub datasets: Vec<String>,
    chunk_size: u32,
    entries: BTreeMap<String, Entry>,
}

impl Imatrix {
    /// One without entries, collected from chunks of `chunk_size` tokens. `path` is for messages.
    pub fn new(path: impl Into<PathBuf>, chunk_size: u32) -> Imatrix {
        let entries = BTreeMap::new();
        Imatrix { path: path.into(), datasets: Vec::new(), chunk_size, entries }
    }

    /// Where it is from, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tokens of a chunk; at least 1.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size.max(1)
    }

    /// How many chunks were seen, as llama.cpp counts them: by the entry with the most tokens.
    pub fn chunk_count(&self) -> u32 {
        let most = self.entries.values().flat_map(|e| &e.counts).max().copied().unwrap_or(0);
        u32::try_from(most / u64::from(self.chunk_size())).unwrap_or(u32::MAX)
    }

    /// The entries, in the order of their names, which are those of the tensors.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The mean squares of the columns of tensor `name`; `None` if nothing is known of it. `cols` is
    /// how many there must be: the length of the tensor's rows, and of stacked experts of all their
    /// rows, times their number. None is negative or NaN, and all can be 0.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there are more or fewer.
    pub fn importance(&self, name: &str, cols: usize) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        if entry.sums.len() != cols {
            let n = entry.sums.len();
            let reason = format!("the importance matrix has {n} columns, the model {cols}");
            return Err(self.wrong(name, reason));
        }
        Ok(Some(entry.means()))
    }

    /// The mean squares of the columns of each tensor, of stacked experts of all their columns;
    /// `None` for a tensor of which nothing is known.
    ///
    /// # Errors
    /// As [`importance`](Self::importance).
    pub fn importance_of(&self, tensors: &[TensorDesc]) -> Result<Vec<Option<Vec<f32>>>> {
        let experts = |t: &TensorDesc| t.shape.get(2).copied().unwrap_or(1) as usize;
        let of = |t: &TensorDesc| self.importance(&t.name, t.cols() * experts(t));
        tensors.iter().map(of).collect()
    }

    /// Refuses a matrix that cannot be of a model with these tensors.
    ///
    /// # Errors
    /// It knows none of the tensors' matrices, or has more or fewer columns than one.
    pub fn check(&self, tensors: &[TensorDesc]) -> Result<()> {
        let known = self.importance_of(tensors)?;
        let mut of_matrices = tensors.iter().zip(&known).filter(|(t, _)| mix::is_quantized(t));
        if of_matrices.any(|(_, found)| found.is_some()) { Ok(()) } else { Err(self.of_another()) }
    }

    /// The error for a matrix that knows nothing of what it is asked.
    pub(crate) fn of_another(&self) -> Error {
        let reason = "it knows none of the tensors to quantize: it is of another model";
        Error::file(&self.path, reason)
    }

    /// What makes a quantizer let errors cancel, for tensor `name`; `None` if there is no sketch of
    /// its input, or too little text for one.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the sketch does not fit the sums, or is not of numbers.
    pub fn feedback(&self, name: &str) -> Result<Option<Feedback>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let (Some(sketch), [tokens]) = (&entry.sketch, &entry.counts[..]) else { return Ok(None) };
        sketch.feedback(&entry.sums, *tokens).map_err(|reason| self.wrong(name, reason))
    }

    /// How many tensors there are of whose input there is a sketch of enough text.
    pub fn n_sketched(&self) -> usize {
        self.entries.values().filter(|e| e.has_sketch_of_enough()).count()
    }

    /// True if this tensor is one of them.
    pub fn has_sketch_of(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(Entry::has_sketch_of_enough)
    }

    /// Forgets which columns are used together.
    pub fn drop_sketches(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.sketch = None);
    }

    /// Of each tensor with a sketch, the first by name of those with the same input.
    pub(crate) fn sketch_names(&self) -> BTreeMap<&str, &str> {
        let mut inputs: HashMap<u64, Vec<(&str, &Entry)>> = HashMap::new();
        let mut names = BTreeMap::new();
        for (name, entry) in self.entries().filter(|(_, entry)| entry.has_sketch()) {
            let alike = inputs.entry(entry.input_hash()).or_default();
            let first = alike.iter().find(|(_, other)| other.same_input(entry));
            let first = first.map_or(name, |(first, _)| first);
            if first == name {
                alike.push((name, entry));
            }
            names.insert(name, first);
        }
        names
    }

    /// Adds what a session collected.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a sum that is infinite or NaN, or does not fit what is there.
    pub fn add_collected(&mut self, inputs: impl IntoIterator<Item = InputSums>) -> Result<()> {
        let mut collected = Imatrix::new(&self.path, self.chunk_size);
        for InputSums { tensors, sums, sketch, tokens } in inputs {
            let sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
            let sketch = (!sketch.is_empty()).then(|| Sketch::Held(Arc::new(sketch)));
            for name in &tensors {
                let sketch = sketch.clone();
                collected.add_entry(name, sums.clone(), vec![tokens], sketch)?;
            }
        }
        self.merge(&collected)
    }

    /// Adds the sums, counts and datasets of another, and its sketches: a tensor keeps one if both
    /// have one.
    ///
    /// # Errors
    /// [`Error::Tensor`], with the other's path, for an entry that does not fit what is there.
    pub fn merge(&mut self, other: &Imatrix) -> Result<()> {
        // What tensors of the same input have in common is added once.
        let mut added: Vec<[Sketch; 3]> = Vec::new();
        for (name, entry) in &other.entries {
            let Some(own) = self.entries.get_mut(name) else {
                self.entries.insert(name.clone(), entry.clone());
                continue;
            };
            let wrong = |reason| other.wrong(name, reason);
            let sketches = own.sketch.take().zip(entry.sketch.as_ref());
            own.add(entry).map_err(wrong)?;
            if let Some((a, b)) = sketches {
                let known = added.iter().find(|[x, y, _]| x.is(&a) && y.is(b));
                own.sketch = Some(match known {
                    Some([.., sum]) => sum.clone(),
                    None => {
                        let sum = a.add(b).map_err(wrong)?;
                        added.push([a, b.clone(), sum.clone()]);
                        sum
                    }
                });
            }
        }
        self.datasets.extend_from_slice(&other.datasets);
        Ok(())
    }

    fn add_entry(
        &mut self,
        name: &str,
        sums: Vec<f32>,
        counts: Vec<u64>,
        sketch: Option<Sketch>,
    ) -> Result<()> {
        let entry = Entry::new(sums, counts).map_err(|reason| self.wrong(name, reason))?;
        if self.entries.insert(name.to_string(), Entry { sketch, ..entry }).is_some() {
            return Err(self.wrong(name, "it is there twice"));
        }
        Ok(())
    }

    fn wrong(&self, name: &str, reason: impl Into<String>) -> Error {
        Error::tensor(&self.path, name, reason)
    }
}
