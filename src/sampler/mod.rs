//! From logits to a token: a chain of stages that each narrow or reshape the candidates, and a
//! draw at its end.
//!
//! The sampler sees logits and the tokens so far, nothing else: no text, no tokenizer, no model.
//! Stages, their order and their defaults are llama.cpp's, so that the settings that people share
//! for a model mean the same here. What differs is what has to, for the same seed to give the same
//! token on every machine: the generator ([`Rng`]), and arithmetic that is made of IEEE operations
//! in a fixed order, with `exp` and `ln` that are computed here and not by the platform.
//!
//! ```
//! use siskin::sampler::{DryBreakers, Sampler, SamplerParams};
//!
//! let params = SamplerParams { temp: 0.7, seed: Some(42), ..Default::default() };
//! let mut sampler = Sampler::new(&params, 4, DryBreakers::none())?;
//! let history = [0, 2];
//! let token = sampler.sample(&[1.0, 4.0, 0.5, f32::NEG_INFINITY], &history)?;
//! assert!(token < 3);
//! # Ok::<(), siskin::Error>(())
//! ```

mod candidates;
mod chain;
mod dry;
mod logprobs;
mod marks;
mod math;
mod min_p;
mod mirostat;
mod params;
mod penalties;
mod pick;
mod rng;
mod stop;
mod temperature;
mod top_k;
mod top_n_sigma;
mod top_p;
mod typical;
mod xtc;

pub use chain::Sampler;
pub use dry::{DRY_DEFAULT_BREAKERS, DryBreakers};
pub use logprobs::LogProbs;
pub use params::{SamplerParams, Stage};
pub use rng::Rng;
pub use stop::StopStrings;
