//! What a user can set, and what each setting may be.

use crate::error::{Error, Result};

/// A stage of the chain, in the order of llama.cpp's default chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Repetition, frequency and presence penalties.
    Penalties,
    /// Don't repeat yourself.
    Dry,
    /// Top-n-sigma.
    TopNSigma,
    /// Top-k.
    TopK,
    /// Locally typical.
    Typical,
    /// Top-p.
    TopP,
    /// Min-p.
    MinP,
    /// Exclude top choices.
    Xtc,
    /// Temperature, fixed or dynamic.
    Temperature,
}

impl Stage {
    /// All stages, in the default order.
    pub const ALL: [Stage; 9] = [
        Stage::Penalties,
        Stage::Dry,
        Stage::TopNSigma,
        Stage::TopK,
        Stage::Typical,
        Stage::TopP,
        Stage::MinP,
        Stage::Xtc,
        Stage::Temperature,
    ];

    /// The name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Penalties => "penalties",
            Stage::Dry => "dry",
            Stage::TopNSigma => "top_n_sigma",
            Stage::TopK => "top_k",
            Stage::Typical => "typ_p",
            Stage::TopP => "top_p",
            Stage::MinP => "min_p",
            Stage::Xtc => "xtc",
            Stage::Temperature => "temperature",
        }
    }
}

impl std::str::FromStr for Stage {
    type Err = Error;

    fn from_str(name: &str) -> Result<Stage> {
        Stage::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| {
            let names: Vec<_> = Stage::ALL.iter().map(|s| s.name()).collect();
            Error::Invalid(format!("sampler stage {name:?}: must be one of {}", names.join(", ")))
        })
    }
}

/// How to choose the next token. Names, meanings and defaults are llama.cpp's.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerParams {
    /// The same seed gives the same tokens for the same logits. `None`: a new one each time.
    pub seed: Option<u64>,
    /// The temperature; 0 takes the most likely token (the lowest id of equals).
    pub temp: f32,
    /// How far the temperature may go to either side of `temp` by the entropy of the candidates;
    /// 0: not.
    pub dynatemp_range: f32,
    /// How entropy maps to the dynamic temperature.
    pub dynatemp_exponent: f32,
    /// Candidates to keep; 0: all.
    pub top_k: usize,
    /// Keep the most likely until their probabilities add up to this; 1: all.
    pub top_p: f32,
    /// Keep those at least this probable against the most likely; 0: all.
    pub min_p: f32,
    /// Keep the most typical until their probabilities add up to more than this; 1: all.
    pub typ_p: f32,
    /// Keep logits at most this many standard deviations below the largest; 0 or less: all.
    pub top_n_sigma: f32,
    /// How often XTC removes the most likely tokens; 0: never.
    pub xtc_probability: f32,
    /// XTC removes tokens of this probability or more, but the last of them; above 0.5: none.
    pub xtc_threshold: f32,
    /// Top-p, min-p, typical and XTC leave at least this many candidates.
    pub min_keep: usize,
    /// Tokens of the history that are penalized; 0: none, `usize::MAX`: all.
    pub penalty_last_n: usize,
    /// Divides the logits of these; 1: not.
    pub penalty_repeat: f32,
    /// Taken from their logits once for each occurrence.
    pub penalty_freq: f32,
    /// Taken from their logits once.
    pub penalty_present: f32,
    /// The penalty of DRY for the shortest repetition; 0: no DRY.
    pub dry_multiplier: f32,
    /// What each further token of repetition multiplies it by.
    pub dry_base: f32,
    /// The longest repetition without penalty.
    pub dry_allowed_length: usize,
    /// Tokens of the history in which repetitions are looked for; 0: none, `usize::MAX`: all.
    pub dry_penalty_last_n: usize,
    /// 2: Mirostat 2 in place of all stages but the logit bias and a fixed temperature; 0: not.
    pub mirostat: u32,
    /// Mirostat's target surprise in bits.
    pub mirostat_tau: f32,
    /// Mirostat's learning rate.
    pub mirostat_eta: f32,
    /// Added to the logits of these tokens before all else; `-inf` bans one.
    pub logit_bias: Vec<(u32, f32)>,
    /// The stages and their order. One that is not named is not applied.
    pub order: Vec<Stage>,
}

impl Default for SamplerParams {
    fn default() -> SamplerParams {
        SamplerParams {
            seed: None,
            temp: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typ_p: 1.0,
            top_n_sigma: -1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            min_keep: 0,
            penalty_last_n: 64,
            penalty_repeat: 1.0,
            penalty_freq: 0.0,
            penalty_present: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: 64,
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            logit_bias: Vec::new(),
            order: Stage::ALL.to_vec(),
        }
    }
}

impl SamplerParams {
    /// The defaults, but the most likely token at every step.
    pub fn greedy() -> SamplerParams {
        SamplerParams { temp: 0.0, ..Default::default() }
    }

    /// Whether [`DryBreakers`](super::DryBreakers) will be used: finding them takes a walk over
    /// the vocabulary.
    pub fn uses_dry(&self) -> bool {
        self.mirostat == 0
            && self.dry_multiplier != 0.0
            && self.dry_penalty_last_n > 0
            && self.order.contains(&Stage::Dry)
    }

    /// Whether the temperature leaves nothing to chance.
    pub(super) fn is_greedy(&self) -> bool {
        self.temp == 0.0 && (self.dynatemp_range == 0.0 || self.mirostat != 0)
    }

    /// Says which setting is outside its range, and what the range is.
    pub fn validate(&self, n_vocab: usize) -> Result<()> {
        let probability = |x: f32| (0.0..=1.0).contains(&x);
        let not_negative = |x: f32| x.is_finite() && x >= 0.0;
        let positive = |x: f32| x.is_finite() && x > 0.0;
        const PROBABILITY: &str = "from 0 to 1";
        const NOT_NEGATIVE: &str = "a finite number, 0 or more";
        const POSITIVE: &str = "a finite number above 0";
        const FINITE: &str = "a finite number";

        let checks = [
            ("temp", self.temp, not_negative(self.temp), NOT_NEGATIVE),
            (
                "dynatemp_range",
                self.dynatemp_range,
                not_negative(self.dynatemp_range),
                NOT_NEGATIVE,
            ),
            (
                "dynatemp_exponent",
                self.dynatemp_exponent,
                not_negative(self.dynatemp_exponent),
                NOT_NEGATIVE,
            ),
            ("top_p", self.top_p, probability(self.top_p), PROBABILITY),
            ("min_p", self.min_p, probability(self.min_p), PROBABILITY),
            ("typ_p", self.typ_p, probability(self.typ_p), PROBABILITY),
            ("top_n_sigma", self.top_n_sigma, self.top_n_sigma.is_finite(), FINITE),
            (
                "xtc_probability",
                self.xtc_probability,
                probability(self.xtc_probability),
                PROBABILITY,
            ),
            ("xtc_threshold", self.xtc_threshold, probability(self.xtc_threshold), PROBABILITY),
            (
                "penalty_repeat",
                self.penalty_repeat,
                positive(self.penalty_repeat) && (1.0 / self.penalty_repeat).is_finite(),
                POSITIVE,
            ),
            ("penalty_freq", self.penalty_freq, self.penalty_freq.is_finite(), FINITE),
            ("penalty_present", self.penalty_present, self.penalty_present.is_finite(), FINITE),
            ("dry_multiplier", self.dry_multiplier, self.dry_multiplier.is_finite(), FINITE),
            (
                "dry_base",
                self.dry_base,
                self.dry_base.is_finite() && self.dry_base >= 1.0,
                "a finite number, 1 or more",
            ),
            ("mirostat_tau", self.mirostat_tau, not_negative(self.mirostat_tau), NOT_NEGATIVE),
            ("mirostat_eta", self.mirostat_eta, not_negative(self.mirostat_eta), NOT_NEGATIVE),
        ];
        for (name, value, ok, range) in checks {
            if !ok {
                return Err(Error::Invalid(format!("{name} is {value}: must be {range}")));
            }
        }
        if !matches!(self.mirostat, 0 | 2) {
            return Err(Error::Invalid(format!(
                "mirostat is {}: must be 0 (off) or 2 (Mirostat 2)",
                self.mirostat
            )));
        }
        for &(token, bias) in &self.logit_bias {
            if token as usize >= n_vocab {
                return Err(Error::Invalid(format!(
                    "logit_bias names token {token}: must be below {n_vocab}, the vocabulary's size"
                )));
            }
            if bias.is_nan() {
                return Err(Error::Invalid(format!(
                    "logit_bias of token {token} is NaN: must be a number"
                )));
            }
        }
        Ok(())
    }
}
