//! What the converter must know of each family of models, as data and a few named functions.

use siskin::model::archs;
use siskin::model::tensor_names::{BERT, DECODER, DECODER_FUSED, Fused, Need, Sizes, Tensor};

use super::config::{Config, Fallback, Rope};
use super::keys::Keys;
use crate::Result;

/// A family of models.
#[derive(Debug)]
pub(super) struct Family {
    /// The classes of `transformers` that it has.
    pub(super) classes: &'static [&'static str],
    /// `general.architecture`.
    pub(super) arch: &'static str,
    /// Its tensors.
    pub(super) tensors: &'static [Tensor],
    /// Those that may be kept as one.
    pub(super) fused: &'static [Fused],
    /// Queries and keys are rotated in halves by `transformers`, in pairs by ggml.
    pub(super) interleave: bool,
    /// What is added to the weights of norms.
    pub(super) norm_shift: f32,
    /// The activations that its models may have; others would be run wrongly.
    pub(super) activations: &'static [&'static str],
    /// What config.json may leave out.
    pub(super) fallbacks: &'static [(&'static str, Fallback)],
    /// Writes the keys under the architecture's prefix.
    pub(super) hparams: fn(&Config, &Sizes, &mut Keys) -> Result<()>,
    /// Spaces before a text: `tokenizer.ggml.add_space_prefix`, whatever the tokenizer says.
    pub(super) space_prefix: Option<bool>,
}

const SILU: &[&str] = &["silu", "swish"];
const GELU: &[&str] = &["gelu_pytorch_tanh", "gelu_tanh", "gelu_new"];

const LLAMA: Family = Family {
    classes: &["LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel", "MistralForCausalLM"],
    arch: "llama",
    tensors: DECODER,
    fused: DECODER_FUSED,
    interleave: true,
    norm_shift: 0.0,
    activations: SILU,
    fallbacks: &[
        ("rope_theta", Fallback::F(10_000.0)),
        ("tie_word_embeddings", Fallback::B(false)),
    ],
    hparams: llama,
    space_prefix: None,
};

const GEMMA2: Family = Family {
    classes: &["Gemma2ForCausalLM"],
    arch: "gemma2",
    interleave: false,
    norm_shift: 1.0,
    activations: GELU,
    fallbacks: &[
        ("head_dim", Fallback::U(256)),
        ("tie_word_embeddings", Fallback::B(true)),
        ("attn_logit_softcapping", Fallback::F(50.0)),
        ("final_logit_softcapping", Fallback::F(30.0)),
        ("sliding_window", Fallback::U(4096)),
        ("rms_norm_eps", Fallback::F(1e-6)),
        ("max_position_embeddings", Fallback::U(8192)),
    ],
    hparams: gemma2,
    space_prefix: Some(false),
    ..LLAMA
};

/// Every family.
const FAMILIES: &[Family] = &[
    LLAMA,
    Family {
        classes: &["Qwen2ForCausalLM", "Qwen2Model"],
        arch: "qwen2",
        interleave: false,
        hparams: decoder,
        ..LLAMA
    },
    Family {
        classes: &["Qwen3ForCausalLM", "Qwen3Model"],
        arch: "qwen3",
        interleave: false,
        fallbacks: &[
            ("rope_theta", Fallback::F(10_000.0)),
            ("tie_word_embeddings", Fallback::B(false)),
            ("head_dim", Fallback::U(128)),
        ],
        hparams: decoder,
        ..LLAMA
    },
    GEMMA2,
    Family {
        classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        arch: "gemma3",
        // The configurations of the models with vision leave out most of their text part.
        fallbacks: &[
            ("num_attention_heads", Fallback::U(8)),
            ("num_key_value_heads", Fallback::U(4)),
            ("head_dim", Fallback::U(256)),
            ("tie_word_embeddings", Fallback::B(true)),
            ("sliding_window", Fallback::U(4096)),
            ("rms_norm_eps", Fallback::F(1e-6)),
            ("max_position_embeddings", Fallback::U(131_072)),
            ("vocab_size", Fallback::U(262_208)),
            ("rope_theta", Fallback::F(1_000_000.0)),
            ("rope_local_base_freq", Fallback::F(10_000.0)),
        ],
        hparams: gemma3,
        ..GEMMA2
    },
    Family {
        classes: &["BertModel", "BertForMaskedLM"],
        arch: "bert",
        tensors: BERT,
        fused: &[],
        interleave: false,
        activations: &["gelu"],
        fallbacks: &[("type_vocab_size", Fallback::U(2)), ("layer_norm_eps", Fallback::F(1e-12))],
        hparams: bert,
        ..LLAMA
    },
];

impl Family {
    /// The family of a class of `transformers`.
    pub(super) fn of_class(class: &str) -> Option<&'static Family> {
        FAMILIES.iter().find(|family| family.classes.contains(&class))
    }

    /// All classes, for the message about one that is not known.
    pub(super) fn all_classes() -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().flat_map(|family| family.classes.iter().copied())
    }

    /// Whether its models must have a tensor; `None` if they have no use for it.
    pub(super) fn required(&self, tensor: &Tensor) -> Option<bool> {
        match archs::find(self.arch) {
            Some(arch) => tensor.required(arch),
            None => Some(tensor.need == Need::Always),
        }
    }

    /// The name by which a tensor of the checkpoint is looked up; `None` if it is not converted.
    pub(super) fn canonical(&self, name: &str) -> Known {
        const OTHER_PARTS: &[&str] =
            &["vision", "visual.", "audio_", "projector.", "image_newline"];
        const NO_WEIGHTS: &[&str] =
            &["rotary_emb.inv_freq", "position_ids", "masked_bias", ".attn.bias"];
        if OTHER_PARTS.iter().any(|part| name.contains(part)) {
            return Known::OtherPart;
        }
        if NO_WEIGHTS.iter().any(|part| name.contains(part)) {
            return Known::Unused;
        }
        let name = name.replace("language_model.", "");
        if self.arch != "bert" {
            let whole = name.starts_with("model.") || name.starts_with("lm_head.");
            return Known::Name(if whole { name } else { format!("model.{name}") });
        }
        let name = name.strip_prefix("bert.").unwrap_or(&name);
        // Embeddings need neither the pooling layer nor the heads of the training.
        if ["pooler.", "cls.predictions", "cls.seq_relationship"]
            .iter()
            .any(|p| name.starts_with(p))
        {
            return Known::Unused;
        }
        Known::Name(match name.strip_suffix(".gamma") {
            Some(stem) => format!("{stem}.weight"),
            None => match name.strip_suffix(".beta") {
                Some(stem) => format!("{stem}.bias"),
                None => name.to_string(),
            },
        })
    }

    /// The numbers that the tensors' shapes follow from.
    pub(super) fn sizes(&self, config: &Config) -> Result<Sizes> {
        let n_head = config.size(&["num_attention_heads", "n_head", "n_heads"])?;
        let n_embd = config.size(&["hidden_size", "n_embd", "dim"])?;
        let head_dim = match config.u32_opt(&["head_dim"])? {
            Some(_) => config.size(&["head_dim"])?,
            None => n_embd / n_head,
        };
        let n_head_kv = match config.u32_opt(&["num_key_value_heads", "n_kv_heads"])? {
            Some(_) => config.size(&["num_key_value_heads", "n_kv_heads"])?,
            None => n_head,
        };
        let divides = n_head.is_multiple_of(n_head_kv);
        if !divides || head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(config.error(format!(
                "num_attention_heads is {n_head}, num_key_value_heads {n_head_kv}, the \
                 dimensions of a head {head_dim}: these do not fit together"
            )));
        }
        let encoder = self.arch == "bert";
        let n_vocab = config.size(&["vocab_size"])?;
        if n_vocab > MAX_VOCAB {
            return Err(config.error(format!("vocab_size is {n_vocab}; {MAX_VOCAB} are the most")));
        }
        Ok(Sizes {
            n_vocab,
            n_embd,
            n_ff: config.size(&["intermediate_size", "n_inner", "hidden_dim"])?,
            n_head,
            n_head_kv,
            k_dim: head_dim,
            v_dim: head_dim,
            n_rot: head_dim,
            n_positions: if encoder { config.size(POSITIONS)? } else { 0 },
            n_token_types: if encoder { config.size(&["type_vocab_size"])? } else { 0 },
        })
    }

    /// Refuses what a configuration can say, but the architecture cannot do.
    pub(super) fn check(&self, config: &Config) -> Result<()> {
        let activation = config.value(&["hidden_activation", "hidden_act"]);
        if let Some((key, value)) = activation
            && !value.as_str().is_some_and(|name| self.activations.contains(&name))
        {
            let known = self.activations.join(", ");
            let reason = format!("{key} is {value}; models of `{}` have {known}", self.arch);
            return Err(config.error(reason));
        }
        const PART: [&str; 4] = ["partial_rotary_factor", "rotary_pct", "rope_pct", "rope_percent"];
        let (full, local) = config.ropes()?;
        for key in PART {
            let ropes = [Some(&full), local.as_ref()];
            let of_ropes = ropes.into_iter().flatten().map(|rope| rope.f32(key));
            for part in std::iter::once(config.f32_opt(&[key])).chain(of_ropes) {
                if let Some(part) = part?.filter(|part| *part != 1.0) {
                    return Err(config.error(format!("{key} is {part}, which is not supported")));
                }
            }
        }
        if self.arch == "gemma3"
            && let Some(cap) = config.f32_opt(&[ATTN_CAP])?.filter(|cap| *cap != 0.0)
        {
            return Err(config.error(format!("{ATTN_CAP} is {cap}, which `gemma3` does not have")));
        }
        let method = config.object(&["quantization_config"])?;
        if let Some(method) = method.and_then(|q| q.get("quant_method")?.as_str())
            && method != "fp8"
        {
            let reason = format!("the weights are quantized by {method:?}, which is not read");
            return Err(config.error(reason));
        }
        Ok(())
    }
}

/// What a configuration asks for that GGUF files of its architecture cannot say.
pub(super) fn notes(config: &Config, sizes: &Sizes, n_layer: usize) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let Some(arch) = archs::find(arch_of(config)?) else { return Ok(notes) };
    let window = config.u32_opt(&["sliding_window"])?;
    let used = config.bool_opt("use_sliding_window")?.unwrap_or(arch.name == "llama");
    if arch.window.is_none()
        && used
        && let Some(window) = window
        && window < config.u32(POSITIONS)?
    {
        notes.push(format!(
            "the model was trained with a window of {window} positions, which `{}` has not: \
             results differ beyond it",
            arch.name
        ));
    }
    if let Some(key) = [ATTN_CAP, FINAL_CAP].iter().find(|key| config.is_null(key))
        && arch.name == "gemma2"
    {
        notes.push(format!(
            "{key} is null: Siskin will cap nothing, but llama.cpp always does for `gemma2`, and \
             divides by 0"
        ));
    }
    let scalar = config.f32_opt(&["query_pre_attn_scalar"])?;
    let implied = match arch.embd_scaled_layers == Some(n_layer) {
        true => sizes.n_embd / sizes.n_head,
        false => sizes.k_dim,
    };
    if let Some(scalar) = scalar
        && scalar != implied as f32
    {
        notes.push(format!(
            "query_pre_attn_scalar is {scalar}, but a `{}` of {n_layer} layers is run with \
             {implied}: results differ",
            arch.name
        ));
    }
    let layers = config.value(&["layer_types"]).and_then(|(_, value)| value.as_array());
    if let (Some(window), Some(layers)) = (arch.window, layers) {
        let full = |i: usize| i % window.period == window.period - 1;
        let same = |(i, ty): (usize, &serde_json::Value)| (ty == "full_attention") == full(i);
        if !layers.iter().enumerate().all(same) {
            notes.push(format!(
                "layer_types puts the windows elsewhere than every `{}` has them: results differ",
                arch.name
            ));
        }
    }
    Ok(notes)
}

/// What a tensor of a checkpoint is.
pub(super) enum Known {
    /// One that is looked up by this name.
    Name(String),
    /// Of a part that is not converted, such as vision.
    OtherPart,
    /// Nothing that a model needs.
    Unused,
}

const POSITIONS: &[&str] = &["max_position_embeddings", "n_ctx", "n_positions"];

/// The most tokens: each takes memory before the embeddings are looked at. The largest known
/// vocabulary has 262208.
const MAX_VOCAB: usize = 1 << 21;

const ATTN_CAP: &str = "attn_logit_softcapping";
const FINAL_CAP: &str = "final_logit_softcapping";

/// The layers of a model.
pub(super) fn n_layer(config: &Config) -> Result<usize> {
    match config.size(&["num_hidden_layers", "n_layer", "n_layers", "num_layers"])? {
        n @ 1..=4096 => Ok(n),
        n => Err(config.error(format!("num_hidden_layers is {n}; 4096 are the most"))),
    }
}

/// What all decoders have but for the rotary embedding.
fn common(config: &Config, sizes: &Sizes, arch: &str, keys: &mut Keys) -> Result<()> {
    let key = |name: &str| format!("{arch}.{name}");
    keys.set(key("block_count"), n_layer(config)? as u32);
    keys.set(key("context_length"), config.u32(POSITIONS)?);
    keys.set(key("embedding_length"), sizes.n_embd as u32);
    keys.set(key("feed_forward_length"), sizes.n_ff as u32);
    keys.set(key("attention.head_count"), sizes.n_head as u32);
    Ok(())
}

fn rotary(full: &Rope, local: Option<&Rope>, arch: &str, keys: &mut Keys) -> Result<()> {
    let key = |name: &str| format!("{arch}.{name}");
    match full.kind.as_str() {
        "default" | "none" => {}
        // The rest is in rope_freqs.weight, which layers with a window have no part in.
        "llama3" if archs::find(arch).is_none_or(|arch| arch.window.is_none()) => {}
        "linear" => {
            keys.set(key("rope.scaling.type"), "linear");
            keys.set(key("rope.scaling.factor"), full.need("factor")?);
        }
        "yarn" => {
            keys.set(key("rope.scaling.type"), "yarn");
            keys.set(key("rope.scaling.factor"), full.need("factor")?);
            let original = full.need("original_max_position_embeddings")?;
            keys.set(key("rope.scaling.original_context_length"), original as u32);
            let attn = full.f32("attention_factor")?.or(full.f32("attn_factor")?);
            keys.set_opt(key("rope.scaling.yarn_ext_factor"), full.f32("extrapolation_factor")?);
            keys.set_opt(key("rope.scaling.yarn_attn_factor"), attn);
            keys.set_opt(key("rope.scaling.yarn_beta_fast"), full.f32("beta_fast")?);
            keys.set_opt(key("rope.scaling.yarn_beta_slow"), full.f32("beta_slow")?);
        }
        kind => {
            let reason =
                format!("rope_parameters: the kind {kind:?} is not supported for `{arch}`");
            return Err(full.error(reason));
        }
    }
    if let Some(local) = local.filter(|local| !["default", "none"].contains(&local.kind.as_str())) {
        let kind = &local.kind;
        let reason = format!("rope_parameters: {kind:?} of sliding_attention is not supported");
        return Err(local.error(reason));
    }
    keys.set_opt(key("rope.freq_base"), full.theta);
    keys.set_opt(key("rope.freq_base_swa"), local.and_then(|rope| rope.theta));
    Ok(())
}

fn heads(config: &Config, sizes: &Sizes, arch: &str, keys: &mut Keys) -> Result<()> {
    let key = |name: &str| format!("{arch}.{name}");
    keys.set(key("attention.head_count_kv"), sizes.n_head_kv as u32);
    let eps = config.f32(&["rms_norm_eps", "norm_eps"])?;
    keys.set(key("attention.layer_norm_rms_epsilon"), eps);
    keys.set(key("attention.key_length"), sizes.k_dim as u32);
    keys.set(key("attention.value_length"), sizes.v_dim as u32);
    Ok(())
}

fn decoder_of(arch: &str, config: &Config, sizes: &Sizes, keys: &mut Keys) -> Result<()> {
    let (full, local) = config.ropes()?;
    common(config, sizes, arch, keys)?;
    rotary(&full, local.as_ref(), arch, keys)?;
    heads(config, sizes, arch, keys)
}

/// The family that is being converted, by its class.
fn arch_of(config: &Config) -> Result<&'static str> {
    Ok(Family::of_class(config.class()?).map_or("", |family| family.arch))
}

fn decoder(config: &Config, sizes: &Sizes, keys: &mut Keys) -> Result<()> {
    decoder_of(arch_of(config)?, config, sizes, keys)
}

fn llama(config: &Config, sizes: &Sizes, keys: &mut Keys) -> Result<()> {
    decoder_of("llama", config, sizes, keys)?;
    keys.set("llama.vocab_size", sizes.n_vocab as u32);
    keys.set("llama.rope.dimension_count", sizes.k_dim as u32);
    Ok(())
}

fn gemma2(config: &Config, sizes: &Sizes, keys: &mut Keys) -> Result<()> {
    let (mut full, local) = config.ropes()?;
    // llama.cpp's converter writes none, and this is what readers take then.
    full.theta = full.theta.filter(|theta| *theta != 10_000.0);
    common(config, sizes, "gemma2", keys)?;
    rotary(&full, local.as_ref(), "gemma2", keys)?;
    heads(config, sizes, "gemma2", keys)?;
    let cap = |name: &str| if config.is_null(name) { Ok(0.0) } else { config.f32(&[name]) };
    keys.set("gemma2.attn_logit_softcapping", cap(ATTN_CAP)?);
    keys.set("gemma2.final_logit_softcapping", cap(FINAL_CAP)?);
    keys.set("gemma2.attention.sliding_window", window(config)?);
    Ok(())
}

/// The positions that layers with a window see: all where it is null.
fn window(config: &Config) -> Result<u32> {
    let key = "sliding_window";
    config.u32(if config.is_null(key) { POSITIONS } else { std::slice::from_ref(&key) })
}

fn gemma3(config: &Config, sizes: &Sizes, keys: &mut Keys) -> Result<()> {
    decoder_of("gemma3", config, sizes, keys)?;
    let cap = config.f32_opt(&[FINAL_CAP])?;
    keys.set_opt("gemma3.final_logit_softcapping", cap.filter(|cap| *cap != 0.0));
    let every = config.u32_opt(&["sliding_window_pattern", "_sliding_window_pattern"])?;
    match every {
        Some(0) => return Err(config.error("sliding_window_pattern is 0")),
        Some(1) => return Ok(()),
        // The layers' types go before, and notes() tells of those that are not every sixth.
        Some(n) if n != 6 && config.value(&["layer_types"]).is_none() => {
            keys.set("gemma3.attention.sliding_window_pattern", n);
        }
        _ => {}
    }
    keys.set("gemma3.attention.sliding_window", window(config)?);
    Ok(())
}

fn bert(config: &Config, sizes: &Sizes, keys: &mut Keys) -> Result<()> {
    common(config, sizes, "bert", keys)?;
    keys.set("bert.attention.layer_norm_epsilon", config.f32(&["layer_norm_eps"])?);
    keys.set("bert.attention.causal", false);
    keys.set("tokenizer.ggml.token_type_count", sizes.n_token_types as u32);
    Ok(())
}
