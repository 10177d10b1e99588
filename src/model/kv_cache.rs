//! The keys and values of a session, layer by layer.

use siskin_quant::attention::{KvError, KvLayer, KvShape};

use super::plan::SessionShape;
use crate::{Error, Hparams, Result};

/// One ring of positions for each layer. A layer with a window holds only the window and a batch.
pub struct KvCache {
    pub(crate) layers: Vec<KvLayer>,
    /// The end of the positions that were stored since position 0 was, in whatever layers: after a
    /// rewind, or a batch that failed, the rings hold what is before this and not what is before
    /// the sequence's end.
    stored: usize,
}

/// The shape of layer `layer`'s cache.
pub(crate) fn layer_shape(h: &Hparams, s: &SessionShape, layer: usize) -> KvShape {
    let window = h.windows[layer];
    KvShape {
        n_head_kv: h.n_head_kv,
        k_dim: h.k_dim,
        v_dim: h.v_dim,
        // Rounded up to whole chunks by the layer, which leaves room for the chunk's other end.
        capacity: window.saturating_add(s.n_batch).min(s.n_ctx),
        k_type: s.k_type,
        v_type: s.v_type,
    }
}

impl KvCache {
    /// Allocates; pages are touched as positions are used.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a type does not fit the model's heads; [`Error::Memory`].
    pub fn new(h: &Hparams, shape: &SessionShape) -> Result<KvCache> {
        let layer = |l| {
            KvLayer::new(&layer_shape(h, shape, l)).map_err(|error| match error {
                KvError::Shape(reason) => Error::Invalid(reason),
                KvError::Memory(error) => error.into(),
            })
        };
        Ok(KvCache { layers: (0..h.n_layer).map(layer).collect::<Result<_>>()?, stored: 0 })
    }

    /// Says that positions `pos..pos + n` are about to be stored.
    pub(crate) fn storing(&mut self, pos: usize, n: usize) {
        self.stored = if pos == 0 { n } else { self.stored.max(pos + n) };
    }

    /// Whether all that position `n` attends to is still there once the positions from `n` on are
    /// given up.
    pub(crate) fn can_rewind(&self, h: &Hparams, n: usize) -> bool {
        // The first position attends to none before it.
        let none_before = n == 0;
        none_before
            || self.layers.iter().zip(&h.windows).all(|(layer, window)| {
                let first = (n + 1).saturating_sub(*window);
                self.stored <= layer.capacity() || first >= self.stored - layer.capacity()
            })
    }
}
