//! Siskin runs quantized language models in GGUF files on the CPU: to the same bits on every
//! instruction set, from one mapped copy of the weights, with errors where others abort.
//!
//! ```no_run
//! use siskin::chat::{ChatTemplate, Message, RenderOptions};
//! use siskin::{EncodeOptions, Engine, EngineOptions, GenerateOptions, Session, SessionOptions};
//!
//! fn main() -> siskin::Result<()> {
//!     let engine = Engine::load("model.gguf", &EngineOptions::default())?;
//!     let mut session = Session::new(&engine, &SessionOptions::default())?;
//!
//!     let template = engine.file().metadata().str("tokenizer.chat_template")?.unwrap_or_default();
//!     let template = ChatTemplate::new(template, "model.gguf")?;
//!     let text = template.render(&[Message::user("Hello!")], &RenderOptions::default())?;
//!
//!     let encode = EncodeOptions { add_special: true, parse_special: true };
//!     let prompt = engine.tokenizer().encode(&text, encode)?;
//!     let mut answer = session.stream(&prompt, &GenerateOptions::default())?;
//!     while let Some(piece) = answer.next_piece()? {
//!         print!("{piece}");
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What is where
//!
//! | | |
//! |---|---|
//! | [`Engine`] | a model that is ready to run: weights, tokenizer, kernels, threads; it never changes |
//! | [`Session`] | one sequence of tokens: its cache of keys and values, its buffers, its logits |
//! | [`Tokens`], [`TextStream`] | an answer, token by token or as text |
//! | [`gguf`] | reading and writing files |
//! | [`tokenizer`] | text to tokens and back |
//! | [`chat`] | messages to a prompt, by a model's template |
//! | [`sampler`] | logits to a token |
//! | [`model`] | the architectures, their numbers and weights, the memory plan |
//!
//! A layer knows only those below it: the model never sees text, the tokenizer never sees weights,
//! the sampler sees logits and the tokens so far. Each can be used by itself.
//!
//! # Memory
//!
//! The file is mapped, and there is no other copy of the weights. What else a session takes is
//! known before it is made ([`Engine::plan`]) and can be limited ([`EngineOptions::mem_limit`]);
//! [`Session::new`] then allocates all of it or returns [`Error::Memory`]. The pages of a long
//! context take memory only as positions are used. A decoded token allocates nothing.
//!
//! # Threads
//!
//! An engine has threads of its own, as many as there are physical cores unless told otherwise,
//! which sleep while nothing is asked. It is [`Send`] and [`Sync`]: clones are cheap and share
//! everything. A session can move to another thread and is used by one at a time; sessions of one
//! engine take turns on its threads. Neither the number of threads nor the size of batches changes
//! a bit of the result.
//!
//! # Cancelling
//!
//! [`Session::cancel_handle`] gives a handle by which any thread stops what the session computes,
//! within the layer at hand. The session keeps what was whole and can be used again.
//!
//! # What it does not do
//!
//! The library prints nothing, ends no process, installs no signal handler, and uses no network.
//! Bytes of any content, as a model, a template or text, give a result or an [`Error`].
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod chat;
mod cores;
mod engine;
mod error;
mod generate;
pub mod gguf;
mod memory;
pub mod model;
pub mod sampler;
mod session;
pub mod tokenizer;

pub use engine::{Engine, EngineOptions, kernel_levels};
pub use error::{Error, Result};
pub use generate::{Finish, GenerateOptions, TextStream, Tokens};
pub use model::{Hparams, MemoryPlan, SessionShape};
pub use session::{CancelHandle, LogitRows, Session, SessionOptions};
pub use siskin_quant::GgmlType;
pub use siskin_quant::attention::KvType;
pub use siskin_quant::limits::{Rate, ReadBuffer};
pub use tokenizer::{EncodeOptions, Tokenizer, TokenizerOptions};

/// What the front page says of threads.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    const fn moved<T: Send>() {}
    shared::<Engine>();
    shared::<CancelHandle>();
    moved::<Session>();
};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
