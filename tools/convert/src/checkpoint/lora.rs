//! LoRA adapters as PEFT saves them: `W + scale * alpha / r * B A`, row by row.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use super::json;
use super::read::decode;
use super::safetensors::{HubTensor, Shards};
use crate::{Error, Result, problems};

/// What is added to a tensor. Its matrices are read when they are needed, and can be dropped.
#[derive(Debug)]
pub(super) struct Delta {
    shards: Arc<Shards>,
    /// Numbers of the two matrices in `shards`.
    pair: [usize; 2],
    factor: f32,
    rank: usize,
    matrices: Mutex<Option<Arc<Matrices>>>,
}

/// The two matrices of a delta.
#[derive(Debug)]
pub(super) struct Matrices {
    rank: usize,
    factor: f32,
    /// `[rank][cols]`
    a: Vec<f32>,
    /// `[rows][rank]`
    b: Vec<f32>,
}

impl Delta {
    /// The matrices, which are read by the first who asks.
    pub(super) fn matrices(&self) -> Result<Arc<Matrices>> {
        // Nothing is left half-done here by a thread that panicked.
        let mut held = self.matrices.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(matrices) = held.as_ref() {
            return Ok(matrices.clone());
        }
        let [a, b] = self.pair.map(|index| values(&self.shards, index));
        let matrices = Matrices { rank: self.rank, factor: self.factor, a: a?, b: b? };
        Ok(held.insert(Arc::new(matrices)).clone())
    }

    /// Gives back what the matrices take.
    pub(super) fn forget(&self) {
        *self.matrices.lock().unwrap_or_else(|e| e.into_inner()) = None;
    }
}

impl Matrices {
    /// Adds their part of row `row` of the checkpoint's tensor. `work` has room for a row.
    pub(super) fn add(&self, row: u64, values: &mut [f32], work: &mut Vec<f32>) {
        work.clear();
        work.resize(values.len(), 0.0);
        let b = self.b.chunks_exact(self.rank).nth(row as usize).unwrap_or_default();
        for (b, a) in b.iter().zip(self.a.chunks_exact(values.len())) {
            for (sum, a) in work.iter_mut().zip(a) {
                *sum += b * a;
            }
        }
        for (value, sum) in values.iter_mut().zip(work.iter()) {
            *value += self.factor * sum;
        }
    }
}

/// Numbers of adapter_config.json.
struct AdapterConfig {
    path: PathBuf,
    values: Map<String, Value>,
}

impl AdapterConfig {
    fn open(dir: &Path) -> Result<AdapterConfig> {
        let path = dir.join("adapter_config.json");
        Self::parse(&path, &json::text(&path)?)
    }

    fn parse(path: &Path, text: &str) -> Result<AdapterConfig> {
        let config = AdapterConfig { values: json::parse(path, text)?, path: path.to_path_buf() };
        let refuse = |reason: String| Err(Error::file(&config.path, reason));
        if config.values.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return refuse("peft_type is not LORA: other kinds of adapters are not read".into());
        }
        for key in ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"] {
            if config.flag(key) {
                return refuse(format!("{key} is set, which is not supported"));
            }
        }
        for key in ["alpha_pattern", "modules_to_save", "layer_replication", "target_parameters"] {
            let empty = match config.values.get(key) {
                None | Some(Value::Null) => true,
                Some(Value::Object(map)) => map.is_empty(),
                Some(Value::Array(list)) => list.is_empty(),
                Some(_) => false,
            };
            if !empty {
                return refuse(format!("{key} is given, which is not supported"));
            }
        }
        Ok(config)
    }

    fn flag(&self, key: &str) -> bool {
        self.values.get(key) == Some(&Value::Bool(true))
    }

    fn factor(&self, rank: usize) -> Result<f32> {
        let alpha = self.values.get("lora_alpha").and_then(Value::as_f64);
        let alpha = alpha.filter(|alpha| alpha.is_finite());
        let alpha = alpha.ok_or_else(|| Error::file(&self.path, "lora_alpha is missing"))?;
        let rank = rank as f64;
        Ok((alpha / if self.flag("use_rslora") { rank.sqrt() } else { rank }) as f32)
    }
}

/// Whether an adapter_config.json is one that is understood, for fuzzing.
///
/// # Errors
/// What is wrong with it.
#[doc(hidden)]
pub fn check_adapter(text: &str) -> Result<()> {
    AdapterConfig::parse(Path::new("<memory>"), text)?.factor(8).map(drop)
}

/// The module of an adapter's tensor, and which of the two matrices it is.
fn target(name: &str) -> Option<(&str, char)> {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    let name = name.strip_suffix(".weight")?;
    let name = name.strip_suffix(".default").unwrap_or(name);
    let split = |suffix, which| name.strip_suffix(suffix).map(|module| (module, which));
    split(".lora_A", 'A').or_else(|| split(".lora_B", 'B'))
}

/// Reads an adapter for a checkpoint, whose tensors `find` knows by their names.
///
/// The result has a delta for each of the checkpoint's tensors that the adapter changes.
pub(super) fn open<'a>(
    dir: &Path,
    scale: f32,
    find: impl Fn(&str) -> Option<(usize, &'a HubTensor)>,
) -> Result<HashMap<usize, Delta>> {
    if !scale.is_finite() {
        return Err(Error::Invalid(format!("the adapter's scale is {scale}")));
    }
    let config = AdapterConfig::open(dir)?;
    let path = dir.join("adapter_model.safetensors");
    let shards = Arc::new(Shards::open_files(std::slice::from_ref(&path))?);
    let mut pairs: HashMap<&str, [Option<(usize, &HubTensor)>; 2]> = HashMap::new();
    let mut wrong = Vec::new();
    for (i, tensor) in shards.tensors.iter().enumerate() {
        match target(&tensor.name) {
            _ if tensor.dtype.is_none() => {
                let (name, ty) = (&tensor.name, &tensor.dtype_name);
                wrong.push(format!("{name} is of type {ty}, which holds no weights"));
            }
            Some((module, which)) => {
                let pair = pairs.entry(module).or_default();
                pair[usize::from(which == 'B')] = Some((i, tensor));
            }
            None => wrong.push(format!("{} is neither lora_A nor lora_B", tensor.name)),
        }
    }
    let mut deltas = HashMap::new();
    let mut modules: Vec<_> = pairs.into_iter().collect();
    modules.sort_by_key(|(module, _)| *module);
    for (module, pair) in modules {
        let [Some((index_a, a)), Some((index_b, b))] = pair else {
            wrong.push(format!("{module} has only one of lora_A and lora_B"));
            continue;
        };
        let Some((index, base)) = find(&format!("{module}.weight")) else {
            wrong.push(format!("{module} is not in the checkpoint"));
            continue;
        };
        let ([rank, cols], [rows, rank_b]) = (dims(a), dims(b));
        let fits = rank == rank_b && rank > 0 && dims(base) == [rows, cols];
        if !fits || base.shape.len() != 2 {
            let shapes = format!("{:?} and {:?} for {:?}", a.shape, b.shape, base.shape);
            wrong.push(format!("{module} has matrices of shapes {shapes}"));
            continue;
        }
        let rank = rank as usize;
        let factor = scale * config.factor(rank)?;
        let (shards, pair) = (shards.clone(), [index_a, index_b]);
        deltas.insert(index, Delta { shards, pair, factor, rank, matrices: Mutex::default() });
    }
    if wrong.is_empty() {
        return Ok(deltas);
    }
    Err(Error::file(&path, problems::all(&wrong)))
}

fn dims(tensor: &HubTensor) -> [u64; 2] {
    [tensor.rows(), tensor.cols()]
}

/// All values of a tensor of an adapter.
fn values(shards: &Shards, index: usize) -> Result<Vec<f32>> {
    let tensor = shards.tensors.get(index).and_then(|tensor| Some((tensor, tensor.dtype?)));
    let Some((tensor, dtype)) = tensor else {
        return Err(Error::Invalid(format!("tensor {index} of the adapter has no values")));
    };
    let n = (tensor.rows() * tensor.cols()) as usize;
    let mut bytes = vec![0; n * dtype.bytes()];
    shards.read(tensor, 0, &mut bytes)?;
    let mut out = vec![0.0; n];
    decode(dtype, &bytes, &mut out);
    Ok(out)
}
