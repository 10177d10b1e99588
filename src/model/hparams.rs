//! The numbers of a model, read from a file's metadata and checked against each other.

use siskin_quant::attention;
use siskin_quant::ops::{Activation, RopeStyle};

use super::archs::{self, ArchSpec};
use super::tensor_names::Sizes;
use crate::gguf::{GgufFile, Metadata};
use crate::{Error, Result};

/// The largest value accepted for a dimension, so that products of two fit 64 bits with room.
const MAX_DIM: u64 = 1 << 24;

/// The rotary embedding of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the angles.
    pub base: f64,
    /// Positions are multiplied by this.
    pub scale: f64,
}

/// The numbers of a model.
#[derive(Clone, Debug)]
pub struct Hparams {
    /// The architecture.
    pub arch: &'static ArchSpec,
    /// Layers.
    pub n_layer: usize,
    /// Length of an embedding.
    pub n_embd: usize,
    /// Width of the feed-forward part.
    pub n_ff: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Dimensions of a query or key.
    pub k_dim: usize,
    /// Dimensions of a value.
    pub v_dim: usize,
    /// Dimensions that are rotated.
    pub n_rot: usize,
    /// How rotary embeddings pair dimensions.
    pub rope_style: RopeStyle,
    /// Rotary embedding of layers that see all positions.
    pub rope: Rope,
    /// Rotary embedding of layers with a window.
    pub rope_window: Rope,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Positions that the model was trained for.
    pub n_ctx_train: usize,
    /// Added to the mean square in norms.
    pub eps: f32,
    /// Positions a layer sees, `usize::MAX` for all.
    pub windows: Vec<usize>,
    /// Factor of the attention scores.
    pub attn_scale: f32,
    /// Cap of the attention scores; 0 for none.
    pub attn_softcap: f32,
    /// Cap of the logits; 0 for none.
    pub logit_softcap: f32,
    /// The gate's activation.
    pub activation: Activation,
}

/// Reads keys under the architecture's prefix.
struct Keys<'a> {
    file: &'a GgufFile,
    prefix: &'static str,
}

impl Keys<'_> {
    fn meta(&self) -> &Metadata {
        self.file.metadata()
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn error(&self, name: &str, what: &str) -> Error {
        model_error(self.file, format!("{} {what}", self.key(name)))
    }

    fn size_or(&self, name: &str, default: Option<usize>) -> Result<usize> {
        // Some files give a value for each layer; only equal ones are supported.
        let key = self.key(name);
        let value = match self.meta().array(&key) {
            Ok(Some(array)) => {
                let values: Vec<u32> = array.iter_u32().take(4096).collect();
                match values.split_first() {
                    Some((first, rest)) if rest.iter().all(|v| v == first) => {
                        Some(u64::from(*first))
                    }
                    _ => {
                        return Err(
                            self.error(name, "differs between layers, which is not supported")
                        );
                    }
                }
            }
            _ => self.meta().u64(&key)?,
        };
        match (value, default) {
            (Some(v), _) if v > MAX_DIM => Err(self.error(name, &format!("is {v}, too large"))),
            (Some(v), _) => Ok(v as usize),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.error(name, "is missing")),
        }
    }

    fn size(&self, name: &str) -> Result<usize> {
        match self.size_or(name, None)? {
            0 => Err(self.error(name, "is 0")),
            n => Ok(n),
        }
    }

    fn float(&self, name: &str) -> Result<Option<f32>> {
        match self.meta().f32(&self.key(name))? {
            Some(x) if !x.is_finite() => Err(self.error(name, "is not a finite number")),
            x => Ok(x),
        }
    }
}

/// An error of the model in `file`.
pub(crate) fn model_error(file: &GgufFile, reason: String) -> Error {
    Error::Model { path: file.path().to_path_buf(), reason }
}

impl Hparams {
    /// Reads them.
    ///
    /// # Errors
    /// If a key is missing, of a wrong type or out of range, or two contradict each other.
    pub fn new(file: &GgufFile) -> Result<Hparams> {
        let name = file.metadata().str("general.architecture")?;
        let Some(name) = name else {
            return Err(model_error(file, "general.architecture is missing".into()));
        };
        let Some(arch) = archs::find(name) else {
            let known: Vec<_> = archs::ARCHS.iter().map(|a| a.name).collect();
            let known = known.join(", ");
            let reason = format!("architecture `{name}` is not supported; these are: {known}");
            return Err(model_error(file, reason));
        };
        let keys = Keys { file, prefix: arch.name };
        if keys.size_or("expert_count", Some(0))? > 0 {
            return Err(
                keys.error("expert_count", "is not 0: mixtures of experts are not supported")
            );
        }
        let n_layer = keys.size("block_count")?;
        if n_layer > 4096 {
            return Err(keys.error("block_count", "is more than 4096"));
        }
        let n_embd = keys.size("embedding_length")?;
        let n_head = keys.size("attention.head_count")?;
        let n_head_kv = match keys.size_or("attention.head_count_kv", Some(n_head))? {
            0 => n_head,
            n => n,
        };
        if !n_head.is_multiple_of(n_head_kv) {
            let what = format!("is {n_head_kv}, which does not divide {n_head} heads");
            return Err(keys.error("attention.head_count_kv", &what));
        }
        let k_dim = keys.size_or("attention.key_length", Some(n_embd / n_head))?;
        let v_dim = keys.size_or("attention.value_length", Some(n_embd / n_head))?;
        if k_dim == 0 || v_dim == 0 || k_dim.max(v_dim) > attention::MAX_DIM {
            let what = format!("is 0 or more than {}", attention::MAX_DIM);
            return Err(keys.error("attention.key_length", &what));
        }
        let n_rot = keys.size_or("rope.dimension_count", Some(k_dim))?;
        if n_rot == 0 || n_rot > k_dim || !n_rot.is_multiple_of(2) {
            let what = format!("is {n_rot}: not an even number up to {k_dim}");
            return Err(keys.error("rope.dimension_count", &what));
        }
        let eps = keys.float("attention.layer_norm_rms_epsilon")?;
        let eps =
            eps.ok_or_else(|| keys.error("attention.layer_norm_rms_epsilon", "is missing"))?;

        let base = f64::from(keys.float("rope.freq_base")?.unwrap_or(10_000.0));
        let rope = Rope { base, scale: rope_scale(&keys)? };
        let rope_window = match keys.float("rope.freq_base_swa")? {
            Some(base) => Rope { base: f64::from(base), scale: 1.0 },
            None => match arch.window.and_then(|w| w.rope_base) {
                Some(base) => Rope { base: f64::from(base), scale: 1.0 },
                None => rope,
            },
        };
        if rope.base <= 0.0 || rope_window.base <= 0.0 {
            return Err(keys.error("rope.freq_base", "is not above 0"));
        }
        let scale_width = match arch.embd_scaled_layers {
            Some(layers) if layers == n_layer => n_embd / n_head,
            _ => k_dim,
        };
        let cap = |name: &str, default: Option<f32>| -> Result<f32> {
            Ok(keys.float(name)?.or(default).unwrap_or(0.0).max(0.0))
        };
        Ok(Hparams {
            arch,
            n_layer,
            n_embd,
            n_ff: keys.size("feed_forward_length")?,
            n_head,
            n_head_kv,
            k_dim,
            v_dim,
            n_rot,
            rope_style: arch.rope,
            rope,
            rope_window,
            n_vocab: n_vocab(&keys)?,
            n_ctx_train: keys.size("context_length")?,
            eps,
            windows: windows(&keys, arch, n_layer)?,
            attn_scale: 1.0 / (scale_width as f32).sqrt(),
            attn_softcap: cap("attn_logit_softcapping", arch.attn_softcap)?,
            logit_softcap: cap("final_logit_softcapping", arch.logit_softcap)?,
            activation: arch.activation,
        })
    }
}

impl Hparams {
    /// What the shapes of the tensors follow from.
    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            n_vocab: self.n_vocab,
            n_embd: self.n_embd,
            n_ff: self.n_ff,
            n_head: self.n_head,
            n_head_kv: self.n_head_kv,
            k_dim: self.k_dim,
            v_dim: self.v_dim,
            n_rot: self.n_rot,
            ..Sizes::default()
        }
    }
}

fn n_vocab(keys: &Keys<'_>) -> Result<usize> {
    let n = match keys.meta().array("tokenizer.ggml.tokens")? {
        Some(tokens) => tokens.len(),
        None => keys.size("vocab_size")?,
    };
    if n == 0 || n as u64 > MAX_DIM {
        return Err(model_error(keys.file, format!("the vocabulary has {n} tokens")));
    }
    Ok(n)
}

fn rope_scale(keys: &Keys<'_>) -> Result<f64> {
    let kind = keys.meta().str(&keys.key("rope.scaling.type"))?.unwrap_or("none");
    let factor = keys.float("rope.scaling.factor")?.or(keys.float("rope.scale_linear")?);
    match (kind, factor) {
        // Without a type, a factor is linear (files from before the key existed).
        ("linear", Some(f)) | ("none", Some(f)) if f > 0.0 => Ok(1.0 / f64::from(f)),
        ("linear" | "none", _) => Ok(1.0),
        // The factors of this kind are in the file as rope_freqs.weight.
        ("llama3", _) => Ok(1.0),
        (kind, _) => {
            let what = format!("is `{kind}`, which is not supported");
            Err(keys.error("rope.scaling.type", &what))
        }
    }
}

/// How many positions each layer sees.
fn windows(keys: &Keys<'_>, arch: &ArchSpec, n_layer: usize) -> Result<Vec<usize>> {
    let all = vec![usize::MAX; n_layer];
    let Some(spec) = arch.window else { return Ok(all) };
    let positions = keys.size_or("attention.sliding_window", spec.positions.or(Some(0)))?;
    if positions == 0 {
        return Ok(all);
    }
    let name = "attention.sliding_window_pattern";
    let key = keys.key(name);
    if let Ok(Some(pattern)) = keys.meta().array(&key) {
        let pattern: Vec<u32> = pattern.iter_u32().take(n_layer).collect();
        if pattern.len() != n_layer {
            return Err(keys.error(name, "has no value for some layers"));
        }
        let windowed = pattern.iter().map(|p| if *p != 0 { positions } else { usize::MAX });
        return Ok(windowed.collect());
    }
    let period = keys.size_or(name, Some(spec.period))?;
    let windowed = |layer: usize| period == 0 || layer % period < period - 1;
    Ok((0..n_layer).map(|l| if windowed(l) { positions } else { usize::MAX }).collect())
}
