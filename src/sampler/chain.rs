//! The chain itself.

use super::candidates::{Buffers, Row};
use super::dry::{Dry, DryBreakers};
use super::math::{self, weight};
use super::min_p::MinP;
use super::mirostat::Mirostat;
use super::params::{SamplerParams, Stage};
use super::penalties::Penalties;
use super::pick::draw;
use super::rng::Rng;
use super::temperature::{DynamicTemperature, Temperature};
use super::top_k::TopK;
use super::top_n_sigma::TopNSigma;
use super::top_p::TopP;
use super::typical::Typical;
use super::xtc::Xtc;
use crate::error::{Error, Result};

/// What a stage does.
pub(super) trait Apply: Send {
    /// Narrows or changes the candidates, knowing the tokens so far.
    fn apply(&mut self, row: &mut Row, history: &[u32]);

    /// Goes back to the state before the first token.
    fn reset(&mut self, _seed: u64) {}

    /// Makes room for a history of this length.
    fn reserve(&mut self, _n_history: usize) -> Result<()> {
        Ok(())
    }
}

/// The end of the chain.
enum Pick {
    Greedy,
    Draw,
    Mirostat(Mirostat),
}

/// Chooses tokens: the stages that [`SamplerParams`] asks for, their buffers and their random
/// numbers. See the [module](super) for an example.
pub struct Sampler {
    n_vocab: usize,
    seed: u64,
    bias: Vec<(u32, f32)>,
    stages: Vec<Box<dyn Apply>>,
    pick: Pick,
    rng: Rng,
    buffers: Buffers,
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler")
            .field("n_vocab", &self.n_vocab)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// XTC draws its own numbers, so that switching it on does not change what the final draw sees.
const XTC_STREAM: u64 = 0x5854_4300_0000_0000;

impl Sampler {
    /// A sampler for rows of `n_vocab` logits. The breakers matter only when
    /// [`SamplerParams::uses_dry`]; pass [`DryBreakers::none`] otherwise.
    pub fn new(params: &SamplerParams, n_vocab: usize, breakers: DryBreakers) -> Result<Sampler> {
        if n_vocab == 0 || u32::try_from(n_vocab).is_err() {
            return Err(Error::Invalid(format!(
                "a vocabulary of {n_vocab} tokens: must be from 1 to {}",
                u32::MAX
            )));
        }
        params.validate(n_vocab)?;
        let seed = params.seed.unwrap_or_else(Rng::entropy);
        let greedy = params.is_greedy();
        let (stages, pick) = if params.mirostat == 0 {
            let pick = if greedy { Pick::Greedy } else { Pick::Draw };
            (stages(params, n_vocab, breakers, seed)?, pick)
        } else {
            let SamplerParams { temp, mirostat_tau, mirostat_eta, .. } = *params;
            let stage: Box<dyn Apply> = Box::new(Temperature { temp });
            let stages = if greedy || temp == 1.0 { Vec::new() } else { vec![stage] };
            let mirostat = Pick::Mirostat(Mirostat::new(mirostat_tau, mirostat_eta));
            (stages, if greedy { Pick::Greedy } else { mirostat })
        };
        Ok(Sampler {
            n_vocab,
            seed,
            bias: params.logit_bias.clone(),
            stages,
            pick,
            rng: Rng::new(seed),
            buffers: Buffers::new(n_vocab)?,
        })
    }

    /// Chooses the token that follows `history`, the tokens so far, of which the penalties look at
    /// the last. Allocates nothing; with DRY over more than 4096 tokens, nothing after
    /// [`Sampler::reserve`].
    ///
    /// NaN counts as `-inf`. Fails when `logits` is not a row of the vocabulary's size, or when
    /// nothing in it can be chosen.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32> {
        let n_vocab = self.n_vocab;
        let mut row =
            narrow(&mut self.stages, &self.bias, &mut self.buffers, logits, history, n_vocab)?;
        let chosen = match &mut self.pick {
            Pick::Greedy => {
                if let Some(logits) = row.dense() {
                    let best = math::argmax(logits);
                    return best.map(|id| id as u32).ok_or_else(|| nothing(n_vocab));
                }
                row.keep_best(1);
                Some(0)
            }
            Pick::Draw => draw(&mut row, &mut self.rng).map(|(i, _)| i),
            Pick::Mirostat(mirostat) => mirostat.pick(&mut row, &mut self.rng),
        };
        chosen.and_then(|i| row.list().get(i)).map(|c| c.id).ok_or_else(|| nothing(n_vocab))
    }

    /// The tokens that [`Sampler::sample`] would draw from with the probability of each, most
    /// likely first. Draws nothing itself, but where XTC acts by chance this uses that chance up.
    pub fn distribution(&mut self, logits: &[f32], history: &[u32]) -> Result<Vec<(u32, f32)>> {
        let n_vocab = self.n_vocab;
        let mut row =
            narrow(&mut self.stages, &self.bias, &mut self.buffers, logits, history, n_vocab)?;
        match &self.pick {
            Pick::Greedy => row.keep_best(1),
            Pick::Draw => {}
            Pick::Mirostat(mirostat) => mirostat.narrow(&mut row),
        }
        let max = row.max();
        row.keep_best(n_vocab);
        let total = row.weight_sum(max);
        let list = row.list();
        if list.is_empty() {
            return Err(nothing(n_vocab));
        }
        Ok(list.iter().map(|c| (c.id, (f64::from(weight(c.logit, max)) / total) as f32)).collect())
    }

    /// Goes back to the state before the first token: the same seed, the same numbers again.
    pub fn reset(&mut self) {
        self.rng = Rng::new(self.seed);
        for stage in &mut self.stages {
            stage.reset(self.seed ^ XTC_STREAM);
        }
        if let Pick::Mirostat(mirostat) = &mut self.pick {
            mirostat.reset();
        }
    }

    /// Makes room for histories of up to `n_history` tokens, where DRY looks at more than 4096.
    ///
    /// # Errors
    /// [`Error::Memory`]
    pub fn reserve(&mut self, n_history: usize) -> Result<()> {
        self.stages.iter_mut().try_for_each(|stage| stage.reserve(n_history))
    }

    /// The seed, also when none was given.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// The stages that have something to do, in order.
fn stages(
    params: &SamplerParams,
    n_vocab: usize,
    breakers: DryBreakers,
    seed: u64,
) -> Result<Vec<Box<dyn Apply>>> {
    fn boxed<T: Apply + 'static>(stage: T) -> Option<Box<dyn Apply>> {
        Some(Box::new(stage))
    }

    let p = params;
    let greedy = p.is_greedy();
    let min_keep = p.min_keep;
    let mut stages = Vec::new();
    for &stage in &p.order {
        if greedy && stage == Stage::Temperature {
            // One candidate is left; what follows could not change it.
            break;
        }
        // These always keep the most likely token.
        let narrows = !greedy;
        let stage = match stage {
            Stage::Penalties => Penalties::new(p, n_vocab)?.and_then(boxed),
            Stage::Dry => Dry::new(p, n_vocab, breakers.clone())?.and_then(boxed),
            Stage::TopNSigma if narrows && p.top_n_sigma > 0.0 => {
                boxed(TopNSigma { n: p.top_n_sigma })
            }
            Stage::TopK if narrows && p.top_k > 0 && p.top_k < n_vocab => {
                boxed(TopK { k: p.top_k })
            }
            Stage::Typical if p.typ_p < 1.0 => boxed(Typical { p: p.typ_p, min_keep }),
            Stage::TopP if narrows && p.top_p < 1.0 => boxed(TopP { p: p.top_p, min_keep }),
            Stage::MinP if narrows && p.min_p > 0.0 => boxed(MinP::new(p.min_p, min_keep)),
            Stage::Xtc if p.xtc_probability > 0.0 && p.xtc_threshold <= 0.5 => boxed(Xtc {
                probability: p.xtc_probability,
                threshold: p.xtc_threshold,
                min_keep,
                rng: Rng::new(seed ^ XTC_STREAM),
            }),
            Stage::Temperature if p.dynatemp_range > 0.0 => boxed(DynamicTemperature {
                temp: p.temp,
                range: p.dynatemp_range,
                exponent: p.dynatemp_exponent,
            }),
            Stage::Temperature if p.temp != 1.0 => boxed(Temperature { temp: p.temp }),
            _ => None,
        };
        stages.extend(stage);
    }
    Ok(stages)
}

/// Runs the chain up to the pick.
fn narrow<'a>(
    stages: &mut [Box<dyn Apply>],
    bias: &[(u32, f32)],
    buffers: &'a mut Buffers,
    logits: &'a [f32],
    history: &[u32],
    n_vocab: usize,
) -> Result<Row<'a>> {
    if logits.len() != n_vocab {
        return Err(Error::Invalid(format!(
            "{} logits were given to a sampler for {n_vocab} tokens",
            logits.len()
        )));
    }
    let mut row = Row::new(logits, buffers);
    if !bias.is_empty()
        && let Some(logits) = row.dense_mut()
    {
        for &(token, bias) in bias {
            logits[token as usize] += bias;
        }
    }
    for stage in stages {
        stage.apply(&mut row, history);
    }
    Ok(row)
}

fn nothing(n_vocab: usize) -> Error {
    Error::Logits(format!(
        "no token can be chosen: each of the {n_vocab} logits is NaN or -inf, or was made so by \
         a bias or a penalty"
    ))
}
