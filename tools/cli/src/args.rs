//! Arguments that several subcommands share, and what they resolve to.

use std::path::Path;

use anyhow::{Context, anyhow};
use clap::Args;
use siskin::gguf::GgufFile;
use siskin::sampler::{SamplerParams, Stage};
use siskin::tokenizer::TokenizerOptions;
use siskin::{Engine, EngineOptions, KvType, Session, SessionOptions};

use crate::{output, store};

/// Which model, and on what.
#[derive(Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A path, a name in the store, or hf:OWNER/REPO/FILE.gguf.
    #[arg(short, long, default_value = crate::catalog::DEFAULT)]
    pub model: String,
    #[command(flatten)]
    pub engine: EngineArgs,
}

impl ModelArgs {
    /// Finds, or fetches, the model and loads it.
    pub fn load(&self) -> anyhow::Result<Engine> {
        self.engine.load(&self.model)
    }
}

/// How to load a model.
#[derive(Args)]
#[command(next_help_heading = "Model")]
pub struct EngineArgs {
    /// Threads [default: physical cores, on Arm the big ones].
    #[arg(short, long)]
    pub threads: Option<usize>,
    /// The most memory to use, for example 3500M or 4G: the context shrinks to fit, or the model
    /// is refused before loading.
    #[arg(long, value_parser = parse_bytes)]
    pub mem: Option<u64>,
    /// The kernel level (scalar, avx2, ...) [default: the fastest this CPU has].
    #[arg(long)]
    pub cpu: Option<String>,
    /// The pre-tokenizer to use where the file names none that is known.
    #[arg(long)]
    pub pre: Option<String>,
    /// Read the whole file into memory first.
    #[arg(long)]
    pub prefault: bool,
    /// Keep the file's pages in memory.
    #[arg(long)]
    pub mlock: bool,
}

impl EngineArgs {
    /// Finds, or fetches, a model and loads it.
    pub fn load(&self, model: &str) -> anyhow::Result<Engine> {
        self.load_file(GgufFile::open(store::resolve(model)?)?)
    }

    /// Loads a file that is open.
    pub fn load_file(&self, file: GgufFile) -> anyhow::Result<Engine> {
        let options = EngineOptions {
            threads: self.threads,
            mem_limit: self.mem,
            prefault: self.prefault,
            lock: self.mlock,
            level: self.cpu.clone(),
            tokenizer: self.tokenizer(),
        };
        let path = file.path().to_path_buf();
        Engine::from_file(file, &options).map_err(|error| load_error(&path, error))
    }

    /// How to read the tokenizer.
    pub fn tokenizer(&self) -> TokenizerOptions {
        TokenizerOptions { pre: self.pre.clone() }
    }
}

/// An error of loading, with what the library cannot know: a tokenizer's file, and the option by
/// which an unknown pre-tokenizer is replaced.
pub fn load_error(path: &Path, error: siskin::Error) -> anyhow::Error {
    let siskin::Error::Tokenizer(reason) = &error else { return error.into() };
    let is_pre = ["tokenizer.ggml.pre:", "pre-tokenizer:"].iter().any(|k| reason.starts_with(k));
    let advice = if is_pre { "\n--pre NAME is that option" } else { "" };
    anyhow!("{}: {error}{advice}", path.display())
}

/// The shape of a session.
#[derive(Args)]
#[command(next_help_heading = "Session")]
pub struct SessionArgs {
    /// Positions of the context; 0: as many as the model was trained for [default: up to 8192].
    #[arg(short, long, visible_alias = "ctx-size")]
    pub ctx: Option<usize>,
    /// Tokens of a prompt that are computed together.
    #[arg(short, long, visible_alias = "batch-size", default_value_t = 512)]
    pub batch: usize,
    /// How keys and values are stored: f32, f16, q8_0 or q4_0.
    #[arg(long, default_value = "f16", value_parser = parse_kv)]
    pub cache_type: KvType,
    /// How keys are stored, if not as --cache-type says.
    #[arg(long, visible_alias = "ctk", value_parser = parse_kv)]
    pub cache_type_k: Option<KvType>,
    /// How values are stored, if not as --cache-type says.
    #[arg(long, visible_alias = "ctv", value_parser = parse_kv)]
    pub cache_type_v: Option<KvType>,
}

impl SessionArgs {
    /// The options, for a model trained for `trained` positions.
    pub fn options(&self, trained: usize) -> SessionOptions {
        SessionOptions {
            n_ctx: self.ctx.map(|n| if n == 0 { trained } else { n }),
            n_batch: self.batch,
            k_type: self.cache_type_k.unwrap_or(self.cache_type),
            v_type: self.cache_type_v.unwrap_or(self.cache_type),
        }
    }

    /// A session of these options. Says so if memory was too short for the usual context.
    pub fn session(&self, engine: &Engine) -> anyhow::Result<Session> {
        let h = engine.hparams();
        let options = self.options(h.n_ctx_train);
        let session = Session::new(engine, &options)?;
        let (n_ctx, wanted) = (session.shape().n_ctx, options.shape(h)?.n_ctx);
        if n_ctx < wanted {
            output::note(&format!(
                "the context has {n_ctx} positions, not {wanted}: more do not fit into the memory \
                 that is free, or that --mem allows"
            ));
        }
        Ok(session)
    }
}

/// Reads a file of text.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))
}

/// How tokens are chosen. Names and defaults are llama.cpp's.
#[derive(Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplerArgs {
    /// Temperature; 0 always takes the most likely token.
    #[arg(long, visible_alias = "temperature", default_value_t = 0.8)]
    pub temp: f32,
    /// Keep the K most likely tokens; 0: all.
    #[arg(long, default_value_t = 40)]
    pub top_k: usize,
    /// Keep the most likely tokens until their probabilities add up to this.
    #[arg(long, default_value_t = 0.95)]
    pub top_p: f32,
    /// Keep tokens at least this probable against the most likely.
    #[arg(long, default_value_t = 0.05)]
    pub min_p: f32,
    /// Locally typical sampling; 1: off.
    #[arg(long, visible_alias = "typical-p", default_value_t = 1.0)]
    pub typical: f32,
    /// Keep logits at most this many standard deviations below the largest; negative: off.
    #[arg(long, visible_alias = "top-nsigma", default_value_t = -1.0, allow_negative_numbers = true)]
    pub top_n_sigma: f32,
    /// How often XTC removes the most likely tokens.
    #[arg(long, default_value_t = 0.0)]
    pub xtc_probability: f32,
    /// The probability from which XTC removes tokens.
    #[arg(long, default_value_t = 0.1)]
    pub xtc_threshold: f32,
    /// Range of the dynamic temperature; 0: off.
    #[arg(long, default_value_t = 0.0)]
    pub dynatemp_range: f32,
    /// Exponent of the dynamic temperature.
    #[arg(long, default_value_t = 1.0)]
    pub dynatemp_exp: f32,
    /// Tokens that the penalties look back on; -1: all.
    #[arg(long, default_value_t = 64, allow_negative_numbers = true)]
    pub repeat_last_n: i64,
    /// Penalty of tokens that came before; 1: off.
    #[arg(long, default_value_t = 1.0)]
    pub repeat_penalty: f32,
    /// Penalty for each time that a token came before.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub frequency_penalty: f32,
    /// Penalty of tokens that came before at all.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub presence_penalty: f32,
    /// Strength of DRY, which keeps whole phrases from repeating; 0: off.
    #[arg(long, default_value_t = 0.0)]
    pub dry_multiplier: f32,
    /// Base of DRY's penalty.
    #[arg(long, default_value_t = 1.75)]
    pub dry_base: f32,
    /// Tokens that may repeat before DRY's penalty.
    #[arg(long, default_value_t = 2)]
    pub dry_allowed_length: usize,
    /// Tokens that DRY looks back on; -1: all.
    #[arg(long, default_value_t = 64, allow_negative_numbers = true)]
    pub dry_penalty_last_n: i64,
    /// Mirostat: 2 uses version 2 in place of the other stages; 0: off.
    #[arg(long, default_value_t = 0)]
    pub mirostat: u32,
    /// Mirostat's target surprise.
    #[arg(long, default_value_t = 5.0)]
    pub mirostat_ent: f32,
    /// Mirostat's learning rate.
    #[arg(long, default_value_t = 0.1)]
    pub mirostat_lr: f32,
    /// Adds BIAS to the logit of a token, for example 15043+1 or 15043-inf.
    #[arg(short, long, value_name = "ID±BIAS", value_parser = parse_bias)]
    pub logit_bias: Vec<(u32, f32)>,
    /// The stages to apply, in this order [default:
    /// penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature].
    #[arg(long, value_name = "A;B;...", value_parser = parse_order)]
    pub samplers: Option<Order>,
    /// The same seed gives the same text on every machine; -1: a new one each time [default: -1].
    #[arg(short, long, allow_negative_numbers = true, value_parser = parse_seed)]
    pub seed: Option<Seed>,
}

/// Stages in order: an option with several values in one argument.
type Order = Vec<Stage>;

/// A seed, or none for a new one each time.
type Seed = Option<u64>;

impl SamplerArgs {
    /// The parameters.
    pub fn params(&self) -> SamplerParams {
        let last = |n: i64| usize::try_from(n).unwrap_or(usize::MAX);
        SamplerParams {
            seed: self.seed.flatten(),
            temp: self.temp,
            dynatemp_range: self.dynatemp_range,
            dynatemp_exponent: self.dynatemp_exp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typ_p: self.typical,
            top_n_sigma: self.top_n_sigma,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            penalty_last_n: last(self.repeat_last_n),
            penalty_repeat: self.repeat_penalty,
            penalty_freq: self.frequency_penalty,
            penalty_present: self.presence_penalty,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: self.dry_allowed_length,
            dry_penalty_last_n: last(self.dry_penalty_last_n),
            mirostat: self.mirostat,
            mirostat_tau: self.mirostat_ent,
            mirostat_eta: self.mirostat_lr,
            logit_bias: self.logit_bias.clone(),
            order: self.samplers.clone().unwrap_or_else(|| Stage::ALL.to_vec()),
            ..SamplerParams::default()
        }
    }
}

fn parse_kv(text: &str) -> Result<KvType, String> {
    KvType::from_name(text).ok_or_else(|| "one of f32, f16, q8_0, q4_0".into())
}

fn parse_bias(text: &str) -> Result<(u32, f32), String> {
    let usage = || format!("`{text}` is not a token id and a bias, such as 15043+1 or 15043-inf");
    let at = text.find(['+', '-']).ok_or_else(usage)?;
    let id = text[..at].parse().map_err(|_| usage())?;
    Ok((id, text[at..].parse().map_err(|_| usage())?))
}

fn parse_seed(text: &str) -> Result<Seed, String> {
    match text {
        "-1" => Ok(None),
        _ => {
            text.parse().map(Some).map_err(|_| format!("`{text}` is no number from 0, and not -1"))
        }
    }
}

/// A number of tokens; -1 means no limit, as in llama.cpp.
pub fn parse_count(text: &str) -> Result<usize, String> {
    match text {
        "-1" => Ok(usize::MAX),
        _ => text.parse().map_err(|_| format!("`{text}` is no number from 0, and not -1")),
    }
}

/// llama.cpp's names, and the spellings that it takes for them.
fn parse_order(text: &str) -> Result<Order, String> {
    let names = text.split(';').map(str::trim).filter(|name| !name.is_empty());
    let stages = names.map(|name| match name.to_ascii_lowercase().replace('-', "_").as_str() {
        "temp" => Ok(Stage::Temperature),
        "typical" | "typical_p" => Ok(Stage::Typical),
        "nucleus" => Ok(Stage::TopP),
        "top_nsigma" => Ok(Stage::TopNSigma),
        name => name.parse().map_err(|e: siskin::Error| e.to_string()),
    });
    stages.collect()
}

/// Bytes with a unit: `3500M`, `4G`, `1.5GiB`; a unit is a power of 1024.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no size such as 3500M"))?;
    let factor = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 1.0,
        "k" => 1024.0,
        "m" => 1024.0 * 1024.0,
        "g" => 1024.0 * 1024.0 * 1024.0,
        "t" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("`{unit}` is no unit; K, M, G and T are")),
    };
    Ok((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units() {
        assert_eq!(parse_bytes("512"), Ok(512));
        assert_eq!(parse_bytes("3500M"), Ok(3500 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert!(parse_bytes("12X").is_err());
        assert!(parse_bytes("M").is_err());
    }

    #[test]
    fn biases_take_a_sign() {
        assert_eq!(parse_bias("12+1.5"), Ok((12, 1.5)));
        assert_eq!(parse_bias("7-inf"), Ok((7, f32::NEG_INFINITY)));
        assert!(parse_bias("7").is_err());
    }

    #[test]
    fn minus_one_is_no_limit_and_no_seed() {
        assert_eq!(parse_count("-1"), Ok(usize::MAX));
        assert_eq!(parse_count("3"), Ok(3));
        assert!(parse_count("-2").is_err());
        assert_eq!(parse_seed("-1"), Ok(None));
        assert_eq!(parse_seed("18446744073709551615"), Ok(Some(u64::MAX)));
        assert!(parse_seed("x").is_err());
    }

    #[test]
    fn an_order_takes_the_spellings_of_llama_cpp() {
        let want = [Stage::TopK, Stage::Typical, Stage::Temperature];
        assert_eq!(parse_order("top_k;typ_p;temperature"), Ok(want.to_vec()));
        assert_eq!(parse_order("top-k; typical ;temp"), Ok(want.to_vec()));
        assert_eq!(parse_order(""), Ok(Vec::new()));
        assert!(parse_order("top_k;bottom_k").is_err_and(|e| e.contains("bottom_k")));
    }

    #[test]
    fn the_default_order_is_the_one_that_the_help_shows() {
        let names: Vec<_> = Stage::ALL.iter().map(|s| s.name()).collect();
        let command = SamplerArgs::augment_args(clap::Command::new("x"));
        let help = command.get_arguments().find(|a| a.get_id() == "samplers");
        let help = help.and_then(|a| a.get_help()).map(ToString::to_string).unwrap_or_default();
        assert!(help.contains(&names.join(";")), "{help}");
    }
}
