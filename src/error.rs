//! The one error type of the library.

use std::path::PathBuf;

/// What went wrong, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or mapped.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes of a GGUF file are not what the format allows.
    #[error("{}: at byte {offset}: {reason}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What was expected and what was found.
        reason: String,
    },
    /// A well-formed file does not describe a model that can be run.
    #[error("{}: {reason}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Which key or tensors, what was expected and what was found.
        reason: String,
    },
    /// The tokenizer of a model cannot be built, or text cannot be encoded with it.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template does not parse or fails on its input.
    #[error("chat template: {0}")]
    Template(String),
    /// A parameter is outside what it can be.
    #[error("{0}")]
    Invalid(String),
    /// A row of logits leaves no token to choose.
    #[error("{0}")]
    Logits(String),
    /// More tokens than the context holds.
    #[error(
        "context is full: {wanted} tokens wanted, {n_ctx} fit; raise the context length or shorten the prompt"
    )]
    Context {
        /// Tokens that the request would need.
        wanted: usize,
        /// Tokens that the session holds.
        n_ctx: usize,
    },
    /// The memory plan is larger than allowed.
    #[error("{0}")]
    Memory(String),
    /// The request was cancelled from another thread.
    #[error("cancelled")]
    Cancelled,
    /// Something that the library promises does not hold: a bug in Siskin.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
