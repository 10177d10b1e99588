//! Which tensors the GGUF file has, and which rows of the checkpoint each is made of. All that is
//! missing, unknown or misshapen is reported at once.

use std::collections::HashMap;
use std::path::Path;

use siskin::model::tensor_names::{self as names, Sizes, Tensor};

use super::config::Config;
use super::families::{Family, Known};
use super::pieces::{Op, Order, Origin, Piece};
use super::read::{BlockScales, Reader, decode};
use super::rope::llama3_factors;
use super::safetensors::{Dtype, HubTensor, Shards};
use crate::{Error, Result, problems};

/// The factors of the blocks of an 8-bit tensor, by its name.
const SCALES: &str = "_scale_inv";

/// The tensors of the file to be made.
pub(super) struct Layout {
    /// Name, and shape in ggml's order.
    pub(super) tensors: Vec<(String, Vec<u64>)>,
    /// What each is made from.
    pub(super) origins: Vec<Origin>,
    pub(super) reader: Reader,
}

/// Finds tensors, and remembers what is wrong with them.
struct Finder<'a> {
    family: &'static Family,
    sizes: &'a Sizes,
    shards: &'a Shards,
    by_name: HashMap<String, usize>,
    used: Vec<bool>,
    problems: Vec<String>,
    tensors: Vec<(String, Vec<u64>)>,
    origins: Vec<Origin>,
}

impl Layout {
    /// The number of the checkpoint's tensor that goes by `name` or another name for the same.
    pub(super) fn lookup(family: &Family, shards: &Shards, name: &str) -> Option<usize> {
        let Known::Name(wanted) = family.canonical(name) else { return None };
        shards.index(name).or_else(|| {
            let same = |t: &HubTensor| match family.canonical(&t.name) {
                Known::Name(name) => name == wanted,
                _ => false,
            };
            shards.tensors.iter().position(same)
        })
    }

    pub(super) fn new(
        dir: &Path,
        shards: Shards,
        family: &'static Family,
        config: &Config,
        sizes: &Sizes,
        n_layer: usize,
        notes: &mut Vec<String>,
    ) -> Result<Layout> {
        let mut finder = Finder {
            family,
            sizes,
            shards: &shards,
            by_name: HashMap::new(),
            used: vec![false; shards.tensors.len()],
            problems: Vec::new(),
            tensors: Vec::new(),
            origins: Vec::new(),
        };
        let other_parts = finder.index();
        if other_parts > 0 {
            notes.push(format!(
                "{other_parts} tensors of other parts, such as vision, are left out"
            ));
        }
        let tied = config.bool_opt("tie_word_embeddings")?.unwrap_or(false);
        for tensor in family.tensors.iter().filter(|t| !t.layered()) {
            if *tensor == names::ROPE_FREQS {
                finder.rope(config)?;
            } else if *tensor == names::OUTPUT {
                finder.output(tied, notes);
            } else if *tensor != names::OUTPUT_NORM {
                finder.add(tensor, 0);
            }
        }
        for layer in 0..n_layer {
            for tensor in family.tensors.iter().filter(|t| t.layered()) {
                finder.add(tensor, layer);
            }
        }
        if family.tensors.contains(&names::OUTPUT_NORM) {
            finder.add(&names::OUTPUT_NORM, 0);
        }
        finder.unused();
        let scales = finder.scales(config)?;
        let Finder { problems, tensors, origins, .. } = finder;
        if !problems.is_empty() {
            return Err(Error::file(dir, format!("tensors: {}", problems::all(&problems))));
        }
        let reader = Reader { shards, deltas: HashMap::new(), scales };
        Ok(Layout { tensors, origins, reader })
    }
}

impl Finder<'_> {
    /// Fills `by_name`. Returns how many tensors are of parts that are not converted.
    fn index(&mut self) -> usize {
        let mut other_parts = 0;
        for (i, tensor) in self.shards.tensors.iter().enumerate() {
            let known = self.family.canonical(&tensor.name);
            other_parts += usize::from(matches!(known, Known::OtherPart));
            let Known::Name(name) = known else {
                self.used[i] = true;
                continue;
            };
            if let Some(other) = self.by_name.insert(name, i) {
                let other = &self.shards.tensors[other].name;
                self.problems.push(format!("{} and {other} are the same", tensor.name));
            }
        }
        other_parts
    }

    /// Marks a tensor as used if it has the rows and columns that are wanted.
    fn take(&mut self, index: usize, want: &[u64]) -> Option<()> {
        let tensor = self.shards.tensors.get(index)?;
        self.used[index] = true;
        if tensor.dtype.is_none() {
            let (name, ty) = (&tensor.name, &tensor.dtype_name);
            self.problems.push(format!("{name} is of type {ty}, which holds no weights"));
            return None;
        }
        if tensor.shape != want {
            let (name, shape) = (&tensor.name, &tensor.shape);
            self.problems.push(format!("{name} has shape {shape:?}, not {want:?}"));
            return None;
        }
        Some(())
    }

    /// The lengths of a tensor's dimensions in the checkpoint's order: rows come first.
    fn shape(&self, tensor: &Tensor) -> Vec<u64> {
        tensor.shape.iter().rev().map(|dim| self.sizes.get(*dim) as u64).collect()
    }

    /// The piece of the checkpoint that is a tensor; `None` if there is none or it is wrong.
    fn piece(&mut self, tensor: &Tensor, layer: usize) -> Option<Piece> {
        let name = tensor.hub_name(layer);
        let want = self.shape(tensor);
        if let Some(index) = self.by_name.get(&name).copied() {
            self.take(index, &want)?;
            return Some(Piece { tensor: index, rows: 0..want.first().copied()? });
        }
        for fused in self.family.fused {
            let whole = fused.hub.replace("{}", &layer.to_string());
            let (Some(at), Some(index)) = (
                fused.parts.iter().position(|part| part == tensor),
                self.by_name.get(&whole).copied(),
            ) else {
                continue;
            };
            let rows: Vec<u64> = fused
                .parts
                .iter()
                .map(|part| self.shape(part).first().copied().unwrap_or(0))
                .collect();
            let mut all = want.clone();
            *all.first_mut()? = rows.iter().sum();
            // The parts would each report the same.
            if self.used.get(index) == Some(&true) && self.shards.tensors.get(index)?.shape != all {
                return None;
            }
            self.take(index, &all)?;
            let first: u64 = rows.iter().take(at).sum();
            return Some(Piece { tensor: index, rows: first..first + want.first()? });
        }
        if self.family.required(tensor) == Some(true) {
            self.problems.push(format!("{name} is missing"));
        }
        None
    }

    /// Adds a tensor if the checkpoint has it.
    fn add(&mut self, tensor: &Tensor, layer: usize) {
        if self.family.required(tensor).is_none() {
            return;
        }
        let Some(piece) = self.piece(tensor, layer) else { return };
        let rotated = [names::ATTN_Q, names::ATTN_Q_BIAS, names::ATTN_K, names::ATTN_K_BIAS];
        let order = match self.family.interleave && rotated.contains(tensor) {
            true => Order::Interleave { head: self.sizes.k_dim as u64 },
            false => Order::Same,
        };
        let shifted = self.family.norm_shift != 0.0 && tensor.hub.ends_with("norm.weight");
        let op = if shifted { Op::Add(self.family.norm_shift) } else { Op::None };
        let shape = tensor.shape.iter().map(|dim| self.sizes.get(*dim) as u64).collect();
        self.tensors.push((tensor.gguf_name(layer), shape));
        self.origins.push(Origin::Pieces { pieces: vec![piece], order, op });
    }

    /// The output, unless it is the embeddings.
    fn output(&mut self, tied: bool, notes: &mut Vec<String>) {
        let there = self.by_name.get(names::OUTPUT.hub).copied();
        match (tied, there) {
            (true, Some(index)) => {
                self.used[index] = true;
                notes.push(format!(
                    "{} is left out: the configuration ties it to the embeddings",
                    names::OUTPUT.hub
                ));
            }
            (true, None) => {}
            // Checkpoints of the model without its head are for embeddings of text.
            (false, None) if !self.shards.tensors.iter().any(|t| t.name.contains("model.")) => {}
            (false, None) => self.problems.push(format!("{} is missing", names::OUTPUT.hub)),
            (false, Some(_)) => self.add(&names::OUTPUT, 0),
        }
    }

    /// The rotary factors, which are computed.
    fn rope(&mut self, config: &Config) -> Result<()> {
        let (full, _) = config.ropes()?;
        if full.kind != "llama3" {
            return Ok(());
        }
        let factors = llama3_factors(&full, self.sizes.n_rot)?;
        self.tensors.push((names::ROPE_FREQS.gguf.to_string(), vec![factors.len() as u64]));
        self.origins.push(Origin::Computed(factors));
        Ok(())
    }

    /// Reports what no tensor was made of.
    fn unused(&mut self) {
        for (tensor, used) in self.shards.tensors.iter().zip(&self.used) {
            let scales = tensor.name.strip_suffix(SCALES).and_then(|name| self.shards.find(name));
            if !used && scales.is_none_or(|t| t.dtype != Some(Dtype::F8E4M3)) {
                let arch = self.family.arch;
                self.problems.push(format!("{} is not known for `{arch}`", tensor.name));
            }
        }
    }

    /// The factors of the 8-bit tensors.
    fn scales(&mut self, config: &Config) -> Result<HashMap<usize, BlockScales>> {
        let mut all = HashMap::new();
        let quantization = config.object(&["quantization_config"])?;
        let block = quantization.and_then(|q| {
            let block = q.get("weight_block_size")?.as_array()?;
            let at = |i: usize| block.get(i)?.as_u64().filter(|n| (1..=1 << 20).contains(n));
            Some([at(0)?, at(1)?])
        });
        for (i, tensor) in self.shards.tensors.iter().enumerate() {
            if tensor.dtype != Some(Dtype::F8E4M3) {
                continue;
            }
            let Some(scales) = self.shards.find(&format!("{}{SCALES}", tensor.name)) else {
                if quantization.is_some() {
                    self.problems.push(format!("{}{SCALES} is missing", tensor.name));
                }
                continue;
            };
            let Some(block) = block else {
                let reason = "quantization_config.weight_block_size is missing";
                return Err(config.error(reason));
            };
            let n_blocks = [tensor.rows().div_ceil(block[0]), tensor.cols().div_ceil(block[1])];
            if tensor.shape.len() != 2 || scales.shape != n_blocks {
                let (name, shape) = (&scales.name, &scales.shape);
                self.problems.push(format!("{name} has shape {shape:?}, not {n_blocks:?}"));
                continue;
            }
            let Some(dtype) = scales.dtype else {
                let (name, ty) = (&scales.name, &scales.dtype_name);
                self.problems.push(format!("{name} is of type {ty}, which holds no weights"));
                continue;
            };
            let n = (n_blocks[0] * n_blocks[1]) as usize;
            let mut bytes = vec![0; n * dtype.bytes()];
            self.shards.read(scales, 0, &mut bytes)?;
            let mut values = vec![0.0; n];
            decode(dtype, &bytes, &mut values);
            let per_row = n_blocks[1] as usize;
            all.insert(i, BlockScales { block, per_row, scales: values });
        }
        Ok(all)
    }
}
