//! A text in chunks of tokens, as llama.cpp's tools cut it: so that figures can be compared.

use std::path::Path;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use siskin::tokenizer::{EncodeOptions, Tokenizer};

use crate::args::{SessionArgs, read_text};

/// Tokens of a chunk if nobody says.
const DEFAULT_CTX: usize = 512;

/// A text's chunks.
pub struct Chunks {
    tokens: Vec<u32>,
    n_ctx: usize,
}

impl Chunks {
    /// Cuts the text at `path` into chunks of --ctx tokens, which becomes 512 if it is not given, and
    /// takes the first `chunks`. Each begins with BOS, if the model wants it, in place of its first
    /// token; what is left at the end is dropped.
    pub fn new(
        path: &Path,
        tokenizer: &Tokenizer,
        session: &mut SessionArgs,
        chunks: Option<usize>,
    ) -> anyhow::Result<Chunks> {
        let n_ctx = *session.ctx.get_or_insert(DEFAULT_CTX);
        if n_ctx < 4 {
            bail!("--ctx {n_ctx}: chunks of at least 4 tokens are of use");
        }
        if chunks == Some(0) {
            bail!("--chunks 0: nothing to do");
        }
        let encode = EncodeOptions { add_special: true, parse_special: false };
        let mut tokens = tokenizer.encode(&read_text(path)?, encode)?;
        let n = (tokens.len() / n_ctx).min(chunks.unwrap_or(usize::MAX));
        if n == 0 {
            let n = tokens.len();
            bail!("{} has {n} tokens, less than one chunk of {n_ctx}", path.display());
        }
        tokens.truncate(n * n_ctx);
        tokenizer.begin_chunks(&mut tokens, n_ctx);
        Ok(Chunks { tokens, n_ctx })
    }

    /// Tokens of each.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Where the second half of a chunk begins, which is scored.
    pub fn scored_from(&self) -> usize {
        self.n_ctx / 2
    }

    /// The chunks.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.tokens.chunks_exact(self.n_ctx)
    }

    /// A progress bar over them.
    pub fn progress(&self) -> anyhow::Result<ProgressBar> {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} chunks, {eta} left {msg}")?;
        Ok(ProgressBar::new(self.iter().len() as u64).with_style(style))
    }
}
