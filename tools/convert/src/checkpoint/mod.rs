//! A checkpoint as the hub serves it: a folder of config.json, safetensors files and a tokenizer.

mod card;
mod config;
mod families;
mod general;
mod json;
mod keys;
mod layout;
mod lora;
mod model_id;
mod pieces;
mod read;
mod rope;
mod safetensors;
mod tokenizer;

use std::ops::Range;
use std::path::{Path, PathBuf};

use siskin::GgmlType;
use siskin::gguf::Builder;
use siskin::model::tensor_names::{BERT_POSITION_EMBD, BERT_TOKEN_TYPES};

use crate::{Error, Facts, Result, Source, TensorDesc};
use config::Config;
use families::Family;
use keys::Keys;
use layout::Layout;
use pieces::Origin;
use read::Reader;
use safetensors::Shards;

pub use lora::check_adapter;
pub use safetensors::{check_header, check_index};
pub use tokenizer::{check_sentencepiece, check_tokenizer};

/// What to do differently from what a checkpoint says.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// `general.name`, instead of one from the folder's name.
    pub name: Option<String>,
    /// Folders of LoRA adapters (PEFT) to merge, each with a factor, in order.
    pub lora: Vec<(PathBuf, f32)>,
}

/// An open checkpoint. Tensors are read by position, a slice of rows at a time.
///
/// ```no_run
/// use siskin_convert::checkpoint::{Checkpoint, ConvertOptions};
/// use siskin_convert::Source;
///
/// let checkpoint = Checkpoint::open("SmolLM2-135M".as_ref(), &ConvertOptions::default())?;
/// for tensor in checkpoint.tensors() {
///     println!("{} {:?}", tensor.name, tensor.shape);
/// }
/// # Ok::<(), siskin_convert::Error>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    facts: Facts,
    tensors: Vec<TensorDesc>,
    origins: Vec<Origin>,
    reader: Reader,
    keys: Keys,
    notes: Vec<String>,
}

impl Checkpoint {
    /// Opens the folder `dir`: reads everything but the tensors' data, and checks that the file to
    /// be made will be whole.
    ///
    /// # Errors
    /// What is missing, misshapen, unknown or broken, with file and tensor or key; problems of
    /// tensors all at once.
    pub fn open(dir: &Path, options: &ConvertOptions) -> Result<Checkpoint> {
        if !dir.is_dir() {
            return Err(Error::file(dir, "not a folder with a checkpoint"));
        }
        let config = Config::open(dir)?;
        let class = config.class()?;
        let Some(family) = Family::of_class(class) else {
            let known: Vec<_> = Family::all_classes().collect();
            let known = known.join(", ");
            let reason = format!("architecture {class:?} is not known; these are: {known}");
            return Err(config.error(reason));
        };
        let config = config.with_fallbacks(family.fallbacks);
        family.check(&config)?;
        let sizes = family.sizes(&config)?;
        let n_layer = families::n_layer(&config)?;

        let mut notes = families::notes(&config, &sizes, n_layer)?;
        let shards = Shards::open(dir)?;
        let layout = Layout::new(dir, shards, family, &config, &sizes, n_layer, &mut notes)?;
        let Layout { tensors: described, origins, mut reader } = layout;
        for (adapter, scale) in &options.lora {
            let find = |name: &str| {
                let name = Layout::lookup(family, &reader.shards, name)?;
                Some((name, reader.shards.tensors.get(name)?))
            };
            let used = |n: &usize| {
                origins.iter().any(|origin| match origin {
                    Origin::Pieces { pieces, .. } => pieces.iter().any(|p| p.tensor == *n),
                    Origin::Computed(_) => false,
                })
            };
            let deltas = lora::open(adapter, *scale, |name| find(name).filter(|(n, _)| used(n)))?;
            for (tensor, delta) in deltas {
                reader.deltas.entry(tensor).or_default().push(delta);
            }
        }
        let tensors: Vec<TensorDesc> = described
            .into_iter()
            .zip(&origins)
            .map(|((name, shape), origin)| {
                let exact = stays_f32(&name, &shape);
                let ty = if exact { GgmlType::F32 } else { reader.ty(origin) };
                TensorDesc { name, shape, ty }
            })
            .collect();

        let mut keys = Keys::default();
        keys.set("general.architecture", family.arch);
        keys.set("general.type", "model");
        let n_params = tensors.iter().map(TensorDesc::n_values).sum();
        general::add(dir, &config, options.name.as_deref(), n_params, &mut keys)?;
        (family.hparams)(&config, &sizes, &mut keys)?;
        general::add_pooling(dir, family.arch, &mut keys)?;
        tokenizer::add(dir, &config, family, &sizes, &mut keys, &mut notes)?;

        let facts = Facts {
            arch: family.arch.to_string(),
            n_layer,
            n_head: sizes.n_head,
            n_head_kv: sizes.n_head_kv,
            n_expert: 0,
        };
        Ok(Checkpoint { path: dir.to_path_buf(), facts, tensors, origins, reader, keys, notes })
    }

    /// What a user should know of the result, each a sentence.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether there are weights of 8-bit floats. With the factors of their blocks only F32 holds
    /// them exactly, but models are run with BF16.
    pub fn is_fp8(&self) -> bool {
        self.origins.iter().any(|origin| self.reader.is_fp8(origin))
    }

    /// A tensor, and its rows in the checkpoint's way: a vector has a row for each value.
    fn rows(&self, tensor: usize, rows: Range<u64>) -> Result<(&Origin, &TensorDesc, Range<u64>)> {
        let (Some(origin), Some(desc)) = (self.origins.get(tensor), self.tensors.get(tensor))
        else {
            return Err(Error::Invalid(format!("there is no tensor {tensor}")));
        };
        if rows.start > rows.end || rows.end > desc.rows() {
            return Err(Error::Invalid(format!("{} has no rows {rows:?}", desc.name)));
        }
        let each = if desc.shape.len() == 1 { desc.cols() as u64 } else { 1 };
        Ok((origin, desc, rows.start * each..rows.end * each))
    }
}

/// Whether a tensor is F32 in every GGUF file, because nothing that runs these takes it otherwise:
/// llama.cpp's rule.
fn stays_f32(name: &str, shape: &[u64]) -> bool {
    const TABLES: [&str; 2] = [BERT_POSITION_EMBD.gguf, BERT_TOKEN_TYPES.gguf];
    shape.len() < 2 || name.ends_with("_norm.weight") || TABLES.contains(&name)
}

/// Whether a config.json is one that is understood, for fuzzing.
///
/// # Errors
/// What is wrong with it.
#[doc(hidden)]
pub fn check_config(text: &str) -> Result<()> {
    let config = Config::parse(Path::new("<memory>"), text)?;
    let class = config.class()?.to_string();
    let family = Family::of_class(&class);
    let family = family.ok_or_else(|| config.error(format!("{class:?} is not known")))?;
    let config = config.with_fallbacks(family.fallbacks);
    family.check(&config)?;
    let sizes = family.sizes(&config)?;
    families::notes(&config, &sizes, families::n_layer(&config)?)?;
    rope::llama3_factors(&config.ropes()?.0, sizes.n_rot)?;
    (family.hparams)(&config, &sizes, &mut Keys::default())
}

impl Source for Checkpoint {
    fn path(&self) -> &Path {
        &self.path
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn tensors(&self) -> &[TensorDesc] {
        &self.tensors
    }

    fn metadata(&self, to: &mut Builder) -> Result<()> {
        self.keys.put(to)
    }

    fn read(&self, tensor: usize, rows: Range<u64>, out: &mut [f32]) -> Result<()> {
        let n_rows = rows.end.saturating_sub(rows.start);
        let (origin, desc, rows) = self.rows(tensor, rows)?;
        if n_rows.checked_mul(desc.cols() as u64) != Some(out.len() as u64) {
            let reason = format!("{} values for {n_rows} rows of {}", out.len(), desc.name);
            return Err(Error::Invalid(reason));
        }
        self.reader.read(origin, rows, out)
    }

    fn done(&self, tensor: usize) {
        if let Some(origin) = self.origins.get(tensor) {
            self.reader.forget(origin);
        }
    }
}
