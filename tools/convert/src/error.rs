//! The one error type of this library.

use std::path::{Path, PathBuf};

/// What went wrong, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing a GGUF file, or running a model.
    #[error(transparent)]
    Siskin(#[from] siskin::Error),
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's content is not what it must be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Where in it, what was expected and what was found.
        reason: String,
    },
    /// A tensor is not what it must be.
    #[error("{}: tensor {tensor}: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in that file.
        tensor: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A parameter is outside what it can be.
    #[error("{0}")]
    Invalid(String),
    /// The runtime cannot run the model, so that nothing can be measured with it.
    #[error("the model cannot be run: {0}")]
    CannotRun(String),
    /// The caller wanted no more.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// [`Error::File`].
    pub fn file(path: &Path, reason: impl Into<String>) -> Error {
        Error::File { path: path.to_path_buf(), reason: reason.into() }
    }

    /// [`Error::Tensor`].
    pub fn tensor(path: &Path, tensor: impl Into<String>, reason: impl Into<String>) -> Error {
        let (path, tensor, reason) = (path.to_path_buf(), tensor.into(), reason.into());
        Error::Tensor { path, tensor, reason }
    }

    /// [`Error::Io`].
    pub fn io(path: &Path, source: std::io::Error) -> Error {
        Error::Io { path: path.to_path_buf(), source }
    }
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
